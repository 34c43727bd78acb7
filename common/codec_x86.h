/* codec_x86.h: what codec.c and the versions for x86 share; nobody else looks here. */
#ifndef CODEC_X86_H
#define CODEC_X86_H

#include "codec.h"

#ifdef __x86_64__

#include <immintrin.h>
#include <string.h>

#define AVX2 __attribute__((target("avx2")))

extern const struct codec codec_avx2, codec_avx512;

/* The largest magnitude of the sixteen BF16 values of a block. */
AVX2 static inline float block_amax(const uint16_t *w)
{
    const __m256i signless = _mm256_set1_epi16(INT16_MAX);
    __m256i magnitude = _mm256_and_si256(_mm256_loadu_si256((const void *)w), signless);
    __m128i most =
        _mm_max_epu16(_mm256_castsi256_si128(magnitude), _mm256_extracti128_si256(magnitude, 1));
    __m128i least = _mm_minpos_epu16(_mm_sub_epi16(_mm_set1_epi16(INT16_MAX), most));
    uint32_t bits = (uint32_t)(INT16_MAX - _mm_extract_epi16(least, 0)) << 16;
    float amax;
    memcpy(&amax, &bits, sizeof amax);
    return amax;
}

/* Goes through a table block by block, which wider registers do not make faster. */
void recode_row_avx2(uint8_t *out, uint8_t *scale, const struct recode *recode,
                     const uint8_t *packed, const uint8_t *e8m0, size_t blocks);

#endif

#endif
