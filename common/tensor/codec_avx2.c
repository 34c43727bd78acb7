/* The codecs with AVX2: 32 bytes at a time. The portable versions explain what is computed and why.
 * They also process the end of a row, where it does not fill a register. */
#include "tensor/codec_x86.h"

#ifdef __x86_64__

#include "tensor/e2m1.h"
#include "tensor/e4m3.h"
#include "tensor/fp8.h"
#include "tensor/mxfp4.h"

AVX2 static inline __m128i load_16(const void *from)
{
    return _mm_loadu_si128(from);
}

AVX2 static inline __m256i load_32(const void *from)
{
    return _mm256_loadu_si256(from);
}

AVX2 static inline void store_32(void *to, __m256i bytes)
{
    _mm256_storeu_si256(to, bytes);
}

/* BF16 in the upper half of each lane, rounded to nearest even; the lower half is to be discarded.
 * An F32 NaN must be quiet and have a zero lower half, as products have. */
AVX2 static inline __m256i round_bf16(__m256 value)
{
    __m256i bits = _mm256_castps_si256(value);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    return _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
}

/* ---- FP8 ---- */

/* Eight E4M3 codes to F32, one per lane. Subnormals are integer multiples of 2^-9. */
AVX2 static inline __m256 e4m3_values(__m256i code)
{
    __m256i magnitude = _mm256_and_si256(code, _mm256_set1_epi32(0x7f));
    __m256i normal =
        _mm256_add_epi32(_mm256_slli_epi32(magnitude, 20), _mm256_set1_epi32(120 << 23));
    __m256i subnormal = _mm256_castps_si256(
        _mm256_mul_ps(_mm256_cvtepi32_ps(magnitude), _mm256_set1_ps(E4M3_MIN_SUBNORMAL)));
    __m256i is_subnormal = _mm256_cmpgt_epi32(_mm256_set1_epi32(8), magnitude);
    __m256i is_nan = _mm256_cmpeq_epi32(magnitude, _mm256_set1_epi32(0x7f));
    __m256i sign = _mm256_and_si256(_mm256_slli_epi32(code, 24), _mm256_set1_epi32(INT32_MIN));
    __m256i value = _mm256_blendv_epi8(normal, subnormal, is_subnormal);
    value = _mm256_blendv_epi8(value, _mm256_set1_epi32(0x7fc00000), is_nan);
    return _mm256_castsi256_ps(_mm256_or_si256(value, sign));
}

/* Sixteen elements under one scale; returns how many are NaN. */
AVX2 static inline size_t dequant_16(uint16_t *out, const uint8_t *w, __m256 scale)
{
    __m128i code = load_16(w);
    __m256 left = e4m3_values(_mm256_cvtepu8_epi32(code));
    __m256 right = e4m3_values(_mm256_cvtepu8_epi32(_mm_srli_si128(code, 8)));
    __m256i low = _mm256_srli_epi32(round_bf16(_mm256_mul_ps(left, scale)), 16);
    __m256i high = _mm256_srli_epi32(round_bf16(_mm256_mul_ps(right, scale)), 16);
    store_32(out, _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xd8));
    __m128i all_ones =
        _mm_cmpeq_epi8(_mm_or_si128(code, _mm_set1_epi8(INT8_MIN)), _mm_set1_epi8(-1));
    int nan = _mm_movemask_epi8(all_ones);
    return nan ? (size_t)__builtin_popcount((unsigned)nan) : 0;
}

AVX2 static size_t fp8_row(uint16_t *out, const uint8_t *w, const float *scale, size_t cols,
                           size_t block)
{
    size_t nan = 0;
    for (size_t first = 0; first < cols; first += block, scale++) {
        size_t end = cols - first < block ? cols : first + block, j = first;
        for (; j + 16 <= end; j += 16)
            nan += dequant_16(out + j, w + j, _mm256_set1_ps(*scale));
        nan += fp8_dequant_row(out + j, w + j, scale, end - j, block);
    }
    return nan;
}

/* ---- 4-bit codes to BF16 ---- */

/* Looks up the BF16 values of E2M1 as two bytes, then adds the scale's exponent to all but zeros.
 * For scales with which all values are normal and finite. */
