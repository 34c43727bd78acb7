#include "quantize/dequantize.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/die.h"
#include "base/ordered_pool.h"
#include "model/weights.h"
#include "quantize/recipe.h"
#include "quantize/zeros.h"
#include "stream/band_pipeline.h"
#include "stream/scales.h"
#include "stream/whole.h"

/* Which matrices. */
struct choice {
    enum format format;
    const struct weights *weights;
    const struct recipe *recipe; /* NULL: all of that format; else those it makes BF16 */
};

/* The matrix of a line that becomes BF16, or NULL. */
static const struct weight *chosen(const struct choice *choice, size_t line)
{
    const struct weight *w = weight_of(choice->weights, line);
    if (!w || w->format != choice->format)
        return NULL;
    enum format wanted =
        choice->recipe ? recipe_choice(choice->recipe, w->module).format : FORMAT_PLAIN;
    return wanted == FORMAT_PLAIN ? w : NULL;
}

static struct toc *plan(const struct toc *in, const struct choice *choice)
{
    struct toc *out = toc_new();
    for (size_t i = 0; i < in->count; i++) {
        const struct weight *w = chosen(choice, i);
        if (!w) {
            toc_copy(out, in, i);
        } else if (i == w->line) {
            toc_copy(out, in, i);
            struct tensor *line = &out->tensor[out->count - 1];
            line->dtype = DTYPE_BF16;
            line->dim[0] = w->rows;
            line->dim[1] = w->cols;
            if (!tensor_size(DTYPE_BF16, line->rank, line->dim, &line->size))
                die("%s: its size as BF16 overflows", line->name);
        }
    }
    return out;
}

/* A matrix being converted. */
struct matrix {
    const struct codec *codec;
    const struct weight *w;
    const struct tensor *tensor;
    struct scales scales;
    struct ts_out *out;
    bool verbose;
    uint64_t nan;
    bool zero_scales;
    bool nonzero; /* a byte of the weight was not 0 */
};

static void convert(struct band *band)
{
    const struct matrix *m = band->of;
    band->found[0] = weight_rows_by(m->codec, m->w, m->tensor, &m->scales, band->first, band->rows,
                                    band->raw, band->out);
    band->found[1] = !zeros_only(band->raw, band->raw_size);
}

static void count(struct band *band)
{
    struct matrix *m = band->of;
    m->nan += band->found[0];
    m->nonzero |= band->found[1] != 0;
}

static void end_matrix(void *context)
{
    struct matrix *m = context;
    if (!m->tensor->context) { /* otherwise its own shard counts it */
        ts_count(m->out, NULL, "dequantized", 1);
        ts_count(m->out, NULL, "nan", m->nan);
        if (!m->nonzero || m->zero_scales)
            zeros_add(m->out, m->tensor->name, m->verbose);
    }
    scales_free(&m->scales);
    free(m);
}

/* Convert the current tensor band by band, so that memory does not grow with its size. */
static void convert_matrix(struct band_pipeline *bands, struct matrix *m)
{
    const struct weight *w = m->w;
    uint64_t most = weight_band(w, m->tensor), row_bytes = weight_row_bytes(w, m->tensor);
    uint64_t all = weight_filled_rows(w), rows;
    if (!all)
        bands_put_empty(bands, m->tensor->name);
    for (uint64_t first = 0; first < all; first += rows) {
        rows = at_most(all - first, most);
        struct band *band =
            bands_next(bands, first ? NULL : m->tensor->name, (size_t)(rows * row_bytes),
                       (size_t)(rows * w->cols) * sizeof(uint16_t));
        band->convert = convert;
        band->check = count;
        band->of = m;
        band->first = first;
        band->rows = rows;
        bands_read(bands, first * row_bytes);
        bands_submit(bands);
    }
    bands_after(bands, end_matrix, m);
}

