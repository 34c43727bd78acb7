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
 * Errors are computed in F32, in an order that all versions keep: they make the same choices. A
 * quotient within rounding of halfway between two codes may count as either of them. Otherwise as
 * scale_search.h. */
#ifndef HESSIAN_SEARCH_H
#define HESSIAN_SEARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tensor/nvfp4.h"

/* What is known of the inputs of a block of columns. */
struct block_moments {
    float h[NVFP4_BLOCK][NVFP4_BLOCK]; /* H; its largest element is 1 */
    float least[NVFP4_BLOCK];          /* eᵀHe is at least the sum of least · e² */
    bool known;                        /* false: H is zero */
};

/* From H, 16 x 16 finite numbers, symmetric, with none below 0 on the diagonal. */
void block_moments_prepare(struct block_moments *moments, const float *h);

/* moments: cols / 16. A block of which nothing is known gets nvfp4_scales_mse_row()'s scale. */
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
