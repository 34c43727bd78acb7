/* The CPU as a device: operations on single rows. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "cpu/cpu.h"
#include "tensor/activation.h"

#define EACH_ROW(d) omp parallel for num_threads(cpu_of(d)->threads) schedule(static)
#define PRAGMA(x) _Pragma(#x)
#define PARALLEL(x) PRAGMA(x)

/* Sums over a row are taken in double and rounded once to F32: this is closest to every order of
 * F32 sums. In LANES partial sums, which compilers vectorize without changing the order. */
enum { LANES = 8 };

static float mean_square(const uint16_t *x, uint64_t count)
{
    double lane[LANES] = {0}, sum = 0;
    for (uint64_t i = 0; i < count; i += LANES)
        for (uint64_t j = 0; j < LANES && i + j < count; j++) {
            double value = (double)bf16_to_f32(x[i + j]);
            lane[j] += value * value;
        }
    for (int j = 0; j < LANES; j++)
        sum += lane[j];
    return (float)sum / (float)count;
}

static float sigmoid(float x)
{
    return 1 / (1 + expf(-x));
}

/* ---- copies and sums ---- */

static void copy(struct device *d, struct mat y, struct mat x)
{
    PARALLEL(EACH_ROW(d))
    for (uint64_t i = 0; i < y.rows; i++) {
        if (x.dtype == y.dtype)
            memcpy(mat_rows(y, i, 1).at, mat_rows(x, i, 1).at,
                   (size_t)y.cols * dtype_size(y.dtype));
        else if (y.dtype == DTYPE_BF16)
            for (uint64_t j = 0; j < y.cols; j++)
                bf16_row(y, i)[j] = bf16_from_f32(f32_row(x, i)[j]);
        else
            for (uint64_t j = 0; j < y.cols; j++)
                f32_row(y, i)[j] = bf16_to_f32(bf16_row(x, i)[j]);
    }
}

static void gather(struct device *d, struct mat y, struct mat x, struct mat index)
{
    PARALLEL(EACH_ROW(d))
    for (uint64_t i = 0; i < y.rows; i++)
        memcpy(bf16_row(y, i), bf16_row(x, (uint64_t)*i32_row(index, i)),
               (size_t)y.cols * sizeof(uint16_t));
}

static void scatter_add(struct device *d, struct mat y, struct mat x, struct mat index,
                        struct mat weight)
{
    PARALLEL(EACH_ROW(d))
    for (uint64_t i = 0; i < x.rows; i++) {
        float *to = f32_row(y, (uint64_t)*i32_row(index, i));
        const uint16_t *from = bf16_row(x, i);
        float factor = weight.rows ? *f32_row(weight, i) : 1;
        for (uint64_t j = 0; j < x.cols; j++)
            to[j] += bf16_to_f32(from[j]) * factor;
    }
}

static void scale(struct device *d, struct mat x, float factor)
{
    PARALLEL(EACH_ROW(d))
    for (uint64_t i = 0; i < x.rows; i++)
        for (uint64_t j = 0; j < x.cols; j++)
            bf16_row(x, i)[j] = bf16_from_f32(bf16_to_f32(bf16_row(x, i)[j]) * factor);
}

static void scale_rows(struct device *d, struct mat x, struct mat factor)
{
    PARALLEL(EACH_ROW(d))
    for (uint64_t i = 0; i < x.rows; i++)
        for (uint64_t j = 0; j < x.cols; j++)
            bf16_row(x, i)[j] = bf16_from_f32(bf16_to_f32(bf16_row(x, i)[j]) * *f32_row(factor, i));
}

static void add(struct device *d, struct mat y, struct mat x)
{
    PARALLEL(EACH_ROW(d))
    for (uint64_t i = 0; i < y.rows; i++) {
        uint16_t *to = bf16_row(y, i);
        const uint16_t *from = bf16_row(x, i);
        for (uint64_t j = 0; j < y.cols; j++)
            to[j] = bf16_from_f32(bf16_to_f32(to[j]) + bf16_to_f32(from[j]));
    }
}

/* ---- activations ---- */

