/* split.h: a value of F32 as the sum of three of BF16, exactly but for subnormal ones. A product of
 * values that are no BF16 is then one of BF16 with SPLIT times as many columns: the left side's are
 * [high, high, middle, middle, high, low], the right side's [high, middle, high, middle, low,
 * high]. The products left out are below 2^-24 of the largest. */
#ifndef SPLIT_H
#define SPLIT_H

#include "tensor/bf16.h"

enum { SPLIT = 6 };

struct split {
    uint16_t high, middle, low;
};

static inline struct split split_of(float value)
{
    struct split s = {.high = bf16_from_f32(value)};
    value -= bf16_to_f32(s.high);
    s.middle = bf16_from_f32(value);
    s.low = bf16_from_f32(value - bf16_to_f32(s.middle));
    return s;
}

/* Put a value's parts into element 0 of each part of a row; `cols` is the columns of a part. */
static inline void split_left(uint16_t *row, size_t cols, struct split s)
{
    row[0] = row[cols] = row[4 * cols] = s.high;
    row[2 * cols] = row[3 * cols] = s.middle;
    row[5 * cols] = s.low;
}

static inline void split_right(uint16_t *row, size_t cols, struct split s)
{
    row[0] = row[2 * cols] = row[5 * cols] = s.high;
    row[cols] = row[3 * cols] = s.middle;
    row[4 * cols] = s.low;
}

#endif
