/* The CPU as a device: operations on single rows. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "cpu/cpu.h"
#include "cpu/exp.h"
#include "tensor/activation.h"

/* Rows first … last - 1 of an operation. */
typedef void piece(const void *args, uint64_t first, uint64_t last);
#define PIECE(name)                                                                                \
    VECTORS(void, name, (const void *args, uint64_t first, uint64_t last), (args, first, last))

struct piecewise {
    piece *run;
    const void *args;
};

static void run_piece(void *context, unsigned thread, uint64_t first, uint64_t last)
{
    const struct piecewise *operation = context;
    (void)thread;
    operation->run(operation->args, first, last);
}

/* Run an operation on `rows` rows, each worth `elements` elements, on all threads. */
static void each_row(struct device *d, uint64_t rows, uint64_t elements, piece *run,
                     const void *args)
{
    parallel_for(cpu_of(d)->threads, rows, cpu_grain(elements), run_piece,
                 &(struct piecewise){run, args});
}

/* Sums over a row are taken in double and rounded once to F32: this is closest to every order of
 * F32 sums. In LANES partial sums, which compilers vectorize without changing the order. */
enum { LANES = 32 };

/* Columns at a time, where several loops over them are faster than one. */
enum { COLS = 64 };

INLINE double sum_lanes(const double *lane)
{
    double sum = 0;
    for (uint64_t j = 0; j < LANES; j++)
        sum += lane[j];
    return sum;
}

/* Add up to LANES squares. */
INLINE void add_squares(double *lane, const uint16_t *x, uint64_t count)
{
    for (uint64_t j = 0; j < count; j++) {
        double value = (double)bf16_to_f32(x[j]);
        lane[j] += value * value;
    }
}

INLINE float mean_square(const uint16_t *x, uint64_t count)
{
    double lane[LANES] = {0};
    uint64_t i = 0;
    for (; i + LANES <= count; i += LANES)
        add_squares(lane, x + i, LANES);
    add_squares(lane, x + i, count - i);
    return (float)sum_lanes(lane) / (float)count;
}

INLINE float sigmoid(float x)
{
    return 1 / (1 + exp_f32(-x));
}

/* ---- copies and sums ---- */

struct copy_args {
    struct mat y, x;
};

PIECE(copy_piece)
{
    const struct copy_args o = *(const struct copy_args *)args;
    for (uint64_t i = first; i < last; i++) {
        if (o.x.dtype == o.y.dtype)
            memcpy(mat_rows(o.y, i, 1).at, mat_rows(o.x, i, 1).at,
                   (size_t)o.y.cols * dtype_size(o.y.dtype));
        else if (o.y.dtype == DTYPE_BF16)
            for (uint64_t j = 0; j < o.y.cols; j++)
                bf16_row(o.y, i)[j] = bf16_from_f32(f32_row(o.x, i)[j]);
        else
            for (uint64_t j = 0; j < o.y.cols; j++)
                f32_row(o.y, i)[j] = bf16_to_f32(bf16_row(o.x, i)[j]);
    }
}

static void copy(struct device *d, struct mat y, struct mat x)
{
    each_row(d, y.rows, y.cols, copy_piece, &(struct copy_args){y, x});
}

struct gather_args {
    struct mat y, x, index;
};

static void gather_piece(const void *args, uint64_t first, uint64_t last)
{
    const struct gather_args o = *(const struct gather_args *)args;
    for (uint64_t i = first; i < last; i++)
        memcpy(bf16_row(o.y, i), bf16_row(o.x, (uint64_t)*i32_row(o.index, i)),
               (size_t)o.y.cols * sizeof(uint16_t));
}

static void see(struct device *d, struct mat seen, struct mat x)
{
    if (seen.rows)
        d->max_abs(d, seen, x);
}

static void gather(struct device *d, struct mat y, struct mat x, struct mat index, struct mat seen)
{
    each_row(d, y.rows, y.cols, gather_piece, &(struct gather_args){y, x, index});
    see(d, seen, y);
}

struct scatter_add_args {
    struct mat y, x, index, weight;
};

