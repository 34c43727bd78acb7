/* codec_x86.h: what codec.c and the x86 versions share. For these files only. */
#ifndef CODEC_X86_H
#define CODEC_X86_H

#include "tensor/codec.h"

#ifdef __x86_64__

#include <immintrin.h>

#define AVX2 __attribute__((target("avx2")))
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl")))

extern const struct codec codec_avx2, codec_avx512;

/* Looks up block by block in a table, which wider registers do not speed up. */
void recode_row_avx2(uint8_t *out, uint8_t *scale, const struct recode *recode,
                     const uint8_t *packed, const uint8_t *e8m0, size_t blocks);

void scales_hessian_row_avx2(uint8_t *scale, const uint16_t *w, size_t cols, float scale_2,
                             const struct block_moments *moments);
void scales_hessian_row_avx512(uint8_t *scale, const uint16_t *w, size_t cols, float scale_2,
                               const struct block_moments *moments);

#endif

#endif
