/* The codecs with AVX2: 32 bytes at a time. The portable versions explain what is computed and why.
 * They also process the end of a row, where it does not fill a register. */
#include "tensor/codec_x86.h"

#ifdef __x86_64__

#include "tensor/e2m1.h"
#include "tensor/e4m3.h"
#include "tensor/fp8.h"
#include "tensor/mxfp4.h"
#include "tensor/scale_search.h"

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

/* ---- searches for block scales ---- */

/* As `struct block` of the portable version, of eight blocks: a lane for each, whose words are two
 * columns. finite: all ones, or 0. */
struct blocks_8 {
    __m256i m[NVFP4_BLOCK / 2], finite;
    __m256 amax;
};

/* Transposes pairs of columns: 4 x 4 within the halves of four registers, then the halves. */
AVX2 static inline void load_pairs(__m256i pair[8], const uint16_t *w)
{
    __m256i t[8];
    for (size_t i = 0; i < 8; i += 4) {
        __m256i m[4];
        for (size_t k = 0; k < 4; k++)
            m[k] =
                _mm256_and_si256(load_32(w + NVFP4_BLOCK * (i + k)), _mm256_set1_epi16(INT16_MAX));
        __m256i low[2] = {_mm256_unpacklo_epi32(m[0], m[1]), _mm256_unpacklo_epi32(m[2], m[3])};
        __m256i high[2] = {_mm256_unpackhi_epi32(m[0], m[1]), _mm256_unpackhi_epi32(m[2], m[3])};
        t[i] = _mm256_unpacklo_epi64(low[0], low[1]);
        t[i + 1] = _mm256_unpackhi_epi64(low[0], low[1]);
        t[i + 2] = _mm256_unpacklo_epi64(high[0], high[1]);
        t[i + 3] = _mm256_unpackhi_epi64(high[0], high[1]);
    }
    for (size_t k = 0; k < 4; k++) {
        pair[k] = _mm256_permute2x128_si256(t[k], t[k + 4], 0x20);
        pair[k + 4] = _mm256_permute2x128_si256(t[k], t[k + 4], 0x31);
    }
}

AVX2 static inline __m256i magnitudes(__m256i bits, __m256 factor)
{
    __m256 m = _mm256_mul_ps(_mm256_castsi256_ps(bits), factor);
    return _mm256_cvttps_epi32(_mm256_add_ps(m, _mm256_set1_ps(1)));
}

AVX2 static inline void load_blocks(struct blocks_8 *blocks, const uint16_t *w, float unit)
{
    const __m256i upper = _mm256_set1_epi32((int)0xffff0000);
    __m256i pair[8], most = _mm256_setzero_si256();
    load_pairs(pair, w);
    for (size_t i = 0; i < 8; i++)
        most = _mm256_max_epu16(most, pair[i]);
    most = _mm256_max_epi32(_mm256_slli_epi32(most, 16), _mm256_and_si256(most, upper));
    __m256 amax = _mm256_castsi256_ps(most);
    __m256 factor = _mm256_div_ps(_mm256_set1_ps(65534),
                                  _mm256_max_ps(amax, _mm256_set1_ps(SEARCH_AMAX_LEAST)));
    for (size_t i = 0; i < 8; i++) {
        __m256i even = magnitudes(_mm256_slli_epi32(pair[i], 16), factor);
        __m256i odd = magnitudes(_mm256_and_si256(pair[i], upper), factor);
        blocks->m[i] = _mm256_or_si256(even, _mm256_slli_epi32(odd, 16));
    }
    blocks->finite = _mm256_cmpgt_epi32(_mm256_set1_epi32(0x7f800000), most);
    blocks->amax = _mm256_mul_ps(amax, _mm256_set1_ps(unit));
}

/* The scales of eight blocks, where zeros get 1 and what is not finite its mark. */
AVX2 static inline void store_codes(uint8_t *scale, const struct blocks_8 *blocks, __m256i code)
{
    __m256 zero = _mm256_cmp_ps(blocks->amax, _mm256_setzero_ps(), _CMP_EQ_OQ);
    code = _mm256_blendv_epi8(code, _mm256_set1_epi32(0x38), _mm256_castps_si256(zero));
    code = _mm256_blendv_epi8(_mm256_set1_epi32(NVFP4_NOT_FINITE), code, blocks->finite);
    store_low_bytes(scale, code);
}

/* The nearest E2M1 values, which have zeros in the lower bytes. The upper bytes look them up in two
 * tables; with FINE_BITS, the highest bit tells which one to take. */
