/* FP8 E4M3: all codes, and rounding around each of them. */
#include "tensor/e4m3.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "golden.h"
#include "reference.h"

static void expect_rounding(float value, unsigned expected)
{
    unsigned got = e4m3_from_f32(value);
    if (got != expected)
        fail_msg("e4m3_from_f32(%a, bits %08x): expected %02x, got %02x", (double)value,
                 f32_bits(value), expected, got);
}

static unsigned reference_e4m3(float value)
{
    unsigned sign = signbit(value) ? 0x80 : 0;
    return sign + (isnan(value) ? 0x7f : reference_nearest(&e4m3_format, fabs((double)value)));
}

static void expect_decoded(unsigned code, double expected)
{
    float got = e4m3_to_f32((uint8_t)code);
    if (!signbit(got) != (code < 0x80))
        fail_msg("e4m3_to_f32(%02x): expected %a, got %a: wrong sign", code, expected, (double)got);
    if (isnan(expected) ? !isnan(got) : (double)got != expected)
        fail_msg("e4m3_to_f32(%02x): expected %a, got %a", code, expected, (double)got);
}

static void every_code_has_its_value(void **state)
{
    (void)state;
    for (unsigned code = 0; code < 256; code++)
        expect_decoded(code, reference_from_e4m3((uint8_t)code));
    /* The paper's own table of the format. */
    expect_decoded(0x00, 0.0);
    expect_decoded(0x80, -0.0);
    expect_decoded(0x01, 0x1p-9);
    expect_decoded(0x07, 0.875 * 0x1p-6);
    expect_decoded(0x08, 0x1p-6);
    expect_decoded(0x38, 1.0);
    expect_decoded(0x7e, 448.0);
    expect_decoded(0xfe, -448.0);
    expect_decoded(0x7f, NAN);
    expect_decoded(0xff, NAN);
    assert_true(E4M3_MAX == e4m3_to_f32(0x7e));
    assert_true(E4M3_MIN_SUBNORMAL == e4m3_to_f32(0x01));
}

static void every_code_survives_a_round_trip(void **state)
{
    (void)state;
    for (unsigned code = 0; code < 256; code++)
        expect_rounding(e4m3_to_f32((uint8_t)code), code);
}

static void ties_between_all_neighbours_go_to_even(void **state)
{
    (void)state;
    for (unsigned code = 0; code < 0x7e; code++) {
        double middle =
            (reference_value(&e4m3_format, code) + reference_value(&e4m3_format, code + 1)) / 2;
        for (unsigned sign = 0; sign <= 0x80; sign += 0x80) {
            float towards = sign ? -INFINITY : INFINITY;
            float tie = copysignf((float)middle, towards);
            expect_rounding(nextafterf(tie, 0), sign | code);
            expect_rounding(tie, sign | (code % 2 ? code + 1 : code));
            expect_rounding(nextafterf(tie, towards), sign | (code + 1));
        }
    }
}

/* Every F32 with 12 bits of significand (all codes and all ties between two have fewer), and the
 * two F32 next to it: from 0 over subnormals, infinities and NaN of both signs. */
static void rounds_to_nearest(void **state)
{
    (void)state;
    for (uint32_t high = 0; high < 1 << 20; high++)
        for (int step = -1; step <= 1; step++) {
            float value = f32_of_bits(high * 0x1000 + (uint32_t)step);
            expect_rounding(value, reference_e4m3(value));
        }
}

static void saturates(void **state)
{
    (void)state;
    static const float beyond[] = {448, 0x1.c00002p8f, 464,     0x1.d00002p8f, 480,
                                   512, 0x1p100f,      FLT_MAX, INFINITY};
    for (size_t i = 0; i < sizeof beyond / sizeof *beyond; i++) {
        expect_rounding(beyond[i], 0x7e);
        expect_rounding(-beyond[i], 0xfe);
    }
    expect_rounding(432, 0x7e);
    expect_rounding(nextafterf(432, 0), 0x7d);
}

static void nan_keeps_its_sign(void **state)
{
    (void)state;
    static const uint32_t nan[] = {0x7f800001, 0x7fbfffff, 0x7fc00000, 0x7fffffff, 0x7ff00000};
    for (size_t i = 0; i < sizeof nan / sizeof *nan; i++) {
        expect_rounding(f32_of_bits(nan[i]), 0x7f);
        expect_rounding(f32_of_bits(nan[i] | 0x80000000), 0xff);
    }
}

static void golden_values(void **state)
{
    (void)state;
    const uint8_t *code = golden_tensor("U8", 256, "e4m3.codes");
    const float *value = golden_tensor("F32", 256, "e4m3.f32");
    unsigned nan = 0;
    for (size_t i = 0; i < 256; i++) {
        expect_decoded(code[i], (double)value[i]);
        nan += isnan(value[i]) != 0;
    }
    assert_int_equal(nan, 2);
}

static void golden_rounding(void **state)
{
    (void)state;
    const float *value = golden_tensor("F32", 5118, "e4m3_round.in");
    const uint8_t *code = golden_tensor("U8", 5118, "e4m3_round.codes_sat");
    for (size_t i = 0; i < 5118; i++)
        expect_rounding(value[i], code[i]);
}

static void golden_is_covered(void **state)
{
    (void)state;
    golden_expect_all_read("e4m3");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_has_its_value),
        cmocka_unit_test(every_code_survives_a_round_trip),
        cmocka_unit_test(ties_between_all_neighbours_go_to_even),
        cmocka_unit_test(rounds_to_nearest),
        cmocka_unit_test(saturates),
        cmocka_unit_test(nan_keeps_its_sign),
        cmocka_unit_test(golden_values),
        cmocka_unit_test(golden_rounding),
        cmocka_unit_test(golden_is_covered),
    };
    return cmocka_run_group_tests_name("e4m3", tests, golden_open, golden_close);
}
