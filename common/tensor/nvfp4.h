/* nvfp4.h: NVFP4 weights: E2M1 nibbles, two a byte (low = even column), an E4M3 block scale per 16
 * columns, and an F32 scale per tensor (scale_2). Pure functions over rows; cols is a multiple of
 * 16. All arithmetic is F32; each operation is rounded, subnormals are kept.
 *
 * Sources: Model Optimizer, qtensor/nvfp4_tensor.py (NVFP4QTensor), utils/numeric_utils.py, and
 * examples/deepseek/deepseek_v4/quantize_to_nvfp4.py (_quantize_weight_nvfp4_lossless). */
#ifndef NVFP4_H
#define NVFP4_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NVFP4_BLOCK 16

/* scale_2 = amax / (6 * 448), rounded once. It also turns an input amax into input_scale. */
float nvfp4_scale_2(double amax);

/* The amax of which nvfp4_scale_2() makes exactly this scale; few fit into F32. */
double nvfp4_amax(float scale_2);

/* The block scales of one row. w: cols BF16 values; scale_2 > 0; scale: cols / 16 E4M3 codes out.
 * Per block s = block_amax / (6 * scale_2), 0 becomes 1, clamped to [2^-9, 448], rounded to E4M3.
 * A block that holds NaN or an infinity, which cannot be packed, gives NVFP4_NOT_FINITE. */
#define NVFP4_NOT_FINITE 0x7f /* the E4M3 code of NaN */
void nvfp4_scales_row(uint8_t *scale, const uint16_t *w, size_t cols, float scale_2);

/* The nibbles of one row under given block scales: e2m1(w / (f32(scale) * scale_2)). packed: cols /
 * 2 bytes out. */
void nvfp4_nibbles_row(uint8_t *packed, const uint8_t *scale, const uint16_t *w, size_t cols,
                       float scale_2);

/* nvfp4_scales_row(), then nvfp4_nibbles_row(). */
void nvfp4_pack_row(uint8_t *packed, uint8_t *scale, const uint16_t *w, size_t cols, float scale_2);

/* One row to BF16: out[j] = bf16(e2m1 * (f32(scale[j / 16]) * scale_2)); nibble 8 gives +0.0, as
 * the reference does. */
void nvfp4_unpack_row(uint16_t *out, const uint8_t *packed, const uint8_t *scale, size_t cols,
                      float scale_2);

/* The lossless cast of MXFP4. k_j = e8m0 - 127 is the exponent of a 32-block; k_max is the largest
 * over the non-zero scale bytes of a fused group; k, the exponent that the group shares, is k_max
 * or less. With scale_2 = 2^(k - 8) and block scale 2^(k_j - k + 8), the nibbles stay bit for bit
 * as long as k - k_j is in 0 ... NVFP4_CAST_RANGE. */
#define NVFP4_CAST_RANGE 17

/* k_max of n E8M0 codes: the largest, minus 127 (-127 if all are zero). None is 255. */
int nvfp4_cast_k_max(const uint8_t *e8m0, size_t n);

/* The least k, or `least` if that is more, under which no block of a row is above the range, or can
 * be written without loss as if its k_j were k: its nibbles are so small that a power of two times
 * as much is an E2M1 value as well. */
int nvfp4_cast_k_row(const uint8_t *packed, const uint8_t *e8m0, size_t blocks, int least);

/* True if one of n E8M0 codes is out of range, so that its block's nibbles must change. */
bool nvfp4_cast_any_out_of_range(const uint8_t *e8m0, size_t n, int k);

/* The number of E8M0 codes below the range that are not 0. */
size_t nvfp4_cast_below_range(const uint8_t *e8m0, size_t n, int k);

/* scale_2 = 2^(k - 8); subnormal below k = -118. */
float nvfp4_cast_scale_2(int k);

/* Counts of a cast, which callers sum over rows. */
struct nvfp4_cast_count {
    uint64_t blocks;  /* 32-blocks */
    uint64_t lossy;   /* of these, below the range with a non-zero scale byte */
    uint64_t rewrite; /* of these, out of range with any byte: their nibbles must change */
};

/* The block scales of one row: scale[2 * b] = scale[2 * b + 1] = the E4M3 code of
 * 2^(k_j - k + 8), or of 2^-9 where k_j is below the range, 2^8 where it is above. e8m0: blocks
 * codes in; scale: 2 * blocks codes out. Adds to *count. */
void nvfp4_cast_scales_row(uint8_t *scale, const uint8_t *e8m0, size_t blocks, int k,
                           struct nvfp4_cast_count *count);

/* The nibbles of one row, in place. Blocks out of range are quantized again with the clamped scale,
 * as in the reference; all others stay. With zero_positive, nibble 8 (-0.0) becomes 0 everywhere,
 * the reference's sign rule. packed: 16 bytes a block. */
void nvfp4_cast_nibbles_row(uint8_t *packed, const uint8_t *e8m0, size_t blocks, int k,
                            bool zero_positive);

/* True if some element of the row is infinite in BF16 (such as 4 * 2^126): such a weight cannot be
 * cast. Only scale codes of 253 and above can cause that. */
bool nvfp4_cast_overflows_row(const uint8_t *packed, const uint8_t *e8m0, size_t blocks);

#endif
