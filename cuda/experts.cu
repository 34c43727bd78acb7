/* The GPU as a device: routing, the experts' activation, and results from logits. */
#include "gpu.cuh"

#include <float.h>
#include <stdlib.h>

/* Where magnitudes are kept; NULL: nowhere. */
struct swiglu_most {
    uint32_t *gate, *up, *unweighted, *y;
};

static __global__ void swiglu_row(struct mat y, struct mat gate, struct mat up, struct swiglu how,
                                  struct mat weight, struct swiglu_most to)
{
    uint64_t i = blockIdx.x;
    uint32_t most_gate = 0, most_up = 0, most_plain = 0, most_y = 0;
    float factor = weight.rows ? *f32_row(weight, i) : 1;
    EACH_EIGHT(j, y.cols)
    {
        struct eight gates = load_codes(bf16_row(gate, i) + j, y.cols - j);
        struct eight ups = load_codes(bf16_row(up, i) + j, y.cols - j), plain, out;
        float value[EIGHT];
#pragma unroll
        for (unsigned k = 0; k < EIGHT; k++) {
            float g = bf16_to_f32(code_of(gates, k)), u = bf16_to_f32(code_of(ups, k));
            if (how.limit > 0) {
                u = u > how.limit ? how.limit : u < -how.limit ? -how.limit : u;
                g = g > how.limit ? how.limit : g;
            }
            float silu = g / (1 + expf(-g));
            value[k] = (how.rounds ? to_bf16(silu) : silu) * u;
        }
#pragma unroll
        for (unsigned k = 0; k < EIGHT; k += 2) {
            plain.pair[k / 2] = bf16_pair(value[k], value[k + 1]);
            out.pair[k / 2] = bf16_pair(factor * value[k], factor * value[k + 1]);
        }
        store_codes(bf16_row(y, i) + j, out, y.cols - j);
        most_gate = most_of(most_gate, gates);
        most_up = most_of(most_up, ups);
        most_plain = most_of(most_plain, plain);
        most_y = most_of(most_y, out);
    }
    if (!to.y)
        return;
    keep_most(to.gate, larger_of(most_gate));
    keep_most(to.up, larger_of(most_up));
    keep_most(to.y, larger_of(most_y));
    if (weight.rows)
        keep_most(to.unweighted, larger_of(most_plain));
}

static void swiglu(struct device *d, struct mat y, struct mat gate, struct mat up,
                   struct swiglu how, struct mat weight, const struct swiglu_seen *seen)
{
    struct swiglu_most to = {};
    if (seen)
        to = {(uint32_t *)seen->gate.at, (uint32_t *)seen->up.at, (uint32_t *)seen->unweighted.at,
              (uint32_t *)seen->y.at};
    EACH_ROW(gpu_of(d), swiglu_row, y.rows, threads_for(y.cols), y, gate, up, how, weight, to);
}

/* ---- the router ---- */

static __global__ void score_row(struct mat logits, enum scoring how)
{
    float *x = f32_row(logits, blockIdx.x);
    for (uint64_t j = threadIdx.x; j < logits.cols && how != SCORING_SOFTMAX; j += blockDim.x)
        x[j] =
            how == SCORING_SIGMOID ? sigmoid(x[j]) : sqrtf(x[j] > 20 ? x[j] : log1pf(expf(x[j])));
    if (how != SCORING_SOFTMAX)
        return;
    float most = -INFINITY, sum = 0;
    for (uint64_t j = threadIdx.x; j < logits.cols; j += blockDim.x)
        most = fmaxf(most, x[j]);
    most = block_max(most);
    for (uint64_t j = threadIdx.x; j < logits.cols; j += blockDim.x)
        sum += x[j] = expf(x[j] - most);
    sum = block_sum(sum);
    for (uint64_t j = threadIdx.x; j < logits.cols; j += blockDim.x)
        x[j] /= sum;
}

static void score(struct device *d, struct mat logits, enum scoring how)
{
    EACH_ROW(gpu_of(d), score_row, logits.rows, threads_for(logits.cols), logits, how);
}

/* A value and its index. Of equal values the first is better. */
struct ranked {
    float value;
    int32_t index; /* INT32_MAX: none */
};

static __device__ bool is_better(struct ranked a, struct ranked b)
{
    return a.index != INT32_MAX &&
           (b.index == INT32_MAX || a.value > b.value || (a.value == b.value && a.index < b.index));
}

/* The best over all threads of the block; every thread gets it. */
static __device__ struct ranked block_best(struct ranked own)
{
    __shared__ struct ranked part[WARPS_MOST];
    for (int step = WARP / 2; step; step /= 2) {
        struct ranked other = {__shfl_xor_sync(~0U, own.value, step),
                               __shfl_xor_sync(~0U, own.index, step)};
        own = is_better(other, own) ? other : own;
    }
    __syncthreads();
    if (threadIdx.x % WARP == 0)
        part[threadIdx.x / WARP] = own;
    __syncthreads();
    for (unsigned i = 0; i < blockDim.x / WARP; i++)
        own = is_better(part[i], own) ? part[i] : own;
    return own;
}

