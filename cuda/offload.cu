/* The GPU as a device: offloaded matrices. They lie in page-locked host memory. Their rows are
 * copied in two streams, one for each direction, since a GPU copies both ways at a time, while
 * operations use the rows fetched before. Rows lie in windows; a window whose rows are stored
 * serves the next rows that are fetched, the oldest first. So as many rows as were in use and
 * fetched ahead at most stay allocated, and a fetch waits for one store only. */
#include "gpu.cuh"

#include <stdlib.h>

extern "C" {
#include "page_locked.h"
}

struct window {
    struct window *next;
    void *memory;
    size_t bytes;
    struct mat rows; /* on the host, that it holds or held; 0 rows: none */
    cudaEvent_t fetched, stored;
};

/* First in, first out. */
struct windows {
    struct window *first, **last;
};

/* The matrix itself. */
struct host_matrix {
    struct host_matrix *next;
    struct page_locked *locked;
};

struct fetches {
    cudaStream_t in, out;
    cudaEvent_t computed;                 /* operations on the rows to store are complete */
    struct windows ahead, in_use, stored; /* stored, or being stored, or used by nobody */
    struct host_matrix *matrices;
};

/* ---- windows ---- */

static void put(struct windows *windows, struct window *w)
{
    w->next = NULL;
    *windows->last = w;
    windows->last = &w->next;
}

/* Take the window that `link` points to out of its list. */
static struct window *take(struct windows *windows, struct window **link)
{
    struct window *w = *link;
    *link = w->next;
    if (windows->last == &w->next)
        windows->last = link;
    return w;
}

static struct window *new_window(void)
{
    struct window *w = (struct window *)xalloc(1, sizeof *w);
    gpu_event(&w->fetched, cudaEventDisableTiming);
    gpu_event(&w->stored, cudaEventDisableTiming);
    return w;
}

/* A window that holds at least `bytes`, and is free once the stream of fetches gets there. */
static struct window *window_for(struct fetches *f, size_t bytes)
{
    struct window *w = f->stored.first ? take(&f->stored, &f->stored.first) : new_window();
    gpu_check(cudaStreamWaitEvent(f->in, w->stored, 0), "fetch");
    if (w->memory && w->bytes >= bytes)
        return w;
    if (w->memory)
        gpu_check(cudaFreeAsync(w->memory, f->in), "memory for rows");
    gpu_check(cudaMallocAsync(&w->memory, bytes, f->in), "memory for rows");
    w->bytes = bytes;
    return w;
}

static void free_windows(struct fetches *f, struct windows *windows)
{
    while (windows->first) {
        struct window *w = take(windows, &windows->first);
        gpu_check(cudaFreeAsync(w->memory, f->in), "memory for rows");
        gpu_check(cudaEventDestroy(w->fetched), "end");
        gpu_check(cudaEventDestroy(w->stored), "end");
        free(w);
    }
}

static bool overlap(struct mat a, struct mat b)
{
    const char *x = (const char *)a.at, *y = (const char *)b.at;
    return a.rows && b.rows && x < y + mat_bytes(b) && y < x + mat_bytes(a);
}

/* ---- copies ---- */

static struct page_locked *locked_of(struct fetches *f, struct offloaded offloaded)
{
    struct host_matrix *m = f->matrices;
    while (m && page_locked_memory(m->locked) != offloaded.all.at)
        m = m->next;
    if (!m)
        die("internal: a matrix that is not offloaded");
    return m->locked;
}

/* Copy rows in a stream, to or from where they lie on the host. */
static void copy_rows(struct page_locked *locked, void *to, const void *from, struct mat rows,
                      cudaStream_t stream)
{
    size_t bytes = mat_bytes(rows), size;
    for (size_t at = 0; at < bytes; at += size) {
        size = (size_t)at_most(page_locked_wait(locked, (char *)rows.at + at), bytes - at);
        gpu_check(cudaMemcpyAsync((char *)to + at, (const char *)from + at, size, cudaMemcpyDefault,
                                  stream),
                  "rows");
    }
}

/* The rows must not be in use. Of earlier stores, the last one of some of these rows is waited for:
 * they are complete in the order of their calls. */
static struct window *begin_fetch(struct fetches *f, struct offloaded offloaded, struct mat rows)
{
    struct window *w = window_for(f, mat_bytes(rows)), *last = NULL;
    for (struct window *used = f->in_use.first; used; used = used->next)
        if (overlap(used->rows, rows))
            die("internal: rows are fetched that are in use");
    for (struct window *stored = f->stored.first; stored; stored = stored->next)
        if (overlap(stored->rows, rows))
            last = stored;
    if (last)
        gpu_check(cudaStreamWaitEvent(f->in, last->stored, 0), "fetch");
    copy_rows(locked_of(f, offloaded), w->memory, rows.at, rows, f->in);
    gpu_check(cudaEventRecord(w->fetched, f->in), "fetch");
    w->rows = rows;
    return w;
}

/* ---- the operations ---- */

static bool is_of(const struct window *w, struct mat rows)
{
    return w && w->rows.at == rows.at && w->rows.rows == rows.rows;
}

