/* Devices: operations alone, on inputs made for it, where a test of a whole model
 * cannot see what is wrong; and that rows give the same bits wherever they stand. */
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
#include "tensor/e2m1.h"
#include "tensor/e4m3.h"
#include "tensor/headroom.h"
#include "tensor/split.h"

static struct device *d;

static struct mat f32(uint64_t rows, uint64_t cols, const float *value)
{
    struct mat m = d->make(d, DTYPE_F32, rows, cols);
    d->write(d, m, value);
    return m;
}

static struct mat bf16(uint64_t rows, uint64_t cols, const float *value)
{
    uint16_t *code = xalloc((size_t)(rows * cols), sizeof *code);
    for (uint64_t i = 0; i < rows * cols; i++)
        code[i] = bf16_from_f32(value[i]);
    struct mat m = d->make(d, DTYPE_BF16, rows, cols);
    d->write(d, m, code);
    free(code);
    return m;
}

/* Numbers that look random, in [-1, 1). */
static float noise(uint32_t *seed)
{
    *seed = *seed * 1664525 + 1013904223;
    return (float)(int32_t)*seed * 0x1p-31F;
}

static float *noises(size_t count, uint32_t seed)
{
    float *value = xalloc(count, sizeof *value);
    for (size_t i = 0; i < count; i++)
        value[i] = noise(&seed);
    return value;
}

/* ---- hyper-connections ---- */

enum { COPIES = 4, MIXES = (2 + COPIES) * COPIES };

/* Sinkhorn's rule by the book, in double. */
static void expected_comb(const float *logit, unsigned iterations, double eps,
                          double comb[COPIES][COPIES])
{
    for (int i = 0; i < COPIES; i++) {
        double most = -INFINITY, sum = 0;
        for (int j = 0; j < COPIES; j++)
            most = fmax(most, (double)logit[i * COPIES + j]);
        for (int j = 0; j < COPIES; j++)
            sum += comb[i][j] = exp((double)logit[i * COPIES + j] - most);
        for (int j = 0; j < COPIES; j++)
            comb[i][j] = comb[i][j] / sum + eps;
    }
    for (unsigned turn = 0; turn < iterations; turn++) {
        for (int i = 0; i < COPIES && turn > 0; i++) {
            double sum = 0;
            for (int j = 0; j < COPIES; j++)
                sum += comb[i][j];
            for (int j = 0; j < COPIES; j++)
                comb[i][j] /= sum + eps;
        }
        for (int j = 0; j < COPIES; j++) {
            double sum = 0;
            for (int i = 0; i < COPIES; i++)
                sum += comb[i][j];
            for (int i = 0; i < COPIES; i++)
                comb[i][j] /= sum + eps;
        }
    }
}

/* Far from doubly stochastic, so that every turn shows; with an eps that shows, too. */
static void sinkhorn_turns_as_often_as_it_should(void **state)
{
    (void)state;
    need_device(d);
    static const float scale[] = {0.5F, 2, 3};
    float mix[MIXES], base[MIXES];
    uint32_t seed = 5;
    for (int i = 0; i < MIXES; i++) {
        mix[i] = 3 * noise(&seed);
        base[i] = noise(&seed);
    }
    for (unsigned turns = 1; turns <= 20; turns += turns < 4 ? 1 : 8) {
        const double eps = 1e-3;
        struct mat mixes = f32(1, MIXES, mix), s = f32(1, 3, scale), b = f32(1, MIXES, base);
        struct mat pre = d->make(d, DTYPE_F32, 1, COPIES), post = d->make(d, DTYPE_F32, 1, COPIES);
        struct mat comb = d->make(d, DTYPE_F32, 1, COPIES * COPIES);
        d->sinkhorn(d, pre, post, comb, mixes, s, b, turns, (float)eps);
        float got_pre[COPIES], got_post[COPIES], got[COPIES * COPIES], logit[COPIES * COPIES];
        d->read(d, got_pre, pre);
        d->read(d, got_post, post);
        d->read(d, got, comb);
        double want[COPIES][COPIES], shorter[COPIES][COPIES];
        for (int i = 0; i < COPIES * COPIES; i++)
            logit[i] = mix[2 * COPIES + i] * scale[2] + base[2 * COPIES + i];
        expected_comb(logit, turns, eps, want);
        expected_comb(logit, turns - 1, eps, shorter);
        double worst = 0, change = 0;
        for (int i = 0; i < COPIES * COPIES; i++) {
            double value = want[i / COPIES][i % COPIES];
            worst = fmax(worst, fabs((double)got[i] - value) / value);
            change = fmax(change, fabs(shorter[i / COPIES][i % COPIES] - value) / value);
        }
        assert_true(worst < 1e-5);
        assert_true(turns > 12 || change > 1e-4); /* one turn less would show */
        for (int i = 0; i < COPIES; i++) {
            double p = 1 / (1 + exp(-(double)(mix[i] * scale[0] + base[i]))) + eps;
            double q = 2 / (1 + exp(-(double)(mix[COPIES + i] * scale[1] + base[COPIES + i])));
            assert_true(fabs((double)got_pre[i] - p) < 1e-6 * p);
            assert_true(fabs((double)got_post[i] - q) < 1e-6 * q);
        }
        const struct mat mats[] = {mixes, s, b, pre, post, comb};
        for (size_t i = 0; i < sizeof mats / sizeof *mats; i++)
            d->drop(d, mats[i]);
    }
}

