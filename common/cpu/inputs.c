/* The CPU as a device: what is recorded of a linear's inputs. */
#include <string.h>

#include "cpu/cpu.h"
#include "tensor/headroom.h"

enum { BLOCK = DEVICE_BLOCK };

static void add_moments(struct device *d, struct mat moments, struct mat x)
{
#pragma omp parallel for num_threads(cpu_of(d)->threads) schedule(static)
    for (uint64_t block = 0; block < x.cols / BLOCK; block++) {
        float sum[BLOCK][BLOCK], v[BLOCK];
        for (unsigned i = 0; i < BLOCK; i++)
            memcpy(sum[i], f32_row(moments, block * BLOCK + i), sizeof sum[i]);
        for (uint64_t row = 0; row < x.rows; row++) {
            for (unsigned i = 0; i < BLOCK; i++)
                v[i] = bf16_to_f32(bf16_row(x, row)[block * BLOCK + i]);
            for (unsigned i = 0; i < BLOCK; i++)
                for (unsigned j = 0; j < BLOCK; j++)
                    sum[i][j] += v[i] * v[j];
        }
        for (unsigned i = 0; i < BLOCK; i++)
            memcpy(f32_row(moments, block * BLOCK + i), sum[i], sizeof sum[i]);
    }
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

static void count_amaxes(struct device *d, struct mat count, struct mat x)
{
    int64_t *all = count.at;
#pragma omp parallel num_threads(cpu_of(d)->threads)
    {
        int64_t own[HEADROOM_BUCKETS] = {0};
#pragma omp for schedule(static)
        for (uint64_t row = 0; row < x.rows; row++)
            count_row(own, bf16_row(x, row), x.cols);
#pragma omp critical
        for (unsigned i = 0; i < HEADROOM_BUCKETS; i++)
            all[i] += own[i];
    }
}

void cpu_inputs(struct device *d)
{
    d->add_moments = add_moments;
    d->count_amaxes = count_amaxes;
}
