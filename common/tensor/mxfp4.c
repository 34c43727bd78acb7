#include "tensor/mxfp4.h"

#include "tensor/bf16.h"
#include "tensor/e2m1.h"
#include "tensor/e8m0.h"

/* For any scale: computes the sixteen possible values of a block once, then looks them up. */
static void unpack_block(uint16_t *out, const uint8_t *packed, uint8_t scale)
{
    uint16_t value[16];
    float s = e8m0_to_f32(scale);
    for (unsigned nibble = 0; nibble < 16; nibble++)
        value[nibble] = bf16_from_f32(e2m1_to_f32(nibble) * s);
    for (size_t i = 0; i < MXFP4_BLOCK / 2; i++) {
        out[2 * i] = value[packed[i] & 15];
        out[2 * i + 1] = value[packed[i] >> 4];
    }
}

/* A nibble times 2^k where 0.5 * 2^k is normal in BF16 and 6 * 2^k finite. Except for the codes of
 * 0 and 0.5, E2M1's exponent and mantissa are BF16's, rebiased. All in 16 bits, so that a vector
 * register holds many. */
static inline uint16_t shift_nibble(uint16_t nibble, uint16_t bias)
{
    uint16_t code = nibble & 7;
    uint16_t half = (uint16_t)((code == 1) << 6);
    uint16_t nonzero = (uint16_t)(0 - (code != 0)); /* a mask */
    uint16_t sign = (uint16_t)((nibble & 8) << 12);
    uint16_t magnitude = (uint16_t)((code << 6) + bias - half);
    return sign | (magnitude & nonzero);
}

static void shift_block(uint16_t *restrict out, const uint8_t *restrict packed, uint8_t scale)
{
    uint16_t bias = (uint16_t)((scale - 1) << 7); /* the exponent of 0.5 * 2^(scale - 127) */
    for (size_t i = 0; i < MXFP4_BLOCK / 2; i++) {
        out[2 * i] = shift_nibble(packed[i] & 15, bias);
        out[2 * i + 1] = shift_nibble(packed[i] >> 4, bias);
    }
}

void mxfp4_unpack_row(uint16_t *out, const uint8_t *packed, const uint8_t *scale, size_t cols)
{
    for (size_t block = 0; block < cols / MXFP4_BLOCK; block++) {
        if (scale[block] >= 2 && scale[block] <= 252)
            shift_block(out, packed, scale[block]);
        else
            unpack_block(out, packed, scale[block]);
        out += MXFP4_BLOCK;
        packed += MXFP4_BLOCK / 2;
    }
}
