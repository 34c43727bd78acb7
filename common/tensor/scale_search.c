#include "tensor/scale_search.h"

#include <math.h>
#include <string.h>

#include "tensor/bf16.h"
#include "tensor/e2m1.h"
#include "tensor/e4m3.h"
#include "tensor/nvfp4.h"

enum scale_search scale_search_named(const char *name)
{
    return !strcmp(name, "mse")       ? SEARCH_MSE
           : !strcmp(name, "4over6")  ? SEARCH_FOUR_OVER_SIX
           : !strcmp(name, "hessian") ? SEARCH_HESSIAN
                                      : SEARCH_MAX;
}

float scale_search_scale_2(enum scale_search search, float amax)
{
    return search == SEARCH_FOUR_OVER_SIX ? amax / (E2M1_MAX * 256) : nvfp4_scale_2(amax);
}

/* ---- the error of a block under a scale ---- */

struct block {
    uint16_t m[NVFP4_BLOCK]; /* magnitudes; 65535 is the largest */
    float amax;              /* the largest, in units of scale_2 */
};

static void load_block(struct block *block, const uint16_t *w, float amax, float unit)
{
    float factor = 65534 / fmaxf(amax, SEARCH_AMAX_LEAST);
    for (size_t j = 0; j < NVFP4_BLOCK; j++)
        block->m[j] = (uint16_t)(int32_t)(bf16_to_f32(w[j] & 0x7fff) * factor + 1);
    block->amax = amax * unit;
}

/* Half of the sum of squared errors, in squares of 2^-FINE_BITS quarters; or part of it, if that is
 * `enough` already. */
static float block_error(const struct block *block, unsigned code, unsigned bits, float enough)
{
    static const uint16_t nearest[64] = {SEARCH_NEAREST_16, SEARCH_NEAREST_32, SEARCH_NEAREST_64};
    float s = e4m3_to_f32((uint8_t)code), unit = bits == FINE_BITS ? s * s : s * s * 64, error = 0;
    float factor =
        block->amax * (bits == FINE_BITS ? SEARCH_FACTOR(FINE_BITS) : SEARCH_FACTOR(COARSE_BITS));
    factor *= 4 / s;
    uint32_t multiplier = (uint32_t)(int32_t)((factor < 65535 ? factor : 65535) + 0.5f);
    uint32_t sum = 0;
    for (size_t j = 0; j < NVFP4_BLOCK && error < enough; j += 4) {
        for (size_t i = j; i < j + 4; i++) {
            uint32_t y = block->m[i] * multiplier >> 16;
            uint32_t lost = y - ((uint32_t)nearest[y >> bits] << bits);
            sum += lost * lost;
        }
        error = (float)(int32_t)(sum >> 1) * unit;
    }
    return error;
}

/* The part of that which a magnitude of y quarters above 24 has. */
static float clipping_error(float y, float s)
{
    float error = (y - 4 * E2M1_MAX) * (1 << FINE_BITS);
    return error * error * 0.5f * (s * s);
}

/* ---- the searches ---- */

/* The code of the least scale with 7 s >= amax. */
static unsigned first_code(float amax)
{
    float least = fminf(fmaxf(amax / 7, E4M3_MIN_SUBNORMAL), E4M3_MAX);
    unsigned code = e4m3_from_f32(least);
    return code + (e4m3_to_f32((uint8_t)code) < least);
}

/* If no magnitude is above 7 s, none gets a nearer value under 2 s: the values of 2 s up to 6 s are
 * values of s, too, and from 6 s to 7 s both have 6 s as the nearest. So no code needs a look whose
 * half is a code from `first` on. Below `first`, a code and all lower ones are no better once
 * clipping the largest costs as much as the best. */
static uint8_t least_error(const struct block *block)
{
    unsigned first = first_code(block->amax), last = first < 8 ? 15 : first + 7, best = first;
    if (block->amax > 7 * E4M3_MAX)
        return 0x7e;
    float least = INFINITY;
    for (unsigned code = first; code <= last && code <= 0x7e; code++) {
        float error = block_error(block, code, FINE_BITS, least);
        if (error < least) {
            least = error;
            best = code;
        }
    }
    for (unsigned code = first - 1; code > 0; code--) {
        float s = e4m3_to_f32((uint8_t)code), y = block->amax * (4 / s);
        if (!(clipping_error(y, s) < least && y < SEARCH_QUARTERS))
            break;
        float error = block_error(block, code, COARSE_BITS, least);
        if (error < least) {
            least = error;
            best = code;
        }
    }
    return (uint8_t)best;
}

static uint8_t four_or_six(const struct block *block)
{
    float s = fmaxf(block->amax / E2M1_MAX, E4M3_MIN_SUBNORMAL);
    uint8_t six = e4m3_from_f32(fminf(s, E4M3_MAX));
    uint8_t four = e4m3_from_f32(fminf(s * 1.5f, E4M3_MAX));
    float with_six = block_error(block, six, FINE_BITS, INFINITY);
    return block_error(block, four, FINE_BITS, with_six) < with_six ? four : six;
}

static void search_row(uint8_t *scale, const uint16_t *w, size_t cols, float scale_2,
                       uint8_t (*search)(const struct block *block))
{
    if (!scale_search_possible(scale_2)) {
        nvfp4_scales_row(scale, w, cols, scale_2);
        return;
    }
    const float unit = 1 / scale_2;
    for (; cols >= NVFP4_BLOCK; cols -= NVFP4_BLOCK, w += NVFP4_BLOCK) {
        struct block block;
        uint16_t largest = 0; /* BF16 magnitudes order as integers */
        for (size_t j = 0; j < NVFP4_BLOCK; j++)
            largest = (w[j] & 0x7fff) > largest ? w[j] & 0x7fff : largest;
        if (bf16_not_finite(largest)) {
            *scale++ = NVFP4_NOT_FINITE;
            continue;
        }
        load_block(&block, w, bf16_to_f32(largest), unit);
        *scale++ = block.amax == 0 ? e4m3_from_f32(1) : search(&block);
    }
}

void nvfp4_scales_mse_row(uint8_t *scale, const uint16_t *w, size_t cols, float scale_2)
{
    search_row(scale, w, cols, scale_2, least_error);
}

void nvfp4_scales_four_over_six_row(uint8_t *scale, const uint16_t *w, size_t cols, float scale_2)
{
    search_row(scale, w, cols, scale_2, four_or_six);
}
