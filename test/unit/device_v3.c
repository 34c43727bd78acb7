/* Devices: the operations of DeepSeek-V3's forward pass, against plain loops over inputs made for
 * them. */
#include "forward/device.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/die.h"
#include "on_device.h"
#include "tensor/activation.h"
#include "tensor/bf16.h"
#include "tensor/e4m3.h"
#include "tensor/split.h"

static struct device *d;

/* ---- inputs ---- */

static float noise(uint32_t *seed)
{
    *seed = *seed * 1664525 + 1013904223;
    return (float)(int32_t)*seed * 0x1p-31F;
}

static float to_bf16(float value)
{
    return bf16_to_f32(bf16_from_f32(value));
}

/* A matrix of noise in [-size, size), and its values, which the caller frees. */
static struct mat noises(enum dtype dtype, uint64_t rows, uint64_t cols, float size, uint32_t seed,
                         float **value)
{
    size_t count = (size_t)(rows * cols);
    uint16_t *code = xalloc(count, sizeof *code);
    *value = xalloc(count, sizeof **value);
    for (size_t i = 0; i < count; i++) {
        float x = size * noise(&seed);
        code[i] = bf16_from_f32(x);
        (*value)[i] = dtype == DTYPE_BF16 ? to_bf16(x) : x;
    }
    struct mat m = d->make(d, dtype, rows, cols);
    d->write(d, m, dtype == DTYPE_BF16 ? (const void *)code : *value);
    free(code);
    return m;
}

/* A result's values, which the caller frees. */
static float *values(struct mat m)
{
    size_t count = (size_t)(m.rows * m.cols);
    float *value = xalloc(count, sizeof *value);
    void *raw = xalloc(count, dtype_size(m.dtype));
    d->read(d, raw, m);
    for (size_t i = 0; i < count; i++)
        value[i] = (float)dtype_value(m.dtype, raw, i);
    free(raw);
    return value;
}

static void expect_near(float got, double want, double bound)
{
    if (!(fabs((double)got - want) <= bound))
        fail_msg("got %g, wanted %g, within %g", (double)got, want, bound);
}

static struct mat column(const int32_t *value, uint64_t rows, uint64_t cols)
{
    struct mat m = d->make(d, DTYPE_I32, rows, cols);
    d->write(d, m, value);
    return m;
}

static void drop_all(const struct mat *mats, size_t count)
{
    for (size_t i = 0; i < count; i++)
        d->drop(d, mats[i]);
}

/* ---- rows ---- */

