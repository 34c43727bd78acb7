/* Searches for block scales: against all 126 scales, against what Model Optimizer's sweep found,
 * and at the ends. */
#include "tensor/scale_search.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "golden.h"
#include "reference.h"
#include "tensor/bf16.h"
#include "tensor/nvfp4.h"

enum { COLS = 1 << 16, BLOCKS = COLS / 16, CODES = 127 };

static uint16_t w[COLS];
static uint8_t scale[BLOCKS + 1];

/* The squared error of a block under a scale: the nearest codes, dequantized as engines do. */
static double block_error(const uint16_t *block, unsigned code, float scale_2)
{
    double error = 0, divisor = f32(reference_value(&e4m3_format, code) * (double)scale_2);
    for (size_t j = 0; j < 16; j++) {
        double x = fabs(reference_from_bf16(block[j]));
        unsigned nearest = reference_nearest(&e2m1_format, f32(x / divisor));
        double lost = x - reference_value(&e2m1_format, nearest) * divisor;
        error += lost * lost;
    }
    return error;
}

static double row_error(const uint16_t *row, const uint8_t *code, size_t cols, float scale_2)
{
    double error = 0;
    for (size_t i = 0; i < cols / 16; i++)
        error += block_error(row + 16 * i, code[i], scale_2);
    return error;
}

/* Nearly normal numbers; kind 1 with far outliers, 2 in blocks of very different sizes. Returns the
 * largest magnitude. */
static float weights(unsigned kind)
{
    uint64_t seed = 5;
    float amax = 0;
    for (size_t j = 0; j < COLS; j++) {
        float x = -6;
        for (int i = 0; i < 12; i++)
            x += (float)(sequence(&seed) >> 8) * 0x1p-24f;
        x = kind == 1 ? x * x * x : kind == 2 ? ldexpf(x, -(int)(j / 16 % 20)) : x;
        w[j] = bf16_from_f32(x);
        amax = fmaxf(amax, fabsf(bf16_to_f32(w[j])));
    }
    return amax;
}

static void mse_is_the_least_of_all_scales(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < 3; kind++) {
        float scale_2 = scale_search_scale_2(SEARCH_MSE, weights(kind));
        double least = 0, found = 0;
        nvfp4_scales_mse_row(scale, w, COLS, scale_2);
        for (size_t i = 0; i < BLOCKS; i++) {
            double best = INFINITY, got = block_error(w + 16 * i, scale[i], scale_2);
            for (unsigned code = 1; code < CODES; code++)
                best = fmin(best, block_error(w + 16 * i, code, scale_2));
            if (got > best * 1.01)
                fail_msg("kind %u, block %zu: scale %02x has error %g, the best one %g", kind, i,
                         scale[i], got, best);
            least += best;
            found += got;
        }
        if (found > least * (1 + 1e-6))
            fail_msg("kind %u: error %.9g, the least is %.9g", kind, found, least);
    }
}

static void four_over_six_is_the_better_of_two(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < 3; kind++) {
        float scale_2 = scale_search_scale_2(SEARCH_FOUR_OVER_SIX, weights(kind));
        double least = 0, found = 0;
        unsigned fours = 0;
        nvfp4_scales_four_over_six_row(scale, w, COLS, scale_2);
        for (size_t i = 0; i < BLOCKS; i++) {
            double amax = 0;
            for (size_t j = 16 * i; j < 16 * i + 16; j++)
                amax = fmax(amax, fabs(reference_from_bf16(w[j])));
            double s = fmax(f32(f32(amax * f32(1 / (double)scale_2)) / 6), 0x1p-9);
            unsigned six = reference_nearest(&e4m3_format, s);
            unsigned four = reference_nearest(&e4m3_format, f32(1.5 * s));
            if (scale[i] != six && scale[i] != four)
                fail_msg("kind %u, block %zu: scale %02x is neither %02x nor %02x", kind, i,
                         scale[i], six, four);
            fours += scale[i] == four;
            least +=
                fmin(block_error(w + 16 * i, six, scale_2), block_error(w + 16 * i, four, scale_2));
            found += block_error(w + 16 * i, scale[i], scale_2);
        }
        assert_in_range(fours, BLOCKS / 4, BLOCKS * 3 / 4);
        if (found > least * (1 + 1e-6))
            fail_msg("kind %u: error %.9g, the least is %.9g", kind, found, least);
    }
}

/* ---- the ends ---- */

static void expect_scales(const uint16_t *block, float scale_2, unsigned mse,
                          unsigned four_over_six)
{
    uint8_t got[2] = {0, 0xa5};
    nvfp4_scales_mse_row(got, block, 16, scale_2);
    if (got[0] != mse || got[1] != 0xa5)
        fail_msg("mse: expected %02x, got %02x (then %02x)", mse, got[0], got[1]);
    nvfp4_scales_four_over_six_row(got, block, 16, scale_2);
    if (got[0] != four_over_six || got[1] != 0xa5)
        fail_msg("4over6: expected %02x, got %02x (then %02x)", four_over_six, got[0], got[1]);
}

