/* The GPU as a device: attention by the asynchronous matrix instructions of sm_90a, for heads of
 * 512 columns. As in attention.cu, a token's heads are the rows of products, and nothing else has a
 * part in its result. Unlike there, keys are read once, 64 at a time: probabilities are rounded
 * relative to the largest logit so far, and what was summed before is scaled down when a larger one
 * comes. So does the reference's own kernel.
 *
 * Two groups of four warps have half of the output's columns each. Both compute all logits of a
 * tile, so that they wait for each other only once a tile, and probabilities stay in registers.
 *
 * Sources: the PTX manual, wgmma.mma_async: layouts in shared memory and of fragments, matrix
 * descriptors; stmatrix; DeepSeek-V4's inference/kernel.py, sparse attention. */
#include "sight.cuh"

enum {
    WIDTH = 512,
    HEADS = 64, /* the rows of an instruction */
    KEYS = 64,  /* a tile's */
    GROUPS = 2, /* of four warps, which issue an instruction together */
    GROUP = 4 * WARP,
    THREADS = GROUPS * GROUP,
    COLS = WIDTH / GROUPS, /* of the output, for each group */
    PANEL = 64,            /* columns of a matrix that lie together: 128 bytes a row */
    STEP = 16,             /* columns of the left side, per instruction */
    EIGHTS = WIDTH / EIGHT,
    OUT = 32 /* columns of the output that a warp writes at a time */
};

static constexpr float LOG2_E = 1.44269504088896340736f;

/* Matrices of 64 rows: one panel of 64 columns after the other. Groups of eight columns are
 * permuted within a row, as the matrix instructions want it ("128-byte swizzle"), for which a
 * matrix begins at a multiple of 1024 bytes. */
struct hopper_room {
    uint16_t q[HEADS * WIDTH];
    uint16_t key[2][KEYS * WIDTH];            /* one is filled while the other is multiplied */
    uint16_t out[THREADS / WARP][STEP * OUT]; /* a warp's output on its way */
    uint32_t there[2][2];                     /* a bit for each key of a tile that exists */
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

#define F64(c, i) F16(c, i), F16(c, (i) + 16), F16(c, (i) + 32), F16(c, (i) + 48)

/* c [64, 64] += a [64, 16] · b [64, 16]ᵀ. */
static __device__ void multiply_keys(float *c, uint64_t a, uint64_t b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
                 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
                 "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, "
                 "%32, %33, 1, 1, 1, 0, 0;"
                 : F16(c, 0), F16(c, 16)
                 : "l"(a), "l"(b));
}