static void quantize(struct device *d, struct mat y, struct mat x, enum activation how,
                     float scale_2)
{
#pragma omp parallel num_threads(cpu_of(d)->threads)
    {
        uint8_t *room = xalloc((size_t)x.cols, 1);
#pragma omp for schedule(static)
        for (uint64_t i = 0; i < x.rows; i++) {
            uint16_t *to = bf16_row(y, i);
            const uint16_t *from = bf16_row(x, i);
            switch (how) {
            case ACTIVATION_BF16:
                memmove(to, from, (size_t)x.cols * sizeof *to);
                break;
            case ACTIVATION_FP8:
                activation_fp8_row(to, from, (size_t)x.cols, 128);
                break;
            case ACTIVATION_FP8_32:
                activation_fp8_row(to, from, (size_t)x.cols, 32);
                break;
            case ACTIVATION_FP8_V3:
            case ACTIVATION_FP8_V32:
                activation_fp8_split_row(to, from, (size_t)x.cols, how == ACTIVATION_FP8_V3);
                break;
            case ACTIVATION_FP8_V32_ROUNDED:
                activation_fp8_real_row(to, from, (size_t)x.cols);
                break;
            case ACTIVATION_FP4:
                activation_fp4_row(to, from, (size_t)x.cols);
                break;
            case ACTIVATION_NVFP4:
                activation_nvfp4_row(to, from, (size_t)x.cols, scale_2, room);
                break;
            }
        }
        free(room);
    }
}

static void encode(struct device *d, struct mat y, struct mat x, struct mat factor, bool power)
{
    PARALLEL(EACH_ROW(d))
    for (uint64_t i = 0; i < x.rows; i++)
        *f32_row(factor, i) *=
            activation_fp8_encode_row(bf16_row(y, i), bf16_row(x, i), (size_t)x.cols, power);
}

static void rms_norm(struct device *d, struct mat y, struct mat x, struct mat weight, float eps)
{
    PARALLEL(EACH_ROW(d))
    for (uint64_t i = 0; i < x.rows; i++) {
        const uint16_t *from = bf16_row(x, i);
        const float *w = f32_row(weight, 0);
        float scale = 1 / sqrtf(mean_square(from, x.cols) + eps);
        for (uint64_t j = 0; j < x.cols; j++)
            bf16_row(y, i)[j] = bf16_from_f32(w[j] * (bf16_to_f32(from[j]) * scale));
    }
}

static void add_norm(struct device *d, struct mat y, struct mat sum, struct mat x,
                     struct mat weight, float eps)
{
    PARALLEL(EACH_ROW(d))
    for (uint64_t i = 0; i < x.rows; i++) {
        uint16_t *to = bf16_row(y, i), *a = bf16_row(sum, i);
        const uint16_t *b = bf16_row(x, i);
        const float *w = f32_row(weight, 0);
        double squares = 0;
        for (uint64_t j = 0; j < x.cols; j++) {
            double value = (double)(bf16_to_f32(a[j]) + bf16_to_f32(b[j]));
            squares += value * value;
        }
        float scale = 1 / sqrtf((float)squares / (float)x.cols + eps);
        for (uint64_t j = 0; j < x.cols; j++) {
            float value = bf16_to_f32(a[j]) + bf16_to_f32(b[j]);
            to[j] = bf16_from_f32(w[j] * (value * scale));
            a[j] = bf16_from_f32(value);
        }
    }
}

static void layer_norm(struct device *d, struct mat y, struct mat x, struct mat weight,
                       struct mat bias, float eps)
{
    PARALLEL(EACH_ROW(d))
    for (uint64_t i = 0; i < x.rows; i++) {
        const uint16_t *from = bf16_row(x, i);
        double sum = 0, squares = 0;
        for (uint64_t j = 0; j < x.cols; j++)
            sum += (double)bf16_to_f32(from[j]);
        double mean = sum / (double)x.cols;
        for (uint64_t j = 0; j < x.cols; j++) {
            double value = (double)bf16_to_f32(from[j]) - mean;
            squares += value * value;
        }
        float centre = (float)mean, scale = 1 / sqrtf((float)(squares / (double)x.cols) + eps);
        for (uint64_t j = 0; j < x.cols; j++)
            bf16_row(y, i)[j] =
                bf16_from_f32((bf16_to_f32(from[j]) - centre) * scale * f32_row(weight, 0)[j] +
                              f32_row(bias, 0)[j]);
    }
}

