/* fit.h: whether what is to be written fits, as far as that is certain before the first byte. */
#ifndef FIT_H
#define FIT_H

#include "write/shards.h"

/* What does not fit, as a line that the caller frees; NULL if nothing is known not to. That is the
 * space, of which shards of earlier runs and of parts keep theirs, and bytes that are shared with
 * the source need none, unless `no_share`; and the size of a file, which the process or the
 * filesystem may limit. `free_bytes` are those of output_dir_free_bytes(). */
char *fit_shortage(const struct shards *shards, const struct output_dir *output, struct ts_in *in,
                   uint64_t free_bytes, bool no_share);

#endif
