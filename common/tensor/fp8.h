/* fp8.h: DeepSeek's FP8 weights: E4M3 elements with one scale per block of block x block
 * (128 x 128) elements. Pure functions over rows. */
#ifndef FP8_H
#define FP8_H

#include <stddef.h>
#include <stdint.h>

/* One row to BF16: out[j] = bf16(f32(w[j]) * scale[j / block]): the product is rounded to F32, then
 * to BF16, nearest even. w: cols E4M3 codes; scale: the ceil(cols / block) F32 scales of the row's
 * blocks; out: cols BF16 values. An E4M3 NaN gives 0x7FC0 with its sign. Returns the number of NaN
 * codes in w. Source: DeepSeek-V3 inference/kernel.py, weight_dequant. */
size_t fp8_dequant_row(uint16_t *out, const uint8_t *w, const float *scale, size_t cols,
                       size_t block);

/* The row's values, which are f32(w[j]) * scale[j / block] in F32, split: out [SPLIT * cols], the
 * right side of a product (see split.h). */
void fp8_split_row(uint16_t *out, const uint8_t *w, const float *scale, size_t cols, size_t block);

/* One row of BF16 values to E4M3 with one scale: out[j] = e4m3(bf16(f32(w[j]) / scale)), each
 * rounded to nearest even, beyond 448 saturated. The quotient is rounded to BF16, as in Model
 * Optimizer's examples/deepseek/deepseek_v3/quantize_to_nvfp4.py, where PyTorch divides BF16 by an
 * F32 scalar. */
void fp8_pack_row(uint8_t *out, const uint16_t *w, float scale, size_t cols);

#endif
