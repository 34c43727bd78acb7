/* output_names.h: the names of all files that st-write writes. */
#ifndef OUTPUT_NAMES_H
#define OUTPUT_NAMES_H

#include "write/config.h"
#include "write/shards.h"

/* End the process if two of them are equal but for case or Unicode normalization: on many
 * filesystems (exFAT, SMB, macOS's, some of ZFS) they would be one file. */
void output_names_check(const struct shards *shards, struct ts_in *in,
                        const struct configs *configs);

#endif
