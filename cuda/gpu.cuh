/* gpu.cuh: internals that the files of the CUDA device share.
 *
 * Operations are queued on a CUDA stream for each of the device's streams, which keeps their order.
 * Memory is allocated and freed in stream order, too, so freed memory may serve the next operation.
 * Weights are uploaded concurrently in a stream of their own (uploads.cu). One thread block
 * computes a row, with eight columns per thread, and sums in an order that depends only on the
 * number of columns. */
#ifndef GPU_CUH
#define GPU_CUH

#include <cublasLt.h>
#include <cuda_runtime.h>

#define _Noreturn __attribute__((noreturn)) /* a C keyword that C++ lacks */
extern "C" {
#include "base/die.h"
#include "forward/device.h"
#include "operand.h"
#include "uploads.h"
}
#undef _Noreturn

#include "codec.cuh"

struct gpu {
    struct device device; /* first: a struct device * is a struct gpu *, too */
    int number;
    unsigned stream_number; /* the current one, see device.h, stream() */
    cudaStream_t stream;    /* its CUDA stream */
    struct streams *streams;
    struct products *products;
    struct uploads *uploads;
    struct fetches *fetches;
};

static inline struct gpu *gpu_of(struct device *d)
{
    return (struct gpu *)d;
}

/* End the process if a call failed or a kernel did not start; `what` names it. */
void gpu_check(cudaError_t status, const char *what);

/* Create an event with CUDA's flags. */
void gpu_event(cudaEvent_t *event, unsigned flags);

/* Allow a kernel `bytes` of dynamic shared memory. */
void gpu_allow_shared(const void *kernel, size_t bytes);

/* Operations between these keep the order of their calls across streams. */
void gpu_ordered_begin(struct gpu *gpu);
void gpu_ordered_end(struct gpu *gpu);

/* Memory in the current stream's order. */
void *gpu_alloc(struct gpu *gpu, uint64_t count, uint64_t size);
void gpu_free(struct gpu *gpu, void *memory);

/* The same for bytes uploaded in the upload stream. Before they are used, gpu_wait_uploads() makes
 * the current stream wait until the matrices at up to two addresses (or NULL) have theirs, whether
 * submitted (see device.h), uploaded here, or from other GPUs (see uploads.h). gpu_free_upload()
 * waits, too: an upload in flight would otherwise overwrite the memory's next owner. */
void *gpu_alloc_upload(struct gpu *gpu, uint64_t bytes);
void gpu_free_upload(struct gpu *gpu, void *memory);
void gpu_upload(struct gpu *gpu, void *to, const void *data, uint64_t bytes);
void gpu_wait_uploads(struct gpu *gpu, const void *at, const void *other);

/* Make the current stream wait for an event, and count the time as waiting (see device.h,
 * spent()). */
void gpu_wait(struct gpu *gpu, cudaEvent_t event);

/* Copy bytes from host memory, which the caller may reuse at once, in the current stream's
 * order. */
void gpu_write(struct gpu *gpu, void *to, const void *data, uint64_t bytes);

/* Set a file's operations in the table. */
void gpu_weights(struct device *d);   /* weights.cu */
void gpu_rows(struct device *d);      /* rows.cu */
void gpu_copies(struct device *d);    /* copies.cu */
void gpu_attention(struct device *d); /* attention.cu */
void gpu_causal(struct device *d);    /* causal.cu */
void gpu_experts(struct device *d);   /* experts.cu */
void gpu_inputs(struct device *d);    /* inputs.cu */

/* attend() of device.h for what sm_90a's own instructions compute; false, and nothing done, for
 * other GPUs or widths. attention_hopper.cu. */
bool gpu_attend_hopper(struct gpu *gpu, struct mat o, struct mat q, const struct keys *keys,
                       struct mat sink, float scale, const struct attended *then);

/* The same for files that have state: streams.cu, products.cu, uploads.cu, offload.cu. Streams
 * begin first and end last, with stream 0 selected. */
void gpu_streams(struct device *d);
void gpu_streams_end(struct gpu *gpu);
void gpu_products(struct device *d);
void gpu_products_end(struct gpu *gpu);
void gpu_uploads(struct device *d);
void gpu_uploads_end(struct gpu *gpu);
void gpu_offload(struct device *d);
void gpu_offload_end(struct gpu *gpu);

