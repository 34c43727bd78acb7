/* BF16: all codes, and rounding around each of them. */
#include "tensor/bf16.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>

#include "reference.h"

static bool is_nan_code(unsigned code)
{
    return code % 0x8000 > 0x7f80;
}

static void expect_rounding(float value, unsigned expected)
{
    unsigned got = bf16_from_f32(value);
    if (got != expected)
        fail_msg("bf16_from_f32(%a, bits %08x): expected %04x, got %04x", (double)value,
                 f32_bits(value), expected, got);
}

static void every_code_has_its_value(void **state)
{
    (void)state;
    for (unsigned code = 0; code < 0x10000; code++) {
        float got = bf16_to_f32((uint16_t)code);
        if (is_nan_code(code)) {
            if (!isnan(got) || !signbit(got) != (code < 0x8000))
                fail_msg("bf16_to_f32(%04x): expected NaN with its sign, got %a", code,
                         (double)got);
            continue;
        }
        double expected = reference_from_bf16((uint16_t)code);
        if ((double)got != expected || !signbit(got) != !signbit(expected))
            fail_msg("bf16_to_f32(%04x): expected %a, got %a", code, expected, (double)got);
    }
}

static void every_code_survives_a_round_trip(void **state)
{
    (void)state;
    for (unsigned code = 0; code < 0x10000; code++) {
        unsigned expected = is_nan_code(code) ? 0x7fc0 | (code & 0x8000) : code;
        expect_rounding(bf16_to_f32((uint16_t)code), expected);
    }
}

/* From the largest one too, whose upper neighbour is infinity. */
static void ties_between_all_neighbours_go_to_even(void **state)
{
    (void)state;
    for (unsigned code = 0; code < 0x7f80; code++) {
        double middle =
            (reference_value(&bf16_format, code) + reference_value(&bf16_format, code + 1)) / 2;
        float tie = (float)middle;
        assert_true((double)tie == middle);
        for (unsigned sign = 0; sign <= 0x8000; sign += 0x8000) {
            float towards = sign ? -INFINITY : INFINITY;
            tie = copysignf(tie, towards);
            expect_rounding(nextafterf(tie, 0), sign | code);
            expect_rounding(tie, sign | (code % 2 ? code + 1 : code));
            expect_rounding(nextafterf(tie, towards), sign | (code + 1));
        }
    }
}

/* Each upper half with lower halves at and around zero, quarter, half and one. */
static void rounds_to_nearest(void **state)
{
    (void)state;
    static const uint32_t low[] = {0,      1,      2,      0x3fff, 0x4000, 0x4001, 0x7ffe, 0x7fff,
                                   0x8000, 0x8001, 0x8002, 0xbfff, 0xc000, 0xc001, 0xfffe, 0xffff};
    for (uint32_t high = 0; high < 0x10000; high++)
        for (size_t i = 0; i < sizeof low / sizeof *low; i++) {
            float value = f32_of_bits(high * 0x10000 + low[i]);
            expect_rounding(value, isnan(value) ? 0x7fc0 | (high & 0x8000)
                                                : reference_bf16((double)value));
        }
}

static void ends_of_the_range(void **state)
{
    (void)state;
    expect_rounding(0.0f, 0);
    expect_rounding(-0.0f, 0x8000);
    expect_rounding(FLT_TRUE_MIN, 0);
    expect_rounding(-FLT_TRUE_MIN, 0x8000);
    expect_rounding(0x1p-133f, 1);
    expect_rounding(0x1p-134f, 0);
    expect_rounding(FLT_MAX, 0x7f80);
    expect_rounding(-FLT_MAX, 0xff80);
    expect_rounding(0x1.fep127f, 0x7f7f);
    expect_rounding(0x1.fefffep127f, 0x7f7f);
    expect_rounding(INFINITY, 0x7f80);
    expect_rounding(-INFINITY, 0xff80);
    expect_rounding(f32_of_bits(0x7f800001), 0x7fc0);
    expect_rounding(f32_of_bits(0x7fffffff), 0x7fc0);
    expect_rounding(f32_of_bits(0xff800001), 0xffc0);
    expect_rounding(f32_of_bits(0xffffffff), 0xffc0);
}

static void not_finite_knows_nan_and_infinity(void **state)
{
    (void)state;
    for (unsigned code = 0; code < 0x10000; code++) {
        int expected = is_nan_code(code) || isinf(reference_from_bf16((uint16_t)code));
        int got = bf16_not_finite((uint16_t)code);
        if (!got != !expected)
            fail_msg("bf16_not_finite(%04x): expected %d, got %d", code, expected, got);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_has_its_value),
        cmocka_unit_test(every_code_survives_a_round_trip),
        cmocka_unit_test(ties_between_all_neighbours_go_to_even),
        cmocka_unit_test(rounds_to_nearest),
        cmocka_unit_test(ends_of_the_range),
        cmocka_unit_test(not_finite_knows_nan_and_infinity),
    };
    return cmocka_run_group_tests_name("bf16", tests, NULL, NULL);
}