/* comb's first index is the copy that it comes from. */
static void copies_mix_the_right_way_round(void **state)
{
    (void)state;
    need_device(d);
    static const float x[] = {1, 2}, y[] = {10}, post[] = {3, 5}, comb[] = {7, 11, 13, 17};
    struct mat copies = bf16(1, 2, x), out = bf16(1, 1, y), p = f32(1, 2, post),
               c = f32(1, 4, comb);
    d->hc_out(d, copies, out, p, c);
    uint16_t got[2];
    d->read(d, got, copies);
    assert_true(bf16_to_f32(got[0]) == 3 * 10 + 7 * 1 + 13 * 2);
    assert_true(bf16_to_f32(got[1]) == 5 * 10 + 11 * 1 + 17 * 2);
    const struct mat mats[] = {copies, out, p, c};
    for (size_t i = 0; i < sizeof mats / sizeof *mats; i++)
        d->drop(d, mats[i]);
}

/* ---- experts ---- */

static void swiglu_cuts_gate_above_and_up_at_both_ends(void **state)
{
    (void)state;
    need_device(d);
    static const float gate[] = {-20, 20, 3, 3, 10, 1}, up[] = {1, 1, 20, -20, -10, 0.5F};
    enum { COUNT = sizeof gate / sizeof *gate };
    static const float weight[] = {0.75F};
    for (int limited = 0; limited <= 1; limited++)
        for (int weighted = 0; weighted <= 1; weighted++) {
            struct mat g = bf16(1, COUNT, gate), u = bf16(1, COUNT, up), y = bf16(1, COUNT, up);
            struct mat w = f32(1, 1, weight);
            d->swiglu(d, y, g, u, (struct swiglu){.limit = limited ? 10 : 0},
                      weighted ? w : (struct mat){0}, NULL);
            uint16_t got[COUNT];
            d->read(d, got, y);
            for (int i = 0; i < COUNT; i++) {
                double a = (double)gate[i], b = (double)up[i];
                if (limited) {
                    a = fmin(a, 10); /* not cut below */
                    b = fmax(fmin(b, 10), -10);
                }
                double want = a / (1 + exp(-a)) * b * (weighted ? 0.75 : 1);
                assert_true(fabs((double)bf16_to_f32(got[i]) - want) <= fabs(want) * 0x1p-8);
            }
            const struct mat mats[] = {g, u, y, w};
            for (size_t i = 0; i < sizeof mats / sizeof *mats; i++)
                d->drop(d, mats[i]);
        }
}

static void expect_most(struct device *d, struct mat seen, struct mat x)
{
    float wanted, got, none = 0.5F; /* a larger one stays */
    struct mat amax = f32(1, 1, &none);
    d->max_abs(d, amax, x);
    d->read(d, &wanted, amax);
    d->read(d, &got, seen);
    assert_memory_equal(&got, &wanted, sizeof got);
    d->drop(d, amax);
}

