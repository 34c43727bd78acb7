#include "base/ordered_pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "base/die.h"

enum state { EMPTY, GIVEN, READY };

struct ordered_pool {
    ordered_pool_step *compute, *finish;
    void *context;
    unsigned threads;
    pthread_t *worker, finisher;
    char *piece; /* a ring: number n is at n % pieces */
    size_t size, pieces;
    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t emptied, given, ready;
    enum state *state;
    uint64_t next;     /* the number of the piece that is given next */
    uint64_t taken;    /* that a worker takes next, if it is not ready by itself */
    uint64_t finished; /* that is finished next */
    bool end;
};

unsigned ordered_pool_threads(uint64_t wanted)
{
    cpu_set_t set;
    if (wanted > ORDERED_POOL_THREADS_MAX)
        die_usage("--threads: at most %d", ORDERED_POOL_THREADS_MAX);
    if (wanted)
        return (unsigned)wanted;
    int processors = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
    return processors < ORDERED_POOL_THREADS_MAX ? (unsigned)processors : ORDERED_POOL_THREADS_MAX;
}

static void *piece_at(struct ordered_pool *line, uint64_t number)
{
    return line->piece + number % line->pieces * line->size;
}

/* With the mutex held: the number of a piece to work on, or line->next if there is none. */
static uint64_t first_given(struct ordered_pool *line)
{
    if (line->taken < line->finished)
        line->taken = line->finished;
    while (line->taken < line->next && line->state[line->taken % line->pieces] == READY)
        line->taken++;
    return line->taken;
}

static void *work(void *context)
{
    struct ordered_pool *line = context;
    pthread_mutex_lock(&line->mutex);
    for (;;) {
        uint64_t number = first_given(line);
        if (number == line->next && line->end)
            break;
        if (number == line->next) {
            pthread_cond_wait(&line->given, &line->mutex);
            continue;
        }
        line->taken++;
        pthread_mutex_unlock(&line->mutex);
        line->compute(line->context, piece_at(line, number));
        pthread_mutex_lock(&line->mutex);
        line->state[number % line->pieces] = READY;
        if (number == line->finished)
            pthread_cond_signal(&line->ready);
    }
    pthread_mutex_unlock(&line->mutex);
    return NULL;
}

static void *finish(void *context)
{
    struct ordered_pool *line = context;
    pthread_mutex_lock(&line->mutex);
    for (;;) {
        uint64_t number = line->finished;
        if (number == line->next && line->end)
            break;
        if (line->state[number % line->pieces] != READY) {
            pthread_cond_wait(&line->ready, &line->mutex);
            continue;
        }
        pthread_mutex_unlock(&line->mutex);
        line->finish(line->context, piece_at(line, number));
        pthread_mutex_lock(&line->mutex);
        line->state[number % line->pieces] = EMPTY;
        line->finished++;
        pthread_cond_signal(&line->emptied);
    }
    pthread_mutex_unlock(&line->mutex);
    return NULL;
}

static void start(pthread_t *thread, void *body(void *), struct ordered_pool *line)
{
    if (pthread_create(thread, NULL, body, line))
        die("cannot start a thread; are there too many processes?");
}

struct ordered_pool *ordered_pool_begin(unsigned threads, unsigned ahead, size_t size,
                                        ordered_pool_step *compute, ordered_pool_step *finish_step,
                                        void *context)
{
    struct ordered_pool *line = xalloc(1, sizeof *line);
    *line = (struct ordered_pool){.compute = compute,
                                  .finish = finish_step,
                                  .context = context,
                                  .threads = threads,
                                  .size = size,
                                  .pieces = (size_t)threads + ahead};
    line->worker = xalloc(threads, sizeof *line->worker);
    line->piece = xalloc(line->pieces, size);
    line->state = xalloc(line->pieces, sizeof *line->state);
    pthread_mutex_init(&line->mutex, NULL);
    pthread_cond_init(&line->emptied, NULL);
    pthread_cond_init(&line->given, NULL);
    pthread_cond_init(&line->ready, NULL);
    for (unsigned i = 0; i < threads; i++)
        start(&line->worker[i], work, line);
    start(&line->finisher, finish, line);
    return line;
}

void *ordered_pool_piece(struct ordered_pool *line)
{
    pthread_mutex_lock(&line->mutex);
    while (line->next - line->finished == line->pieces)
        pthread_cond_wait(&line->emptied, &line->mutex);
    pthread_mutex_unlock(&line->mutex);
    return piece_at(line, line->next);
}

void ordered_pool_submit(struct ordered_pool *line, bool computes)
{
    pthread_mutex_lock(&line->mutex);
    line->state[line->next % line->pieces] = computes ? GIVEN : READY;
    if (computes)
        pthread_cond_signal(&line->given);
    else if (line->next == line->finished)
        pthread_cond_signal(&line->ready);
    line->next++;
    pthread_mutex_unlock(&line->mutex);
}

bool ordered_pool_idle(struct ordered_pool *line)
{
    pthread_mutex_lock(&line->mutex);
    bool idle = line->finished == line->next;
    pthread_mutex_unlock(&line->mutex);
    return idle;
}

void ordered_pool_do(struct ordered_pool *line)
{
    void *piece = piece_at(line, line->next);
    line->compute(line->context, piece);
    if (ordered_pool_idle(line))
        line->finish(line->context, piece);
    else
        ordered_pool_submit(line, false);
}

void ordered_pool_end(struct ordered_pool *line, void (*release)(void *piece))
{
    pthread_mutex_lock(&line->mutex);
    line->end = true;
    pthread_cond_broadcast(&line->given);
    pthread_cond_broadcast(&line->ready);
    pthread_mutex_unlock(&line->mutex);
    for (unsigned i = 0; i < line->threads; i++)
        pthread_join(line->worker[i], NULL);
    pthread_join(line->finisher, NULL);
    for (size_t i = 0; release && i < line->pieces; i++)
        release(line->piece + i * line->size);
    pthread_cond_destroy(&line->emptied);
    pthread_cond_destroy(&line->given);
    pthread_cond_destroy(&line->ready);
    pthread_mutex_destroy(&line->mutex);
    free(line->worker);
    free(line->piece);
    free(line->state);
    free(line);
}
