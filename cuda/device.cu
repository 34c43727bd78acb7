/* The GPU as a device: memory, and the device itself. */
#include "gpu.cuh"

#include <stdlib.h>

#include "cublaslt.h"

void gpu_check(cudaError_t status, const char *what)
{
    if (status == cudaErrorMemoryAllocation)
        die("CUDA: %s: out of GPU memory; a smaller --batch or --mem, or fewer --samples, need less",
            what);
    if (status != cudaSuccess)
        die("CUDA: %s: %s", what, cudaGetErrorString(status));
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
    struct mat m = {gpu_alloc(gpu_of(d), count, dtype_size(dtype)), rows, cols, cols, dtype};
    return m;
}

static void drop(struct device *d, struct mat m)
{
    gpu_free(gpu_of(d), m.at);
}

static size_t bytes_of(struct mat m)
{
    if (m.rows > 1 && m.stride != m.cols)
        die("internal: a matrix with gaps");
    return (size_t)(m.rows * m.cols) * dtype_size(m.dtype);
}

/* The driver copies pageable memory away before it returns. */
static void write_mat(struct device *d, struct mat m, const void *data)
{
    gpu_check(
        cudaMemcpyAsync(m.at, data, bytes_of(m), cudaMemcpyHostToDevice, gpu_of(d)->stream),
        "write");
}

static void read_mat(struct device *d, void *data, struct mat m)
{
    cudaStream_t stream = gpu_of(d)->stream;
    gpu_check(cudaMemcpyAsync(data, m.at, bytes_of(m), cudaMemcpyDeviceToHost, stream), "read");
    gpu_check(cudaStreamSynchronize(stream), "read");
}

/* ---- the device ---- */

static void close_gpu(struct device *d)
{
    struct gpu *gpu = gpu_of(d);
    gpu_check(cudaStreamSynchronize(gpu->stream), "end");
    gpu_products_end(gpu);
    gpu_check(cudaStreamDestroy(gpu->stream), "end");
    free(gpu);
}

/* Memory that was given back stays with the process. */
static void keep_memory(void)
{
    int device;
    cudaMemPool_t pool;
    uint64_t all = UINT64_MAX;
    gpu_check(cudaGetDevice(&device), "device");
    gpu_check(cudaDeviceGetDefaultMemPool(&pool, device), "memory pool");
    gpu_check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &all), "memory pool");
}

extern "C" struct device *device_cuda(unsigned gpu_number, const char **why)
{
    int count = 0;
    cudaError_t status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess || !count) {
        *why = status != cudaSuccess ? cudaGetErrorString(status) : "there is no GPU";
        return NULL;
    }
    if (gpu_number >= (unsigned)count) {
        *why = "there are fewer GPUs on this machine than ranks";
        return NULL;
    }
    char *missing;
    if (!cublaslt_load(&missing)) {
        *why = missing; /* for good */
        return NULL;
    }
    struct gpu *gpu = (struct gpu *)xalloc(1, sizeof *gpu);
    gpu_check(cudaStreamCreateWithFlags(&gpu->stream, cudaStreamNonBlocking), "stream");
    keep_memory();
    struct device *d = &gpu->device;
    d->name = "cuda";
    d->close = close_gpu;
    d->make = make;
    d->drop = drop;
    d->write = write_mat;
    d->read = read_mat;
    gpu_weights(d);
    gpu_products(d);
    gpu_rows(d);
    gpu_copies(d);
    gpu_attention(d);
    gpu_experts(d);
    return d;
}
