/* When a calibration keeps what it has. */
#include "forward/resume.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void due_after_every_so_many_layers(void **state)
{
    (void)state;
    for (uint64_t every = 1; every <= 5; every++)
        for (uint64_t layer = 0; layer < 20; layer++) {
            struct resume resume = {.keeping.every = every, .took = 1000, .ended = 1000};
            assert_int_equal(resume_is_due(&resume, layer, 1000), layer % every == every - 1);
        }
}

static void due_when_ten_times_as_long_has_gone_by(void **state)
{
    (void)state;
    struct resume resume = {.took = 0.5, .ended = 100};
    for (uint64_t layer = 0; layer < 3; layer++) {
        assert_false(resume_is_due(&resume, layer, 100));
        assert_false(resume_is_due(&resume, layer, 104.75));
        assert_true(resume_is_due(&resume, layer, 105));
        assert_true(resume_is_due(&resume, layer, 1000));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(due_after_every_so_many_layers),
        cmocka_unit_test(due_when_ten_times_as_long_has_gone_by),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
