#include "ahead.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "die.h"
#include "progress.h"

/* Smaller tensors are read by each rank: sending pieces around would take longer. Pieces of ranks
 * are whole pages. */
enum { GATHER_LEAST = 1 << 20, PAGE = 4096 };

/* How many pieces are read at a time: what disk arrays need to be busy, and as many threads as it
 * takes to copy files that lie in memory as fast as a GPU's bus takes them (with half as many, they
 * were the bound). */
enum { READERS = 16 };

struct item {
    struct item *next;
    const struct tensor *tensor;
    struct item *next_together;
    struct arrived to;
    bool on_device, unseen, together; /* together: not gathered yet */
    uint64_t piece;                   /* of a rank, if they read it together */
    uint64_t left;                    /* bytes that this rank reads and that have not come yet */
    int fd, direct; /* of the file that it lies in, or -1; direct: for O_DIRECT, or -1 */
    void *file;     /* the same for the device to read, or NULL */
    const char *path;
};

/* Some of an item's bytes, which lie at `offset` of its file. */
struct piece {
    struct piece *next;
    struct item *item;
    uint64_t at, offset;
    size_t size;
};

struct ahead {
    struct ts_in *in;
    struct ahead_plan plan;
    struct progress *progress;
    pthread_t lister, reader[READERS];
    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t changed;
    struct item *first, **last;
    struct item *first_together, **last_together; /* those that are not gathered yet */
    struct piece *first_piece, **last_piece;
    uint64_t waiting; /* bytes */
    unsigned busy;    /* reads under way */
    double since;     /* when the first of them began */
    struct ahead_time time;
    bool done, stop;
};

/* ---- reading ---- */

/* With the mutex held, each: reads begin and end. */
static void read_begins(struct ahead *ahead, const char *name)
{
    if (!ahead->busy++)
        ahead->since = now();
    ranks_reading(ahead->plan.ranks, name);
}

/* With the mutex held: gather what this rank has its piece of, in the order of the table. */
static void gather_on(struct ahead *ahead)
{
    for (struct item *item; (item = ahead->first_together) && !item->left;) {
        ahead->first_together = item->next_together;
        if (!ahead->first_together)
            ahead->last_together = &ahead->first_together;
        if (!ahead->stop)
            ahead->plan.gather->all(ahead->plan.gather, item->to.bytes, item->piece);
        item->together = false;
    }
    pthread_cond_broadcast(&ahead->changed);
}

static void close_item(const struct ahead *ahead, const struct item *item)
{
    if (item->file)
        ahead->plan.device->close_file(ahead->plan.device, item->file);
    if (item->direct >= 0)
        close(item->direct);
    if (item->fd >= 0)
        close(item->fd);
}

static void read_ends(struct ahead *ahead, struct item *item, uint64_t size)
{
    if (!--ahead->busy) {
        ahead->time.reading += now() - ahead->since;
        ranks_reading(ahead->plan.ranks, NULL);
    }
    item->left -= size;
    if (!item->left)
        close_item(ahead, item);
    gather_on(ahead);
}

