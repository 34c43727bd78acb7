/* E8M0: all codes. */
#include "tensor/e8m0.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "golden.h"

static void expect_decoded(unsigned code, double expected)
{
    float got = e8m0_to_f32((uint8_t)code);
    if (isnan(expected) ? !isnan(got) : (double)got != expected)
        fail_msg("e8m0_to_f32(%u): expected %a, got %a", code, expected, (double)got);
}

static void every_code_has_its_value(void **state)
{
    (void)state;
    for (unsigned code = 0; code < 255; code++)
        expect_decoded(code, ldexp(1, (int)code - 127));
    expect_decoded(255, NAN);
    assert_int_equal(E8M0_NAN, 255);
    assert_int_equal(E8M0_BIAS, 127);
}

static void golden_values(void **state)
{
    (void)state;
    const float *value = golden_tensor("F32", 256, "e8m0.f32");
    for (unsigned code = 0; code < 256; code++)
        expect_decoded(code, (double)value[code]);
    assert_true(isnan(value[255]));
    assert_true(value[0] > 0);
}

static void golden_is_covered(void **state)
{
    (void)state;
    golden_expect_all_read("e8m0.");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_has_its_value),
        cmocka_unit_test(golden_values),
        cmocka_unit_test(golden_is_covered),
    };
    return cmocka_run_group_tests_name("e8m0", tests, golden_open, golden_close);
}
