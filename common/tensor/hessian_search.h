/* hessian_search.h: NVFP4 block scales that are chosen by the error of a product's output, where
 * nvfp4_scales_mse_row() goes by that of the weights alone.
 *
 * With e, what quantization adds to a row of weights, and an input x, the output is wrong by e · x.
 * Over many inputs the mean of its square is eᵀHe, H the mean of x xᵀ. Only the 16 x 16 parts of H
 * on its diagonal count here, one per block of columns: so each block's scale is chosen alone.
 *
 * Source: Model Optimizer, model_calib.py (local_hessian_calibrate) and its recipe
 * nvfp4_w4a4_weight_local_hessian: the least eᵀHe over the 126 positive E4M3 values, the lowest of
 * equal ones, with plain squared errors where nothing is known of the inputs.
 *
 * With H = L Lᵀ, eᵀHe is the sum of the squares of Lᵀe: it only grows from one column of L to the
 * next, so a scale is given up as soon as that is above the best. 16 blocks are searched at a time,
 * one in each lane of a vector.
 *
 * Errors are computed in F32, in an order that all versions keep: they make the same choices. A
 * quotient within rounding of halfway between two codes may count as either of them. Otherwise as
 * scale_search.h. */
#ifndef HESSIAN_SEARCH_H
#define HESSIAN_SEARCH_H

#include <stddef.h>
#include <stdint.h>

#include "tensor/nvfp4.h"

enum { HESSIAN_LANES = 16, HESSIAN_FACTORS = NVFP4_BLOCK * (NVFP4_BLOCK + 1) / 2 };

/* What is known of the inputs of HESSIAN_LANES blocks of columns. Each block has its columns in an
 * order of its own, in which L grows least. */
struct block_moments {
    /* By column of L, each from its diagonal on, the columns one after the other. H's largest
     * element is 1. */
    float factor[HESSIAN_FACTORS][HESSIAN_LANES];
    float least[NVFP4_BLOCK][HESSIAN_LANES];    /* eᵀHe is at least the sum of least · e² */
    int32_t column[NVFP4_BLOCK][HESSIAN_LANES]; /* the one of the 16 · HESSIAN_LANES that it is */
    uint32_t known;                             /* a bit per lane: H is not zero */
};

/* How many of them `blocks` blocks have; the last one's other lanes are not known. */
static inline size_t block_moments_count(size_t blocks)
{
    return (blocks + HESSIAN_LANES - 1) / HESSIAN_LANES;
}

/* From H of each block, 16 x 16 finite numbers, symmetric, with none below 0 on the diagonal. */
void block_moments_prepare(struct block_moments *moments, const float *h, size_t blocks);

/* moments: of the row's blocks. One of which nothing is known gets nvfp4_scales_mse_row()'s scale.
 */
void nvfp4_scales_hessian_row(uint8_t *scale, const uint16_t *w, size_t cols, float scale_2,
                              const struct block_moments *moments);

/* ---- for the versions ---- */

/* Magnitudes, in units of scale_2, are cut off here, far above 6 * 448: scales must still differ
 * in what they clip of it. */
#define HESSIAN_MOST 0x1p16f

/* y in 0 to 6 is rounded to E2M1, ties to even, by adding and subtracting this times the power of
 * two in it, at least 1: then the last place of the sum is the distance between two values there.
 */
#define HESSIAN_ROUND 0x1.8p22f

#endif
