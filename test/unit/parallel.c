/* Loops that several threads share. */
#include "base/parallel.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

enum { THREADS_MAX = 9, COUNT_MAX = 1000 };

/* A loop, and what became of it; written by its threads without locks where only one may write. */
struct loop {
    uint64_t count, grain;
    unsigned threads;
    unsigned visits[COUNT_MAX];
    atomic_bool in_piece[THREADS_MAX];
    atomic_uint short_pieces, faults;
    atomic_uint_fast64_t visited;
};

static void visit(void *context, unsigned thread, uint64_t first, uint64_t last)
{
    struct loop *loop = context;
    bool wrong = thread >= loop->threads || first >= last || last > loop->count ||
                 atomic_exchange(&loop->in_piece[thread % THREADS_MAX], true);
    loop->faults += wrong;
    loop->short_pieces += last - first < loop->grain;
    for (uint64_t i = first; i < last && i < COUNT_MAX; i++)
        loop->visits[i]++;
    if (first % 7 == 0)
        sched_yield();
    if (first % 97 == 0 && thread)
        usleep(200); /* so long that the caller sleeps, too */
    atomic_store(&loop->in_piece[thread % THREADS_MAX], false);
}

static void run(struct parallel *p, unsigned threads, uint64_t count, uint64_t grain)
{
    struct loop *loop = calloc(1, sizeof *loop);
    loop->count = count;
    loop->grain = grain;
    loop->threads = threads;
    parallel_for(p, count, grain, visit, loop);
    for (uint64_t i = 0; i < COUNT_MAX; i++)
        assert_int_equal(loop->visits[i], i < count);
    assert_int_equal(loop->faults, 0);
    assert_in_range(loop->short_pieces, 0, 1); /* the last */
    free(loop);
}

static void every_iteration_once(void **state)
{
    (void)state;
    for (unsigned threads = 1; threads <= THREADS_MAX; threads += 2) {
        struct parallel *p = parallel_new(threads);
        for (uint64_t count = 0; count <= COUNT_MAX; count = 2 * count + 1)
            for (uint64_t grain = 1; grain <= 300; grain *= 4)
                run(p, threads, count, grain);
        run(p, threads, COUNT_MAX, 1);
        parallel_free(p);
    }
    parallel_free(parallel_new(THREADS_MAX)); /* without a loop */
}

/* The first piece ends after all others, as if its thread were descheduled. */
static void linger(void *context, unsigned thread, uint64_t first, uint64_t last)
{
    struct loop *loop = context;
    (void)thread;
    loop->visited += last - first;
    while (first == 0 && loop->visited < loop->count)
        sched_yield();
    loop->faults += last - first > loop->count / loop->threads / 8;
}

/* Others do what a descheduled thread has not begun, whether they spun or slept before. */
static void nobody_waits_for_a_share(void **state)
{
    (void)state;
    struct parallel *p = parallel_new(3);
    for (unsigned i = 0; i < 300; i++) {
        struct loop loop = {.count = 900, .threads = 3};
        usleep(i % 3 * 50);
        parallel_for(p, loop.count, 1, linger, &loop);
        assert_int_equal(loop.visited, loop.count);
        assert_int_equal(loop.faults, 0);
    }
    parallel_free(p);
}

/* A loop of one grain stays on the caller's thread. */
static void small_loops_stay(void **state)
{
    (void)state;
    struct parallel *p = parallel_new(4);
    struct loop loop = {.count = 50, .grain = 50, .threads = 1};
    parallel_for(p, 50, 50, visit, &loop);
    assert_int_equal(loop.faults, 0);
    assert_int_equal(loop.short_pieces, 0);
    parallel_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_iteration_once),
        cmocka_unit_test(nobody_waits_for_a_share),
        cmocka_unit_test(small_loops_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
