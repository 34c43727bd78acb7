/* The codecs with AVX-512 (F, BW and VL): as codec_avx2.c, 64 bytes at a time. */
#include "tensor/codec_x86.h"

#ifdef __x86_64__

#include "tensor/e2m1.h"
#include "tensor/e4m3.h"
#include "tensor/fp8.h"
#include "tensor/mxfp4.h"
#include "tensor/scale_search.h"

AVX512 static inline __m512i round_bf16(__m512 value)
{
    __m512i bits = _mm512_castps_si512(value);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    return _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
}

/* ---- FP8 ---- */

/* Sixteen E4M3 codes to F32, one per lane. */
AVX512 static inline __m512 e4m3_values(__m512i code)
{
    const __m512i most = _mm512_set1_epi32(0x7f);
    __m512i magnitude = _mm512_and_si512(code, most);
    __m512i value =
        _mm512_add_epi32(_mm512_slli_epi32(magnitude, 20), _mm512_set1_epi32(120 << 23));
    __m512i subnormal = _mm512_castps_si512(
        _mm512_mul_ps(_mm512_cvtepi32_ps(magnitude), _mm512_set1_ps(E4M3_MIN_SUBNORMAL)));
    __mmask16 is_subnormal = _mm512_cmplt_epi32_mask(magnitude, _mm512_set1_epi32(8));
    value = _mm512_mask_mov_epi32(value, is_subnormal, subnormal);
    value = _mm512_mask_mov_epi32(value, _mm512_cmpeq_epi32_mask(magnitude, most),
                                  _mm512_set1_epi32(0x7fc00000));
    __m512i sign = _mm512_and_si512(_mm512_slli_epi32(code, 24), _mm512_set1_epi32(INT32_MIN));
    return _mm512_castsi512_ps(_mm512_or_si512(value, sign));
}

/* BF16 words of all 128 magnitudes. */
AVX512 static inline void e4m3_words(__m512i *word)
{
    const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    __m512i code = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (int i = 0; i < 4; i++) {
        __m512i pair[2];
        for (int j = 0; j < 2; j++) {
            pair[j] = _mm512_srli_epi32(_mm512_castps_si512(e4m3_values(code)), 16);
            code = _mm512_add_epi32(code, _mm512_set1_epi32(16));
        }
        word[i] = _mm512_permutexvar_epi64(order, _mm512_packus_epi32(pair[0], pair[1]));
    }
}

/* 32 elements under one scale; returns how many are NaN. */
AVX512 static inline size_t dequant_32(uint16_t *out, const uint8_t *w, __m512 scale,
                                       const __m512i *word)
{
    const __m256i most = _mm256_set1_epi8(0x7f);
    __m256i byte = _mm256_loadu_si256((const void *)w);
    __m512i code = _mm512_cvtepu8_epi16(byte);
    __m512i low = _mm512_permutex2var_epi16(word[0], code, word[1]); /* by six bits of the code */
    __m512i high = _mm512_permutex2var_epi16(word[2], code, word[3]);
    __mmask32 is_high = _mm512_test_epi16_mask(code, _mm512_set1_epi16(0x40));
    __m512i sign = _mm512_and_si512(_mm512_slli_epi16(code, 8), _mm512_set1_epi16(INT16_MIN));
    __m512i value = _mm512_or_si512(_mm512_mask_mov_epi16(low, is_high, high), sign);
    /* Two halves as F32, in an order that the last step undoes. */
    __m512i left = _mm512_unpacklo_epi16(_mm512_setzero_si512(), value);
    __m512i right = _mm512_unpackhi_epi16(_mm512_setzero_si512(), value);
    left = round_bf16(_mm512_mul_ps(_mm512_castsi512_ps(left), scale));
    right = round_bf16(_mm512_mul_ps(_mm512_castsi512_ps(right), scale));
    _mm512_storeu_si512(
        out, _mm512_packus_epi32(_mm512_srli_epi32(left, 16), _mm512_srli_epi32(right, 16)));
    __mmask32 nan = _mm256_cmpeq_epi8_mask(_mm256_and_si256(byte, most), most);
    return nan ? (size_t)__builtin_popcount(nan) : 0;
}

AVX512 static size_t fp8_row(uint16_t *out, const uint8_t *w, const float *scale, size_t cols,
                             size_t block)
{
    __m512i word[4];
    e4m3_words(word);
    size_t nan = 0;
    for (size_t first = 0; first < cols; first += block, scale++) {
        size_t end = cols - first < block ? cols : first + block, j = first;
        for (; j + 32 <= end; j += 32)
            nan += dequant_32(out + j, w + j, _mm512_set1_ps(*scale), word);
        nan += fp8_dequant_row(out + j, w + j, scale, end - j, block);
    }
    return nan;
}

