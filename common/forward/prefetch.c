#include "forward/prefetch.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/die.h"
#include "base/progress.h"

/* Each rank reads smaller tensors itself: exchanging them would take longer. An expert's scales are
 * larger. */
enum { GATHER_LEAST = 128 << 10, PAGE = 4096 };

/* Pieces read at a time: enough to keep disk arrays busy, and to copy cached files as fast as a
 * GPU's bus takes them (half as many threads were the bottleneck). */
enum { READERS = 16 };

/* The most bytes that are kept of an inline tensor whose rows are read later. */
enum { ROWS_INLINE_MOST = 64 << 20 };

struct item {
    struct item *next;
    const struct tensor *tensor;
    struct item *next_together;
    struct prefetched to;
    bool on_device, unseen, together; /* together: not gathered yet */
    uint64_t batch;                   /* with which it is gathered */
    unsigned *owner;                  /* the rank that reads each piece; NULL: all read all */
    uint64_t left;                    /* bytes that this rank has yet to read */
    int fd, direct;                   /* of its file, or -1; direct: with O_DIRECT, or -1 */
    void *file;                       /* the same for the device to read, or NULL */
    const char *path;
};

/* Some of an item's bytes, at `offset` of its file; or the head alone of an item whose first bytes
 * another rank uploads. */
struct piece {
    struct piece *next;
    struct item *item;
    uint64_t at, offset;
    size_t size;
    bool head;
};

struct prefetch {
    struct ts_in *in;
    struct prefetch_plan plan;
    struct progress *progress;
    pthread_t lister, gatherer, reader[READERS];
    uint64_t *given;       /* bytes to read together, to each rank so far: the lister's */
    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t changed;
    struct item *first, **last;
    struct item *first_together, **last_together; /* not gathered yet */
    uint64_t batches;                             /* whose items are all listed */
    struct piece *first_piece, **last_piece;
    uint64_t waiting; /* bytes */
    unsigned busy;    /* reads under way */
    double since;     /* when the first of them began */
    struct prefetch_time time;
    bool done, stop;
    struct ts_held **held; /* the lister's */
    size_t holds;
};

/* ---- reading ---- */

/* With the mutex held: a read begins or ends. */
static void read_begins(struct prefetch *prefetch, const char *name)
{
    if (!prefetch->busy++)
        prefetch->since = now();
    ranks_reading(prefetch->plan.ranks, name);
}

static void close_item(const struct prefetch *prefetch, const struct item *item)
{
    if (item->file)
        prefetch->plan.device->close_file(prefetch->plan.device, item->file);
    if (item->direct >= 0)
        close(item->direct);
    if (item->fd >= 0)
        close(item->fd);
}

static void read_ends(struct prefetch *prefetch, struct item *item, uint64_t size)
{
    if (!--prefetch->busy) {
        prefetch->time.reading += now() - prefetch->since;
        ranks_reading(prefetch->plan.ranks, NULL);
    }
    item->left -= size;
    if (!item->left)
        close_item(prefetch, item);
    pthread_cond_broadcast(&prefetch->changed);
}

/* Read a piece by whole pages, for which `to` has room at both ends. False if the filesystem
 * cannot. */
