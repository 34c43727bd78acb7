/* stats.h: what range of values many elements have: counted piece by piece, by any number of
 * threads, and put together. The sums of pieces are rounded, so their order counts, and how the
 * elements were cut. */
#ifndef STATS_H
#define STATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tensor/dtype.h"

enum {
    STATS_EXPONENT_MIN = -1074, /* of doubles, subnormals too */
    STATS_EXPONENTS = 1074 + 1024,
    STATS_CODES = 16,
};

struct stats {
    uint64_t count, zeros, nan, infinite;
    double min, max, sum; /* of the finite ones, -0 as 0; min > max if there are none */
    uint64_t exponent[STATS_EXPONENTS]; /* finite ones, not 0, in [2^k, 2^(k+1)) by magnitude */
    uint64_t code[STATS_CODES];         /* of elements that are bytes of two 4-bit codes each */
};

/* What to count beside the values. */
enum stats_histogram { STATS_NO_HISTOGRAM, STATS_BY_EXPONENT, STATS_BY_CODE };

/* The range of no elements. */
void stats_clear(struct stats *stats);

/* Add `count` elements of `dtype`; STATS_BY_CODE wants a dtype of one byte. */
void stats_add(struct stats *stats, enum dtype dtype, const void *data, size_t count,
               enum stats_histogram histogram);

/* Add those of another. */
void stats_join(struct stats *stats, const struct stats *other);

#endif
