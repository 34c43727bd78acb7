/* codec_x86.h: what codec.c and the versions for x86 share; nobody else looks here. */
#ifndef CODEC_X86_H
#define CODEC_X86_H

#include "tensor/codec.h"

#ifdef __x86_64__

#include <immintrin.h>

#define AVX2 __attribute__((target("avx2")))

extern const struct codec codec_avx2, codec_avx512;

/* Goes through a table block by block, which wider registers do not make faster. */
void recode_row_avx2(uint8_t *out, uint8_t *scale, const struct recode *recode,
                     const uint8_t *packed, const uint8_t *e8m0, size_t blocks);

#endif

#endif