/* What swiglu() says that it saw is what max_abs() finds, and y the same, also in gate's place. */
static void swiglu_sees_the_largest(void **state)
{
    (void)state;
    need_device(d);
    enum { HIGH = 37, WIDE = 130 };
    float gate[HIGH * WIDE], up[HIGH * WIDE], weight[HIGH];
    for (int i = 0; i < HIGH * WIDE; i++) {
        gate[i] = (float)((i * 7919 % 2003) - 1001) / 300;
        up[i] = (float)((i * 104729 % 1999) - 999) / 200;
    }
    for (int i = 0; i < HIGH; i++)
        weight[i] = (float)(i % 5 + 1) / 4;
    for (int how = 0; how < 3; how++) {
        struct mat g = bf16(HIGH, WIDE, gate), u = bf16(HIGH, WIDE, up), w = f32(HIGH, 1, weight);
        struct mat y = bf16(HIGH, WIDE, up), plain = bf16(HIGH, WIDE, up);
        const float half[4] = {0.5F, 0.5F, 0.5F, 0.5F};
        struct mat most = f32(4, 1, half), none = {0};
        const struct swiglu_seen seen = {mat_rows(most, 0, 1), mat_rows(most, 1, 1),
                                         mat_rows(most, 2, 1), mat_rows(most, 3, 1)};
        struct swiglu limits = {.limit = 4, .rounds = how == 1};
        d->swiglu(d, plain, g, u, limits, none, NULL);
        d->swiglu(d, y, g, u, limits, how < 2 ? w : none, &seen);
        expect_most(d, seen.gate, g);
        expect_most(d, seen.up, u);
        expect_most(d, seen.y, y);
        if (how < 2)
            expect_most(d, seen.unweighted, plain);
        uint16_t there[HIGH * WIDE], in_place[HIGH * WIDE];
        d->swiglu(d, g, g, u, limits, how < 2 ? w : none, NULL);
        d->read(d, there, y);
        d->read(d, in_place, g);
        assert_memory_equal(in_place, there, sizeof there);
        const struct mat mats[] = {g, u, w, y, plain, most};
        for (size_t i = 0; i < sizeof mats / sizeof *mats; i++)
            d->drop(d, mats[i]);
    }
}

/* The bias decides who is chosen, and nothing else; of equal ones the first. */
static void bias_chooses_but_does_not_weigh(void **state)
{
    (void)state;
    need_device(d);
    static const float score[] = {0.5F, 0.25F, 0.5F, 0.125F}, bias[] = {0, 0, 0, 1};
    struct mat s = f32(1, 4, score), b = f32(1, 4, bias);
    struct mat experts = d->make(d, DTYPE_I32, 1, 2), weight = d->make(d, DTYPE_F32, 1, 2);
    d->route_topk(d, experts, s, b, (struct expert_groups){1, 1});
    d->route_weights(d, weight, s, experts, true, 1.5F);
    int32_t chosen[2];
    float got[2];
    d->read(d, chosen, experts);
    d->read(d, got, weight);
    assert_int_equal(chosen[0], 3);
    assert_int_equal(chosen[1], 0);
    assert_true(fabsf(got[0] - 0.3F) < 1e-6F && fabsf(got[1] - 1.2F) < 1e-6F);
    const struct mat mats[] = {s, b, experts, weight};
    for (size_t i = 0; i < sizeof mats / sizeof *mats; i++)
        d->drop(d, mats[i]);
}

static void tokens_are_sorted_by_expert(void **state)
{
    (void)state;
    need_device(d);
    enum { TOKENS = 4, USED = 2, ALL = TOKENS * USED, EXPERTS = 4 };
    static const int32_t chosen[ALL] = {2, 0, 2, 1, 0, 2, 1, 0};
    static const float weight[ALL] = {0, 1, 2, 3, 4, 5, 6, 7};
    static const int32_t want[ALL] = {0, 2, 3, 1, 3, 0, 1, 2};
    static const float want_weight[ALL] = {1, 4, 7, 3, 6, 0, 2, 5};
    struct mat experts = d->make(d, DTYPE_I32, TOKENS, USED), w = f32(TOKENS, USED, weight);
    struct mat token = d->make(d, DTYPE_I32, ALL, 1), sorted = d->make(d, DTYPE_F32, ALL, 1);
    uint64_t number[EXPERTS];
    int32_t got[ALL];
    float got_weight[ALL];
    d->write(d, experts, chosen);
    d->sort_by_expert(d, token, sorted, experts, w, number, EXPERTS);
    d->read(d, got, token);
    d->read(d, got_weight, sorted);
    assert_memory_equal(got, want, sizeof want);
    assert_memory_equal(got_weight, want_weight, sizeof want_weight);
    assert_true(number[0] == 3 && number[1] == 2 && number[2] == 3 && number[3] == 0);
    const struct mat mats[] = {experts, w, token, sorted};
    for (size_t i = 0; i < sizeof mats / sizeof *mats; i++)
        d->drop(d, mats[i]);
}