/* Forget the rows that were fetched ahead. */
static void forget(struct fetches *f)
{
    while (f->ahead.first) {
        struct window *w = take(&f->ahead, &f->ahead.first);
        gpu_check(cudaEventRecord(w->stored, f->in), "fetch");
        w->rows.rows = 0;
        put(&f->stored, w);
    }
}

static void fetch_ahead(struct device *d, struct offloaded offloaded, uint64_t first, uint64_t rows)
{
    struct fetches *f = gpu_of(d)->fetches;
    struct mat wanted = mat_rows(offloaded.all, first, rows);
    if (!offloaded.on_host || !rows)
        return;
    for (struct window *w = f->ahead.first; w; w = w->next)
        if (is_of(w, wanted))
            return;
    put(&f->ahead, begin_fetch(f, offloaded, wanted));
}

static struct mat fetch(struct device *d, struct offloaded offloaded, uint64_t first, uint64_t rows)
{
    struct fetches *f = gpu_of(d)->fetches;
    struct mat wanted = mat_rows(offloaded.all, first, rows);
    struct window *w;
    if (!offloaded.on_host || !rows)
        return wanted;
    if (is_of(f->ahead.first, wanted)) {
        w = take(&f->ahead, &f->ahead.first);
    } else {
        forget(f);
        w = begin_fetch(f, offloaded, wanted);
    }
    put(&f->in_use, w);
    gpu_wait(gpu_of(d), w->fetched);
    wanted.at = w->memory;
    return wanted;
}

static void store(struct device *d, struct offloaded offloaded, uint64_t first, struct mat rows)
{
    struct gpu *gpu = gpu_of(d);
    struct fetches *f = gpu->fetches;
    if (!offloaded.on_host || !rows.rows)
        return;
    struct mat to = mat_rows(offloaded.all, first, rows.rows);
    struct window **link = &f->in_use.first;
    while (*link && !is_of(*link, to))
        link = &(*link)->next;
    if (!*link || (*link)->memory != rows.at)
        die("internal: rows are stored that were not fetched");
    struct window *w = take(&f->in_use, link);
    gpu_check(cudaEventRecord(f->computed, gpu->stream), "store");
    gpu_check(cudaStreamWaitEvent(f->out, f->computed, 0), "store");
    copy_rows(locked_of(f, offloaded), to.at, w->memory, to, f->out);
    gpu_check(cudaEventRecord(w->stored, f->out), "store");
    put(&f->stored, w);
}

/* ---- the matrix ---- */

static struct offloaded make_offloaded(struct device *d, enum dtype dtype, uint64_t rows,
                                       uint64_t cols, uint64_t besides)
{
    struct gpu *gpu = gpu_of(d);
    uint64_t count, bytes;
    if (!mul_fits(rows, cols, &count) || !mul_fits(count, dtype_size(dtype), &bytes))
        die("out of memory");
    if (besides <= d->room && bytes <= d->room - besides)
        return (struct offloaded){d->make(d, dtype, rows, cols), false};
    struct host_matrix *m = (struct host_matrix *)xalloc(1, sizeof *m);
    *m =
        (struct host_matrix){gpu->fetches->matrices, page_locked_begin((size_t)bytes, gpu->number)};
    gpu->fetches->matrices = m;
    return (struct offloaded){{page_locked_memory(m->locked), rows, cols, cols, dtype}, true};
}

static void drop_offloaded(struct device *d, struct offloaded offloaded)
{
    struct fetches *f = gpu_of(d)->fetches;
    if (!offloaded.on_host) {
        d->drop(d, offloaded.all);
        return;
    }
    forget(f);
    gpu_check(cudaStreamSynchronize(f->out), "store");
    free_windows(f, &f->stored);
    gpu_check(cudaStreamSynchronize(f->in), "fetch");
    struct host_matrix **link = &f->matrices;
    while ((*link)->locked != locked_of(f, offloaded))
        link = &(*link)->next;
    struct host_matrix *m = *link;
    *link = m->next;
    page_locked_end(m->locked);
    free(m);
}

void gpu_offload(struct device *d)
{
    struct fetches *f = (struct fetches *)xalloc(1, sizeof *f);
    gpu_check(cudaStreamCreateWithFlags(&f->in, cudaStreamNonBlocking), "stream");
    gpu_check(cudaStreamCreateWithFlags(&f->out, cudaStreamNonBlocking), "stream");
    gpu_event(&f->computed, cudaEventDisableTiming);
    f->ahead.last = &f->ahead.first;
    f->in_use.last = &f->in_use.first;
    f->stored.last = &f->stored.first;
    gpu_of(d)->fetches = f;
    d->make_offloaded = make_offloaded;
    d->drop_offloaded = drop_offloaded;
    d->fetch = fetch;
    d->fetch_ahead = fetch_ahead;
    d->store = store;
}

void gpu_offload_end(struct gpu *gpu)
{
    struct fetches *f = gpu->fetches;
    gpu_check(cudaEventDestroy(f->computed), "end");
    gpu_check(cudaStreamDestroy(f->in), "end");
    gpu_check(cudaStreamDestroy(f->out), "end");
    free(f);
}
