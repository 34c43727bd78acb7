/* last_look.h: what is checked of all shards, also of those that earlier runs wrote, before a
 * checkpoint appears: others may have been at work. What differs from its note ends the process. */
#ifndef LAST_LOOK_H
#define LAST_LOOK_H

#include "write/shards.h"

/* Look at the shards in DST.partial, of a whole checkpoint or of a part; and refuse all files that
 * are nobody's. That all shards are as they were when they were complete shows that no side file
 * was one of them under another name. Adds to `counts`, an array or NULL, how many matrices are all
 * zeros. */
void last_look(struct shards *shards, struct output_dir *output, struct ts_in *in, bool part,
               json_t **counts);

/* Look at the shards of all parts in `partial`, before they are joined; with `read`, byte for byte.
 * Adds to `counts` as above. */
void last_look_at_parts(struct shards *shards, const char *partial, struct ts_in *in, bool read,
                        json_t **counts);

#endif
