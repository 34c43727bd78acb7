/* sight.cuh: which keys a token sees, for the kernels of attention. */
#ifndef SIGHT_CUH
#define SIGHT_CUH

#include "gpu.cuh"

/* How many blocks of its sample a token can see: those that end at or before it. */
static __device__ inline unsigned blocks_before(const struct keys &keys, uint64_t token)
{
    return keys.ratio ? (unsigned)(*i32_row(keys.position, token) + 1) / (unsigned)keys.ratio : 0;
}

/* One token's keys: the window's, then blocks', some of which may be absent. */
struct sight {
    const uint16_t *window, *block; /* the first key of the window; of the sample's blocks */
    uint64_t window_stride, block_stride;
    unsigned seen, count;    /* keys in the window; in all */
    const int32_t *selected; /* or NULL: all blocks in order */
};

static __device__ inline const uint16_t *key_at(const struct sight &s, unsigned i)
{
    if (i >= s.count)
        return NULL;
    if (i < s.seen)
        return s.window + i * s.window_stride;
    int32_t block = s.selected ? s.selected[i - s.seen] : (int32_t)(i - s.seen);
    return block < 0 ? NULL : s.block + (uint64_t)block * s.block_stride;
}

static __device__ inline struct sight sight_of(const struct keys &keys, uint64_t token)
{
    unsigned position = (unsigned)*i32_row(keys.position, token);
    unsigned seen = position + 1 < keys.sliding ? position + 1 : (unsigned)keys.sliding;
    unsigned blocks = keys.selected.cols ? 0 : blocks_before(keys, token);
    struct sight s = {};
    if (keys.ratio && keys.selected.cols) {
        s.selected = i32_row(keys.selected, token);
        for (unsigned i = threadIdx.x % WARP; i < keys.selected.cols; i += WARP)
            blocks = s.selected[i] >= 0 ? i + 1 : blocks;
        blocks = warp_max((uint32_t)blocks); /* the rest is padding */
    }
    s.window = bf16_row(keys.window, token + 1 - seen);
    s.window_stride = keys.window.stride;
    if (blocks)
        s.block = bf16_row(keys.compressed, (uint64_t)*i32_row(keys.block, token));
    s.block_stride = keys.compressed.stride;
    s.seen = seen;
    s.count = seen + blocks;
    return s;
}

/* The maximum and the sum over the four lanes of a row. */
static __device__ inline float quad_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(~0U, x, 1));
    return fmaxf(x, __shfl_xor_sync(~0U, x, 2));
}

static __device__ inline float quad_sum(float x)
{
    x += __shfl_xor_sync(~0U, x, 1);
    return x + __shfl_xor_sync(~0U, x, 2);
}

#endif
