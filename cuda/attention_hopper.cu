/* The GPU as a device: attention by the asynchronous matrix instructions of sm_90a, for heads of
 * 512 columns. As in attention.cu, a token's heads are the rows of products, and nothing else has a
 * part in its result. Unlike there, keys are read once, 64 at a time: probabilities are rounded
 * relative to the largest logit so far, and what was summed before is scaled down when a larger one
 * comes. So does the reference's own kernel.
 *
 * Sources: the PTX manual, wgmma.mma_async: layouts in shared memory and of fragments, matrix
 * descriptors; DeepSeek-V4's inference/kernel.py, sparse attention. */
#include "sight.cuh"

enum {
    WIDTH = 512,
    HEADS = 64, /* the rows of an instruction */
    KEYS = 64,  /* a tile's */
    GROUPS = 2, /* of four warps, which issue an instruction together */
    GROUP = 4 * WARP,
    THREADS = GROUPS * GROUP,
    COLS = WIDTH / GROUPS,  /* of the output, for each group */
    LOGITS = KEYS / GROUPS, /* of a head, for each group */
    PANEL = 64,             /* columns of a matrix that lie together: 128 bytes a row */
    STEP = 16,              /* columns of the left side, per instruction */
    EIGHTS = WIDTH / EIGHT
};

/* Matrices of 64 rows: one panel of 64 columns after the other. Groups of eight columns are
 * permuted within a row, as the matrix instructions want it ("128-byte swizzle"), for which a
 * matrix begins at a multiple of 1024 bytes. */
struct hopper_room {
    uint16_t q[HEADS * WIDTH];
    uint16_t key[2][KEYS * WIDTH]; /* one is filled while the other is multiplied */
    uint16_t p[HEADS * KEYS];
    float most[HEADS][GROUPS], sum[HEADS][GROUPS]; /* of a group's keys */
    uint32_t there[2][2];                          /* a bit for each key of a tile that exists */
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

static __device__ uint16_t *panel_at(uint16_t *m, unsigned row, unsigned col)
{
    return m + col / PANEL * (PANEL * 64) + row * PANEL +
           ((col / EIGHT % EIGHT) ^ (row & 7)) * EIGHT + col % EIGHT;
}

/* ---- matrix instructions ---- */

/* Eight rows of a panel are 1024 bytes. `panels`: the bytes from one panel to the next, where an
 * instruction takes several. */
static __device__ uint64_t describe(const uint16_t *m, unsigned panels)
{
    const uint64_t swizzle_128 = (uint64_t)1 << 62;
    return swizzle_128 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)(panels >> 4) << 16 |
           (shared_address(m) & 0x3ffff) >> 4;
}

static __device__ void fence_registers(void)
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

static __device__ void wait_for_products(void)
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
}

/* What was written to shared memory before is seen by matrix instructions after the next barrier.
 */
static __device__ void publish(void)
{
    asm volatile("fence.proxy.async;" ::: "memory");
}

#define F4(c, i) "+f"((c)[i]), "+f"((c)[(i) + 1]), "+f"((c)[(i) + 2]), "+f"((c)[(i) + 3])
#define F16(c, i) F4(c, i), F4(c, (i) + 4), F4(c, (i) + 8), F4(c, (i) + 12)

/* c [64, 32] += a [64, 16] · b [32, 16]ᵀ. */
static __device__ void multiply_keys(float *c, uint64_t a, uint64_t b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 "
                 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15}, %16, %17, 1, 1, 1, 0, 0;"
                 : F16(c, 0)
                 : "l"(a), "l"(b));
}

/* c [64, 128] += a [64, 16] · b [16, 128]. */
static __device__ void multiply_values(float *c, uint64_t a, uint64_t b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
                 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
                 "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
                 "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
                 "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}, "
                 "%64, %65, 1, 1, 1, 0, 1;"
                 : F16(c, 0), F16(c, 16), F16(c, 32), F16(c, 48)
                 : "l"(a), "l"(b));
}

/* ---- a tile ---- */

/* The keys that a warp's lanes look up for a tile, NULL where there is none, and some key. */
struct looked_up {
    const uint16_t *key[2], *any;
};

static __device__ struct looked_up look_up(const struct sight &s, unsigned first)
{
    unsigned lane = threadIdx.x % WARP;
    return {{key_at(s, first + lane), key_at(s, first + WARP + lane)}, s.window};
}

