/* hessian_search.h with AVX-512: a register is a vector of lanes. */
#include "tensor/codec_x86.h"

#ifdef __x86_64__

#include <stdbool.h>

#define TARGET AVX512

typedef __m512 lanes;
typedef __mmask16 mask;

AVX512 static inline lanes splat(float x)
{
    return _mm512_set1_ps(x);
}

AVX512 static inline lanes load(const float *p)
{
    return _mm512_loadu_ps(p);
}

AVX512 static inline void store(float *p, lanes a)
{
    _mm512_storeu_ps(p, a);
}

AVX512 static inline lanes pick(const float *p, const int32_t *index)
{
    return _mm512_i32gather_ps(_mm512_loadu_si512(index), p, sizeof *p);
}

AVX512 static inline lanes plus(lanes a, lanes b)
{
    return _mm512_add_ps(a, b);
}

AVX512 static inline lanes minus(lanes a, lanes b)
{
    return _mm512_sub_ps(a, b);
}

AVX512 static inline lanes times(lanes a, lanes b)
{
    return _mm512_mul_ps(a, b);
}

AVX512 static inline lanes over(lanes a, lanes b)
{
    return _mm512_div_ps(a, b);
}

AVX512 static inline lanes least_of(lanes a, lanes b)
{
    return _mm512_min_ps(a, b);
}

AVX512 static inline lanes most_of(lanes a, lanes b)
{
    return _mm512_max_ps(a, b);
}

AVX512 static inline lanes only(lanes a, int32_t bits)
{
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32(bits)));
}

AVX512 static inline lanes magnitude(lanes a)
{
    return only(a, INT32_MAX);
}

AVX512 static inline lanes power_of_two(lanes a)
{
    return only(a, 0x7f800000);
}

AVX512 static inline lanes sign(lanes a)
{
    return only(a, INT32_MIN);
}

AVX512 static inline lanes flip(lanes a, lanes sign)
{
    return _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(a), _mm512_castps_si512(sign)));
}

AVX512 static inline mask less(lanes a, lanes b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}

AVX512 static inline mask both(mask a, mask b)
{
    return _mm512_kand(a, b);
}

AVX512 static inline mask without(mask a, mask b)
{
    return _mm512_kandn(b, a);
}

AVX512 static inline mask from_bits(uint32_t bits)
{
    return (mask)bits;
}

AVX512 static inline uint32_t to_bits(mask m)
{
    return m;
}

AVX512 static inline bool any(mask m)
{
    return m != 0;
}

AVX512 static inline lanes where(mask m, lanes a, lanes b)
{
    return _mm512_mask_blend_ps(m, b, a);
}

#include "tensor/hessian_loop.h"

AVX512 void scales_hessian_row_avx512(uint8_t *scale, const uint16_t *w, size_t cols, float scale_2,
                                      const struct block_moments *moments)
{
    search_row(scale, w, cols, scale_2, moments);
}

#endif