/* `like` has what all matrices share. */
static void convert_all(struct band_pipeline *bands, struct ts_in *in, const struct choice *choice,
                        const struct matrix *like)
{
    struct matrix *matrix = NULL; /* whose scales were read and whose weight comes next */
    for (const struct tensor *tensor; (tensor = ts_next(in));) {
        size_t line = (size_t)(tensor - ts_toc(in)->tensor);
        const struct weight *w = chosen(choice, line);
        if (!w) {
            bands_pass_checked(bands, weight_of(choice->weights, line));
            continue;
        }
        if (!matrix) {
            matrix = xalloc(1, sizeof *matrix);
            *matrix = *like;
        }
        if (scales_take(&matrix->scales, w, in))
            continue;
        size_t scale_size = (size_t)ts_toc(in)->tensor[w->scale].size;
        matrix->zero_scales = zeros_only(matrix->scales.raw, scale_size);
        matrix->w = w;
        matrix->tensor = tensor;
        convert_matrix(bands, matrix);
        matrix = NULL;
    }
}

/* The recipe of --recipe, NULL if it was not given; the history identifies it. */
static struct recipe *load_recipe(const char *name, const char *drafts, struct ts_in *in,
                                  const struct stage *stage)
{
    if (!name && drafts)
        die_usage("--drafts needs --recipe");
    if (!name)
        return NULL;
    struct recipe *recipe = recipe_load(name, drafts, ts_model(in));
    recipe_check(recipe, ts_model(in), ts_toc(in), ts_is_whole(in), ts_name(in));
    recipe_record(recipe, stage->entry);
    return recipe;
}

static void dequantize(const struct choice *choice, struct ts_in *in, const struct stage *stage,
                       const struct codec *codec, unsigned threads)
{
    struct toc *toc = plan(ts_toc(in), choice);
    struct ts_out *out = ts_create(stage, in, toc);
    struct band_pipeline *bands = bands_begin(out, in, threads, ORDERED_POOL_SLACK);
    ts_count(out, NULL, "dequantized", 0);
    ts_count(out, NULL, "nan", 0);
    zeros_begin(out);
    convert_all(bands, in, choice,
                &(struct matrix){.codec = codec, .out = out, .verbose = stage->verbose});
    bands_end(bands);
    uint64_t nan = ts_counted(out, "nan");
    if (nan && !stage->quiet)
        warn("%" PRIu64 " FP8 NaN became BF16 NaN", nan);
    if (stage->verbose)
        warn("%" PRIu64 " %s weights became BF16", ts_counted(out, "dequantized"),
             format_name(choice->format));
    ts_finish(out, in, NULL);
    toc_free(toc);
}

int dequantize_main(enum format format, const struct program *program, int argc, char **argv)
{
    const char *cpu = NULL, *drafts = NULL, *name = NULL;
    uint64_t threads = 0;
    const struct arg args[] = {
        codec_arg(&cpu),
        recipe_drafts_arg(&drafts),
        {.name = "recipe",
         .kind = ARG_TEXT,
         .to = &name,
         .value = "name",
         .help = "only weights that this recipe makes BF16 (default: all)"},
        arg_threads(&threads),
        {.name = "verbose",
         .help = "say how many weights were converted, and name those that are all zero"},
        {0},
    };
    struct stage stage;
    stage_begin(&stage, program, args, argc, argv);
    const struct codec *codec = codec_chosen(cpu);
    unsigned workers = ordered_pool_threads(threads);
    struct ts_in *in = ts_open(stage_input(&stage), &stage);
    struct weights weights;
    whole_check(in);
    weights_find(&weights, ts_model(in), ts_toc(in), ts_name(in));
    struct recipe *recipe = load_recipe(name, drafts, in, &stage);
    const struct choice choice = {.format = format, .weights = &weights, .recipe = recipe};
    dequantize(&choice, in, &stage, codec, workers);
    recipe_free(recipe);
    weights_free(&weights);
    return stage_end(&stage);
}