/* ---- in kernels ---- */

enum { WARP = 32, EIGHT = 8, THREADS_MOST = 256, WARPS_MOST = THREADS_MOST / WARP };

/* Threads for a row of `cols` columns. */
static inline unsigned threads_for(uint64_t cols)
{
    uint64_t threads = (cols + EIGHT * WARP - 1) / (EIGHT * WARP) * WARP;
    return threads < WARP           ? (unsigned)WARP
           : threads > THREADS_MOST ? (unsigned)THREADS_MOST
                                    : (unsigned)threads;
}

/* Start a kernel with one thread block for each of `rows` rows, if any. */
#define EACH_ROW(gpu, kernel, rows, threads, ...)                                                  \
    do {                                                                                           \
        if ((rows) > 0) {                                                                          \
            kernel<<<(unsigned)(rows), (threads), 0, (gpu)->stream>>>(__VA_ARGS__);                \
            gpu_check(cudaGetLastError(), #kernel);                                                \
        }                                                                                          \
    } while (0)

static __device__ inline uint16_t *bf16_row(const struct mat &m, uint64_t i)
{
    return (uint16_t *)m.at + i * m.stride;
}

static __device__ inline float *f32_row(const struct mat &m, uint64_t i)
{
    return (float *)m.at + i * m.stride;
}

static __device__ inline int32_t *i32_row(const struct mat &m, uint64_t i)
{
    return (int32_t *)m.at + i * m.stride;
}

static __device__ inline bool aligned(const void *p)
{
    return ((uintptr_t)p & 15) == 0;
}

/* The codes of eight columns, two per word, the first in the lower half. */
struct eight {
    uint32_t pair[EIGHT / 2];
};

static __device__ inline uint16_t code_of(const struct eight &x, unsigned i)
{
    return (uint16_t)(x.pair[i / 2] >> 16 * (i % 2));
}

static __device__ inline void put_code(struct eight &x, unsigned i, uint16_t code)
{
    x.pair[i / 2] = i % 2 ? x.pair[i / 2] | (uint32_t)code << 16 : code; /* in ascending order */
}

/* Up to eight of the `left` codes from there on; 0 for those beyond. */
static __device__ inline struct eight load_codes(const uint16_t *from, uint64_t left)
{
    struct eight x;
    if (left >= EIGHT && aligned(from)) {
        uint4 all = *(const uint4 *)from;
        memcpy(&x, &all, sizeof x);
    } else {
#pragma unroll
        for (unsigned i = 0; i < EIGHT; i++)
            put_code(x, i, i < left ? from[i] : 0);
    }
    return x;
}

static __device__ inline void store_codes(uint16_t *to, const struct eight &x, uint64_t left)
{
    if (left >= EIGHT && aligned(to)) {
        uint4 all;
        memcpy(&all, &x, sizeof all);
        *(uint4 *)to = all;
    } else {
#pragma unroll
        for (unsigned i = 0; i < EIGHT; i++)
            if (i < left)
                to[i] = code_of(x, i);
    }
}

/* The same as values, from and to BF16. */
static __device__ inline void load8(float *x, const uint16_t *from, uint64_t left)
{
    struct eight codes = load_codes(from, left);
#pragma unroll
    for (unsigned i = 0; i < EIGHT; i++)
        x[i] = bf16_to_f32(code_of(codes, i));
}

static __device__ inline void store8(uint16_t *to, const float *x, uint64_t left)
{
    struct eight codes;
#pragma unroll
    for (unsigned i = 0; i < EIGHT; i += 2)
        codes.pair[i / 2] = bf16_pair(x[i], x[i + 1]);
    store_codes(to, codes, left);
}

/* From and to F32. */
static __device__ inline void load8(float *x, const float *from, uint64_t left)
{
    if (left >= EIGHT && aligned(from)) {
        float4 low = ((const float4 *)from)[0], high = ((const float4 *)from)[1];
        memcpy(x, &low, sizeof low);
        memcpy(x + 4, &high, sizeof high);
    } else {
#pragma unroll
        for (unsigned i = 0; i < EIGHT; i++)
            x[i] = i < left ? from[i] : 0;
    }
}

static __device__ inline void store8(float *to, const float *x, uint64_t left)
{
    if (left >= EIGHT && aligned(to)) {
        float4 low, high;
        memcpy(&low, x, sizeof low);
        memcpy(&high, x + 4, sizeof high);
        ((float4 *)to)[0] = low;
        ((float4 *)to)[1] = high;
    } else {
#pragma unroll
        for (unsigned i = 0; i < EIGHT; i++)
            if (i < left)
                to[i] = x[i];
    }
}

/* A thread's columns of a row: j, and `left` from there to the end. */
#define EACH_EIGHT(j, cols)                                                                        \
    for (uint64_t j = (uint64_t)threadIdx.x * EIGHT; j < (cols); j += (uint64_t)blockDim.x * EIGHT)

static __device__ inline float warp_sum(float x)
{
    for (int step = WARP / 2; step; step /= 2)
        x += __shfl_xor_sync(~0U, x, step);
    return x;
}

static __device__ inline float warp_max(float x)
{
    for (int step = WARP / 2; step; step /= 2)
        x = fmaxf(x, __shfl_xor_sync(~0U, x, step));
    return x;
}

static __device__ inline uint32_t warp_max(uint32_t x)
{
    return __reduce_max_sync(~0U, x);
}

/* The sum and the maximum over all threads of the block; every thread gets them. */
static __device__ inline float block_sum(float x)
{
    __shared__ float part[WARPS_MOST];
    x = warp_sum(x);
    __syncthreads(); /* the previous sum has been read */
    if (threadIdx.x % WARP == 0)
        part[threadIdx.x / WARP] = x;
    __syncthreads();
    float sum = 0;
    for (unsigned i = 0; i < blockDim.x / WARP; i++)
        sum += part[i];
    return sum;
}

static __device__ inline float block_max(float x)
{
    __shared__ float part[WARPS_MOST];
    x = warp_max(x);
    __syncthreads();
    if (threadIdx.x % WARP == 0)
        part[threadIdx.x / WARP] = x;
    __syncthreads();
    float most = part[0];
    for (unsigned i = 1; i < blockDim.x / WARP; i++)
        most = fmaxf(most, part[i]);
    return most;
}

/* *to = the largest of itself and all threads' magnitudes, as bits: NaN is above infinity, infinity
 * above all numbers. */
static __device__ inline void keep_most(uint32_t *to, uint32_t magnitude)
{
    magnitude = warp_max(magnitude);
    if (threadIdx.x % WARP == 0 && magnitude > *to)
        atomicMax(to, magnitude);
}

/* Where an operation's `seen` is kept; NULL: nowhere. */
static inline uint32_t *magnitude_of(const struct mat &seen)
{
    return seen.rows ? (uint32_t *)seen.at : NULL;
}

/* Per half word, the largest magnitude; and the F32 bits of the larger half. */
static __device__ inline uint32_t most_of(uint32_t most, const struct eight &x)
{
#pragma unroll
    for (unsigned i = 0; i < EIGHT / 2; i++)
        most = __vmaxu2(most, x.pair[i] & 0x7fff7fff);
    return most;
}

static __device__ inline uint32_t larger_of(uint32_t most)
{
    return max(most << 16, most & 0xffff0000);
}

/* ---- asynchronous copies to shared memory ---- */

static __device__ inline uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* Copy sixteen bytes, or zeros unless `there`; `from` must be a valid address either way. */
static __device__ inline void copy_async(void *to, const void *from, bool there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)),
                 "l"(from), "r"(there ? 16 : 0)
                 : "memory");
}

/* Copies begun since the last commit form a group. */
static __device__ inline void copy_commit(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Wait until at most GROUPS of this thread's groups are in flight, or none. */
template <int GROUPS> static __device__ inline void copy_wait_but(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
}

static __device__ inline void copy_wait(void)
{
    copy_wait_but<0>();
}

static __device__ inline float sigmoid(float x)
{
    return 1 / (1 + expf(-x));
}

#endif