AVX2 static inline void unpack_32(uint16_t *out, const uint8_t *packed, uint8_t scale)
{
    const __m256i low_bytes = _mm256_broadcastsi128_si256(
        _mm_set_epi64x((long long)0xc0804000c0800000, (long long)0xc0804000c0800000));
    const __m256i high_bytes = _mm256_broadcastsi128_si256(
        _mm_set_epi64x((long long)0xc0c0c0c0bfbfbf80, 0x404040403f3f3f00));
    __m256i nibble = _mm256_cvtepu8_epi16(load_16(packed));
    nibble = _mm256_or_si256(nibble, _mm256_slli_epi16(nibble, 4));
    nibble = _mm256_and_si256(nibble, _mm256_set1_epi8(15));
    __m256i low = _mm256_shuffle_epi8(low_bytes, nibble);
    __m256i high = _mm256_shuffle_epi8(high_bytes, nibble);
    __m256i exponent = _mm256_set1_epi16((short)((scale - 127) * 128));
    __m256i half[2] = {_mm256_unpacklo_epi8(low, high), _mm256_unpackhi_epi8(low, high)};
    for (int i = 0; i < 2; i++) {
        __m256i zero = _mm256_cmpeq_epi16(_mm256_slli_epi16(half[i], 1), _mm256_setzero_si256());
        half[i] = _mm256_add_epi16(half[i], _mm256_andnot_si256(zero, exponent));
    }
    store_32(out, _mm256_permute2x128_si256(half[0], half[1], 0x20));
    store_32(out + 16, _mm256_permute2x128_si256(half[0], half[1], 0x31));
}

AVX2 static void mxfp4_row(uint16_t *out, const uint8_t *packed, const uint8_t *scale, size_t cols)
{
    for (size_t block = 0; block < cols / MXFP4_BLOCK; block++) {
        if (scale[block] >= 2 && scale[block] <= 252)
            unpack_32(out, packed, scale[block]);
        else
            mxfp4_unpack_row(out, packed, &scale[block], MXFP4_BLOCK);
        out += MXFP4_BLOCK;
        packed += MXFP4_BLOCK / 2;
    }
}

/* The divisors of eight blocks, f32(scale) * scale_2. */
AVX2 static inline __m256 divisors_8(const uint8_t *scale, float scale_2)
{
    __m256i code = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)scale));
    return _mm256_mul_ps(e4m3_values(code), _mm256_set1_ps(scale_2));
}

/* Eight nibbles, each in a lane's lowest bits, times a factor; -0.0 is treated as 0. */
AVX2 static inline __m256i unpack_8(__m256i nibble, __m256 factor)
{
    const __m256 magnitudes = _mm256_setr_ps(0, 0.5f, 1, 1.5f, 2, 3, 4, 6);
    __m256 value = _mm256_permutevar8x32_ps(magnitudes, nibble); /* by the lowest three bits */
    __m256i sign = _mm256_and_si256(_mm256_slli_epi32(nibble, 28), _mm256_set1_epi32(INT32_MIN));
    value = _mm256_or_ps(value, _mm256_castsi256_ps(sign));
    value = _mm256_add_ps(value, _mm256_setzero_ps()); /* -0.0 becomes 0.0 */
    return round_bf16(_mm256_mul_ps(value, factor));
}

AVX2 static void nvfp4_row(uint16_t *out, const uint8_t *packed, const uint8_t *scale, size_t cols,
                           float scale_2)
{
    size_t blocks = cols / NVFP4_BLOCK, block = 0;
    for (; block + 8 <= blocks; block += 8) {
        float factor[8];
        _mm256_storeu_ps(factor, divisors_8(scale + block, scale_2));
        for (size_t i = 0; i < 8; i++, out += NVFP4_BLOCK, packed += NVFP4_BLOCK / 2) {
            __m256i pair = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)packed));
            __m256 f = _mm256_set1_ps(factor[i]);
            __m256i even = unpack_8(pair, f), odd = unpack_8(_mm256_srli_epi32(pair, 4), f);
            store_32(out, _mm256_blend_epi16(_mm256_srli_epi32(even, 16), odd, 0xaa));
        }
    }
    nvfp4_unpack_row(out, packed, scale + block, cols - block * NVFP4_BLOCK, scale_2);
}

/* ---- BF16 to NVFP4 ---- */

/* E4M3 codes of values in [2^-9, 448]. */
AVX2 static inline __m256i e4m3_codes(__m256 value)
{
    __m256i bits = _mm256_castps_si256(value);
    __m256i small = _mm256_castps_si256(_mm256_add_ps(value, _mm256_set1_ps(0x1p14f)));
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 20), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7ffff)));
    __m256i normal = _mm256_sub_epi32(_mm256_srli_epi32(rounded, 20), _mm256_set1_epi32(120 << 3));
    __m256i is_small = _mm256_cmpgt_epi32(_mm256_set1_epi32(0x3c800000), bits);
    return _mm256_and_si256(_mm256_blendv_epi8(normal, small, is_small), _mm256_set1_epi32(0xff));
}

