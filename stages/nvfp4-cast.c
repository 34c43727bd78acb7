/* nvfp4-cast: convert MXFP4 weights to NVFP4 without loss: the codes stay, only scales are new. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "quantize/to_nvfp4.h"
#include "quantize/weight_error.h"
#include "quantize/zeros.h"
#include "tensor/mxfp4.h"
#include "tensor/nvfp4.h"

static const struct program program = {
    .about = "Turn the MXFP4 weights that a recipe names into NVFP4. Both formats have the "
             "same 4-bit codes; scales are powers of two, which NVFP4's block scales "
             "express exactly within a range of 2^17 in a matrix. So the codes pass by "
             "reference, and only the few blocks out of that range are requantized. "
             "Reads a tensor stream from a file or standard input, or a checkpoint's "
             "folder.",
    .operands = {"[stream]"},
    .examples = {"st-read DeepSeek-V4 | nvfp4-cast --amax amax.ts | st-write DeepSeek-V4-NVFP4",
                 "nvfp4-cast -n --amax amax.ts DeepSeek-V4 | st-ls"},
    .max_operands = 1,
    .in_place = true,
};

enum { SCALES_BAND = 1 << 20 }; /* bytes of scales that are cast at a time */

struct options {
    struct to_nvfp4_options common;
    const char *zero, *window;
    bool zero_positive;
    bool verbose;
};

/* 2^127 times 2 and the like are infinite in BF16; only scale codes from 253 can do that. */
static void refuse_infinite(struct to_nvfp4 *job, const struct member *member, uint8_t *row)
{
    const struct weight *w = member->w;
    uint64_t blocks = w->cols / MXFP4_BLOCK;
    const uint8_t *scale = member->scales.raw;
    for (uint64_t i = 0; i < weight_filled_rows(w); i++, scale += blocks) {
        uint8_t most = 0;
        for (uint64_t b = 0; b < blocks; b++)
            most = scale[b] > most ? scale[b] : most;
        if (most < 253)
            continue;
        ts_held_read(member->held, i * w->cols / 2, row, (size_t)(w->cols / 2));
        if (nvfp4_cast_overflows_row(row, scale, (size_t)blocks))
            die("%s: %s: row %" PRIu64 " (byte %" PRIu64 " of the tensor) holds an infinite weight",
                ts_name(job->in), member->tensor->name, i, i * w->cols / 2);
    }
}

static size_t scale_count(const struct member *member)
{
    return (size_t)(member->w->rows * (member->w->cols / MXFP4_BLOCK));
}

/* A member being converted. */
struct casting {
    const struct to_nvfp4 *job;
    const struct member *member;
    int k;      /* the exponent that the group shares */
    bool above; /* some scale is above it */
    bool zero;  /* all scales are */
    const struct options *options;
    struct nvfp4_cast_count count;
    double sum[2]; /* of the error of what is rewritten (weight_error.h) */
};

static const uint8_t *e8m0_of(const struct casting *c, uint64_t row)
{
    return (const uint8_t *)c->member->scales.raw + row * (c->member->w->cols / MXFP4_BLOCK);
}

static void make_scales(struct band *band)
{
    const struct casting *c = band->of;
    struct nvfp4_cast_count count = {0};
    size_t blocks = (size_t)(band->rows * (c->member->w->cols / MXFP4_BLOCK));
    if (c->above)
        nvfp4_cast_scales_row(band->out, e8m0_of(c, band->first), blocks, c->k, &count);
    else
        c->job->codec->nvfp4_cast_scales_row(band->out, e8m0_of(c, band->first), blocks, c->k,
                                             &count);
    band->found[0] = count.lossy;
    band->found[1] = count.rewrite;
}

static void count_scales(struct band *band)
{
    struct casting *c = band->of;
    c->count.blocks += band->rows * (c->member->w->cols / MXFP4_BLOCK);
    c->count.lossy += band->found[0];
    c->count.rewrite += band->found[1];
}

