/* The GPU as a device: what is recorded of a linear's inputs. */
#include "gpu.cuh"
extern "C" {
#include "tensor/headroom.h"
}

enum { BLOCK = DEVICE_BLOCK, SQUARE = BLOCK * BLOCK };

/* ---- second moments ---- */

enum { TOGETHER = 64 }; /* rows in shared memory */

/* A thread block for each block of columns, a thread for each of its products. */
static __global__ void sum_products(struct mat moments, struct mat x)
{
    __shared__ float v[TOGETHER][BLOCK];
    uint64_t first = (uint64_t)blockIdx.x * BLOCK;
    unsigned i = threadIdx.x / BLOCK, j = threadIdx.x % BLOCK;
    float sum = f32_row(moments, first + i)[j];
    for (uint64_t row = 0; row < x.rows; row += TOGETHER) {
        unsigned rows = (unsigned)min((uint64_t)TOGETHER, x.rows - row);
        for (unsigned k = i; k < rows; k += BLOCK)
            v[k][j] = bf16_to_f32(bf16_row(x, row + k)[first + j]);
        __syncthreads();
        for (unsigned k = 0; k < rows; k++)
            sum += v[k][i] * v[k][j];
        __syncthreads();
    }
    f32_row(moments, first + i)[j] = sum;
}

static void add_moments(struct device *d, struct mat moments, struct mat x)
{
    if (!x.rows || x.cols < BLOCK)
        return;
    sum_products<<<(unsigned)(x.cols / BLOCK), SQUARE, 0, gpu_of(d)->stream>>>(moments, x);
    gpu_check(cudaGetLastError(), "add_moments");
}

/* ---- blocks by their largest magnitude ---- */

static __constant__ uint8_t steps[128] = {HEADROOM_STEPS};

/* headroom_bucket() of tensor/headroom.h. */
static __device__ unsigned bucket_of(unsigned magnitude)
{
    int octave = (int)(magnitude >> 7) - 127 - HEADROOM_LEAST;
    int bucket = (octave * HEADROOM_PER_OCTAVE + steps[magnitude & 127]) / HEADROOM_PER_BUCKET;
    return octave < 0 ? 0 : min((unsigned)bucket, HEADROOM_BUCKETS - 1U);
}

/* A thread for each block, in turns; counts of a thread block are collected in shared memory. */
static __global__ void count_blocks(unsigned long long *count, struct mat x)
{
    __shared__ unsigned own[HEADROOM_BUCKETS];
    uint64_t wide = x.cols / BLOCK, turn = (uint64_t)gridDim.x * blockDim.x;
    for (unsigned i = threadIdx.x; i < HEADROOM_BUCKETS; i += blockDim.x)
        own[i] = 0;
    __syncthreads();
    for (uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; i < x.rows * wide;
         i += turn) {
        const uint16_t *block = bf16_row(x, i / wide) + i % wide * BLOCK;
        uint32_t most = most_of(0, load_codes(block, EIGHT));
        most = larger_of(most_of(most, load_codes(block + EIGHT, EIGHT))) >> 16;
        if (most)
            atomicAdd(&own[bucket_of(most)], 1U);
    }
    __syncthreads();
    for (unsigned i = threadIdx.x; i < HEADROOM_BUCKETS; i += blockDim.x)
        if (own[i])
            atomicAdd(&count[i], (unsigned long long)own[i]);
}

static void count_amaxes(struct device *d, struct mat count, struct mat x)
{
    enum { GRID_MOST = 1024 };
    uint64_t blocks = x.rows * (x.cols / BLOCK), grid = (blocks + THREADS_MOST - 1) / THREADS_MOST;
    if (!blocks)
        return;
    count_blocks<<<(unsigned)min(grid, (uint64_t)GRID_MOST), THREADS_MOST, 0, gpu_of(d)->stream>>>(
        (unsigned long long *)count.at, x);
    gpu_check(cudaGetLastError(), "count_amaxes");
}

void gpu_inputs(struct device *d)
{
    d->add_moments = add_moments;
    d->count_amaxes = count_amaxes;
}
