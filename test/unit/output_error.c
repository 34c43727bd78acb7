/* What block scales by moments are for: linears' outputs, on inputs that the moments were not made
 * of. A trained model runs over calibration text for the moments, and over other text for inputs;
 * each weight is packed by its own errors and by the output's, and multiplied with the inputs.
 *
 * Weights that were MXFP4 have little to gain: under the few scales that fit their values at all,
 * all errors of a block are in proportion to the weights. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/die.h"
#include "fixture.h"
#include "forward/forward.h"
#include "forward/inputs.h"
#include "model/weights.h"
#include "quantize/recipe.h"
#include "stream/scales.h"
#include "tensor/bf16.h"
#include "tensor/e2m1.h"
#include "tensor/e4m3.h"
#include "tensor/hessian_search.h"
#include "tensor/scale_search.h"

enum { SAMPLES = 8, TESTED = 2, ROWS_MOST = 96, LINEARS_MOST = 2048 };

/* A linear, by module. */
struct linear_data {
    char *module;
    uint64_t cols;
    struct block_moments *moments; /* of calibration text; NULL: no token reached it */
    uint16_t *x;                   /* [rows, cols], of other text */
    uint64_t rows;
};

static struct {
    struct recipe *recipe;
    bool calibrating;
    struct linear_data linear[LINEARS_MOST];
    size_t count;
    struct linear_data caught[LINEARS_MOST]; /* inputs, by the numbers that catch_inputs() gave */
    size_t catches;
} run_data;

static struct linear_data *find(const char *module)
{
    for (size_t i = 0; i < run_data.count; i++)
        if (!strcmp(run_data.linear[i].module, module))
            return &run_data.linear[i];
    assert_true(run_data.count < LINEARS_MOST);
    struct linear_data *linear = &run_data.linear[run_data.count++];
    *linear = (struct linear_data){.module = xstrdup(module)};
    return linear;
}

static bool quantizes(void *context, const char *module)
{
    (void)context;
    return recipe_choice(run_data.recipe, module).format == FORMAT_NVFP4;
}

static unsigned records(void *context, const char *module, bool expert)
{
    return expert || quantizes(context, module) ? INPUTS_MOMENTS : 0;
}

/* In place of a device's add_moments(): keep the inputs, and put their number where the moments
 * would be. */
static void catch_inputs(struct device *d, struct mat moments, struct mat x)
{
    (void)d;
    float *number = moments.at;
    if (*number == 0)
        *number = (float)++run_data.catches;
    assert_true(run_data.catches <= LINEARS_MOST);
    struct linear_data *kept = &run_data.caught[(size_t)*number - 1];
    kept->cols = x.cols;
    kept->x = xgrow(kept->x, (size_t)(ROWS_MOST * x.cols), sizeof *kept->x);
    for (uint64_t i = 0; i < x.rows && kept->rows < ROWS_MOST; i++, kept->rows++)
        memcpy(kept->x + kept->rows * x.cols, (const uint16_t *)x.at + i * x.stride,
               (size_t)x.cols * sizeof *kept->x);
}

static void take_linear(void *context, const struct linear_seen *seen)
{
    (void)context;
    if (!seen->moments)
        return;
    struct linear_data *linear = find(seen->module);
    linear->cols = seen->cols;
    if (!run_data.calibrating) {
        const struct linear_data *kept =
            &run_data.caught[lroundf(*seen->moments * (float)seen->rows) - 1];
        linear->x = kept->x;
        linear->rows = kept->rows;
        return;
    }
    size_t blocks = (size_t)seen->cols / NVFP4_BLOCK;
    linear->moments = xalloc(block_moments_count(blocks), sizeof *linear->moments);
    block_moments_prepare(linear->moments, seen->moments, blocks);
}

static void run_over(const char *model, const char *ids, uint64_t samples)
{
    struct tokens tokens;
    char *checkpoint = fixture_path(model, "ckpt"), *path = fixture_path(model, ids);
    struct forward run = {.arithmetic = ARITHMETIC_CALIBRATION,
                          .batch = 4,
                          .memory = (uint64_t)1 << 30,
                          .tokens = &tokens,
                          .quiet = true,
                          .records = records,
                          .quantizes = quantizes,
                          .linear = take_linear};
    run.in = ts_open(checkpoint, NULL);
    run.network = network_open(run.in);
    run.device = device_cpu(0);
    run.last = run.network->layers - 1;
    if (!run_data.calibrating)
        run.device->add_moments = catch_inputs;
    tokens_load(&tokens, path, run.network->vocabulary, 2, samples);
    run_data.recipe = recipe_load("full", NULL, ts_model(run.in));
    forward_run(&run);
    recipe_free(run_data.recipe);
    network_close(run.network);
    run.device->close(run.device);
    ts_close(run.in);
    tokens_free(&tokens);
    free(checkpoint);
    free(path);
}

/* ---- errors ---- */

/* What packing adds to a row of weights. */
static void packing_error(float *e, const uint16_t *w, const uint8_t *scale, size_t cols,
                          float scale_2)
{
    static uint8_t packed[1 << 14];
    nvfp4_nibbles_row(packed, scale, w, cols, scale_2);
    for (size_t j = 0; j < cols; j++) {
        uint8_t code = j % 2 ? packed[j / 2] >> 4 : packed[j / 2] & 15;
        float s = e4m3_to_f32(scale[j / NVFP4_BLOCK]) * scale_2;
        e[j] = e2m1_to_f32(code) * s - bf16_to_f32(w[j]);
    }
}

