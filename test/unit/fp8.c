/* DeepSeek's FP8 weights to BF16: all codes against many scales, and shapes that no block fits. */
#include "tensor/fp8.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "reference.h"

enum { COLS_MAX = 700, GUARD = 0xa5a5 };

static uint16_t expected_element(uint8_t code, float scale)
{
    if (code % 0x80 == 0x7f)
        return code < 0x80 ? 0x7fc0 : 0xffc0;
    return reference_bf16(f32(reference_from_e4m3(code) * (double)scale));
}

/* Dequantize and compare all; out has one guard element behind the row. */
static void check_row(const uint8_t *w, const float *scale, size_t cols, size_t block)
{
    uint16_t out[COLS_MAX + 1];
    for (size_t j = 0; j <= COLS_MAX; j++)
        out[j] = GUARD;
    size_t nan = fp8_dequant_row(out, w, scale, cols, block);
    size_t expected_nan = 0;
    for (size_t j = 0; j < cols; j++) {
        uint16_t expected = expected_element(w[j], scale[j / block]);
        expected_nan += w[j] % 0x80 == 0x7f;
        if (out[j] != expected)
            fail_msg("column %zu of %zu, block %zu: code %02x times %a: expected %04x, got %04x", j,
                     cols, block, w[j], (double)scale[j / block], expected, out[j]);
    }
    if (nan != expected_nan)
        fail_msg("%zu columns, block %zu: expected %zu NaN, got %zu", cols, block, expected_nan,
                 nan);
    if (out[cols] != GUARD)
        fail_msg("%zu columns, block %zu: wrote behind the row", cols, block);
}

/* All 256 codes against one scale: two blocks of 128. */
static void check_codes(float scale)
{
    uint8_t w[256];
    for (unsigned code = 0; code < 256; code++)
        w[code] = (uint8_t)code;
    check_row(w, (float[]){scale, scale}, 256, 128);
}

static void all_codes_against_powers_of_two(void **state)
{
    (void)state;
    for (int exponent = -149; exponent <= 127; exponent++) {
        check_codes(ldexpf(1, exponent));
        check_codes(ldexpf(-1, exponent));
    }
}

static void all_codes_against_any_scale(void **state)
{
    (void)state;
    static const float scales[] = {0.0f,    -0.0f,    FLT_TRUE_MIN,    0x1.fffffcp-127f,
                                   FLT_MIN, FLT_MAX,  0x1.249248p-12f, 1.0f / 448,
                                   0.1f,    -0.0003f, 0x1.fffffep118f};
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++)
        check_codes(scales[i]);
    uint64_t seed = 1;
    for (unsigned i = 0; i < 3000; i++) {
        float scale = f32_of_bits(sequence(&seed));
        if (isfinite(scale))
            check_codes(scale);
    }
}

/* The product is rounded twice, which shows where it lies so near to the middle of two BF16 values
 * that F32 has it exactly there: scales made for that, by division. */
static void product_is_rounded_to_f32_first(void **state)
{
    (void)state;
    unsigned shows = 0;
    for (unsigned bf16 = 0x3f00; bf16 < 0x3f80; bf16++) {
        double middle =
            (reference_value(&bf16_format, bf16) + reference_value(&bf16_format, bf16 + 1)) / 2;
        for (unsigned code = 0x39; code < 0x40; code++) {
            float scale = (float)(middle / reference_from_e4m3((uint8_t)code));
            double product = reference_from_e4m3((uint8_t)code) * (double)scale;
            shows += reference_bf16(product) != expected_element((uint8_t)code, scale);
            check_codes(scale);
        }
    }
    assert_true(shows > 20);
}

static void infinite_scale(void **state)
{
    (void)state;
    uint8_t w[5] = {0x01, 0x81, 0x7e, 0x7f, 0xff}; /* no zero: its NaN has no certain sign */
    check_row(w, (float[]){INFINITY}, 5, 128);
    check_row(w, (float[]){-INFINITY}, 5, 128);
}

static void rows_that_no_block_fits(void **state)
{
    (void)state;
    static const size_t blocks[] = {128, 64, 32, 7, 1};
    uint64_t seed = 2;
    for (size_t b = 0; b < sizeof blocks / sizeof *blocks; b++)
        for (size_t cols = 0; cols <= COLS_MAX; cols += cols < 260 ? 1 : 11) {
            uint8_t w[COLS_MAX];
            float scale[COLS_MAX];
            for (size_t j = 0; j < COLS_MAX; j++) {
                w[j] = (uint8_t)(sequence(&seed) >> 24);
                scale[j] = ldexpf((float)(sequence(&seed) >> 8), (int)(j % 20) - 40);
            }
            check_row(w, scale, cols, blocks[b]);
        }
}

/* 1 / 0.9403 is 1.0635: as BF16 1.0625, half way between two codes, of which 1 is even. Without
 * that rounding, 1.125 would be nearer. */
static void packing_rounds_the_quotient_to_bf16(void **state)
{
    (void)state;
    const uint16_t w[] = {0x3f80, 0xbf80, 0x8000, 0x447a, 0xc47a};
    const uint8_t wanted[] = {0x38, 0xb8, 0x80, 0x7e, 0xfe}; /* 1, -1, -0, and 448 for 1000 */
    uint8_t out[sizeof wanted];
    fp8_pack_row(out, w, 0.9403f, sizeof wanted);
    assert_memory_equal(out, wanted, sizeof wanted);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_codes_against_powers_of_two),
        cmocka_unit_test(all_codes_against_any_scale),
        cmocka_unit_test(product_is_rounded_to_f32_first),
        cmocka_unit_test(infinite_scale),
        cmocka_unit_test(rows_that_no_block_fits),
        cmocka_unit_test(packing_rounds_the_quotient_to_bf16),
    };
    return cmocka_run_group_tests_name("fp8", tests, NULL, NULL);
}