/* The best of a thread's values, one for each blockDim.x-th j, that rank after `last`, if there is
 * one. */
#define BEST_AFTER(own, count, last, value)                                                        \
    for (uint64_t j = threadIdx.x; j < (count); j += blockDim.x) {                                 \
        struct ranked it = {(value), (int32_t)j};                                                  \
        if (((last).index < 0 || is_better(last, it)) && is_better(it, own))                       \
            (own) = it;                                                                            \
    }

enum { GROUPS_MOST = 1024 };

/* How good a group of `size` experts is: the sum of its two best, or without a bias its best. */
static __device__ float group_score(const float *x, const float *b, uint64_t size)
{
    float best = -INFINITY, second = -INFINITY;
    for (uint64_t j = 0; j < size; j++) {
        float value = b ? x[j] + b[j] : x[j];
        second = fmaxf(second, fminf(value, best));
        best = fmaxf(best, value);
    }
    return b ? best + second : best;
}

/* The last of the groups that are candidates; score: their scores. One warp per row. */
static __device__ struct ranked last_group(float *score, const float *x, const float *b,
                                           uint64_t size, struct expert_groups groups)
{
    struct ranked last = {0, -1};
    for (uint64_t g = threadIdx.x; g < groups.count; g += WARP)
        score[g] = group_score(x + g * size, b ? b + g * size : NULL, size);
    __syncwarp();
    for (uint64_t n = 0; n < groups.used; n++) {
        struct ranked own = {0, INT32_MAX};
        BEST_AFTER(own, groups.count, last, score[j])
        last = block_best(own);
    }
    return last;
}

/* An expert's score plus bias; -infinity unless its group is a candidate. */
static __device__ float candidate(const float *x, const float *b, const float *score, uint64_t size,
                                  struct ranked last, uint64_t j)
{
    int32_t group = (int32_t)(j / size);
    struct ranked own = {score[group], group};
    return group == last.index || is_better(own, last) ? (b ? x[j] + b[j] : x[j]) : -INFINITY;
}

static __global__ void route_topk_row(struct mat experts, struct mat scores, struct mat bias,
                                      struct expert_groups groups)
{
    __shared__ float score[GROUPS_MOST];
    uint64_t i = blockIdx.x, size = scores.cols / groups.count;
    const float *x = f32_row(scores, i), *b = bias.rows ? f32_row(bias, 0) : NULL;
    struct ranked group = last_group(score, x, b, size, groups), last = {0, -1};
    for (uint64_t n = 0; n < experts.cols; n++) {
        struct ranked own = {0, INT32_MAX};
        BEST_AFTER(own, scores.cols, last, candidate(x, b, score, size, group, j))
        last = block_best(own);
        if (threadIdx.x == 0)
            i32_row(experts, i)[n] = last.index;
    }
}

static void route_topk(struct device *d, struct mat experts, struct mat scores, struct mat bias,
                       struct expert_groups groups)
{
    if (groups.count > GROUPS_MOST)
        die("CUDA: a router may have %d groups, not %d", GROUPS_MOST, (int)groups.count);
    EACH_ROW(gpu_of(d), route_topk_row, scores.rows, WARP, experts, scores, bias, groups);
}

/* One thread per row. */
static __global__ void route_weights_rows(struct mat weight, struct mat scores, struct mat experts,
                                          bool normalize, float scale)
{
    uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= weight.rows)
        return;
    float *w = f32_row(weight, i), sum = 0;
    for (uint64_t j = 0; j < weight.cols; j++)
        sum += w[j] = f32_row(scores, i)[i32_row(experts, i)[j]];
    for (uint64_t j = 0; j < weight.cols; j++)
        w[j] = (normalize ? w[j] / sum : w[j]) * scale;
}

static void route_weights(struct device *d, struct mat weight, struct mat scores,
                          struct mat experts, bool normalize, float scale)
{
    EACH_ROW(gpu_of(d), route_weights_rows, (weight.rows + THREADS_MOST - 1) / THREADS_MOST,
             THREADS_MOST, weight, scores, experts, normalize, scale);
}

/* ---- tokens by expert ---- */

static __global__ void count_tokens(int32_t *number, const int32_t *expert, uint64_t all)
{
    uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < all)
        atomicAdd(number + expert[i], 1);
}

enum { SORT_THREADS = 1024, SORT_WARPS = SORT_THREADS / WARP };

