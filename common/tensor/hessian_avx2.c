/* hessian_search.h with AVX2: two registers are a block. */
#include "tensor/codec_x86.h"

#ifdef __x86_64__

#include <math.h>

#include "tensor/e2m1.h"

#define TARGET AVX2

struct block {
    __m256 m[2], sign[2];
    float amax;
};

AVX2 static inline float largest_of(__m256 x)
{
    __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_max_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
}

AVX2 static inline void load_block(struct block *block, const uint16_t *w, float unit)
{
    const __m256i most = _mm256_set1_epi32(0x7fff0000), last = _mm256_set1_epi32(0x7f7f0000);
    __m256i not_finite = _mm256_setzero_si256();
    for (size_t i = 0; i < 2; i++) {
        __m256i bits = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)(w + 8 * i)));
        bits = _mm256_slli_epi32(bits, 16);
        __m256i magnitude = _mm256_and_si256(bits, most);
        __m256 m = _mm256_mul_ps(_mm256_castsi256_ps(magnitude), _mm256_set1_ps(unit));
        block->m[i] = _mm256_min_ps(m, _mm256_set1_ps(HESSIAN_MOST));
        block->sign[i] = _mm256_castsi256_ps(_mm256_andnot_si256(most, bits));
        not_finite = _mm256_or_si256(not_finite, _mm256_cmpgt_epi32(magnitude, last));
    }
    float largest = largest_of(_mm256_max_ps(block->m[0], block->m[1]));
    block->amax = _mm256_movemask_epi8(not_finite) ? INFINITY : largest;
}

AVX2 static inline __m256 error_of(__m256 m, float s)
{
    const __m256 one = _mm256_set1_ps(1), exponent = _mm256_set1_ps(INFINITY);
    __m256 y = _mm256_mul_ps(m, _mm256_set1_ps(1 / s));
    y = _mm256_min_ps(y, _mm256_set1_ps(E2M1_MAX));
    __m256 power = _mm256_and_ps(_mm256_max_ps(y, one), exponent);
    __m256 round = _mm256_mul_ps(power, _mm256_set1_ps(HESSIAN_ROUND));
    __m256 q = _mm256_sub_ps(_mm256_add_ps(y, round), round);
    return _mm256_sub_ps(m, _mm256_mul_ps(q, _mm256_set1_ps(s)));
}

AVX2 static inline float sum_of(__m256 x)
{
    __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_add_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
}

/* What errors cost at least. */
AVX2 static inline float least_cost(const __m256 *e, const struct block_moments *moments)
{
    __m256 cost[2];
    for (size_t i = 0; i < 2; i++)
        cost[i] = _mm256_mul_ps(_mm256_loadu_ps(moments->least + 8 * i), _mm256_mul_ps(e[i], e[i]));
    return sum_of(_mm256_add_ps(cost[0], cost[1]));
}

AVX2 static inline float code_error(const struct block *block, const struct block_moments *moments,
                                    float s, float enough)
{
    __m256 e[2] = {error_of(block->m[0], s), error_of(block->m[1], s)}, total[2];
    if (least_cost(e, moments) > enough)
        return INFINITY;
    _Alignas(32) float each[NVFP4_BLOCK];
    for (size_t i = 0; i < 2; i++) {
        e[i] = _mm256_xor_ps(e[i], block->sign[i]);
        _mm256_store_ps(each + 8 * i, e[i]);
    }
    for (size_t i = 0; i < 2; i++) {
        __m256 sum[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(),
                         _mm256_setzero_ps()};
        for (size_t j = 0; j < NVFP4_BLOCK; j++) {
            __m256 h = _mm256_loadu_ps(moments->h[j] + 8 * i);
            sum[j % 4] = _mm256_add_ps(sum[j % 4], _mm256_mul_ps(h, _mm256_set1_ps(each[j])));
        }
        total[i] = _mm256_add_ps(_mm256_add_ps(sum[0], sum[1]), _mm256_add_ps(sum[2], sum[3]));
        total[i] = _mm256_mul_ps(total[i], e[i]);
    }
    return sum_of(_mm256_add_ps(total[0], total[1]));
}

AVX2 static inline float zeros_cost(const struct block *block, const struct block_moments *moments,
                                    float s)
{
    __m256 e[2];
    for (size_t i = 0; i < 2; i++) {
        __m256 zero = _mm256_cmp_ps(block->m[i], _mm256_set1_ps(s / 4), _CMP_LE_OQ);
        e[i] = _mm256_and_ps(zero, block->m[i]);
    }
    return least_cost(e, moments);
}

AVX2 static inline float clipping_cost(const struct block *block,
                                       const struct block_moments *moments, float s)
{
    __m256 e[2];
    for (size_t i = 0; i < 2; i++) {
        __m256 clipped = _mm256_sub_ps(block->m[i], _mm256_set1_ps(E2M1_MAX * s));
        e[i] = _mm256_max_ps(clipped, _mm256_setzero_ps());
    }
    return least_cost(e, moments);
}

#include "tensor/hessian_loop.h"

AVX2 void scales_hessian_row_avx2(uint8_t *scale, const uint16_t *w, size_t cols, float scale_2,
                                  const struct block_moments *moments)
{
    search_row(scale, w, cols, scale_2, moments);
}

#endif
