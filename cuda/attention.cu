/* The GPU as a device: attention. Each token has a thread block of its own: its heads are the
 * rows of products, and its keys are gathered in shared memory. So its result depends on
 * nothing else. */
#include "sight.cuh"
#include "tiles.cuh"

/* ---- compression ---- */

/* The scores and kv of a block's tokens, in one channel. */
struct pooled {
    const float *kv, *score, *ape;
    uint64_t kv_stride, score_stride, ape_stride;
    unsigned tokens;
};

static __device__ float pooled_score(const struct pooled &p, unsigned i)
{
    return p.score[i * p.score_stride] + p.ape[i * p.ape_stride];
}

static __device__ float pooled_most(const struct pooled &p)
{
    float most = -INFINITY;
    for (unsigned i = 0; i < p.tokens; i++)
        most = fmaxf(most, pooled_score(p, i));
    return most;
}

static __device__ float pooled_sum(const struct pooled &p, float most)
{
    float sum = 0;
    for (unsigned i = 0; i < p.tokens; i++)
        sum += expf(pooled_score(p, i) - most);
    return sum;
}

static __device__ float pooled_value(const struct pooled &p, float most, float sum)
{
    float value = 0;
    for (unsigned i = 0; i < p.tokens; i++)
        value += p.kv[i * p.kv_stride] * (expf(pooled_score(p, i) - most) / sum);
    return value;
}

static __global__ void pool_row(struct mat y, struct mat kv, struct mat score, struct mat ape,
                                struct mat first, struct mat number)
{
    uint64_t b = blockIdx.x, row = (uint64_t)*i32_row(first, b);
    unsigned ratio = (unsigned)ape.rows;
    bool overlap = kv.cols == 2 * y.cols, has_before = overlap && *i32_row(number, b) > 0;
    for (uint64_t j = threadIdx.x; j < y.cols; j += blockDim.x) {
        uint64_t at = overlap ? y.cols + j : j;
        struct pooled own = {f32_row(kv, row) + at,
                             f32_row(score, row) + at,
                             f32_row(ape, 0) + at,
                             kv.stride,
                             score.stride,
                             ape.stride,
                             ratio};
        struct pooled before = own;
        before.tokens = has_before ? ratio : 0;
        before.kv -= y.cols + ratio * kv.stride;
        before.score -= y.cols + ratio * score.stride;
        before.ape -= y.cols;
        float most = fmaxf(pooled_most(before), pooled_most(own));
        float sum = pooled_sum(before, most) + pooled_sum(own, most);
        bf16_row(y, b)[j] =
            bf16_from_f32(pooled_value(before, most, sum) + pooled_value(own, most, sum));
    }
}

static void pool(struct device *d, struct mat y, struct mat kv, struct mat score, struct mat ape,
                 struct mat first, struct mat number)
{
    EACH_ROW(gpu_of(d), pool_row, y.rows, THREADS_MOST, y, kv, score, ape, first, number);
}

/* ---- products of tiles in shared memory ---- */

/* Four warps share the products of a token's heads with KEYS keys at a time. */
enum { KEYS = 32, TILE_THREADS = 128, TILE_WARPS = TILE_THREADS / WARP };

/* c [16, 16] in two halves += q [16, width] · key [16, width]ᵀ, from rows `head` and `first` of the
 * tiles. Two accumulators alternate, since a product waits for the previous one on the same
 * accumulator. */
static __device__ void multiply_rows(float c[2][4], uint16_t *q, unsigned head, uint16_t *key,
                                     unsigned first, unsigned width)
{
    unsigned lane = threadIdx.x % WARP;
    float odd[2][4] = {};
#pragma unroll 2
    for (unsigned k = 0; k < width; k += 32) {
        uint32_t a[4], b[4], a_odd[4], b_odd[4];
        unsigned row = first + lane % 8 + lane / 16 * 8, col = k + lane / 8 % 2 * 8;
        load_matrices(a, tile_at(q, width, head + lane % 16, k + lane / 16 * 8));
        load_matrices(b, tile_at(key, width, row, col));
        load_matrices(a_odd, tile_at(q, width, head + lane % 16, k + 16 + lane / 16 * 8));
        load_matrices(b_odd, tile_at(key, width, row, col + 16));
        multiply(c[0], a, b);
        multiply(c[1], a, b + 2);
        multiply(odd[0], a_odd, b_odd);
        multiply(odd[1], a_odd, b_odd + 2);
    }
    for (unsigned i = 0; i < 8; i++)
        c[i / 4][i % 4] += odd[i / 4][i % 4];
}