/* A row's nibbles, in place, and its error (weight_error.h). */
static void measure_row(struct band *band, const struct casting *c, uint64_t i, uint8_t *row)
{
    size_t cols = (size_t)c->member->w->cols, blocks = cols / MXFP4_BLOCK;
    uint16_t *before = xgrow(NULL, cols, sizeof *before), *after = xgrow(NULL, cols, sizeof *after);
    uint8_t *scale = xgrow(NULL, blocks, 2);
    struct nvfp4_cast_count none = {0};
    mxfp4_unpack_row(before, row, e8m0_of(c, i), cols);
    nvfp4_cast_nibbles_row(row, e8m0_of(c, i), blocks, c->k, c->options->zero_positive);
    nvfp4_cast_scales_row(scale, e8m0_of(c, i), blocks, c->k, &none);
    nvfp4_unpack_row(after, row, scale, cols, nvfp4_cast_scale_2(c->k));
    weight_sums_add(band->sum, before, after, cols);
    free(before);
    free(after);
    free(scale);
}

static void make_nibbles(struct band *band)
{
    const struct casting *c = band->of;
    uint64_t row_bytes = c->member->w->cols / 2, blocks = c->member->w->cols / MXFP4_BLOCK;
    for (uint64_t i = 0; i < band->rows; i++) {
        uint8_t *row = (uint8_t *)band->raw + i * row_bytes;
        if (weight_error_wants(band->first + i))
            measure_row(band, c, band->first + i, row);
        else
            nvfp4_cast_nibbles_row(row, e8m0_of(c, band->first + i), (size_t)blocks, c->k,
                                   c->options->zero_positive);
    }
}

static void add_error(struct band *band)
{
    struct casting *c = band->of;
    c->sum[0] += band->sum[0];
    c->sum[1] += band->sum[1];
}

static void end_casting(void *context)
{
    struct casting *c = context;
    struct ts_out *out = c->job->out;
    bool verbose = c->options->verbose;
    if (c->count.rewrite && verbose)
        warn("%s: %" PRIu64 " of %" PRIu64 " blocks are out of range and were requantized",
             c->member->tensor->name, c->count.rewrite, c->count.blocks);
    to_nvfp4_count(c->job, c->member);
    weight_error_count(out, ts_model(c->job->in), &c->member->w->place, c->sum);
    ts_count(out, NULL, "blocks", c->count.blocks);
    ts_count(out, NULL, "lossy", c->count.lossy);
    ts_count(out, NULL, "rewritten", c->count.rewrite);
    if (c->zero)
        zeros_add(out, ts_toc(c->job->in)->tensor[c->member->w->scale].name, verbose);
    free(c);
}

static void cast_member(struct to_nvfp4 *job, const struct group *group,
                        const struct member *member, int k, const struct options *o)
{
    const struct weight *w = member->w;
    struct casting *c = xalloc(1, sizeof *c);
    *c = (struct casting){.job = job, .member = member, .k = k, .options = o};
    c->above = nvfp4_cast_k_max(member->scales.raw, scale_count(member)) > k;
    uint8_t *row = xalloc(weight_filled_rows(w) ? (size_t)(w->cols / 2) : 0, 1);
    refuse_infinite(job, member, row);
    free(row);
    uint64_t blocks = w->cols / MXFP4_BLOCK, most = blocks ? 1 + SCALES_BAND / blocks : 1;
    struct band scales = {.convert = make_scales, .check = count_scales, .of = c};
    struct band nibbles = {.convert = make_nibbles, .check = add_error, .of = c};
    c->zero = zeros_only(member->scales.raw, (size_t)(w->rows * blocks));
    to_nvfp4_scales(job, group, member, nvfp4_cast_scale_2(k));
    to_nvfp4_bands(job, member, "weight_scale", &scales, most, 0, 2 * blocks);
    if (o->zero_positive ||
        nvfp4_cast_any_out_of_range(member->scales.raw, (size_t)(w->rows * blocks), k))
        to_nvfp4_bands(job, member, "weight", &nibbles, 4 * weight_band(w, member->tensor),
                       w->cols / 2, 0);
    else
        bands_pass_held(job->bands, member->held);
    bands_after(job->bands, end_casting, c);
}

