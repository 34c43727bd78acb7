/* stats.h: statistics of many elements: range, sum, zeros, histograms. Any number of threads add
 * pieces; the results are joined. Sums are rounded, so they depend on the order and size of the
 * pieces. */
#ifndef STATS_H
#define STATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tensor/dtype.h"

enum {
    STATS_EXPONENT_MIN = -1074, /* of doubles, including subnormals */
    STATS_EXPONENTS = 1074 + 1024,
    STATS_CODES = 16,
};

struct stats {
    uint64_t count, zeros, nan, infinite;
    double min, max, sum; /* of the finite elements, -0 as 0; min > max if there are none */
    uint64_t exponent[STATS_EXPONENTS]; /* non-zero finite elements in [2^k, 2^(k+1)) by magnitude,
                                         * k = i + STATS_EXPONENT_MIN */
    uint64_t code[STATS_CODES];         /* of elements that are bytes of two 4-bit codes */
};

/* The histogram to count. */
enum stats_histogram { STATS_NO_HISTOGRAM, STATS_BY_EXPONENT, STATS_BY_CODE };

/* Statistics of no elements. */
void stats_clear(struct stats *stats);

/* Add `count` elements of `dtype`, any but F4 (see elements.h). STATS_BY_CODE needs a dtype of one
 * byte. */
void stats_add(struct stats *stats, enum dtype dtype, const void *data, size_t count,
               enum stats_histogram histogram);

/* Add the elements of another. */
void stats_join(struct stats *stats, const struct stats *other);

#endif
