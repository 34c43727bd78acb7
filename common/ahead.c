#include "ahead.h"

#include <pthread.h>
#include <stdlib.h>

#include "die.h"

/* Smaller tensors are read by each rank: sending pieces around would take longer. Pieces are whole
 * pages. */
enum { GATHER_LEAST = 1 << 20, PAGE = 4096 };

struct item {
    struct item *next;
    const struct tensor *tensor;
    void *data;
};

struct ahead {
    struct ts_in *in;
    const bool *wanted;
    uint64_t budget;
    struct gather *gather;
    pthread_t thread;
    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t changed;
    struct item *first, **last;
    uint64_t waiting; /* bytes */
    bool done, stop;
};

/* The present tensor's bytes, of which only this rank's piece is read from its file. */
static void *read_together(struct ahead *ahead, size_t source, uint64_t offset)
{
    const struct tensor *tensor = ts_present(ahead->in);
    uint64_t size = tensor->size, ranks = ranks_count(ahead->gather->ranks);
    uint64_t piece = (size / ranks + PAGE) / PAGE * PAGE;
    uint64_t first = ranks_rank(ahead->gather->ranks) * piece, count = piece;
    char *data = xgrow(NULL, (size_t)ranks, (size_t)piece);
    first = first < size ? first : size;
    count = count < size - first ? count : size - first;
    sources_read(ts_sources(ahead->in), source, offset + first, data + first, (size_t)count,
                 tensor->name);
    ahead->gather->all(ahead->gather, data, piece);
    return data;
}

static void *read_present(struct ahead *ahead)
{
    size_t size = (size_t)ts_present(ahead->in)->size, source;
    uint64_t offset;
    if (ahead->gather && size >= GATHER_LEAST && ts_ref(ahead->in, &source, &offset))
        return read_together(ahead, source, offset);
    void *data = xgrow(NULL, size, 1);
    ts_read(ahead->in, data, size);
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
                          struct gather *gather)
{
    struct ahead *ahead = xalloc(1, sizeof *ahead);
    ahead->in = in;
    ahead->wanted = wanted;
    ahead->budget = budget;
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
