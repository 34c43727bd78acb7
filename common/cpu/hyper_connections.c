/* The CPU as a device: hyper-connections. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "cpu/exp.h"
#include "cpu/piece.h"
#include "cpu/sums.h"

struct hc_scale_args {
    struct mat mixes, x;
    float eps;
};

PIECE(hc_scale_piece)
{
    const struct hc_scale_args o = *(const struct hc_scale_args *)args;
    for (uint64_t i = first; i < last; i++) {
        float scale = 1 / sqrtf(mean_square(bf16_row(o.x, i), o.x.cols) + o.eps);
        for (uint64_t j = 0; j < o.mixes.cols; j++)
            f32_row(o.mixes, i)[j] *= scale;
    }
}

static void hc_scale(struct device *d, struct mat mixes, struct mat x, float eps)
{
    cpu_each_row(d, x.rows, x.cols, hc_scale_piece, &(struct hc_scale_args){mixes, x, eps});
}

/* Divide n numbers, `step` apart, by their sum plus eps. */
static void divide_by_sum(float *x, uint64_t n, uint64_t step, float eps)
{
    float sum = 0;
    for (uint64_t j = 0; j < n; j++)
        sum += x[j * step];
    for (uint64_t j = 0; j < n; j++)
        x[j * step] /= sum + eps;
}

static void doubly_stochastic(float *comb, uint64_t n, uint64_t iterations, float eps)
{
    for (uint64_t j = 0; j < n; j++)
        softmax(comb + j * n, n);
    for (uint64_t j = 0; j < n * n; j++)
        comb[j] += eps;
    for (uint64_t turn = 0; turn < iterations; turn++) {
        for (uint64_t j = 0; turn > 0 && j < n; j++)
            divide_by_sum(comb + j * n, n, 1, eps);
        for (uint64_t k = 0; k < n; k++)
            divide_by_sum(comb + k, n, n, eps);
    }
}

struct sinkhorn_args {
    struct mat pre, post, comb, mixes, scale, base;
    uint64_t iterations;
    float eps;
};

static void sinkhorn_piece(const void *args, uint64_t first, uint64_t last)
{
    const struct sinkhorn_args o = *(const struct sinkhorn_args *)args;
    uint64_t n = o.pre.cols;
    const float *s = f32_row(o.scale, 0), *b = f32_row(o.base, 0);
    for (uint64_t i = first; i < last; i++) {
        const float *mix = f32_row(o.mixes, i);
        for (uint64_t j = 0; j < n; j++) {
            f32_row(o.pre, i)[j] = sigmoid(mix[j] * s[0] + b[j]) + o.eps;
            f32_row(o.post, i)[j] = 2 * sigmoid(mix[n + j] * s[1] + b[n + j]);
        }
        for (uint64_t j = 0; j < n * n; j++)
            f32_row(o.comb, i)[j] = mix[2 * n + j] * s[2] + b[2 * n + j];
        doubly_stochastic(f32_row(o.comb, i), n, o.iterations, o.eps);
    }
}

static void sinkhorn(struct device *d, struct mat pre, struct mat post, struct mat comb,
                     struct mat mixes, struct mat scale, struct mat base, uint64_t iterations,
                     float eps)
{
    cpu_each_row(d, mixes.rows, mixes.cols * iterations, sinkhorn_piece,
                 &(struct sinkhorn_args){pre, post, comb, mixes, scale, base, iterations, eps});
}

struct hc_gate_args {
    struct mat pre, mixes, scale, base;
    float eps;
};

static void hc_gate_piece(const void *args, uint64_t first, uint64_t last)
{
    const struct hc_gate_args o = *(const struct hc_gate_args *)args;
    for (uint64_t i = first; i < last; i++)
        for (uint64_t j = 0; j < o.pre.cols; j++)
            f32_row(o.pre, i)[j] =
                sigmoid(f32_row(o.mixes, i)[j] * *f32_row(o.scale, 0) + f32_row(o.base, 0)[j]) +
                o.eps;
}

static void hc_gate(struct device *d, struct mat pre, struct mat mixes, struct mat scale,
                    struct mat base, float eps)
{
    cpu_each_row(d, pre.rows, pre.cols, hc_gate_piece,
                 &(struct hc_gate_args){pre, mixes, scale, base, eps});
}

INLINE void add_scaled(float *sum, float factor, const uint16_t *x, uint64_t count)
{
    for (uint64_t j = 0; j < count; j++)
        sum[j] += factor * bf16_to_f32(x[j]);
}

struct hc_in_args {
    struct mat y, x, pre;
};

PIECE(hc_in_piece)
{
    const struct hc_in_args o = *(const struct hc_in_args *)args;
    for (uint64_t i = first; i < last; i++)
        for (uint64_t n, j = 0; j < o.y.cols; j += n) {
            n = at_most(o.y.cols - j, COLS);
            float sum[COLS] = {0};
            for (uint64_t k = 0; k < o.pre.cols; k++)
                add_scaled(sum, f32_row(o.pre, i)[k], bf16_row(o.x, i) + k * o.y.cols + j, n);
            for (uint64_t l = 0; l < n; l++)
                bf16_row(o.y, i)[j + l] = bf16_from_f32(sum[l]);
        }
}

static void hc_in(struct device *d, struct mat y, struct mat x, struct mat pre)
{
    cpu_each_row(d, y.rows, x.cols, hc_in_piece, &(struct hc_in_args){y, x, pre});
}

/* Up to COLS columns of one row's copies, which are `cols` apart; old: room for them. */
INLINE void hc_out_cols(uint16_t *x, const uint16_t *y, const float *post, const float *comb,
                        uint64_t n, uint64_t cols, uint64_t count, uint16_t *old)
{
    for (uint64_t k = 0; k < n; k++)
        memcpy(old + k * COLS, x + k * cols, (size_t)count * sizeof *x);
    for (uint64_t k = 0; k < n; k++) {
        float sum[COLS] = {0};
        for (uint64_t i = 0; i < n; i++)
            add_scaled(sum, comb[i * n + k], old + i * COLS, count);
        for (uint64_t j = 0; j < count; j++)
            x[k * cols + j] = bf16_from_f32(post[k] * bf16_to_f32(y[j]) + sum[j]);
    }
}

struct hc_out_args {
    struct mat x, y, post, comb;
};

PIECE(hc_out_piece)
{
    const struct hc_out_args o = *(const struct hc_out_args *)args;
    uint64_t n = o.post.cols, cols = o.y.cols;
    uint16_t *old = xalloc((size_t)n * COLS, sizeof *old);
    for (uint64_t i = first; i < last; i++)
        for (uint64_t j = 0; j < cols; j += COLS)
            hc_out_cols(bf16_row(o.x, i) + j, bf16_row(o.y, i) + j, f32_row(o.post, i),
                        f32_row(o.comb, i), n, cols, at_most(cols - j, COLS), old);
    free(old);
}

static void hc_out(struct device *d, struct mat x, struct mat y, struct mat post, struct mat comb)
{
    cpu_each_row(d, x.rows, x.cols, hc_out_piece, &(struct hc_out_args){x, y, post, comb});
}

void cpu_hyper_connections(struct device *d)
{
    d->hc_scale = hc_scale;
    d->sinkhorn = sinkhorn;
    d->hc_gate = hc_gate;
    d->hc_in = hc_in;
    d->hc_out = hc_out;
}
