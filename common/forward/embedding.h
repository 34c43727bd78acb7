/* embedding.h: embeddings of tokens. Each row is read from the stream's tensor when it is needed:
 * most of a large vocabulary never is. */
#ifndef EMBEDDING_H
#define EMBEDDING_H

#include "forward/device.h"
#include "forward/network.h"
#include "forward/row_table.h"
#include "model/weights.h"

struct embedding {
    struct row_table table;
    struct ts_held *held; /* NULL: not needed, not open */
    double seconds;       /* spent on reading so far */
};

/* Check that the table of `in` has the tensor in the right shape; end the process if not. */
void embedding_check(const struct network *n, struct ts_in *in, const struct weights *weights);

/* Read `in` up to the tensor, and hold it. It must come before all wanted tensors (by line of the
 * table). */
void embedding_open(struct embedding *e, const struct network *n, struct ts_in *in,
                    const struct weights *weights, const bool *wanted);
void embedding_close(struct embedding *e);

/* y [rows, dim] BF16 = the embeddings of id[0 … rows - 1]. */
void embedding_read(struct embedding *e, struct device *d, struct mat y, const int32_t *id);

#endif
