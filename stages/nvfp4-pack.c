/* nvfp4-pack: quantize BF16, FP8 or MXFP4 weights to NVFP4 with a per-tensor amax. */
#include <inttypes.h>
#include <malloc.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "quantize/magnitude.h"
#include "quantize/moments.h"
#include "quantize/to_nvfp4.h"
#include "quantize/weight_error.h"
#include "quantize/zeros.h"
#include "tensor/bf16.h"
#include "tensor/mxfp4.h"
#include "tensor/nvfp4.h"
#include "tensor/scale_search.h"

static const struct program program = {
    .about = "Quantize the weights that a recipe names to NVFP4; FP8 and MXFP4 ones as if "
             "fp8-dequant and mxfp4-unpack had run before. The scale of a "
             "tensor comes from its weight amax in the amax stream, or from the weight "
             "itself where that has none. Reads a tensor stream from a file or standard "
             "input, or a checkpoint's folder.",
    .operands = {"[stream]"},
    .examples = {"st-read DeepSeek-V4 | nvfp4-pack --amax amax.ts | st-write DeepSeek-V4-NVFP4",
                 "st-read DeepSeek-V4 | mxfp4-unpack | nvfp4-pack --amax amax.ts | st-write out"},
    .max_operands = 1,
    .in_place = true,
};

enum { KEEP_MOST = 16 << 20 }; /* bytes of one matrix's codes; an expert of V4-Pro has 11 MB */
enum { AHEAD = 16 };           /* bands of the next matrix, while these codes are written */

typedef void scales_row(uint8_t *scale, const uint16_t *w, size_t cols, float scale_2);

struct options {
    struct to_nvfp4_options common;
    const char *scale_search, *moments_folder;
    enum scale_search search;
    struct moments *moments; /* of a search that needs them */
    bool verbose;
};

/* ---- the amax of a weight ---- */

static float largest_magnitude(const struct to_nvfp4 *job, const struct member *member)
{
    return magnitude_largest(job->codec, member->w, member->held, &member->scales);
}

/* *synthesized becomes true if it is taken from the weight itself. */
static float weight_amax(struct to_nvfp4 *job, const struct member *member, const struct options *o,
                         bool *synthesized)
{
    double known;
    if (amaxes_find(job->amaxes, member->w->module, AMAX_WEIGHT, &known)) {
        float amax = (float)known;
        if (amax == 0 && largest_magnitude(job, member) != 0)
            die("%s: %s: its weight amax is 0, but the weight is not; the amaxes are of another "
                "checkpoint",
                ts_name(job->in), member->tensor->name);
        return amax;
    }
    *synthesized = true;
    if (o->verbose)
        warn("%s: no weight amax in the amax stream; taken from the weight", member->tensor->name);
    return largest_magnitude(job, member);
}

/* ---- quantization ---- */

/* A member being converted. */
struct packing {
    const struct to_nvfp4 *job;
    const struct member *member;
    float scale_2;
    scales_row *scales;                  /* the search, but where there are: */
    const struct block_moments *moments; /* of the inputs, in the order of columns; or NULL */
    struct recode *recode; /* of MXFP4 without a search, which needs no BF16; else NULL */
    uint8_t *packed;       /* all codes, made with the scales; NULL if they are too many to keep */
    const struct options *options;
    bool synthesized; /* its amax was taken from the weight */
    bool zero;        /* its amax is 0, or all its scales are */
    bool nonzero;     /* a byte of it is not 0 */
    double sum[2];    /* of its error (weight_error.h) */
};

/* A thread's scratch memory: a row as BF16, or its output; and for its error, its codes and what
 * they stand for. */
struct room {
    uint16_t *row, *result;
    uint8_t *scale, *packed, *codes;
};

static void room_begin(struct room *room, const struct weight *w)
{
    room->row = xgrow(NULL, (size_t)w->cols, sizeof *room->row);
    room->result = xgrow(NULL, (size_t)w->cols, sizeof *room->result);
    room->codes = xgrow(NULL, (size_t)w->cols / 2, 1);
    room->packed = (uint8_t *)room->row; /* never both at once */
    room->scale = xgrow(NULL, (size_t)w->cols / NVFP4_BLOCK, 1);
}

static void room_end(struct room *room)
{
    free(room->row);
    free(room->result);
    free(room->codes);
    free(room->scale);
}