/* ---- 4-bit codes to BF16 ---- */

/* A register holds the 16 words of E2M1's values twice. The lookup takes five bits; the fifth
 * belongs to the next nibble and makes no difference. */
AVX512 static void mxfp4_row(uint16_t *out, const uint8_t *packed, const uint8_t *scale,
                             size_t cols)
{
    const __m512i values =
        _mm512_set4_epi64((long long)0xc0c0c080c040c000, (long long)0xbfc0bf80bf008000,
                          0x40c0408040404000, 0x3fc03f803f000000);
    const __mmask32 not_zero = 0xfefefefe;
    for (size_t block = 0; block < cols / MXFP4_BLOCK; block++) {
        if (scale[block] >= 2 && scale[block] <= 252) {
            __m512i exponent = _mm512_set1_epi16((short)((scale[block] - 127) * 128));
            __m512i scaled = _mm512_mask_add_epi16(values, not_zero, values, exponent);
            __m512i nibble = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)packed));
            nibble = _mm512_or_si512(nibble, _mm512_slli_epi32(nibble, 12));
            _mm512_storeu_si512(out, _mm512_permutexvar_epi16(nibble, scaled));
        } else {
            mxfp4_unpack_row(out, packed, &scale[block], MXFP4_BLOCK);
        }
        out += MXFP4_BLOCK;
        packed += MXFP4_BLOCK / 2;
    }
}

/* The divisors of sixteen blocks, f32(scale) * scale_2. */
AVX512 static inline __m512 divisors_16(const uint8_t *scale, float scale_2)
{
    __m512i code = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)scale));
    return _mm512_mul_ps(e4m3_values(code), _mm512_set1_ps(scale_2));
}

/* Two factors, the first for the lower half of a register. */
AVX512 static inline __m512 two_factors(const float *factor)
{
    return _mm512_mask_mov_ps(_mm512_set1_ps(factor[0]), 0xff00, _mm512_set1_ps(factor[1]));
}

AVX512 static void nvfp4_row(uint16_t *out, const uint8_t *packed, const uint8_t *scale,
                             size_t cols, float scale_2)
{
    const __m512 values = _mm512_setr_ps(0, 0.5f, 1, 1.5f, 2, 3, 4, 6, 0 /* not -0 */, -0.5f, -1,
                                         -1.5f, -2, -3, -4, -6);
    size_t blocks = cols / NVFP4_BLOCK, block = 0;
    for (; block + 16 <= blocks; block += 16) {
        float factor[16];
        _mm512_storeu_ps(factor, divisors_16(scale + block, scale_2));
        for (size_t i = 0; i < 16; i += 2, out += (size_t)2 * NVFP4_BLOCK, packed += NVFP4_BLOCK) {
            __m512i pair = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)packed));
            __m512 f = two_factors(factor + i);
            __m512 even = _mm512_permutexvar_ps(pair, values);
            __m512 odd = _mm512_permutexvar_ps(_mm512_srli_epi32(pair, 4), values);
            __m512i low = _mm512_srli_epi32(round_bf16(_mm512_mul_ps(even, f)), 16);
            __m512i high = round_bf16(_mm512_mul_ps(odd, f));
            _mm512_storeu_si512(out, _mm512_mask_blend_epi16(0xaaaaaaaa, low, high));
        }
    }
    nvfp4_unpack_row(out, packed, scale + block, cols - block * NVFP4_BLOCK, scale_2);
}

/* ---- BF16 to NVFP4 ---- */

/* E4M3 codes of values in [2^-9, 448], in the lowest byte of each lane. */
AVX512 static inline __m512i e4m3_codes(__m512 value)
{
    __m512i bits = _mm512_castps_si512(value);
    __m512i small = _mm512_castps_si512(_mm512_add_ps(value, _mm512_set1_ps(0x1p14f)));
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 20), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7ffff)));
    __m512i normal = _mm512_sub_epi32(_mm512_srli_epi32(rounded, 20), _mm512_set1_epi32(120 << 3));
    __mmask16 is_small = _mm512_cmplt_epi32_mask(bits, _mm512_set1_epi32(0x3c800000));
    return _mm512_mask_mov_epi32(normal, is_small, small);
}

