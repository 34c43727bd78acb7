/* The GPU as a device: causal attention in BF16 steps. A thread block computes a head of ROWS
 * neighbouring tokens of a sample, which are the rows of products with KEYS keys at a time. A tile
 * begins at a multiple of ROWS in its sample, and tiles of keys at the sample's first token; so a
 * token's result depends on its own sample alone. */
#include "gpu.cuh"

#include <mma.h>

using namespace nvcuda;

/* VALUE_TILES: 16 columns of values each, for each warp. PAD: against bank conflicts. */
enum { ROWS = 16, KEYS = 32, THREADS = 128, WARPS = THREADS / WARP, VALUE_TILES = 8, PAD = 8 };
enum { LANES = THREADS / ROWS }; /* threads for a row's sums */

/* Bytes of rounded logits at a time. */
static const uint64_t LOGITS_MOST = 512 << 20;

/* Shared memory, in front of the two operands' tiles. */
struct causal_room {
    float logit[2][ROWS][KEYS];
    uint16_t p[ROWS][KEYS + PAD];
    float most[ROWS], sum[ROWS];
    uint32_t seen[ROWS];   /* a bit for each key of a tile */
    uint64_t listed[ROWS]; /* how many of the selected keys were met */
};

/* A head's columns of `there` rows from `first` on, and zeros for those beyond, up to `rows`. */
static __device__ void take(uint16_t *to, unsigned stride, const struct head_cols &from,
                            unsigned head, uint64_t first, unsigned there, unsigned rows)
{
    unsigned eights = (unsigned)from.width / EIGHT;
    uint64_t own = from.first + head * from.step;
    for (unsigned i = threadIdx.x; i < rows * eights; i += THREADS) {
        unsigned row = i / eights, col = i % eights * EIGHT;
        struct eight codes = {};
        if (row < there)
            codes = load_codes(bf16_row(from.of, first + row) + own + col, EIGHT);
        store_codes(to + row * stride + col, codes, EIGHT);
    }
}

/* Tokens of the tile that begins at `token`. */
static __device__ unsigned rows_of(const struct causal &c, uint64_t token, int32_t position)
{
    unsigned rows = 1;
    while (rows < ROWS && token + rows < c.position.rows &&
           *i32_row(c.position, token + rows) == position + (int32_t)rows)
        rows++;
    return rows;
}

/* Which of the keys from `first` on each of the tile's tokens sees. */
static __device__ void look(struct causal_room *room, const struct causal &c, uint64_t token,
                            unsigned rows, int32_t position, int32_t first)
{
    unsigned i = threadIdx.x;
    if (i >= rows)
        return;
    int32_t count = position + (int32_t)i + 1 - first; /* keys up to the token itself */
    uint32_t causal = count >= KEYS ? ~0U : count > 0 ? (1U << count) - 1 : 0, listed = 0;
    const int32_t *selected = i32_row(c.selected, token + i);
    for (uint64_t &at = room->listed[i]; at < c.selected.cols; at++) {
        int32_t key = selected[at];
        if (key < 0 || key >= first + KEYS)
            break;
        listed |= 1U << (key - first);
    }
    room->seen[i] = c.selected.cols ? causal & listed : causal;
}

/* logit[part] = the products of queries and keys: two warps for each part, 16 keys each. */
static __device__ void multiply(struct causal_room *room, const struct causal &c, const uint16_t *q,
                                const uint16_t *key, unsigned stride)
{
    unsigned warp = threadIdx.x / WARP, part = warp / 2, first = warp % 2 * 16;
    unsigned width = (unsigned)c.key[part].width, begin = part ? (unsigned)c.key[0].width : 0;
    wmma::fragment<wmma::matrix_a, 16, 16, 16, __nv_bfloat16, wmma::row_major> a;
    wmma::fragment<wmma::matrix_b, 16, 16, 16, __nv_bfloat16, wmma::col_major> b;
    wmma::fragment<wmma::accumulator, 16, 16, 16, float> sum;
    wmma::fill_fragment(sum, 0);
    for (unsigned k = begin; k < begin + width; k += 16) {
        wmma::load_matrix_sync(a, (const __nv_bfloat16 *)(q + k), stride);
        wmma::load_matrix_sync(b, (const __nv_bfloat16 *)(key + first * stride + k), stride);
        wmma::mma_sync(sum, a, b, sum);
    }
    wmma::store_matrix_sync(&room->logit[part][0][first], sum, KEYS, wmma::mem_row_major);
}

