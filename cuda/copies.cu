/* The GPU as a device: hyper-connections. */
#include "gpu.cuh"

enum { COPIES_MOST = 8, MIX_THREADS = 128 };

static void check_copies(uint64_t n)
{
    if (n > COPIES_MOST)
        die("CUDA: at most %d copies of the hidden state, wanted %d", COPIES_MOST, (int)n);
}

/* Divide n numbers, `step` apart, by their sum plus eps. */
static __device__ void divide_by_sum(float *x, unsigned n, unsigned step, float eps)
{
    float sum = 0;
    for (unsigned j = 0; j < n; j++)
        sum += x[j * step];
    for (unsigned j = 0; j < n; j++)
        x[j * step] /= sum + eps;
}

static __device__ void softmax(float *x, unsigned n)
{
    float most = x[0], sum = 0;
    for (unsigned j = 1; j < n; j++)
        most = fmaxf(most, x[j]);
    for (unsigned j = 0; j < n; j++)
        sum += x[j] = expf(x[j] - most);
    for (unsigned j = 0; j < n; j++)
        x[j] /= sum;
}

static __device__ void doubly_stochastic(float *comb, unsigned n, uint64_t iterations, float eps)
{
    for (unsigned j = 0; j < n; j++)
        softmax(comb + j * n, n);
    for (unsigned j = 0; j < n * n; j++)
        comb[j] += eps;
    for (uint64_t turn = 0; turn < iterations; turn++) {
        for (unsigned j = 0; turn > 0 && j < n; j++)
            divide_by_sum(comb + j * n, n, 1, eps);
        for (unsigned k = 0; k < n; k++)
            divide_by_sum(comb + k, n, n, eps);
    }
}

/* One thread per row. */
static __global__ void sinkhorn_rows(struct mat pre, struct mat post, struct mat comb,
                                     struct mat mixes, struct mat scale, struct mat base,
                                     uint64_t iterations, float eps)
{
    uint64_t i = (uint64_t)blockIdx.x * MIX_THREADS + threadIdx.x;
    unsigned n = (unsigned)pre.cols;
    if (i >= mixes.rows)
        return;
    const float *mix = f32_row(mixes, i), *s = f32_row(scale, 0), *b = f32_row(base, 0);
    for (unsigned j = 0; j < n; j++) {
        f32_row(pre, i)[j] = sigmoid(mix[j] * s[0] + b[j]) + eps;
        f32_row(post, i)[j] = 2 * sigmoid(mix[n + j] * s[1] + b[n + j]);
    }
    float own[COPIES_MOST * COPIES_MOST];
    for (unsigned j = 0; j < n * n; j++)
        own[j] = mix[2 * n + j] * s[2] + b[2 * n + j];
    doubly_stochastic(own, n, iterations, eps);
    for (unsigned j = 0; j < n * n; j++)
        f32_row(comb, i)[j] = own[j];
}

static void sinkhorn(struct device *d, struct mat pre, struct mat post, struct mat comb,
                     struct mat mixes, struct mat scale, struct mat base, uint64_t iterations,
                     float eps)
{
    check_copies(pre.cols);
    EACH_ROW(gpu_of(d), sinkhorn_rows, (mixes.rows + MIX_THREADS - 1) / MIX_THREADS, MIX_THREADS,
             pre, post, comb, mixes, scale, base, iterations, eps);
}

static __global__ void hc_gate_row(struct mat pre, struct mat mixes, struct mat scale,
                                   struct mat base, float eps)
{
    uint64_t i = blockIdx.x;
    for (uint64_t j = threadIdx.x; j < pre.cols; j += blockDim.x)
        f32_row(pre, i)[j] =
            sigmoid(f32_row(mixes, i)[j] * *f32_row(scale, 0) + f32_row(base, 0)[j]) + eps;
}

static void hc_gate(struct device *d, struct mat pre, struct mat mixes, struct mat scale,
                    struct mat base, float eps)
{
    EACH_ROW(gpu_of(d), hc_gate_row, pre.rows, threads_for(pre.cols), pre, mixes, scale, base, eps);
}

static __global__ void hc_in_row(struct mat y, struct mat x, struct mat pre)
{
    uint64_t i = blockIdx.x;
    unsigned n = (unsigned)pre.cols;
    EACH_EIGHT(j, y.cols)
    {
        float sum[EIGHT] = {}, v[EIGHT];
        for (unsigned k = 0; k < n; k++) {
            float p = f32_row(pre, i)[k];
            load8(v, bf16_row(x, i) + k * y.cols + j, y.cols - j);
#pragma unroll
            for (unsigned l = 0; l < EIGHT; l++)
                sum[l] += p * v[l];
        }
        store8(bf16_row(y, i) + j, sum, y.cols - j);
    }
}

static void hc_in(struct device *d, struct mat y, struct mat x, struct mat pre)
{
    EACH_ROW(gpu_of(d), hc_in_row, y.rows, threads_for(y.cols), y, x, pre);
}

/* For up to MOST copies. */
template <unsigned MOST>
static __global__ void hc_out_row(struct mat x, struct mat y, struct mat post, struct mat comb)
{
    uint64_t i = blockIdx.x;
    unsigned n = (unsigned)post.cols;
    float p[MOST], c[MOST][MOST];
#pragma unroll
    for (unsigned k = 0; k < MOST; k++) {
        p[k] = k < n ? f32_row(post, i)[k] : 0;
#pragma unroll
        for (unsigned from = 0; from < MOST; from++)
            c[from][k] = k < n && from < n ? f32_row(comb, i)[from * n + k] : 0;
    }
    EACH_EIGHT(j, y.cols)
    {
        float value[EIGHT], copy[MOST][EIGHT], out[EIGHT];
        load8(value, bf16_row(y, i) + j, y.cols - j);
#pragma unroll
        for (unsigned k = 0; k < MOST; k++)
            if (k < n)
                load8(copy[k], bf16_row(x, i) + k * y.cols + j, y.cols - j);
#pragma unroll
        for (unsigned k = 0; k < MOST; k++) {
            if (k >= n)
                break;
#pragma unroll
            for (unsigned l = 0; l < EIGHT; l++) {
                float sum = 0;
#pragma unroll
                for (unsigned from = 0; from < MOST; from++)
                    if (from < n)
                        sum += c[from][k] * copy[from][l];
                out[l] = p[k] * value[l] + sum;
            }
            store8(bf16_row(x, i) + k * y.cols + j, out, y.cols - j);
        }
    }
}

static void hc_out(struct device *d, struct mat x, struct mat y, struct mat post, struct mat comb)
{
    unsigned threads = threads_for(y.cols);
    check_copies(post.cols);
    if (post.cols <= COPIES_MOST / 2)
        EACH_ROW(gpu_of(d), hc_out_row<COPIES_MOST / 2>, x.rows, threads, x, y, post, comb);
    else
        EACH_ROW(gpu_of(d), hc_out_row<COPIES_MOST>, x.rows, threads, x, y, post, comb);
}

void gpu_copies(struct device *d)
{
    d->sinkhorn = sinkhorn;
    d->hc_gate = hc_gate;
    d->hc_in = hc_in;
    d->hc_out = hc_out;
}
