/* hessian_search.h with AVX-512: a register is a block. */
#include "tensor/codec_x86.h"

#ifdef __x86_64__

#include <math.h>

#include "tensor/e2m1.h"

#define TARGET AVX512

struct block {
    __m512 m, sign;
    float amax;
};

AVX512 static inline void load_block(struct block *block, const uint16_t *w, float unit)
{
    const __m512i most = _mm512_set1_epi32(0x7fff0000);
    __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)w));
    bits = _mm512_slli_epi32(bits, 16);
    __m512i magnitude = _mm512_and_si512(bits, most);
    __m512 m = _mm512_mul_ps(_mm512_castsi512_ps(magnitude), _mm512_set1_ps(unit));
    block->m = _mm512_min_ps(m, _mm512_set1_ps(HESSIAN_MOST));
    block->sign = _mm512_castsi512_ps(_mm512_andnot_si512(most, bits));
    float largest = _mm512_reduce_max_ps(block->m);
    uint32_t not_finite = _mm512_cmpge_epi32_mask(magnitude, _mm512_set1_epi32(0x7f800000));
    block->amax = not_finite ? INFINITY : largest;
}

AVX512 static inline float sum_of(__m512 x)
{
    __m256 y = _mm256_add_ps(_mm512_castps512_ps256(x),
                             _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(x), 1)));
    __m128 z = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    z = _mm_add_ps(z, _mm_movehl_ps(z, z));
    return _mm_cvtss_f32(_mm_add_ss(z, _mm_movehdup_ps(z)));
}

/* What errors cost at least. */
AVX512 static inline float least_cost(__m512 e, const struct block_moments *moments)
{
    return sum_of(_mm512_mul_ps(_mm512_loadu_ps(moments->least), _mm512_mul_ps(e, e)));
}

AVX512 static inline float code_error(const struct block *block,
                                      const struct block_moments *moments, float s, float enough)
{
    const __m512 one = _mm512_set1_ps(1), exponent = _mm512_set1_ps(INFINITY);
    __m512 y = _mm512_mul_ps(block->m, _mm512_set1_ps(1 / s));
    y = _mm512_min_ps(y, _mm512_set1_ps(E2M1_MAX));
    __m512i power =
        _mm512_and_si512(_mm512_castps_si512(_mm512_max_ps(y, one)), _mm512_castps_si512(exponent));
    __m512 round = _mm512_mul_ps(_mm512_castsi512_ps(power), _mm512_set1_ps(HESSIAN_ROUND));
    __m512 q = _mm512_sub_ps(_mm512_add_ps(y, round), round);
    __m512 e = _mm512_sub_ps(block->m, _mm512_mul_ps(q, _mm512_set1_ps(s)));
    if (least_cost(e, moments) > enough)
        return INFINITY;
    _Alignas(64) float each[NVFP4_BLOCK];
    e = _mm512_castsi512_ps(
        _mm512_xor_si512(_mm512_castps_si512(e), _mm512_castps_si512(block->sign)));
    _mm512_store_ps(each, e);
    __m512 sum[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(),
                     _mm512_setzero_ps()};
    for (size_t j = 0; j < NVFP4_BLOCK; j++) {
        __m512 part = _mm512_mul_ps(_mm512_loadu_ps(moments->h[j]), _mm512_set1_ps(each[j]));
        sum[j % 4] = _mm512_add_ps(sum[j % 4], part);
    }
    __m512 total = _mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3]));
    return sum_of(_mm512_mul_ps(total, e));
}

AVX512 static inline float zeros_cost(const struct block *block,
                                      const struct block_moments *moments, float s)
{
    __mmask16 zero = _mm512_cmp_ps_mask(block->m, _mm512_set1_ps(s / 4), _CMP_LE_OQ);
    return least_cost(_mm512_maskz_mov_ps(zero, block->m), moments);
}

AVX512 static inline float clipping_cost(const struct block *block,
                                         const struct block_moments *moments, float s)
{
    __m512 clipped = _mm512_sub_ps(block->m, _mm512_set1_ps(E2M1_MAX * s));
    return least_cost(_mm512_max_ps(clipped, _mm512_setzero_ps()), moments);
}

#include "tensor/hessian_loop.h"

AVX512 void scales_hessian_row_avx512(uint8_t *scale, const uint16_t *w, size_t cols, float scale_2,
                                      const struct block_moments *moments)
{
    search_row(scale, w, cols, scale_2, moments);
}

#endif
