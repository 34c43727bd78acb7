/* The CPU as a device: norms of rows, and of heads in rows. */

#include <math.h>

#include "cpu/piece.h"
#include "cpu/sums.h"

struct rms_norm_args {
    struct mat y, x, weight;
    float eps;
};

PIECE(rms_norm_piece)
{
    const struct rms_norm_args o = *(const struct rms_norm_args *)args;
    for (uint64_t i = first; i < last; i++) {
        const uint16_t *from = bf16_row(o.x, i);
        const float *w = f32_row(o.weight, 0);
        float scale = 1 / sqrtf(mean_square(from, o.x.cols) + o.eps);
        for (uint64_t j = 0; j < o.x.cols; j++)
            bf16_row(o.y, i)[j] = bf16_from_f32(w[j] * (bf16_to_f32(from[j]) * scale));
    }
}

static void rms_norm(struct device *d, struct mat y, struct mat x, struct mat weight, float eps)
{
    cpu_each_row(d, x.rows, x.cols, rms_norm_piece, &(struct rms_norm_args){y, x, weight, eps});
}

struct add_norm_args {
    struct mat y, sum, x, weight;
    float eps;
};

PIECE(add_norm_piece)
{
    const struct add_norm_args o = *(const struct add_norm_args *)args;
    for (uint64_t i = first; i < last; i++) {
        uint16_t *to = bf16_row(o.y, i), *a = bf16_row(o.sum, i);
        const uint16_t *b = bf16_row(o.x, i);
        const float *w = f32_row(o.weight, 0);
        double squares = 0;
        for (uint64_t j = 0; j < o.x.cols; j++) {
            double value = (double)(bf16_to_f32(a[j]) + bf16_to_f32(b[j]));
            squares += value * value;
        }
        float scale = 1 / sqrtf((float)squares / (float)o.x.cols + o.eps);
        for (uint64_t j = 0; j < o.x.cols; j++) {
            float value = bf16_to_f32(a[j]) + bf16_to_f32(b[j]);
            to[j] = bf16_from_f32(w[j] * (value * scale));
            a[j] = bf16_from_f32(value);
        }
    }
}

static void add_norm(struct device *d, struct mat y, struct mat sum, struct mat x,
                     struct mat weight, float eps)
{
    cpu_each_row(d, x.rows, x.cols, add_norm_piece,
                 &(struct add_norm_args){y, sum, x, weight, eps});
}

struct layer_norm_args {
    struct mat y, x, weight, bias;
    float eps;
};

PIECE(layer_norm_piece)
{
    const struct layer_norm_args o = *(const struct layer_norm_args *)args;
    for (uint64_t i = first; i < last; i++) {
        const uint16_t *from = bf16_row(o.x, i);
        double sum = 0, squares = 0;
        for (uint64_t j = 0; j < o.x.cols; j++)
            sum += (double)bf16_to_f32(from[j]);
        double mean = sum / (double)o.x.cols;
        for (uint64_t j = 0; j < o.x.cols; j++) {
            double value = (double)bf16_to_f32(from[j]) - mean;
            squares += value * value;
        }
        float centre = (float)mean, scale = 1 / sqrtf((float)(squares / (double)o.x.cols) + o.eps);
        for (uint64_t j = 0; j < o.x.cols; j++)
            bf16_row(o.y, i)[j] =
                bf16_from_f32((bf16_to_f32(from[j]) - centre) * scale * f32_row(o.weight, 0)[j] +
                              f32_row(o.bias, 0)[j]);
    }
}

static void layer_norm(struct device *d, struct mat y, struct mat x, struct mat weight,
                       struct mat bias, float eps)
{
    cpu_each_row(d, x.rows, x.cols, layer_norm_piece,
                 &(struct layer_norm_args){y, x, weight, bias, eps});
}

/* Each square is rounded to BF16. */
SUM(sum_of_rounded_squares, (const uint16_t *x, uint64_t count),
    (double)to_bf16(bf16_to_f32(x[j]) * bf16_to_f32(x[j])))

INLINE void unit_head(uint16_t *x, uint64_t width, float eps)
{
    float mean = to_bf16((float)sum_of_rounded_squares(x, width) / (float)width);
    float scale = to_bf16(1 / sqrtf(to_bf16(mean + eps)));
    for (uint64_t j = 0; j < width; j++)
        x[j] = bf16_from_f32(bf16_to_f32(x[j]) * scale);
}

struct unit_args {
    struct mat x;
    uint64_t width;
    float eps;
};

PIECE(unit_piece)
{
    const struct unit_args o = *(const struct unit_args *)args;
    for (uint64_t i = first; i < last; i++)
        for (uint64_t first = 0; first < o.x.cols; first += o.width)
            unit_head(bf16_row(o.x, i) + first, o.width, o.eps);
}

static void unit(struct device *d, struct mat x, uint64_t width, float eps, struct mat seen)
{
    cpu_see(d, seen, x);
    cpu_each_row(d, x.rows, x.cols, unit_piece, &(struct unit_args){x, width, eps});
}

void cpu_norms(struct device *d)
{
    d->rms_norm = rms_norm;
    d->add_norm = add_norm;
    d->layer_norm = layer_norm;
    d->unit = unit;
}
