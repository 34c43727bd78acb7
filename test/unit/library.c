/* Libraries that may be there: in each place where they are looked for, and in none. A copy of the
 * C library's mathematics, under another name, stands for them. */
#include "base/library.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "child.h"

static const char known[] = "libm.so.6", file[] = "libseekpipe-test.so";
enum { ROOM = 512 };

static char folder[] = "/tmp/library.XXXXXX";

/* `path` in the folder. */
static char *in_folder(const char *path)
{
    static char text[ROOM];
    snprintf(text, sizeof text, "%s/%s", folder, path);
    return text;
}

static void put_copy(const char *place)
{
    char command[3 * ROOM], *from = library_path(known);
    assert_non_null(from);
    snprintf(command, sizeof command, "mkdir -p '%s/%s' && cp '%s' '%s/%s/%s'", folder, place, from,
             folder, place, file);
    assert_int_equal(system(command), 0); /* NOLINT(cert-env33-c) of the tests' own names */
    free(from);
}

static void remove_copies(void)
{
    char command[ROOM];
    snprintf(command, sizeof command, "find '%s' -mindepth 1 -delete", folder);
    assert_int_equal(system(command), 0); /* NOLINT(cert-env33-c) of the tests' own names */
}

/* Nowhere is a copy but in `place`, which a variable names. */
static void found_in(const char *place, const char *variable, const char *value)
{
    const char *old = getenv(variable);
    char wanted[ROOM], *before = old ? strdup(old) : NULL;
    put_copy(place);
    setenv(variable, value, 1);
    char *path = library_path(file);
    snprintf(wanted, sizeof wanted, "%s/%s/%s", folder, place, file);
    assert_non_null(path);
    assert_string_equal(path, wanted);
    free(path);
    if (before)
        setenv(variable, before, 1);
    else
        unsetenv(variable);
    free(before);
    assert_null(library_path(file));
    remove_copies();
}

static void in_the_folders_of_cuda(void **state)
{
    (void)state;
    found_in("cuda/lib64", "CUDA_HOME", in_folder("cuda"));
    found_in("cuda/lib", "CUDA_PATH", in_folder("cuda"));
}

static void in_wheels(void **state)
{
    (void)state;
    char path[ROOM];
    found_in(".local/lib/python3.11/site-packages/nvidia/x/lib", "HOME", folder);
    found_in("venv/lib/python3.13/dist-packages/nvidia/x/lib", "PATH", in_folder("venv/bin"));
    snprintf(path, sizeof path, "/:/nowhere/sbin::%s/venv/bin", folder);
    found_in("venv/lib/python3.13/site-packages/nvidia/x/lib", "PATH", path);
    unsetenv("HOME");
    unsetenv("PATH");
    assert_null(library_path(file));
}

static void functions(void **state)
{
    (void)state;
    double (*cosine)(double) = NULL, (*sine)(double) = NULL;
    const struct library_function some[] = {{"cos", (void *)&cosine}, {"sin", (void *)&sine}, {0}};
    char *why = NULL;
    assert_true(library_load(known, some, &why));
    assert_null(why);
    assert_true(cosine(0) == 1 && sine(0) == 0);
}

static void nowhere(void **state)
{
    (void)state;
    const struct library_function none[] = {{0}};
    char *why = NULL;
    assert_false(library_load(file, none, NULL));
    assert_false(library_load(file, none, &why));
    assert_non_null(strstr(why, file));
    assert_non_null(strstr(why, "name its folder in $LD_LIBRARY_PATH"));
    free(why);
}

/* A name with a slash is of that file: nothing else is searched. */
static void a_path(void **state)
{
    (void)state;
    const struct library_function none[] = {{0}};
    char *why = NULL;
    assert_false(library_load("/nowhere/libm.so.6", none, NULL));
    assert_false(library_load("/nowhere/libm.so.6", none, &why));
    assert_non_null(strstr(why, "/nowhere/libm.so.6"));
    assert_null(strstr(why, "LD_LIBRARY_PATH"));
    free(why);
}

/* What is there, but is no library, is as if it were not. */
static void no_library(void **state)
{
    (void)state;
    put_copy("cuda/lib");
    assert_int_equal(truncate(in_folder("cuda/lib/libseekpipe-test.so"), 100), 0);
    setenv("CUDA_HOME", in_folder("cuda"), 1);
    assert_null(library_path(file));
    unsetenv("CUDA_HOME");
    remove_copies();
}

static void load_no_version(void *context)
{
    void (*function)(void);
    const struct library_function wanted[] = {{"of_no_version", (void *)&function}, {0}};
    (void)context;
    library_load(known, wanted, NULL);
}

static void another_version(void **state)
{
    (void)state;
    char said[ROOM];
    assert_int_equal(end_of(load_no_version, NULL, said, ROOM), 1);
    assert_non_null(strstr(said, "libm.so.6: has no function of_no_version"));
}

static int make_folder(void **state)
{
    (void)state;
    unsetenv("CUDA_HOME");
    unsetenv("CUDA_PATH");
    return !mkdtemp(folder);
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_the_folders_of_cuda),
        cmocka_unit_test(functions),
        cmocka_unit_test(nowhere),
        cmocka_unit_test(a_path),
        cmocka_unit_test(no_library),
        cmocka_unit_test(another_version),
        cmocka_unit_test(in_wheels), /* the last: it takes $PATH away */
    };
    return cmocka_run_group_tests_name("library", tests, make_folder, remove_folder);
}
