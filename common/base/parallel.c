#include "base/parallel.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/die.h"

/* Pieces per thread: few enough to cost nothing, and enough that the last one is short. */
enum { PIECES = 16 };

/* Waking a sleeping thread takes about as long. */
enum { SPIN_NS = 20000 };

/* `state` while threads may enter the loop, besides the number of those in it. */
enum { OPEN = 1 << 30 };

struct parallel {
    unsigned threads;
    pthread_t *worker; /* threads - 1 */

    /* The loop. Written while it is not open and no worker is in it. */
    parallel_body *body;
    void *context;
    uint64_t count, step;

    _Atomic uint64_t next;     /* the first iteration that no thread has taken */
    atomic_uint state;         /* of the workers, not the caller */
    atomic_uint loops;         /* number of loops begun, modulo 2^32; also changes at the end */
    atomic_uint sleepers;      /* workers that sleep, or are about to */
    atomic_bool caller_sleeps; /* or is about to */
    atomic_bool end;
};

/* What a worker is started with. */
struct start {
    struct parallel *p;
    unsigned thread;
};

unsigned parallel_processors(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) ? 1 : (unsigned)CPU_COUNT(&set);
}

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* Wait a little until *value is not, or with `equal` is, `wanted`; false if it takes longer. */
static bool spin(atomic_uint *value, unsigned wanted, bool equal)
{
    if ((atomic_load(value) == wanted) == equal)
        return true;
    for (uint64_t end = now() + SPIN_NS; now() < end;)
        if ((atomic_load(value) == wanted) == equal)
            return true;
    return false;
}

/* Sleep until *value is woken; not if it is not `seen` any more. May return early. */
static void sleep_on(atomic_uint *value, unsigned seen)
{
    syscall(SYS_futex, value, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void wake_on(atomic_uint *value, unsigned threads)
{
    syscall(SYS_futex, value, FUTEX_WAKE_PRIVATE, threads, NULL, NULL, 0);
}

/* Run pieces until none is left. */
static void take(struct parallel *p, unsigned thread)
{
    uint64_t first;
    while ((first = atomic_fetch_add(&p->next, p->step)) < p->count)
        p->body(p->context, thread, first, p->count - first < p->step ? p->count : first + p->step);
}

static bool enter(struct parallel *p)
{
    unsigned state = atomic_load(&p->state);
    while (state & OPEN)
        if (atomic_compare_exchange_weak(&p->state, &state, state + 1))
            return true;
    return false;
}

static void leave(struct parallel *p)
{
    if (atomic_fetch_sub(&p->state, 1) == 1 && atomic_load(&p->caller_sleeps))
        wake_on(&p->state, 1);
}

/* Wait until there have been other than `seen` loops. */
static void wait_for_loop(struct parallel *p, unsigned seen)
{
    if (spin(&p->loops, seen, false))
        return;
    atomic_fetch_add(&p->sleepers, 1);
    while (atomic_load(&p->loops) == seen)
        sleep_on(&p->loops, seen);
    atomic_fetch_sub(&p->sleepers, 1);
}

static void *work(void *context)
{
    struct start start = *(struct start *)context;
    struct parallel *p = start.p;
    free(context);
    for (unsigned seen = 0;;) {
        wait_for_loop(p, seen);
        seen = atomic_load(&p->loops);
        if (atomic_load(&p->end))
            return NULL;
        if (enter(p)) {
            take(p, start.thread);
            leave(p);
        }
    }
}

struct parallel *parallel_new(unsigned threads)
{
    struct parallel *p = xalloc(1, sizeof *p);
    p->threads = threads;
    p->worker = xalloc(threads, sizeof *p->worker);
    for (unsigned i = 1; i < threads; i++) {
        struct start *start = xalloc(1, sizeof *start);
        *start = (struct start){p, i};
        if (pthread_create(&p->worker[i - 1], NULL, work, start))
            die("cannot start a thread; are there too many processes?");
    }
    return p;
}

/* A loop has begun, or the end: wake up to `workers` that sleep. */
static void wake(struct parallel *p, uint64_t workers)
{
    atomic_fetch_add(&p->loops, 1);
    if (atomic_load(&p->sleepers))
        wake_on(&p->loops, (unsigned)at_most(workers, p->threads));
}

void parallel_for(struct parallel *p, uint64_t count, uint64_t grain, parallel_body *body,
                  void *context)
{
    uint64_t step = count / ((uint64_t)p->threads * PIECES);
    step = step < grain ? grain : step;
    if (p->threads == 1 || count <= step) {
        if (count)
            body(context, 0, 0, count);
        return;
    }
    p->body = body;
    p->context = context;
    p->count = count;
    p->step = step;
    atomic_store(&p->next, 0);
    atomic_store(&p->state, OPEN);
    wake(p, (count - 1) / step);
    take(p, 0);
    if (atomic_fetch_sub(&p->state, OPEN) == OPEN || spin(&p->state, 0, true))
        return;
    atomic_store(&p->caller_sleeps, true);
    for (unsigned state; (state = atomic_load(&p->state)) > 0;)
        sleep_on(&p->state, state);
    atomic_store(&p->caller_sleeps, false);
}

void parallel_free(struct parallel *p)
{
    atomic_store(&p->end, true);
    wake(p, p->threads);
    for (unsigned i = 1; i < p->threads; i++)
        pthread_join(p->worker[i - 1], NULL);
    free(p->worker);
    free(p);
}
