#include "tensor/fp4_to_fp8.h"

#include <math.h>
#include <string.h>

#include "tensor/e2m1.h"
#include "tensor/e4m3.h"
#include "tensor/mxfp4.h"

void fp4_to_fp8_init(struct fp4_to_fp8 *tables)
{
    *tables = (struct fp4_to_fp8){0};
    for (int d = FP4_TO_FP8_LEAST; d <= FP4_TO_FP8_MOST; d++)
        for (unsigned nibble = 0; nibble < 16; nibble++) {
            float value = ldexpf(e2m1_to_f32(nibble), d);
            uint8_t code = value == 0 ? 0 : e4m3_from_f32(value);
            tables->code[d - FP4_TO_FP8_LEAST][nibble] = code;
            if (e4m3_to_f32(code) != value)
                tables->inexact[d - FP4_TO_FP8_LEAST] |= (uint16_t)(1U << nibble);
        }
}

void fp4_to_fp8_scales(uint8_t *scale, const uint8_t *e8m0, size_t cols)
{
    enum { EACH = FP4_TO_FP8_BLOCK / MXFP4_BLOCK };
    size_t blocks = cols / MXFP4_BLOCK;
    memset(scale, 0, cols / FP4_TO_FP8_BLOCK);
    for (size_t i = 0; i < FP4_TO_FP8_BLOCK; i++, e8m0 += blocks)
        for (size_t b = 0; b < blocks; b++)
            if (e8m0[b] > scale[b / EACH])
                scale[b / EACH] = e8m0[b];
    for (size_t b = 0; b < cols / FP4_TO_FP8_BLOCK; b++)
        scale[b] = scale[b] < FP4_TO_FP8_MOST ? 0 : scale[b] - FP4_TO_FP8_MOST;
}

/* One block of MXFP4; true if it lost something. */
static int cast_block(const struct fp4_to_fp8 *tables, uint8_t *out, const uint8_t *packed, int d)
{
    static const uint8_t none[16] = {[9] = 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80};
    static const uint16_t not_zero = 0xfefe;
    int at = d - FP4_TO_FP8_LEAST;
    const uint8_t *code = at < 0 ? none : tables->code[at];
    unsigned seen = 0;
    for (size_t i = 0; i < MXFP4_BLOCK / 2; i++) {
        unsigned low = packed[i] & 15, high = packed[i] >> 4;
        out[2 * i] = code[low];
        out[2 * i + 1] = code[high];
        seen |= 1U << low | 1U << high;
    }
    return (seen & (at < 0 ? not_zero : tables->inexact[at])) != 0;
}

size_t fp4_to_fp8_row(const struct fp4_to_fp8 *tables, uint8_t *out, const uint8_t *packed,
                      const uint8_t *e8m0, const uint8_t *scale, size_t cols)
{
    size_t lossy = 0;
    for (size_t b = 0; b < cols / MXFP4_BLOCK; b++)
        lossy += (size_t)cast_block(tables, out + b * MXFP4_BLOCK, packed + b * MXFP4_BLOCK / 2,
                                    e8m0[b] - scale[b * MXFP4_BLOCK / FP4_TO_FP8_BLOCK]);
    return lossy;
}
