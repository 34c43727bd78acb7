#include "tensor/dtype.h"

#include <math.h>
#include <string.h>

#include "tensor/bf16.h"
#include "tensor/e2m1.h"
#include "tensor/e4m3.h"
#include "tensor/e8m0.h"

static const struct {
    const char *name;
    unsigned size;
    bool is_float;
} known[DTYPE_COUNT] = {
    [DTYPE_BOOL] = {"BOOL", 1, false},      [DTYPE_F4] = {"F4", 1, false},
    [DTYPE_U8] = {"U8", 1, false},          [DTYPE_I8] = {"I8", 1, false},
    [DTYPE_F8_E4M3] = {"F8_E4M3", 1, true}, [DTYPE_F8_E5M2] = {"F8_E5M2", 1, true},
    [DTYPE_F8_E8M0] = {"F8_E8M0", 1, true}, [DTYPE_I16] = {"I16", 2, false},
    [DTYPE_U16] = {"U16", 2, false},        [DTYPE_F16] = {"F16", 2, true},
    [DTYPE_BF16] = {"BF16", 2, true},       [DTYPE_I32] = {"I32", 4, false},
    [DTYPE_U32] = {"U32", 4, false},        [DTYPE_F32] = {"F32", 4, true},
    [DTYPE_I64] = {"I64", 8, false},        [DTYPE_U64] = {"U64", 8, false},
    [DTYPE_F64] = {"F64", 8, true},
};

const char *dtype_name(enum dtype dtype)
{
    return known[dtype].name;
}

bool dtype_parse(const char *name, enum dtype *dtype)
{
    for (int i = 0; i < DTYPE_COUNT; i++)
        if (!strcmp(known[i].name, name)) {
            *dtype = (enum dtype)i;
            return true;
        }
    return false;
}

unsigned dtype_size(enum dtype dtype)
{
    return known[dtype].size;
}

bool dtype_is_float(enum dtype dtype)
{
    return known[dtype].is_float;
}

/* A small IEEE-like float of the given mantissa and exponent widths; an all-ones exponent is
 * infinity or NaN. */
static double small_float(unsigned bits, unsigned mantissa_bits, unsigned exponent_bits)
{
    unsigned mantissa = bits & ((1U << mantissa_bits) - 1);
    unsigned all_ones = (1U << exponent_bits) - 1;
    unsigned exponent = bits >> mantissa_bits & all_ones;
    int bias = (int)(all_ones >> 1);
    double magnitude;
    if (exponent == all_ones)
        magnitude = mantissa ? NAN : INFINITY;
    else if (exponent == 0)
        magnitude = ldexp(mantissa, 1 - bias - (int)mantissa_bits);
    else
        magnitude =
            ldexp(mantissa + (1U << mantissa_bits), (int)exponent - bias - (int)mantissa_bits);
    return bits >> (mantissa_bits + exponent_bits) & 1 ? -magnitude : magnitude;
}

#define ELEMENT(type)                                                                              \
    do {                                                                                           \
        type value;                                                                                \
        memcpy(&value, (const char *)data + i * sizeof value, sizeof value);                       \
        return (double)value;                                                                      \
    } while (0)

double dtype_value(enum dtype dtype, const void *data, size_t i)
{
    const uint8_t *byte = data;
    uint16_t half;
    switch (dtype) {
    case DTYPE_F4:
        return e2m1_to_f32(byte[i / 2] >> 4 * (i % 2) & 15);
    case DTYPE_BOOL:
    case DTYPE_U8:
        return byte[i];
    case DTYPE_I8:
        return (int8_t)byte[i];
    case DTYPE_F8_E4M3:
        return e4m3_to_f32(byte[i]);
    case DTYPE_F8_E5M2:
        return small_float(byte[i], 2, 5);
    case DTYPE_F8_E8M0:
        return e8m0_to_f32(byte[i]);
    case DTYPE_F16:
        memcpy(&half, byte + 2 * i, sizeof half);
        return small_float(half, 10, 5);
    case DTYPE_BF16:
        memcpy(&half, byte + 2 * i, sizeof half);
        return bf16_to_f32(half);
    case DTYPE_I16:
        ELEMENT(int16_t);
    case DTYPE_U16:
        ELEMENT(uint16_t);
    case DTYPE_I32:
        ELEMENT(int32_t);
    case DTYPE_U32:
        ELEMENT(uint32_t);
    case DTYPE_F32:
        ELEMENT(float);
    case DTYPE_I64:
        ELEMENT(int64_t);
    case DTYPE_U64:
        ELEMENT(uint64_t);
    case DTYPE_F64:
        ELEMENT(double);
    case DTYPE_COUNT:
        break;
    }
    return NAN;
}
