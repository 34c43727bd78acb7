#include "ahead.h"

#include <pthread.h>
#include <stdlib.h>

#include "die.h"

/* Smaller tensors are read by each rank: sending pieces around would take longer. Pieces are whole
 * pages. A tensor is read in steps, so that no read takes long. */
enum { GATHER_LEAST = 1 << 20, PAGE = 4096, STEP = 64 << 20 };

struct item {
    struct item *next;
    const struct tensor *tensor;
    void *data;
};

struct ahead {
    struct ts_in *in;
    const bool *wanted;
    uint64_t budget;
    struct ranks *ranks;
    struct gather *gather;
    pthread_t thread;
    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t changed;
    struct item *first, **last;
    uint64_t waiting; /* bytes */
    bool done, stop;
};

static uint64_t at_most(uint64_t count, uint64_t most)
{
    return count < most ? count : most;
}

/* Where bytes of a tensor lie that comes by reference. */
struct place {
    size_t source;
    uint64_t offset;
};

/* Read `count` bytes of the present tensor: those at its place, or the next ones. */
static void read_steps(struct ahead *ahead, const struct place *place, char *data, uint64_t count)
{
    const char *name = ts_present(ahead->in)->name;
    for (uint64_t done = 0, step; done < count; done += step) {
        step = at_most(count - done, STEP);
        ranks_reading(ahead->ranks, name);
        if (place)
            sources_read(ts_sources(ahead->in), place->source, place->offset + done, data + done,
                         (size_t)step, name);
        else
            ts_read(ahead->in, data + done, (size_t)step);
    }
    ranks_reading(ahead->ranks, NULL);
}

/* The present tensor's bytes, of which only this rank's piece is read from its file. */
static void *read_together(struct ahead *ahead, struct place place)
{
    uint64_t size = ts_present(ahead->in)->size, ranks = ranks_count(ahead->ranks);
    uint64_t piece = (size / ranks + PAGE) / PAGE * PAGE;
    uint64_t first = at_most(ranks_rank(ahead->ranks) * piece, size);
    char *data = xgrow(NULL, (size_t)ranks, (size_t)piece);
    place.offset += first;
    read_steps(ahead, &place, data + first, at_most(piece, size - first));
    ahead->gather->all(ahead->gather, data, piece);
    return data;
}

static void *read_present(struct ahead *ahead)
{
    uint64_t size = ts_present(ahead->in)->size;
    struct place place;
    if (ahead->gather && size >= GATHER_LEAST && ts_ref(ahead->in, &place.source, &place.offset))
        return read_together(ahead, place);
    void *data = xgrow(NULL, (size_t)size, 1);
    read_steps(ahead, NULL, data, size);
    return data;
}

/* Append an item, once there is room; false if nobody wants it any more. */
static bool put(struct ahead *ahead, struct item *item)
{
    pthread_mutex_lock(&ahead->mutex);
    while (!ahead->stop && ahead->first && ahead->waiting + item->tensor->size > ahead->budget)
        pthread_cond_wait(&ahead->changed, &ahead->mutex);
    bool stop = ahead->stop;
    pthread_mutex_unlock(&ahead->mutex);
    if (stop)
        return false;
    item->data = read_present(ahead);
    pthread_mutex_lock(&ahead->mutex);
    *ahead->last = item;
    ahead->last = &item->next;
    ahead->waiting += item->tensor->size;
    pthread_cond_broadcast(&ahead->changed);
    pthread_mutex_unlock(&ahead->mutex);
    return true;
}

static void *read_on(void *context)
{
    struct ahead *ahead = context;
    for (const struct tensor *tensor; (tensor = ts_next(ahead->in));) {
        if (!ahead->wanted[tensor - ts_toc(ahead->in)->tensor])
            continue;
        struct item *item = xalloc(1, sizeof *item);
        item->tensor = tensor;
        if (!put(ahead, item)) {
            free(item);
            break;
        }
    }
    pthread_mutex_lock(&ahead->mutex);
    ahead->done = true;
    pthread_cond_broadcast(&ahead->changed);
    pthread_mutex_unlock(&ahead->mutex);
    return NULL;
}

struct ahead *ahead_begin(struct ts_in *in, const bool *wanted, uint64_t budget,
                          struct ranks *ranks, struct gather *gather)
{
    struct ahead *ahead = xalloc(1, sizeof *ahead);
    ahead->in = in;
    ahead->wanted = wanted;
    ahead->budget = budget;
    ahead->ranks = ranks;
    ahead->gather = gather;
    ahead->last = &ahead->first;
    pthread_mutex_init(&ahead->mutex, NULL);
    pthread_cond_init(&ahead->changed, NULL);
    if (pthread_create(&ahead->thread, NULL, read_on, ahead))
        die("cannot start a thread; are there too many processes?");
    return ahead;
}

/* With the mutex held: the first item, waiting for it; NULL at the end. */
static struct item *first_item(struct ahead *ahead)
{
    while (!ahead->first && !ahead->done)
        pthread_cond_wait(&ahead->changed, &ahead->mutex);
    return ahead->first;
}

const struct tensor *ahead_peek(struct ahead *ahead)
{
    pthread_mutex_lock(&ahead->mutex);
    struct item *item = first_item(ahead);
    pthread_mutex_unlock(&ahead->mutex);
    return item ? item->tensor : NULL;
}

const struct tensor *ahead_take(struct ahead *ahead, void **data)
{
    pthread_mutex_lock(&ahead->mutex);
    struct item *item = first_item(ahead);
    if (item) {
        ahead->first = item->next;
        if (!ahead->first)
            ahead->last = &ahead->first;
        ahead->waiting -= item->tensor->size;
        pthread_cond_broadcast(&ahead->changed);
    }
    pthread_mutex_unlock(&ahead->mutex);
    if (!item)
        return NULL;
    const struct tensor *tensor = item->tensor;
    *data = item->data;
    free(item);
    return tensor;
}

void ahead_end(struct ahead *ahead)
{
    pthread_mutex_lock(&ahead->mutex);
    ahead->stop = true;
    pthread_cond_broadcast(&ahead->changed);
    pthread_mutex_unlock(&ahead->mutex);
    pthread_join(ahead->thread, NULL);
    void *data;
    while (ahead_take(ahead, &data))
        free(data);
    pthread_mutex_destroy(&ahead->mutex);
    pthread_cond_destroy(&ahead->changed);
    free(ahead);
}