/* ---- activations ---- */

/* A block under a power of two, through the codecs. */
static void expect_block(const uint16_t *x, const uint16_t *y, size_t count, float largest,
                         float least, bool fp8)
{
    float amax = least;
    for (size_t i = 0; i < count; i++)
        amax = fmaxf(amax, fabsf(bf16_to_f32(x[i])));
    int exponent;
    float mantissa = frexpf(amax / largest, &exponent);
    float scale = ldexpf(1, mantissa == 0.5F ? exponent - 1 : exponent);
    for (size_t i = 0; i < count; i++) {
        float q = bf16_to_f32(x[i]) / scale;
        q = fp8 ? e4m3_to_f32(e4m3_from_f32(q)) : e2m1_to_f32(e2m1_from_f32(q));
        if (bf16_to_f32(y[i]) != q * scale)
            fail_msg("%g became %g, expected %g", (double)bf16_to_f32(x[i]),
                     (double)bf16_to_f32(y[i]), (double)(q * scale));
    }
}

static void activations_are_those_of_the_codecs(void **state)
{
    (void)state;
    enum { COLS = 320 }; /* the last block of 128 is not full */
    static const float size[] = {1e-6F, 0.01F, 1, 448, 447, 6, 1e4F, 0};
    for (size_t k = 0; k < sizeof size / sizeof *size; k++) {
        uint16_t x[COLS], y[COLS];
        uint32_t seed = (uint32_t)k;
        for (int i = 0; i < COLS; i++)
            x[i] = bf16_from_f32(size[k] * noise(&seed));
        x[7] = x[200] = x[300] = bf16_from_f32(size[k]);
        activation_fp4_row(y, x, COLS);
        for (size_t i = 0; i < COLS; i += 32)
            expect_block(x + i, y + i, 32, 6, 6 * 0x1p-126F, false);
        for (size_t block = 32; block <= 128; block *= 4) {
            activation_fp8_row(y, x, COLS, block);
            for (size_t i = 0; i < COLS; i += block)
                expect_block(x + i, y + i, COLS - i < block ? COLS - i : block, 448, 1e-4F, true);
        }
        activation_fp8_row(x, x, COLS, 128); /* in place; once more changes nothing */
        activation_fp8_row(y, x, COLS, 128);
        assert_memory_equal(x, y, sizeof x);
    }
}

static void hadamard_is_its_own_inverse(void **state)
{
    (void)state;
    need_device(d);
    enum { WIDTH = 64 };
    float x[WIDTH] = {0};
    x[5] = 8;
    struct mat m = bf16(1, WIDTH, x);
    uint16_t got[WIDTH];
    d->hadamard(d, m, WIDTH);
    d->read(d, got, m);
    for (int i = 0; i < WIDTH; i++) /* Sylvester's: the sign is the parity of i & 5 */
        assert_true(bf16_to_f32(got[i]) == (__builtin_popcount((unsigned)i & 5) % 2 ? -1 : 1));
    d->hadamard(d, m, WIDTH);
    d->read(d, got, m);
    for (int i = 0; i < WIDTH; i++)
        assert_true(bf16_to_f32(got[i]) == x[i]);
    d->drop(d, m);
}

/* ---- products ---- */

/* Rows of x by themselves, in other company, and at other places, all give the same bits, near what
 * double gives. */
