/* MXFP4 to FP8: all nibbles under all pairs of scales. */
#include "tensor/fp4_to_fp8.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "reference.h"

enum { COLS = 256, BLOCKS = COLS / 32, ROWS = 128 };

/* One block of each row has scale `high`, the others `low`. */
static void scales(uint8_t *e8m0, unsigned low, unsigned high)
{
    memset(e8m0, (int)low, ROWS * BLOCKS);
    e8m0[77 * BLOCKS + 5] = (uint8_t)high;
}

static void scale_of_a_block(void **state)
{
    (void)state;
    uint8_t e8m0[ROWS * BLOCKS], scale[COLS / 128];
    for (unsigned high = 0; high < 255; high++) {
        scales(e8m0, high / 2, high);
        fp4_to_fp8_scales(scale, e8m0, COLS);
        unsigned low = high / 2;
        assert_int_equal(scale[0], low < 6 ? 0 : low - 6);
        assert_int_equal(scale[1], high < 6 ? 0 : high - 6);
    }
}

static uint8_t nearest(double value)
{
    return (uint8_t)(reference_nearest(&e4m3_format, fabs(value)) | (value < 0 ? 0x80 : 0));
}

/* A row of one block of 128: its first 32 columns are under `code`, all others under 0 and zero. */
static void check_row(const struct fp4_to_fp8 *tables, const uint8_t *packed, unsigned code,
                      unsigned scale)
{
    uint8_t row[64] = {0}, e8m0[4] = {(uint8_t)code}, out[129];
    memset(out, 0x5a, sizeof out);
    memcpy(row, packed, 16);
    size_t lossy = fp4_to_fp8_row(tables, out, row, e8m0, &(uint8_t){(uint8_t)scale}, 128);
    bool lost = false;
    for (size_t j = 0; j < 128; j++) {
        unsigned nibble = j % 2 ? row[j / 2] / 16 : row[j / 2] % 16;
        double value = ldexp(reference_from_e2m1(nibble), (j < 32 ? (int)code : 0) - (int)scale);
        uint8_t expected = value == 0 ? 0 : nearest(value);
        lost |= fabs(reference_from_e4m3(expected & 0x7f)) != fabs(value);
        if (out[j] != expected)
            fail_msg("nibble %u under scale %u, as FP8 under %u: expected %02x, got %02x", nibble,
                     code, scale, expected, out[j]);
    }
    assert_int_equal(lossy, lost);
    assert_int_equal(out[128], 0x5a);
}

static void every_nibble_under_every_scale(void **state)
{
    (void)state;
    struct fp4_to_fp8 tables;
    uint8_t all[16], one[16] = {0};
    fp4_to_fp8_init(&tables);
    for (unsigned i = 0; i < 16; i++)
        all[i] = (uint8_t)(i + 16 * ((i * 7 + 3) % 16)); /* all sixteen, low and high */
    for (unsigned high = 0; high < 255; high += 7)
        for (unsigned code = high < 30 ? 0 : high - 30; code <= high; code++) {
            check_row(&tables, all, code, high < 6 ? 0 : high - 6);
            for (unsigned nibble = 0; nibble < 16; nibble++) { /* alone: is it lost? */
                one[7] = (uint8_t)(nibble << 4);
                check_row(&tables, one, code, high < 6 ? 0 : high - 6);
            }
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scale_of_a_block),
        cmocka_unit_test(every_nibble_under_every_scale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
