/* completed.h: a checkpoint at DST that is complete already, since the same command made it. */
#ifndef COMPLETED_H
#define COMPLETED_H

#include "stream/ts.h"
#include "write/output_dir.h"

/* True if DST is a checkpoint that the same run made, so that nothing is left to do but, with
 * `verify`, to compare its tensors. The stream is then read to its end, so that no earlier stage
 * fails; else it stays as it is. A checkpoint of another run, or, unless its tensors are compared,
 * of another user ends the process. */
bool completed_by_stream(struct output_dir *output, struct ts_in *in, bool verify,
                         const struct stage *stage);

/* The same for --join, which has no stream to compare. With `overwrite`, parts that are to replace
 * such a checkpoint must be there, or the process ends. */
bool completed_by_join(const struct output_dir *output, bool overwrite);

#endif
