/* difference.h: where and by how much the elements of two tensors differ. Any number of threads
 * count differences piece by piece; the results are joined in order. */
#ifndef DIFFERENCE_H
#define DIFFERENCE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tensor/dtype.h"

/* The differences between some elements of A and B. All 0 for none. */
struct difference {
    uint64_t elements, differing;
    uint64_t first;            /* index of the first differing element, if any; … */
    json_t *value_a, *value_b; /* … its values, owned; NULL if none differs */
    double max_error;          /* max |A - B|; infinite where a NaN or infinity differs */
    double signal, noise;      /* sums of A^2 and of (A - B)^2 over finite values */
    bool other_bytes;          /* set by difference_add_bytes() */
};

/* Add the next `count` elements: `x` of dtype_a, `y` of dtype_b. With `exact` they are equal if
 * their bits are (the dtypes must be the same); otherwise if their values are: -0 equals 0, NaN
 * equals NaN. Integers of the same dtype are always compared exactly. */
void difference_add(struct difference *d, enum dtype dtype_a, const void *x, enum dtype dtype_b,
                    const void *y, size_t count, bool exact);

/* Compare `size` bytes of tensors that have different forms; sets other_bytes if they differ. */
void difference_add_bytes(struct difference *d, const void *a, const void *b, size_t size);

/* Add the differences of the elements that follow. Takes over the values of *next. */
void difference_join(struct difference *d, struct difference *next);

/* The signal-to-quantization-noise ratio 10 log10(signal / noise) in dB; noise must not be 0. */
double difference_sqnr(const struct difference *d);

/* Free the values and reset to all 0. */
void difference_clear(struct difference *d);

#endif