static float to_bf16(float value)
{
    return bf16_to_f32(bf16_from_f32(value));
}

static void unit_head(uint16_t *x, uint64_t width, float eps)
{
    double sum = 0;
    for (uint64_t j = 0; j < width; j++)
        sum += (double)to_bf16(bf16_to_f32(x[j]) * bf16_to_f32(x[j]));
    float mean = to_bf16((float)sum / (float)width);
    float scale = to_bf16(1 / sqrtf(to_bf16(mean + eps)));
    for (uint64_t j = 0; j < width; j++)
        x[j] = bf16_from_f32(bf16_to_f32(x[j]) * scale);
}

static void unit(struct device *d, struct mat x, uint64_t width, float eps)
{
    PARALLEL(EACH_ROW(d))
    for (uint64_t i = 0; i < x.rows; i++)
        for (uint64_t first = 0; first < x.cols; first += width)
            unit_head(bf16_row(x, i) + first, width, eps);
}

/* Pairs of the `cols` columns: a column and the one that is `apart` from it, pairs `step` apart.
 *
 * If one product is added and another subtracted, GCC 12's loop vectorizer fuses products and sums
 * on processors with FMA (-march=native), despite -ffp-contract=off. So both are added; the product
 * with -sine is that with sine, negated. */
static inline void rotate_head(uint16_t *x, const float *angle, uint64_t cols, float direction,
                               uint64_t apart, uint64_t step)
{
    for (uint64_t j = 0; j < cols; j += 2, x += step) {
        float a = bf16_to_f32(x[0]), b = bf16_to_f32(x[apart]);
        float cosine = angle[j], sine = angle[j + 1] * direction, down = angle[j + 1] * -direction;
        x[0] = bf16_from_f32(a * cosine + b * down);
        x[apart] = bf16_from_f32(a * sine + b * cosine);
    }
}

static void rotate(struct device *d, struct mat x, uint64_t width, struct mat table,
                   struct mat position, bool inverse)
{
    PARALLEL(EACH_ROW(d))
    for (uint64_t i = 0; i < x.rows; i++) {
        const float *angle = f32_row(table, (uint64_t)*i32_row(position, i));
        for (uint64_t end = width; end <= x.cols; end += width)
            rotate_head(bf16_row(x, i) + end - table.cols, angle, table.cols, inverse ? -1 : 1, 1,
                        2);
    }
}

static void rotate_halves(struct device *d, struct mat x, uint64_t width, struct mat table,
                          struct mat position)
{
    PARALLEL(EACH_ROW(d))
    for (uint64_t i = 0; i < x.rows; i++) {
        const float *angle = f32_row(table, (uint64_t)*i32_row(position, i));
        for (uint64_t first = 0; first < x.cols; first += width)
            rotate_head(bf16_row(x, i) + first, angle, table.cols, 1, table.cols / 2, 1);
    }
}

static void hadamard_head(uint16_t *x, float *sum, uint64_t width)
{
    for (uint64_t j = 0; j < width; j++)
        sum[j] = bf16_to_f32(x[j]);
    for (uint64_t half = 1; half < width; half *= 2)
        for (uint64_t first = 0; first < width; first += 2 * half)
            for (uint64_t j = first; j < first + half; j++) {
                float a = sum[j], b = sum[j + half];
                sum[j] = a + b;
                sum[j + half] = a - b;
            }
    float scale = (float)(1 / sqrt((double)width));
    for (uint64_t j = 0; j < width; j++)
        x[j] = bf16_from_f32(sum[j] * scale);
}