/* Begin to copy a tile of keys. A warp copies half of every fourth row. */
static __device__ void fetch_tile(struct hopper_room *room, unsigned stage,
                                  const struct looked_up &own)
{
    unsigned first = threadIdx.x / WARP / 2;
    unsigned col = (threadIdx.x / WARP % 2 * WARP + threadIdx.x % WARP) * EIGHT;
    uint16_t *even =
        panel_at(room->key[stage], first, col); /* eight rows on, it is the same again */
    uint16_t *odd = panel_at(room->key[stage], first + 4, col);
#pragma unroll
    for (unsigned part = 0; part < 2; part++) {
        const uint16_t *key = own.key[part];
        uint32_t there = __ballot_sync(~0U, key != NULL);
        uint64_t address = (uint64_t)(key ? key : own.any);
        if (threadIdx.x == 0)
            room->there[stage][part] = there;
        there >>= first;
#pragma unroll
        for (unsigned i = 0; i < WARP; i += 4)
            copy_async((i % 8 ? odd : even) + (part * WARP + i / 8 * 8) * PANEL,
                       (const uint16_t *)__shfl_sync(~0U, address, i + first) + col,
                       there >> i & 1);
    }
    copy_commit();
}

/* Begin to copy a token's queries, of its heads from `first` on. */
static __device__ void fetch_queries(struct hopper_room *room, const uint16_t *q, unsigned first,
                                     unsigned heads)
{
    for (unsigned i = threadIdx.x; i < HEADS * EIGHTS; i += THREADS) {
        unsigned head = first + i / EIGHTS, col = i % EIGHTS * EIGHT;
        copy_async(panel_at(room->q, i / EIGHTS, col), q + (head < heads ? head * WIDTH + col : 0),
                   head < heads);
    }
    copy_commit();
}

/* The logits of all heads and a group's keys of a tile, times scale; -infinity where there is no
 * key. */
static __device__ void logits_of(float *logit, struct hopper_room *room, unsigned stage,
                                 float scale)
{
    unsigned group = threadIdx.x / GROUP, lane = threadIdx.x % WARP;
#pragma unroll
    for (unsigned i = 0; i < LOGITS / 2; i++)
        logit[i] = 0;
    fence_registers();
#pragma unroll
    for (unsigned k = 0; k < WIDTH; k += STEP) {
        unsigned at = k / PANEL * (PANEL * 64) + k % PANEL;
        multiply_keys(logit, describe(room->q + at, 16),
                      describe(room->key[stage] + at + group * LOGITS * PANEL, 16));
    }
    wait_for_products();
    uint32_t there = room->there[stage][group];
#pragma unroll
    for (unsigned i = 0; i < LOGITS / 2; i++) {
        bool is_there = there >> (i / 4 * 8 + lane % 4 * 2 + i % 2) & 1;
        logit[i] = is_there ? logit[i] * scale : -INFINITY;
    }
}

/* Two values as BF16, the first in the lower half. */
static __device__ uint32_t rounded(float low, float high)
{
    uint32_t both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}

/* Probabilities relative to the largest logits of a lane's two rows: rounded to shared memory, and
 * added to the sums. */
static __device__ void put_probabilities(struct hopper_room *room, float *sum, const float *logit,
                                         const float *most, unsigned row)
{
    unsigned col = threadIdx.x / GROUP * LOGITS + threadIdx.x % 4 * 2;
#pragma unroll
    for (unsigned n = 0; n < LOGITS / 8; n++)
#pragma unroll
        for (unsigned i = 0; i < 2; i++) {
            float low = expf(logit[n * 4 + 2 * i] - most[i]);
            float high = expf(logit[n * 4 + 2 * i + 1] - most[i]);
            sum[i] += low;
            sum[i] += high;
            *(uint32_t *)panel_at(room->p, row + 8 * i, col + n * 8) = rounded(low, high);
        }
}

/* total += p · tile, for a group's columns. */
static __device__ void add_values(float *total, struct hopper_room *room, unsigned stage)
{
    const uint16_t *tile = room->key[stage] + threadIdx.x / GROUP * COLS * KEYS;
    fence_registers();
#pragma unroll
    for (unsigned k = 0; k < KEYS; k += STEP)
#pragma unroll
        for (unsigned n = 0; n < 2; n++)
            multiply_values(total + n * (COLS / 4), describe(room->p + k, 16),
                            describe(tile + n * (COLS / 2) * KEYS + k * PANEL,
                                     PANEL * KEYS * sizeof(uint16_t)));
    wait_for_products();
}

/* ---- a token ---- */