/* c [64, 256] += a [64, 16] · b [16, 256], a in registers. */
static __device__ void multiply_values(float *c, const uint32_t *a, uint64_t b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 "
                 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
                 "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
                 "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
                 "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,"
                 "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,"
                 "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,"
                 "%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,"
                 "%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127},"
                 " {%128,%129,%130,%131}, %132, 1, 1, 1, 1;"
                 : F64(c, 0), F64(c, 64)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
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

/* The logits of all heads and a tile's keys, before they are scaled; -infinity where there is no
 * key. */
static __device__ __forceinline__ void logits_of(float *logit, const struct hopper_room *room,
                                                 unsigned stage)
{
    unsigned lane = threadIdx.x % WARP;
#pragma unroll
    for (unsigned i = 0; i < KEYS / 2; i++)
        logit[i] = 0;
    fence_registers();
#pragma unroll
    for (unsigned k = 0; k < WIDTH; k += STEP) {
        unsigned at = k / PANEL * (PANEL * 64) + k % PANEL;
        multiply_keys(logit, describe(room->q + at, 16), describe(room->key[stage] + at, 16));
    }
    wait_for_products();
#pragma unroll
    for (unsigned i = 0; i < KEYS / 2; i++) {
        unsigned key = i / 4 * 8 + i % 2;
        if (!(room->there[stage][key / WARP] >> (key % WARP + lane % 4 * 2) & 1))
            logit[i] = -INFINITY;
    }
}

/* 2^x; 2 units in the last place at most. */
static __device__ float power(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* ---- a token ---- */

/* What a lane has of heads: of row `row`, its first, and of the one 8 below. `most` is the largest
 * logit so far, as a power of 2; `sum`, of the lane's own keys. */
struct lane {
    unsigned row;
    float most[2], sum[2], total[COLS / 2];
};

/* The largest logits of a lane's rows so far, from those of a tile; what is relative to the
 * previous ones is scaled down. `scale`: of logits, for powers of 2. */
static __device__ __forceinline__ void raise_most(struct lane &own, const float *logit, float scale)
{
    float factor[2];
#pragma unroll
    for (unsigned i = 0; i < 2; i++) {
        float most = -INFINITY;
#pragma unroll
        for (unsigned n = 0; n < KEYS / 2; n += 4)
            most = fmaxf(most, fmaxf(logit[n + 2 * i], logit[n + 2 * i + 1]));
        most = fmaxf(own.most[i], quad_max(most) * scale);
        factor[i] = power(own.most[i] - most); /* 0 for the first tile, which has a key */
        own.most[i] = most;
        own.sum[i] *= factor[i];
    }
    if (!__any_sync(~0U, factor[0] != 1 || factor[1] != 1))
        return;
#pragma unroll
    for (unsigned n = 0; n < COLS / 2; n++)
        own.total[n] *= factor[n / 2 % 2];
}

/* Probabilities relative to the largest logits of a lane's two rows: added to the sums, and rounded
 * as the left sides of the next products. */
static __device__ __forceinline__ void probabilities_of(uint32_t (*p)[4], struct lane &own,
                                                        const float *logit, float scale)
{
#pragma unroll
    for (unsigned n = 0; n < KEYS / 2; n += 2) {
        unsigned i = n / 2 % 2;
        float low = power(__fmaf_rn(logit[n], scale, -own.most[i]));
        float high = power(__fmaf_rn(logit[n + 1], scale, -own.most[i]));
        own.sum[i] += low;
        own.sum[i] += high;
        p[n / 8][n / 2 % 4] = bf16_pair(low, high);
    }
}

/* total += p · tile, for a group's columns. */
static __device__ __forceinline__ void add_values(float *total, const uint32_t (*p)[4],
                                                  const struct hopper_room *room, unsigned stage)
{
    const uint16_t *tile = room->key[stage] + threadIdx.x / GROUP * COLS * KEYS;
    fence_registers();
#pragma unroll
    for (unsigned k = 0; k < KEYS / STEP; k++)
        multiply_values(total, p[k],
                        describe(tile + k * STEP * PANEL, PANEL * KEYS * sizeof(uint16_t)));
    wait_for_products();
}

/* What a thread block does at a time: HEADS of a token's heads from `head` on. */
struct job {
    uint64_t token;
    unsigned head;
    struct sight sight;
};

/* All keys of a job, of which the first tile is in stage `turn`, or on its way there; so are those
 * of the next job afterwards, and its queries. A token's jobs go through its keys in opposite
 * directions, so that the last two tiles of one are there for the next. */
static __device__ __forceinline__ void attend_keys(struct lane &own, struct hopper_room *room,
                                                   unsigned &turn, const struct job &job,
                                                   const struct job &next, const struct mat &q,
                                                   unsigned heads, float scale)
{
    unsigned tiles = (job.sight.count + KEYS - 1) / KEYS;
    bool back = job.head / HEADS % 2, more = next.token < q.rows, stays = next.token == job.token;
    for (unsigned i = 0; i < tiles; i++) {
        bool last = i + 1 == tiles, there = last ? stays || !more : job.head && i == 0;
        struct looked_up keys = last ? look_up(next.sight, 0)
                                     : look_up(job.sight, (back ? tiles - 2 - i : i + 1) * KEYS);
        copy_wait();
        publish();
        __syncthreads(); /* the tile is complete, and the previous one may be overwritten */
        if (!there)
            fetch_tile(room, turn ^ 1, keys);
        float logit[KEYS / 2];
        uint32_t p[KEYS / STEP][4];
        logits_of(logit, room, turn);
        raise_most(own, logit, scale);
        probabilities_of(p, own, logit, scale);
        if (last && more) {
            __syncthreads(); /* all threads are done with the queries */
            fetch_queries(room, bf16_row(q, next.token), next.head, heads);
        }
        add_values(own.total, p, room, turn);
        if (!last || !stays)
            turn ^= 1;
    }
}

/* x / y, given 1 / y: rounded like a quotient after a step of Newton's. */
static __device__ float quotient(float x, float y, float inverse)
{
    float q = x * inverse;
    return __fmaf_rn(__fmaf_rn(-q, y, x), inverse, q);
}

/* A pair of columns, rounded, rotated back, and rounded again. */
static __device__ uint32_t rotated_back(uint32_t pair, float2 angle)
{
    float a = bf16_to_f32((uint16_t)pair), b = bf16_to_f32((uint16_t)(pair >> 16));
    float cosine = angle.x, sine = -angle.y;
    return bf16_pair(a * cosine - b * sine, a * sine + b * cosine);
}

/* Eight columns of a warp's output. They are permuted within a row, so that all banks are used. */
static __device__ uint16_t *out_at(struct hopper_room *room, unsigned row, unsigned eight)
{
    return room->out[threadIdx.x / WARP] + row * OUT + (eight ^ (row / 2 % 4)) * EIGHT;
}

/* Store four matrices of 8 x 8: rows 0 to 7 and 8 to 15 of eight columns, and of the next eight. */
static __device__ void put_matrices(struct hopper_room *room, unsigned eight, const uint32_t *m)
{
    unsigned lane = threadIdx.x % WARP;
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(
                     shared_address(out_at(room, lane % 16, eight + lane / 16))),
                 "r"(m[0]), "r"(m[1]), "r"(m[2]), "r"(m[3])
                 : "memory");
}

/* What is left to do with a token's output: its sinks, and the angles by which its last columns are
 * rotated back. */
struct ending {
    float sink[2];
    const float *angle;
    unsigned turned; /* columns: a multiple of OUT */
};

/* Returns the largest magnitudes of the output, see most_of(). */
static __device__ __forceinline__ uint32_t put_output(struct lane &own, const struct mat &o,
                                                      struct hopper_room *room,
                                                      const struct job &job, unsigned heads,
                                                      const struct ending &ending)
{
    unsigned lane = threadIdx.x % WARP, first = threadIdx.x / GROUP * COLS;
    uint16_t *to = bf16_row(o, job.token) + (uint64_t)(job.head + own.row) * WIDTH + first;
    uint32_t most = 0;
    float all[2], part[2];
#pragma unroll
    for (unsigned i = 0; i < 2; i++) {
        all[i] = quad_sum(own.sum[i]) + power(ending.sink[i] - own.most[i]);
        part[i] = 1 / all[i];
    }
#pragma unroll
    for (unsigned n = 0; n < COLS; n += OUT) {
        uint32_t pair[OUT / 4];
#pragma unroll
        for (unsigned i = 0; i < OUT / 4; i++) {
            const float *total = own.total + n / 2 + i * 2;
            pair[i] = bf16_pair(quotient(total[0], all[i % 2], part[i % 2]),
                                quotient(total[1], all[i % 2], part[i % 2]));
        }
        if (first + n >= WIDTH - ending.turned) {
            const float *angle =
                ending.angle + (first + n - (WIDTH - ending.turned)) + lane % 4 * 2;
#pragma unroll
            for (unsigned i = 0; i < OUT / 4; i++)
                pair[i] = rotated_back(pair[i], *(const float2 *)(angle + i / 2 * 8));
        }
        __syncwarp();
        put_matrices(room, 0, pair);
        put_matrices(room, 2, pair + 4);
        __syncwarp();
#pragma unroll
        for (unsigned i = 0; i < 2; i++) {
            struct eight codes = load_codes(out_at(room, lane / 4 + 8 * i, lane % 4), EIGHT);
            if (job.head + own.row + 8 * i >= heads)
                continue;
            store_codes(to + i * 8 * WIDTH + n + lane % 4 * EIGHT, codes, EIGHT);
            most = most_of(most, codes);
        }
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

static __device__ struct ending ending_of(const struct job &job, const struct keys &keys,
                                          const struct mat &sink, const struct attended &then,
                                          unsigned row)
{
    unsigned last = (unsigned)sink.cols - 1;
    struct ending ending = {};
    for (unsigned i = 0; i < 2; i++)
        ending.sink[i] = f32_row(sink, 0)[min(job.head + row + 8 * i, last)] * LOG2_E;
    if (then.table.rows) {
        ending.angle = f32_row(then.table, (uint64_t)*i32_row(keys.position, job.token));
        ending.turned = (unsigned)then.table.cols;
    }
    return ending;
}

/* All heads of every gridDim.x-th token. A token's first keys and its queries arrive while the
 * previous one's last keys are multiplied, and its output is written. */
static __device__ void attend_tokens(struct hopper_room *room, const struct mat &o,
                                     const struct mat &q, const struct keys &keys,
                                     const struct mat &sink, float scale,
                                     const struct attended &then)
{
    unsigned heads = (unsigned)sink.cols, turn = 0;
    uint32_t most = 0;
    struct job job = {blockIdx.x, 0, sight_of(keys, blockIdx.x)};
    fetch_queries(room, bf16_row(q, job.token), 0, heads);
    fetch_tile(room, 0, look_up(job.sight, 0));
    while (job.token < q.rows) {
        struct job next = job_after(job, keys, q.rows, heads);
        struct lane own = {threadIdx.x % GROUP / WARP * 16 + threadIdx.x % WARP / 4,
                           {-INFINITY, -INFINITY}};
        struct ending ending = ending_of(job, keys, sink, then, own.row);
        attend_keys(own, room, turn, job, next, q, heads, scale);
        most = __vmaxu2(most, put_output(own, o, room, job, heads, ending));
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
        attribute(gpu, cudaDevAttrComputeCapabilityMinor) != 0 || q.cols != sink.cols * WIDTH ||
        then->table.cols % OUT)
        return false;
    size_t room = sizeof(struct hopper_room);
    uint64_t processors = (uint64_t)attribute(gpu, cudaDevAttrMultiProcessorCount);
    unsigned blocks = (unsigned)min(q.rows, processors);
    gpu_allow_shared((const void *)attend_hopper, room);
    attend_hopper<<<blocks, THREADS, room, gpu->stream>>>(o, q, *keys, sink, scale * LOG2_E, *then);
    gpu_check(cudaGetLastError(), "attention");
    return true;
}
