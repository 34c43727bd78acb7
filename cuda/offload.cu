/* The GPU as a device: matrices that may not fit. Those lie in page-locked memory of the host, and
 * rows of them come and go in a stream of their own, beside the operations: at any time the rows in
 * use, and either those before on their way back or those behind on their way here. */
#include "gpu.cuh"

#include <stdlib.h>
#include <sys/mman.h>

enum { LARGE_PAGE = 2 << 20 };

struct fetches {
    cudaStream_t stream;
    cudaEvent_t came;        /* what was sent for last */
    cudaEvent_t used;        /* what goes back: operations before that are done */
    struct mat sent, coming; /* rows of the host that were sent for, and where to; none: no rows */
};

/* ---- rows ---- */

static void send_for(struct fetches *f, struct mat rows)
{
    size_t bytes = mat_bytes(rows);
    f->sent = f->coming = rows;
    gpu_check(cudaMallocAsync(&f->coming.at, bytes ? bytes : 1, f->stream), "memory for rows");
    gpu_check(cudaMemcpyAsync(f->coming.at, rows.at, bytes, cudaMemcpyHostToDevice, f->stream),
              "fetch");
    gpu_check(cudaEventRecord(f->came, f->stream), "fetch");
}

/* What was sent for, but is not wanted now. */
static void forget(struct fetches *f)
{
    if (f->sent.rows)
        gpu_check(cudaFreeAsync(f->coming.at, f->stream), "memory for rows");
    f->sent.rows = 0;
}

static struct mat fetch(struct device *d, struct offloaded offloaded, uint64_t first, uint64_t rows,
                        uint64_t next)
{
    struct fetches *f = gpu_of(d)->fetches;
    struct mat wanted = mat_rows(offloaded.all, first, rows);
    if (!offloaded.on_host)
        return wanted;
    if (!f->sent.rows || f->sent.at != wanted.at || f->sent.rows != rows) {
        forget(f);
        send_for(f, wanted);
    }
    struct mat came = f->coming;
    f->sent.rows = 0;
    gpu_wait(gpu_of(d), f->came);
    if (next)
        send_for(f, mat_rows(offloaded.all, first + rows, next));
    return came;
}

static void store(struct device *d, struct offloaded offloaded, uint64_t first, struct mat rows)
{
    struct gpu *gpu = gpu_of(d);
    struct fetches *f = gpu->fetches;
    if (!offloaded.on_host)
        return;
    struct mat to = mat_rows(offloaded.all, first, rows.rows);
    gpu_check(cudaEventRecord(f->used, gpu->stream), "store");
    gpu_check(cudaStreamWaitEvent(f->stream, f->used, 0), "store");
    gpu_check(cudaMemcpyAsync(to.at, rows.at, mat_bytes(to), cudaMemcpyDeviceToHost, f->stream),
              "store");
    gpu_check(cudaFreeAsync(rows.at, f->stream), "memory for rows");
}

/* ---- all of it ---- */

/* In large pages, if there are any, since locking takes its time for each. */
static void *page_locked(size_t bytes)
{
    void *memory = aligned_alloc(LARGE_PAGE, (bytes + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE);
    if (memory)
        (void)madvise(memory, bytes, MADV_HUGEPAGE);
    if (!memory || cudaHostRegister(memory, bytes, cudaHostRegisterDefault) != cudaSuccess)
        die("CUDA: what does not fit on the GPU takes %zu bytes of page-locked memory, and they "
            "are not to be had; fewer --samples need less",
            bytes);
    return memory;
}

static struct offloaded make_offloaded(struct device *d, enum dtype dtype, uint64_t rows,
                                       uint64_t cols, uint64_t besides)
{
    uint64_t count, bytes;
    if (!mul_fits(rows, cols, &count) || !mul_fits(count, dtype_size(dtype), &bytes))
        die("out of memory");
    if (besides <= d->room && bytes <= d->room - besides)
        return (struct offloaded){d->make(d, dtype, rows, cols), false};
    return (struct offloaded){{page_locked((size_t)bytes), rows, cols, cols, dtype}, true};
}

static void drop_offloaded(struct device *d, struct offloaded offloaded)
{
    struct fetches *f = gpu_of(d)->fetches;
    if (!offloaded.on_host) {
        d->drop(d, offloaded.all);
        return;
    }
    forget(f);
    gpu_check(cudaStreamSynchronize(f->stream), "store");
    gpu_check(cudaHostUnregister(offloaded.all.at), "page-locked memory");
    free(offloaded.all.at);
}

void gpu_far(struct device *d)
{
    struct fetches *f = (struct fetches *)xalloc(1, sizeof *f);
    gpu_check(cudaStreamCreateWithFlags(&f->stream, cudaStreamNonBlocking), "stream");
    gpu_event(&f->came, cudaEventDisableTiming);
    gpu_event(&f->used, cudaEventDisableTiming);
    gpu_of(d)->fetches = f;
    d->make_offloaded = make_offloaded;
    d->drop_offloaded = drop_offloaded;
    d->fetch = fetch;
    d->store = store;
}

void gpu_far_end(struct gpu *gpu)
{
    struct fetches *f = gpu->fetches;
    gpu_check(cudaEventDestroy(f->came), "end");
    gpu_check(cudaEventDestroy(f->used), "end");
    gpu_check(cudaStreamDestroy(f->stream), "end");
    free(f);
}
