/* Which files of a set are missing, going by their names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/die.h"
#include "stream/shard_name.h"

enum { MANY = 100000 }; /* with a square of it, this test does not end */

static void expect(char *const *name, size_t count, const char *missing)
{
    char *found = shard_missing(name, count);
    if (missing)
        assert_string_equal(found, missing);
    else
        assert_null(found);
    free(found);
}

static void free_all(char **name)
{
    for (size_t i = 0; i < MANY; i++)
        free(name[i]);
    free(name);
}

static void test_one_set(void **state)
{
    (void)state;
    char **name = xalloc(MANY, sizeof *name);
    for (size_t i = 0; i < MANY; i++)
        name[i] = shard_of_release(MANY - i, MANY);
    expect(name, MANY, NULL);
    expect(name, MANY - 2, "model-00001-of-100000.safetensors");
    expect(name + 1, MANY - 1, "model-100000-of-100000.safetensors");
    free_all(name);
}

static void test_sets_of_one(void **state)
{
    (void)state;
    char **name = xalloc(MANY, sizeof *name);
    for (size_t i = 0; i < MANY; i++)
        name[i] = xprintf("x%zu-00001-of-00001.safetensors", i);
    expect(name, MANY, NULL);
    free(name[77]);
    name[77] = xstrdup("y-00002-of-00003.safetensors");
    expect(name, MANY, "y-00001-of-00003.safetensors");
    free_all(name);
}

static void test_numbers(void **state)
{
    (void)state;
    expect((char *[]){"a-0-of-2.safetensors", "a-1-of-2.safetensors"}, 2, NULL);
    expect((char *[]){"a-1-of-2.safetensors", "a-01-of-2.safetensors"}, 2, "a-2-of-2.safetensors");
    expect((char *[]){"model0-mp2.safetensors", "x.safetensors"}, 2, "model1-mp2.safetensors");
    expect((char *[]){"x.safetensors"}, 1, NULL);
    expect(NULL, 0, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_set),
        cmocka_unit_test(test_sets_of_one),
        cmocka_unit_test(test_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