/* The sum of squares of a row's outputs for all inputs. */
static double output_squares(const float *row, const struct linear_data *linear)
{
    double squares = 0;
    for (uint64_t i = 0; i < linear->rows; i++) {
        double y = 0;
        for (uint64_t j = 0; j < linear->cols; j++)
            y += (double)row[j] * (double)bf16_to_f32(linear->x[i * linear->cols + j]);
        squares += y * y;
    }
    return squares;
}

struct errors {
    double output, mse, hessian;
    unsigned linears, better;
};

static void pack(struct errors *errors, const struct linear_data *linear, const uint16_t *w,
                 size_t rows)
{
    enum { COLS_MOST = 1 << 13 };
    static uint8_t scale[COLS_MOST / NVFP4_BLOCK];
    static float e[COLS_MOST];
    size_t cols = (size_t)linear->cols;
    struct errors own = {0};
    float amax = 0;
    assert_true(cols <= COLS_MOST);
    for (size_t i = 0; i < rows * cols; i++)
        amax = fmaxf(amax, fabsf(bf16_to_f32(w[i])));
    float scale_2 = scale_search_scale_2(SEARCH_MSE, amax);
    for (size_t i = 0; i < rows; i++, w += cols) {
        for (size_t j = 0; j < cols; j++)
            e[j] = bf16_to_f32(w[j]);
        own.output += output_squares(e, linear);
        nvfp4_scales_mse_row(scale, w, cols, scale_2);
        packing_error(e, w, scale, cols, scale_2);
        own.mse += output_squares(e, linear);
        nvfp4_scales_hessian_row(scale, w, cols, scale_2, linear->moments);
        packing_error(e, w, scale, cols, scale_2);
        own.hessian += output_squares(e, linear);
    }
    errors->mse += own.mse / own.output;
    errors->hessian += own.hessian / own.output;
    errors->better += own.hessian < own.mse;
    errors->linears++;
}

/* Weights of which moments and inputs are known: those of some routed experts, and all others. */
static void pack_all(struct errors errors[2], const char *model)
{
    char *checkpoint = fixture_path(model, "ckpt");
    struct ts_in *in = ts_open(checkpoint, NULL);
    struct weights weights;
    struct scales scales = {0};
    weights_find(&weights, ts_model(in), ts_toc(in), ts_name(in));
    for (const struct tensor *tensor; (tensor = ts_next(in));) {
        const struct weight *w = weight_of(&weights, (size_t)(tensor - ts_toc(in)->tensor));
        if (!w || scales_take(&scales, w, in))
            continue;
        const struct linear_data *linear = find(w->module);
        bool wanted = !place_is_routed(&w->place) || w->place.expert % 8 == 0;
        if (wanted && linear->moments && linear->x && linear->cols == w->cols) {
            void *raw = ts_read_all(in);
            uint16_t *rows = xalloc((size_t)(w->rows * w->cols), sizeof *rows);
            weight_rows(w, tensor, &scales, 0, w->rows, raw, rows);
            pack(&errors[!place_is_routed(&w->place)], linear, rows, (size_t)w->rows);
            free(raw);
            free(rows);
        }
        scales_free(&scales);
        scales = (struct scales){0};
    }
    weights_free(&weights);
    ts_close(in);
    free(checkpoint);
}

static void forget(void)
{
    for (size_t i = 0; i < run_data.count; i++) {
        free(run_data.linear[i].module);
        free(run_data.linear[i].moments);
    }
    for (size_t i = 0; i < run_data.catches; i++)
        free(run_data.caught[i].x);
    memset(&run_data, 0, sizeof run_data);
}

static void compare_on(const char *model)
{
    static const char *const what[] = {"routed experts", "attention and shared experts"};
    struct errors errors[2] = {0};
    run_data.calibrating = true;
    run_over(model, "golden/calib-ids.safetensors", SAMPLES);
    run_data.calibrating = false;
    run_over(model, "golden/eval-ids.safetensors", TESTED);
    pack_all(errors, model);
    forget();
    for (size_t i = 0; i < 2; i++) {
        struct errors *x = &errors[i];
        print_message("# %s: %s, %u linears: mean relative error of outputs %.5f by weights, %.5f "
                      "by moments, better in %u\n",
                      model, what[i], x->linears, sqrt(x->mse / x->linears),
                      sqrt(x->hessian / x->linears), x->better);
        assert_true(x->linears > 20);
    }
    assert_true(errors[1].hessian < errors[1].mse * 0.98);
    assert_true(errors[1].better * 2 > errors[1].linears);
    assert_true(errors[0].hessian < errors[0].mse * 1.01);
}

static void outputs_are_nearer_on_other_text(void **state)
{
    (void)state;
    compare_on("v4-nano");
}

static void outputs_of_a_larger_model(void **state)
{
    (void)state;
    char *folder = fixture_folder("v4-mini");
    free(folder);
    if (!folder)
        skip();
    compare_on("v4-mini");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(outputs_are_nearer_on_other_text),
        cmocka_unit_test(outputs_of_a_larger_model),
    };
    return cmocka_run_group_tests_name("output_error", tests, NULL, NULL);
}