PIECE(scatter_add_piece)
{
    const struct scatter_add_args o = *(const struct scatter_add_args *)args;
    for (uint64_t i = first; i < last; i++) {
        float *to = f32_row(o.y, (uint64_t)*i32_row(o.index, i));
        const uint16_t *from = bf16_row(o.x, i);
        float factor = o.weight.rows ? *f32_row(o.weight, i) : 1;
        for (uint64_t j = 0; j < o.x.cols; j++)
            to[j] += bf16_to_f32(from[j]) * factor;
    }
}

static void scatter_add(struct device *d, struct mat y, struct mat x, struct mat index,
                        struct mat weight, struct mat seen)
{
    see(d, seen, x);
    each_row(d, x.rows, x.cols, scatter_add_piece, &(struct scatter_add_args){y, x, index, weight});
}

struct scale_args {
    struct mat x;
    float factor;
};

PIECE(scale_piece)
{
    const struct scale_args o = *(const struct scale_args *)args;
    for (uint64_t i = first; i < last; i++)
        for (uint64_t j = 0; j < o.x.cols; j++)
            bf16_row(o.x, i)[j] = bf16_from_f32(bf16_to_f32(bf16_row(o.x, i)[j]) * o.factor);
}

static void scale(struct device *d, struct mat x, float factor)
{
    each_row(d, x.rows, x.cols, scale_piece, &(struct scale_args){x, factor});
}

struct scale_rows_args {
    struct mat x, factor;
};

PIECE(scale_rows_piece)
{
    const struct scale_rows_args o = *(const struct scale_rows_args *)args;
    for (uint64_t i = first; i < last; i++)
        for (uint64_t j = 0; j < o.x.cols; j++)
            bf16_row(o.x, i)[j] =
                bf16_from_f32(bf16_to_f32(bf16_row(o.x, i)[j]) * *f32_row(o.factor, i));
}

static void scale_rows(struct device *d, struct mat x, struct mat factor)
{
    each_row(d, x.rows, x.cols, scale_rows_piece, &(struct scale_rows_args){x, factor});
}

struct add_args {
    struct mat y, x;
};

PIECE(add_piece)
{
    const struct add_args o = *(const struct add_args *)args;
    for (uint64_t i = first; i < last; i++) {
        uint16_t *to = bf16_row(o.y, i);
        const uint16_t *from = bf16_row(o.x, i);
        for (uint64_t j = 0; j < o.y.cols; j++)
            to[j] = bf16_from_f32(bf16_to_f32(to[j]) + bf16_to_f32(from[j]));
    }
}

static void add(struct device *d, struct mat y, struct mat x)
{
    each_row(d, y.rows, y.cols, add_piece, &(struct add_args){y, x});
}

/* ---- activations ---- */

struct quantize_args {
    struct mat y, x;
    enum activation how;
    float scale_2;
};

static void quantize_piece(const void *args, uint64_t first, uint64_t last)
{
    const struct quantize_args o = *(const struct quantize_args *)args;
    uint8_t *room = xalloc((size_t)o.x.cols, 1);
    for (uint64_t i = first; i < last; i++) {
        uint16_t *to = bf16_row(o.y, i);
        const uint16_t *from = bf16_row(o.x, i);
        switch (o.how) {
        case ACTIVATION_BF16:
            memmove(to, from, (size_t)o.x.cols * sizeof *to);
            break;
        case ACTIVATION_FP8:
            activation_fp8_row(to, from, (size_t)o.x.cols, 128);
            break;
        case ACTIVATION_FP8_32:
            activation_fp8_row(to, from, (size_t)o.x.cols, 32);
            break;
        case ACTIVATION_FP8_V3:
        case ACTIVATION_FP8_V32:
            activation_fp8_split_row(to, from, (size_t)o.x.cols, o.how == ACTIVATION_FP8_V3);
            break;
        case ACTIVATION_FP8_V32_ROUNDED:
            activation_fp8_real_row(to, from, (size_t)o.x.cols);
            break;
        case ACTIVATION_FP4:
            activation_fp4_row(to, from, (size_t)o.x.cols);
            break;
        case ACTIVATION_NVFP4:
            activation_nvfp4_row(to, from, (size_t)o.x.cols, o.scale_2, room);
            break;
        }
    }
    free(room);
}