/* ---- the indexer ---- */

enum { TOKENS_AT_A_TIME = 2048, WIDTH_STEP = 64 };

/* A score as an integer in the same order: of 16 bits for a BF16 value, of 32 for F32. */
static __device__ void put_order(uint16_t *order, float score)
{
    uint16_t code = bf16_from_f32(score);
    *order = code & 0x8000 ? ~code : code | 0x8000;
}

static __device__ void put_order(uint32_t *order, float score)
{
    uint32_t code = __float_as_uint(score + 0.0f); /* -0 is 0 */
    *order = code & 0x80000000 ? ~code : code | 0x80000000;
}

/* How many of `count` numbers are at least `least`; every thread of the block gets it. */
template <typename ORDER>
static __device__ unsigned count_from(const ORDER *order, unsigned count, uint32_t least)
{
    unsigned found = 0;
    for (unsigned j = threadIdx.x; j < count; j += blockDim.x)
        found += order[j] >= least;
    return (unsigned)block_sum((float)found); /* exact: below 2^24 */
}

/* The positions of the n best of `count` numbers, ascending, ties to the first, padded with -1. */
template <typename ORDER>
static __device__ void select_best(int32_t *selected, uint64_t n, const ORDER *order,
                                   unsigned count)
{
    uint32_t least = 0; /* the largest number that n or more are at least, found bit by bit */
    if (count > n)
        for (uint32_t bit = 1U << (8 * sizeof(ORDER) - 1); bit; bit >>= 1)
            if (count_from(order, count, least | bit) >= n)
                least |= bit;
    /* Select all numbers above it, and as many equal ones as are still wanted; one warp keeps them
     * in order. */
    unsigned above = count > n ? count_from(order, count, least + 1) : 0, taken = 0;
    unsigned equal = count > n ? (unsigned)n - above : count, lane = threadIdx.x;
    if (threadIdx.x >= WARP)
        return;
    for (unsigned first = 0; first < count; first += WARP) {
        unsigned j = first + lane, below = (1U << lane) - 1;
        uint32_t number = j < count && count > n ? order[j] : 0;
        bool is_above = j < count && count > n && number > least;
        bool is_equal = j < count && !is_above && number >= least;
        unsigned ties = __ballot_sync(~0U, is_equal);
        bool take = is_above || (is_equal && __popc(ties & below) < (int)equal);
        unsigned takes = __ballot_sync(~0U, take);
        if (take)
            selected[taken + __popc(takes & below)] = (int32_t)j;
        taken += __popc(takes);
        equal -= min(equal, (unsigned)__popc(ties));
    }
    for (uint64_t j = taken + lane; j < n; j += WARP)
        selected[j] = -1;
}

/* Scores of a tile of keys. A warp takes every fourth 16 heads; then lanes with the same keys, and
 * then warps, add up their sums. */
template <typename ORDER>
static __device__ void score_tile(ORDER *order, unsigned count, uint16_t *query, uint16_t *tile,
                                  const struct mat &weight, const struct mat &scale, uint64_t token,
                                  uint64_t key, unsigned width, float (*part)[KEYS])
{
    const bool exact = sizeof(ORDER) == sizeof(float);
    unsigned heads = (unsigned)weight.cols;
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    for (unsigned first = 0; first < KEYS; first += 16) {
        float sum[2][2] = {};
        for (unsigned head = warp * 16; head < heads; head += TILE_WARPS * 16) {
            float product[2][4] = {};
            multiply_rows(product, query, head, tile, first, width);
            for (unsigned n = 0; n < 2; n++)
                for (unsigned i = 0; i < 4; i++) {
                    unsigned h = head + lane / 4 + i / 2 * 8;
                    float value = product[n][i];
                    if (h < heads && exact)
                        sum[n][i % 2] += fmaxf(value, 0) * f32_row(weight, token)[h];
                    else if (h < heads)
                        sum[n][i % 2] += to_bf16(fmaxf(to_bf16(value), 0) *
                                                 bf16_to_f32(bf16_row(weight, token)[h]));
                }
        }
        for (unsigned n = 0; n < 2; n++)
            for (unsigned i = 0; i < 2; i++) {
                for (unsigned step = 4; step < WARP; step *= 2)
                    sum[n][i] += __shfl_xor_sync(~0U, sum[n][i], step);
                if (lane < 4)
                    part[warp][first + n * 8 + lane * 2 + i] = sum[n][i];
            }
    }
    __syncthreads();
    if (threadIdx.x < count) {
        float sum = 0;
        for (unsigned w = 0; w < TILE_WARPS; w++)
            sum += part[w][threadIdx.x];
        put_order(order + threadIdx.x,
                  exact ? sum * *f32_row(scale, key + threadIdx.x) : to_bf16(sum));
    }
    __syncthreads();
}

