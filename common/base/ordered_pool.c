#include "base/ordered_pool.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/die.h"
#include "base/parallel.h"

enum state { EMPTY, SUBMITTED, READY };

struct ordered_pool {
    ordered_pool_step *compute, *finish;
    void *context;
    unsigned threads;
    pthread_t *worker, finisher;
    char *piece; /* a ring: number n is at n % pieces */
    size_t size, pieces;
    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t emptied, submitted, ready;
    enum state *state;
    uint64_t next;     /* the number of the piece that is submitted next */
    uint64_t taken;    /* of the piece that a worker takes next, unless it is READY already */
    uint64_t finished; /* of the piece that is finished next */
    bool end;
};

unsigned ordered_pool_threads(uint64_t wanted)
{
    if (wanted > ORDERED_POOL_THREADS_MAX)
        die_usage("--threads: at most %d", ORDERED_POOL_THREADS_MAX);
    if (wanted)
        return (unsigned)wanted;
    return (unsigned)at_most(parallel_processors(), ORDERED_POOL_THREADS_MAX);
}

static void *piece_at(struct ordered_pool *pool, uint64_t number)
{
    return pool->piece + number % pool->pieces * pool->size;
}

/* With the mutex held: the number of a piece to compute, or pool->next if there is none. */
static uint64_t first_submitted(struct ordered_pool *pool)
{
    if (pool->taken < pool->finished)
        pool->taken = pool->finished;
    while (pool->taken < pool->next && pool->state[pool->taken % pool->pieces] == READY)
        pool->taken++;
    return pool->taken;
}

static void *work(void *context)
{
    struct ordered_pool *pool = context;
    pthread_mutex_lock(&pool->mutex);
    for (;;) {
        uint64_t number = first_submitted(pool);
        if (number == pool->next && pool->end)
            break;
        if (number == pool->next) {
            pthread_cond_wait(&pool->submitted, &pool->mutex);
            continue;
        }
        pool->taken++;
        pthread_mutex_unlock(&pool->mutex);
        pool->compute(pool->context, piece_at(pool, number));
        pthread_mutex_lock(&pool->mutex);
        pool->state[number % pool->pieces] = READY;
        if (number == pool->finished)
            pthread_cond_signal(&pool->ready);
    }
    pthread_mutex_unlock(&pool->mutex);
    return NULL;
}

static void *finish(void *context)
{
    struct ordered_pool *pool = context;
    pthread_mutex_lock(&pool->mutex);
    for (;;) {
        uint64_t number = pool->finished;
        if (number == pool->next && pool->end)
            break;
        if (pool->state[number % pool->pieces] != READY) {
            pthread_cond_wait(&pool->ready, &pool->mutex);
            continue;
        }
        pthread_mutex_unlock(&pool->mutex);
        pool->finish(pool->context, piece_at(pool, number));
        pthread_mutex_lock(&pool->mutex);
        pool->state[number % pool->pieces] = EMPTY;
        pool->finished++;
        pthread_cond_signal(&pool->emptied);
    }
    pthread_mutex_unlock(&pool->mutex);
    return NULL;
}

static void start(pthread_t *thread, void *body(void *), struct ordered_pool *pool)
{
    if (pthread_create(thread, NULL, body, pool))
        die("cannot start a thread; are there too many processes?");
}

struct ordered_pool *ordered_pool_begin(unsigned threads, unsigned slack, size_t size,
                                        ordered_pool_step *compute, ordered_pool_step *finish_step,
                                        void *context)
{
    struct ordered_pool *pool = xalloc(1, sizeof *pool);
    *pool = (struct ordered_pool){.compute = compute,
                                  .finish = finish_step,
                                  .context = context,
                                  .threads = threads,
                                  .size = size,
                                  .pieces = (size_t)threads + slack};
    pool->worker = xalloc(threads, sizeof *pool->worker);
    pool->piece = xalloc(pool->pieces, size);
    pool->state = xalloc(pool->pieces, sizeof *pool->state);
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->emptied, NULL);
    pthread_cond_init(&pool->submitted, NULL);
    pthread_cond_init(&pool->ready, NULL);
    for (unsigned i = 0; i < threads; i++)
        start(&pool->worker[i], work, pool);
    start(&pool->finisher, finish, pool);
    return pool;
}

void *ordered_pool_piece(struct ordered_pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    while (pool->next - pool->finished == pool->pieces)
        pthread_cond_wait(&pool->emptied, &pool->mutex);
    pthread_mutex_unlock(&pool->mutex);
    return piece_at(pool, pool->next);
}

void ordered_pool_submit(struct ordered_pool *pool, bool computes)
{
    pthread_mutex_lock(&pool->mutex);
    pool->state[pool->next % pool->pieces] = computes ? SUBMITTED : READY;
    if (computes)
        pthread_cond_signal(&pool->submitted);
    else if (pool->next == pool->finished)
        pthread_cond_signal(&pool->ready);
    pool->next++;
    pthread_mutex_unlock(&pool->mutex);
}

bool ordered_pool_idle(struct ordered_pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    bool idle = pool->finished == pool->next;
    pthread_mutex_unlock(&pool->mutex);
    return idle;
}

void ordered_pool_do(struct ordered_pool *pool)
{
    void *piece = piece_at(pool, pool->next);
    pool->compute(pool->context, piece);
    if (ordered_pool_idle(pool))
        pool->finish(pool->context, piece);
    else
        ordered_pool_submit(pool, false);
}

void ordered_pool_end(struct ordered_pool *pool, void (*release)(void *piece))
{
    pthread_mutex_lock(&pool->mutex);
    pool->end = true;
    pthread_cond_broadcast(&pool->submitted);
    pthread_cond_broadcast(&pool->ready);
    pthread_mutex_unlock(&pool->mutex);
    for (unsigned i = 0; i < pool->threads; i++)
        pthread_join(pool->worker[i], NULL);
    pthread_join(pool->finisher, NULL);
    for (size_t i = 0; release && i < pool->pieces; i++)
        release(pool->piece + i * pool->size);
    pthread_cond_destroy(&pool->emptied);
    pthread_cond_destroy(&pool->submitted);
    pthread_cond_destroy(&pool->ready);
    pthread_mutex_destroy(&pool->mutex);
    free(pool->worker);
    free(pool->piece);
    free(pool->state);
    free(pool);
}