/* Scale and round the logits of a tile of keys, of which `keys` are there. */
static __device__ void put_logits(const struct causal_room *room, const struct causal &c,
                                  uint16_t *logits, uint64_t stride, unsigned rows, unsigned first,
                                  unsigned keys)
{
    for (unsigned k = threadIdx.x; k < ROWS * KEYS; k += THREADS) {
        unsigned i = k / KEYS, j = k % KEYS;
        float a = room->logit[0][i][j], b = room->logit[1][i][j];
        float sum = c.rounds_parts ? to_bf16(a) + to_bf16(b) : a + b;
        float logit = room->seen[i] >> j & 1 ? to_bf16(sum) * c.scale : -INFINITY;
        if (i < rows && j < keys)
            logits[i * stride + first + j] = bf16_from_f32(logit);
    }
}

/* The largest logit of each row, and the sum of exp relative to it. */
static __device__ void add_up(struct causal_room *room, const uint16_t *logits, uint64_t stride,
                              unsigned rows, unsigned keys)
{
    unsigned i = threadIdx.x / LANES, lane = threadIdx.x % LANES;
    const uint16_t *logit = logits + (i < rows ? i : 0) * stride;
    float most = -INFINITY, sum = 0;
    for (unsigned j = lane; j < keys; j += LANES)
        most = fmaxf(most, bf16_to_f32(logit[j]));
    for (unsigned step = LANES / 2; step; step /= 2)
        most = fmaxf(most, __shfl_xor_sync(~0U, most, step));
    for (unsigned j = lane; j < keys; j += LANES)
        sum += expf(bf16_to_f32(logit[j]) - most);
    for (unsigned step = LANES / 2; step; step /= 2)
        sum += __shfl_xor_sync(~0U, sum, step);
    room->most[i] = most;
    room->sum[i] = sum;
}

static __device__ void put_probabilities(struct causal_room *room, const uint16_t *logits,
                                         uint64_t stride, unsigned rows, unsigned first,
                                         unsigned keys)
{
    for (unsigned k = threadIdx.x; k < ROWS * KEYS; k += THREADS) {
        unsigned i = k / KEYS, j = k % KEYS;
        float p = 0;
        if (i < rows && j < keys)
            p = expf(bf16_to_f32(logits[i * stride + first + j]) - room->most[i]) / room->sum[i];
        room->p[i][j] = bf16_from_f32(p);
    }
}

/* A warp's columns of the output: every WARPS-th 16. */
typedef wmma::fragment<wmma::accumulator, 16, 16, 16, float> total_t;

static __device__ void add_values(total_t *total, const struct causal_room *room,
                                  const uint16_t *value, unsigned stride, unsigned width)
{
    wmma::fragment<wmma::matrix_a, 16, 16, 16, __nv_bfloat16, wmma::row_major> a;
    wmma::fragment<wmma::matrix_b, 16, 16, 16, __nv_bfloat16, wmma::row_major> b;
    for (unsigned k = 0; k < KEYS; k += 16) {
        wmma::load_matrix_sync(a, (const __nv_bfloat16 *)&room->p[0][k], KEYS + PAD);
#pragma unroll
        for (unsigned t = 0; t < VALUE_TILES; t++) {
            unsigned col = (t * WARPS + threadIdx.x / WARP) * 16;
            if (col < width) {
                wmma::load_matrix_sync(b, (const __nv_bfloat16 *)(value + k * stride + col),
                                       stride);
                wmma::mma_sync(total[t], a, b, total[t]);
            }
        }
    }
}

static __device__ void put_output(const struct mat &o, const total_t *total, float *room,
                                  uint64_t token, unsigned rows, unsigned head, unsigned width)
{
#pragma unroll
    for (unsigned t = 0; t < VALUE_TILES; t++) {
        unsigned col = (t * WARPS + threadIdx.x / WARP) * 16;
        if (col < width)
            wmma::store_matrix_sync(room + col, total[t], width, wmma::mem_row_major);
    }
    __syncthreads();
    for (unsigned k = threadIdx.x; k < rows * width; k += THREADS)
        bf16_row(o, token + k / width)[head * width + k % width] = bf16_from_f32(room[k]);
}

/* `logits`: for each token from `first_token` on and each head, `stride` of them. `wide`: columns
 * of a row of queries or keys in shared memory. */
