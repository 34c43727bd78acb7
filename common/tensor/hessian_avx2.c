/* hessian_search.h with AVX2: two registers are a vector of lanes. */
#include "tensor/codec_x86.h"

#ifdef __x86_64__

#include <stdbool.h>

#define TARGET AVX2

typedef struct {
    __m256 x[2];
} lanes;
typedef lanes mask; /* each 0 or all ones */

AVX2 static inline lanes splat(float x)
{
    __m256 all = _mm256_set1_ps(x);
    return (lanes){{all, all}};
}

AVX2 static inline lanes load(const float *p)
{
    return (lanes){{_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}};
}

AVX2 static inline void store(float *p, lanes a)
{
    _mm256_storeu_ps(p, a.x[0]);
    _mm256_storeu_ps(p + 8, a.x[1]);
}

AVX2 static inline __m256 pick_8(const float *p, const int32_t *index)
{
    return _mm256_i32gather_ps(p, _mm256_loadu_si256((const void *)index), sizeof *p);
}

AVX2 static inline lanes pick(const float *p, const int32_t *index)
{
    return (lanes){{pick_8(p, index), pick_8(p, index + 8)}};
}

AVX2 static inline lanes plus(lanes a, lanes b)
{
    return (lanes){{_mm256_add_ps(a.x[0], b.x[0]), _mm256_add_ps(a.x[1], b.x[1])}};
}

AVX2 static inline lanes minus(lanes a, lanes b)
{
    return (lanes){{_mm256_sub_ps(a.x[0], b.x[0]), _mm256_sub_ps(a.x[1], b.x[1])}};
}

AVX2 static inline lanes times(lanes a, lanes b)
{
    return (lanes){{_mm256_mul_ps(a.x[0], b.x[0]), _mm256_mul_ps(a.x[1], b.x[1])}};
}

AVX2 static inline lanes over(lanes a, lanes b)
{
    return (lanes){{_mm256_div_ps(a.x[0], b.x[0]), _mm256_div_ps(a.x[1], b.x[1])}};
}

AVX2 static inline lanes least_of(lanes a, lanes b)
{
    return (lanes){{_mm256_min_ps(a.x[0], b.x[0]), _mm256_min_ps(a.x[1], b.x[1])}};
}

AVX2 static inline lanes most_of(lanes a, lanes b)
{
    return (lanes){{_mm256_max_ps(a.x[0], b.x[0]), _mm256_max_ps(a.x[1], b.x[1])}};
}

AVX2 static inline lanes only(lanes a, int32_t bits)
{
    __m256 these = _mm256_castsi256_ps(_mm256_set1_epi32(bits));
    return (lanes){{_mm256_and_ps(a.x[0], these), _mm256_and_ps(a.x[1], these)}};
}

AVX2 static inline lanes magnitude(lanes a)
{
    return only(a, INT32_MAX);
}

AVX2 static inline lanes power_of_two(lanes a)
{
    return only(a, 0x7f800000);
}

AVX2 static inline lanes sign(lanes a)
{
    return only(a, INT32_MIN);
}

AVX2 static inline lanes flip(lanes a, lanes sign)
{
    return (lanes){{_mm256_xor_ps(a.x[0], sign.x[0]), _mm256_xor_ps(a.x[1], sign.x[1])}};
}

AVX2 static inline mask less(lanes a, lanes b)
{
    return (lanes){
        {_mm256_cmp_ps(a.x[0], b.x[0], _CMP_LT_OQ), _mm256_cmp_ps(a.x[1], b.x[1], _CMP_LT_OQ)}};
}

AVX2 static inline mask both(mask a, mask b)
{
    return (lanes){{_mm256_and_ps(a.x[0], b.x[0]), _mm256_and_ps(a.x[1], b.x[1])}};
}

AVX2 static inline mask without(mask a, mask b)
{
    return (lanes){{_mm256_andnot_ps(b.x[0], a.x[0]), _mm256_andnot_ps(b.x[1], a.x[1])}};
}

AVX2 static inline mask from_bits(uint32_t bits)
{
    const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    mask m;
    for (int i = 0; i < 2; i++, bits >>= 8) {
        __m256i own = _mm256_and_si256(_mm256_set1_epi32((int)bits), bit);
        m.x[i] = _mm256_castsi256_ps(_mm256_cmpeq_epi32(own, bit));
    }
    return m;
}

AVX2 static inline uint32_t to_bits(mask m)
{
    return (uint32_t)(_mm256_movemask_ps(m.x[0]) | _mm256_movemask_ps(m.x[1]) << 8);
}

AVX2 static inline bool any(mask m)
{
    return _mm256_movemask_ps(_mm256_or_ps(m.x[0], m.x[1])) != 0;
}

AVX2 static inline lanes where(mask m, lanes a, lanes b)
{
    return (lanes){
        {_mm256_blendv_ps(b.x[0], a.x[0], m.x[0]), _mm256_blendv_ps(b.x[1], a.x[1], m.x[1])}};
}

#include "tensor/hessian_loop.h"

AVX2 void scales_hessian_row_avx2(uint8_t *scale, const uint16_t *w, size_t cols, float scale_2,
                                  const struct block_moments *moments)
{
    search_row(scale, w, cols, scale_2, moments);
}

#endif
