/* The codecs with AVX-512 (F, BW and VL): as codec_avx2.c, 64 bytes at a time. */
#include "codec_x86.h"

#ifdef __x86_64__

#include "e2m1.h"
#include "e4m3.h"
#include "fp8.h"
#include "mxfp4.h"

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl")))

AVX512 static inline __m512i round_bf16(__m512 value)
{
    __m512i bits = _mm512_castps_si512(value);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    return _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
}

/* ---- FP8 ---- */

/* Sixteen E4M3 codes, a lane each. */
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

/* A register holds the 32 words of E2M1's values twice, and looks up by five bits, of which the
 * fifth, part of the next nibble, makes no difference. */
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

AVX512 static void scales_row(uint8_t *scale, const uint16_t *w, size_t cols, float scale_2)
{
    const __m512i not_finite = _mm512_set1_epi32(NVFP4_NOT_FINITE);
    size_t blocks = cols / NVFP4_BLOCK, block = 0;
    for (; block + 16 <= blocks; block += 16, w += (size_t)16 * NVFP4_BLOCK) {
        float amax[16];
        for (size_t i = 0; i < 16; i++)
            amax[i] = block_amax(w + i * NVFP4_BLOCK);
        __m512 most = _mm512_loadu_ps(amax);
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

/* E2M1 codes of quotients; NaN, as 0 / 0 is, gives 0. */
AVX512 static inline __m512i e2m1_codes(__m512 q)
{
    __m512 magnitude = _mm512_max_ps(_mm512_abs_ps(q), _mm512_setzero_ps());
    __m512i bits = _mm512_castps_si512(magnitude);
    __m512i small =
        _mm512_and_si512(_mm512_castps_si512(_mm512_add_ps(magnitude, _mm512_set1_ps(0x1p22f))),
                         _mm512_set1_epi32(3));
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 22), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x1fffff)));
    __m512i normal = _mm512_sub_epi32(_mm512_srli_epi32(rounded, 22), _mm512_set1_epi32(126 << 1));
    __mmask16 is_small = _mm512_cmplt_epi32_mask(bits, _mm512_set1_epi32(0x3f800000));
    __m512i code = _mm512_min_epi32(normal, _mm512_set1_epi32(7));
    code = _mm512_mask_mov_epi32(code, is_small, small);
    __mmask16 negative = _mm512_cmp_ps_mask(q, _mm512_setzero_ps(), _CMP_LT_OQ);
    return _mm512_mask_or_epi32(code, negative, code, _mm512_set1_epi32(8));
}

AVX512 static void nibbles_row(uint8_t *packed, const uint8_t *scale, const uint16_t *w,
                               size_t cols, float scale_2)
{
    const __m512i upper = _mm512_set1_epi32((int)0xffff0000);
    size_t blocks = cols / NVFP4_BLOCK, block = 0;
    for (; block + 16 <= blocks; block += 16) {
        float divisor[16];
        _mm512_storeu_ps(divisor, divisors_16(scale + block, scale_2));
        for (size_t i = 0; i < 16; i += 2, w += (size_t)2 * NVFP4_BLOCK, packed += NVFP4_BLOCK) {
            __m512i pair = _mm512_loadu_si512(w);
            __m512 d = two_factors(divisor + i);
            __m512 even = _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16));
            __m512 odd = _mm512_castsi512_ps(_mm512_and_si512(pair, upper));
            __m512i low = e2m1_codes(_mm512_div_ps(even, d));
            __m512i high = e2m1_codes(_mm512_div_ps(odd, d));
            __m512i both = _mm512_or_si512(low, _mm512_slli_epi32(high, 4));
            _mm_storeu_si128((void *)packed, _mm512_cvtepi32_epi8(both));
        }
    }
    nvfp4_nibbles_row(packed, scale + block, w, cols - block * NVFP4_BLOCK, scale_2);
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
    .nvfp4_nibbles_row = nibbles_row,
    .nvfp4_cast_scales_row = cast_scales_row,
    .recode_row = recode_row_avx2,
};

#endif
