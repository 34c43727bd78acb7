#include "tensor/nvfp4.h"

#include <math.h>
#include <string.h>

#include "tensor/bf16.h"
#include "tensor/e2m1.h"
#include "tensor/e4m3.h"
#include "tensor/e8m0.h"
#include "tensor/mxfp4.h"

float nvfp4_scale_2(double amax)
{
    return (float)(amax / (double)(E2M1_MAX * E4M3_MAX));
}

double nvfp4_amax(float scale_2)
{
    return (double)scale_2 * (double)(E2M1_MAX * E4M3_MAX);
}

static float block_amax(const uint16_t *w)
{
    /* BF16 magnitudes order as integers. */
    uint16_t largest = 0;
    for (size_t j = 0; j < NVFP4_BLOCK; j++)
        if ((w[j] & 0x7fff) > largest)
            largest = w[j] & 0x7fff;
    return bf16_to_f32(largest);
}

static uint8_t block_scale(float amax, float scale_2)
{
    if (!isfinite(amax))
        return NVFP4_NOT_FINITE;
    float s = amax / (E2M1_MAX * scale_2);
    if (s == 0)
        s = 1;
    return e4m3_from_f32(fminf(fmaxf(s, E4M3_MIN_SUBNORMAL), E4M3_MAX));
}

static void pack_block(uint8_t *packed, const uint16_t *w, float divisor)
{
    unsigned nibble[NVFP4_BLOCK];
    for (size_t j = 0; j < NVFP4_BLOCK; j++)
        nibble[j] = e2m1_from_f32(bf16_to_f32(w[j]) / divisor);
    for (size_t i = 0; i < NVFP4_BLOCK / 2; i++)
        packed[i] = (uint8_t)(nibble[2 * i] | nibble[2 * i + 1] << 4);
}

void nvfp4_scales_row(uint8_t *scale, const uint16_t *w, size_t cols, float scale_2)
{
    for (size_t block = 0; block < cols / NVFP4_BLOCK; block++)
        scale[block] = block_scale(block_amax(w + block * NVFP4_BLOCK), scale_2);
}

void nvfp4_nibbles_row(uint8_t *packed, const uint8_t *scale, const uint16_t *w, size_t cols,
                       float scale_2)
{
    for (size_t block = 0; block < cols / NVFP4_BLOCK; block++)
        pack_block(packed + block * NVFP4_BLOCK / 2, w + block * NVFP4_BLOCK,
                   e4m3_to_f32(scale[block]) * scale_2);
}

void nvfp4_pack_row(uint8_t *packed, uint8_t *scale, const uint16_t *w, size_t cols, float scale_2)
{
    nvfp4_scales_row(scale, w, cols, scale_2);
    nvfp4_nibbles_row(packed, scale, w, cols, scale_2);
}

/* The sixteen values of a block. Every magnitude is 1 or 1.5 times a power of two. So where all are
 * normal and finite, only s and 1.5 s need rounding. */
static void block_values(uint16_t *value, float s)
{
    if (!(s >= 0x1p-124f && s <= 0x1p124f)) {
        for (unsigned nibble = 0; nibble < 16; nibble++)
            value[nibble] = bf16_from_f32((nibble == 8 ? 0.0f : e2m1_to_f32(nibble)) * s);
        return;
    }
    unsigned one = bf16_from_f32(s), more = bf16_from_f32(1.5f * s), twice = 1 << 7;
    const unsigned magnitude[8] = {
        0, one - twice, one, more, one + twice, more + twice, one + 2 * twice, more + 2 * twice};
    for (unsigned code = 0; code < 8; code++) {
        value[code] = (uint16_t)magnitude[code];
        value[code + 8] = (uint16_t)(magnitude[code] | 0x8000);
    }
    value[8] = 0;
}

void nvfp4_unpack_row(uint16_t *out, const uint8_t *packed, const uint8_t *scale, size_t cols,
                      float scale_2)
{
    for (size_t block = 0; block < cols / NVFP4_BLOCK; block++) {
        uint16_t value[16];
        block_values(value, e4m3_to_f32(scale[block]) * scale_2);
        for (size_t i = 0; i < NVFP4_BLOCK / 2; i++) {
            *out++ = value[*packed & 15];
            *out++ = value[*packed++ >> 4];
        }
    }
}

int nvfp4_cast_k_max(const uint8_t *e8m0, size_t n)
{
    uint8_t largest = 0;
    for (size_t i = 0; i < n; i++)
        if (e8m0[i] > largest)
            largest = e8m0[i];
    return largest - E8M0_BIAS;
}

float nvfp4_cast_scale_2(int k)
{
    return ldexpf(1.0f, k - 8);
}

static bool below_range(uint8_t e8m0, int k)
{
    return k - (e8m0 - E8M0_BIAS) > NVFP4_CAST_RANGE;
}

