/* bf16.h: bfloat16, the upper half of an F32. */
#ifndef BF16_H
#define BF16_H

#ifdef __FAST_MATH__
#error "every operation must round, and keep NaN and subnormals: build without -ffast-math"
#endif

#include <stdint.h>
#include <string.h>

/* Exact. */
static inline float bf16_to_f32(uint16_t bits)
{
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

/* Rounds to nearest, ties to even. Overflow gives infinity, subnormals are kept, any NaN gives
 * 0x7FC0 with its sign. No branches, so that compilers vectorize it. */
static inline uint16_t bf16_from_f32(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    uint32_t nan = (bits >> 16 & 0x8000) | 0x7fc0;
    return (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? nan : rounded);
}

/* True for NaN and both infinities. */
static inline int bf16_not_finite(uint16_t bits)
{
    return (bits & 0x7f80) == 0x7f80;
}

#endif
