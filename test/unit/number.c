/* Decimal numbers: digits, and nothing that strtoull takes besides. */
#include "base/number.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void taken(void **state)
{
    (void)state;
    const char *text = "18446744073709551615,007K";
    uint64_t number;
    assert_true(number_parse(&text, UINT64_MAX, &number));
    assert_true(number == UINT64_MAX);
    assert_string_equal(text++, ",007K");
    assert_true(number_parse(&text, 7, &number));
    assert_int_equal(number, 7);
    assert_string_equal(text, "K");
}

static void refused(void **state)
{
    (void)state;
    static const char *const none[] = {
        "", " 1", "-1", "+1", "x", "/", ":", "18446744073709551616", "184467440737095516150"};
    uint64_t number;
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        const char *text = none[i];
        assert_false(number_parse(&text, UINT64_MAX, &number));
        assert_ptr_equal(text, none[i]);
    }
    const char *larger = "8";
    assert_false(number_parse(&larger, 7, &number));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(taken),
        cmocka_unit_test(refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