static void rows_do_not_depend_on_each_other(void **state)
{
    (void)state;
    need_device(d);
    enum { ROWS = 150, COLS = 384, OUT = 300 };
    float *w = noises((size_t)OUT * COLS, 1), *x = noises((size_t)ROWS * COLS, 2);
    uint16_t *code = xalloc((size_t)OUT * COLS, sizeof *code);
    for (size_t i = 0; i < (size_t)OUT * COLS; i++)
        code[i] = bf16_from_f32(w[i]);
    const struct weight weight = {.format = FORMAT_PLAIN, .rows = OUT, .cols = COLS};
    const struct tensor tensor = {.name = "w.weight",
                                  .size = (uint64_t)OUT * COLS * sizeof *code,
                                  .dim = {OUT, COLS},
                                  .rank = 2,
                                  .dtype = DTYPE_BF16};
    const struct scales none = {0};
    struct mat amax = d->make(d, DTYPE_F32, 1, 1), all = bf16(ROWS, COLS, x);
    struct mat y = d->make(d, DTYPE_F32, ROWS, OUT);
    struct mat bytes = d->make(d, DTYPE_U8, 1, tensor.size);
    d->write(d, bytes, code);
    struct operand *operand = d->operand(d, &weight, &tensor, &none, bytes, bytes,
                                         (struct operand_part){.rows = OUT}, amax);
    d->drop(d, bytes);
    d->product(d, y, all, operand);
    float *together = xalloc((size_t)ROWS * OUT, sizeof *together), alone[OUT];
    d->read(d, together, y);
    for (uint64_t i = 0; i < ROWS; i++) {
        struct mat one = mat_rows(y, 0, 1);
        d->product(d, one, mat_rows(all, i, 1), operand);
        d->read(d, alone, one);
        assert_memory_equal(alone, together + i * OUT, sizeof alone);
    }
    d->product(d, mat_rows(y, 0, ROWS - 1), mat_rows(all, 1, ROWS - 1), operand);
    float *moved = xalloc((size_t)ROWS * OUT, sizeof *moved);
    d->read(d, moved, y);
    assert_memory_equal(moved, together + OUT, sizeof(float) * (ROWS - 1) * OUT);
    for (size_t i = 0; i < (size_t)ROWS * OUT; i += 97) {
        double sum = 0;
        for (size_t k = 0; k < COLS; k++)
            sum += (double)bf16_to_f32(bf16_from_f32(x[i / OUT * COLS + k])) *
                   (double)bf16_to_f32(code[i % OUT * COLS + k]);
        assert_true(fabs(sum - (double)together[i]) < 1e-4);
    }
    d->drop_operand(d, operand);
    d->drop(d, amax);
    d->drop(d, all);
    d->drop(d, y);
    free(w);
    free(x);
    free(code);
    free(together);
    free(moved);
}

/* In two parts, columns of a wider matrix; sums in doubles. */
static void moments_are_sums_of_products(void **state)
{
    (void)state;
    need_device(d);
    enum { ROWS = 150, COLS = 48, FIRST = 3, WIDE = 56 };
    float *value = noises((size_t)ROWS * WIDE, 9), zero[COLS * DEVICE_BLOCK] = {0};
    struct mat all = bf16(ROWS, WIDE, value), x = mat_cols(all, FIRST, COLS);
    struct mat moments = f32(COLS, DEVICE_BLOCK, zero);
    d->add_moments(d, moments, mat_rows(x, 0, 85));
    d->add_moments(d, moments, mat_rows(x, 85, ROWS - 85));
    float got[COLS][DEVICE_BLOCK], at_once[COLS][DEVICE_BLOCK];
    d->read(d, got, moments);
    d->write(d, moments, zero);
    d->add_moments(d, moments, x);
    d->read(d, at_once, moments);
    assert_memory_equal(got, at_once, sizeof got);
    for (unsigned i = 0; i < COLS; i++)
        for (unsigned j = 0; j < DEVICE_BLOCK; j++) {
            double sum = 0;
            for (unsigned row = 0; row < ROWS; row++) {
                const float *v = value + (size_t)row * WIDE + FIRST;
                sum += (double)bf16_to_f32(bf16_from_f32(v[i])) *
                       (double)bf16_to_f32(bf16_from_f32(v[i / DEVICE_BLOCK * DEVICE_BLOCK + j]));
            }
            assert_true(fabs((double)got[i][j] - sum) < 1e-4);
        }
    d->drop(d, all);
    d->drop(d, moments);
    free(value);
}

