#include "tensor/activation.h"

#include <math.h>
#include <string.h>

#include "base/vectors.h"
#include "tensor/bf16.h"
#include "tensor/e2m1.h"
#include "tensor/e4m3.h"
#include "tensor/nvfp4.h"
#include "tensor/split.h"

INLINE uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

INLINE float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* 2^ceil(log2(value)) of a positive normal number, computed on its bits as in the reference. */
INLINE float power_above(float value)
{
    uint32_t bits = bits_of(value);
    return from_bits((bits & 0x7f800000) + ((bits & 0x7fffff) ? 0x800000 : 0));
}

INLINE float block_amax(const uint16_t *x, size_t count, float least)
{
    uint16_t most = 0;
    for (size_t i = 0; i < count; i++) {
        uint16_t magnitude = x[i] & 0x7fff;
        most = magnitude > most ? magnitude : most;
    }
    return fmaxf(bf16_to_f32(most), least);
}

/* e4m3_to_f32(e4m3_from_f32(value)) for |value| <= 448. It has no branch, so that loops over it
 * vectorize. */
INLINE float round_e4m3(float value)
{
    uint32_t bits = bits_of(value), magnitude = bits & 0x7fffffff;
    float small = from_bits(magnitude) + 0x1p14f; /* its last place is 2^-9 */
    uint32_t normal = (magnitude + 0x7ffff + (magnitude >> 20 & 1)) & 0xfff00000;
    uint32_t rounded = magnitude < 0x3c800000 ? bits_of(small - 0x1p14f) : normal;
    return from_bits(rounded | (bits & 0x80000000));
}

INLINE void round_fp8(uint16_t *y, const uint16_t *x, size_t count, float scale)
{
    for (size_t i = 0; i < count; i++)
        y[i] = bf16_from_f32(round_e4m3(bf16_to_f32(x[i]) / scale) * scale);
}

VECTORS(void, fp8_row, (uint16_t * y, const uint16_t *x, size_t cols, size_t block),
        (y, x, cols, block))
{
    for (size_t first = 0; first < cols; first += block) {
        size_t count = cols - first < block ? cols - first : block;
        float scale = power_above(block_amax(x + first, count, 1e-4f) * (1 / E4M3_MAX));
        round_fp8(y + first, x + first, count, scale);
    }
}

void activation_fp8_row(uint16_t *y, const uint16_t *x, size_t cols, size_t block)
{
    fp8_row(y, x, cols, block);
}

/* The scale of the block that begins at column `first`, and how many columns it has. */
static float real_scale(const uint16_t *x, size_t cols, size_t first, bool quotient, size_t *count)
{
    size_t left = cols - first;
    *count = left < ACTIVATION_FP8_BLOCK ? left : (size_t)ACTIVATION_FP8_BLOCK;
    float amax = block_amax(x + first, *count, 1e-4f);
    return quotient ? amax / E4M3_MAX : amax * (1 / E4M3_MAX);
}

void activation_fp8_real_row(uint16_t *y, const uint16_t *x, size_t cols)
{
    for (size_t first = 0, count; first < cols; first += count) {
        float scale = real_scale(x, cols, first, false, &count);
        round_fp8(y + first, x + first, count, scale);
    }
}

void activation_fp8_split_row(uint16_t *y, const uint16_t *x, size_t cols, bool quotient)
{
    for (size_t first = 0, count; first < cols; first += count) {
        float scale = real_scale(x, cols, first, quotient, &count);
        for (size_t i = first; i < first + count; i++) {
            float value = round_e4m3(bf16_to_f32(x[i]) / scale) * scale;
            split_left(y + i, cols, split_of(value));
        }
    }
}

float activation_fp8_encode_row(uint16_t *y, const uint16_t *x, size_t cols, bool power)
{
    float scale = block_amax(x, cols, 1e-4f) * (1 / E4M3_MAX);
    scale = power ? power_above(scale) : scale;
    for (size_t i = 0; i < cols; i++)
        y[i] = bf16_from_f32(round_e4m3(bf16_to_f32(x[i]) / scale));
    return scale;
}

void activation_fp4_row(uint16_t *y, const uint16_t *x, size_t cols)
{
    for (size_t first = 0; first < cols; first += ACTIVATION_FP4_BLOCK) {
        size_t count = cols - first < ACTIVATION_FP4_BLOCK ? cols - first : ACTIVATION_FP4_BLOCK;
        float amax = block_amax(x + first, count, E2M1_MAX * 0x1p-126f);
        float scale = power_above(amax * (1 / E2M1_MAX));
        for (size_t i = first; i < first + count; i++) {
            float q = bf16_to_f32(x[i]) / scale;
            y[i] = bf16_from_f32(e2m1_to_f32(e2m1_from_f32(q)) * scale);
        }
    }
}

void activation_nvfp4_row(uint16_t *y, const uint16_t *x, size_t cols, float scale_2, uint8_t *room)
{
    uint8_t *packed = room, *scale = room + cols / 2;
    nvfp4_pack_row(packed, scale, x, cols, scale_2);
    nvfp4_unpack_row(y, packed, scale, cols, scale_2);
}
