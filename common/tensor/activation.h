/* activation.h: the effect of quantized activations on a product: each block of a row is quantized
 * and dequantized again. Pure functions over rows of BF16; y may be x.
 *
 * Where the scales of FP8 and FP4 are powers of two, the results are exact in BF16, and one BF16
 * product of them computes what a product of the codes would. Sources: inference/kernel.py of
 * DeepSeek-V4 (act_quant, fp4_act_quant), V3 and V3.2 (act_quant without scale_fmt), Model
 * Optimizer's qtensor/nvfp4_tensor.py. */
#ifndef ACTIVATION_H
#define ACTIVATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ACTIVATION_FP4_BLOCK = 32, ACTIVATION_FP8_BLOCK = 128 };

/* E4M3 per `block` columns with the scale 2^ceil(log2(amax/448)), where amax is at least 1e-4. The
 * last block may be shorter. */
void activation_fp8_row(uint16_t *y, const uint16_t *x, size_t cols, size_t block);

/* E4M3 per 128 columns with the scale amax · (1/448) in F32, where amax is at least 1e-4; rounded
 * to BF16. The last block may be shorter. */
void activation_fp8_real_row(uint16_t *y, const uint16_t *x, size_t cols);

/* The same values, not rounded but split: y [SPLIT * cols] (see split.h), which is not x.
 * `quotient`: with the scale amax / 448. */
void activation_fp8_split_row(uint16_t *y, const uint16_t *x, size_t cols, bool quotient);

/* E4M3 with one scale, amax · (1/448) or, if `power`, 2^ceil(log2(amax/448)), where amax is at
 * least 1e-4: y = the codes' values. Returns the scale. */
float activation_fp8_encode_row(uint16_t *y, const uint16_t *x, size_t cols, bool power);

/* E2M1 per 32 columns with the scale 2^ceil(log2(amax/6)), where amax is at least 6 * 2^-126. The
 * last block may be shorter. */
void activation_fp4_row(uint16_t *y, const uint16_t *x, size_t cols);

/* NVFP4 (see nvfp4.h) with scale_2 > 0, the checkpoint's input_scale. cols is a multiple of 16.
 * room: cols bytes of working memory. */
void activation_nvfp4_row(uint16_t *y, const uint16_t *x, size_t cols, float scale_2,
                          uint8_t *room);

#endif