static void quantize(struct device *d, struct mat y, struct mat x, enum activation how,
                     float scale_2, struct mat seen)
{
    see(d, seen, x);
    each_row(d, x.rows, x.cols, quantize_piece, &(struct quantize_args){y, x, how, scale_2});
}

struct encode_args {
    struct mat y, x, factor;
    bool power;
};

static void encode_piece(const void *args, uint64_t first, uint64_t last)
{
    const struct encode_args o = *(const struct encode_args *)args;
    for (uint64_t i = first; i < last; i++)
        *f32_row(o.factor, i) *= activation_fp8_encode_row(bf16_row(o.y, i), bf16_row(o.x, i),
                                                           (size_t)o.x.cols, o.power);
}

static void encode(struct device *d, struct mat y, struct mat x, struct mat factor, bool power)
{
    each_row(d, x.rows, x.cols, encode_piece, &(struct encode_args){y, x, factor, power});
}

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
    each_row(d, x.rows, x.cols, rms_norm_piece, &(struct rms_norm_args){y, x, weight, eps});
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
    each_row(d, x.rows, x.cols, add_norm_piece, &(struct add_norm_args){y, sum, x, weight, eps});
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
    each_row(d, x.rows, x.cols, layer_norm_piece,
             &(struct layer_norm_args){y, x, weight, bias, eps});
}

/* Add up to LANES squares that are rounded to BF16. */
INLINE void add_rounded_squares(double *lane, const uint16_t *x, uint64_t count)
{
    for (uint64_t j = 0; j < count; j++)
        lane[j] += (double)to_bf16(bf16_to_f32(x[j]) * bf16_to_f32(x[j]));
}

INLINE void unit_head(uint16_t *x, uint64_t width, float eps)
{
    double lane[LANES] = {0};
    uint64_t i = 0;
    for (; i + LANES <= width; i += LANES)
        add_rounded_squares(lane, x + i, LANES);
    add_rounded_squares(lane, x + i, width - i);
    float mean = to_bf16((float)sum_lanes(lane) / (float)width);
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
    see(d, seen, x);
    each_row(d, x.rows, x.cols, unit_piece, &(struct unit_args){x, width, eps});
}

/* Pairs of the `cols` columns: a column and the one that is `apart` from it, pairs `step` apart.
 *
 * If one product is added and another subtracted, GCC 12's loop vectorizer fuses products and sums
 * on processors with FMA (-march=native), despite -ffp-contract=off. So both are added; the product
 * with -sine is that with sine, negated. */
INLINE void rotate_head(uint16_t *x, const float *angle, uint64_t cols, float direction,
                        uint64_t apart, uint64_t step)
{
    for (uint64_t j = 0; j < cols; j += 2, x += step) {
        float a = bf16_to_f32(x[0]), b = bf16_to_f32(x[apart]);
        float cosine = angle[j], sine = angle[j + 1] * direction, down = angle[j + 1] * -direction;
        x[0] = bf16_from_f32(a * cosine + b * down);
        x[apart] = bf16_from_f32(a * sine + b * cosine);
    }
}

struct rotate_args {
    struct mat x;
    uint64_t width;
    struct mat table, position;
    bool inverse;
};

PIECE(rotate_piece)
{
    const struct rotate_args o = *(const struct rotate_args *)args;
    for (uint64_t i = first; i < last; i++) {
        const float *angle = f32_row(o.table, (uint64_t)*i32_row(o.position, i));
        for (uint64_t end = o.width; end <= o.x.cols; end += o.width)
            rotate_head(bf16_row(o.x, i) + end - o.table.cols, angle, o.table.cols,
                        o.inverse ? -1 : 1, 1, 2);
    }
}

static void rotate(struct device *d, struct mat x, uint64_t width, struct mat table,
                   struct mat position, bool inverse)
{
    each_row(d, x.rows, x.cols, rotate_piece,
             &(struct rotate_args){x, width, table, position, inverse});
}

struct rotate_halves_args {
    struct mat x;
    uint64_t width;
    struct mat table, position;
};

PIECE(rotate_halves_piece)
{
    const struct rotate_halves_args o = *(const struct rotate_halves_args *)args;
    for (uint64_t i = first; i < last; i++) {
        const float *angle = f32_row(o.table, (uint64_t)*i32_row(o.position, i));
        for (uint64_t first = 0; first < o.x.cols; first += o.width)
            rotate_head(bf16_row(o.x, i) + first, angle, o.table.cols, 1, o.table.cols / 2, 1);
    }
}