static void hadamard(struct device *d, struct mat x, uint64_t width)
{
#pragma omp parallel num_threads(cpu_of(d)->threads)
    {
        float *sum = xalloc((size_t)width, sizeof *sum);
#pragma omp for schedule(static)
        for (uint64_t i = 0; i < x.rows; i++)
            for (uint64_t first = 0; first < x.cols; first += width)
                hadamard_head(bf16_row(x, i) + first, sum, width);
        free(sum);
    }
}

static void swiglu_rows(struct device *d, struct mat y, struct mat gate, struct mat up,
                        struct swiglu how, struct mat weight)
{
    PARALLEL(EACH_ROW(d))
    for (uint64_t i = 0; i < y.rows; i++)
        for (uint64_t j = 0; j < y.cols; j++) {
            float g = bf16_to_f32(bf16_row(gate, i)[j]), u = bf16_to_f32(bf16_row(up, i)[j]);
            if (how.limit > 0) {
                u = u > how.limit ? how.limit : u < -how.limit ? -how.limit : u;
                g = g > how.limit ? how.limit : g;
            }
            float silu = g / (1 + expf(-g));
            float value = (how.rounds ? to_bf16(silu) : silu) * u;
            bf16_row(y, i)[j] = bf16_from_f32(weight.rows ? *f32_row(weight, i) * value : value);
        }
}

static void swiglu(struct device *d, struct mat y, struct mat gate, struct mat up,
                   struct swiglu how, struct mat weight, const struct swiglu_seen *seen)
{
    if (seen) {
        d->max_abs(d, seen->gate, gate);
        d->max_abs(d, seen->up, up);
    }
    if (seen && weight.rows) {
        struct mat plain = d->make(d, DTYPE_BF16, y.rows, y.cols);
        swiglu_rows(d, plain, gate, up, how, (struct mat){0});
        d->max_abs(d, seen->unweighted, plain);
        d->drop(d, plain);
    }
    swiglu_rows(d, y, gate, up, how, weight);
    if (seen)
        d->max_abs(d, seen->y, y);
}

/* ---- hyper-connections ---- */

static void hc_scale(struct device *d, struct mat mixes, struct mat x, float eps)
{
    PARALLEL(EACH_ROW(d))
    for (uint64_t i = 0; i < x.rows; i++) {
        float scale = 1 / sqrtf(mean_square(bf16_row(x, i), x.cols) + eps);
        for (uint64_t j = 0; j < mixes.cols; j++)
            f32_row(mixes, i)[j] *= scale;
    }
}

