/* codec.cuh: the number formats on the GPU. The same functions as in
 * common/tensor/{bf16,e4m3,e2m1,e8m0}.h, under the same names, written without branches.
 * test/unit/cuda.c compares them with the CPU's codecs, byte by byte.
 *
 * Compiled without contraction and with subnormals, like all GPU code here. */
#ifndef CODEC_CUH
#define CODEC_CUH

#include <stdint.h>

#define E4M3_MAX 448.0f
#define E4M3_MIN_SUBNORMAL 0x1p-9f
#define E2M1_MAX 6.0f

static __device__ inline float bf16_to_f32(uint16_t bits)
{
    return __uint_as_float((uint32_t)bits << 16);
}

static __device__ inline uint16_t bf16_from_f32(float value)
{
    uint32_t bits = __float_as_uint(value);
    uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    uint32_t nan = (bits >> 16 & 0x8000) | 0x7fc0;
    return (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? nan : rounded);
}

/* Two values rounded like that, by one instruction: low's code in the lower half. A NaN gives a
 * NaN, but not with its sign. */
static __device__ inline uint32_t bf16_pair(float low, float high)
{
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

/* One BF16 step: the value rounded. */
static __device__ inline float to_bf16(float value)
{
    return __uint_as_float(bf16_pair(0, value));
}

/* A NaN's code gives a NaN with its sign. */
static __device__ inline float e4m3_to_f32(uint8_t code)
{
    uint32_t magnitude = code & 0x7f, sign = (uint32_t)(code & 0x80) << 24;
    float normal = __uint_as_float((magnitude << 20) + (120U << 23));
    float value = magnitude < 8 ? (float)magnitude * 0x1p-9f : normal;
    uint32_t bits = magnitude == 0x7f ? 0x7fc00000 : __float_as_uint(value);
    return __uint_as_float(bits | sign);
}

static __device__ inline uint8_t e4m3_from_f32(float value)
{
    uint32_t bits = __float_as_uint(value), sign = bits >> 24 & 0x80, magnitude = bits & 0x7fffffff;
    uint32_t normal = (magnitude + 0x7ffff + (magnitude >> 20 & 1)) >> 20;
    uint32_t small = __float_as_uint(__uint_as_float(magnitude) + 0x1p14f) & 0xff;
    uint32_t code = magnitude < 0x3c800000 ? small : normal - ((127 - 7) << 3);
    code = magnitude >= 0x43e00000 ? 0x7e : code > 0x7e ? 0x7e : code;
    return (uint8_t)(sign | (magnitude > 0x7f800000 ? 0x7f : code));
}

/* e4m3_to_f32(e4m3_from_f32(value)) for |value| <= 448. */
static __device__ inline float round_e4m3(float value)
{
    uint32_t bits = __float_as_uint(value), magnitude = bits & 0x7fffffff;
    uint32_t small = __float_as_uint(__uint_as_float(magnitude) + 0x1p14f - 0x1p14f);
    uint32_t normal = (magnitude + 0x7ffff + (magnitude >> 20 & 1)) & 0xfff00000;
    return __uint_as_float((magnitude < 0x3c800000 ? small : normal) | (bits & 0x80000000));
}

/* Exponent and mantissa move into place, rebiased; 1 (0.5) is E2M1's one subnormal. */
static __device__ inline float e2m1_to_f32(unsigned nibble)
{
    uint32_t code = nibble & 7, sign = (nibble & 8) << 28;
    uint32_t magnitude = (code << 22) + (126U << 23);
    magnitude = code == 1 ? 126U << 23 : magnitude;
    return __uint_as_float((code ? magnitude : 0) | sign);
}

static __device__ inline unsigned e2m1_from_f32(float q)
{
    float a = fabsf(q);
    unsigned code = (a > 0.25f) + (a >= 0.75f) + (a > 1.25f) + (a >= 1.75f) + (a > 2.5f) +
                    (a >= 3.5f) + (a > 5.0f);
    return code | (q < 0 ? 8U : 0U);
}

/* Not for the code of NaN, 255. */
static __device__ inline float e8m0_to_f32(uint8_t code)
{
    return __uint_as_float(code ? (uint32_t)code << 23 : 1U << 22);
}

/* See common/tensor/split.h. */
enum { SPLIT = 6 };

struct split {
    uint16_t high, middle, low;
};

static __device__ inline struct split split_of(float value)
{
    struct split s;
    s.high = bf16_from_f32(value);
    value -= bf16_to_f32(s.high);
    s.middle = bf16_from_f32(value);
    s.low = bf16_from_f32(value - bf16_to_f32(s.middle));
    return s;
}

static __device__ inline void split_left(uint16_t *row, uint64_t cols, struct split s)
{
    row[0] = row[cols] = row[4 * cols] = s.high;
    row[2 * cols] = row[3 * cols] = s.middle;
    row[5 * cols] = s.low;
}

static __device__ inline void split_right(uint16_t *row, uint64_t cols, struct split s)
{
    row[0] = row[2 * cols] = row[5 * cols] = s.high;
    row[cols] = row[3 * cols] = s.middle;
    row[4 * cols] = s.low;
}

/* 2^ceil(log2(value)) of a positive normal number. */
static __device__ inline float power_above(float value)
{
    uint32_t bits = __float_as_uint(value);
    return __uint_as_float((bits & 0x7f800000) + ((bits & 0x7fffff) ? 0x800000 : 0));
}

#endif