/* order: memory for all blocks' numbers, for each thread block. */
template <typename ORDER>
static __global__ void __launch_bounds__(TILE_THREADS)
    select_row(struct mat selected, struct mat q, struct keys keys, struct mat weight, ORDER *order,
               uint64_t first)
{
    extern __shared__ __align__(16) char memory[];
    __shared__ float part[TILE_WARPS][KEYS];
    uint64_t token = first + blockIdx.x;
    unsigned heads = (unsigned)weight.cols, width = (unsigned)(q.cols / heads), eights = width / 8;
    unsigned count = blocks_before(keys, token), rows = (heads + 15) / 16 * 16;
    ORDER *own = order + blockIdx.x * keys.compressed.rows;
    uint16_t *query = (uint16_t *)memory, *tile = query + rows * width;
    for (unsigned i = threadIdx.x; i < rows * eights && count > selected.cols; i += TILE_THREADS) {
        unsigned h = i / eights, col = i % eights * 8;
        copy_async(tile_at(query, width, h, col),
                   bf16_row(q, token) + (h < heads ? h * width + col : 0), h < heads);
    }
    /* Where all are selected, scores do not matter. */
    for (unsigned j = 0; j < count && count > selected.cols; j += KEYS) {
        for (unsigned i = threadIdx.x; i < KEYS * eights; i += TILE_THREADS) {
            unsigned row = i / eights, col = i % eights * 8;
            unsigned key = (unsigned)*i32_row(keys.block, token) + (j + row < count ? j + row : 0);
            copy_async(tile_at(tile, width, row, col), bf16_row(keys.compressed, key) + col, true);
        }
        copy_commit();
        copy_wait();
        __syncthreads();
        score_tile(own + j, count - j, query, tile, weight, keys.scale, token,
                   (uint64_t)*i32_row(keys.block, token) + j, width, part);
    }
    select_best(i32_row(selected, token), selected.cols, own, count);
}

template <typename ORDER>
static void select_by(struct device *d, struct mat selected, struct mat q, const struct keys *keys,
                      struct mat weight)
{
    struct gpu *gpu = gpu_of(d);
    uint64_t heads = weight.cols, width = q.cols / heads;
    if (width % WIDTH_STEP)
        die("CUDA: the indexer's heads must have a multiple of %d columns, not %d", WIDTH_STEP,
            (int)width);
    size_t room = (size_t)((heads + 15) / 16 * 16 + KEYS) * (size_t)width * sizeof(uint16_t);
    uint64_t most = q.rows < TOKENS_AT_A_TIME ? q.rows : (uint64_t)TOKENS_AT_A_TIME;
    ORDER *order = (ORDER *)gpu_alloc(gpu, most * keys->compressed.rows, sizeof *order);
    gpu_allow_shared((const void *)select_row<ORDER>, room);
    for (uint64_t first = 0; first < q.rows; first += most) {
        unsigned tokens = (unsigned)(q.rows - first < most ? q.rows - first : most);
        select_row<ORDER>
            <<<tokens, TILE_THREADS, room, gpu->stream>>>(selected, q, *keys, weight, order, first);
        gpu_check(cudaGetLastError(), "selection of blocks");
    }
    gpu_free(gpu, order);
}

static void select_blocks(struct device *d, struct mat selected, struct mat q,
                          const struct keys *keys, struct mat weight)
{
    if (weight.dtype == DTYPE_F32)
        select_by<uint32_t>(d, selected, q, keys, weight);
    else
        select_by<uint16_t>(d, selected, q, keys, weight);
}

/* ---- attention ---- */

/* Rows of probabilities are padded against bank conflicts. */
enum { P_STRIDE = KEYS + EIGHT };

/* How a thread block shares the work on HEADS heads of a token. Two warps have 16 heads: of their
 * queries, which stay in registers, each has half of the columns, and of a tile's logits half of
 * the keys. Then each warp has COLS columns of the output of all heads. STAGES tiles of keys are in
 * shared memory or on their way. */
