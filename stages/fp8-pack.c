/* fp8-pack: quantize weights to FP8 E4M3 with one scale per tensor. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/ordered_pool.h"
#include "model/weights.h"
#include "quantize/amax.h"
#include "quantize/magnitude.h"
#include "quantize/recipe.h"
#include "quantize/zeros.h"
#include "stream/band_pipeline.h"
#include "stream/scales.h"
#include "stream/whole.h"
#include "tensor/bf16.h"
#include "tensor/e4m3.h"
#include "tensor/fp8.h"

static const struct program program = {
    .about = "Quantize the weights that a recipe makes FP8-per-tensor to FP8 (E4M3) with one scale "
             "for the weight and one for its input, whatever their format is; everything else "
             "passes unchanged. The scale of a weight comes from its amax in the amax stream, or "
             "from the weight itself where that has none. Reads a tensor stream from a file or "
             "standard input, or a checkpoint's folder.",
    .operands = {"[stream]"},
    .examples = {"st-read DeepSeek-V3 | fp8-dequant --recipe mla-fp8 | "
                 "fp8-pack --recipe mla-fp8 --amax v3.ts >b.ts"},
    .max_operands = 1,
    .in_place = true,
};

struct options {
    const char *amax, *cpu, *drafts, *recipe;
    uint64_t threads;
};

struct job {
    struct ts_in *in;
    struct ts_out *out;
    struct band_pipeline *bands; /* to the output */
    const struct codec *codec;
    struct weights weights;
    struct recipe *recipe;
    bool makes;            /* the recipe makes FP8-per-tensor */
    struct amaxes *amaxes; /* NULL: it makes none, or a plan without them */
    bool verbose;
};

/* The matrix of a line that becomes FP8, or NULL. */
static const struct weight *chosen(const struct job *job, size_t line)
{
    const struct weight *w = weight_of(&job->weights, line);
    bool passes = !w || !job->makes || w->per_tensor || ts_toc(job->in)->tensor[w->line].context;
    return passes || !recipe_choice(job->recipe, w->module).per_tensor ? NULL : w;
}

/* ---- the plan ---- */

static float input_scale(const struct job *job, const struct weight *w)
{
    double amax = 0;
    if (job->amaxes && !amaxes_find(job->amaxes, w->module, AMAX_INPUT, &amax))
        die("%s: %s has no input amax: calibrate with the same --recipe", ts_name(job->in),
            w->module);
    return (float)amax / E4M3_MAX;
}

static void plan_scalar(struct toc *out, const struct tensor *like, const char *module,
                        const char *which)
{
    char *name = xprintf("%s.%s", module, which);
    toc_derive(out, like, name, DTYPE_F32, 0, NULL);
    free(name);
}

static struct toc *plan(const struct job *job)
{
    struct toc *in = ts_toc(job->in), *out = toc_new();
    for (size_t i = 0; i < in->count; i++) {
        const struct weight *w = chosen(job, i);
        if (!w) {
            toc_copy(out, in, i);
        } else if (i == w->line) {
            struct tensor line = in->tensor[i];
            (void)input_scale(job, w);
            line.shard = toc_shard(out, in->shard[line.shard]);
            plan_scalar(out, &line, w->module, "input_scale");
            plan_scalar(out, &line, w->module, "weight_scale");
            toc_derive(out, &line, line.name, DTYPE_F8_E4M3, 2,
                       (const uint64_t[]){w->rows, w->cols});
        }
    }
    return out;
}

/* ---- the run ---- */

/* A matrix being converted. */
struct matrix {
    struct job *job;
    const struct weight *w;
    const struct tensor *tensor;
    struct scales scales; /* as it was */
    float scale;
    bool nonzero;     /* a byte of the weight was not 0 */
    bool synthesized; /* its amax is its own largest magnitude */
};

/* found: 1 + the row with the first element that is not finite, and its column. */
static void convert(struct band *band)
{
    const struct matrix *m = band->of;
    size_t cols = (size_t)m->w->cols;
    uint16_t *row = xgrow(NULL, cols, sizeof *row);
    const char *raw = band->raw;
    for (uint64_t i = 0; i < band->rows && !band->found[0]; i++) {
        weight_rows_by(m->job->codec, m->w, m->tensor, &m->scales, band->first + i, 1,
                       raw + i * weight_row_bytes(m->w, m->tensor), row);
        size_t j = 0;
        while (j < cols && !bf16_not_finite(row[j]))
            j++;
        if (j < cols) {
            band->found[0] = 1 + band->first + i;
            band->found[1] = j;
        }
        fp8_pack_row((uint8_t *)band->out + i * cols, row, m->scale, cols);
    }
    if (!band->found[0])
        band->found[1] = !zeros_only(band->raw, band->raw_size);
    free(row);
}

static void check(struct band *band)
{
    struct matrix *m = band->of;
    if (band->found[0])
        die("%s: %s: row %" PRIu64 ", column %" PRIu64 " is NaN or infinite; such a weight cannot "
            "be packed",
            ts_name(m->job->in), m->tensor->name, band->found[0] - 1, band->found[1]);
    m->nonzero |= band->found[1] != 0;
}

static void end_matrix(void *context)
{
    struct matrix *m = context;
    struct ts_out *out = m->job->out;
    ts_count(out, NULL, "fp8_weights", 1);
    ts_count(out, NULL, "fp8_amax_synthesized", m->synthesized);
    if (!m->nonzero)
        zeros_add(out, m->tensor->name, m->job->verbose);
    scales_free(&m->scales);
    free(m);
}