/* Quantize row i of a band: scales into `scale`; the codes into `packed`, unless that is NULL. */
static void pack_row(const struct band *band, uint64_t i, struct room *room, uint8_t *scale,
                     uint8_t *packed)
{
    const struct packing *p = band->of;
    const struct weight *w = p->member->w;
    const struct codec *codec = p->job->codec;
    const uint8_t *raw = (const uint8_t *)band->raw + i * weight_row_bytes(w, p->member->tensor);
    size_t cols = (size_t)w->cols, blocks = cols / MXFP4_BLOCK;
    if (p->recode) {
        const uint8_t *e8m0 = (const uint8_t *)p->member->scales.raw + (band->first + i) * blocks;
        codec->recode_row(packed ? packed : room->packed, scale, p->recode, raw, e8m0, blocks);
        return;
    }
    weight_rows_by(codec, w, p->member->tensor, &p->member->scales, band->first + i, 1, raw,
                   room->row);
    if (p->moments)
        codec->nvfp4_scales_hessian_row(scale, room->row, cols, p->scale_2, p->moments);
    else
        p->scales(scale, room->row, cols, p->scale_2);
    if (packed)
        codec->nvfp4_nibbles_row(packed, scale, room->row, cols, p->scale_2);
}

/* Add the error of row i of a band, which has these scales. */
static void add_error(struct band *band, uint64_t i, struct room *room, const uint8_t *scale)
{
    const struct packing *p = band->of;
    const struct weight *w = p->member->w;
    const struct codec *codec = p->job->codec;
    const char *raw = (const char *)band->raw + i * weight_row_bytes(w, p->member->tensor);
    size_t cols = (size_t)w->cols;
    weight_rows_by(codec, w, p->member->tensor, &p->member->scales, band->first + i, 1, raw,
                   room->row);
    codec->nvfp4_nibbles_row(room->codes, scale, room->row, cols, p->scale_2);
    codec->nvfp4_unpack_row(room->result, room->codes, scale, cols, p->scale_2);
    weight_sums_add(band->sum, room->row, room->result, cols);
}

/* found: 1 + the row with the first element that is not finite, and its column. */
static void find_not_finite(struct band *band, uint64_t i, struct room *room)
{
    const struct packing *p = band->of;
    const struct weight *w = p->member->w;
    const char *raw = (const char *)band->raw + i * weight_row_bytes(w, p->member->tensor);
    weight_rows_by(p->job->codec, w, p->member->tensor, &p->member->scales, band->first + i, 1, raw,
                   room->row);
    size_t j = 0;
    while (!bf16_not_finite(room->row[j]))
        j++;
    band->found[0] = 1 + band->first + i;
    band->found[1] = j;
}

static void make_scales(struct band *band)
{
    const struct packing *p = band->of;
    size_t blocks = (size_t)p->member->w->cols / NVFP4_BLOCK;
    struct room room;
    room_begin(&room, p->member->w);
    for (uint64_t i = 0; i < band->rows && !band->found[0]; i++) {
        uint8_t *scale = (uint8_t *)band->out + i * blocks;
        size_t at = (size_t)((band->first + i) * (p->member->w->cols / 2));
        pack_row(band, i, &room, scale, p->packed ? p->packed + at : NULL);
        if (memchr(scale, NVFP4_NOT_FINITE, blocks))
            find_not_finite(band, i, &room);
        else if (weight_error_wants(band->first + i))
            add_error(band, i, &room, scale);
    }
    if (!band->found[0])
        band->found[1] = !zeros_only(band->raw, band->raw_size);
    room_end(&room);
}

static void check_elements(struct band *band)
{
    struct packing *p = band->of;
    if (band->found[0])
        die("%s: %s: row %" PRIu64 ", column %" PRIu64 " is NaN or infinite; such a weight cannot "
            "be packed",
            ts_name(p->job->in), p->member->tensor->name, band->found[0] - 1, band->found[1]);
    p->nonzero |= band->found[1] != 0;
    p->sum[0] += band->sum[0];
    p->sum[1] += band->sum[1];
}

static void make_nibbles(struct band *band)
{
    const struct packing *p = band->of;
    struct room room;
    room_begin(&room, p->member->w);
    for (uint64_t i = 0; i < band->rows; i++)
        pack_row(band, i, &room, room.scale, (uint8_t *)band->out + i * (p->member->w->cols / 2));
    room_end(&room);
}