static void norms(void **state)
{
    (void)state;
    need_device(d);
    enum { ROWS = 5, COLS = 72 };
    const float eps = 1e-3F;
    float *x, *y, *w, *b;
    struct mat m[] = {noises(DTYPE_BF16, ROWS, COLS, 3, 1, &x),
                      noises(DTYPE_BF16, ROWS, COLS, 2, 2, &y),
                      noises(DTYPE_F32, 1, COLS, 1, 3, &w), noises(DTYPE_F32, 1, COLS, 1, 4, &b),
                      d->make(d, DTYPE_BF16, ROWS, COLS)};
    d->layer_norm(d, m[4], m[0], m[2], m[3], eps);
    float *layer = values(m[4]);
    d->add_norm(d, m[4], m[0], m[1], m[2], eps);
    float *rms = values(m[4]), *sum = values(m[0]);
    for (int i = 0; i < ROWS; i++) {
        double mean = 0, variance = 0, square = 0;
        const float *row = x + i * COLS, *other = y + i * COLS;
        for (int j = 0; j < COLS; j++) {
            mean += (double)row[j] / COLS;
            square += pow((double)row[j] + (double)other[j], 2) / COLS;
        }
        for (int j = 0; j < COLS; j++)
            variance += pow((double)row[j] - mean, 2) / COLS;
        for (int j = 0; j < COLS; j++) {
            double normed = ((double)row[j] - mean) / sqrt(variance + (double)eps) * (double)w[j];
            expect_near(layer[i * COLS + j], normed + (double)b[j], 0x1p-7);
            double both = (double)row[j] + (double)other[j];
            expect_near(rms[i * COLS + j], both / sqrt(square + (double)eps) * (double)w[j],
                        0x1p-7);
            assert_true(sum[i * COLS + j] == to_bf16(row[j] + other[j]));
        }
    }
    drop_all(m, sizeof m / sizeof *m);
    float *all[] = {x, y, w, b, layer, rms, sum};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

static void halves_turn_in_pairs(void **state)
{
    (void)state;
    need_device(d);
    enum { ROWS = 3, WIDTH = 16, HEADS = 2, TURNED = 8 };
    static const int32_t position[ROWS] = {2, 0, 1};
    float *x, *table;
    struct mat m[] = {noises(DTYPE_BF16, ROWS, HEADS * WIDTH, 1, 1, &x),
                      noises(DTYPE_F32, ROWS, TURNED, 1, 2, &table), column(position, ROWS, 1)};
    d->rotate_halves(d, m[0], WIDTH, m[1], m[2]);
    float *got = values(m[0]);
    for (int i = 0; i < ROWS; i++)
        for (int h = 0; h < HEADS; h++)
            for (int j = 0; j < WIDTH; j++) {
                const float *from = x + (i * HEADS + h) * WIDTH;
                const float *angle = table + position[i] * TURNED;
                float want = from[j];
                if (j < TURNED / 2)
                    want =
                        to_bf16(from[j] * angle[2 * j] - from[j + TURNED / 2] * angle[2 * j + 1]);
                else if (j < TURNED)
                    want = to_bf16(from[j - TURNED / 2] * angle[2 * (j - TURNED / 2) + 1] +
                                   from[j] * angle[2 * (j - TURNED / 2)]);
                expect_near(got[(i * HEADS + h) * WIDTH + j], (double)want, 0);
            }
    drop_all(m, sizeof m / sizeof *m);
    free(x);
    free(table);
    free(got);
}

static void weights_multiply_what_is_scattered(void **state)
{
    (void)state;
    need_device(d);
    static const int32_t index[] = {2, 0};
    float *x, *weight, *y;
    struct mat m[] = {noises(DTYPE_BF16, 2, 9, 1, 1, &x), noises(DTYPE_F32, 2, 1, 1, 2, &weight),
                      noises(DTYPE_F32, 3, 9, 1, 3, &y), column(index, 2, 1)};
    d->scatter_add(d, m[2], m[0], m[3], m[1], (struct mat){0});
    float *got = values(m[2]);
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 9; j++)
            y[index[i] * 9 + j] += x[i * 9 + j] * weight[i];
    for (int i = 0; i < 27; i++)
        expect_near(got[i], (double)y[i], 0);
    drop_all(m, sizeof m / sizeof *m);
    free(x);
    free(weight);
    free(y);
    free(got);
}

static void silu_is_rounded_if_wanted(void **state)
{
    (void)state;
    need_device(d);
    enum { COUNT = 400 };
    float *gate, *up;
    struct mat m[] = {noises(DTYPE_BF16, 1, COUNT, 4, 1, &gate),
                      noises(DTYPE_BF16, 1, COUNT, 4, 2, &up), d->make(d, DTYPE_BF16, 1, COUNT)};
    d->swiglu(d, m[2], m[0], m[1], (struct swiglu){.rounds = true}, (struct mat){0}, NULL);
    float *got = values(m[2]);
    int differ = 0, other = 0;
    for (int i = 0; i < COUNT; i++) {
        float silu = gate[i] / (1 + expf(-gate[i]));
        differ += got[i] != to_bf16(to_bf16(silu) * up[i]);
        other += got[i] != to_bf16(silu * up[i]);
    }
    assert_true(differ <= COUNT / 100); /* another expf */
    assert_true(other > COUNT / 10);
    drop_all(m, sizeof m / sizeof *m);
    free(gate);
    free(up);
    free(got);
}

/* ---- activations and products ---- */

static float fp8_scale(const float *x, size_t count, bool quotient)
{
    float amax = 1e-4F;
    for (size_t i = 0; i < count; i++)
        amax = fmaxf(amax, fabsf(x[i]));
    return quotient ? amax / 448 : amax * (1 / 448.0F);
}

static float fp8_value(float x, float scale)
{
    return e4m3_to_f32(e4m3_from_f32(x / scale)) * scale;
}