static void zeros_infinities_and_extremes(void **state)
{
    (void)state;
    enum { ONE = 0x38, LAST = 0x7e };
    uint16_t block[16] = {0};
    expect_scales(block, 1, ONE, ONE);
    block[7] = 0x8000;
    expect_scales(block, 1, ONE, ONE);
    for (unsigned bad = 0; bad < 4; bad++) {
        block[7] = (uint16_t[]){0x7f80, 0xff80, 0x7fc0, 0xff81}[bad];
        expect_scales(block, 1, NVFP4_NOT_FINITE, NVFP4_NOT_FINITE);
    }
    block[7] = 0xff7f; /* far above 6 * 448 * scale_2 */
    expect_scales(block, 1, LAST, LAST);
    expect_scales(block, 0x1p-126f, LAST, LAST);
    block[7] = 1; /* far below 2^-9 * scale_2 */
    expect_scales(block, 1, 1, 1);
    /* A subnormal scale_2: as without a search. */
    for (size_t j = 0; j < 16; j++)
        block[j] = (uint16_t)(j * 37);
    uint8_t plain;
    nvfp4_scales_row(&plain, block, 16, 0x1p-127f);
    expect_scales(block, 0x1p-127f, plain, plain);
}

/* E2M1 values times a scale lose nothing, whichever scale it is. */
static void what_fits_is_kept(void **state)
{
    (void)state;
    for (unsigned code = 8; code < CODES; code++) {
        uint16_t block[16];
        for (unsigned j = 0; j < 16; j++) /* at most five bits: exact in BF16 */
            block[j] = bf16_from_f32((float)(reference_value(&e2m1_format, j % 8) *
                                             reference_value(&e4m3_format, code)));
        nvfp4_scales_mse_row(scale, block, 16, 1);
        if (block_error(block, scale[0], 1) != 0)
            fail_msg("scale %02x: got %02x, which loses %g", code, scale[0],
                     block_error(block, scale[0], 1));
    }
}

/* ---- Model Optimizer ---- */

struct matrix {
    const char *name;
    size_t rows, cols;
};

/* The search's error is at most the golden's, but for 1e-6 of it. */
static void compare(const struct matrix *m, const char *name, enum scale_search search,
                    void scales_row(uint8_t *scale, const uint16_t *w, size_t cols, float scale_2))
{
    size_t count = m->rows * m->cols;
    const uint16_t *in = golden_tensor("BF16", count, "%s.in", m->name);
    float amax = 0, scale_2;
    for (size_t j = 0; j < count; j++)
        amax = fmaxf(amax, fabsf(bf16_to_f32(in[j])));
    scale_2 = scale_search_scale_2(search, amax);
    const float *expected = golden_tensor("F32", 1, "%s.%s.weight_scale_2", m->name, name);
    assert_true(scale_2 == *expected);
    scales_row(scale, in, count, scale_2);
    const uint8_t *codes = golden_tensor("U8", count / 16, "%s.%s.weight_scale", m->name, name);
    if (search == SEARCH_MAX)
        assert_memory_equal(scale, codes, count / 16);
    double theirs = row_error(in, codes, count, scale_2),
           ours = row_error(in, scale, count, scale_2);
    double sse = (double)*(const float *)golden_tensor("F32", 1, "%s.%s.sse", m->name, name);
    assert_true(fabs(theirs / sse - 1) < 1e-6);
    print_message("# %s: %s: error %.7g, Model Optimizer's %.7g\n", m->name, name, ours, theirs);
    if (ours > theirs * (1 + 1e-6))
        fail_msg("%s: %s: error %.9g, Model Optimizer has %.9g", m->name, name, ours, theirs);
}

static void compare_all(const struct matrix *m)
{
    compare(m, "max", SEARCH_MAX, nvfp4_scales_row);
    compare(m, "mse", SEARCH_MSE, nvfp4_scales_mse_row);
    compare(m, "four_over_six", SEARCH_FOUR_OVER_SIX, nvfp4_scales_four_over_six_row);
}

static const struct matrix shared_expert = {"layers.2.ffn.shared_experts.w1", 128, 256};

static void no_worse_than_model_optimizer(void **state)
{
    (void)state;
    golden_path = "test/data/codecs/search.safetensors";
    assert_int_equal(golden_open(NULL), 0);
    compare_all(&shared_expert);
    golden_close(NULL);
}

static void no_worse_on_larger_fixtures(void **state)
{
    (void)state;
    golden_path = "../shared/fixtures/codecs/search.safetensors";
    if (access(golden_path, R_OK))
        skip();
    assert_int_equal(golden_open(NULL), 0);
    compare_all(&shared_expert);
    compare_all(&(struct matrix){"layers.0.attn.wo_b", 256, 256});
    compare_all(&(struct matrix){"layers.1.attn.wq_b", 512, 128});
    golden_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mse_is_the_least_of_all_scales),
        cmocka_unit_test(four_over_six_is_the_better_of_two),
        cmocka_unit_test(zeros_infinities_and_extremes),
        cmocka_unit_test(what_fits_is_kept),
        cmocka_unit_test(no_worse_than_model_optimizer),
        cmocka_unit_test(no_worse_on_larger_fixtures),
    };
    return cmocka_run_group_tests_name("scale_search", tests, NULL, NULL);
}