/* The largest magnitudes of sixteen blocks. Each of three steps halves the number of registers: it
 * interleaves two and takes the maximum of the low and high halves of their lanes. Then the words
 * of a lane belong to the registers in order, and a block has two lanes. */
AVX512 static inline __m512 amaxes_16(const uint16_t *w)
{
    __m512i m[8];
    for (size_t i = 0; i < 8; i++)
        m[i] = _mm512_and_si512(_mm512_loadu_si512(w + 32 * i), _mm512_set1_epi16(INT16_MAX));
    for (size_t i = 0; i < 4; i++)
        m[i] = _mm512_max_epu16(_mm512_unpacklo_epi16(m[2 * i], m[2 * i + 1]),
                                _mm512_unpackhi_epi16(m[2 * i], m[2 * i + 1]));
    for (size_t i = 0; i < 2; i++)
        m[i] = _mm512_max_epu16(_mm512_unpacklo_epi32(m[2 * i], m[2 * i + 1]),
                                _mm512_unpackhi_epi32(m[2 * i], m[2 * i + 1]));
    __m512i most =
        _mm512_max_epu16(_mm512_unpacklo_epi64(m[0], m[1]), _mm512_unpackhi_epi64(m[0], m[1]));
    most = _mm512_max_epu16(most, _mm512_shuffle_i64x2(most, most, 0xb1));
    __m128i even = _mm512_castsi512_si128(most), odd = _mm512_extracti32x4_epi32(most, 2);
    __m256i all = _mm256_set_m128i(_mm_unpackhi_epi16(even, odd), _mm_unpacklo_epi16(even, odd));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(all), 16));
}

AVX512 static void scales_row(uint8_t *scale, const uint16_t *w, size_t cols, float scale_2)
{
    const __m512i not_finite = _mm512_set1_epi32(NVFP4_NOT_FINITE);
    size_t blocks = cols / NVFP4_BLOCK, block = 0;
    for (; block + 16 <= blocks; block += 16, w += (size_t)16 * NVFP4_BLOCK) {
        __m512 most = amaxes_16(w);
        __m512 s = _mm512_div_ps(most, _mm512_set1_ps(E2M1_MAX * scale_2));
        __mmask16 is_zero = _mm512_cmp_ps_mask(s, _mm512_setzero_ps(), _CMP_EQ_OQ);
        s = _mm512_mask_mov_ps(s, is_zero, _mm512_set1_ps(1));
        s = _mm512_max_ps(s, _mm512_set1_ps(E4M3_MIN_SUBNORMAL));
        s = _mm512_min_ps(s, _mm512_set1_ps(E4M3_MAX));
        __mmask16 finite = _mm512_cmp_ps_mask(most, _mm512_set1_ps(INFINITY), _CMP_LT_OQ);
        __m512i code = _mm512_mask_mov_epi32(not_finite, finite, e4m3_codes(s));
        _mm_storeu_si128((void *)(scale + block), _mm512_cvtepi32_epi8(code));
    }
    nvfp4_scales_row(scale + block, w, cols - block * NVFP4_BLOCK, scale_2);
}

/* A code is the number of bounds below |w| / divisor, rounded to F32. Its sign is w's, unless the
 * quotient is rounded to 0. A rounded quotient is above a bound (at 0.75, 1.75 and 3.5: not below)
 * if the exact one is above a point half a step beside the bound. That is so if |w| is above
 * divisor times that point, a product that is exact in F64 and never in BF16, and hence if |w| is
 * above the part of it that BF16 can hold. So a block has eight BF16 words, for the sign and seven
 * bounds.
 *
 * Of sixteen blocks, lane i of bound[j] gets the words of block 4 * i + j. UNORDERED is added to
 * them and to |w|. Then signed comparisons find NaN above nothing, and nothing above NaN. */
enum { UNORDERED = INT16_MAX - 0x7f80 };

