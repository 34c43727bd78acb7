/* embedding.h: embeddings of tokens, each row read from the stream's tensor when it is needed: most
 * of a large vocabulary never is. */
#ifndef EMBEDDING_H
#define EMBEDDING_H

#include "forward/device.h"
#include "forward/network.h"
#include "model/weights.h"

struct embedding {
    struct ts_held *held; /* NULL: not needed, and not open */
    const struct tensor *tensor;
    const struct weight *weight;
    int fd; /* of its file, for threads that read beside the stream's; -1 if it is inline */
    const char *path;
    uint64_t offset;
    double seconds; /* spent on reading so far */
};

/* See that the tensor is in the table of `in` in the right shape, or the process ends. */
void embedding_check(const struct network *n, struct ts_in *in, const struct weights *weights);

/* Read `in` up to the tensor, which must come before all that is wanted (by line of the table), and
 * hold it. */
void embedding_open(struct embedding *e, const struct network *n, struct ts_in *in,
                    const struct weights *weights, const bool *wanted);
void embedding_close(struct embedding *e);

/* y [rows, dim] BF16 = the embeddings of as many ids. */
void embedding_read(struct embedding *e, struct device *d, struct mat y, const int32_t *id);

#endif
