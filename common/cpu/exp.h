/* exp.h: e^x, in loops that compilers vectorize, and what is made of it. */
#ifndef CPU_EXP_H
#define CPU_EXP_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/vectors.h"

/* Computed in double, so the result is the F32 that is nearest to e^x in all but one of a thousand
 * cases, and next to it in these. The same bits with all instruction sets, which a C library's
 * expf() does not promise. Infinities, NaN, overflow and subnormals as expf()'s.
 *
 * e^x = 2^k · 2^t, where k is x / ln 2 rounded and t the rest, from -1/2 to 1/2; 2^t is 1 plus t
 * times the polynomial that equals (2^t - 1) / t at the seven Chebyshev nodes. */
INLINE float exp_f32(float x)
{
    const double round =
        0x1.8p52; /* a sum with it has no bits behind the point, and k in its last */
    const uint32_t most = 0x43160000, infinity = 0x7f800000; /* most: 150, beyond either end */
    uint32_t sign, magnitude;
    memcpy(&magnitude, &x, sizeof magnitude);
    sign = magnitude & 0x80000000;
    magnitude -= sign;
    magnitude = magnitude - most <= infinity - most ? most : magnitude;
    magnitude |= sign;
    memcpy(&x, &magnitude, sizeof x);
    double z = (double)x * 0x1.71547652b82fep0;
    double shifted = z + round, t = z - (shifted - round), t2 = t * t;
    double low = (0x1.62e42fefa39efp-1 + t * 0x1.ebfbe045f4d3cp-3) +
                 t2 * (0x1.c6b08d883dca1p-5 + t * 0x1.3b2a1b7152befp-7);
    double high = (0x1.5d879ead06a82p-10 + t * 0x1.443fffc90db59p-13) + t2 * 0x1.00a581594758ep-16;
    double power = 1 + t * (low + t2 * t2 * high), scale;
    uint64_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 1023) << 52;
    memcpy(&scale, &bits, sizeof scale);
    return (float)(power * scale);
}

INLINE float sigmoid(float x)
{
    return 1 / (1 + exp_f32(-x));
}

INLINE void softmax(float *x, uint64_t count)
{
    float most = x[0], sum = 0;
    for (uint64_t j = 1; j < count; j++)
        most = fmaxf(most, x[j]);
    for (uint64_t j = 0; j < count; j++)
        x[j] = exp_f32(x[j] - most);
    for (uint64_t j = 0; j < count; j++)
        sum += x[j];
    for (uint64_t j = 0; j < count; j++)
        x[j] /= sum;
}

#endif
