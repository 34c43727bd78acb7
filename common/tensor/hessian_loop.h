/* hessian_loop.h: the search of hessian_search.h, for each version to include. It defines before
 *
 *     TARGET                     an attribute of functions
 *     lanes                      HESSIAN_LANES F32s
 *     mask                       a truth value for each
 *     splat(x), load(p), store(p, x)
 *     plus, minus, times, over, least_of, most_of(x, y)
 *     magnitude(x), sign(x), power_of_two(x)   one part of its bits, the others 0
 *     flip(x, y)                 x with the sign changed where the sign of y is set
 *     less(x, y), both(m, n), without(m, n)
 *     where(m, x, y)             x where m, else y
 *     any(m), from_bits(b), to_bits(m)
 *     pick(p, index)             p[index]
 *
 * and gets search_row(). */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/vectors.h"
#include "tensor/bf16.h"
#include "tensor/e2m1.h"
#include "tensor/e4m3.h"
#include "tensor/scale_search.h"

/* HESSIAN_LANES blocks: by column of each (see block_moments), in units of scale_2. */
struct blocks {
    lanes m[NVFP4_BLOCK];     /* magnitudes */
    lanes sign[NVFP4_BLOCK];  /* of the weights: 0 or -0 */
    lanes zeros[NVFP4_BLOCK]; /* what each costs at least once it is rounded to 0 */
    lanes amax;               /* the largest magnitude */
    mask valid;               /* to be searched for */
    mask finite;
};

/* `count` blocks; the others are zeros. */
TARGET static inline void load_blocks(struct blocks *blocks, const uint16_t *w, size_t count,
                                      float unit, const struct block_moments *moments)
{
    const size_t all = (size_t)HESSIAN_LANES * NVFP4_BLOCK;
    float value[HESSIAN_LANES * NVFP4_BLOCK];
    for (size_t j = 0; j < count * NVFP4_BLOCK; j++)
        value[j] = bf16_to_f32(w[j]);
    for (size_t j = count * NVFP4_BLOCK; j < all; j++)
        value[j] = 0;
    lanes amax = splat(0), zeros = splat(0), most = splat(HESSIAN_MOST);
    for (size_t j = 0; j < NVFP4_BLOCK; j++) {
        lanes x = pick(value, moments->column[j]);
        zeros = plus(zeros, times(x, splat(0))); /* or NaN */
        lanes m = least_of(times(magnitude(x), splat(unit)), most);
        blocks->m[j] = m;
        blocks->sign[j] = sign(x);
        blocks->zeros[j] = times(load(moments->least[j]), times(m, m));
        amax = most_of(amax, m);
    }
    blocks->amax = amax;
    blocks->finite = less(zeros, splat(1));
    blocks->valid = both(both(blocks->finite, less(splat(0), amax)), from_bits(moments->known));
}

/* ---- errors ---- */

/* eᵀHe of each block under the scale s, or something above `enough`. */
TARGET static inline lanes error_under(const struct blocks *blocks,
                                       const struct block_moments *moments, lanes s, lanes enough,
                                       mask wanted)
{
    lanes e[NVFP4_BLOCK], inverse = over(splat(1), s), error = splat(0);
    for (size_t j = 0; j < NVFP4_BLOCK; j++) {
        lanes y = least_of(times(blocks->m[j], inverse), splat(E2M1_MAX));
        lanes round = times(power_of_two(most_of(y, splat(1))), splat(HESSIAN_ROUND));
        lanes q = minus(plus(y, round), round);
        e[j] = flip(minus(blocks->m[j], times(q, s)), blocks->sign[j]);
    }
    const float(*factor)[HESSIAN_LANES] = moments->factor;
    for (size_t k = 0; k < NVFP4_BLOCK; k++) {
        lanes odd = splat(0), even = splat(0);
        size_t j = k;
        if (j % 2)
            odd = times(load(*factor++), e[j++]);
        for (; j < NVFP4_BLOCK; j += 2, factor += 2) {
            even = plus(even, times(load(factor[0]), e[j]));
            odd = plus(odd, times(load(factor[1]), e[j + 1]));
        }
        lanes z = plus(even, odd);
        error = plus(error, times(z, z));
        if (k % 4 == 3 && !any(without(wanted, less(enough, error))))
            break;
    }
    return error;
}

/* What it costs at least under s and all larger ones, which round to 0 what s does. */
TARGET static inline lanes zeros_cost(const struct blocks *blocks, lanes s)
{
    lanes cost = splat(0), bound = times(s, splat(0.25f));
    for (size_t j = 0; j < NVFP4_BLOCK; j++)
        cost = where(less(bound, blocks->m[j]), cost, plus(cost, blocks->zeros[j]));
    return cost;
}