static __global__ void __launch_bounds__(THREADS)
    causal_tile(struct mat o, struct causal c, uint16_t *logits, uint64_t stride,
                uint64_t first_token, unsigned wide)
{
    extern __shared__ __align__(32) char memory[];
    uint64_t token = first_token + blockIdx.x;
    int32_t position = *i32_row(c.position, token);
    if (position % ROWS)
        return;
    struct causal_room *room = (struct causal_room *)memory;
    uint16_t *q = (uint16_t *)(memory + (sizeof *room + 31) / 32 * 32), *tile = q + ROWS * wide;
    unsigned head = blockIdx.y, width = (unsigned)c.value.width, both = (unsigned)c.key[0].width;
    unsigned rows = rows_of(c, token, position), keys = (unsigned)position + rows;
    uint64_t sample = (uint64_t)*i32_row(c.first, token), apart = c.heads * stride;
    logits += ((uint64_t)blockIdx.x * c.heads + head) * stride;
    if (threadIdx.x < ROWS)
        room->listed[threadIdx.x] = room->seen[threadIdx.x] = 0;
    take(q, wide, c.q[0], head, token, rows, ROWS);
    take(q + both, wide, c.q[1], head, token, rows, ROWS);
    for (unsigned first = 0; first < keys; first += KEYS) {
        unsigned there = min(keys - first, (unsigned)KEYS);
        __syncthreads();
        take(tile, wide, c.key[0], head, sample + first, there, KEYS);
        take(tile + both, wide, c.key[1], head, sample + first, there, KEYS);
        look(room, c, token, rows, position, (int32_t)first);
        __syncthreads();
        multiply(room, c, q, tile, wide);
        __syncthreads();
        put_logits(room, c, logits, apart, rows, first, there);
    }
    __syncthreads();
    add_up(room, logits, apart, rows, keys);
    total_t total[VALUE_TILES];
#pragma unroll
    for (unsigned t = 0; t < VALUE_TILES; t++)
        wmma::fill_fragment(total[t], 0);
    for (unsigned first = 0; first < keys; first += KEYS) {
        unsigned there = min(keys - first, (unsigned)KEYS);
        __syncthreads();
        take(tile, width + PAD, c.value, head, sample + first, there, KEYS);
        put_probabilities(room, logits, apart, rows, first, there);
        __syncthreads();
        add_values(total, room, tile, width + PAD, width);
    }
    __syncthreads();
    put_output(o, total, (float *)tile, token, rows, head, width);
}

static void check_widths(const struct causal *c)
{
    const uint64_t width[] = {c->key[0].width, c->key[1].width, c->value.width};
    for (unsigned i = 0; i < 3; i++)
        if (width[i] % 16 || width[i] > VALUE_TILES * WARPS * 16)
            die("CUDA: the parts of attention heads must have a multiple of 16 columns, up to %d, "
                "not %d",
                VALUE_TILES * WARPS * 16, (int)width[i]);
}

static void attend_causal(struct device *d, struct mat o, const struct causal *c)
{
    struct gpu *gpu = gpu_of(d);
    uint64_t tokens = c->position.rows, stride = c->longest;
    if (!tokens)
        return;
    check_widths(c);
    unsigned wide = (unsigned)(c->key[0].width + c->key[1].width) + PAD;
    unsigned value = (unsigned)c->value.width + PAD;
    size_t room = (sizeof(struct causal_room) + 31) / 32 * 32 +
                  (ROWS * wide + KEYS * (wide > value ? wide : value)) * sizeof(uint16_t);
    uint64_t most = LOGITS_MOST / (c->heads * stride * sizeof(uint16_t));
    most = most < ROWS ? (uint64_t)ROWS : most > tokens ? tokens : most;
    /* The last tile of a part has rows beyond it. */
    uint16_t *logits =
        (uint16_t *)gpu_alloc(gpu, (most + ROWS) * c->heads * stride, sizeof *logits);
    gpu_allow_shared((const void *)causal_tile, room);
    for (uint64_t first = 0; first < tokens; first += most) {
        dim3 jobs((unsigned)(tokens - first < most ? tokens - first : most), (unsigned)c->heads);
        causal_tile<<<jobs, THREADS, room, gpu->stream>>>(o, *c, logits, stride, first, wide);
        gpu_check(cudaGetLastError(), "causal attention");
    }
    gpu_free(gpu, logits);
}

void gpu_causal(struct device *d)
{
    d->attend_causal = attend_causal;
}