/* With scales that are no powers of two, parts add up to the values exactly. */
static void activations_are_split_without_loss(void **state)
{
    (void)state;
    need_device(d);
    enum { ROWS = 3, COLS = 320 };
    for (int quotient = 0; quotient <= 1; quotient++) {
        float *x;
        struct mat m[] = {noises(DTYPE_BF16, ROWS, COLS, 5, 1, &x),
                          d->make(d, DTYPE_BF16, ROWS, SPLIT * COLS),
                          d->make(d, DTYPE_BF16, ROWS, COLS)};
        d->quantize(d, m[1], m[0], quotient ? ACTIVATION_FP8_V3 : ACTIVATION_FP8_V32, 0,
                    (struct mat){0});
        d->quantize(d, m[2], m[0], ACTIVATION_FP8_V32_ROUNDED, 0, (struct mat){0});
        float *got = values(m[1]), *rounded = values(m[2]);
        for (size_t i = 0; i < (size_t)ROWS * COLS; i++) {
            size_t row = i / COLS, col = i % COLS, first = col / 128 * 128;
            size_t count = COLS - first < 128 ? COLS - first : 128;
            const float *part = got + row * SPLIT * COLS + col;
            float scale = fp8_scale(x + row * COLS + first, count, quotient);
            float want = fp8_value(x[i], scale);
            float high = part[0], middle = part[2 * COLS], low = part[5 * COLS];
            assert_true(high + (middle + low) == want);
            assert_true(part[COLS] == high && part[4 * COLS] == high && part[3 * COLS] == middle);
            if (!quotient)
                assert_true(rounded[i] == to_bf16(want));
        }
        drop_all(m, sizeof m / sizeof *m);
        free(x);
        free(got);
        free(rounded);
    }
}

static void codes_and_scales(void **state)
{
    (void)state;
    need_device(d);
    enum { ROWS = 7, COLS = 64 };
    for (int power = 0; power <= 1; power++) {
        float *x, *factor;
        struct mat m[] = {noises(DTYPE_BF16, ROWS, COLS, 5, 1, &x),
                          noises(DTYPE_F32, ROWS, 1, 1, 2, &factor)};
        d->encode(d, m[0], m[0], m[1], power);
        float *code = values(m[0]), *scaled = values(m[1]);
        for (int i = 0; i < ROWS; i++) {
            float scale = fp8_scale(x + i * COLS, COLS, false);
            scale = power ? exp2f(ceilf(log2f(scale))) : scale;
            assert_true(scaled[i] == factor[i] * scale);
            for (int j = 0; j < COLS; j++)
                assert_true(code[i * COLS + j] ==
                            e4m3_to_f32(e4m3_from_f32(x[i * COLS + j] / scale)));
        }
        drop_all(m, sizeof m / sizeof *m);
        free(x);
        free(factor);
        free(code);
        free(scaled);
    }
}

enum { OUT = 300, IN = 200, BLOCK = 128, X_ROWS = 5 };

/* y = x · w, of an FP8 weight with scales that are no powers of two. */
static void multiply(struct mat y, struct mat x, const uint8_t *code, float *scale,
                     struct operand_part part)
{
    const struct weight w = {
        .format = FORMAT_FP8, .rows = OUT, .cols = IN, .block_rows = BLOCK, .block_cols = BLOCK};
    const struct tensor tensor = {.size = OUT * IN, .dtype = DTYPE_F8_E4M3};
    const struct scales scales = {.fp8 = scale, .cols = 2};
    struct mat bytes = d->make(d, DTYPE_U8, 1, OUT * IN), amax = d->make(d, DTYPE_F32, 1, 1);
    d->write(d, bytes, code);
    struct operand *operand = d->operand(d, &w, &tensor, &scales, bytes, bytes, part, amax);
    d->product(d, y, x, operand);
    d->drop_operand(d, operand);
    d->drop(d, bytes);
    d->drop(d, amax);
}

static float *weights(uint8_t *code, const float *scale)
{
    uint32_t seed = 9;
    float *w = xalloc((size_t)OUT * IN, sizeof *w);
    for (size_t i = 0; i < (size_t)OUT * IN; i++) {
        code[i] = e4m3_from_f32(448 * noise(&seed));
        w[i] = e4m3_to_f32(code[i]) * scale[i / IN / BLOCK * 2 + i % IN / BLOCK];
    }
    return w;
}