static void end_packing(void *context)
{
    struct packing *p = context;
    struct ts_out *out = p->job->out;
    to_nvfp4_count(p->job, p->member);
    weight_error_count(out, ts_model(p->job->in), &p->member->w->place, p->sum);
    ts_count(out, NULL, "weight_amax_synthesized", p->synthesized);
    if (p->zero || !p->nonzero)
        zeros_add(out, p->member->tensor->name, p->options->verbose);
    if (p->options->moments)
        ts_count(out, NULL, p->moments ? "moments_known" : "moments_unknown", 1);
    free(p->recode);
    free(p->packed);
    free(p);
}

/* All zero: any scale will do, and 1 is safe for every engine. */
static float scale_2_of(const struct options *o, float amax)
{
    return amax == 0 ? 1 : scale_search_scale_2(o->search, amax);
}

static scales_row *scales_of(const struct options *o, const struct codec *codec)
{
    switch (o->search) {
    case SEARCH_MSE:
    case SEARCH_HESSIAN: /* where there are no moments */
        return codec->nvfp4_scales_mse_row;
    case SEARCH_FOUR_OVER_SIX:
        return codec->nvfp4_scales_four_over_six_row;
    case SEARCH_MAX:
        break;
    }
    return codec->nvfp4_scales_row;
}

/* The scales come before the codes in a stream. So the codes are kept, or made in a second pass if
 * there are many: memory is bounded for any matrix. */
static void pack_member(struct to_nvfp4 *job, const struct group *group,
                        const struct member *member, float amax, bool synthesized,
                        const struct block_moments *moments, const struct options *o)
{
    const struct weight *w = member->w;
    float scale_2 = scale_2_of(o, amax);
    struct packing *p = xalloc(1, sizeof *p);
    *p = (struct packing){.job = job,
                          .member = member,
                          .scale_2 = scale_2,
                          .scales = scales_of(o, job->codec),
                          .moments = moments,
                          .options = o,
                          .synthesized = synthesized};
    p->zero = amax == 0 ||
              (member->held_scale &&
               zeros_only(member->scales.raw, (size_t)ts_held_tensor(member->held_scale)->size));
    if (w->format == FORMAT_MXFP4 && o->search == SEARCH_MAX) {
        p->recode = xgrow(NULL, 1, sizeof *p->recode);
        recode_init(p->recode, job->codec, scale_2);
    }
    uint64_t bytes = w->rows * (w->cols / 2); /* cannot overflow: the table was checked */
    if (bytes <= KEEP_MOST)
        p->packed = xgrow(NULL, (size_t)bytes, 1);
    uint64_t most = weight_band(w, member->tensor), raw_row = weight_row_bytes(w, member->tensor);
    struct band scales = {.convert = make_scales, .check = check_elements, .of = p};
    struct band nibbles = {.convert = make_nibbles, .of = p};
    to_nvfp4_scales(job, group, member, scale_2);
    to_nvfp4_bands(job, member, "weight_scale", &scales, most, raw_row, w->cols / NVFP4_BLOCK);
    if (p->packed)
        to_nvfp4_put_from(job, member, "weight", p->packed, (size_t)bytes);
    else
        to_nvfp4_bands(job, member, "weight", &nibbles, most, raw_row, w->cols / 2);
    bands_after(job->bands, end_packing, p);
}

/* The moments of a group's inputs, which any of its members may have; NULL if there are none. */
static struct block_moments *find_moments(const struct options *o, const struct group *group)
{
    float *h = NULL;
    uint64_t cols = 0;
    for (unsigned i = 0; i < group->members && o->moments && !h; i++) {
        cols = group->member[i].w->cols;
        h = moments_read(o->moments, group->member[i].w->module, cols);
    }
    if (!h)
        return NULL;
    for (unsigned i = 0; i < group->members; i++)
        if (group->member[i].w->cols != cols)
            die("%s: %s has other columns than its partner", group->member[i].tensor->name,
                group->member[i].w->module);
    size_t blocks = (size_t)cols / NVFP4_BLOCK;
    struct block_moments *moments = xgrow(NULL, block_moments_count(blocks), sizeof *moments);
    block_moments_prepare(moments, h, blocks);
    free(h);
    return moments;
}

