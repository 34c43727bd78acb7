/* activation.h: the effect of quantized activations on a product: each block of a row is quantized
 * and dequantized again. Pure functions over rows of BF16; y may be x.
 *
 * The scales of FP8 and FP4 are powers of two. So the results are exact in BF16, and one BF16
 * product of them computes what a product of the codes would. Sources: DeepSeek-V4's
 * inference/kernel.py (act_quant, fp4_act_quant), Model Optimizer's qtensor/nvfp4_tensor.py. */
#ifndef ACTIVATION_H
#define ACTIVATION_H

#include <stddef.h>
#include <stdint.h>

enum { ACTIVATION_FP4_BLOCK = 32 };

/* E4M3 per `block` columns with the scale 2^ceil(log2(amax/448)), where amax is at least 1e-4. The
 * last block may be shorter. */
void activation_fp8_row(uint16_t *y, const uint16_t *x, size_t cols, size_t block);

/* E2M1 per 32 columns with the scale 2^ceil(log2(amax/6)), where amax is at least 6 * 2^-126. The
 * last block may be shorter. */
void activation_fp4_row(uint16_t *y, const uint16_t *x, size_t cols);

/* NVFP4 (see nvfp4.h) with scale_2 > 0, the checkpoint's input_scale. cols is a multiple of 16.
 * room: cols bytes of working memory. */
void activation_nvfp4_row(uint16_t *y, const uint16_t *x, size_t cols, float scale_2,
                          uint8_t *room);

#endif