/* The lowest byte of each lane. */
AVX2 static inline void store_low_bytes(uint8_t *to, __m256i lane)
{
    __m128i word =
        _mm_packus_epi32(_mm256_castsi256_si128(lane), _mm256_extracti128_si256(lane, 1));
    _mm_storel_epi64((void *)to, _mm_packus_epi16(word, word));
}

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

AVX2 static void scales_row(uint8_t *scale, const uint16_t *w, size_t cols, float scale_2)
{
    const __m256 one = _mm256_set1_ps(1), zero = _mm256_setzero_ps();
    const __m256 infinity = _mm256_set1_ps(INFINITY);
    const __m256i not_finite = _mm256_set1_epi32(NVFP4_NOT_FINITE);
    size_t blocks = cols / NVFP4_BLOCK, block = 0;
    for (; block + 8 <= blocks; block += 8, w += (size_t)8 * NVFP4_BLOCK) {
        float amax[8];
        for (size_t i = 0; i < 8; i++)
            amax[i] = block_amax(w + i * NVFP4_BLOCK);
        __m256 most = _mm256_loadu_ps(amax);
        __m256 s = _mm256_div_ps(most, _mm256_set1_ps(E2M1_MAX * scale_2));
        s = _mm256_blendv_ps(s, one, _mm256_cmp_ps(s, zero, _CMP_EQ_OQ));
        s = _mm256_max_ps(s, _mm256_set1_ps(E4M3_MIN_SUBNORMAL));
        s = _mm256_min_ps(s, _mm256_set1_ps(E4M3_MAX));
        __m256i finite = _mm256_castps_si256(_mm256_cmp_ps(most, infinity, _CMP_LT_OQ));
        store_low_bytes(scale + block, _mm256_blendv_epi8(not_finite, e4m3_codes(s), finite));
    }
    nvfp4_scales_row(scale + block, w, cols - block * NVFP4_BLOCK, scale_2);
}

/* E2M1 codes of quotients: below 1 the F32 adder rounds to halves; from 1 up the mantissa is
 * rounded to one bit. NaN (from 0 / 0) gives 0. */
AVX2 static inline __m256i e2m1_codes(__m256 q)
{
    __m256 magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), q);
    magnitude = _mm256_max_ps(magnitude, _mm256_setzero_ps()); /* max returns its second operand if
                                                                * one is NaN */
    __m256i bits = _mm256_castps_si256(magnitude);
    __m256i small =
        _mm256_and_si256(_mm256_castps_si256(_mm256_add_ps(magnitude, _mm256_set1_ps(0x1p22f))),
                         _mm256_set1_epi32(3));
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 22), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x1fffff)));
    __m256i normal = _mm256_sub_epi32(_mm256_srli_epi32(rounded, 22), _mm256_set1_epi32(126 << 1));
    __m256i is_small = _mm256_cmpgt_epi32(_mm256_set1_epi32(0x3f800000), bits);
    __m256i code =
        _mm256_blendv_epi8(_mm256_min_epi32(normal, _mm256_set1_epi32(7)), small, is_small);
    __m256i negative = _mm256_castps_si256(_mm256_cmp_ps(q, _mm256_setzero_ps(), _CMP_LT_OQ));
    return _mm256_or_si256(code, _mm256_and_si256(negative, _mm256_set1_epi32(8)));
}

AVX2 static void nibbles_row(uint8_t *packed, const uint8_t *scale, const uint16_t *w, size_t cols,
                             float scale_2)
{
    const __m256i upper = _mm256_set1_epi32((int)0xffff0000);
    size_t blocks = cols / NVFP4_BLOCK, block = 0;
    for (; block + 8 <= blocks; block += 8) {
        float divisor[8];
        _mm256_storeu_ps(divisor, divisors_8(scale + block, scale_2));
        for (size_t i = 0; i < 8; i++, w += NVFP4_BLOCK, packed += NVFP4_BLOCK / 2) {
            __m256i pair = load_32(w);
            __m256 d = _mm256_set1_ps(divisor[i]);
            __m256 even = _mm256_castsi256_ps(_mm256_slli_epi32(pair, 16));
            __m256 odd = _mm256_castsi256_ps(_mm256_and_si256(pair, upper));
            __m256i low = e2m1_codes(_mm256_div_ps(even, d));
            __m256i high = e2m1_codes(_mm256_div_ps(odd, d));
            store_low_bytes(packed, _mm256_or_si256(low, _mm256_slli_epi32(high, 4)));
        }
    }
    nvfp4_nibbles_row(packed, scale + block, w, cols - block * NVFP4_BLOCK, scale_2);
}

/* ---- MXFP4 to NVFP4 ---- */