template <unsigned WIDTH_, unsigned HEADS_, unsigned STAGES_> struct attend_shape {
    enum {
        WIDTH = WIDTH_,
        HEADS = HEADS_,
        STAGES = STAGES_,
        PAIRS = HEADS / 16,
        WARPS = 2 * PAIRS,
        THREADS = WARPS * WARP,
        COLS = WIDTH / WARPS,
        STEPS = WIDTH / 2 / 16 /* products of 16 columns for half of the width */
    };
};

/* Shared memory of one thread block. */
template <typename S> struct attend_room {
    uint16_t key[S::STAGES][KEYS * S::WIDTH];
    uint16_t p[S::HEADS * P_STRIDE];
    float part[S::PAIRS][2][8][WARP]; /* logits of one half of the columns, for the other warp */
    float most[S::HEADS][2], sum[S::HEADS][2]; /* of the halves of a tile's keys */
    uint32_t there[S::STAGES];                 /* a bit for each key of a tile that exists */
};

/* Begin to copy a tile of keys. Each warp looks up all addresses, one per lane. */
template <typename S>
static __device__ void fetch_keys(struct attend_room<S> *room, unsigned stage,
                                  const struct sight &s, unsigned first)
{
    const uint16_t *own = key_at(s, first + threadIdx.x % WARP);
    uint32_t there = __ballot_sync(~0U, own != NULL);
    uint64_t address = (uint64_t)(own ? own : s.window);
    enum { EIGHTS = S::WIDTH / EIGHT };
#pragma unroll 4
    for (unsigned i = threadIdx.x; i < KEYS * EIGHTS; i += S::THREADS) {
        unsigned row = i / EIGHTS, col = i % EIGHTS * EIGHT;
        const uint16_t *key = (const uint16_t *)__shfl_sync(~0U, address, row);
        copy_async(tile_at(room->key[stage], S::WIDTH, row, col), key + col, there >> row & 1);
    }
    if (threadIdx.x == 0)
        room->there[stage] = there;
}

/* A warp's queries: half of the columns of its 16 heads, as the left sides of products; 0 for heads
 * that are not there. Rows are `WIDTH` elements apart and lie at even addresses. */
template <typename S>
static __device__ void load_queries(uint32_t query[S::STEPS][4], const uint16_t *q, unsigned heads)
{
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    unsigned head = warp / 2 * 16 + lane / 4;
    const uint16_t *from = q + head * S::WIDTH + warp % 2 * (S::WIDTH / 2) + lane % 4 * 2;
#pragma unroll
    for (unsigned step = 0; step < S::STEPS; step++)
#pragma unroll
        for (unsigned i = 0; i < 4; i++) {
            const uint16_t *at = from + i % 2 * 8 * S::WIDTH + step * 16 + i / 2 * 8;
            query[step][i] = head + i % 2 * 8 < heads ? *(const uint32_t *)at : 0;
        }
}

/* The logits of a warp's 16 heads and 16 keys of a tile, times scale; -infinity where there is no
 * key. Both warps of a pair multiply half of the columns with all keys of the tile, and give each
 * other what is missing. */
template <typename S>
static __device__ void logits_of(float logit[2][4], const uint32_t query[S::STEPS][4],
                                 struct attend_room<S> *room, unsigned stage, float scale)
{
    unsigned lane = threadIdx.x % WARP, pair = threadIdx.x / WARP / 2,
             half = threadIdx.x / WARP % 2;
    unsigned row = lane % 8 + lane / 16 * 8, col = half * (S::WIDTH / 2) + lane / 8 % 2 * 8;
    uint16_t *tile = room->key[stage];
    float c[4][4] = {};
#pragma unroll
    for (unsigned step = 0; step < S::STEPS; step++) {
        uint32_t low[4], high[4];
        load_matrices(low, tile_at(tile, S::WIDTH, row, col + step * 16));
        load_matrices(high, tile_at(tile, S::WIDTH, row + 16, col + step * 16));
        multiply(c[0], query[step], low);
        multiply(c[1], query[step], low + 2);
        multiply(c[2], query[step], high);
        multiply(c[3], query[step], high + 2);
    }
#pragma unroll
    for (unsigned i = 0; i < 8; i++)
        room->part[pair][1 - half][i][lane] = half ? c[i / 4][i % 4] : c[2 + i / 4][i % 4];
    asm volatile("bar.sync %0, 64;" ::"r"(1 + pair) : "memory");
    uint32_t there = room->there[stage] >> half * 16;
#pragma unroll
    for (unsigned i = 0; i < 8; i++) {
        float own = half ? c[2 + i / 4][i % 4] : c[i / 4][i % 4];
        float value = own + room->part[pair][half][i][lane];
        bool is_there = there >> (i / 4 * 8 + lane % 4 * 2 + i % 2) & 1;
        logit[i / 4][i % 4] = is_there ? value * scale : -INFINITY;
    }
}

