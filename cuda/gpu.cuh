/* gpu.cuh: what the files of the CUDA device share (cuda/); nobody else looks here.
 *
 * Everything goes into one stream, so that operations are carried out in the order in which they
 * are called, and memory is the stream's as well: given back, it may serve what is called next.
 * One block of threads does a row, with eight columns a thread, and adds up in an order that
 * depends on nothing but the number of columns. */
#ifndef GPU_CUH
#define GPU_CUH

#include <cublasLt.h>
#include <cuda_runtime.h>

#define _Noreturn __attribute__((noreturn)) /* C's word, which C++ does not know */
extern "C" {
#include "device.h"
#include "die.h"
#include "operand.h"
}
#undef _Noreturn

#include "codec.cuh"

struct gpu {
    struct device device; /* first: a struct device * is a struct gpu *, too */
    cudaStream_t stream;
    struct products *products;
};

static inline struct gpu *gpu_of(struct device *d)
{
    return (struct gpu *)d;
}

/* End the process if a call failed, or a kernel could not be started; `what` names it. */
void gpu_check(cudaError_t status, const char *what);

/* Memory in the order of the stream. */
void *gpu_alloc(struct gpu *gpu, uint64_t count, uint64_t size);
void gpu_free(struct gpu *gpu, void *memory);

/* Put the operations of a file into the table. */
void gpu_weights(struct device *d);   /* weights.cu */
void gpu_rows(struct device *d);      /* rows.cu */
void gpu_copies(struct device *d);    /* copies.cu */
void gpu_attention(struct device *d); /* attention.cu */
void gpu_experts(struct device *d);   /* experts.cu */

/* products.cu, which also keeps what cuBLASLt needs. */
void gpu_products(struct device *d);
void gpu_products_end(struct gpu *gpu);

/* ---- in kernels ---- */

enum { WARP = 32, EIGHT = 8, THREADS_MOST = 256, WARPS_MOST = THREADS_MOST / WARP };

/* How many threads a row of that many columns takes. */
static inline unsigned threads_for(uint64_t cols)
{
    uint64_t threads = (cols + EIGHT * WARP - 1) / (EIGHT * WARP) * WARP;
    return threads < WARP ? (unsigned)WARP : threads > THREADS_MOST ? (unsigned)THREADS_MOST
                                                                    : (unsigned)threads;
}

/* Start a kernel with one block of threads for each of `rows` rows, if there are any. */
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

/* The codes of up to eight columns, `left` of them or more there; 0 for those beyond. */
struct eight {
    uint16_t code[EIGHT];
};

static __device__ inline struct eight load_codes(const uint16_t *from, uint64_t left)
{
    struct eight x;
    if (left >= EIGHT && aligned(from)) {
        uint4 all = *(const uint4 *)from;
        memcpy(&x, &all, sizeof x);
    } else {
#pragma unroll
        for (unsigned i = 0; i < EIGHT; i++)
            x.code[i] = i < left ? from[i] : 0;
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
                to[i] = x.code[i];
    }
}

/* The same as values, from and to BF16. */
static __device__ inline void load8(float *x, const uint16_t *from, uint64_t left)
{
    struct eight codes = load_codes(from, left);
#pragma unroll
    for (unsigned i = 0; i < EIGHT; i++)
        x[i] = bf16_to_f32(codes.code[i]);
}

static __device__ inline void store8(uint16_t *to, const float *x, uint64_t left)
{
    struct eight codes;
#pragma unroll
    for (unsigned i = 0; i < EIGHT; i++)
        codes.code[i] = bf16_from_f32(x[i]);
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

/* The sum and the largest over all threads of the block, which all of them get. */
static __device__ inline float block_sum(float x)
{
    __shared__ float part[WARPS_MOST];
    x = warp_sum(x);
    __syncthreads(); /* the sum before this one is out of the way */
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

/* *to = the larger of itself and all threads' magnitudes, given as bits: NaN is above infinity,
 * infinity above all numbers. */
static __device__ inline void keep_most(uint32_t *to, uint32_t magnitude)
{
    magnitude = warp_max(magnitude);
    if (threadIdx.x % WARP == 0 && magnitude > *to)
        atomicMax(to, magnitude);
}

/* The largest magnitude among eight, as F32's bits. */
static __device__ inline uint32_t most_of(const struct eight &x)
{
    uint32_t most = 0;
#pragma unroll
    for (unsigned i = 0; i < EIGHT; i++)
        most = max(most, (uint32_t)x.code[i] & 0x7fff);
    return most << 16;
}

static __device__ inline float sigmoid(float x)
{
    return 1 / (1 + expf(-x));
}

#endif
