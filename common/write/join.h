/* join.h: make one checkpoint of its parts (parts.h): all but the shards, which move up. */
#ifndef JOIN_H
#define JOIN_H

#include "write/config.h"
#include "write/output_dir.h"
#include "write/parts.h"
#include "write/shards.h"

struct join {
    struct parts parts;
    struct shards *shards; /* of all parts */
    struct configs configs;
    struct copier copier; /* of the shards */
};

/* Read the tables of all parts in DST.partial, which form the whole's. join_end() frees the
 * content, so it must not move before. Parts that do not belong together end the process. */
void join_begin(struct join *join, const struct output_dir *output);

/* Check that all shards are in place (last_look.h: with `read`, byte for byte; `counts`) and that
 * nothing of the checkpoint is missing, and begin the journal. The other files can be written
 * then. */
void join_check(struct join *join, struct output_dir *output, bool read, json_t **counts);

/* All but the shards is written: note that only they are left to move (parts_move_up()). */
void join_end(struct join *join, struct output_dir *output);

#endif
