/* Patterns of names: what fnmatch() matches, and nothing else. */
#include "base/glob.h"

#include <fnmatch.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void names(void **state)
{
    (void)state;
    assert_true(glob_matches("layers.*.ffn.experts.*.w[123]", "layers.10.ffn.experts.255.w3"));
    assert_false(glob_matches("layers.*.ffn.experts.*.w[123]", "layers.10.ffn.experts.255.w4"));
    assert_false(glob_matches("layers.*.ffn.experts.*.w[123]", "mtp.0.ffn.experts.255.w3"));
    assert_true(glob_matches("model.layers.*.mlp.*_proj", "model.layers.3.mlp.up_proj"));
    assert_false(glob_matches("model.layers.*.mlp.*_proj", "model.layers.3.mlp.up_proj.weight"));
}

/* The characters that the digits of `number` stand for; 0 stands for none. */
static void write_digits(char *text, unsigned number, unsigned base, const char *characters)
{
    for (; number; number /= base)
        if (number % base)
            *text++ = characters[number % base - 1];
    *text = 0;
}

/* Every pattern and every name of up to five or four characters of a few. */
static void as_fnmatch(void **state)
{
    (void)state;
    static const char in_pattern[] = "*?[a]!\\", in_name[] = "a.b[";
    char pattern[6], name[6];
    for (unsigned i = 0; i < 1 << 15; i++) {
        write_digits(pattern, i, 8, in_pattern);
        for (unsigned j = 0; j < 5 * 5 * 5 * 5; j++) {
            write_digits(name, j, 5, in_name);
            if (glob_matches(pattern, name) != !fnmatch(pattern, name, 0))
                fail_msg("'%s', '%s'", pattern, name);
        }
    }
}

/* A '*' that could end anywhere is tried once for each place, not for each combination. */
static void many_stars(void **state)
{
    (void)state;
    char pattern[256], name[512];
    memset(name, 'a', sizeof name - 1);
    name[sizeof name - 1] = 0;
    for (size_t i = 0; i < sizeof pattern - 2; i += 2)
        strcpy(pattern + i, "*a");
    strcpy(pattern + sizeof pattern - 2, "b");
    assert_false(glob_matches(pattern, name));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(as_fnmatch),
        cmocka_unit_test(many_stars),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