AVX2 static inline __m256i nearest_16(__m256i y, bool coarse)
{
    __m256i low = _mm256_broadcastsi128_si256(_mm_setr_epi8(SEARCH_NEAREST_16));
    __m256i high = _mm256_broadcastsi128_si256(_mm_setr_epi8(SEARCH_NEAREST_32));
    __m256i quarters, second = y;
    if (coarse) {
        quarters = _mm256_min_epu8(y, _mm256_set1_epi8(31));
        second = _mm256_cmpgt_epi8(quarters, _mm256_set1_epi8(15));
    } else {
        quarters = _mm256_srli_epi16(y, FINE_BITS - 8);
        low = _mm256_slli_epi16(low, FINE_BITS - 8); /* within bytes */
        high = _mm256_slli_epi16(high, FINE_BITS - 8);
    }
    __m256i value = _mm256_blendv_epi8(_mm256_shuffle_epi8(low, quarters),
                                       _mm256_shuffle_epi8(high, quarters), second);
    return _mm256_and_si256(value, _mm256_set1_epi16((short)0xff00));
}

/* e4m3_values() of codes 1 to 126: as the upper bits of F32, they lack the difference of biases. */
AVX2 static inline __m256 positive_values(__m256i code)
{
    __m256 biased = _mm256_castsi256_ps(_mm256_slli_epi32(code, 20));
    return _mm256_mul_ps(biased, _mm256_set1_ps(0x1p120f));
}

/* Half of the sums of squared errors with FINE_BITS or COARSE_BITS, in units of scale squared.
 * factor: amax * SEARCH_FACTOR() * 4 / scale. */
AVX2 static inline __m256 errors_8(const struct blocks_8 *blocks, __m256 factor, bool coarse)
{
    factor = _mm256_add_ps(_mm256_min_ps(factor, _mm256_set1_ps(65535)), _mm256_set1_ps(0.5f));
    __m256i multiplier = _mm256_cvttps_epi32(factor), sum = _mm256_setzero_si256();
    multiplier = _mm256_or_si256(multiplier, _mm256_slli_epi32(multiplier, 16));
    for (size_t i = 0; i < NVFP4_BLOCK / 2; i++) {
        __m256i y = _mm256_mulhi_epu16(blocks->m[i], multiplier);
        __m256i error = _mm256_sub_epi16(y, nearest_16(y, coarse));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(error, error));
    }
    return _mm256_cvtepi32_ps(_mm256_srli_epi32(sum, 1));
}

AVX2 static inline __m256 fine_errors(const struct blocks_8 *blocks, __m256i code)
{
    __m256 s = positive_values(code);
    __m256 amax = _mm256_mul_ps(blocks->amax, _mm256_set1_ps(SEARCH_FACTOR(FINE_BITS)));
    __m256 factor = _mm256_mul_ps(amax, _mm256_div_ps(_mm256_set1_ps(4), s));
    return _mm256_mul_ps(errors_8(blocks, factor, false), _mm256_mul_ps(s, s));
}

AVX2 static inline __m256 clamp_scales(__m256 s)
{
    s = _mm256_max_ps(s, _mm256_set1_ps(E4M3_MIN_SUBNORMAL));
    return _mm256_min_ps(s, _mm256_set1_ps(E4M3_MAX));
}

struct best_8 {
    __m256 least;
    __m256i code;
};

/* lanes: all ones where the error counts. */
AVX2 static inline void take_better(struct best_8 *best, __m256 lanes, __m256 error, __m256i code)
{
    lanes = _mm256_and_ps(lanes, _mm256_cmp_ps(error, best->least, _CMP_LT_OQ));
    best->least = _mm256_blendv_ps(best->least, error, lanes);
    best->code = _mm256_blendv_epi8(best->code, code, _mm256_castps_si256(lanes));
}

/* Codes below those in `code`, in the lanes where clipping does not cost too much yet. */
AVX2 static inline void search_below(struct best_8 *best, const struct blocks_8 *blocks,
                                     __m256i code)
{
    const __m256 coarse = _mm256_set1_ps(SEARCH_FACTOR(COARSE_BITS));
    __m256 lanes = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
    for (;;) {
        code = _mm256_sub_epi32(code, _mm256_set1_epi32(1));
        __m256 s = positive_values(code), inverse = _mm256_div_ps(_mm256_set1_ps(4), s);
        __m256 y = _mm256_mul_ps(blocks->amax, inverse);
        __m256 error = _mm256_sub_ps(y, _mm256_set1_ps(4 * E2M1_MAX));
        error = _mm256_mul_ps(error, _mm256_set1_ps(1 << FINE_BITS));
        error = _mm256_mul_ps(_mm256_mul_ps(error, error), _mm256_set1_ps(0.5f));
        error = _mm256_mul_ps(error, _mm256_mul_ps(s, s));
        __m256i is_code = _mm256_cmpgt_epi32(code, _mm256_setzero_si256());
        lanes = _mm256_and_ps(lanes, _mm256_castsi256_ps(is_code));
        lanes = _mm256_and_ps(lanes, _mm256_cmp_ps(error, best->least, _CMP_LT_OQ));
        lanes = _mm256_and_ps(lanes, _mm256_cmp_ps(y, _mm256_set1_ps(SEARCH_QUARTERS), _CMP_LT_OQ));
        if (!_mm256_movemask_ps(lanes))
            return;
        __m256 factor = _mm256_mul_ps(_mm256_mul_ps(blocks->amax, coarse), inverse);
        s = _mm256_mul_ps(_mm256_mul_ps(s, s), _mm256_set1_ps(1 << 2 * (FINE_BITS - COARSE_BITS)));
        take_better(best, lanes, _mm256_mul_ps(errors_8(blocks, factor, true), s), code);
    }
}