/* total += p · tile, for a warp's columns of all heads. */
template <typename S>
static __device__ void add_values(float total[S::PAIRS][S::COLS / 8][4],
                                  const struct attend_room<S> *room, uint16_t *tile)
{
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
#pragma unroll
    for (unsigned k = 0; k < KEYS; k += 16) {
        uint32_t a[S::PAIRS][4], b[4];
#pragma unroll
        for (unsigned m = 0; m < S::PAIRS; m++)
            load_matrices(a[m], room->p + (m * 16 + lane % 16) * P_STRIDE + k + lane / 16 * 8);
#pragma unroll
        for (unsigned n = 0; n < S::COLS / 8; n += 2) {
            load_transposed(
                b, tile_at(tile, S::WIDTH, k + lane % 16, warp * S::COLS + n * 8 + lane / 16 * 8));
#pragma unroll
            for (unsigned m = 0; m < S::PAIRS; m++) {
                multiply(total[m][n], a[m], b);
                multiply(total[m][n + 1], a[m], b + 2);
            }
        }
    }
}

/* Reduce the largest logits of a lane's two rows over all keys. */
template <typename S>
static __device__ __forceinline__ void share_most(float most[2], struct attend_room<S> *room,
                                                  unsigned row, unsigned half)
{
    unsigned lane = threadIdx.x % WARP;
    for (unsigned i = 0; i < 2; i++) {
        most[i] = quad_max(most[i]);
        if (lane % 4 == 0)
            room->most[row + 8 * i][half] = most[i];
    }
    __syncthreads();
    for (unsigned i = 0; i < 2; i++)
        most[i] = fmaxf(room->most[row + 8 * i][0], room->most[row + 8 * i][1]);
}

/* Probabilities of a warp's logits, relative to the largest: rounded to shared memory, and added to
 * the lane's sums. */
template <typename S>
static __device__ __forceinline__ void
put_probabilities(struct attend_room<S> *room, float sum[2], const float logit[2][4],
                  const float most[2], unsigned row, unsigned half)
{
    unsigned col = half * 16 + threadIdx.x % 4 * 2;
    for (unsigned n = 0; n < 2; n++)
        for (unsigned i = 0; i < 2; i++) {
            float low = expf(logit[n][2 * i] - most[i]), high = expf(logit[n][2 * i + 1] - most[i]);
            sum[i] += low;
            sum[i] += high;
            *(uint32_t *)(room->p + (row + i * 8) * P_STRIDE + n * 8 + col) = bf16_pair(low, high);
        }
}

/* Store the sums, and the largest logits that they are relative to, in shared memory. */
template <typename S>
static __device__ __forceinline__ void share_sums(struct attend_room<S> *room, const float sum[2],
                                                  const float most[2], unsigned row, unsigned half)
{
    unsigned lane = threadIdx.x % WARP;
    for (unsigned i = 0; i < 2; i++) {
        float all = quad_sum(sum[i]);
        if (lane % 4 == 0) {
            room->sum[row + 8 * i][half] = all;
            room->most[row + 8 * i][half] = most[i];
        }
    }
    __syncthreads();
}

/* Write a warp's columns of a token's heads from `first` on: totals over sums, sinks included. */
template <typename S>
static __device__ __forceinline__ void
put_output(const struct mat &o, const struct attend_room<S> *room,
           const float total[S::PAIRS][S::COLS / 8][4], const struct mat &sink, unsigned first)
{
    uint64_t token = blockIdx.x;
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    unsigned heads = (unsigned)sink.cols - first;
#pragma unroll
    for (unsigned m = 0; m < S::PAIRS; m++)
#pragma unroll
        for (unsigned i = 0; i < 2; i++) {
            unsigned head = m * 16 + i * 8 + lane / 4;
            if (head >= heads)
                continue;
            float all = room->sum[head][0] + room->sum[head][1] +
                        expf(f32_row(sink, 0)[first + head] - room->most[head][0]);
            uint16_t *to =
                bf16_row(o, token) + (uint64_t)(first + head) * S::WIDTH + warp * S::COLS;
#pragma unroll
            for (unsigned n = 0; n < S::COLS / 8; n++) {
                const float *pair = total[m][n] + 2 * i;
                *(uint32_t *)(to + n * 8 + lane % 4 * 2) = bf16_pair(pair[0] / all, pair[1] / all);
            }
        }
}