static bool above_range(uint8_t e8m0, int k)
{
    return e8m0 - E8M0_BIAS > k;
}

/* How often the magnitudes of sixteen nibbles can be doubled; more often than there are exponents
 * if all are 0. */
static int doublings(const uint8_t *packed)
{
    static const int by_largest[8] = {255, 3, 2, 2, 1, 1, 0, 0};
    unsigned largest = 0;
    for (size_t i = 0; i < NVFP4_BLOCK / 2; i++) {
        unsigned low = packed[i] & 7, high = packed[i] >> 4 & 7;
        largest = low > largest ? low : largest;
        largest = high > largest ? high : largest;
    }
    return by_largest[largest];
}

int nvfp4_cast_k_row(const uint8_t *packed, const uint8_t *e8m0, size_t blocks, int least)
{
    for (size_t half = 0; half < 2 * blocks; half++, packed += NVFP4_BLOCK / 2) {
        int k = e8m0[half / 2] - E8M0_BIAS;
        if (k > least && k - doublings(packed) > least)
            least = k - doublings(packed);
    }
    return least;
}

bool nvfp4_cast_any_out_of_range(const uint8_t *e8m0, size_t n, int k)
{
    uint8_t least = UINT8_MAX, most = 0;
    for (size_t i = 0; i < n; i++) {
        least = e8m0[i] < least ? e8m0[i] : least;
        most = e8m0[i] > most ? e8m0[i] : most;
    }
    return n && (below_range(least, k) || above_range(most, k));
}

size_t nvfp4_cast_below_range(const uint8_t *e8m0, size_t n, int k)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += e8m0[i] != 0 && below_range(e8m0[i], k);
    return count;
}

void nvfp4_cast_scales_row(uint8_t *scale, const uint8_t *e8m0, size_t blocks, int k,
                           struct nvfp4_cast_count *count)
{
    count->blocks += blocks;
    for (size_t block = 0; block < blocks; block++) {
        bool below = below_range(e8m0[block], k), above = above_range(e8m0[block], k);
        int exponent = below ? -9 : above ? 8 : e8m0[block] - E8M0_BIAS - k + 8;
        /* 2^e in E4M3: a normal code from 2^-6 up, below that a single mantissa bit */
        uint8_t code = (uint8_t)(exponent >= -6 ? (exponent + 7) << 3 : 1 << (exponent + 9));
        scale[2 * block] = scale[2 * block + 1] = code;
        count->rewrite += below || above;
        count->lossy += below && e8m0[block] != 0;
    }
}

/* Sixteen nibbles at a time: every 8 becomes 0. */
static void drop_negative_zeros(uint8_t *packed)
{
    const uint64_t ones = 0x1111111111111111;
    uint64_t nibbles;
    memcpy(&nibbles, packed, sizeof nibbles);
    uint64_t other = nibbles ^ 8 * ones; /* 0 where the nibble is 8 */
    uint64_t differs = (other | other >> 1 | other >> 2 | other >> 3) & ones;
    nibbles &= ~((differs ^ ones) << 3);
    memcpy(packed, &nibbles, sizeof nibbles);
}

void nvfp4_cast_nibbles_row(uint8_t *packed, const uint8_t *e8m0, size_t blocks, int k,
                            bool zero_positive)
{
    float scale_2 = nvfp4_cast_scale_2(k);
    for (size_t block = 0; block < blocks; block++, packed += MXFP4_BLOCK / 2) {
        bool above = above_range(e8m0[block], k);
        if (above || below_range(e8m0[block], k)) {
            uint16_t w[MXFP4_BLOCK];
            mxfp4_unpack_row(w, packed, &e8m0[block], MXFP4_BLOCK);
            for (size_t half = 0; half < 2; half++)
                pack_block(packed + half * NVFP4_BLOCK / 2, w + half * NVFP4_BLOCK,
                           (above ? 256 : E4M3_MIN_SUBNORMAL) * scale_2);
        } else if (zero_positive) {
            for (size_t i = 0; i < MXFP4_BLOCK / 2; i += sizeof(uint64_t))
                drop_negative_zeros(packed + i);
        }
    }
}

bool nvfp4_cast_overflows_row(const uint8_t *packed, const uint8_t *e8m0, size_t blocks)
{
    for (size_t block = 0; block < blocks; block++, packed += MXFP4_BLOCK / 2) {
        if (e8m0[block] < 253)
            continue;
        uint16_t w[MXFP4_BLOCK];
        mxfp4_unpack_row(w, packed, &e8m0[block], MXFP4_BLOCK);
        for (size_t j = 0; j < MXFP4_BLOCK; j++)
            if (bf16_not_finite(w[j]))
                return true;
    }
    return false;
}
