/* e4m3.h: FP8 E4M3 (the "FN" variant of NVIDIA, Arm and Intel's "FP8 Formats for Deep Learning",
 * arXiv 2209.05433): sign, 4 exponent bits with bias 7, 3 mantissa bits; largest value 448,
 * smallest 2^-9; no infinity; 0x7F and 0xFF are NaN. */
#ifndef E4M3_H
#define E4M3_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define E4M3_MAX 448.0f
#define E4M3_MIN_SUBNORMAL 0x1p-9f

/* The value of a code. NaN codes keep their sign. */
static inline float e4m3_to_f32(uint8_t code)
{
    unsigned exponent = code >> 3 & 15, mantissa = code & 7;
    float magnitude;
    if ((code & 0x7f) == 0x7f)
        magnitude = NAN;
    else if (exponent == 0)
        magnitude = (float)mantissa * 0x1p-9f;
    else {
        uint32_t bits = (uint32_t)(code & 0x7f) << 20; /* exponent and mantissa, at F32's place */
        bits += (127 - 7) << 23;                       /* rebias */
        memcpy(&magnitude, &bits, sizeof magnitude);
    }
    return copysignf(magnitude, code & 0x80 ? -1.0f : 1.0f);
}

/* The nearest code, ties to the even mantissa. Magnitudes beyond 448 (also infinity) saturate to
 * 448 with the sign kept; NaN gives 0x7F with the sign. */
static inline uint8_t e4m3_from_f32(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint8_t sign = (uint8_t)(bits >> 24 & 0x80);
    uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000)
        return sign | 0x7f;
    if (magnitude >= 0x43e00000) /* 448.0f and above */
        return sign | 0x7e;
    if (magnitude < 0x3c800000) { /* below 2^-6: multiples of 2^-9, rounded by the F32 adder */
        float shifted;
        memcpy(&shifted, &magnitude, sizeof shifted);
        shifted += 0x1p14f; /* its last place is 2^-9 */
        uint32_t rounded;
        memcpy(&rounded, &shifted, sizeof rounded);
        return sign | (uint8_t)(rounded & 0xff); /* 8 (2^-6) is the first normal code */
    }
    magnitude += 0x7ffff + (magnitude >> 20 & 1);         /* nearest even at bit 20 */
    uint32_t code = (magnitude >> 20) - ((127 - 7) << 3); /* rebias */
    return sign | (uint8_t)(code > 0x7e ? 0x7e : code);
}

#endif
