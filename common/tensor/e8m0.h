/* e8m0.h: E8M0, a power of two as 8 exponent bits: 2^(code - 127); 255 is NaN (OCP Microscaling
 * Formats specification 1.0, 5.4.1). */
#ifndef E8M0_H
#define E8M0_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define E8M0_NAN 255
#define E8M0_BIAS 127

/* The value of a code; code 0 is the F32 subnormal 2^-127. */
static inline float e8m0_to_f32(uint8_t code)
{
    if (code == E8M0_NAN)
        return NAN;
    uint32_t bits = code ? (uint32_t)code << 23 : 1U << 22;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

#endif
