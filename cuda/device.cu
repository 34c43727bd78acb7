/* The GPU as a device: memory, and the device itself. */
#include "gpu.cuh"

#include <stdlib.h>

#include "cublaslt.h"

void gpu_check(cudaError_t status, const char *what)
{
    if (status == cudaErrorMemoryAllocation)
        die("CUDA: %s: out of GPU memory; a smaller --batch or --mem, or fewer --samples, need "
            "less",
            what);
    if (status != cudaSuccess)
        die("CUDA: %s: %s", what, cudaGetErrorString(status));
}

void gpu_event(cudaEvent_t *event, unsigned flags)
{
    gpu_check(cudaEventCreateWithFlags(event, flags), "event");
}

void gpu_allow_shared(const void *kernel, size_t bytes)
{
    gpu_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
              "shared memory");
}

/* ---- memory ---- */

void *gpu_alloc(struct gpu *gpu, uint64_t count, uint64_t size)
{
    uint64_t bytes;
    void *memory = NULL;
    if (!mul_fits(count, size, &bytes))
        die("out of memory");
    gpu_check(cudaMallocAsync(&memory, bytes ? bytes : 1, gpu->stream), "memory");
    return memory;
}

void gpu_free(struct gpu *gpu, void *memory)
{
    if (memory)
        gpu_check(cudaFreeAsync(memory, gpu->stream), "memory");
}

static struct mat make(struct device *d, enum dtype dtype, uint64_t rows, uint64_t cols)
{
    uint64_t count;
    if (!mul_fits(rows, cols, &count))
        die("out of memory");
    struct gpu *gpu = gpu_of(d);
    struct mat m = {NULL, rows, cols, cols, dtype};
    m.at =
        dtype == DTYPE_U8 ? gpu_alloc_upload(gpu, count) : gpu_alloc(gpu, count, dtype_size(dtype));
    return m;
}

static void drop(struct device *d, struct mat m)
{
    (m.dtype == DTYPE_U8 ? gpu_free_upload : gpu_free)(gpu_of(d), m.at);
}

static void write_mat(struct device *d, struct mat m, const void *data)
{
    (m.dtype == DTYPE_U8 ? gpu_upload : gpu_write)(gpu_of(d), m.at, data, mat_bytes(m));
}

static void read_mat(struct device *d, void *data, struct mat m)
{
    cudaStream_t stream = gpu_of(d)->stream;
    if (m.dtype == DTYPE_U8)
        gpu_wait_uploads(gpu_of(d), m.at, NULL);
    gpu_check(cudaMemcpyAsync(data, m.at, mat_bytes(m), cudaMemcpyDeviceToHost, stream), "read");
    gpu_check(cudaStreamSynchronize(stream), "read");
}

/* ---- the device ---- */

void gpu_reserve(struct device *device, unsigned multiprocessors)
{
    struct gpu *gpu = gpu_of(device);
    gpu->processors = max(gpu->processors - (int)multiprocessors, 1);
    gpu->shares = true;
}

static void close_gpu(struct device *d)
{
    struct gpu *gpu = gpu_of(d);
    gpu_check(cudaStreamSynchronize(gpu->stream), "end");
    gpu_products_end(gpu);
    gpu_uploads_end(gpu);
    gpu_offload_end(gpu);
    gpu_streams_end(gpu);
    free(gpu);
}

/* The process keeps freed memory, and uploads never wait for memory that operations are yet to
 * free. */
static void keep_memory(int gpu)
{
    cudaMemPool_t pool;
    uint64_t all = UINT64_MAX;
    int no = 0;
    gpu_check(cudaDeviceGetDefaultMemPool(&pool, gpu), "memory pool");
    gpu_check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &all), "memory pool");
    gpu_check(cudaMemPoolSetAttribute(pool, cudaMemPoolReuseAllowInternalDependencies, &no),
              "memory pool");
}

/* A third of free memory is for weights, a third for hidden states. */
static uint64_t memory_for_weights(void)
{
    size_t free, total;
    gpu_check(cudaMemGetInfo(&free, &total), "memory");
    return free / 3;
}

/* The driver sends the work of all streams through eight queues, unless it is told otherwise before
 * its first call. There are more streams here: those of device.h, uploads, exchanges, and two for
 * offloaded rows. If two share a queue, work of one comes only after what the other waits for. */
static void a_queue_for_each_stream(void)
{
    setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", false);
}

extern "C" struct device *device_cuda(unsigned gpu_number, const char **why)
{
    int count = 0;
    a_queue_for_each_stream();
    cudaError_t status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess || !count) {
        *why = xprintf("no GPU or no driver on this machine (%s); --device cpu needs none",
                       status != cudaSuccess ? cudaGetErrorString(status) : "none was found");
        return NULL; /* *why is never freed */
    }
    if (gpu_number >= (unsigned)count) {
        *why = "there are fewer GPUs on this machine than ranks";
        return NULL;
    }
    char *missing;
    if (!cublaslt_load(&missing)) {
        *why = missing; /* never freed */
        return NULL;
    }
    struct gpu *gpu = (struct gpu *)xalloc(1, sizeof *gpu);
    gpu->number = (int)gpu_number;
    gpu_check(cudaSetDevice(gpu->number), "device");
    keep_memory(gpu->number);
    gpu_check(cudaDeviceGetAttribute(&gpu->processors, cudaDevAttrMultiProcessorCount, gpu->number),
              "device");
    struct device *d = &gpu->device;
    d->name = "cuda";
    d->memory = memory_for_weights();
    d->room = 2 * d->memory;
    d->rows = 8192;
    d->close = close_gpu;
    d->make = make;
    d->drop = drop;
    d->write = write_mat;
    d->read = read_mat;
    gpu_streams(d);
    gpu_uploads(d);
    gpu_offload(d);
    gpu_weights(d);
    gpu_products(d);
    gpu_rows(d);
    gpu_copies(d);
    gpu_attention(d);
    gpu_causal(d);
    gpu_inputs(d);
    gpu_experts(d);
    return d;
}