/* Bytes of a piece by whole pages, which `to` has around it. False if the file system cannot. */
static bool read_pages(const struct piece *p, char *to)
{
    size_t phase = (size_t)(p->offset % PAGE), size = (phase + p->size + PAGE - 1) / PAGE * PAGE;
    for (size_t done = 0; done < phase + p->size;) {
        ssize_t got = pread(p->item->direct, to - phase + done, size - done,
                            (off_t)(p->offset - phase + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0 || (got % PAGE && done + (size_t)got < phase + p->size))
            return false; /* the other way finds out what is wrong */
        done += (size_t)got;
    }
    return true;
}

/* Bytes of an item have come, to be seen if it goes to the device. */
static void look_at(const struct ahead *ahead, struct item *item, uint64_t at, const void *bytes,
                    size_t size)
{
    if (!item->on_device || item->unseen)
        return;
    if (!at) {
        size_t head = (size_t)at_most(size, AHEAD_HEAD);
        item->to.head = xgrow(NULL, head, 1);
        memcpy(item->to.head, bytes, head);
    }
    uint32_t line = (uint32_t)(item->tensor - ts_toc(ahead->in)->tensor);
    if (ahead->plan.look)
        ahead->plan.look(ahead->plan.context, line, at, bytes, size);
}

static void read_piece(struct ahead *ahead, const struct piece *p)
{
    struct item *item = p->item;
    struct device *d = ahead->plan.device;
    if (item->file && d->read_file(d, item->to.bytes, p->at, p->size, item->file, p->offset))
        return;
    char *to = item->on_device
                   ? d->lend(d, item->to.bytes, p->at, p->size, (size_t)(p->offset % PAGE))
                   : (char *)item->to.data + p->at;
    bool pages = item->on_device && d->lends_pages && item->direct >= 0;
    if (!pages || !read_pages(p, to))
        source_read(item->fd, item->path, p->offset, to, p->size, item->tensor->name);
    look_at(ahead, item, p->at, to, p->size);
    if (item->on_device)
        d->take(d, item->to.bytes, p->at, p->size, to);
}

/* A reader's thread. */
static void *read_pieces(void *context)
{
    struct ahead *ahead = context;
    pthread_mutex_lock(&ahead->mutex);
    for (;;) {
        struct piece *p = ahead->first_piece;
        if (!p && (ahead->done || ahead->stop))
            break;
        if (!p) {
            pthread_cond_wait(&ahead->changed, &ahead->mutex);
            continue;
        }
        ahead->first_piece = p->next;
        if (!ahead->first_piece)
            ahead->last_piece = &ahead->first_piece;
        read_begins(ahead, p->item->tensor->name);
        pthread_mutex_unlock(&ahead->mutex);
        read_piece(ahead, p);
        pthread_mutex_lock(&ahead->mutex);
        read_ends(ahead, p->item, p->size);
        free(p);
    }
    pthread_mutex_unlock(&ahead->mutex);
    return NULL;
}

/* ---- listing: the stream's thread ---- */

/* Where bytes of a tensor lie that comes by reference. */
struct place {
    size_t source;
    uint64_t offset;
};

/* Leave the present tensor's bytes from `first` to `end` to the readers. */
static void list_pieces(struct ahead *ahead, struct item *item, const struct place *place,
                        uint64_t first, uint64_t end)
{
    struct sources *sources = ts_sources(ahead->in);
    struct device *d = ahead->plan.device;
    item->fd = sources_dup(sources, place->source);
    item->path = sources->file[place->source].path;
    if (item->on_device && d->lends_pages) {
        char *self = xprintf("/proc/self/fd/%d", item->fd);
        item->direct = open(self, O_RDONLY | O_DIRECT | O_CLOEXEC);
        free(self);
    }
    if (item->unseen && item->direct >= 0 && d->open_file)
        item->file = d->open_file(d, item->direct);
    pthread_mutex_lock(&ahead->mutex);
    for (uint64_t at = first; at < end; at += DEVICE_PIECE) {
        struct piece *p = xalloc(1, sizeof *p);
        *p = (struct piece){.item = item, .at = at, .offset = place->offset + at};
        p->size = (size_t)at_most(end - at, DEVICE_PIECE);
        *ahead->last_piece = p;
        ahead->last_piece = &p->next;
    }
    pthread_cond_broadcast(&ahead->changed);
    pthread_mutex_unlock(&ahead->mutex);
}

/* The present tensor's next `size` bytes. */
static void read_here(struct ahead *ahead, struct item *item, char *to, size_t size)
{
    pthread_mutex_lock(&ahead->mutex);
    read_begins(ahead, item->tensor->name);
    pthread_mutex_unlock(&ahead->mutex);
    ts_read(ahead->in, to, size);
    pthread_mutex_lock(&ahead->mutex);
    read_ends(ahead, item, 0);
    pthread_mutex_unlock(&ahead->mutex);
}

/* The present tensor, which comes inline: its bytes in order. With the last of them, the item is
 * the taker's. */
static void read_inline(struct ahead *ahead, struct item *item)
{
    struct device *d = ahead->plan.device;
    const uint64_t all = item->tensor->size;
    for (uint64_t at = 0; at < all; at += DEVICE_PIECE) {
        size_t size = (size_t)at_most(all - at, DEVICE_PIECE);
        char *to =
            item->on_device ? d->lend(d, item->to.bytes, at, size, 0) : (char *)item->to.data + at;
        read_here(ahead, item, to, size);
        look_at(ahead, item, at, to, size);
        if (item->on_device)
            d->take(d, item->to.bytes, at, size, to);
        pthread_mutex_lock(&ahead->mutex);
        item->left -= size;
        pthread_cond_broadcast(&ahead->changed);
        pthread_mutex_unlock(&ahead->mutex);
    }
}

/* The present tensor, of which this rank reads its piece only. */
static void read_together(struct ahead *ahead, struct item *item, const struct place *place)
{
    uint64_t first = at_most(ranks_rank(ahead->plan.ranks) * item->piece, item->tensor->size);
    uint64_t end = at_most(first + item->piece, item->tensor->size);
    pthread_mutex_lock(&ahead->mutex);
    item->left = end - first;
    *ahead->last_together = item;
    ahead->last_together = &item->next_together;
    gather_on(ahead); /* of a small one, the last ranks have nothing to read */
    pthread_mutex_unlock(&ahead->mutex);
    if (first < end)
        list_pieces(ahead, item, place, first, end);
}

/* Wait for room; false if nobody wants more. */
static bool wait_for_room(struct ahead *ahead, uint64_t size)
{
    pthread_mutex_lock(&ahead->mutex);
    while (!ahead->stop && ahead->first && ahead->waiting + size > ahead->plan.budget)
        pthread_cond_wait(&ahead->changed, &ahead->mutex);
    bool stop = ahead->stop;
    pthread_mutex_unlock(&ahead->mutex);
    return !stop;
}

/* A matrix for a tensor's bytes, with room behind for pieces of all ranks. */
static struct mat room_for(const struct ahead *ahead, const struct item *item)
{
    struct device *d = ahead->plan.device;
    uint64_t pieces = item->piece * ranks_count(ahead->plan.ranks);
    uint64_t size = item->tensor->size;
    return mat_cols(d->make(d, DTYPE_U8, 1, pieces > size ? pieces : size), 0, size);
}

static void read_present(struct ahead *ahead, const struct tensor *tensor)
{
    struct item *item = xalloc(1, sizeof *item);
    struct place place;
    bool there = ts_ref(ahead->in, &place.source, &place.offset);
    size_t line = (size_t)(tensor - ts_toc(ahead->in)->tensor);
    *item = (struct item){.tensor = tensor, .left = tensor->size, .fd = -1, .direct = -1};
    item->on_device = ahead->plan.on_device && ahead->plan.on_device[line];
    item->unseen = item->on_device && ahead->plan.unseen && ahead->plan.unseen[line];
    item->together = ahead->plan.gather && item->on_device && tensor->size >= GATHER_LEAST && there;
    if (item->together)
        item->piece = (tensor->size / ranks_count(ahead->plan.ranks) + PAGE) / PAGE * PAGE;
    if (item->on_device)
        item->to.bytes = room_for(ahead, item);
    else
        item->to.data = xgrow(NULL, (size_t)tensor->size, 1);
    pthread_mutex_lock(&ahead->mutex);
    *ahead->last = item;
    ahead->last = &item->next;
    ahead->waiting += tensor->size;
    pthread_mutex_unlock(&ahead->mutex);
    if (item->together)
        read_together(ahead, item, &place);
    else if (there && tensor->size)
        list_pieces(ahead, item, &place, 0, tensor->size);
    else if (tensor->size) /* or it may be taken already */
        read_inline(ahead, item);
}

static void *read_on(void *context)
{
    struct ahead *ahead = context;
    for (const struct tensor *tensor; (tensor = ts_next(ahead->in));) {
        if (!ahead->plan.wanted[tensor - ts_toc(ahead->in)->tensor])
            continue;
        if (!wait_for_room(ahead, tensor->size))
            break;
        read_present(ahead, tensor);
    }
    pthread_mutex_lock(&ahead->mutex);
    ahead->done = true;
    pthread_cond_broadcast(&ahead->changed);
    pthread_mutex_unlock(&ahead->mutex);
    return NULL;
}

/* ---- taking ---- */

static void start(pthread_t *thread, void *(*run)(void *), struct ahead *ahead)
{
    if (pthread_create(thread, NULL, run, ahead))
        die("cannot start a thread; are there too many processes?");
}

static uint64_t wanted_bytes(const struct ahead *ahead)
{
    const struct toc *toc = ts_toc(ahead->in);
    uint64_t bytes = 0;
    for (size_t i = 0; i < toc->count; i++)
        bytes += ahead->plan.wanted[i] ? toc->tensor[i].size : 0;
    return bytes;
}

struct ahead *ahead_begin(struct ts_in *in, const struct ahead_plan *plan)
{
    struct ahead *ahead = xalloc(1, sizeof *ahead);
    ahead->in = in;
    ahead->plan = *plan;
    ahead->progress = ts_take_progress(in, wanted_bytes(ahead));
    ahead->last = &ahead->first;
    ahead->last_piece = &ahead->first_piece;
    ahead->last_together = &ahead->first_together;
    pthread_mutex_init(&ahead->mutex, NULL);
    pthread_cond_init(&ahead->changed, NULL);
    start(&ahead->lister, read_on, ahead);
    for (unsigned i = 0; i < READERS; i++)
        start(&ahead->reader[i], read_pieces, ahead);
    return ahead;
}

/* With the mutex held: the first item, waiting for it, and with `whole` for all its bytes; NULL at
 * the end. */
static struct item *first_item(struct ahead *ahead, bool whole)
{
    double begin = now();
    while (ahead->first ? whole && (ahead->first->left || ahead->first->together) : !ahead->done)
        pthread_cond_wait(&ahead->changed, &ahead->mutex);
    ahead->time.waiting += now() - begin;
    return ahead->first;
}

const struct tensor *ahead_peek(struct ahead *ahead)
{
    pthread_mutex_lock(&ahead->mutex);
    struct item *item = first_item(ahead, false);
    pthread_mutex_unlock(&ahead->mutex);
    return item ? item->tensor : NULL;
}

const struct tensor *ahead_take(struct ahead *ahead, struct arrived *to)
{
    pthread_mutex_lock(&ahead->mutex);
    struct item *item = first_item(ahead, true);
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
    *to = item->to;
    free(item);
    progress_add(ahead->progress, tensor->size);
    return tensor;
}

struct ahead_time ahead_time(struct ahead *ahead)
{
    pthread_mutex_lock(&ahead->mutex);
    struct ahead_time time = ahead->time;
    if (ahead->busy)
        time.reading += now() - ahead->since;
    pthread_mutex_unlock(&ahead->mutex);
    return time;
}

/* Pieces that nobody began to read count as read. */
static void forget_pieces(struct ahead *ahead)
{
    for (struct piece *p; (p = ahead->first_piece); free(p)) {
        ahead->first_piece = p->next;
        ahead->busy++;
        read_ends(ahead, p->item, p->size);
    }
    ahead->last_piece = &ahead->first_piece;
}

void ahead_end(struct ahead *ahead)
{
    pthread_mutex_lock(&ahead->mutex);
    ahead->stop = true;
    forget_pieces(ahead);
    pthread_cond_broadcast(&ahead->changed);
    pthread_mutex_unlock(&ahead->mutex);
    pthread_join(ahead->lister, NULL);
    pthread_mutex_lock(&ahead->mutex);
    forget_pieces(ahead); /* those that were listed meanwhile */
    pthread_mutex_unlock(&ahead->mutex);
    for (unsigned i = 0; i < READERS; i++)
        pthread_join(ahead->reader[i], NULL);
    struct arrived rest;
    while (ahead_take(ahead, &rest)) {
        free(rest.data);
        free(rest.head);
        if (rest.bytes.at)
            ahead->plan.device->drop(ahead->plan.device, rest.bytes);
    }
    progress_end(ahead->progress);
    pthread_mutex_destroy(&ahead->mutex);
    pthread_cond_destroy(&ahead->changed);
    free(ahead);
}