/* k_max of the group. The reference takes 0 for a matrix whose scales are all zero, and for its
 * partner if that has less: --zero positive does the same for the same bytes. */
static int largest_k(const struct group *group, const struct options *o)
{
    int k_max = -127;
    for (unsigned i = 0; i < group->members; i++) {
        const struct member *member = &group->member[i];
        int own = nvfp4_cast_k_max(member->scales.raw, scale_count(member));
        if (own == -127 && o->zero_positive)
            own = 0;
        if (own > k_max)
            k_max = own;
    }
    return k_max;
}

/* --window best: the least k under which nothing is lost above the range, so that the fewest blocks
 * are below it. Rows are read as long as one of their scales is above the k found so far: few. */
static int best_k(const struct group *group, int k_max)
{
    size_t below = 0;
    int k = -127;
    for (unsigned i = 0; i < group->members; i++)
        below += nvfp4_cast_below_range(group->member[i].scales.raw, scale_count(&group->member[i]),
                                        k_max);
    for (unsigned i = 0; below && i < group->members; i++) {
        const struct member *member = &group->member[i];
        size_t blocks = (size_t)(member->w->cols / MXFP4_BLOCK), row_bytes = 16 * blocks;
        const uint8_t *e8m0 = member->scales.raw;
        uint8_t *row = xgrow(NULL, row_bytes, 1);
        for (uint64_t j = 0; j < weight_filled_rows(member->w); j++, e8m0 += blocks) {
            if (nvfp4_cast_k_max(e8m0, blocks) <= k)
                continue;
            ts_held_read(member->held, j * row_bytes, row, row_bytes);
            k = nvfp4_cast_k_row(row, e8m0, blocks, k);
        }
        free(row);
    }
    return below ? k : k_max;
}

static void cast_group(struct to_nvfp4 *job, struct group *group, void *context)
{
    const struct options *o = context;
    int k = largest_k(group, o);
    if (!strcmp(o->window, "best"))
        k = best_k(group, k);
    for (unsigned i = 0; i < group->members; i++)
        if (group->member[i].tensor->context)
            to_nvfp4_pass(job, &group->member[i]);
        else
            cast_member(job, group, &group->member[i], k, o);
}

static void take_options(struct options *o, struct stage *stage, int argc, char **argv)
{
    const struct arg own[] = {
        {.name = "window",
         .kind = ARG_CHOICE,
         .to = &o->window,
         .value = "which",
         .choices = "max|best",
         .help = "which exponents of a matrix are in range: from its largest scale on (default), "
                 "the bytes of Model Optimizer; or where the fewest blocks lose anything"},
        {.name = "zero",
         .kind = ARG_CHOICE,
         .to = &o->zero,
         .value = "which",
         .choices = "keep|positive",
         .help = "keep: code 8, -0.0, stays (default); positive: it becomes 0, which gives the "
                 "bytes of Model Optimizer and rewrites all weights"},
        {.name = "verbose",
         .help = "name the weights that had blocks out of range, and scales that are all zero"},
        {0},
    };
    struct arg *args = to_nvfp4_args(&o->common, own);
    stage_begin(stage, &program, args, argc, argv);
    free(args);
}

int main(int argc, char **argv)
{
    struct options o = {.zero = "keep", .window = "max"};
    static const bool convertible[FORMAT_COUNT] = {[FORMAT_MXFP4] = true};
    static const char *const counted[] = {"blocks", "lossy", "rewritten"};
    struct stage stage;
    struct to_nvfp4 job;
    take_options(&o, &stage, argc, argv);
    o.zero_positive = !strcmp(o.zero, "positive");
    o.verbose = stage.verbose;
    to_nvfp4_begin(&job, &stage, &o.common, convertible);
    for (size_t i = 0; i < sizeof counted / sizeof *counted; i++)
        ts_count(job.out, NULL, counted[i], 0);
    to_nvfp4_run(&job, cast_group, &o);
    to_nvfp4_finish(&job);
    return stage_end(&stage);
}