/* Some rows, transposed: y = x · w, with w rounded to BF16. And all, split. */
static void products_with_parts_of_weights(void **state)
{
    (void)state;
    need_device(d);
    enum { FIRST = 100, ROWS = 60 };
    float scale[] = {0.001F, 0.0007F, 0.0013F, 0.0003F, 0.0009F, 0.0011F}, *x, *activation;
    uint8_t *code = xalloc(OUT, IN);
    float *w = weights(code, scale);
    struct mat m[] = {noises(DTYPE_BF16, X_ROWS, ROWS, 1, 1, &x),
                      noises(DTYPE_BF16, X_ROWS, IN, 1, 2, &activation),
                      d->make(d, DTYPE_F32, X_ROWS, IN), d->make(d, DTYPE_F32, X_ROWS, OUT),
                      d->make(d, DTYPE_BF16, X_ROWS, SPLIT * IN)};
    multiply(m[2], m[0], code, scale, (struct operand_part){FIRST, ROWS, true, false});
    d->quantize(d, m[4], m[1], ACTIVATION_FP8_V3, 0, (struct mat){0});
    multiply(m[3], m[4], code, scale, (struct operand_part){.rows = OUT, .split = true});
    float *transposed = values(m[2]), *split = values(m[3]);
    for (int i = 0; i < X_ROWS; i++) {
        for (int j = 0; j < IN; j++) {
            double sum = 0;
            for (int k = 0; k < ROWS; k++)
                sum += (double)x[i * ROWS + k] * (double)to_bf16(w[(FIRST + k) * IN + j]);
            expect_near(transposed[i * IN + j], sum, 1e-4);
        }
        for (int j = 0; j < OUT; j++) {
            double sum = 0, size = 0;
            for (int k = 0; k < IN; k++) {
                const float *block = activation + i * IN + k / BLOCK * BLOCK;
                size_t count = k < BLOCK ? BLOCK : IN - BLOCK;
                double a = (double)fp8_value(activation[i * IN + k], fp8_scale(block, count, true));
                sum += a * (double)w[j * IN + k];
                size += fabs(a * (double)w[j * IN + k]);
            }
            expect_near(split[i * OUT + j], sum, size * 0x1p-20);
        }
    }
    drop_all(m, sizeof m / sizeof *m);
    float *all[] = {x, activation, w, transposed, split};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
    free(code);
}

/* ---- routing ---- */

/* Of four groups of three, two are candidates: with a bias by their two best, without by the best
 * one. */
static void groups_are_chosen_first(void **state)
{
    (void)state;
    need_device(d);
    static const float score[] = {0.9F, 0, 0, 0.6F, 0.5F, 0, 0.8F, 0.1F, 0.7F, 0.2F, 0.3F, 0.4F};
    static const float zero[12];
    static const int32_t with[] = {6, 8, 3}, without[] = {0, 6, 8};
    struct mat s = d->make(d, DTYPE_F32, 1, 12), bias = d->make(d, DTYPE_F32, 1, 12);
    struct mat experts = d->make(d, DTYPE_I32, 1, 3);
    int32_t got[3];
    d->write(d, s, score);
    d->write(d, bias, zero);
    d->route_topk(d, experts, s, bias, (struct expert_groups){4, 2});
    d->read(d, got, experts);
    assert_memory_equal(got, with, sizeof got);
    d->route_topk(d, experts, s, (struct mat){0}, (struct expert_groups){4, 2});
    d->read(d, got, experts);
    assert_memory_equal(got, without, sizeof got);
    d->drop(d, s);
    d->drop(d, bias);
    d->drop(d, experts);
}

/* ---- attention ---- */

/* Two samples; of the longer one, more than a tile of queries. */
enum { FIRST_TOKENS = 150, TOKENS = 190, HEADS = 3, NOPE = 32, ROPE = 16, VALUES = 48, BEST = 20 };

static int32_t position_of(int row)
{
    return row < FIRST_TOKENS ? row : row - FIRST_TOKENS;
}

static struct mat positions(bool first)
{
    int32_t value[TOKENS];
    for (int i = 0; i < TOKENS; i++)
        value[i] = first ? i - position_of(i) : position_of(i);
    return column(value, TOKENS, 1);
}

