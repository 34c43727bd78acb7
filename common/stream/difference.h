/* difference.h: where and by how much the elements of two tensors differ: counted piece by piece,
 * by any number of threads, and put together in order. */
#ifndef DIFFERENCE_H
#define DIFFERENCE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tensor/dtype.h"

/* What was found out about some elements of A and B. All 0 for none. */
struct difference {
    uint64_t elements, differing;
    uint64_t first;            /* the index of the first that differs, if any does; */
    json_t *value_a, *value_b; /* its values, which belong to this; NULL if none differs */
    double max_error;          /* max |A - B|; infinite if a NaN or an infinity differs */
    double signal, noise;      /* sums of A^2 and of (A - B)^2, where these are finite */
    bool other_bytes;          /* by difference_add_bytes() */
};

/* Add the next `count` elements: `x` of dtype_a, `y` of dtype_b. With `exact` they are the same if
 * their bits are (the dtypes must be equal), else if their numbers are: -0 equals 0, NaN equals
 * NaN. Integers of one dtype are always compared exactly. */
void difference_add(struct difference *d, enum dtype dtype_a, const void *x, enum dtype dtype_b,
                    const void *y, size_t count, bool exact);

/* Add `size` bytes of tensors that have different forms: are they the same? */
void difference_add_bytes(struct difference *d, const void *a, const void *b, size_t size);

/* Add what was found out about the elements that come next, whose values this takes over. */
void difference_join(struct difference *d, struct difference *next);

/* The signal-to-quantization-noise ratio 10 log10(signal / noise) in dB; noise must not be 0. */
double difference_sqnr(const struct difference *d);

/* Free the values, and begin again. */
void difference_clear(struct difference *d);

#endif
