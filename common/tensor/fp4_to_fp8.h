/* fp4_to_fp8.h: MXFP4 weights as FP8 with a scale per 128 x 128 block, as DeepSeek's inference code
 * of V4 computes with them.
 *
 * E4M3 holds each value of E2M1 exactly, times a power of two from 2^-8 to 2^6. So a block's scale
 * is the largest of its MXFP4 scales divided by 2^6, and nothing is lost where no scale is less
 * than 2^-14 of the largest. Source: V4's inference/convert.py, cast_e2m1fn_to_e4m3fn(). Where the
 * largest scale is below 2^-121, the quotient is none of E8M0's powers, and that function's result
 * is too large: there, the scale here is 2^-127, and the values stay right. */
#ifndef FP4_TO_FP8_H
#define FP4_TO_FP8_H

#include <stddef.h>
#include <stdint.h>

enum { FP4_TO_FP8_BLOCK = 128 };

/* E4M3 codes of all E2M1 codes times 2^d for d from FP4_TO_FP8_LEAST on; below it, all are 0. */
enum { FP4_TO_FP8_LEAST = -12, FP4_TO_FP8_MOST = 6 };
struct fp4_to_fp8 {
    uint8_t code[FP4_TO_FP8_MOST - FP4_TO_FP8_LEAST + 1][16];
    uint16_t inexact[FP4_TO_FP8_MOST - FP4_TO_FP8_LEAST + 1]; /* a bit per E2M1 code */
};
void fp4_to_fp8_init(struct fp4_to_fp8 *tables);

/* The scales of a row of blocks. e8m0: 128 rows of cols / 32 E8M0 codes, none of them 255; scale:
 * cols / 128 E8M0 codes. cols is a multiple of 128. */
void fp4_to_fp8_scales(uint8_t *scale, const uint8_t *e8m0, size_t cols);

/* One row: out[j] = e4m3(e2m1 * 2^(e8m0[j / 32] - scale[j / 128])), -0 as 0. packed: cols / 2
 * bytes; e8m0: cols / 32; scale: by fp4_to_fp8_scales(). Returns how many blocks of 32 lost
 * something. */
size_t fp4_to_fp8_row(const struct fp4_to_fp8 *tables, uint8_t *out, const uint8_t *packed,
                      const uint8_t *e8m0, const uint8_t *scale, size_t cols);

#endif
