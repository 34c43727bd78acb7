/* How a process ends. */
#include "base/die.h"

#include <pthread.h>
#include <stdlib.h>

#include "child.h"

enum { HANDLED = 77, ROOM = 256 };

static void at_exit(void)
{
    _exit(HANDLED);
}

static void *die_of(void *text)
{
    die("%s", (const char *)text);
}

static void die_here(void *text)
{
    atexit(at_exit);
    die_of(text);
}

static void die_in_thread(void *text)
{
    pthread_t thread;
    atexit(at_exit);
    pthread_create(&thread, NULL, die_of, text);
    pthread_join(thread, NULL);
}

static void handlers_belong_to_the_main_thread(void **state)
{
    (void)state;
    char said[ROOM];
    assert_int_equal(end_of(die_here, "a text", said, ROOM), HANDLED);
    assert_string_equal(said, "die: a text\n");
    assert_int_equal(end_of(die_in_thread, "a text", said, ROOM), EXIT_FAILED);
    assert_string_equal(said, "die: a text\n");
}

static void another_status(void **state)
{
    (void)state;
    char said[ROOM];
    die_with(5);
    assert_int_equal(end_of(die_in_thread, "a text", said, ROOM), 5);
    die_with(EXIT_FAILED);
    assert_int_equal(end_of(die_in_thread, "a text", said, ROOM), EXIT_FAILED);
}

static void one_line(void **state)
{
    (void)state;
    char said[ROOM];
    end_of(die_here, "a\nb\tc\x1b[31m\x7f \xc3\xa4", said, ROOM);
    assert_string_equal(said, "die: a?b?c?[31m? \xc3\xa4\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(handlers_belong_to_the_main_thread),
        cmocka_unit_test(another_status),
        cmocka_unit_test(one_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