/* Each of the 2^16 BF16 codes leads a block of its own once, some of smaller ones and zeros. */
static void blocks_are_counted_by_their_largest_magnitudes(void **state)
{
    (void)state;
    need_device(d);
    enum { ROWS = 512, COLS = 128 * DEVICE_BLOCK };
    uint16_t *code = xalloc((size_t)ROWS * COLS, sizeof *code);
    int64_t want[HEADROOM_BUCKETS] = {0}, got[HEADROOM_BUCKETS] = {0};
    uint32_t seed = 4;
    for (uint32_t i = 0; i < ROWS * COLS / DEVICE_BLOCK; i++) {
        uint16_t *block = code + (size_t)i * DEVICE_BLOCK, most = i & 0x7fff;
        for (unsigned j = 0; j < DEVICE_BLOCK; j++)
            block[j] = (uint16_t)((uint32_t)(noise(&seed) * noise(&seed) * (float)most) & 0x7fff);
        block[i % DEVICE_BLOCK] = (uint16_t)i;
        for (unsigned j = 0; j < DEVICE_BLOCK; j++)
            most = (block[j] & 0x7fff) > most ? block[j] & 0x7fff : most;
        if (most)
            want[headroom_bucket(most)]++;
    }
    struct mat x = d->make(d, DTYPE_BF16, ROWS, COLS);
    struct mat count = d->make(d, DTYPE_I64, 1, HEADROOM_BUCKETS);
    d->write(d, x, code);
    d->write(d, count, got);
    d->count_amaxes(d, count, mat_rows(x, 0, 100));
    d->count_amaxes(d, count, mat_rows(x, 100, ROWS - 100));
    d->read(d, got, count);
    assert_memory_equal(got, want, sizeof got);
    d->drop(d, x);
    d->drop(d, count);
    free(code);
}

static void the_largest_magnitude_keeps_nan(void **state)
{
    (void)state;
    need_device(d);
    const float x[] = {1, -3, 2}, bad[] = {1, -INFINITY, NAN}, zero = 0;
    struct mat amax = f32(1, 1, &zero), a = bf16(1, 3, x), b = bf16(1, 3, bad);
    float got;
    d->max_abs(d, amax, a);
    d->read(d, &got, amax);
    assert_true(got == 3);
    d->max_abs(d, amax, b);
    d->max_abs(d, amax, a);
    d->read(d, &got, amax);
    assert_true(isnan(got));
    d->drop(d, amax);
    d->drop(d, a);
    d->drop(d, b);
}

enum { SEEN_ROWS = 3, SEEN_COLS = 776 };

/* An operation that sees x, or the rows `index` of it; y and sum have room for what it makes. */
struct seeing {
    struct mat x, y, sum, index, seen;
};

static void see_by(struct device *d, unsigned operation, const struct seeing *s)
{
    const struct mat none = {0}, all = mat_cols(s->y, 0, SEEN_COLS);
    switch (operation) {
    case 0:
        d->gather(d, mat_rows(all, 0, s->index.rows), s->x, s->index, s->seen);
        break;
    case 1:
        d->scatter_add(d, s->sum, s->x, mat_rows(s->index, 0, SEEN_ROWS), none, s->seen);
        break;
    case 2:
        d->copy(d, all, s->x);
        d->unit(d, all, SEEN_COLS / 8, 1e-6F, s->seen);
        break;
    default: {
        enum activation how = (enum activation)(operation - 3);
        d->quantize(d, activation_splits(how) ? s->y : all, s->x, how, 1, s->seen);
    }
    }
}

static float seen_by(struct device *d, unsigned operation, const float *x, float before)
{
    const int32_t number[] = {2, 0, 1};
    struct seeing s = {.x = bf16(SEEN_ROWS, SEEN_COLS, x),
                       .y = d->make(d, DTYPE_BF16, SEEN_ROWS, SPLIT * SEEN_COLS),
                       .sum = d->make(d, DTYPE_F32, SEEN_ROWS, SEEN_COLS),
                       .index = d->make(d, DTYPE_I32, SEEN_ROWS, 1),
                       .seen = f32(1, 1, &before)};
    float got;
    d->write(d, s.index, number);
    see_by(d, operation, &s);
    d->read(d, &got, s.seen);
    d->drop(d, s.x);
    d->drop(d, s.y);
    d->drop(d, s.sum);
    d->drop(d, s.index);
    d->drop(d, s.seen);
    return got;
}