static bool read_pages(const struct piece *p, char *to)
{
    size_t phase = (size_t)(p->offset % PAGE), size = (phase + p->size + PAGE - 1) / PAGE * PAGE;
    for (size_t done = 0; done < phase + p->size;) {
        ssize_t got = pread(p->item->direct, to - phase + done, size - done,
                            (off_t)(p->offset - phase + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0 || (got % PAGE && done + (size_t)got < phase + p->size))
            return false; /* the buffered read reports the error */
        done += (size_t)got;
    }
    return true;
}

/* Bytes of an item were read; show them to look() if it goes to the device. */
static void look_at(const struct prefetch *prefetch, struct item *item, uint64_t at,
                    const void *bytes, size_t size)
{
    if (!item->on_device || item->unseen)
        return;
    if (!at) {
        size_t head = (size_t)at_most(size, PREFETCH_HEAD);
        item->to.head = xgrow(NULL, head, 1);
        memcpy(item->to.head, bytes, head);
    }
    uint32_t line = (uint32_t)(item->tensor - ts_toc(prefetch->in)->tensor);
    if (prefetch->plan.look)
        prefetch->plan.look(prefetch->plan.context, line, at, bytes, size);
}

static void read_piece(struct prefetch *prefetch, const struct piece *p)
{
    struct item *item = p->item;
    struct device *d = prefetch->plan.device;
    if (p->head) {
        item->to.head = xgrow(NULL, p->size, 1);
        source_read(item->fd, item->path, p->offset, item->to.head, p->size, item->tensor->name);
        return;
    }
    if (item->file && d->read_file(d, item->to.bytes, p->at, p->size, item->file, p->offset))
        return;
    char *to = item->on_device ? d->acquire_staging(d, item->to.bytes, p->at, p->size,
                                                    (size_t)(p->offset % PAGE))
                               : (char *)item->to.data + p->at;
    bool pages = item->on_device && d->stages_pages && item->direct >= 0;
    if (!pages || !read_pages(p, to))
        source_read(item->fd, item->path, p->offset, to, p->size, item->tensor->name);
    look_at(prefetch, item, p->at, to, p->size);
    if (item->on_device)
        d->submit_staging(d, item->to.bytes, p->at, p->size, to);
}

/* A reader's thread. */
static void *read_pieces(void *context)
{
    struct prefetch *prefetch = context;
    pthread_mutex_lock(&prefetch->mutex);
    for (;;) {
        struct piece *p = prefetch->first_piece;
        if (!p && (prefetch->done || prefetch->stop))
            break;
        if (!p) {
            pthread_cond_wait(&prefetch->changed, &prefetch->mutex);
            continue;
        }
        prefetch->first_piece = p->next;
        if (!prefetch->first_piece)
            prefetch->last_piece = &prefetch->first_piece;
        read_begins(prefetch, p->item->tensor->name);
        pthread_mutex_unlock(&prefetch->mutex);
        read_piece(prefetch, p);
        pthread_mutex_lock(&prefetch->mutex);
        read_ends(prefetch, p->item, p->size);
        free(p);
    }
    pthread_mutex_unlock(&prefetch->mutex);
    return NULL;
}

/* ---- gathering: a thread of its own ---- */

/* With the mutex held: the number of items of the first batch that is not gathered yet, if all of
 * them are listed and this rank has read its pieces; otherwise 0. */
static size_t read_batch(const struct prefetch *prefetch)
{
    const struct item *item = prefetch->first_together;
    uint64_t batch = item ? item->batch : 0;
    size_t count = 0;
    if (!item || batch >= prefetch->batches)
        return 0;
    for (; item && item->batch == batch; item = item->next_together, count++)
        if (item->left)
            return 0;
    return count;
}

/* With the mutex held: the first `count` items are gathered, or not to be. */
static void leave(struct prefetch *prefetch, size_t count)
{
    for (; count--; prefetch->first_together = prefetch->first_together->next_together) {
        free(prefetch->first_together->owner);
        prefetch->first_together->together = false;
    }
    if (!prefetch->first_together)
        prefetch->last_together = &prefetch->first_together;
    pthread_cond_broadcast(&prefetch->changed);
}

/* The pieces of `count` items; *pieces is how many. The caller frees them. */
static struct gathered *pieces_of(const struct item *item, size_t count, size_t *pieces)
{
    struct gathered *part = NULL;
    for (*pieces = 0; item && count--; item = item->next_together)
        for (uint64_t at = 0, size = item->tensor->size; at < size; at += DEVICE_PIECE) {
            part = xgrow(part, *pieces + 1, sizeof *part);
            part[(*pieces)++] =
                (struct gathered){item->to.bytes, at, at_most(size - at, DEVICE_PIECE),
                                  item->owner[at / DEVICE_PIECE]};
        }
    return part;
}

/* Without the mutex, so that readers go on: until they are gathered, items stay where they are. */
static void gather_batch(struct prefetch *prefetch, size_t count)
{
    struct gather *gather = prefetch->plan.gather;
    size_t pieces;
    struct gathered *part = pieces_of(prefetch->first_together, count, &pieces);
    pthread_mutex_unlock(&prefetch->mutex);
    gather->all(gather, part, pieces);
    pthread_mutex_lock(&prefetch->mutex);
    free(part);
}

/* Gather the batches that this rank has read, in table order. */
static void *gather_batches(void *context)
{
    struct prefetch *prefetch = context;
    pthread_mutex_lock(&prefetch->mutex);
    while (prefetch->first_together || !prefetch->done) {
        size_t count = prefetch->stop ? 0 : read_batch(prefetch);
        if (prefetch->stop && prefetch->done) { /* before, the lister uses items */
            leave(prefetch, 1);
        } else if (count) {
            gather_batch(prefetch, count);
            leave(prefetch, count);
        } else {
            pthread_cond_wait(&prefetch->changed, &prefetch->mutex);
        }
    }
    pthread_mutex_unlock(&prefetch->mutex);
    return NULL;
}

/* ---- listing: the stream's thread ---- */

/* The place of a referenced tensor's bytes. */
struct location {
    size_t source;
    uint64_t offset;
};

/* With the mutex held: queue some of an item's bytes for the readers. */
static void list_piece(struct prefetch *prefetch, struct piece piece)
{
    struct piece *p = xalloc(1, sizeof *p);
    *p = piece;
    *prefetch->last_piece = p;
    prefetch->last_piece = &p->next;
}

/* Whether this rank reads the piece at `at`. */
static bool is_own(const struct prefetch *prefetch, const struct item *item, uint64_t at)
{
    return !item->owner || item->owner[at / DEVICE_PIECE] == ranks_rank(prefetch->plan.ranks);
}

/* How many bytes this rank reads of an item's first ones, if another one reads its first piece. */
static size_t head_of(const struct prefetch *prefetch, const struct item *item)
{
    bool needed = !item->unseen && !is_own(prefetch, item, 0);
    return needed ? (size_t)at_most(item->tensor->size, PREFETCH_HEAD) : 0;
}

/* Queue what this rank reads of the current tensor. */
static void list_pieces(struct prefetch *prefetch, struct item *item,
                        const struct location *location)
{
    const uint64_t all = item->tensor->size;
    size_t head = head_of(prefetch, item);
    struct sources *sources = ts_sources(prefetch->in);
    struct device *d = prefetch->plan.device;
    item->fd = sources_dup(sources, location->source);
    item->path = sources->file[location->source].path;
    if (item->on_device && d->stages_pages) {
        char *self = xprintf("/proc/self/fd/%d", item->fd);
        item->direct = open(self, O_RDONLY | O_DIRECT | O_CLOEXEC);
        free(self);
    }
    if (item->unseen && item->direct >= 0 && d->open_file)
        item->file = d->open_file(d, item->direct);
    pthread_mutex_lock(&prefetch->mutex);
    struct piece piece = {.item = item, .offset = location->offset, .size = head, .head = true};
    if (head)
        list_piece(prefetch, piece);
    piece.head = false;
    for (; piece.at < all; piece.at += DEVICE_PIECE, piece.offset += DEVICE_PIECE) {
        piece.size = (size_t)at_most(all - piece.at, DEVICE_PIECE);
        if (is_own(prefetch, item, piece.at))
            list_piece(prefetch, piece);
    }
    pthread_cond_broadcast(&prefetch->changed);
    pthread_mutex_unlock(&prefetch->mutex);
}

/* The current tensor's next `size` bytes. */
static void read_here(struct prefetch *prefetch, struct item *item, char *to, size_t size)
{
    pthread_mutex_lock(&prefetch->mutex);
    read_begins(prefetch, item->tensor->name);
    pthread_mutex_unlock(&prefetch->mutex);
    ts_read(prefetch->in, to, size);
    pthread_mutex_lock(&prefetch->mutex);
    read_ends(prefetch, item, 0);
    pthread_mutex_unlock(&prefetch->mutex);
}

/* Read the current tensor, which is inline. After its last byte, the item belongs to its taker. */
static void read_inline(struct prefetch *prefetch, struct item *item)
{
    struct device *d = prefetch->plan.device;
    const uint64_t all = item->tensor->size;
    for (uint64_t at = 0; at < all; at += DEVICE_PIECE) {
        size_t size = (size_t)at_most(all - at, DEVICE_PIECE);
        char *to = item->on_device ? d->acquire_staging(d, item->to.bytes, at, size, 0)
                                   : (char *)item->to.data + at;
        read_here(prefetch, item, to, size);
        look_at(prefetch, item, at, to, size);
        if (item->on_device)
            d->submit_staging(d, item->to.bytes, at, size, to);
        pthread_mutex_lock(&prefetch->mutex);
        item->left -= size;
        pthread_cond_broadcast(&prefetch->changed);
        pthread_mutex_unlock(&prefetch->mutex);
    }
}

/* The rank that has the fewest bytes to read so far; all ranks find the same. */
static unsigned give(struct prefetch *prefetch, uint64_t bytes)
{
    uint64_t *given = prefetch->given;
    unsigned least = 0;
    for (unsigned rank = 1; rank < ranks_count(prefetch->plan.ranks); rank++)
        least = given[rank] < given[least] ? rank : least;
    given[least] += bytes;
    return least;
}

/* Read this rank's pieces of the current tensor, and the head in any case. */
static void read_together(struct prefetch *prefetch, struct item *item,
                          const struct location *location)
{
    const uint64_t all = item->tensor->size;
    item->owner = xalloc((size_t)(all / DEVICE_PIECE) + 1, sizeof *item->owner);
    for (uint64_t at = 0; at < all; at += DEVICE_PIECE)
        item->owner[at / DEVICE_PIECE] = give(prefetch, at_most(all - at, DEVICE_PIECE));
    uint64_t left = head_of(prefetch, item);
    for (uint64_t at = 0; at < all; at += DEVICE_PIECE)
        left += is_own(prefetch, item, at) ? at_most(all - at, DEVICE_PIECE) : 0;
    pthread_mutex_lock(&prefetch->mutex);
    item->left = left;
    *prefetch->last_together = item;
    prefetch->last_together = &item->next_together;
    pthread_mutex_unlock(&prefetch->mutex);
    if (left)
        list_pieces(prefetch, item, location);
}

/* The current tensor's rows are read later. */
static struct ts_held *hold_present(struct prefetch *prefetch, const struct tensor *tensor)
{
    size_t source;
    uint64_t offset;
    if (!ts_ref(prefetch->in, &source, &offset) && tensor->size > ROWS_INLINE_MOST)
        die("%s: %s: rows of its %" PRIu64 " bytes are read by number, and they are inline; give "
            "the checkpoint's folder, or a stream that refers to its files",
            ts_name(prefetch->in), tensor->name, tensor->size);
    prefetch->held = xgrow(prefetch->held, prefetch->holds + 1, sizeof(struct ts_held *));
    return prefetch->held[prefetch->holds++] = ts_hold(prefetch->in);
}

/* Whether rows of a line are read later. */
static bool is_by_rows(const struct prefetch *prefetch, size_t line)
{
    return prefetch->plan.by_rows && prefetch->plan.by_rows[line];
}

/* How many of a line's bytes are read now. */
static uint64_t bytes_of(const struct prefetch *prefetch, const struct tensor *tensor)
{
    size_t line = (size_t)(tensor - ts_toc(prefetch->in)->tensor);
    return is_by_rows(prefetch, line) ? 0 : tensor->size;
}

static void read_present(struct prefetch *prefetch, const struct tensor *tensor, uint64_t batch)
{
    struct item *item = xalloc(1, sizeof *item);
    struct location location;
    bool there = ts_ref(prefetch->in, &location.source, &location.offset);
    size_t line = (size_t)(tensor - ts_toc(prefetch->in)->tensor);
    uint64_t size = bytes_of(prefetch, tensor);
    *item = (struct item){.tensor = tensor, .batch = batch, .left = size, .fd = -1, .direct = -1};
    item->on_device = prefetch->plan.on_device && prefetch->plan.on_device[line];
    item->unseen = item->on_device && prefetch->plan.unseen && prefetch->plan.unseen[line];
    item->together =
        prefetch->plan.gather && item->on_device && tensor->size >= GATHER_LEAST && there;
    if (is_by_rows(prefetch, line))
        item->to.rows = hold_present(prefetch, tensor);
    else if (item->on_device)
        item->to.bytes =
            prefetch->plan.device->make(prefetch->plan.device, DTYPE_U8, 1, tensor->size);
    else
        item->to.data = xgrow(NULL, (size_t)tensor->size, 1);
    pthread_mutex_lock(&prefetch->mutex);
    *prefetch->last = item;
    prefetch->last = &item->next;
    prefetch->waiting += size;
    pthread_mutex_unlock(&prefetch->mutex);
    if (item->together)
        read_together(prefetch, item, &location);
    else if (there && size)
        list_pieces(prefetch, item, &location);
    else if (size) /* an empty one may already be taken */
        read_inline(prefetch, item);
}

/* The lines of a batch, up to `end`, and their bytes. They depend on the table only, since all
 * ranks must make the same; memory, which may differ, decides when a batch begins. */
struct batch {
    uint64_t number, bytes;
    size_t end;
};

/* The next batch, from a line on. Without ranks that share the reading, each tensor is one. */
static struct batch next_batch(const struct prefetch *prefetch, struct batch batch, size_t line)
{
    const struct toc *toc = ts_toc(prefetch->in);
    struct batch next = {batch.number + 1, bytes_of(prefetch, &toc->tensor[line]), line + 1};
    for (; prefetch->plan.gather && next.end < toc->count; next.end++) {
        if (!prefetch->plan.wanted[next.end])
            continue;
        uint64_t more = bytes_of(prefetch, &toc->tensor[next.end]);
        if (next.bytes + more > prefetch->plan.gather->batch)
            break;
        next.bytes += more;
    }
    return next;
}

/* All items of earlier batches are listed. Wait for room in the budget; false if stopped. */
static bool begin_batch(struct prefetch *prefetch, struct batch batch)
{
    pthread_mutex_lock(&prefetch->mutex);
    prefetch->batches = batch.number;
    pthread_cond_broadcast(&prefetch->changed);
    while (!prefetch->stop && prefetch->first &&
           prefetch->waiting + batch.bytes > prefetch->plan.budget)
        pthread_cond_wait(&prefetch->changed, &prefetch->mutex);
    bool stop = prefetch->stop;
    pthread_mutex_unlock(&prefetch->mutex);
    return !stop;
}

static void *read_on(void *context)
{
    struct prefetch *prefetch = context;
    struct batch batch = {0};
    for (const struct tensor *tensor; (tensor = ts_next(prefetch->in));) {
        size_t line = (size_t)(tensor - ts_toc(prefetch->in)->tensor);
        if (!prefetch->plan.wanted[line])
            continue;
        if (line >= batch.end) {
            batch = next_batch(prefetch, batch, line);
            if (!begin_batch(prefetch, batch))
                break;
        }
        read_present(prefetch, tensor, batch.number);
    }
    pthread_mutex_lock(&prefetch->mutex);
    prefetch->batches = UINT64_MAX;
    prefetch->done = true;
    pthread_cond_broadcast(&prefetch->changed);
    pthread_mutex_unlock(&prefetch->mutex);
    return NULL;
}

/* ---- taking ---- */

static void start(pthread_t *thread, void *(*run)(void *), struct prefetch *prefetch)
{
    if (pthread_create(thread, NULL, run, prefetch))
        die("cannot start a thread; are there too many processes?");
}

static uint64_t wanted_bytes(const struct prefetch *prefetch)
{
    const struct toc *toc = ts_toc(prefetch->in);
    uint64_t bytes = 0;
    for (size_t i = 0; i < toc->count; i++)
        bytes += prefetch->plan.wanted[i] ? bytes_of(prefetch, &toc->tensor[i]) : 0;
    return bytes;
}

struct prefetch *prefetch_begin(struct ts_in *in, const struct prefetch_plan *plan)
{
    struct prefetch *prefetch = xalloc(1, sizeof *prefetch);
    prefetch->in = in;
    prefetch->plan = *plan;
    prefetch->given = xalloc(ranks_count(plan->ranks), sizeof *prefetch->given);
    prefetch->progress = ts_take_progress(in, wanted_bytes(prefetch));
    prefetch->last = &prefetch->first;
    prefetch->last_piece = &prefetch->first_piece;
    prefetch->last_together = &prefetch->first_together;
    pthread_mutex_init(&prefetch->mutex, NULL);
    pthread_cond_init(&prefetch->changed, NULL);
    start(&prefetch->lister, read_on, prefetch);
    if (plan->gather)
        start(&prefetch->gatherer, gather_batches, prefetch);
    for (unsigned i = 0; i < READERS; i++)
        start(&prefetch->reader[i], read_pieces, prefetch);
    return prefetch;
}

/* With the mutex held: wait for the first item, with `whole` for all its bytes; NULL at the end. */
static struct item *first_item(struct prefetch *prefetch, bool whole)
{
    double begin = now();
    while (prefetch->first ? whole && (prefetch->first->left || prefetch->first->together)
                           : !prefetch->done)
        pthread_cond_wait(&prefetch->changed, &prefetch->mutex);
    prefetch->time.waiting += now() - begin;
    return prefetch->first;
}

const struct tensor *prefetch_peek(struct prefetch *prefetch)
{
    pthread_mutex_lock(&prefetch->mutex);
    struct item *item = first_item(prefetch, false);
    pthread_mutex_unlock(&prefetch->mutex);
    return item ? item->tensor : NULL;
}

const struct tensor *prefetch_take(struct prefetch *prefetch, struct prefetched *to)
{
    pthread_mutex_lock(&prefetch->mutex);
    struct item *item = first_item(prefetch, true);
    if (item) {
        prefetch->first = item->next;
        if (!prefetch->first)
            prefetch->last = &prefetch->first;
        prefetch->waiting -= bytes_of(prefetch, item->tensor);
        pthread_cond_broadcast(&prefetch->changed);
    }
    pthread_mutex_unlock(&prefetch->mutex);
    if (!item)
        return NULL;
    const struct tensor *tensor = item->tensor;
    *to = item->to;
    free(item);
    progress_add(prefetch->progress, bytes_of(prefetch, tensor),
                 (uint64_t)(tensor - ts_toc(prefetch->in)->tensor));
    return tensor;
}

struct prefetch_time prefetch_time(struct prefetch *prefetch)
{
    pthread_mutex_lock(&prefetch->mutex);
    struct prefetch_time time = prefetch->time;
    if (prefetch->busy)
        time.reading += now() - prefetch->since;
    pthread_mutex_unlock(&prefetch->mutex);
    return time;
}

/* Drop the pieces that no reader has begun. */
static void forget_pieces(struct prefetch *prefetch)
{
    for (struct piece *p; (p = prefetch->first_piece); free(p)) {
        prefetch->first_piece = p->next;
        prefetch->busy++;
        read_ends(prefetch, p->item, p->size);
    }
    prefetch->last_piece = &prefetch->first_piece;
}

void prefetch_end(struct prefetch *prefetch)
{
    pthread_mutex_lock(&prefetch->mutex);
    prefetch->stop = true;
    forget_pieces(prefetch);
    pthread_cond_broadcast(&prefetch->changed);
    pthread_mutex_unlock(&prefetch->mutex);
    pthread_join(prefetch->lister, NULL);
    pthread_mutex_lock(&prefetch->mutex);
    forget_pieces(prefetch); /* queued meanwhile */
    pthread_mutex_unlock(&prefetch->mutex);
    for (unsigned i = 0; i < READERS; i++)
        pthread_join(prefetch->reader[i], NULL);
    if (prefetch->plan.gather)
        pthread_join(prefetch->gatherer, NULL);
    struct prefetched rest;
    while (prefetch_take(prefetch, &rest)) {
        free(rest.data);
        free(rest.head);
        if (rest.bytes.at)
            prefetch->plan.device->drop(prefetch->plan.device, rest.bytes);
    }
    for (size_t i = 0; i < prefetch->holds; i++)
        ts_release(prefetch->held[i]);
    free(prefetch->held);
    free(prefetch->given);
    progress_end(prefetch->progress);
    pthread_mutex_destroy(&prefetch->mutex);
    pthread_cond_destroy(&prefetch->changed);
    free(prefetch);
}