/* A block finds the tokens of an expert, blockIdx.x, SORT_THREADS entries at a time. */
static __global__ void __launch_bounds__(SORT_THREADS)
    place_tokens(struct mat token, struct mat sorted, struct mat experts, struct mat weight,
                 const int32_t *number)
{
    __shared__ uint32_t found[2][SORT_WARPS]; /* by each warp, in even and odd turns */
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, turn = 0;
    uint64_t all = experts.rows * experts.cols, at = 0;
    for (unsigned e = 0; e < blockIdx.x; e++)
        at += number[e];
    for (uint64_t first = 0; first < all; first += SORT_THREADS, turn ^= 1) {
        uint64_t i = first + threadIdx.x;
        bool is_own = i < all && i32_row(experts, 0)[i] == (int32_t)blockIdx.x;
        uint32_t own = __ballot_sync(~0U, is_own);
        if (lane == 0)
            found[turn][warp] = (uint32_t)__popc(own);
        __syncthreads();
        uint32_t others = found[turn][lane];
        uint32_t before = __reduce_add_sync(~0U, lane < warp ? others : 0);
        if (is_own) {
            uint64_t to = at + before + (uint64_t)__popc(own & ((1U << lane) - 1));
            *i32_row(token, to) = (int32_t)(i / experts.cols);
            *f32_row(sorted, to) = f32_row(weight, 0)[i];
        }
        at += __reduce_add_sync(~0U, others);
    }
}

static void sort_by_expert(struct device *d, struct mat token, struct mat sorted,
                           struct mat experts, struct mat weight, uint64_t *number, uint64_t count)
{
    struct gpu *gpu = gpu_of(d);
    uint64_t all = experts.rows * experts.cols;
    struct mat numbers = d->make(d, DTYPE_I32, 1, count);
    int32_t *own = (int32_t *)numbers.at, *host = (int32_t *)xalloc((size_t)count, sizeof *host);
    static_assert((int)SORT_WARPS == (int)WARP, "a lane for each warp's count");
    gpu_check(cudaMemsetAsync(own, 0, count * sizeof *own, gpu->stream), "sorting");
    EACH_ROW(gpu, count_tokens, (all + SORT_THREADS - 1) / SORT_THREADS, SORT_THREADS, own,
             (const int32_t *)experts.at, all);
    EACH_ROW(gpu, place_tokens, all ? count : 0, SORT_THREADS, token, sorted, experts, weight, own);
    d->read(d, host, numbers);
    for (uint64_t e = 0; e < count; e++)
        number[e] = (uint64_t)host[e];
    d->drop(d, numbers);
    free(host);
}

/* ---- results ---- */

static __device__ double warp_sum(double x)
{
    for (int step = WARP / 2; step; step /= 2)
        x += __shfl_xor_sync(~0U, x, step);
    return x;
}

/* log of the sum of exp; every thread of the block gets it. In double, since a vocabulary is
 * large. */
static __device__ double log_sum(const float *x, uint64_t count)
{
    __shared__ double part[WARPS_MOST];
    float most = -INFINITY;
    double sum = 0;
    for (uint64_t j = threadIdx.x; j < count; j += blockDim.x)
        most = fmaxf(most, x[j]);
    most = block_max(most);
    for (uint64_t j = threadIdx.x; j < count; j += blockDim.x)
        sum += (double)expf(x[j] - most);
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0)
        part[threadIdx.x / WARP] = sum;
    __syncthreads();
    sum = 0;
    for (unsigned i = 0; i < blockDim.x / WARP; i++)
        sum += part[i];
    return (double)most + log(sum);
}

static __global__ void loss_row(struct mat nll, struct mat logits, struct mat target)
{
    uint64_t i = blockIdx.x;
    const float *x = f32_row(logits, i);
    double all = log_sum(x, logits.cols);
    if (threadIdx.x == 0)
        *f32_row(nll, i) = (float)(all - (double)x[*i32_row(target, i)]);
}

static void loss(struct device *d, struct mat nll, struct mat logits, struct mat target)
{
    EACH_ROW(gpu_of(d), loss_row, logits.rows, THREADS_MOST, nll, logits, target);
}

static __global__ void best_row(struct mat value, struct mat number, struct mat logits)
{
    uint64_t i = blockIdx.x;
    const float *x = f32_row(logits, i);
    double all = log_sum(x, logits.cols);
    struct ranked last = {0, -1};
    for (uint64_t n = 0; n < number.cols; n++) {
        struct ranked own = {0, INT32_MAX};
        BEST_AFTER(own, logits.cols, last, x[j])
        last = block_best(own);
        if (threadIdx.x == 0) {
            i32_row(number, i)[n] = last.index;
            f32_row(value, i)[n] = (float)((double)last.value - all);
        }
    }
}

static void best(struct device *d, struct mat value, struct mat number, struct mat logits)
{
    EACH_ROW(gpu_of(d), best_row, logits.rows, THREADS_MOST, value, number, logits);
}

void gpu_experts(struct device *d)
{
    d->swiglu = swiglu;
    d->score = score;
    d->route_topk = route_topk;
    d->route_weights = route_weights;
    d->sort_by_expert = sort_by_expert;
    d->loss = loss;
    d->best = best;
}
