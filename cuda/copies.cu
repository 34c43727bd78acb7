/* The GPU as a device: hyper-connections. */
#include "gpu.cuh"

enum { COPIES_MOST = 8, MIX_THREADS = 128 };

static void check_copies(uint64_t n)
{
    if (n > COPIES_MOST)
        die("CUDA: at most %d copies of the hidden state, wanted %d", COPIES_MOST, (int)n);
}

/* Divide N numbers, `step` apart, by their sum plus eps. */
template <unsigned N> static __device__ void divide_by_sum(float *x, unsigned step, float eps)
{
    float sum = 0;
#pragma unroll
    for (unsigned j = 0; j < N; j++)
        sum += x[j * step];
#pragma unroll
    for (unsigned j = 0; j < N; j++)
        x[j * step] /= sum + eps;
}

template <unsigned N> static __device__ void softmax(float *x)
{
    float most = x[0], sum = 0;
#pragma unroll
    for (unsigned j = 1; j < N; j++)
        most = fmaxf(most, x[j]);
#pragma unroll
    for (unsigned j = 0; j < N; j++)
        sum += x[j] = expf(x[j] - most);
#pragma unroll
    for (unsigned j = 0; j < N; j++)
        x[j] /= sum;
}

template <unsigned N>
static __device__ void doubly_stochastic(float *comb, uint64_t iterations, float eps)
{
#pragma unroll
    for (unsigned j = 0; j < N; j++)
        softmax<N>(comb + j * N);
#pragma unroll
    for (unsigned j = 0; j < N * N; j++)
        comb[j] += eps;
    for (uint64_t turn = 0; turn < iterations; turn++) {
#pragma unroll
        for (unsigned j = 0; j < N; j++)
            if (turn > 0)
                divide_by_sum<N>(comb + j * N, 1, eps);
#pragma unroll
        for (unsigned k = 0; k < N; k++)
            divide_by_sum<N>(comb + k, N, eps);
    }
}

/* One thread per row. N copies are known when this is compiled, so that they lie in registers. */
template <unsigned N>
static __global__ void sinkhorn_rows(struct mat pre, struct mat post, struct mat comb,
                                     struct mat mixes, struct mat scale, struct mat base,
                                     uint64_t iterations, float eps)
{
    uint64_t i = (uint64_t)blockIdx.x * MIX_THREADS + threadIdx.x;
    if (i >= mixes.rows)
        return;
    const float *mix = f32_row(mixes, i), *s = f32_row(scale, 0), *b = f32_row(base, 0);
    for (unsigned j = 0; j < N; j++) {
        f32_row(pre, i)[j] = sigmoid(mix[j] * s[0] + b[j]) + eps;
        f32_row(post, i)[j] = 2 * sigmoid(mix[N + j] * s[1] + b[N + j]);
    }
    float own[N * N];
#pragma unroll
    for (unsigned j = 0; j < N * N; j++)
        own[j] = mix[2 * N + j] * s[2] + b[2 * N + j];
    doubly_stochastic<N>(own, iterations, eps);
#pragma unroll
    for (unsigned j = 0; j < N * N; j++)
        f32_row(comb, i)[j] = own[j];
}

static void sinkhorn(struct device *d, struct mat pre, struct mat post, struct mat comb,
                     struct mat mixes, struct mat scale, struct mat base, uint64_t iterations,
                     float eps)
{
    void (*const kernel[])(struct mat, struct mat, struct mat, struct mat, struct mat, struct mat,
                           uint64_t, float) = {sinkhorn_rows<1>, sinkhorn_rows<2>, sinkhorn_rows<3>,
                                               sinkhorn_rows<4>, sinkhorn_rows<5>, sinkhorn_rows<6>,
                                               sinkhorn_rows<7>, sinkhorn_rows<8>};
    static_assert(sizeof kernel / sizeof *kernel == COPIES_MOST, "a kernel for each count");
    check_copies(pre.cols);
    EACH_ROW(gpu_of(d), kernel[pre.cols - 1], (mixes.rows + MIX_THREADS - 1) / MIX_THREADS,
             MIX_THREADS, pre, post, comb, mixes, scale, base, iterations, eps);
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