static void softmax(float *x, uint64_t count)
{
    float most = x[0], sum = 0;
    for (uint64_t j = 1; j < count; j++)
        most = fmaxf(most, x[j]);
    for (uint64_t j = 0; j < count; j++)
        sum += x[j] = expf(x[j] - most);
    for (uint64_t j = 0; j < count; j++)
        x[j] /= sum;
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

static void sinkhorn(struct device *d, struct mat pre, struct mat post, struct mat comb,
                     struct mat mixes, struct mat scale, struct mat base, uint64_t iterations,
                     float eps)
{
    uint64_t n = pre.cols;
    const float *s = f32_row(scale, 0), *b = f32_row(base, 0);
    PARALLEL(EACH_ROW(d))
    for (uint64_t i = 0; i < mixes.rows; i++) {
        const float *mix = f32_row(mixes, i);
        for (uint64_t j = 0; j < n; j++) {
            f32_row(pre, i)[j] = sigmoid(mix[j] * s[0] + b[j]) + eps;
            f32_row(post, i)[j] = 2 * sigmoid(mix[n + j] * s[1] + b[n + j]);
        }
        for (uint64_t j = 0; j < n * n; j++)
            f32_row(comb, i)[j] = mix[2 * n + j] * s[2] + b[2 * n + j];
        doubly_stochastic(f32_row(comb, i), n, iterations, eps);
    }
}

static void hc_gate(struct device *d, struct mat pre, struct mat mixes, struct mat scale,
                    struct mat base, float eps)
{
    PARALLEL(EACH_ROW(d))
    for (uint64_t i = 0; i < pre.rows; i++)
        for (uint64_t j = 0; j < pre.cols; j++)
            f32_row(pre, i)[j] =
                sigmoid(f32_row(mixes, i)[j] * *f32_row(scale, 0) + f32_row(base, 0)[j]) + eps;
}

static void hc_in(struct device *d, struct mat y, struct mat x, struct mat pre)
{
    uint64_t n = pre.cols;
    PARALLEL(EACH_ROW(d))
    for (uint64_t i = 0; i < y.rows; i++)
        for (uint64_t j = 0; j < y.cols; j++) {
            float sum = 0;
            for (uint64_t k = 0; k < n; k++)
                sum += f32_row(pre, i)[k] * bf16_to_f32(bf16_row(x, i)[k * y.cols + j]);
            bf16_row(y, i)[j] = bf16_from_f32(sum);
        }
}

/* The copies of one row; room: n floats. */
static void hc_out_row(uint16_t *x, const uint16_t *y, const float *post, const float *comb,
                       uint64_t n, uint64_t cols, float *room)
{
    for (uint64_t j = 0; j < cols; j++) {
        float value = bf16_to_f32(y[j]);
        for (uint64_t k = 0; k < n; k++)
            room[k] = bf16_to_f32(x[k * cols + j]);
        for (uint64_t k = 0; k < n; k++) {
            float sum = 0;
            for (uint64_t i = 0; i < n; i++)
                sum += comb[i * n + k] * room[i];
            x[k * cols + j] = bf16_from_f32(post[k] * value + sum);
        }
    }
}

static void hc_out(struct device *d, struct mat x, struct mat y, struct mat post, struct mat comb)
{
#pragma omp parallel num_threads(cpu_of(d)->threads)
    {
        float *room = xalloc((size_t)post.cols, sizeof *room);
#pragma omp for schedule(static)
        for (uint64_t i = 0; i < x.rows; i++)
            hc_out_row(bf16_row(x, i), bf16_row(y, i), f32_row(post, i), f32_row(comb, i),
                       post.cols, y.cols, room);
        free(room);
    }
}

/* ---- experts ---- */

static void score(struct device *d, struct mat logits, enum scoring how)
{
    PARALLEL(EACH_ROW(d))
    for (uint64_t i = 0; i < logits.rows; i++) {
        float *x = f32_row(logits, i);
        if (how == SCORING_SOFTMAX)
            softmax(x, logits.cols);
        for (uint64_t j = 0; j < logits.cols && how != SCORING_SOFTMAX; j++)
            x[j] = how == SCORING_SIGMOID ? sigmoid(x[j])
                                          : sqrtf(x[j] > 20 ? x[j] : log1pf(expf(x[j])));
    }
}

/* The n <= count largest of count numbers, in order, ties to the first. */
static void largest(const float *x, uint64_t count, int32_t *index, uint64_t n)
{
    uint64_t found = 0;
    for (uint64_t j = 0; j < count; j++) {
        if (found == n && !(x[j] > x[index[n - 1]]))
            continue;
        uint64_t at = found < n ? found++ : n - 1;
        for (; at > 0 && x[j] > x[index[at - 1]]; at--)
            index[at] = index[at - 1];
        index[at] = (int32_t)j;
    }
}

/* How good a group is: the sum of its two best, or its best one. */
static float group_score(const float *x, uint64_t count, bool two)
{
    float best = -INFINITY, second = -INFINITY;
    for (uint64_t j = 0; j < count; j++) {
        second = fmaxf(second, fminf(x[j], best));
        best = fmaxf(best, x[j]);
    }
    return two ? best + second : best;
}

/* Working memory for the groups of a row. */
struct group_room {
    float *score;
    int32_t *best;
};

/* Set the scores of all but the best groups to -infinity. */
static void keep_groups(float *x, uint64_t count, struct expert_groups groups, bool two,
                        const struct group_room *room)
{
    uint64_t size = count / groups.count;
    for (uint64_t g = 0; g < groups.count; g++)
        room->score[g] = group_score(x + g * size, size, two);
    largest(room->score, groups.count, room->best, groups.used);
    for (uint64_t k = 0; k < groups.used; k++)
        room->score[room->best[k]] = INFINITY;
    for (uint64_t j = 0; j < groups.count * size; j++)
        if (room->score[j / size] < INFINITY)
            x[j] = -INFINITY;
}

static void route_topk(struct device *d, struct mat experts, struct mat scores, struct mat bias,
                       struct expert_groups groups)
{
#pragma omp parallel num_threads(cpu_of(d)->threads)
    {
        float *biased = xalloc((size_t)scores.cols, sizeof *biased);
        struct group_room room = {xalloc((size_t)groups.count, sizeof(float)),
                                  xalloc((size_t)groups.count, sizeof(int32_t))};
#pragma omp for schedule(static)
        for (uint64_t i = 0; i < scores.rows; i++) {
            for (uint64_t j = 0; j < scores.cols; j++)
                biased[j] = f32_row(scores, i)[j] + (bias.rows ? f32_row(bias, 0)[j] : 0);
            if (groups.count > 1)
                keep_groups(biased, scores.cols, groups, bias.rows > 0, &room);
            largest(biased, scores.cols, i32_row(experts, i), experts.cols);
        }
        free(biased);
        free(room.score);
        free(room.best);
    }
}

static void route_weights(struct device *d, struct mat weight, struct mat scores,
                          struct mat experts, bool normalize, float scale)
{
    PARALLEL(EACH_ROW(d))
    for (uint64_t i = 0; i < weight.rows; i++) {
        float *w = f32_row(weight, i), sum = 0;
        for (uint64_t j = 0; j < weight.cols; j++)
            sum += w[j] = f32_row(scores, i)[i32_row(experts, i)[j]];
        for (uint64_t j = 0; j < weight.cols; j++)
            w[j] = (normalize ? w[j] / sum : w[j]) * scale;
    }
}

/* ---- results ---- */

/* log of the sum of exp; in double, since a vocabulary is large. */
static double log_sum(const float *x, uint64_t count)
{
    float most = x[0];
    double sum = 0;
    for (uint64_t j = 1; j < count; j++)
        most = fmaxf(most, x[j]);
    for (uint64_t j = 0; j < count; j++)
        sum += (double)expf(x[j] - most);
    return (double)most + log(sum);
}

static void loss(struct device *d, struct mat nll, struct mat logits, struct mat target)
{
    PARALLEL(EACH_ROW(d))
    for (uint64_t i = 0; i < logits.rows; i++) {
        const float *x = f32_row(logits, i);
        *f32_row(nll, i) = (float)(log_sum(x, logits.cols) - (double)x[*i32_row(target, i)]);
    }
}

static void best(struct device *d, struct mat value, struct mat number, struct mat logits)
{
    PARALLEL(EACH_ROW(d))
    for (uint64_t i = 0; i < logits.rows; i++) {
        const float *x = f32_row(logits, i);
        double sum = log_sum(x, logits.cols);
        largest(x, logits.cols, i32_row(number, i), number.cols);
        for (uint64_t j = 0; j < value.cols; j++)
            f32_row(value, i)[j] = (float)((double)x[i32_row(number, i)[j]] - sum);
    }
}

void cpu_rows(struct device *d)
{
    d->copy = copy;
    d->gather = gather;
    d->scatter_add = scatter_add;
    d->scale = scale;
    d->scale_rows = scale_rows;
    d->add = add;
    d->quantize = quantize;
    d->encode = encode;
    d->rms_norm = rms_norm;
    d->add_norm = add_norm;
    d->layer_norm = layer_norm;
    d->unit = unit;
    d->rotate = rotate;
    d->rotate_halves = rotate_halves;
    d->hadamard = hadamard;
    d->swiglu = swiglu;
    d->hc_scale = hc_scale;
    d->sinkhorn = sinkhorn;
    d->hc_gate = hc_gate;
    d->hc_in = hc_in;
    d->hc_out = hc_out;
    d->score = score;
    d->route_topk = route_topk;
    d->route_weights = route_weights;
    d->loss = loss;
    d->best = best;
}