AVX2 static inline __m256i least_errors(const struct blocks_8 *blocks)
{
    const __m256i one = _mm256_set1_epi32(1), most = _mm256_set1_epi32(0x7e);
    __m256 least = clamp_scales(_mm256_div_ps(blocks->amax, _mm256_set1_ps(7)));
    __m256i first = e4m3_codes(least); /* rounded to nearest; 1 more if that is below */
    __m256 below = _mm256_cmp_ps(positive_values(first), least, _CMP_LT_OQ);
    first = _mm256_sub_epi32(first, _mm256_castps_si256(below));
    __m256i low = _mm256_cmpgt_epi32(_mm256_set1_epi32(8), first);
    __m256i last = _mm256_add_epi32(first, _mm256_set1_epi32(7));
    last = _mm256_min_epi32(_mm256_blendv_epi8(last, _mm256_set1_epi32(15), low), most);
    struct best_8 best = {_mm256_set1_ps(INFINITY), first};
    __m256 all = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
    __m256i code = first;
    for (int i = 0; i < (_mm256_movemask_epi8(low) ? 15 : 8); i++) {
        take_better(&best, all, fine_errors(blocks, code), code);
        code = _mm256_min_epi32(_mm256_add_epi32(code, one), last);
    }
    search_below(&best, blocks, first);
    __m256 above = _mm256_cmp_ps(blocks->amax, _mm256_set1_ps(7 * E4M3_MAX), _CMP_GT_OQ);
    return _mm256_blendv_epi8(best.code, most, _mm256_castps_si256(above));
}

AVX2 static void scales_mse_row(uint8_t *scale, const uint16_t *w, size_t cols, float scale_2)
{
    size_t count = scale_search_possible(scale_2) ? cols / NVFP4_BLOCK : 0, block = 0;
    for (; block + 8 <= count; block += 8, w += (size_t)8 * NVFP4_BLOCK) {
        struct blocks_8 blocks;
        load_blocks(&blocks, w, 1 / scale_2);
        store_codes(scale + block, &blocks, least_errors(&blocks));
    }
    nvfp4_scales_mse_row(scale + block, w, cols - block * NVFP4_BLOCK, scale_2);
}

AVX2 static inline __m256i fours_or_sixes(const struct blocks_8 *blocks)
{
    __m256 s = _mm256_div_ps(blocks->amax, _mm256_set1_ps(E2M1_MAX));
    s = _mm256_max_ps(s, _mm256_set1_ps(E4M3_MIN_SUBNORMAL));
    __m256i six = e4m3_codes(clamp_scales(s));
    __m256i four = e4m3_codes(clamp_scales(_mm256_mul_ps(s, _mm256_set1_ps(1.5f))));
    struct best_8 best = {fine_errors(blocks, six), six};
    take_better(&best, _mm256_castsi256_ps(_mm256_set1_epi32(-1)), fine_errors(blocks, four), four);
    return best.code;
}

AVX2 static void scales_four_over_six_row(uint8_t *scale, const uint16_t *w, size_t cols,
                                          float scale_2)
{
    size_t count = scale_search_possible(scale_2) ? cols / NVFP4_BLOCK : 0, block = 0;
    for (; block + 8 <= count; block += 8, w += (size_t)8 * NVFP4_BLOCK) {
        struct blocks_8 blocks;
        load_blocks(&blocks, w, 1 / scale_2);
        store_codes(scale + block, &blocks, fours_or_sixes(&blocks));
    }
    nvfp4_scales_four_over_six_row(scale + block, w, cols - block * NVFP4_BLOCK, scale_2);
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
    .nvfp4_scales_mse_row = scales_mse_row,
    .nvfp4_scales_four_over_six_row = scales_four_over_six_row,
    .nvfp4_scales_hessian_row = scales_hessian_row_avx2,
    .nvfp4_nibbles_row = nibbles_row,
    .nvfp4_cast_scales_row = cast_scales_row,
    .recode_row = recode_row_avx2,
};

#endif