/* Wherever the largest is, whatever was seen before; infinity is larger, NaN the largest. */
static void operations_see_the_largest_magnitude(void **state)
{
    (void)state;
    need_device(d);
    static const unsigned at[] = {0, 7, 255, 256, SEEN_COLS - 1, SEEN_ROWS * SEEN_COLS - 1};
    static const float most[] = {-3, 5, -INFINITY, NAN};
    for (unsigned operation = 0; operation < 3 + ACTIVATION_NVFP4 + 1; operation++)
        for (size_t i = 0; i < sizeof at / sizeof *at; i++)
            for (size_t j = 0; j < sizeof most / sizeof *most; j++) {
                float x[SEEN_ROWS * SEEN_COLS], want = most[j];
                for (size_t k = 0; k < sizeof x / sizeof *x; k++)
                    x[k] = k % 2 ? -0.5F : 0.25F;
                x[at[i]] = want;
                float got = seen_by(d, operation, x, 4);
                if (isnan(want))
                    assert_true(isnan(got));
                else
                    assert_true(got == fmaxf(4, fabsf(want)));
            }
}

/* ---- far matrices ---- */

enum { FAR_ROWS = 203, FAR_COLS = 2048, FAR_TURNS = 5, FAR_BATCH = FAR_ROWS / 7 };

/* Takes a device longer than rows take to come or go. */
static void keep_busy(struct mat a, struct mat b)
{
    for (int i = 0; i < 20; i++)
        d->copy(d, i % 2 ? a : b, i % 2 ? b : a);
}

static uint16_t offloaded_value(size_t i)
{
    return bf16_from_f32((float)(i * 7 % 101));
}

/* Rows from `first` on are written, or are as they should be after some turns. */
static void write_far(const struct offloaded *offloaded, uint64_t first, uint64_t rows)
{
    size_t count = (size_t)(rows * FAR_COLS);
    uint16_t *code = xalloc(count, sizeof *code);
    for (size_t i = 0; i < count; i++)
        code[i] = offloaded_value((size_t)first * FAR_COLS + i);
    struct mat m = d->fetch(d, *offloaded, first, rows);
    d->write(d, m, code);
    d->store(d, *offloaded, first, m);
    free(code);
}

static void expect_far(const struct offloaded *offloaded, uint64_t first, uint64_t rows,
                       float added)
{
    size_t count = (size_t)(rows * FAR_COLS);
    uint16_t *code = xalloc(count, sizeof *code);
    struct mat m = d->fetch(d, *offloaded, first, rows);
    d->read(d, code, m);
    d->store(d, *offloaded, first, m);
    for (size_t i = 0; i < count; i++) {
        float want = bf16_to_f32(offloaded_value((size_t)first * FAR_COLS + i)) + added;
        if (bf16_to_f32(code[i]) != want)
            fail_msg("row %d, column %d: got %g, wanted %g", (int)(first + i / FAR_COLS),
                     (int)(i % FAR_COLS), (double)bf16_to_f32(code[i]), (double)want);
    }
    free(code);
}

/* What comes after some rows is told: the next rows; nothing; others; or the next ones twice, and
 * those after them. */
static void tell_far(const struct offloaded *offloaded, uint64_t end, uint64_t most, uint64_t turn)
{
    uint64_t left = FAR_ROWS - end, next = at_most(left, most);
    if (turn % 4 == 1)
        return;
    if (turn % 4 == 2)
        next = at_most(left, most / 2 + 1);
    d->fetch_ahead(d, *offloaded, end, next);
    if (turn % 4 == 3) {
        d->fetch_ahead(d, *offloaded, end, next);
        d->fetch_ahead(d, *offloaded, end + next, at_most(left - next, most));
    }
}

/* One is added to all rows, `most` at a time. */
static void add_to_far(const struct offloaded *offloaded, uint64_t most, struct mat ones,
                       const struct mat *busy)
{
    for (uint64_t first = 0, turn = 0, rows; first < FAR_ROWS; first += rows, turn++) {
        rows = at_most(FAR_ROWS - first, most);
        struct mat m = d->fetch(d, *offloaded, first, rows);
        tell_far(offloaded, first + rows, most, turn);
        keep_busy(busy[0], busy[1]);
        d->add(d, m, mat_rows(ones, 0, rows));
        d->store(d, *offloaded, first, m);
    }
}

/* Two are added as the layers do it: of batches of `most` rows, `group` are out at a time, the next
 * `group` are told, and after the last one the first. */