/* By the book: the indexer's scores, and the best ones of them. */
static void selection_in_f32(void **state)
{
    (void)state;
    need_device(d);
    enum { WIDTH = 64 };
    float *q, *key, *weight, *scale;
    struct mat m[] = {noises(DTYPE_BF16, TOKENS, HEADS * WIDTH, 4, 1, &q),
                      noises(DTYPE_BF16, TOKENS, WIDTH, 4, 2, &key),
                      noises(DTYPE_F32, TOKENS, HEADS, 1, 3, &weight),
                      noises(DTYPE_F32, TOKENS, 1, 1, 4, &scale),
                      positions(false),
                      positions(true),
                      d->make(d, DTYPE_I32, TOKENS, BEST)};
    for (int i = 0; i < TOKENS; i++)
        scale[i] = 1.5F + scale[i];
    d->write(d, m[3], scale);
    const struct keys keys = {
        .compressed = m[1], .scale = m[3], .position = m[4], .block = m[5], .ratio = 1};
    d->select(d, m[6], m[0], &keys, m[2]);
    int32_t *got = xalloc((size_t)TOKENS * BEST, sizeof *got);
    d->read(d, got, m[6]);
    for (int i = 0; i < TOKENS; i++) {
        int count = position_of(i) + 1, found = 0;
        double score[TOKENS], worst = INFINITY, best_left = -INFINITY;
        bool taken[TOKENS] = {false};
        for (int j = 0; j < BEST; j++) {
            int32_t at = got[i * BEST + j];
            assert_true(at < count && (at >= 0 || j >= count) &&
                        (at < 0 || j == 0 || at > got[i * BEST + j - 1]));
            if (at >= 0)
                taken[at] = true;
            found += at >= 0;
        }
        assert_int_equal(found, count < BEST ? count : BEST);
        for (int j = 0; j < count; j++) {
            int row = i - position_of(i) + j;
            score[j] = 0;
            for (int h = 0; h < HEADS; h++) {
                double sum = 0;
                for (int k = 0; k < WIDTH; k++)
                    sum += (double)q[(i * HEADS + h) * WIDTH + k] * (double)key[row * WIDTH + k];
                score[j] += fmax(sum, 0) * (double)weight[i * HEADS + h];
            }
            score[j] *= (double)scale[row];
            worst = taken[j] ? fmin(worst, score[j]) : worst;
            best_left = taken[j] ? best_left : fmax(best_left, score[j]);
        }
        assert_true(worst >= best_left - 1e-3);
    }
    drop_all(m, sizeof m / sizeof *m);
    float *all[] = {q, key, weight, scale};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
    free(got);
}

/* Every third key up to the token itself, and always the first. */
static struct mat some_keys(void)
{
    int32_t *value = xalloc((size_t)TOKENS * BEST, sizeof *value);
    for (int i = 0; i < TOKENS; i++)
        for (int j = 0; j < BEST; j++)
            value[i * BEST + j] = 3 * j <= position_of(i) ? 3 * j : -1;
    struct mat m = column(value, TOKENS, BEST);
    free(value);
    return m;
}

/* What a head's operands are: own keys and values, or those that all share. */
struct book {
    const float *q, *kv; /* [TOKENS, HEADS * (NOPE + ROPE)], [TOKENS, kv_cols] */
    uint64_t kv_cols, key_step, value_at, value_step;
    bool some, rounds_parts;
    float scale;
};

