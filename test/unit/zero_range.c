/* Ranges of zeros: what a hole says is believed, what lies beside it is read. */
#include "write/copy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

enum { EDGE = 100 };
static const uint64_t SIZE = (uint64_t)1 << 36; /* to read it would take a minute */

static void a_hole_of_64_gib_with_a_byte_at_either_end(void **state)
{
    (void)state;
    FILE *file = tmpfile();
    assert_non_null(file);
    int fd = fileno(file);
    if (ftruncate(fd, (off_t)SIZE))
        skip(); /* a filesystem without files of that size */
    assert_true(zero_range(fd, 0, SIZE, "range"));
    write_at(fd, EDGE - 1, "x", 1, "range");
    write_at(fd, SIZE - EDGE, "x", 1, "range");
    assert_true(zero_range(fd, EDGE, SIZE - 2 * EDGE, "range"));
    assert_false(zero_range(fd, EDGE - 1, SIZE - 2 * EDGE, "range"));
    assert_false(zero_range(fd, EDGE, SIZE - 2 * EDGE + 1, "range"));
    write_at(fd, SIZE / 3, "x", 1, "range");
    assert_false(zero_range(fd, EDGE, SIZE - 2 * EDGE, "range"));
    assert_true(zero_range(fd, SIZE / 3 + 1, SIZE / 3, "range"));
    assert_false(zero_range(fd, EDGE, 0, "range"));
    fclose(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hole_of_64_gib_with_a_byte_at_either_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