AVX512 static inline void bounds_16(__m512i bound[4], __m512 divisor)
{
    static const double point[8] = {
        0x1p-150,       0.25 + 0x1p-26, 0.75 - 0x1p-25, 1.25 + 0x1p-24,
        1.75 - 0x1p-24, 2.5 + 0x1p-23,  3.5 - 0x1p-23,  5 + 0x1p-22,
    };
    __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(divisor));
    __m512d high =
        _mm512_cvtps_pd(_mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(divisor), 1)));
    __m512i word[8], pair[4];
    for (size_t i = 0; i < 8; i++) {
        enum { TRUNCATE = _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC };
        __m512d p = _mm512_set1_pd(point[i]);
        __m256 left = _mm512_cvt_roundpd_ps(_mm512_mul_pd(low, p), TRUNCATE);
        __m256 right = _mm512_cvt_roundpd_ps(_mm512_mul_pd(high, p), TRUNCATE);
        word[i] = _mm512_castpd_si512(_mm512_insertf64x4(
            _mm512_castpd256_pd512(_mm256_castps_pd(left)), _mm256_castps_pd(right), 1));
    }
    for (size_t i = 0; i < 4; i++) {
        pair[i] = _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(word[2 * i], 16),
                                          word[2 * i + 1]);
        pair[i] = _mm512_adds_epi16(pair[i], _mm512_set1_epi16(UNORDERED));
    }
    __m512i first = _mm512_unpacklo_epi32(pair[0], pair[1]);
    __m512i second = _mm512_unpacklo_epi32(pair[2], pair[3]);
    bound[0] = _mm512_unpacklo_epi64(first, second);
    bound[1] = _mm512_unpackhi_epi64(first, second);
    first = _mm512_unpackhi_epi32(pair[0], pair[1]);
    second = _mm512_unpackhi_epi32(pair[2], pair[3]);
    bound[2] = _mm512_unpacklo_epi64(first, second);
    bound[3] = _mm512_unpackhi_epi64(first, second);
}

/* Two blocks of two lanes each. Every lane of a block holds its bounds, which are searched in three
 * steps. A lookup index consists of the numbers of a word's two bytes. */
AVX512 static inline __m128i nibbles_32(const uint16_t *w, __m512i bound)
{
    const __m512i none = _mm512_set1_epi16(0x0100), four = _mm512_set1_epi16(0x0908);
    __m512i value = _mm512_loadu_si512(w);
    __m512i m = _mm512_and_si512(value, _mm512_set1_epi16(INT16_MAX));
    m = _mm512_add_epi16(m, _mm512_set1_epi16(UNORDERED));
    __mmask32 above = _mm512_cmpgt_epi16_mask(m, _mm512_shuffle_epi8(bound, four));
    __m512i code = _mm512_mask_mov_epi16(none, above, four);
    __m512i next = _mm512_add_epi16(code, _mm512_set1_epi16(0x0404));
    above = _mm512_cmpgt_epi16_mask(m, _mm512_shuffle_epi8(bound, next));
    code = _mm512_mask_mov_epi16(code, above, next);
    next = _mm512_add_epi16(code, _mm512_set1_epi16(0x0202));
    above = _mm512_cmpgt_epi16_mask(m, _mm512_shuffle_epi8(bound, next));
    code = _mm512_mask_mov_epi16(code, above, next);
    above = _mm512_mask_cmpgt_epi16_mask(_mm512_movepi16_mask(value), m,
                                         _mm512_shuffle_epi8(bound, none));
    code = _mm512_mask_add_epi16(code, above, code, _mm512_set1_epi16(0x10));
    /* Codes are twice what they should be: bits 1 to 4, and 17 to 20. */
    __m512i both =
        _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi32(code, 1), _mm512_set1_epi32(0x0f)),
                        _mm512_and_si512(_mm512_srli_epi32(code, 13), _mm512_set1_epi32(0xf0)));
    return _mm512_cvtepi32_epi8(both);
}

AVX512 static void nibbles_row(uint8_t *packed, const uint8_t *scale, const uint16_t *w,
                               size_t cols, float scale_2)
{
    size_t blocks = cols / NVFP4_BLOCK, block = 0;
    for (; block + 16 <= blocks; block += 16) {
        __m512i bound[4], lanes = _mm512_setr_epi64(0, 1, 0, 1, 8, 9, 8, 9);
        bounds_16(bound, divisors_16(scale + block, scale_2));
        for (size_t i = 0; i < 4; i++) {
            for (size_t j = 0; j < 4; j += 2) {
                __m512i both = _mm512_permutex2var_epi64(bound[j], lanes, bound[j + 1]);
                _mm_storeu_si128((void *)packed, nibbles_32(w, both));
                w += (size_t)2 * NVFP4_BLOCK;
                packed += NVFP4_BLOCK;
            }
            lanes = _mm512_add_epi64(lanes, _mm512_set1_epi64(2));
        }
    }
    nvfp4_nibbles_row(packed, scale + block, w, cols - block * NVFP4_BLOCK, scale_2);
}

/* ---- searches for block scales ---- */

/* As `struct block` of the portable version, of sixteen blocks: a lane for each, whose words are
 * two columns. */
struct blocks_16 {
    __m512i m[NVFP4_BLOCK / 2];
    __m512 amax;
    __mmask16 finite;
};

