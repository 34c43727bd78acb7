/* The GPU as a device: offloaded matrices. They lie in page-locked host memory. Their rows are
 * copied in a stream of their own, concurrently with operations: while some rows are in use, the
 * previous ones are stored or the next ones fetched. */
#include "gpu.cuh"

#include <stdlib.h>
#include <sys/mman.h>

enum { LARGE_PAGE = 2 << 20 };

struct fetches {
    cudaStream_t stream;
    cudaEvent_t fetched;       /* the last fetch is complete */
    cudaEvent_t computed;      /* operations on the rows to store are complete */
    struct mat source, buffer; /* rows being fetched, on the host and on the GPU; 0 rows: none */
};

/* ---- rows ---- */

static void begin_fetch(struct fetches *f, struct mat rows)
{
    size_t bytes = mat_bytes(rows);
    f->source = f->buffer = rows;
    gpu_check(cudaMallocAsync(&f->buffer.at, bytes ? bytes : 1, f->stream), "memory for rows");
    gpu_check(cudaMemcpyAsync(f->buffer.at, rows.at, bytes, cudaMemcpyHostToDevice, f->stream),
              "fetch");
    gpu_check(cudaEventRecord(f->fetched, f->stream), "fetch");
}

/* Drop fetched rows that are not wanted now. */
static void discard(struct fetches *f)
{
    if (f->source.rows)
        gpu_check(cudaFreeAsync(f->buffer.at, f->stream), "memory for rows");
    f->source.rows = 0;
}

static struct mat fetch(struct device *d, struct offloaded offloaded, uint64_t first, uint64_t rows,
                        uint64_t next)
{
    struct fetches *f = gpu_of(d)->fetches;
    struct mat wanted = mat_rows(offloaded.all, first, rows);
    if (!offloaded.on_host)
        return wanted;
    if (!f->source.rows || f->source.at != wanted.at || f->source.rows != rows) {
        discard(f);
        begin_fetch(f, wanted);
    }
    struct mat result = f->buffer;
    f->source.rows = 0;
    gpu_wait(gpu_of(d), f->fetched);
    if (next)
        begin_fetch(f, mat_rows(offloaded.all, first + rows, next));
    return result;
}

static void store(struct device *d, struct offloaded offloaded, uint64_t first, struct mat rows)
{
    struct gpu *gpu = gpu_of(d);
    struct fetches *f = gpu->fetches;
    if (!offloaded.on_host)
        return;
    struct mat to = mat_rows(offloaded.all, first, rows.rows);
    gpu_check(cudaEventRecord(f->computed, gpu->stream), "store");
    gpu_check(cudaStreamWaitEvent(f->stream, f->computed, 0), "store");
    gpu_check(cudaMemcpyAsync(to.at, rows.at, mat_bytes(to), cudaMemcpyDeviceToHost, f->stream),
              "store");
    gpu_check(cudaFreeAsync(rows.at, f->stream), "memory for rows");
}

/* ---- the matrix ---- */

/* In huge pages if possible, since each page takes time to lock. */
static void *page_locked(size_t bytes)
{
    void *memory = aligned_alloc(LARGE_PAGE, (bytes + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE);
    if (memory)
        (void)madvise(memory, bytes, MADV_HUGEPAGE);
    if (!memory || cudaHostRegister(memory, bytes, cudaHostRegisterDefault) != cudaSuccess)
        die("CUDA: cannot allocate %zu bytes of page-locked memory for what does not fit on the "
            "GPU; fewer --samples need less",
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
    discard(f);
    gpu_check(cudaStreamSynchronize(f->stream), "store");
    gpu_check(cudaHostUnregister(offloaded.all.at), "page-locked memory");
    free(offloaded.all.at);
}

void gpu_offload(struct device *d)
{
    struct fetches *f = (struct fetches *)xalloc(1, sizeof *f);
    gpu_check(cudaStreamCreateWithFlags(&f->stream, cudaStreamNonBlocking), "stream");
    gpu_event(&f->fetched, cudaEventDisableTiming);
    gpu_event(&f->computed, cudaEventDisableTiming);
    gpu_of(d)->fetches = f;
    d->make_offloaded = make_offloaded;
    d->drop_offloaded = drop_offloaded;
    d->fetch = fetch;
    d->store = store;
}

void gpu_offload_end(struct gpu *gpu)
{
    struct fetches *f = gpu->fetches;
    gpu_check(cudaEventDestroy(f->fetched), "end");
    gpu_check(cudaEventDestroy(f->computed), "end");
    gpu_check(cudaStreamDestroy(f->stream), "end");
    free(f);
}