/* 32 scales by their distance below k_max: up to 15 from a table, beyond that computed. */
AVX2 static void cast_scales_row(uint8_t *scale, const uint8_t *e8m0, size_t blocks, int k_max,
                                 struct nvfp4_cast_count *count)
{
    const __m256i codes =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0x78, 0x70, 0x68, 0x60, 0x58, 0x50, 0x48, 0x40,
                                                  0x38, 0x30, 0x28, 0x20, 0x18, 0x10, 0x08, 0x04));
    const __m256i top = _mm256_set1_epi8((char)(k_max + 127)), fifteen = _mm256_set1_epi8(15);
    const __m256i last = _mm256_set1_epi8(NVFP4_CAST_RANGE), zero = _mm256_setzero_si256();
    size_t block = 0;
    for (; block + 32 <= blocks; block += 32) {
        __m256i byte = load_32(e8m0 + block);
        __m256i below = _mm256_sub_epi8(top, byte);
        __m256i in_range = _mm256_cmpeq_epi8(_mm256_min_epu8(below, last), below);
        __m256i near = _mm256_cmpeq_epi8(_mm256_min_epu8(below, fifteen), below);
        __m256i is_16 = _mm256_cmpeq_epi8(below, _mm256_set1_epi8(16));
        __m256i far = _mm256_sub_epi8(_mm256_set1_epi8(1), is_16); /* 2, or 1 */
        __m256i code = _mm256_blendv_epi8(far, _mm256_shuffle_epi8(codes, below), near);
        __m256i low = _mm256_unpacklo_epi8(code, code), high = _mm256_unpackhi_epi8(code, code);
        store_32(scale + 2 * block, _mm256_permute2x128_si256(low, high, 0x20));
        store_32(scale + 2 * block + 32, _mm256_permute2x128_si256(low, high, 0x31));
        uint32_t rewrite = ~(uint32_t)_mm256_movemask_epi8(in_range);
        uint32_t zeros = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(byte, zero));
        if (rewrite) {
            count->rewrite += (unsigned)__builtin_popcount(rewrite);
            count->lossy += (unsigned)__builtin_popcount(rewrite & ~zeros);
        }
    }
    count->blocks += block;
    nvfp4_cast_scales_row(scale + 2 * block, e8m0 + block, blocks - block, k_max, count);
}

AVX2 void recode_row_avx2(uint8_t *out, uint8_t *scale, const struct recode *recode,
                          const uint8_t *packed, const uint8_t *e8m0, size_t blocks)
{
    const __m128i nibble = _mm_set1_epi8(15), magnitude = _mm_set1_epi8(7);
    for (size_t block = 0; block < blocks; block++) {
        __m128i byte = load_16(packed + 16 * block);
        __m128i low = _mm_and_si128(byte, nibble);
        __m128i high = _mm_and_si128(_mm_srli_epi16(byte, 4), nibble);
        /* The largest magnitude of each half: into its lowest byte. */
        __m128i most = _mm_max_epu8(_mm_and_si128(low, magnitude), _mm_and_si128(high, magnitude));
        most = _mm_max_epu8(most, _mm_srli_epi64(most, 32));
        most = _mm_max_epu8(most, _mm_srli_epi64(most, 16));
        most = _mm_max_epu8(most, _mm_srli_epi64(most, 8));
        size_t left = (size_t)8 * e8m0[block] + (size_t)_mm_extract_epi8(most, 0);
        size_t right = (size_t)8 * e8m0[block] + (size_t)_mm_extract_epi8(most, 8);
        __m128i new_left = _mm_or_si128(_mm_shuffle_epi8(load_16(recode->map[left].low), low),
                                        _mm_shuffle_epi8(load_16(recode->map[left].high), high));
        __m128i new_right = _mm_or_si128(_mm_shuffle_epi8(load_16(recode->map[right].low), low),
                                         _mm_shuffle_epi8(load_16(recode->map[right].high), high));
        _mm_storeu_si128((void *)(out + 16 * block), _mm_blend_epi16(new_left, new_right, 0xf0));
        scale[2 * block] = recode->scale[left];
        scale[2 * block + 1] = recode->scale[right];
    }
}

const struct codec codec_avx2 = {
    .name = "avx2",
    .fp8_dequant_row = fp8_row,
    .mxfp4_unpack_row = mxfp4_row,
    .nvfp4_unpack_row = nvfp4_row,
    .nvfp4_scales_row = scales_row,
    .nvfp4_nibbles_row = nibbles_row,
    .nvfp4_cast_scales_row = cast_scales_row,
    .recode_row = recode_row_avx2,
};

#endif
