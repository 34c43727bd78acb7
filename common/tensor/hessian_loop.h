/* hessian_loop.h: the search of hessian_search.h over the codes of one block, for each version to
 * include. It defines before
 *
 *     TARGET                              an attribute of functions
 *     struct block                        16 weights in units of scale_2; has a float amax
 *     load_block(&block, w, unit)         from BF16, times unit; amax is not finite if one is not
 *     code_error(&block, moments, s, enough)   eᵀHe under the scale s; or infinity if it is above
 *                                              `enough` at least
 *     zeros_cost(&block, moments, s)           what it costs at least under s and all larger ones,
 *                                              which round to 0 what s does
 *     clipping_cost(&block, moments, s)        and under s and all smaller ones, which clip at
 *                                              least as much
 *
 * and gets search_row(). */
#include <math.h>

#include "tensor/e4m3.h"
#include "tensor/scale_search.h"

TARGET static inline uint8_t least_error(const struct block *block,
                                         const struct block_moments *moments)
{
    float six = fminf(fmaxf(block->amax / 6, E4M3_MIN_SUBNORMAL), E4M3_MAX), least = INFINITY;
    unsigned first = e4m3_from_f32(six), best = first;
    for (unsigned code = first; code <= 0x7e; code++) {
        float s = e4m3_to_f32((uint8_t)code), error = code_error(block, moments, s, least);
        if (error < least) {
            least = error;
            best = code;
        }
        if (block->amax <= s / 4 || zeros_cost(block, moments, s) > least)
            break;
    }
    for (unsigned code = first - 1; code > 0; code--) {
        float s = e4m3_to_f32((uint8_t)code);
        if (clipping_cost(block, moments, s) > least)
            break;
        float error = code_error(block, moments, s, least);
        if (error <= least) {
            least = error;
            best = code;
        }
    }
    return (uint8_t)best;
}

TARGET static inline void search_row(uint8_t *scale, const uint16_t *w, size_t cols, float scale_2,
                                     const struct block_moments *moments)
{
    if (!scale_search_possible(scale_2)) {
        nvfp4_scales_row(scale, w, cols, scale_2);
        return;
    }
    const float unit = 1 / scale_2;
    for (; cols >= NVFP4_BLOCK; cols -= NVFP4_BLOCK, w += NVFP4_BLOCK, moments++, scale++) {
        struct block block;
        if (!moments->known) {
            nvfp4_scales_mse_row(scale, w, NVFP4_BLOCK, scale_2);
            continue;
        }
        load_block(&block, w, unit);
        if (!isfinite(block.amax))
            *scale = NVFP4_NOT_FINITE;
        else
            *scale = block.amax == 0 ? e4m3_from_f32(1) : least_error(&block, moments);
    }
}