/* Transposes pairs of columns: 4 x 4 within the quarters of four registers, then the quarters.
 * Lanes are blocks 0 2 4 6 1 3 5 7 8 10 12 14 9 11 13 15. */
AVX512 static inline void load_pairs(__m512i pair[8], const uint16_t *w)
{
    __m512i t[8];
    for (size_t i = 0; i < 8; i += 4) {
        __m512i m[4];
        for (size_t k = 0; k < 4; k++)
            m[k] = _mm512_and_si512(_mm512_loadu_si512(w + 32 * (i + k)),
                                    _mm512_set1_epi16(INT16_MAX));
        __m512i low[2] = {_mm512_unpacklo_epi32(m[0], m[1]), _mm512_unpacklo_epi32(m[2], m[3])};
        __m512i high[2] = {_mm512_unpackhi_epi32(m[0], m[1]), _mm512_unpackhi_epi32(m[2], m[3])};
        t[i] = _mm512_unpacklo_epi64(low[0], low[1]);
        t[i + 1] = _mm512_unpackhi_epi64(low[0], low[1]);
        t[i + 2] = _mm512_unpacklo_epi64(high[0], high[1]);
        t[i + 3] = _mm512_unpackhi_epi64(high[0], high[1]);
    }
    for (size_t k = 0; k < 4; k++) {
        pair[k] = _mm512_shuffle_i64x2(t[k], t[k + 4], 0x88);
        pair[k + 4] = _mm512_shuffle_i64x2(t[k], t[k + 4], 0xdd);
    }
}

AVX512 static inline __m512i magnitudes(__m512i bits, __m512 factor)
{
    __m512 m = _mm512_mul_ps(_mm512_castsi512_ps(bits), factor);
    return _mm512_cvttps_epi32(_mm512_add_ps(m, _mm512_set1_ps(1)));
}

AVX512 static inline void load_blocks(struct blocks_16 *blocks, const uint16_t *w, float unit)
{
    const __m512i upper = _mm512_set1_epi32((int)0xffff0000);
    __m512i pair[8], most = _mm512_setzero_si512();
    load_pairs(pair, w);
    for (size_t i = 0; i < 8; i++)
        most = _mm512_max_epu16(most, pair[i]);
    most = _mm512_max_epi32(_mm512_slli_epi32(most, 16), _mm512_and_si512(most, upper));
    __m512 amax = _mm512_castsi512_ps(most);
    __m512 factor = _mm512_div_ps(_mm512_set1_ps(65534),
                                  _mm512_max_ps(amax, _mm512_set1_ps(SEARCH_AMAX_LEAST)));
    for (size_t i = 0; i < 8; i++) {
        __m512i even = magnitudes(_mm512_slli_epi32(pair[i], 16), factor);
        __m512i odd = magnitudes(_mm512_and_si512(pair[i], upper), factor);
        blocks->m[i] = _mm512_or_si512(even, _mm512_slli_epi32(odd, 16));
    }
    blocks->finite = _mm512_cmplt_epi32_mask(most, _mm512_set1_epi32(0x7f800000));
    blocks->amax = _mm512_mul_ps(amax, _mm512_set1_ps(unit));
}