/* And under s and all smaller ones, which clip at least as much. */
TARGET static inline lanes clipping_cost(const struct blocks *blocks,
                                         const struct block_moments *moments, lanes s)
{
    lanes cost = splat(0), most = times(s, splat(E2M1_MAX));
    for (size_t j = 0; j < NVFP4_BLOCK; j++) {
        lanes e = most_of(minus(blocks->m[j], most), splat(0));
        cost = plus(cost, times(load(moments->least[j]), times(e, e)));
    }
    return cost;
}

/* ---- scales ---- */

/* The E4M3 value nearest to amax / 6. */
TARGET static inline lanes first_scale(lanes amax)
{
    float s[HESSIAN_LANES];
    store(s, amax);
    for (size_t i = 0; i < HESSIAN_LANES; i++)
        s[i] = e4m3_to_f32(e4m3_from_f32(fmaxf(s[i] / 6, E4M3_MIN_SUBNORMAL)));
    return load(s);
}

/* The E4M3 values above and below: an eighth of the power of two away, at least the smallest one.
 */
TARGET static inline lanes next_scale(lanes s)
{
    lanes step = times(power_of_two(s), splat(0.125f));
    return plus(s, most_of(step, splat(E4M3_MIN_SUBNORMAL)));
}

TARGET static inline lanes last_scale(lanes s)
{
    lanes step = times(power_of_two(times(s, splat(0x1.ffp-1f))), splat(0.125f));
    return minus(s, most_of(step, splat(E4M3_MIN_SUBNORMAL)));
}

/* ---- the search ---- */

struct best {
    lanes error, s;
};

/* Take s for the blocks in `open` that it suits better than the best so far, or, with `ties`, as
 * well. Part of both loops: as one function, GCC makes the version without vectors slower. */
TARGET INLINE void try_scale(struct best *best, const struct blocks *blocks,
                             const struct block_moments *moments, lanes s, mask open, bool ties)
{
    lanes error = error_under(blocks, moments, s, best->error, open);
    mask better =
        ties ? without(open, less(best->error, error)) : both(open, less(error, best->error));
    best->error = where(better, error, best->error);
    best->s = where(better, s, best->s);
}

TARGET static inline void search_up(struct best *best, const struct blocks *blocks,
                                    const struct block_moments *moments)
{
    mask open = blocks->valid;
    for (lanes s = best->s; any(open); s = next_scale(s)) {
        try_scale(best, blocks, moments, s, open, false);
        open = both(open, less(s, least_of(times(blocks->amax, splat(4)), splat(E4M3_MAX))));
        open = without(open, less(best->error, zeros_cost(blocks, s)));
    }
}

TARGET static inline void search_down(struct best *best, const struct blocks *blocks,
                                      const struct block_moments *moments, lanes s)
{
    mask open = blocks->valid;
    for (;; s = last_scale(s)) {
        open = both(open, less(splat(0), s));
        open = without(open, less(best->error, clipping_cost(blocks, moments, s)));
        if (!any(open))
            break;
        try_scale(best, blocks, moments, s, open, true);
    }
}

/* Scales of blocks that have no such search. */
TARGET static inline void other_scales(uint8_t *scale, const uint16_t *w, size_t count,
                                       float scale_2, const struct blocks *blocks,
                                       const struct block_moments *moments)
{
    uint32_t valid = to_bits(blocks->valid), finite = to_bits(blocks->finite);
    for (size_t i = 0; i < count; i++) {
        if (valid >> i & 1)
            continue;
        if (!(moments->known >> i & 1))
            nvfp4_scales_mse_row(scale + i, w + i * NVFP4_BLOCK, NVFP4_BLOCK, scale_2);
        else
            scale[i] = finite >> i & 1 ? e4m3_from_f32(1) : NVFP4_NOT_FINITE;
    }
}

TARGET static inline void search_row(uint8_t *scale, const uint16_t *w, size_t cols, float scale_2,
                                     const struct block_moments *moments)
{
    if (!scale_search_possible(scale_2)) {
        nvfp4_scales_row(scale, w, cols, scale_2);
        return;
    }
    size_t left = cols / NVFP4_BLOCK;
    for (size_t count; left; left -= count, scale += count, w += count * NVFP4_BLOCK, moments++) {
        struct blocks blocks;
        float s[HESSIAN_LANES];
        count = left < HESSIAN_LANES ? left : HESSIAN_LANES;
        load_blocks(&blocks, w, count, 1 / scale_2, moments);
        lanes first = first_scale(blocks.amax);
        struct best best = {.error = splat(INFINITY), .s = first};
        search_up(&best, &blocks, moments);
        search_down(&best, &blocks, moments, last_scale(first));
        store(s, best.s);
        for (size_t i = 0; i < count; i++)
            scale[i] = e4m3_from_f32(s[i]);
        if (to_bits(blocks.valid) + 1 != UINT32_C(1) << HESSIAN_LANES)
            other_scales(scale, w, count, scale_2, &blocks, moments);
    }
}
