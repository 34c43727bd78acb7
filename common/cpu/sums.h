/* sums.h: sums over a row, in double and rounded once to F32: this is closest to every order of F32
 * sums. They are taken in LANES partial sums, which compilers vectorize without changing the order.
 */
#ifndef CPU_SUMS_H
#define CPU_SUMS_H

#include <stdint.h>

#include "base/vectors.h"
#include "tensor/bf16.h"

enum { LANES = 32 };

/* double name(parameters): the sum of `term` for j = 0 … count - 1. A term is an expression in j,
 * and `count` a parameter. */
#define SUM(name, parameters, term)                                                                \
    INLINE double name parameters                                                                  \
    {                                                                                              \
        double lane[LANES] = {0}, sum = 0;                                                         \
        uint64_t j = 0;                                                                            \
        for (uint64_t end = LANES; end <= count; end += LANES)                                     \
            for (uint64_t i = 0; i < LANES; i++, j++)                                              \
                lane[i] += (term);                                                                 \
        for (uint64_t i = 0; j < count; i++, j++)                                                  \
            lane[i] += (term);                                                                     \
        for (uint64_t i = 0; i < LANES; i++)                                                       \
            sum += lane[i];                                                                        \
        return sum;                                                                                \
    }

INLINE double square(double x)
{
    return x * x;
}

SUM(sum_of_squares, (const uint16_t *x, uint64_t count), square((double)bf16_to_f32(x[j])))

INLINE float mean_square(const uint16_t *x, uint64_t count)
{
    return (float)sum_of_squares(x, count) / (float)count;
}

#endif
