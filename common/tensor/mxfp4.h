/* mxfp4.h: MXFP4 weights: E2M1 nibbles, two a byte (low = even column), with an E8M0 scale per 32
 * columns. Pure functions over rows; cols is a multiple of 32. */
#ifndef MXFP4_H
#define MXFP4_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MXFP4_BLOCK 32

/* One row to BF16: out[j] = bf16(e2m1 * 2^(scale[j / 32] - 127)). Exact except at the ends of the
 * range (infinite above, BF16 subnormals below); nibble 8 gives -0.0. packed: cols / 2 bytes;
 * scale: cols / 32 E8M0 codes, none of them 255 (callers refuse it); out: cols BF16 values. Source:
 * Model Optimizer, qtensor/mxfp4_tensor.py, MXFP4QTensor.dequantize. */
void mxfp4_unpack_row(uint16_t *out, const uint8_t *packed, const uint8_t *scale, size_t cols);

#endif