/* The scales of sixteen blocks, where zeros get 1 and what is not finite its mark. */
AVX512 static inline void store_codes(uint8_t *scale, const struct blocks_16 *blocks, __m512i code)
{
    const __m128i order = _mm_setr_epi8(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
    __mmask16 zero = _mm512_cmp_ps_mask(blocks->amax, _mm512_setzero_ps(), _CMP_EQ_OQ);
    code = _mm512_mask_mov_epi32(code, zero, _mm512_set1_epi32(0x38));
    code = _mm512_mask_mov_epi32(_mm512_set1_epi32(NVFP4_NOT_FINITE), blocks->finite, code);
    __m128i byte = _mm512_cvtepi32_epi8(code);
    _mm_storeu_si128((void *)scale, _mm_shuffle_epi8(byte, order));
}

/* e4m3_values() of codes 1 to 126: as the upper bits of F32, they lack the difference of biases. */
AVX512 static inline __m512 positive_values(__m512i code)
{
    __m512 biased = _mm512_castsi512_ps(_mm512_slli_epi32(code, 20));
    return _mm512_mul_ps(biased, _mm512_set1_ps(0x1p120f));
}

/* Half of the sums of squared errors with FINE_BITS or COARSE_BITS, in units of scale squared.
 * factor: amax * SEARCH_FACTOR() * 4 / scale. */
AVX512 static inline __m512 errors_16(const struct blocks_16 *blocks, __m512 factor, bool coarse)
{
    static const uint16_t table[32] = {SEARCH_NEAREST_16, SEARCH_NEAREST_32};
    const unsigned bits = coarse ? COARSE_BITS : FINE_BITS;
    const __m512i nearest = _mm512_slli_epi16(_mm512_loadu_si512(table), bits);
    factor = _mm512_add_ps(_mm512_min_ps(factor, _mm512_set1_ps(65535)), _mm512_set1_ps(0.5f));
    __m512i multiplier = _mm512_cvttps_epi32(factor), sum = _mm512_setzero_si512();
    multiplier = _mm512_or_si512(multiplier, _mm512_slli_epi32(multiplier, 16));
    for (size_t i = 0; i < NVFP4_BLOCK / 2; i++) {
        __m512i y = _mm512_mulhi_epu16(blocks->m[i], multiplier);
        __m512i quarters = _mm512_srli_epi16(y, bits);
        if (coarse)
            quarters = _mm512_min_epu16(quarters, _mm512_set1_epi16(31));
        __m512i error = _mm512_sub_epi16(y, _mm512_permutexvar_epi16(quarters, nearest));
        sum = _mm512_add_epi32(sum, _mm512_madd_epi16(error, error));
    }
    return _mm512_cvtepi32_ps(_mm512_srli_epi32(sum, 1));
}

AVX512 static inline __m512 clamp_scales(__m512 s)
{
    s = _mm512_max_ps(s, _mm512_set1_ps(E4M3_MIN_SUBNORMAL));
    return _mm512_min_ps(s, _mm512_set1_ps(E4M3_MAX));
}

struct best_16 {
    __m512 least;
    __m512i code;
};

AVX512 static inline void take_better(struct best_16 *best, __mmask16 lanes, __m512 error,
                                      __m512i code)
{
    lanes = _mm512_mask_cmp_ps_mask(lanes, error, best->least, _CMP_LT_OQ);
    best->least = _mm512_mask_mov_ps(best->least, lanes, error);
    best->code = _mm512_mask_mov_epi32(best->code, lanes, code);
}

/* Codes below those in `code`, in the lanes where clipping does not cost too much yet. */
AVX512 static inline void search_below(struct best_16 *best, const struct blocks_16 *blocks,
                                       __m512i code)
{
    const __m512i one = _mm512_set1_epi32(1);
    const __m512 coarse = _mm512_set1_ps(SEARCH_FACTOR(COARSE_BITS));
    __mmask16 lanes = 0xffff;
    for (;;) {
        code = _mm512_sub_epi32(code, one);
        __m512 s = positive_values(code), inverse = _mm512_div_ps(_mm512_set1_ps(4), s);
        __m512 y = _mm512_mul_ps(blocks->amax, inverse);
        __m512 error = _mm512_sub_ps(y, _mm512_set1_ps(4 * E2M1_MAX));
        error = _mm512_mul_ps(error, _mm512_set1_ps(1 << FINE_BITS));
        error = _mm512_mul_ps(_mm512_mul_ps(error, error), _mm512_set1_ps(0.5f));
        error = _mm512_mul_ps(error, _mm512_mul_ps(s, s));
        lanes = _mm512_mask_cmpge_epi32_mask(lanes, code, one);
        lanes = _mm512_mask_cmp_ps_mask(lanes, error, best->least, _CMP_LT_OQ);
        lanes = _mm512_mask_cmp_ps_mask(lanes, y, _mm512_set1_ps(SEARCH_QUARTERS), _CMP_LT_OQ);
        if (!lanes)
            return;
        __m512 factor = _mm512_mul_ps(_mm512_mul_ps(blocks->amax, coarse), inverse);
        s = _mm512_mul_ps(_mm512_mul_ps(s, s), _mm512_set1_ps(1 << 2 * (FINE_BITS - COARSE_BITS)));
        take_better(best, lanes, _mm512_mul_ps(errors_16(blocks, factor, true), s), code);
    }
}

/* The eight codes from `first` on, or 15 where that is below 8 (subnormal). Without their exponent,
 * these scales and 4 divided by them are looked up by first's mantissa, with its leading bit, plus
 * a step. */
AVX512 static inline struct best_16 search_from(const struct blocks_16 *blocks, __m512i first)
{
    const __m512i one = _mm512_set1_epi32(1), eight = _mm512_set1_epi32(8);
    const __m512 eighths = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512 value[2] = {
        _mm512_mul_ps(eighths, _mm512_set1_ps(0.125f)),
        _mm512_add_ps(_mm512_mul_ps(eighths, _mm512_set1_ps(0.25f)), _mm512_set1_ps(2))};
    const __m512 quarter[2] = {_mm512_div_ps(_mm512_set1_ps(4), value[0]),
                               _mm512_div_ps(_mm512_set1_ps(4), value[1])};
    const __m512 square[2] = {_mm512_mul_ps(value[0], value[0]), _mm512_mul_ps(value[1], value[1])};
    __mmask16 low = _mm512_cmplt_epi32_mask(first, eight);
    __m512i exponent = _mm512_max_epi32(_mm512_srli_epi32(first, 3), one);
    __m512i bias = _mm512_slli_epi32(_mm512_sub_epi32(exponent, _mm512_set1_epi32(7)), 23);
    __m512 power = _mm512_castsi512_ps(_mm512_add_epi32(bias, _mm512_set1_epi32(127 << 23)));
    __m512 inverse = _mm512_castsi512_ps(_mm512_sub_epi32(_mm512_set1_epi32(127 << 23), bias));
    __m512 amax = _mm512_mul_ps(blocks->amax, _mm512_set1_ps(SEARCH_FACTOR(FINE_BITS)));
    amax = _mm512_mul_ps(amax, inverse);
    __m512i index = _mm512_and_si512(first, _mm512_set1_epi32(7));
    index = _mm512_mask_add_epi32(index, (__mmask16)~low, index, eight);
    __m512i last = _mm512_add_epi32(index, _mm512_set1_epi32(7));
    last = _mm512_mask_mov_epi32(last, low, _mm512_set1_epi32(15));
    __m512i offset = _mm512_sub_epi32(first, index);
    last = _mm512_min_epi32(last, _mm512_sub_epi32(_mm512_set1_epi32(0x7e), offset));
    struct best_16 best = {_mm512_set1_ps(INFINITY), index};
    __m512i step = index;
    for (int i = 0; i < (low ? 15 : 8); i++) {
        __m512 factor = _mm512_mul_ps(amax, _mm512_permutex2var_ps(quarter[0], step, quarter[1]));
        __m512 error = _mm512_mul_ps(errors_16(blocks, factor, false),
                                     _mm512_permutex2var_ps(square[0], step, square[1]));
        take_better(&best, 0xffff, error, step);
        step = _mm512_min_epi32(_mm512_add_epi32(step, one), last);
    }
    best.code = _mm512_add_epi32(best.code, offset);
    best.least = _mm512_mul_ps(best.least, _mm512_mul_ps(power, power));
    return best;
}

AVX512 static inline __m512i least_errors(const struct blocks_16 *blocks)
{
    __m512 least = clamp_scales(_mm512_div_ps(blocks->amax, _mm512_set1_ps(7)));
    __m512i first = _mm512_and_si512(e4m3_codes(least), _mm512_set1_epi32(0xff));
    __mmask16 below = _mm512_cmp_ps_mask(positive_values(first), least, _CMP_LT_OQ);
    first = _mm512_mask_add_epi32(first, below, first, _mm512_set1_epi32(1));
    struct best_16 best = search_from(blocks, first);
    search_below(&best, blocks, first);
    __mmask16 above = _mm512_cmp_ps_mask(blocks->amax, _mm512_set1_ps(7 * E4M3_MAX), _CMP_GT_OQ);
    return _mm512_mask_mov_epi32(best.code, above, _mm512_set1_epi32(0x7e));
}

AVX512 static void scales_mse_row(uint8_t *scale, const uint16_t *w, size_t cols, float scale_2)
{
    size_t count = scale_search_possible(scale_2) ? cols / NVFP4_BLOCK : 0, block = 0;
    for (; block + 16 <= count; block += 16, w += (size_t)16 * NVFP4_BLOCK) {
        struct blocks_16 blocks;
        load_blocks(&blocks, w, 1 / scale_2);
        store_codes(scale + block, &blocks, least_errors(&blocks));
    }
    nvfp4_scales_mse_row(scale + block, w, cols - block * NVFP4_BLOCK, scale_2);
}

AVX512 static inline __m512 fine_errors(const struct blocks_16 *blocks, __m512i code)
{
    __m512 s = positive_values(code);
    __m512 amax = _mm512_mul_ps(blocks->amax, _mm512_set1_ps(SEARCH_FACTOR(FINE_BITS)));
    __m512 factor = _mm512_mul_ps(amax, _mm512_div_ps(_mm512_set1_ps(4), s));
    return _mm512_mul_ps(errors_16(blocks, factor, false), _mm512_mul_ps(s, s));
}

AVX512 static inline __m512i fours_or_sixes(const struct blocks_16 *blocks)
{
    const __m512i byte = _mm512_set1_epi32(0xff);
    __m512 s = _mm512_div_ps(blocks->amax, _mm512_set1_ps(E2M1_MAX));
    s = _mm512_max_ps(s, _mm512_set1_ps(E4M3_MIN_SUBNORMAL));
    __m512i six = _mm512_and_si512(e4m3_codes(clamp_scales(s)), byte);
    s = _mm512_mul_ps(s, _mm512_set1_ps(1.5f));
    __m512i four = _mm512_and_si512(e4m3_codes(clamp_scales(s)), byte);
    struct best_16 best = {fine_errors(blocks, six), six};
    take_better(&best, 0xffff, fine_errors(blocks, four), four);
    return best.code;
}

AVX512 static void scales_four_over_six_row(uint8_t *scale, const uint16_t *w, size_t cols,
                                            float scale_2)
{
    size_t count = scale_search_possible(scale_2) ? cols / NVFP4_BLOCK : 0, block = 0;
    for (; block + 16 <= count; block += 16, w += (size_t)16 * NVFP4_BLOCK) {
        struct blocks_16 blocks;
        load_blocks(&blocks, w, 1 / scale_2);
        store_codes(scale + block, &blocks, fours_or_sixes(&blocks));
    }
    nvfp4_scales_four_over_six_row(scale + block, w, cols - block * NVFP4_BLOCK, scale_2);
}

/* ---- MXFP4 to NVFP4 ---- */

AVX512 static void cast_scales_row(uint8_t *scale, const uint8_t *e8m0, size_t blocks, int k_max,
                                   struct nvfp4_cast_count *count)
{
    const __m512i codes = _mm512_broadcast_i32x4(
        _mm_set_epi64x(0x0408101820283038, 0x4048505860687078)); /* 0 to 15 below k_max */
    const __m512i top = _mm512_set1_epi8((char)(k_max + 127));
    size_t block = 0;
    for (; block + 64 <= blocks; block += 64) {
        __m512i byte = _mm512_loadu_si512(e8m0 + block);
        __m512i below = _mm512_sub_epi8(top, byte);
        __mmask64 far = _mm512_cmpgt_epu8_mask(below, _mm512_set1_epi8(15));
        __mmask64 is_16 = _mm512_cmpeq_epi8_mask(below, _mm512_set1_epi8(16));
        __m512i code = _mm512_shuffle_epi8(codes, below);
        code = _mm512_mask_mov_epi8(code, far, _mm512_set1_epi8(1));
        code = _mm512_mask_mov_epi8(code, is_16, _mm512_set1_epi8(2));
        for (unsigned half = 0; half < 2; half++) {
            __m256i part = half ? _mm512_extracti64x4_epi64(code, 1) : _mm512_castsi512_si256(code);
            __m512i word = _mm512_cvtepu8_epi16(part);
            word = _mm512_or_si512(word, _mm512_slli_epi16(word, 8));
            _mm512_storeu_si512(scale + 2 * block + 64UL * half, word);
        }
        __mmask64 rewrite = _mm512_cmpgt_epu8_mask(below, _mm512_set1_epi8(NVFP4_CAST_RANGE));
        if (rewrite) {
            __mmask64 lossy = rewrite & _mm512_test_epi8_mask(byte, byte);
            count->rewrite += (unsigned)__builtin_popcountll(rewrite);
            count->lossy += (unsigned)__builtin_popcountll(lossy);
        }
    }
    count->blocks += block;
    nvfp4_cast_scales_row(scale + 2 * block, e8m0 + block, blocks - block, k_max, count);
}

const struct codec codec_avx512 = {
    .name = "avx512",
    .fp8_dequant_row = fp8_row,
    .mxfp4_unpack_row = mxfp4_row,
    .nvfp4_unpack_row = nvfp4_row,
    .nvfp4_scales_row = scales_row,
    .nvfp4_scales_mse_row = scales_mse_row,
    .nvfp4_scales_four_over_six_row = scales_four_over_six_row,
    .nvfp4_scales_hessian_row = scales_hessian_row_avx512,
    .nvfp4_nibbles_row = nibbles_row,
    .nvfp4_cast_scales_row = cast_scales_row,
    .recode_row = recode_row_avx2,
};

#endif