/* Put what a lane has of its two rows where all groups see it. */
static __device__ void share(float (*to)[GROUPS], const float *value, unsigned row)
{
    if (threadIdx.x % 4 == 0)
        for (unsigned i = 0; i < 2; i++)
            to[row + 8 * i][threadIdx.x / GROUP] = value[i];
}

/* What a lane has of heads: of row `row`, its first, and of the one 8 below. */
struct lane {
    unsigned row;
    float most[2], sum[2], total[COLS / 2];
};

/* The largest logits of a lane's rows so far, from those of a tile; what is relative to the
 * previous ones is scaled down. */
static __device__ __forceinline__ void raise_most(struct lane &own, struct hopper_room *room,
                                                  const float *logit)
{
    float most[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (unsigned i = 0; i < LOGITS / 2; i++)
        most[i / 2 % 2] = fmaxf(most[i / 2 % 2], logit[i]);
    for (unsigned i = 0; i < 2; i++)
        most[i] = quad_max(most[i]);
    share(room->most, most, own.row);
    __syncthreads();
#pragma unroll
    for (unsigned i = 0; i < 2; i++) {
        const float *of = room->most[own.row + 8 * i];
        float raised = fmaxf(own.most[i], fmaxf(of[0], of[1]));
        float factor = expf(own.most[i] - raised); /* 0 for the first tile, which has a key */
        own.most[i] = raised;
        own.sum[i] *= factor;
#pragma unroll
        for (unsigned n = 0; n < COLS / 8; n++) {
            own.total[n * 4 + 2 * i] *= factor;
            own.total[n * 4 + 2 * i + 1] *= factor;
        }
    }
}

/* What a thread block does at a time: HEADS of a token's heads from `head` on. */
struct job {
    uint64_t token;
    unsigned head;
    struct sight sight;
};

/* All keys of a job, of which the first tile is on its way to stage `turn`. Those of the next job,
 * if there is one, and its queries are on their way afterwards. */
static __device__ __forceinline__ void attend_keys(struct lane &own, struct hopper_room *room,
                                                   unsigned &turn, const struct sight &s,
                                                   const struct job &next, const struct mat &q,
                                                   unsigned heads, float scale)
{
    bool more = next.token < q.rows;
    for (unsigned first = 0; first < s.count; turn ^= 1, first += KEYS) {
        bool last = first + KEYS >= s.count;
        struct looked_up keys = last ? look_up(next.sight, 0) : look_up(s, first + KEYS);
        copy_wait();
        publish();
        __syncthreads(); /* the tile is complete, and the previous one may be overwritten */
        if (!last || more)
            fetch_tile(room, turn ^ 1, keys);
        float logit[LOGITS / 2];
        logits_of(logit, room, turn, scale);
        raise_most(own, room, logit); /* all threads are done with the queries */
        if (last && more)
            fetch_queries(room, bf16_row(q, next.token), next.head, heads);
        put_probabilities(room, own.sum, logit, own.most, own.row);
        publish();
        __syncthreads();
        add_values(own.total, room, turn);
    }
}

/* x / y, given 1 / y: rounded like a quotient after a step of Newton's. */
static __device__ float quotient(float x, float y, float inverse)
{
    float q = x * inverse;
    return __fmaf_rn(__fmaf_rn(-q, y, x), inverse, q);
}

/* The last step of a pair of columns: rotate it back, rounded before and after. */
static __device__ __forceinline__ uint32_t rotated_back(uint32_t pair, const float *angle)
{
    float a = bf16_to_f32((uint16_t)pair), b = bf16_to_f32((uint16_t)(pair >> 16));
    float cosine = angle[0], sine = -angle[1];
    return rounded(a * cosine - b * sine, a * sine + b * cosine);
}

/* The output, gathered in a stage that is free. Returns the largest magnitudes, see most_of(). */
static __device__ __forceinline__ uint32_t put_output(const struct lane &own, const struct mat &o,
                                                      struct hopper_room *room, unsigned stage,
                                                      const struct mat &sink, const struct job &job,
                                                      const float *angle, unsigned turned)
{
    unsigned heads = (unsigned)sink.cols;
#pragma unroll
    for (unsigned i = 0; i < 2; i++) {
        unsigned row = own.row + 8 * i, col = threadIdx.x / GROUP * COLS + threadIdx.x % 4 * 2;
        float last = expf(f32_row(sink, 0)[min(job.head + row, heads - 1)] - own.most[i]);
        float all = room->sum[row][0] + room->sum[row][1] + last, part = 1 / all;
#pragma unroll
        for (unsigned n = 0; n < COLS / 8; n++) {
            const float *total = own.total + n * 4 + 2 * i;
            unsigned at = col + n * 8;
            uint32_t pair = rounded(quotient(total[0], all, part), quotient(total[1], all, part));
            if (at >= WIDTH - turned)
                pair = rotated_back(pair, angle + (at - (WIDTH - turned)));
            *(uint32_t *)panel_at(room->key[stage], row, at) = pair;
        }
    }
    __syncthreads();
    uint16_t *to = bf16_row(o, job.token) + (uint64_t)job.head * WIDTH;
    uint32_t most = 0;
    for (unsigned i = threadIdx.x; i < min(HEADS, heads - job.head) * EIGHTS; i += THREADS) {
        struct eight codes =
            load_codes(panel_at(room->key[stage], i / EIGHTS, i % EIGHTS * EIGHT), EIGHT);
        store_codes(to + i * EIGHT, codes, EIGHT);
        most = most_of(most, codes);
    }
    return most;
}

static __device__ struct job job_after(const struct job &job, const struct keys &keys,
                                       uint64_t tokens, unsigned heads)
{
    struct job next = job;
    next.head += HEADS;
    if (next.head < heads)
        return next;
    next.head = 0;
    next.token += gridDim.x;
    next.sight.count = 0;
    if (next.token < tokens)
        next.sight = sight_of(keys, next.token);
    return next;
}

/* All heads of every gridDim.x-th token. A token's first keys and its queries arrive while the
 * previous one's last keys are multiplied, and its output is written. */
static __device__ void attend_tokens(struct hopper_room *room, const struct mat &o,
                                     const struct mat &q, const struct keys &keys,
                                     const struct mat &sink, float scale,
                                     const struct attended &then)
{
    unsigned heads = (unsigned)sink.cols, turn = 0;
    unsigned turned = then.table.rows ? (unsigned)then.table.cols : 0;
    uint32_t most = 0;
    struct job job = {blockIdx.x, 0, sight_of(keys, blockIdx.x)};
    fetch_queries(room, bf16_row(q, job.token), 0, heads);
    fetch_tile(room, 0, look_up(job.sight, 0));
    while (job.token < q.rows) {
        struct job next = job_after(job, keys, q.rows, heads);
        struct lane own = {threadIdx.x % GROUP / WARP * 16 + threadIdx.x % WARP / 4,
                           {-INFINITY, -INFINITY}};
        attend_keys(own, room, turn, job.sight, next, q, heads, scale);
        for (unsigned i = 0; i < 2; i++)
            own.sum[i] = quad_sum(own.sum[i]);
        share(room->sum, own.sum, own.row);
        __syncthreads();
        const float *angle =
            turned ? f32_row(then.table, (uint64_t)*i32_row(keys.position, job.token)) : NULL;
        most = __vmaxu2(most, put_output(own, o, room, turn ^ 1, sink, job, angle, turned));
        job = next;
    }
    if (then.seen.rows)
        keep_most((uint32_t *)then.seen.at, larger_of(most));
}

#endif

static __global__ void __launch_bounds__(THREADS, 1)
    attend_hopper(struct mat o, struct mat q, struct keys keys, struct mat sink, float scale,
                  struct attended then)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ __align__(1024) char memory[];
    attend_tokens((struct hopper_room *)memory, o, q, keys, sink, scale, then);
#endif
}

static int attribute(const struct gpu *gpu, enum cudaDeviceAttr which)
{
    int value;
    gpu_check(cudaDeviceGetAttribute(&value, which, gpu->number), "device");
    return value;
}

bool gpu_attend_hopper(struct gpu *gpu, struct mat o, struct mat q, const struct keys *keys,
                       struct mat sink, float scale, const struct attended *then)
{
    if (attribute(gpu, cudaDevAttrComputeCapabilityMajor) != 9 ||
        attribute(gpu, cudaDevAttrComputeCapabilityMinor) != 0 || q.cols != sink.cols * WIDTH)
        return false;
    size_t room = sizeof(struct hopper_room);
    uint64_t processors = (uint64_t)attribute(gpu, cudaDevAttrMultiProcessorCount);
    unsigned blocks = (unsigned)min(q.rows, processors);
    gpu_allow_shared((const void *)attend_hopper, room);
    attend_hopper<<<blocks, THREADS, room, gpu->stream>>>(o, q, *keys, sink, scale, *then);
    gpu_check(cudaGetLastError(), "attention");
    return true;
}
