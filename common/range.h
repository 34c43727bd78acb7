/* range.h: what range of values many elements have: counted piece by piece, by any number of
 * threads, and put together. The sums of pieces are rounded, so their order counts, and how the
 * elements were cut. */
#ifndef RANGE_H
#define RANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dtype.h"

enum {
    RANGE_EXPONENT_MIN = -1074, /* of doubles, subnormals too */
    RANGE_EXPONENTS = 1074 + 1024,
    RANGE_CODES = 16,
};

struct range {
    uint64_t count, zeros, nan, infinite;
    double min, max, sum; /* of the finite ones, -0 as 0; min > max if there are none */
    uint64_t exponent[RANGE_EXPONENTS]; /* finite ones, not 0, in [2^k, 2^(k+1)) by magnitude */
    uint64_t code[RANGE_CODES];         /* of elements that are bytes of two 4-bit codes each */
};

/* What to count beside the values. */
enum range_histogram { RANGE_NONE, RANGE_BY_EXPONENT, RANGE_BY_CODE };

/* The range of no elements. */
void range_clear(struct range *range);

/* Add `count` elements of `dtype`; RANGE_BY_CODE wants a dtype of one byte. */
void range_add(struct range *range, enum dtype dtype, const void *data, size_t count,
               enum range_histogram histogram);

/* Add those of another. */
void range_join(struct range *range, const struct range *other);

#endif
