/* Work on several threads, finished in order. */
#include "base/ordered_pool.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

struct piece {
    uint64_t number, square;
    bool computes;
    char *memory; /* of its last use */
};

struct seen {
    uint64_t finished, computed;
};

/* Some pieces take much longer than others. */
static void compute(void *context, void *item)
{
    struct piece *piece = item;
    (void)context;
    for (uint64_t i = 0; i < piece->number % 7 * 20; i++)
        sched_yield();
    piece->square = piece->number * piece->number;
}

static void finish(void *context, void *item)
{
    struct piece *piece = item;
    struct seen *seen = context;
    assert_int_equal(piece->number, seen->finished);
    assert_int_equal(piece->square, piece->computes ? piece->number * piece->number : 0);
    seen->computed += piece->computes;
    seen->finished++;
}

static void release(void *item)
{
    struct piece *piece = item;
    free(piece->memory);
}

static void give(struct ordered_pool *line, uint64_t number, bool computes)
{
    struct piece *piece = ordered_pool_piece(line);
    if (!piece->memory)
        piece->memory = malloc(1);
    piece->number = number;
    piece->square = 0;
    piece->computes = computes;
    ordered_pool_submit(line, computes);
}

static void run(unsigned threads, uint64_t pieces, unsigned every)
{
    struct seen seen = {0};
    struct ordered_pool *line = ordered_pool_begin(threads, ORDERED_POOL_SLACK,
                                                   sizeof(struct piece), compute, finish, &seen);
    uint64_t computes = 0;
    for (uint64_t i = 0; i < pieces; i++) {
        computes += i % every == 0;
        give(line, i, i % every == 0);
    }
    ordered_pool_end(line, release);
    assert_int_equal(seen.finished, pieces);
    assert_int_equal(seen.computed, computes);
}

static void everything_is_finished_in_order(void **state)
{
    (void)state;
    for (unsigned threads = 1; threads <= 9; threads += 2)
        for (unsigned every = 1; every <= 6; every++) {
            run(threads, 0, every);
            run(threads, 1, every);
            run(threads, 1000, every);
        }
    run(ORDERED_POOL_THREADS_MAX, 1000, 1);
    run(2, 1000, 1000); /* hardly any to compute */
}

/* What the other thread did is seen once the line is idle. */
static void idle_means_finished(void **state)
{
    (void)state;
    struct seen seen = {0};
    struct ordered_pool *line =
        ordered_pool_begin(3, ORDERED_POOL_SLACK, sizeof(struct piece), compute, finish, &seen);
    assert_true(ordered_pool_idle(line));
    for (uint64_t i = 0; i < 200; i++) {
        give(line, i, i % 3 != 0);
        if (i % 5 == 0) {
            while (!ordered_pool_idle(line))
                sched_yield();
            assert_int_equal(seen.finished, i + 1);
        }
    }
    ordered_pool_end(line, release);
}

/* What is done on the caller's own thread comes in its place. */
static void small_ones_in_order(void **state)
{
    (void)state;
    for (unsigned large = 1; large <= 7; large++) {
        struct seen seen = {0};
        struct ordered_pool *line =
            ordered_pool_begin(3, ORDERED_POOL_SLACK, sizeof(struct piece), compute, finish, &seen);
        for (uint64_t i = 0; i < 500; i++) {
            struct piece *piece = ordered_pool_piece(line);
            piece->number = i;
            piece->square = 0;
            piece->computes = true;
            if (i % large == 0)
                ordered_pool_submit(line, true);
            else
                ordered_pool_do(line);
        }
        ordered_pool_end(line, release);
        assert_int_equal(seen.computed, 500);
    }
}

static void pieces_are_few(void **state)
{
    (void)state;
    enum { MOST = 100 };
    const void *known[MOST];
    size_t count = 0;
    struct seen seen = {0};
    struct ordered_pool *line =
        ordered_pool_begin(4, ORDERED_POOL_SLACK, sizeof(struct piece), compute, finish, &seen);
    for (uint64_t i = 0; i < 2000; i++) {
        const void *piece = ordered_pool_piece(line);
        size_t j = 0;
        while (j < count && known[j] != piece)
            j++;
        if (j == count && count < MOST)
            known[count++] = piece;
        give(line, i, true);
    }
    ordered_pool_end(line, release);
    assert_in_range(count, 2, 2 * 4);
}

static void threads_by_default(void **state)
{
    (void)state;
    assert_in_range(ordered_pool_threads(0), 1, ORDERED_POOL_THREADS_MAX);
    assert_int_equal(ordered_pool_threads(1), 1);
    assert_int_equal(ordered_pool_threads(ORDERED_POOL_THREADS_MAX), ORDERED_POOL_THREADS_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_is_finished_in_order),
        cmocka_unit_test(idle_means_finished),
        cmocka_unit_test(small_ones_in_order),
        cmocka_unit_test(pieces_are_few),
        cmocka_unit_test(threads_by_default),
    };
    return cmocka_run_group_tests_name("inorder", tests, NULL, NULL);
}
