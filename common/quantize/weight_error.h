/* weight_error.h: how far quantization moved weights, counted by layer while it happens.
 *
 * The error of a matrix is the sum of the squares of what changed, divided by the sum of the
 * squares of the weights, over every WEIGHT_ERROR_EVERY-th row, which costs little time. A stage
 * counts, by the path of the layer, the matrices, as "weight_error_of", and their errors, in 10^-9,
 * as "weight_error". */
#ifndef WEIGHT_ERROR_H
#define WEIGHT_ERROR_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "stream/ts.h"

enum { WEIGHT_ERROR_EVERY = 64 };

/* True if a row is one of those. */
static inline bool weight_error_wants(uint64_t row)
{
    return row % WEIGHT_ERROR_EVERY == 0;
}

/* Add a row of BF16 values as it was and as it is, to sums over a band: changes and weights. `cols`
 * is a multiple of NVFP4's block. */
void weight_sums_add(double sum[2], const uint16_t *before, const uint16_t *after, size_t cols);

/* Count a matrix with its sums; nothing outside of layers. */
void weight_error_count(struct ts_out *out, const struct model *model, const struct place *place,
                        const double sum[2]);

struct weight_error {
    uint64_t matrices;
    double relative; /* the square root of their mean error: 0.1 is 20 dB of SQNR */
};

/* What all stages counted of the layer at `path`; false if nothing. */
bool weight_error_find(struct weight_error *error, const json_t *counts, const char *path);

#endif
