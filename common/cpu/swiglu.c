/* The CPU as a device: SwiGLU. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "cpu/exp.h"
#include "cpu/piece.h"

/* The largest magnitudes that swiglu() sees, as the bits of BF16: NaN is above infinity. */
enum { OF_GATE, OF_UP, OF_UNWEIGHTED, OF_Y, OFS };
struct swiglu_most {
    uint16_t of[OFS];
};

struct swiglu_args {
    struct mat y, gate, up;
    struct swiglu how;
    struct mat weight;
    struct swiglu_most *most; /* by thread; or NULL */
};

INLINE void see_cols(uint16_t *most, const uint16_t *x, uint64_t count)
{
    uint16_t sofar = *most;
    for (uint64_t j = 0; j < count; j++) {
        uint16_t magnitude = x[j] & 0x7fff;
        sofar = magnitude > sofar ? magnitude : sofar;
    }
    *most = sofar;
}

/* Up to COLS columns. */
INLINE void swiglu_cols(uint16_t *y, const uint16_t *gate, const uint16_t *up, struct swiglu how,
                        float weight, uint64_t count, struct swiglu_most *most)
{
    float g[COLS], u[COLS], power[COLS], limit = how.limit > 0 ? how.limit : INFINITY;
    uint16_t unweighted[COLS];
    if (most) {
        see_cols(&most->of[OF_GATE], gate, count);
        see_cols(&most->of[OF_UP], up, count);
    }
    for (uint64_t j = 0; j < count; j++) {
        g[j] = bf16_to_f32(gate[j]);
        u[j] = bf16_to_f32(up[j]);
        u[j] = u[j] > limit ? limit : u[j] < -limit ? -limit : u[j];
        g[j] = g[j] > limit ? limit : g[j];
    }
    for (uint64_t j = 0; j < count; j++)
        power[j] = exp_f32(-g[j]);
    for (uint64_t j = 0; j < count; j++) {
        float silu = g[j] / (1 + power[j]);
        g[j] = (how.rounds ? to_bf16(silu) : silu) * u[j];
        unweighted[j] = bf16_from_f32(g[j]);
    }
    for (uint64_t j = 0; j < count; j++)
        y[j] = bf16_from_f32(weight * g[j]);
    if (most) {
        see_cols(&most->of[OF_UNWEIGHTED], unweighted, count);
        see_cols(&most->of[OF_Y], y, count);
    }
}

VECTORS(void, swiglu_rows,
        (const struct swiglu_args *o, uint64_t first, uint64_t last, struct swiglu_most *most),
        (o, first, last, most))
{
    for (uint64_t i = first; i < last; i++)
        for (uint64_t j = 0; j < o->y.cols; j += COLS)
            swiglu_cols(bf16_row(o->y, i) + j, bf16_row(o->gate, i) + j, bf16_row(o->up, i) + j,
                        o->how, o->weight.rows ? *f32_row(o->weight, i) : 1,
                        at_most(o->y.cols - j, COLS), most);
}

static void swiglu_piece(void *context, unsigned thread, uint64_t first, uint64_t last)
{
    const struct swiglu_args *o = context;
    struct swiglu_most most = o->most ? o->most[thread] : (struct swiglu_most){0};
    swiglu_rows(o, first, last, o->most ? &most : NULL);
    if (o->most)
        o->most[thread] = most;
}

/* The larger of an amax and of what each thread saw. */
static void see_most(struct mat amax, const struct swiglu_most *most, unsigned threads, int what)
{
    for (unsigned i = 0; i < threads; i++) {
        uint32_t bits, seen = (uint32_t)most[i].of[what] << 16;
        memcpy(&bits, amax.at, sizeof bits);
        if (seen > bits)
            memcpy(amax.at, &seen, sizeof seen);
    }
}

static void swiglu(struct device *d, struct mat y, struct mat gate, struct mat up,
                   struct swiglu how, struct mat weight, const struct swiglu_seen *seen)
{
    unsigned threads = cpu_of(d)->thread_count;
    struct swiglu_args o = {y, gate, up, how, weight, NULL};
    if (seen)
        o.most = xalloc(threads, sizeof *o.most);
    parallel_for(cpu_of(d)->threads, y.rows, cpu_grain(y.cols), swiglu_piece, &o);
    if (!seen)
        return;
    see_most(seen->gate, o.most, threads, OF_GATE);
    see_most(seen->up, o.most, threads, OF_UP);
    see_most(seen->y, o.most, threads, OF_Y);
    if (weight.rows)
        see_most(seen->unweighted, o.most, threads, OF_UNWEIGHTED);
    free(o.most);
}

void cpu_swiglu(struct device *d)
{
    d->swiglu = swiglu;
}
