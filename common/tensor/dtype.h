/* dtype.h: the element types of safetensors and their properties. */
#ifndef DTYPE_H
#define DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum dtype {
    DTYPE_BOOL,
    DTYPE_F4, /* E2M1, two elements in a byte, the even one in the low half */
    DTYPE_U8,
    DTYPE_I8,
    DTYPE_F8_E4M3,
    DTYPE_F8_E5M2,
    DTYPE_F8_E8M0,
    DTYPE_I16,
    DTYPE_U16,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_I32,
    DTYPE_U32,
    DTYPE_F32,
    DTYPE_I64,
    DTYPE_U64,
    DTYPE_F64,
    DTYPE_COUNT
};

/* The safetensors name of a dtype ("F8_E4M3"); static. */
const char *dtype_name(enum dtype dtype);

/* *dtype = the dtype with that safetensors name; false if it is unknown. */
bool dtype_parse(const char *name, enum dtype *dtype);

/* Bytes of one element: 1, 2, 4 or 8; of two for F4, which has whole bytes only. */
unsigned dtype_size(enum dtype dtype);

/* True for floating-point types, which have NaN or infinity. */
bool dtype_is_float(enum dtype dtype);

/* Element i of raw little-endian data as a double: exact for every dtype except I64 and U64 beyond
 * 2^53. E8M0 255 and the float types' NaNs give NaN. */
double dtype_value(enum dtype dtype, const void *data, size_t i);

#endif
