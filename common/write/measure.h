/* measure.h: how fast a stream can be written where a checkpoint is to be. */
#ifndef MEASURE_H
#define MEASURE_H

#include <stdint.h>

#include "stream/ts.h"

struct measured {
    uint64_t bytes; /* of tensors that were written */
    double seconds; /* that this took, and until they were on the disk */
    double waiting; /* of these, for the stream */
};

/* Write the stream's tensors to a file without a name in `folder`, of which nothing is left, as
 * st-write would write them, until `seconds` have passed, `most` bytes are written, or the stream
 * ends. What the stream still brings is not read. Errors end the process. */
struct measured measure_writing(struct ts_in *in, const char *folder, double seconds,
                                uint64_t most);

#endif