static void rotate_halves(struct device *d, struct mat x, uint64_t width, struct mat table,
                          struct mat position)
{
    each_row(d, x.rows, x.cols, rotate_halves_piece,
             &(struct rotate_halves_args){x, width, table, position});
}

INLINE void hadamard_head(uint16_t *x, float *sum, uint64_t width)
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

struct hadamard_args {
    struct mat x;
    uint64_t width;
};

PIECE(hadamard_piece)
{
    const struct hadamard_args o = *(const struct hadamard_args *)args;
    float *sum = xalloc((size_t)o.width, sizeof *sum);
    for (uint64_t i = first; i < last; i++)
        for (uint64_t first = 0; first < o.x.cols; first += o.width)
            hadamard_head(bf16_row(o.x, i) + first, sum, o.width);
    free(sum);
}

static void hadamard(struct device *d, struct mat x, uint64_t width)
{
    each_row(d, x.rows, x.cols, hadamard_piece, &(struct hadamard_args){x, width});
}

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

/* ---- hyper-connections ---- */

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
    each_row(d, x.rows, x.cols, hc_scale_piece, &(struct hc_scale_args){mixes, x, eps});
}

INLINE void softmax(float *x, uint64_t count)
{
    float most = x[0], sum = 0;
    for (uint64_t j = 1; j < count; j++)
        most = fmaxf(most, x[j]);
    for (uint64_t j = 0; j < count; j++)
        x[j] = exp_f32(x[j] - most);
    for (uint64_t j = 0; j < count; j++)
        sum += x[j];
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
    each_row(d, mixes.rows, mixes.cols * iterations, sinkhorn_piece,
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
    each_row(d, pre.rows, pre.cols, hc_gate_piece,
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
    each_row(d, y.rows, x.cols, hc_in_piece, &(struct hc_in_args){y, x, pre});
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
    each_row(d, x.rows, x.cols, hc_out_piece, &(struct hc_out_args){x, y, post, comb});
}

/* ---- experts ---- */

struct score_args {
    struct mat logits;
    enum scoring how;
};

PIECE(score_piece)
{
    const struct score_args o = *(const struct score_args *)args;
    for (uint64_t i = first; i < last; i++) {
        float *x = f32_row(o.logits, i);
        if (o.how == SCORING_SOFTMAX)
            softmax(x, o.logits.cols);
        for (uint64_t j = 0; j < o.logits.cols && o.how != SCORING_SOFTMAX; j++)
            x[j] = o.how == SCORING_SIGMOID ? sigmoid(x[j])
                                            : sqrtf(x[j] > 20 ? x[j] : log1pf(exp_f32(x[j])));
    }
}

static void score(struct device *d, struct mat logits, enum scoring how)
{
    each_row(d, logits.rows, logits.cols, score_piece, &(struct score_args){logits, how});
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

struct route_topk_args {
    struct mat experts, scores, bias;
    struct expert_groups groups;
};

static void route_topk_piece(const void *args, uint64_t first, uint64_t last)
{
    const struct route_topk_args o = *(const struct route_topk_args *)args;
    float *biased = xalloc((size_t)o.scores.cols, sizeof *biased);
    struct group_room room = {xalloc((size_t)o.groups.count, sizeof(float)),
                              xalloc((size_t)o.groups.count, sizeof(int32_t))};
    for (uint64_t i = first; i < last; i++) {
        for (uint64_t j = 0; j < o.scores.cols; j++)
            biased[j] = f32_row(o.scores, i)[j] + (o.bias.rows ? f32_row(o.bias, 0)[j] : 0);
        if (o.groups.count > 1)
            keep_groups(biased, o.scores.cols, o.groups, o.bias.rows > 0, &room);
        largest(biased, o.scores.cols, i32_row(o.experts, i), o.experts.cols);
    }
    free(biased);
    free(room.score);
    free(room.best);
}

static void route_topk(struct device *d, struct mat experts, struct mat scores, struct mat bias,
                       struct expert_groups groups)
{
    each_row(d, scores.rows, scores.cols, route_topk_piece,
             &(struct route_topk_args){experts, scores, bias, groups});
}

struct route_weights_args {
    struct mat weight, scores, experts;
    bool normalize;
    float scale;
};

static void route_weights_piece(const void *args, uint64_t first, uint64_t last)
{
    const struct route_weights_args o = *(const struct route_weights_args *)args;
    for (uint64_t i = first; i < last; i++) {
        float *w = f32_row(o.weight, i), sum = 0;
        for (uint64_t j = 0; j < o.weight.cols; j++)
            sum += w[j] = f32_row(o.scores, i)[i32_row(o.experts, i)[j]];
        for (uint64_t j = 0; j < o.weight.cols; j++)
            w[j] = (o.normalize ? w[j] / sum : w[j]) * o.scale;
    }
}

static void route_weights(struct device *d, struct mat weight, struct mat scores,
                          struct mat experts, bool normalize, float scale)
{
    each_row(d, weight.rows, weight.cols, route_weights_piece,
             &(struct route_weights_args){weight, scores, experts, normalize, scale});
}

static void sort_by_expert(struct device *d, struct mat token, struct mat sorted,
                           struct mat experts, struct mat weight, uint64_t *number, uint64_t count)
{
    uint64_t used = experts.cols, all = experts.rows * used, at = 0;
    const int32_t *expert = experts.at;
    uint64_t *next = xalloc((size_t)count, sizeof *next);
    (void)d;
    memset(number, 0, (size_t)count * sizeof *number);
    for (uint64_t i = 0; i < all; i++)
        number[expert[i]]++;
    for (uint64_t e = 0; e < count; at += number[e++])
        next[e] = at;
    for (uint64_t i = 0; i < all; i++) {
        uint64_t to = next[expert[i]]++;
        *i32_row(token, to) = (int32_t)(i / used);
        *f32_row(sorted, to) = ((const float *)weight.at)[i];
    }
    free(next);
}

/* ---- results ---- */

/* Add up to LANES numbers of e^(x - most). */
INLINE void add_powers(double *lane, const float *x, float most, uint64_t count)
{
    for (uint64_t j = 0; j < count; j++)
        lane[j] += (double)exp_f32(x[j] - most);
}

/* log of the sum of exp; in double, since a vocabulary is large. */
INLINE double log_sum(const float *x, uint64_t count)
{
    double lane[LANES] = {0};
    float most = x[0];
    uint64_t i = 0;
    for (uint64_t j = 1; j < count; j++)
        most = fmaxf(most, x[j]);
    for (; i + LANES <= count; i += LANES)
        add_powers(lane, x + i, most, LANES);
    add_powers(lane, x + i, most, count - i);
    return (double)most + log(sum_lanes(lane));
}

struct loss_args {
    struct mat nll, logits, target;
};

PIECE(loss_piece)
{
    const struct loss_args o = *(const struct loss_args *)args;
    for (uint64_t i = first; i < last; i++) {
        const float *x = f32_row(o.logits, i);
        *f32_row(o.nll, i) = (float)(log_sum(x, o.logits.cols) - (double)x[*i32_row(o.target, i)]);
    }
}

static void loss(struct device *d, struct mat nll, struct mat logits, struct mat target)
{
    each_row(d, logits.rows, logits.cols, loss_piece, &(struct loss_args){nll, logits, target});
}

struct best_args {
    struct mat value, number, logits;
};

PIECE(best_piece)
{
    const struct best_args o = *(const struct best_args *)args;
    for (uint64_t i = first; i < last; i++) {
        const float *x = f32_row(o.logits, i);
        double sum = log_sum(x, o.logits.cols);
        largest(x, o.logits.cols, i32_row(o.number, i), o.number.cols);
        for (uint64_t j = 0; j < o.value.cols; j++)
            f32_row(o.value, i)[j] = (float)((double)x[i32_row(o.number, i)[j]] - sum);
    }
}

static void best(struct device *d, struct mat value, struct mat number, struct mat logits)
{
    each_row(d, logits.rows, logits.cols, best_piece, &(struct best_args){value, number, logits});
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
    d->sort_by_expert = sort_by_expert;
    d->loss = loss;
    d->best = best;
}
