/* FP4 E2M1: all nibbles, and rounding of quotients around each of them. */
#include "tensor/e2m1.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "reference.h"

static void expect_rounding(float quotient, unsigned expected)
{
    unsigned got = e2m1_from_f32(quotient);
    if (got != expected)
        fail_msg("e2m1_from_f32(%a): expected %u, got %u", (double)quotient, expected, got);
}

static void every_nibble_has_its_value(void **state)
{
    (void)state;
    static const double magnitude[8] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    for (unsigned nibble = 0; nibble < 16; nibble++) {
        double expected = nibble < 8 ? magnitude[nibble] : -magnitude[nibble - 8];
        float got = e2m1_to_f32(nibble);
        if ((double)got != expected || !signbit(got) != (nibble < 8))
            fail_msg("e2m1_to_f32(%u): expected %a, got %a", nibble, expected, (double)got);
        /* What other tests build on agrees with the specification's list. */
        assert_true(reference_from_e2m1(nibble) == expected);
    }
    assert_true(E2M1_MAX == 6);
}

/* All but -0.0, which quotients have no code for. */
static void every_nibble_survives_a_round_trip(void **state)
{
    (void)state;
    for (unsigned nibble = 0; nibble < 16; nibble++)
        expect_rounding(e2m1_to_f32(nibble), nibble == 8 ? 0 : nibble);
}

static void ties_go_to_even(void **state)
{
    (void)state;
    static const struct {
        float tie;
        unsigned below, at, above;
    } cases[] = {
        {0.25f, 0, 0, 1}, {0.75f, 1, 2, 2}, {1.25f, 2, 2, 3}, {1.75f, 3, 4, 4},
        {2.5f, 4, 4, 5},  {3.5f, 5, 6, 6},  {5.0f, 6, 6, 7},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float tie = cases[i].tie;
        expect_rounding(nextafterf(tie, 0), cases[i].below);
        expect_rounding(tie, cases[i].at);
        expect_rounding(nextafterf(tie, INFINITY), cases[i].above);
        expect_rounding(nextafterf(-tie, 0), 8 + cases[i].below);
        expect_rounding(-tie, 8 + cases[i].at);
        expect_rounding(nextafterf(-tie, -INFINITY), 8 + cases[i].above);
    }
}

/* Every F32 but NaN with 12 bits of significand, and the two F32 next to it. */
static void rounds_to_nearest(void **state)
{
    (void)state;
    for (uint32_t high = 0; high < 1 << 20; high++)
        for (int step = -1; step <= 1; step++) {
            float quotient = f32_of_bits(high * 0x1000 + (uint32_t)step);
            if (!isnan(quotient))
                expect_rounding(quotient, reference_to_e2m1((double)quotient));
        }
}

static void sign_is_that_of_less_than_zero(void **state)
{
    (void)state;
    expect_rounding(0.0f, 0);
    expect_rounding(-0.0f, 0);
    expect_rounding(FLT_TRUE_MIN, 0);
    expect_rounding(-FLT_TRUE_MIN, 8);
    expect_rounding(-FLT_MIN, 8);
    expect_rounding(-0.1f, 8);
}

static void saturates_at_6(void **state)
{
    (void)state;
    static const float beyond[] = {6, 0x1.800002p2f, 7, 8, 0x1p100f, FLT_MAX, INFINITY};
    for (size_t i = 0; i < sizeof beyond / sizeof *beyond; i++) {
        expect_rounding(beyond[i], 7);
        expect_rounding(-beyond[i], 15);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_nibble_has_its_value),
        cmocka_unit_test(every_nibble_survives_a_round_trip),
        cmocka_unit_test(ties_go_to_even),
        cmocka_unit_test(rounds_to_nearest),
        cmocka_unit_test(sign_is_that_of_less_than_zero),
        cmocka_unit_test(saturates_at_6),
    };
    return cmocka_run_group_tests_name("e2m1", tests, NULL, NULL);
}