/* HEADS heads of a token. The keys are read twice: first for each head's largest logit, then for
 * the probabilities relative to it; so probabilities are rounded as if all keys were present at
 * once. Logits are computed again, as there is no room to keep them. */
template <typename S>
static __global__ void __launch_bounds__(S::THREADS, 1)
    attend_token(struct mat o, struct mat q, struct keys keys, struct mat sink, float scale)
{
    extern __shared__ __align__(16) char memory[];
    struct attend_room<S> *room = (struct attend_room<S> *)memory;
    uint64_t token = blockIdx.x;
    unsigned first_head = blockIdx.y * S::HEADS, warp = threadIdx.x / WARP, half = warp % 2;
    unsigned row = warp / 2 * 16 + threadIdx.x % WARP / 4; /* of this lane's logits, and 8 below */
    struct sight s = sight_of(keys, token);
    unsigned tiles = (s.count + KEYS - 1) / KEYS, fetched = 0;
    uint32_t query[S::STEPS][4];
    for (; fetched < S::STAGES - 1; fetched++) {
        if (fetched < 2 * tiles)
            fetch_keys(room, fetched, s, fetched % tiles * KEYS);
        copy_commit();
    }
    load_queries<S>(query, bf16_row(q, token) + (uint64_t)first_head * S::WIDTH,
                    (unsigned)sink.cols - first_head);
    float most[2] = {-INFINITY, -INFINITY}, sum[2] = {}, total[S::PAIRS][S::COLS / 8][4] = {};
    for (unsigned turn = 0; turn < 2 * tiles; turn++, fetched++) {
        unsigned stage = turn % S::STAGES;
        copy_wait_but<S::STAGES - 2>();
        __syncthreads(); /* the tile is complete, and the previous one may be overwritten */
        if (fetched < 2 * tiles)
            fetch_keys(room, fetched % S::STAGES, s, fetched % tiles * KEYS);
        copy_commit();     /* perhaps of nothing, so that the groups in flight are as many */
        if (turn == tiles) /* the second pass begins */
            share_most(most, room, row, half);
        float logit[2][4];
        logits_of(logit, query, room, stage, scale);
        if (turn < tiles) {
            for (unsigned i = 0; i < 8; i++)
                most[i / 2 % 2] = fmaxf(most[i / 2 % 2], logit[i / 4][i % 4]);
            continue;
        }
        put_probabilities(room, sum, logit, most, row, half);
        __syncthreads();
        add_values(total, room, room->key[stage]);
    }
    share_sums(room, sum, most, row, half);
    put_output(o, room, total, sink, first_head);
}

template <typename S>
static void attend_as(struct gpu *gpu, struct mat o, struct mat q, const struct keys *keys,
                      struct mat sink, float scale)
{
    size_t room = sizeof(struct attend_room<S>);
    dim3 jobs((unsigned)q.rows, (unsigned)((sink.cols + S::HEADS - 1) / S::HEADS));
    gpu_allow_shared((const void *)attend_token<S>, room);
    attend_token<S><<<jobs, S::THREADS, room, gpu->stream>>>(o, q, *keys, sink, scale);
    gpu_check(cudaGetLastError(), "attention");
}

static void attend(struct device *d, struct mat o, struct mat q, const struct keys *keys,
                   struct mat sink, float scale, const struct attended *then)
{
    struct gpu *gpu = gpu_of(d);
    uint64_t width = q.cols / sink.cols;
    if (!q.rows || gpu_attend_hopper(gpu, o, q, keys, sink, scale, then))
        return;
    if (width == 512) /* two tiles fit into the 99 KiB that every GPU from sm_90 on has */
        attend_as<attend_shape<512, 64, 2>>(gpu, o, q, keys, sink, scale);
    else if (width == 256)
        attend_as<attend_shape<256, 64, 4>>(gpu, o, q, keys, sink, scale);
    else if (width == 128)
        attend_as<attend_shape<128, 64, 4>>(gpu, o, q, keys, sink, scale);
    else if (width == 64)
        attend_as<attend_shape<64, 32, 4>>(gpu, o, q, keys, sink, scale);
    else
        die("CUDA: attention heads must have 64, 128, 256 or 512 columns, not %d", (int)width);
    device_attended(d, o, keys, width, then);
}

void gpu_attention(struct device *d)
{
    d->pool = pool;
    d->select = select_blocks;
    d->attend = attend;
}
