/* How a process ends. */
#include "die.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { HANDLED = 77, ROOM = 256 };

static void at_exit(void)
{
    _exit(HANDLED);
}

static void *die_of(void *text)
{
    die("%s", (const char *)text);
}

/* What became of a process that dies of `text`: its exit code, and what it said. */
static int end_of(const char *text, bool in_thread, char *said)
{
    int ends[2], status;
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        pthread_t thread;
        dup2(ends[1], STDERR_FILENO);
        atexit(at_exit);
        if (!in_thread)
            die_of((void *)text);
        pthread_create(&thread, NULL, die_of, (void *)text);
        pthread_join(thread, NULL);
    }
    close(ends[1]);
    ssize_t got = read(ends[0], said, ROOM - 1);
    said[got > 0 ? got : 0] = 0;
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void handlers_belong_to_the_main_thread(void **state)
{
    (void)state;
    char said[ROOM];
    assert_int_equal(end_of("a text", false, said), HANDLED);
    assert_string_equal(said, "die: a text\n");
    assert_int_equal(end_of("a text", true, said), EXIT_FAILED);
    assert_string_equal(said, "die: a text\n");
}

static void another_status(void **state)
{
    (void)state;
    char said[ROOM];
    die_with(5);
    assert_int_equal(end_of("a text", true, said), 5);
    die_with(EXIT_FAILED);
    assert_int_equal(end_of("a text", true, said), EXIT_FAILED);
}

static void one_line(void **state)
{
    (void)state;
    char said[ROOM];
    end_of("a\nb\tc\x1b[31m\x7f \xc3\xa4", false, said);
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
