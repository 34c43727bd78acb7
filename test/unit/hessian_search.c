/* Block scales by the error of the output: against all 126 scales with errors in doubles, against
 * the search by the weights alone, and at the ends. */
#include "tensor/hessian_search.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "reference.h"
#include "tensor/bf16.h"
#include "tensor/nvfp4.h"
#include "tensor/scale_search.h"

enum { COLS = 1 << 14, BLOCKS = COLS / 16, CODES = 127 };

static uint16_t w[COLS];
static uint8_t scale[BLOCKS + 1];
static float h[BLOCKS][16][16];
static struct block_moments moments[BLOCKS / HESSIAN_LANES];

/* Nearly normal. */
static float normal(uint64_t *seed)
{
    float x = -6;
    for (int i = 0; i < 12; i++)
        x += (float)(sequence(seed) >> 8) * 0x1p-24f;
    return x;
}

static float weights(void)
{
    uint64_t seed = 5;
    float amax = 0;
    for (size_t j = 0; j < COLS; j++) {
        float x = ldexpf(normal(&seed), -(int)(j / 16 % 5));
        w[j] = bf16_from_f32(x);
        amax = fmaxf(amax, fabsf(bf16_to_f32(w[j])));
    }
    return amax;
}

/* The moments of some inputs whose columns have a part in common, and very different sizes. */
static void inputs(unsigned count, float common)
{
    uint64_t seed = 7;
    memset(h, 0, sizeof h);
    for (size_t i = 0; i < BLOCKS; i++) {
        for (unsigned n = 0; n < count; n++) {
            float x[16], shared = normal(&seed) * common;
            for (size_t j = 0; j < 16; j++)
                x[j] = (normal(&seed) + shared) * ldexpf(1, -(int)(j % 4));
            for (size_t j = 0; j < 256; j++)
                h[i][j / 16][j % 16] += x[j / 16] * x[j % 16] / (float)count;
        }
    }
    block_moments_prepare(moments, **h, BLOCKS);
    assert_int_equal(moments[0].known, count > 0 ? 0xffff : 0);
}

/* eᵀHe of a block under a scale, with the nearest codes. */
static double block_error(size_t i, unsigned code, float scale_2)
{
    double e[16], error = 0, divisor = f32(reference_value(&e4m3_format, code) * (double)scale_2);
    for (size_t j = 0; j < 16; j++) {
        double x = reference_from_bf16(w[16 * i + j]);
        unsigned nearest = reference_nearest(&e2m1_format, f32(fabs(x) / divisor));
        e[j] = copysign(reference_value(&e2m1_format, nearest) * divisor, x) - x;
    }
    for (size_t j = 0; j < 256; j++)
        error += e[j / 16] * (double)h[i][j / 16][j % 16] * e[j % 16];
    return error;
}

static double error_of_all(float scale_2)
{
    double error = 0;
    for (size_t i = 0; i < BLOCKS; i++)
        error += block_error(i, scale[i], scale_2);
    return error;
}

/* Many inputs, independent and not; few, so that H is singular and nothing can be left out. */
static void the_output_has_the_least_error_of_all_scales(void **state)
{
    (void)state;
    static const struct {
        unsigned count;
        float common;
    } cases[] = {{400, 0}, {400, 3}, {40, 1}, {5, 0}, {1, 0}};
    for (size_t n = 0; n < sizeof cases / sizeof *cases; n++) {
        float scale_2 = nvfp4_scale_2(weights());
        inputs(cases[n].count, cases[n].common);
        double least = 0;
        for (size_t i = 0; i < BLOCKS; i++) {
            double best = INFINITY;
            for (unsigned code = 1; code < CODES; code++)
                best = fmin(best, block_error(i, code, scale_2));
            least += best;
        }
        nvfp4_scales_mse_row(scale, w, COLS, scale_2);
        double mse = error_of_all(scale_2);
        nvfp4_scales_hessian_row(scale, w, COLS, scale_2, moments);
        double found = error_of_all(scale_2);
        print_message("# %u inputs, common part %g: of the search by weights %.4f, of all scales "
                      "%.7f\n",
                      cases[n].count, (double)cases[n].common, found / mse, found / least);
        if (found > least * (1 + 1e-5))
            fail_msg("case %zu: error %.9g, the least is %.9g", n, found, least);
        assert_true(found < mse * 0.95);
    }
}

/* Inputs that are independent and of one size: only the weights' errors count. */
static void alike_inputs_leave_the_error_of_the_weights(void **state)
{
    (void)state;
    float scale_2 = nvfp4_scale_2(weights());
    memset(h, 0, sizeof h);
    for (size_t i = 0; i < BLOCKS; i++) {
        for (size_t j = 0; j < 16; j++)
            h[i][j][j] = 3e-5f;
    }
    block_moments_prepare(moments, **h, BLOCKS);
    nvfp4_scales_mse_row(scale, w, COLS, scale_2);
    double mse = error_of_all(scale_2);
    nvfp4_scales_hessian_row(scale, w, COLS, scale_2, moments);
    double found = error_of_all(scale_2);
    assert_true(fabs(found / mse - 1) < 1e-6);
}

static void unknown_inputs_leave_the_search_by_weights(void **state)
{
    (void)state;
    static uint8_t mse[BLOCKS];
    float scale_2 = nvfp4_scale_2(weights());
    inputs(0, 0);
    nvfp4_scales_mse_row(mse, w, COLS, scale_2);
    nvfp4_scales_hessian_row(scale, w, COLS, scale_2, moments);
    assert_memory_equal(scale, mse, BLOCKS);
}

static void expect_scale(const uint16_t *block, float scale_2, unsigned expected)
{
    uint8_t got[2] = {0, 0xa5};
    nvfp4_scales_hessian_row(got, block, 16, scale_2, moments);
    if (got[0] != expected || got[1] != 0xa5)
        fail_msg("expected %02x, got %02x (then %02x)", expected, got[0], got[1]);
}

static void zeros_infinities_and_extremes(void **state)
{
    (void)state;
    enum { ONE = 0x38, LAST = 0x7e };
    uint16_t block[16] = {0};
    inputs(400, 1);
    expect_scale(block, 1, ONE);
    block[7] = 0x8000;
    expect_scale(block, 1, ONE);
    for (unsigned bad = 0; bad < 4; bad++) {
        block[7] = (uint16_t[]){0x7f80, 0xff80, 0x7fc0, 0xff81}[bad];
        expect_scale(block, 1, NVFP4_NOT_FINITE);
    }
    block[7] = 0xff7f; /* far above 6 * 448 * scale_2 */
    expect_scale(block, 1, LAST);
    expect_scale(block, 0x1p-126f, LAST);
    block[7] = 1; /* far below 2^-9 * scale_2 */
    expect_scale(block, 1, 1);
    for (size_t j = 0; j < 16; j++) /* a subnormal scale_2: as without a search */
        block[j] = (uint16_t)(j * 37);
    uint8_t plain;
    nvfp4_scales_row(&plain, block, 16, 0x1p-127f);
    expect_scale(block, 0x1p-127f, plain);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_output_has_the_least_error_of_all_scales),
        cmocka_unit_test(alike_inputs_leave_the_error_of_the_weights),
        cmocka_unit_test(unknown_inputs_leave_the_search_by_weights),
        cmocka_unit_test(zeros_infinities_and_extremes),
    };
    return cmocka_run_group_tests_name("hessian_search", tests, NULL, NULL);
}