static void pack_group(struct to_nvfp4 *job, struct group *group, void *context)
{
    const struct options *o = context;
    float amax = 0;
    bool synthesized[GROUP_MAX] = {false};
    for (unsigned i = 0; i < group->members; i++)
        amax = fmaxf(amax, weight_amax(job, &group->member[i], o, &synthesized[i]));
    if (scale_2_of(o, amax) == 0)
        die("%s: %s: its weight amax of %g is too small for a weight_scale_2", ts_name(job->in),
            group->member[0].tensor->name, (double)amax);
    struct block_moments *moments = find_moments(o, group);
    for (unsigned i = 0; i < group->members; i++) {
        const struct member *member = &group->member[i];
        if (member->tensor->context) {
            to_nvfp4_pass(job, member);
            continue;
        }
        pack_member(job, group, member, amax, synthesized[i], moments, o);
    }
    bands_after(job->bands, free, moments);
}

/* The search is the recipe's unless the user named one. */
static void choose_search(struct to_nvfp4 *job, const struct stage *stage, void *context)
{
    struct options *o = context;
    const char *ours = recipe_scale_search(job->recipe);
    o->search = scale_search_named(o->scale_search ? o->scale_search : ours ? ours : "max");
    if (o->search != SEARCH_HESSIAN && o->moments_folder)
        die_usage("--moments goes with --scale-search hessian");
    if (o->search != SEARCH_HESSIAN)
        return;
    json_object_set_new(json_object_get(ts_header(job->in), "quant"), "scale_search",
                        json_string("hessian"));
    if (stage->plan)
        return;
    if (!o->moments_folder)
        die_usage("--scale-search hessian needs --moments DIR, which amax-calib --moments makes");
    o->moments = moments_open(o->moments_folder, ts_model(job->in));
    json_object_set_new(stage->entry, "moments", json_string(moments_digest(o->moments)));
}

static void take_options(struct options *o, struct stage *stage, int argc, char **argv)
{
    const struct arg own[] = {
        {.name = "moments",
         .kind = ARG_TEXT,
         .to = &o->moments_folder,
         .value = "dir",
         .help = "second moments of the inputs, which amax-calib --moments wrote to dir",
         .silent = true}, /* the history has their digest instead */
        {.name = "scale-search",
         .kind = ARG_CHOICE,
         .to = &o->scale_search,
         .value = "how",
         .choices = RECIPE_SEARCHES,
         .help = "how to choose block scales: for the largest magnitude; with the least squared "
                 "error of all; for the largest magnitude as 4 or as 6; or with the least error of "
                 "the output, by --moments (default: as the recipe says, or max)"},
        {.name = "verbose",
         .help = "name the weights without a weight amax, and those that are all zero"},
        {0},
    };
    struct arg *args = to_nvfp4_args(&o->common, own);
    stage_begin(stage, &program, args, argc, argv);
    free(args);
}

/* What is counted, also if it is none. */
static void begin_counts(struct ts_out *out, const struct options *o)
{
    ts_count(out, NULL, "weight_amax_synthesized", 0);
    if (!o->moments)
        return;
    ts_count(out, NULL, "moments_known", 0);
    ts_count(out, NULL, "moments_unknown", 0);
}

/* Say what a search by moments had to do without. */
static void tell_moments(const struct ts_out *out)
{
    uint64_t unknown = ts_counted(out, "moments_unknown");
    if (unknown)
        warn("%" PRIu64 " of %" PRIu64 " weights have no moments of their inputs; their scales "
             "have the least squared error, as with --scale-search mse",
             unknown, ts_counted(out, "moments_known") + unknown);
}

int main(int argc, char **argv)
{
    struct options o = {.common = {.ahead = AHEAD, .prepare = choose_search}};
    static const bool convertible[FORMAT_COUNT] = {
        [FORMAT_PLAIN] = true, [FORMAT_FP8] = true, [FORMAT_MXFP4] = true};
    struct stage stage;
    struct to_nvfp4 job;
    o.common.context = &o;
    take_options(&o, &stage, argc, argv);
    /* Matrices are alike: keep freed memory, or the kernel would clear its pages again. */
    mallopt(M_MMAP_THRESHOLD, 2 * KEEP_MOST);
    mallopt(M_TRIM_THRESHOLD, 4 * KEEP_MOST);
    o.verbose = stage.verbose;
    to_nvfp4_begin(&job, &stage, &o.common, convertible);
    begin_counts(job.out, &o);
    to_nvfp4_run(&job, pack_group, &o);
    if (!stage.quiet)
        tell_moments(job.out);
    moments_close(o.moments);
    to_nvfp4_finish(&job);
    return stage_end(&stage);
}
