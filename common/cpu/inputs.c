/* The CPU as a device: what is recorded of a linear's inputs. */
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "cpu/cpu.h"
#include "tensor/headroom.h"

enum { BLOCK = DEVICE_BLOCK };

struct moments_args {
    struct mat moments, x;
};

/* Blocks of columns first … last - 1. */
static void add_moments_piece(void *args, unsigned thread, uint64_t first, uint64_t last)
{
    const struct moments_args o = *(const struct moments_args *)args;
    (void)thread;
    for (uint64_t block = first; block < last; block++) {
        float sum[BLOCK][BLOCK], v[BLOCK];
        for (unsigned i = 0; i < BLOCK; i++)
            memcpy(sum[i], f32_row(o.moments, block * BLOCK + i), sizeof sum[i]);
        for (uint64_t row = 0; row < o.x.rows; row++) {
            for (unsigned i = 0; i < BLOCK; i++)
                v[i] = bf16_to_f32(bf16_row(o.x, row)[block * BLOCK + i]);
            for (unsigned i = 0; i < BLOCK; i++)
                for (unsigned j = 0; j < BLOCK; j++)
                    sum[i][j] += v[i] * v[j];
        }
        for (unsigned i = 0; i < BLOCK; i++)
            memcpy(f32_row(o.moments, block * BLOCK + i), sum[i], sizeof sum[i]);
    }
}

static void add_moments(struct device *d, struct mat moments, struct mat x)
{
    parallel_for(cpu_of(d)->threads, x.cols / BLOCK, cpu_grain(x.rows * BLOCK * BLOCK),
                 add_moments_piece, &(struct moments_args){moments, x});
}

static void count_row(int64_t *count, const uint16_t *x, uint64_t cols)
{
    for (; cols >= BLOCK; cols -= BLOCK, x += BLOCK) {
        unsigned most = 0; /* BF16 magnitudes order as integers */
        for (unsigned i = 0; i < BLOCK; i++)
            most = (x[i] & 0x7fffU) > most ? x[i] & 0x7fffU : most;
        count[headroom_bucket(most)] += most > 0;
    }
}

struct counts_args {
    struct mat x;
    int64_t (*own)[HEADROOM_BUCKETS]; /* by thread */
};

static void count_amaxes_piece(void *args, unsigned thread, uint64_t first, uint64_t last)
{
    const struct counts_args *o = args;
    for (uint64_t row = first; row < last; row++)
        count_row(o->own[thread], bf16_row(o->x, row), o->x.cols);
}

static void count_amaxes(struct device *d, struct mat count, struct mat x)
{
    struct cpu *cpu = cpu_of(d);
    int64_t *all = count.at;
    struct counts_args o = {x, xalloc(cpu->thread_count, sizeof *o.own)};
    parallel_for(cpu->threads, x.rows, cpu_grain(x.cols), count_amaxes_piece, &o);
    for (unsigned thread = 0; thread < cpu->thread_count; thread++)
        for (unsigned i = 0; i < HEADROOM_BUCKETS; i++)
            all[i] += o.own[thread][i];
    free(o.own);
}

void cpu_inputs(struct device *d)
{
    d->add_moments = add_moments;
    d->count_amaxes = count_amaxes;
}
