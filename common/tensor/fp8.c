#include "tensor/fp8.h"

#include "tensor/bf16.h"
#include "tensor/e4m3.h"
#include "tensor/split.h"

/* The value of a code that is not NaN, without a branch and without F32 subnormals, which are slow.
 * Exponent and mantissa move into place and are rebiased. A subnormal is first read as if it had
 * the smallest normal exponent and a hidden bit, 2^-6, which is then subtracted. Exact. */
static inline float finite_to_f32(uint8_t code)
{
    uint32_t subnormal = (code & 0x78) == 0;
    uint32_t bits = ((uint32_t)(code & 0x7f) << 20) + ((120 + subnormal) << 23);
    uint32_t hidden_bits = -subnormal & 0x3c800000;
    float magnitude, hidden;
    memcpy(&magnitude, &bits, sizeof magnitude);
    memcpy(&hidden, &hidden_bits, sizeof hidden);
    magnitude -= hidden;
    memcpy(&bits, &magnitude, sizeof bits);
    bits |= (uint32_t)(code & 0x80) << 24;
    memcpy(&magnitude, &bits, sizeof magnitude);
    return magnitude;
}

/* Columns that share one scale, converted as if none were NaN; returns the number of NaNs. */
static size_t dequant_run(uint16_t *restrict out, const uint8_t *restrict w, float scale, size_t n)
{
    uint32_t nan = 0;
    for (size_t j = 0; j < n; j++) {
        out[j] = bf16_from_f32(finite_to_f32(w[j]) * scale);
        nan += (w[j] & 0x7f) == 0x7f;
    }
    return nan;
}

size_t fp8_dequant_row(uint16_t *out, const uint8_t *w, const float *scale, size_t cols,
                       size_t block)
{
    size_t nan = 0;
    for (size_t first = 0; first < cols; first += block) {
        size_t n = cols - first < block ? cols - first : block;
        size_t found = dequant_run(out + first, w + first, scale[first / block], n);
        for (size_t j = first; found && j < first + n; j++)
            if ((w[j] & 0x7f) == 0x7f)
                out[j] = (uint16_t)((unsigned)(w[j] & 0x80) << 8 | 0x7fc0);
        nan += found;
    }
    return nan;
}

void fp8_split_row(uint16_t *out, const uint8_t *w, const float *scale, size_t cols, size_t block)
{
    for (size_t j = 0; j < cols; j++)
        split_right(out + j, cols, split_of(finite_to_f32(w[j]) * scale[j / block]));
}

void fp8_pack_row(uint8_t *out, const uint16_t *w, float scale, size_t cols)
{
    for (size_t j = 0; j < cols; j++)
        out[j] = e4m3_from_f32(bf16_to_f32(bf16_from_f32(bf16_to_f32(w[j]) / scale)));
}