/* All zero: any scale will do. */
static float weight_scale(struct matrix *m, struct ts_held *held)
{
    double known;
    struct job *job = m->job;
    float amax;
    if (amaxes_find(job->amaxes, m->w->module, AMAX_WEIGHT, &known)) {
        amax = (float)known;
    } else {
        amax = magnitude_largest(job->codec, m->w, held, &m->scales);
        m->synthesized = true;
    }
    if (amax > 0 && amax / E4M3_MAX == 0)
        die("%s: %s: its weight amax of %g is too small for a weight_scale", ts_name(job->in),
            m->tensor->name, (double)amax);
    return amax == 0 || !isfinite(amax) ? 1 : amax / E4M3_MAX; /* not finite: check() finds it */
}

static void put_scalar(const struct matrix *m, const char *which, float value)
{
    char *name = xprintf("%s.%s", m->w->module, which);
    bands_put(m->job->bands, name, &value, sizeof value);
    free(name);
}

/* Convert the current tensor band by band, so that memory does not grow with its size. */
static void convert_matrix(struct matrix *m)
{
    const struct weight *w = m->w;
    struct band_pipeline *bands = m->job->bands;
    struct ts_held *held = ts_hold(m->job->in);
    uint64_t most = weight_band(w, m->tensor), row_bytes = weight_row_bytes(w, m->tensor);
    uint64_t all = weight_filled_rows(w), rows;
    m->scale = weight_scale(m, held);
    put_scalar(m, "input_scale", input_scale(m->job, w));
    put_scalar(m, "weight_scale", m->scale);
    if (!all)
        bands_put_empty(bands, m->tensor->name);
    for (uint64_t first = 0; first < all; first += rows) {
        rows = at_most(all - first, most);
        struct band *band = bands_next(bands, first ? NULL : m->tensor->name,
                                       (size_t)(rows * row_bytes), (size_t)(rows * w->cols));
        band->convert = convert;
        band->check = check;
        band->of = m;
        band->first = first;
        band->rows = rows;
        bands_read_held(bands, held, first * row_bytes);
        bands_submit(bands);
    }
    ts_release(held);
    bands_after(bands, end_matrix, m);
}

static void convert_all(struct job *job)
{
    struct matrix *matrix = NULL; /* whose scales were read and whose weight comes next */
    for (const struct tensor *tensor; (tensor = ts_next(job->in));) {
        const struct weight *w = chosen(job, (size_t)(tensor - ts_toc(job->in)->tensor));
        if (!w) {
            bands_pass(job->bands);
            continue;
        }
        if (!matrix)
            matrix = xalloc(1, sizeof *matrix);
        if (scales_take(&matrix->scales, w, job->in))
            continue;
        matrix->job = job;
        matrix->w = w;
        matrix->tensor = tensor;
        convert_matrix(matrix);
        matrix = NULL;
    }
    bands_end(job->bands);
}

/* ---- the program ---- */

static void take_options(struct options *o, struct stage *stage, int argc, char **argv)
{
    const struct arg args[] = {
        amaxes_arg(&o->amax),
        codec_arg(&o->cpu),
        recipe_drafts_arg(&o->drafts),
        {.name = "recipe",
         .kind = ARG_TEXT,
         .to = &o->recipe,
         .value = "name",
         .help = "which weights: a recipe of the model, or a file with a '/' in its name",
         .required = EVERY_FORM},
        arg_threads(&o->threads),
        {.name = "verbose", .help = "name the weights that are all zero"},
        {0},
    };
    stage_begin(stage, &program, args, argc, argv);
    if (!o->amax && !stage->plan)
        die_usage("--amax FILE is needed: the input scales come from a calibration");
}

static void open_job(struct job *job, const struct options *o, const struct stage *stage)
{
    job->in = ts_open(stage_input(stage), stage);
    const struct model *model = ts_model(job->in);
    job->recipe = recipe_load(o->recipe, o->drafts, model);
    job->makes = recipe_has_per_tensor(job->recipe);
    job->amaxes = o->amax && job->makes ? amaxes_load(o->amax, model, stage->plan) : NULL;
    whole_check(job->in);
    weights_find(&job->weights, model, ts_toc(job->in), ts_name(job->in));
    recipe_check(job->recipe, model, ts_toc(job->in), ts_is_whole(job->in), ts_name(job->in));
    if (job->makes)
        amaxes_record(job->amaxes, stage->entry);
    recipe_record(job->recipe, stage->entry);
}

/* What is counted, also if it is none. */
static void begin_counts(struct ts_out *out)
{
    ts_count(out, NULL, "fp8_weights", 0);
    ts_count(out, NULL, "fp8_amax_synthesized", 0);
    zeros_begin(out);
}

int main(int argc, char **argv)
{
    struct options o = {0};
    struct stage stage;
    take_options(&o, &stage, argc, argv);
    struct job job = {.codec = codec_chosen(o.cpu), .verbose = stage.verbose};
    unsigned threads = ordered_pool_threads(o.threads);
    open_job(&job, &o, &stage);
    struct toc *toc = plan(&job);
    job.out = ts_create(&stage, job.in, toc);
    begin_counts(job.out);
    job.bands = bands_begin(job.out, job.in, threads, ORDERED_POOL_SLACK);
    convert_all(&job);
    ts_finish(job.out, job.in, NULL);
    toc_free(toc);
    amaxes_free(job.amaxes);
    recipe_free(job.recipe);
    weights_free(&job.weights);
    return stage_end(&stage);
}