static double dot(const float *a, const float *b, int count)
{
    double sum = 0;
    for (int i = 0; i < count; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

static void expect_head(const struct book *b, const float *got, int token, int head)
{
    const float *q = b->q + (token * HEADS + head) * (NOPE + ROPE);
    int count = position_of(token) + 1, sample = token - position_of(token);
    double p[TOKENS], most = -INFINITY, sum = 0;
    for (int j = 0; j < count; j++) {
        const float *row = b->kv + (uint64_t)(sample + j) * b->kv_cols;
        float first = (float)dot(q, row + ROPE + (uint64_t)head * b->key_step, NOPE);
        float second = (float)dot(q + NOPE, row, ROPE);
        float logit = b->rounds_parts ? to_bf16(first) + to_bf16(second) : first + second;
        bool seen = !b->some || (j % 3 == 0 && j / 3 < BEST);
        p[j] = seen ? (double)to_bf16(to_bf16(logit) * b->scale) : -INFINITY;
        most = fmax(most, p[j]);
    }
    for (int j = 0; j < count; j++)
        sum += p[j] = exp(p[j] - most);
    for (int k = 0; k < VALUES; k++) {
        double o = 0;
        for (int j = 0; j < count; j++)
            o += (double)to_bf16((float)(p[j] / sum)) *
                 (double)b->kv[(uint64_t)(sample + j) * b->kv_cols + b->value_at +
                               (uint64_t)head * b->value_step + (uint64_t)k];
        expect_near(got[(token * HEADS + head) * VALUES + k], o, 0.01);
    }
}

/* Columns of kv: the rotated part; then keys and values, own ones of each head or shared ones. */
static void causal_attention(void **state)
{
    (void)state;
    need_device(d);
    for (int kind = 0; kind < 4; kind++) {
        bool own = kind % 2, some = kind / 2;
        float *q, *kv;
        struct book b = {.kv_cols = ROPE + (NOPE + VALUES) * (own ? HEADS : 1),
                         .key_step = own ? NOPE : 0,
                         .value_at = ROPE + NOPE * (own ? HEADS : 1),
                         .value_step = own ? VALUES : 0,
                         .some = some,
                         .rounds_parts = !own,
                         .scale = 0.3F};
        struct mat m[] = {noises(DTYPE_BF16, TOKENS, HEADS * (NOPE + ROPE), 1, 1, &q),
                          noises(DTYPE_BF16, TOKENS, b.kv_cols, 1, 2, &kv),
                          positions(false),
                          positions(true),
                          some ? some_keys() : d->make(d, DTYPE_I32, TOKENS, 0),
                          d->make(d, DTYPE_BF16, TOKENS, HEADS * VALUES)};
        const struct causal causal = {
            .heads = HEADS,
            .q = {{m[0], 0, NOPE, NOPE + ROPE}, {m[0], NOPE, ROPE, NOPE + ROPE}},
            .key = {{m[1], ROPE, NOPE, b.key_step}, {m[1], 0, ROPE, 0}},
            .value = {m[1], b.value_at, VALUES, b.value_step},
            .rounds_parts = b.rounds_parts,
            .position = m[2],
            .first = m[3],
            .selected = m[4],
            .longest = FIRST_TOKENS,
            .scale = b.scale};
        d->attend_causal(d, m[5], &causal);
        float *got = values(m[5]);
        b.q = q;
        b.kv = kv;
        for (int i = 0; i < TOKENS; i++)
            for (int h = 0; h < HEADS; h++)
                expect_head(&b, got, i, h);
        drop_all(m, sizeof m / sizeof *m);
        free(q);
        free(kv);
        free(got);
    }
}

/* A token's result is the same bits with its sample alone. */
static void causal_attention_of_a_sample_alone(void **state)
{
    (void)state;
    need_device(d);
    enum { REST = TOKENS - FIRST_TOKENS };
    float *q, *kv;
    struct mat m[] = {noises(DTYPE_BF16, TOKENS, HEADS * (NOPE + ROPE), 1, 1, &q),
                      noises(DTYPE_BF16, TOKENS, ROPE + NOPE, 1, 2, &kv),
                      positions(false),
                      positions(true),
                      d->make(d, DTYPE_BF16, TOKENS, HEADS * NOPE),
                      d->make(d, DTYPE_BF16, REST, HEADS * NOPE),
                      d->make(d, DTYPE_I32, REST, 1)};
    struct causal c = {.heads = HEADS,
                       .q = {{m[0], 0, NOPE, NOPE + ROPE}, {m[0], NOPE, ROPE, NOPE + ROPE}},
                       .key = {{m[1], ROPE, NOPE, 0}, {m[1], 0, ROPE, 0}},
                       .value = {m[1], ROPE, NOPE, 0},
                       .position = m[2],
                       .first = m[3],
                       .longest = FIRST_TOKENS,
                       .scale = 1};
    int32_t zero[REST] = {0};
    d->write(d, m[6], zero);
    d->attend_causal(d, m[4], &c);
    for (int i = 0; i < 2; i++)
        c.q[i].of = mat_rows(m[0], FIRST_TOKENS, REST),
        c.key[i].of = mat_rows(m[1], FIRST_TOKENS, REST);
    c.value.of = c.key[0].of;
    c.position = mat_rows(m[2], FIRST_TOKENS, REST);
    c.first = m[6];
    c.longest = REST;
    d->attend_causal(d, m[5], &c);
    uint16_t together[REST * HEADS * NOPE], alone[REST * HEADS * NOPE];
    d->read(d, together, mat_rows(m[4], FIRST_TOKENS, REST));
    d->read(d, alone, m[5]);
    assert_memory_equal(together, alone, sizeof alone);
    drop_all(m, sizeof m / sizeof *m);
    free(q);
    free(kv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norms),
        cmocka_unit_test(halves_turn_in_pairs),
        cmocka_unit_test(weights_multiply_what_is_scattered),
        cmocka_unit_test(silu_is_rounded_if_wanted),
        cmocka_unit_test(activations_are_split_without_loss),
        cmocka_unit_test(codes_and_scales),
        cmocka_unit_test(products_with_parts_of_weights),
        cmocka_unit_test(groups_are_chosen_first),
        cmocka_unit_test(selection_in_f32),
        cmocka_unit_test(causal_attention),
        cmocka_unit_test(causal_attention_of_a_sample_alone),
    };
    return run_on_devices(&d, tests, NULL, NULL);
}