static void add_to_groups(const struct offloaded *offloaded, uint64_t most, uint64_t group,
                          struct mat ones, const struct mat *busy)
{
    uint64_t batches = FAR_ROWS / most;
    struct mat *m = xalloc((size_t)group, sizeof *m);
    for (uint64_t first = 0; first < batches; first += group) {
        uint64_t out = at_most(batches - first, group);
        for (uint64_t i = 0; i < out; i++) {
            m[i] = d->fetch(d, *offloaded, (first + i) * most, most);
            for (uint64_t k = 1; k <= group && (first + i + k) % batches != first; k++)
                d->fetch_ahead(d, *offloaded, (first + i + k) % batches * most, most);
            d->add(d, m[i], mat_rows(ones, 0, most));
        }
        keep_busy(busy[0], busy[1]);
        for (uint64_t i = 0; i < out; i++) {
            d->add(d, m[i], mat_rows(ones, 0, most));
            d->store(d, *offloaded, (first + i) * most, m[i]);
        }
    }
    free(m);
}

/* Rows of a far matrix are what was stored last, wherever it lies, in windows of any size. */
static void offloaded_rows_come_and_go(void **state)
{
    (void)state;
    need_device(d);
    const uint64_t room = d->room;
    float *one = xalloc((size_t)FAR_ROWS * FAR_COLS, sizeof *one);
    for (size_t i = 0; i < (size_t)FAR_ROWS * FAR_COLS; i++)
        one[i] = 1;
    struct mat ones = bf16(FAR_ROWS, FAR_COLS, one);
    struct mat busy[] = {d->make(d, DTYPE_F32, FAR_ROWS, FAR_COLS),
                         d->make(d, DTYPE_F32, FAR_ROWS, FAR_COLS)};
    for (int on_host = 0; on_host <= 1; on_host++) {
        const uint64_t bytes = sizeof(uint16_t) * FAR_ROWS * FAR_COLS, besides = 1000;
        d->room = bytes + besides - (on_host ? 1 : 0);
        struct offloaded offloaded = d->make_offloaded(d, DTYPE_BF16, FAR_ROWS, FAR_COLS, besides);
        assert_int_equal(offloaded.on_host, on_host && strcmp(d->name, "cpu") != 0);
        write_far(&offloaded, 0, 100);
        write_far(&offloaded, 100, FAR_ROWS - 100);
        static const uint64_t most[FAR_TURNS] = {1, 7, 64, 100, FAR_ROWS};
        for (int turn = 0; turn < FAR_TURNS; turn++)
            add_to_far(&offloaded, most[turn], ones, busy);
        for (int turn = 0; turn < FAR_TURNS; turn++)
            add_to_groups(&offloaded, FAR_BATCH, 1 + turn % 3, ones, busy);
        expect_far(&offloaded, 0, FAR_ROWS, FAR_TURNS + 2 * FAR_TURNS);
        expect_far(&offloaded, 17, 31, FAR_TURNS + 2 * FAR_TURNS);
        struct mat rows = d->fetch(d, offloaded, 0, 5);
        d->fetch_ahead(d, offloaded, 5, 50); /* nobody takes these */
        d->store(d, offloaded, 0, rows);
        d->drop_offloaded(d, offloaded);
    }
    d->room = room;
    d->drop(d, ones);
    d->drop(d, busy[0]);
    d->drop(d, busy[1]);
    free(one);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sinkhorn_turns_as_often_as_it_should),
        cmocka_unit_test(copies_mix_the_right_way_round),
        cmocka_unit_test(swiglu_cuts_gate_above_and_up_at_both_ends),
        cmocka_unit_test(swiglu_sees_the_largest),
        cmocka_unit_test(bias_chooses_but_does_not_weigh),
        cmocka_unit_test(tokens_are_sorted_by_expert),
        cmocka_unit_test(activations_are_those_of_the_codecs),
        cmocka_unit_test(hadamard_is_its_own_inverse),
        cmocka_unit_test(rows_do_not_depend_on_each_other),
        cmocka_unit_test(the_largest_magnitude_keeps_nan),
        cmocka_unit_test(operations_see_the_largest_magnitude),
        cmocka_unit_test(moments_are_sums_of_products),
        cmocka_unit_test(blocks_are_counted_by_their_largest_magnitudes),
        cmocka_unit_test(offloaded_rows_come_and_go),
    };
    return run_on_devices(&d, tests, NULL, NULL);
}
