/* ts_in.h: private to the reading half of ts.h (ts_open.c, ts_in.c, ts_held.c). */
#ifndef TS_IN_H
#define TS_IN_H

#include "stream/checkpoint.h"
#include "stream/tar_in.h"
#include "stream/ts.h"

struct ts_in {
    char *opened; /* the path, or "<stdin>" */
    char *name;   /* for messages: that, or the header's source */
    const struct stage *stage;
    struct checkpoint checkpoint; /* table, side files, sources; a stream fills them in */
    json_t *header;
    struct tar_in *tar; /* NULL: a checkpoint on disk */
    struct progress *progress;
    json_t *end;
    json_t *counts;  /* by shard, of entries not taken yet, or NULL */
    json_t *counted; /* by stage, of all entries */
    bool plan_only;
    size_t next; /* the next line */

    const struct tensor *tensor; /* the current one */
    bool by_reference;
    size_t source;
    uint64_t offset; /* of its bytes in the source */
    uint64_t done;   /* bytes of it that were read */
    size_t held_memory;
};

/* The location of the `size` bytes of entry `name` from `text`, its reference. An invalid reference
 * ends the process. */
void ts_in_reference(struct ts_in *in, const char *name, const char *text, uint64_t size,
                     size_t *source, uint64_t *offset);

/* Begin progress for `total` bytes, if tensors are wanted. */
void ts_in_progress(struct ts_in *in, uint64_t total);

#endif
