/* Files that references point into: read by several threads, few open at a time. */
#include "stream/source.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/die.h"

enum { FILES = 40, THREADS = 4, OPEN_MAX_AT_REST = 16 };

/* The library's calls of stat() are counted. */
static size_t stats;

int stat(const char *path, struct stat *status) /* NOLINT(readability-inconsistent-declaration-*) */
{
    stats++;
    return fstatat(AT_FDCWD, path, status, 0);
}

/* FILES files, of which each holds its own number. */
struct fixture {
    char folder[32];
    struct sources sources;
};

static void path_of(const struct fixture *f, size_t i, char *path, size_t room)
{
    snprintf(path, room, "%s/%zu.safetensors", f->folder, i);
}

static int make_files(void **state)
{
    struct fixture *f = xalloc(1, sizeof *f);
    strcpy(f->folder, "/tmp/source.XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    for (size_t i = 0; i < FILES; i++) {
        char path[64], label[16];
        path_of(f, i, path, sizeof path);
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
        assert_int_equal(write(fd, &i, sizeof i), sizeof i);
        close(fd);
        snprintf(label, sizeof label, "%zu", i);
        assert_int_equal(sources_add(&f->sources, label, path), i);
    }
    *state = f;
    return 0;
}

static int remove_files(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < FILES; i++) {
        char path[64];
        path_of(f, i, path, sizeof path);
        unlink(path);
    }
    rmdir(f->folder);
    sources_free(&f->sources);
    free(f);
    return 0;
}

static void assert_holds(int fd, size_t i)
{
    size_t number;
    assert_int_equal(pread(fd, &number, sizeof number, 0), sizeof number);
    assert_int_equal(number, i);
}

static size_t open_descriptors(void)
{
    DIR *folder = opendir("/proc/self/fd");
    assert_non_null(folder);
    size_t count = 0;
    while (readdir(folder))
        count++;
    closedir(folder);
    return count;
}

static void stays_open_while_in_use(void **state)
{
    struct fixture *f = *state;
    int fd[FILES];
    for (size_t i = 0; i < FILES; i++)
        fd[i] = sources_acquire(&f->sources, i);
    for (size_t i = 0; i < FILES; i++)
        assert_holds(fd[i], i);
    for (size_t i = 0; i < FILES; i++)
        sources_release(&f->sources, i);
    int first = sources_acquire(&f->sources, 0);
    for (size_t i = 0; i < FILES; i++)
        sources_verify(&f->sources, i);
    assert_holds(first, 0); /* not released, however many were opened since */
    sources_release(&f->sources, 0);
    sources_check(&f->sources);
}

static void few_stay_open(void **state)
{
    struct fixture *f = *state;
    size_t before = open_descriptors();
    for (size_t i = 0; i < FILES; i++)
        sources_verify(&f->sources, i);
    assert_int_equal(open_descriptors(), before + OPEN_MAX_AT_REST);
}

/* Everything that a thread may do while others do the same. */
static void *use_all(void *context)
{
    struct sources *sources = context;
    for (size_t round = 0; round < 20; round++)
        for (size_t i = 0; i < FILES; i++) {
            size_t number = FILES;
            sources_verify(sources, (i + 7) % FILES);
            sources_read(sources, i, 0, &number, sizeof number, "a number");
            int fd = sources_dup(sources, i);
            close(fd);
            if (number != i || sources_find(sources, "39", 2) != 39)
                return context;
        }
    sources_check(sources);
    return NULL;
}

static void threads_share_them(void **state)
{
    struct fixture *f = *state;
    pthread_t thread[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, use_all, &f->sources), 0);
    for (size_t i = 0; i < THREADS; i++) {
        void *failed;
        assert_int_equal(pthread_join(thread[i], &failed), 0);
        assert_null(failed);
    }
}

static void none_is_found_in_none(void **state)
{
    (void)state;
    struct sources sources = {0};
    assert_int_equal(sources_find(&sources, "a", 1), -1);
    sources_check(&sources);
    sources_free(&sources);
}

/* After each of FILES shards, a writer looks at what that shard was made of: not at all files
 * again.
 */
static void used_ones_are_looked_at(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < FILES; i++) {
        sources_verify(&f->sources, i);
        sources_verify(&f->sources, i);
        stats = 0;
        sources_check_fresh(&f->sources);
        assert_int_equal(stats, 1);
        sources_check_fresh(&f->sources);
        assert_int_equal(stats, 1);
    }
    sources_acquire(&f->sources, 0); /* in use meanwhile: looked at twice */
    stats = 0;
    sources_check_fresh(&f->sources);
    sources_release(&f->sources, 0);
    sources_check_fresh(&f->sources);
    sources_check_fresh(&f->sources);
    assert_int_equal(stats, 2);
    stats = 0;
    sources_check(&f->sources);
    assert_int_equal(stats, FILES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(stays_open_while_in_use, make_files, remove_files),
        cmocka_unit_test_setup_teardown(few_stay_open, make_files, remove_files),
        cmocka_unit_test_setup_teardown(threads_share_them, make_files, remove_files),
        cmocka_unit_test_setup_teardown(used_ones_are_looked_at, make_files, remove_files),
        cmocka_unit_test(none_is_found_in_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
