#include "quantize/to_nvfp4.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/digest.h"
#include "base/ordered_pool.h"
#include "quantize/convertible.h"
#include "quantize/zeros.h"
#include "stream/scales.h"
#include "stream/whole.h"
#include "tensor/nvfp4.h"

/* ---- options ---- */

struct arg *to_nvfp4_args(struct to_nvfp4_options *o, const struct arg *own)
{
    o->recipe = "experts";
    const struct arg shared[] = {
        amaxes_arg(&o->amax),
        codec_arg(&o->cpu),
        recipe_drafts_arg(&o->drafts),
        {.name = "kv",
         .kind = ARG_CHOICE,
         .to = &o->kv,
         .value = "which",
         .choices = "none|fp8-cast",
         .help = "what the configs say of the KV cache: fp8-cast, FP8 without scales; none, the "
                 "engine decides (default: as the recipe says)",
         .silent = true}, /* the history has what it comes to */
        {.name = "recipe",
         .kind = ARG_TEXT,
         .to = &o->recipe,
         .value = "name",
         .help = "which weights: a recipe of the model, or a file with a '/' in its name "
                 "(default: experts)"},
        arg_threads(&o->threads),
        {0},
    };
    return args_join(own, shared);
}

/* ---- the plan ---- */

static size_t first_line(const struct weight *w)
{
    size_t first = w->line;
    if (w->scale != WEIGHT_NONE && w->scale < first)
        first = w->scale;
    return w->input_scale != WEIGHT_NONE && w->input_scale < first ? w->input_scale : first;
}

/* The member of w's group at `place`. */
static uint32_t find_member(struct to_nvfp4 *job, const struct weight *w, const struct place *place)
{
    char module[TENSOR_NAME_MAX + 1];
    struct toc *toc = ts_toc(job->in);
    if (!model_module(ts_model(job->in), place, module))
        die("%s: %s: its group has a member without a name", ts_name(job->in), w->module);
    char *name = xprintf("%s.weight", module);
    int64_t line = toc_find(toc, name);
    if (line < 0)
        die("%s: %s: its partner %s, with which it shares weight_scale_2, is not in the stream; "
            "st-read includes it even in a part",
            ts_name(job->in), toc->tensor[w->line].name, name);
    if (job->weights.of_line[line] == WEIGHT_NONE)
        die("%s: %s: its partner %s is not a matrix of a known format", ts_name(job->in),
            toc->tensor[w->line].name, name);
    free(name);
    return job->weights.of_line[line];
}

/* Two consecutive members of a group must both be convertible, must both be selected, and must be
 * adjacent in the stream: then at most one group is held. */
static void check_neighbours(struct to_nvfp4 *job, uint32_t low, uint32_t high,
                             const bool *convertible)
{
    const struct toc *toc = ts_toc(job->in);
    const struct weight *x = &job->weights.weight[low], *y = &job->weights.weight[high];
    const struct tensor *a = &toc->tensor[x->line], *b = &toc->tensor[y->line];
    if (first_line(y) != x->line + 1)
        die("%s: %s does not follow %s directly; the stream is out of order (st-read sorts it)",
            ts_name(job->in), b->name, a->name);
    if (!convertible[x->format] || !convertible[y->format])
        die("%s: %s is %s, but %s, its partner, is %s", ts_name(job->in), a->name,
            format_name(x->format), b->name, format_name(y->format));
    bool wants_a = job->selected[low] || a->context, wants_b = job->selected[high] || b->context;
    if (wants_a != wants_b)
        die("%s: the recipe names %s, but not %s, with which it shares weight_scale_2; name both",
            ts_name(job->in), wants_a ? a->name : b->name, wants_a ? b->name : a->name);
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Ranks of a matrix follow each other, so that its group would be torn. */
static void refuse_ranks(struct to_nvfp4 *job, const struct weight *w)
{
    const struct toc *toc = ts_toc(job->in);
    const struct weight *next = w + 1;
    if (next == job->weights.weight + job->weights.count || strcmp(next->module, w->module) != 0)
        return;
    die("%s: %s is in %s and in %s: model-parallel ranks of a matrix whose scale is shared with "
        "others cannot be converted; take the release's checkpoint",
        ts_name(job->in), toc->tensor[w->line].name, toc->shard[toc->tensor[w->line].shard],
        toc->shard[toc->tensor[next->line].shard]);
}

/* Form the group of a selected matrix: all its members, including context, get the same leader. */
static void form_group(struct to_nvfp4 *job, uint32_t index, const bool *convertible)
{
    const struct weight *w = &job->weights.weight[index];
    uint32_t member[GROUP_MAX];
    bool shares = w->place.group && recipe_shares_scales(job->recipe, w->module);
    if (shares)
        refuse_ranks(job, w);
    unsigned members = 0;
    struct place place;
    while (shares && members < GROUP_MAX &&
           model_group_member(ts_model(job->in), &w->place, members, &place)) {
        bool self = !place_compare(&place, &w->place);
        member[members++] = self ? index : find_member(job, w, &place);
    }
    if (!members)
        member[members++] = index;
    qsort(member, members, sizeof *member, by_number);
    for (unsigned i = 0; i < members; i++) {
        if (i)
            check_neighbours(job, member[i - 1], member[i], convertible);
        job->leader[member[i]] = member[0];
    }
}

static void select_weights(struct to_nvfp4 *job, const bool *convertible)
{
    struct weights *weights = &job->weights;
    job->selected = convertible_select(job->in, weights, job->recipe, convertible);
    job->leader = xgrow(NULL, weights->count, sizeof *job->leader);
    for (size_t i = 0; i < weights->count; i++)
        job->leader[i] = WEIGHT_NONE;
    for (size_t i = 0; i < weights->count; i++)
        if (job->selected[i] && job->leader[i] == WEIGHT_NONE)
            form_group(job, (uint32_t)i, convertible);
}

/* --drafts cast was said of a checkpoint that has no drafts to cast. */
static void check_drafts(const struct to_nvfp4 *job, const char *drafts)
{
    if (strcmp(drafts, "cast") != 0 || !ts_is_whole(job->in))
        return;
    for (size_t i = 0; i < job->weights.count; i++)
        if ((job->selected[i] || job->weights.weight[i].format == FORMAT_NVFP4) &&
            job->weights.weight[i].place.section == SECTION_MTP)
            return;
    die("%s: --drafts cast: it has no drafts, or none whose experts are to become NVFP4; leave the "
        "option out",
        ts_name(job->in));
}

static double input_amax(struct to_nvfp4 *job, const struct weight *w)
{
    double amax = 0;
    if (job->amaxes && !amaxes_find(job->amaxes, w->module, AMAX_INPUT, &amax))
        die("%s: %s has no input amax: %s", ts_name(job->in), w->module,
            place_is_routed(&w->place) ? "no calibration token reached it; amax-merge --fallback "
                                         "layer-max fills in"
                                       : "calibrate with the same --recipe");
    return amax;
}

static void plan(struct to_nvfp4 *job)
{
    struct toc *in = ts_toc(job->in), *out = job->toc = toc_new();
    for (size_t i = 0; i < in->count; i++) {
        const struct weight *w = weight_of(&job->weights, i);
        if (!w || !job->selected[w - job->weights.weight]) {
            toc_copy(out, in, i);
            continue;
        }
        if (i != w->line)
            continue; /* the old scale is dropped */
        (void)input_amax(job, w);
        struct tensor line = in->tensor[i];
        line.shard = toc_shard(out, in->shard[line.shard]);
        static const char *const scalars[] = {"input_scale", "weight_scale_2"};
        for (size_t j = 0; j < 2; j++) {
            char *name = xprintf("%s.%s", w->module, scalars[j]);
            toc_derive(out, &line, name, DTYPE_F32, 0, NULL);
            free(name);
        }
        char *name = xprintf("%s.weight_scale", w->module);
        toc_derive(out, &line, name, DTYPE_F8_E4M3, 2,
                   (const uint64_t[]){w->rows, w->cols / NVFP4_BLOCK});
        free(name);
        toc_derive(out, &line, line.name, DTYPE_U8, 2, (const uint64_t[]){w->rows, w->cols / 2});
    }
}

/* Record what distinguishes this run from one with other amaxes or another recipe, and what the
 * configs will say; `kv` is --kv. */
static void record_inputs(const struct to_nvfp4 *job, const struct stage *stage, const char *kv)
{
    json_t *quant = json_object_get(ts_header(job->in), "quant");
    if (job->amaxes) {
        json_t *scale = amaxes_input_scale(job->amaxes);
        if (scale)
            json_object_set(stage->entry, "input_scale", scale);
        json_object_set_new(stage->entry, "calibration",
                            json_string(amaxes_calibration(job->amaxes)));
    }
    amaxes_record(job->amaxes, stage->entry);
    recipe_record(job->recipe, stage->entry);
    recipe_describe(job->recipe, quant);
    if (kv)
        json_object_set_new(quant, "kv_cache_quant_algo",
                            strcmp(kv, "none") ? json_string("FP8") : json_null());
    json_t *format = json_object_get(quant, "kv_cache_quant_algo");
    if (json_is_string(format))
        json_object_set(stage->entry, "kv_cache", format);
}

/* What is counted, also if it is none. */
static void begin_counts(struct to_nvfp4 *job)
{
    ts_count(job->out, NULL, "weights", 0);
    const struct expert_class *class = model_classes(ts_model(job->in));
    for (unsigned i = 0; class[i].key; i++)
        ts_count(job->out, "experts", class[i].key, 0);
    zeros_begin(job->out);
}

void to_nvfp4_begin(struct to_nvfp4 *job, const struct stage *stage,
                    const struct to_nvfp4_options *options, const bool *convertible)
{
    *job = (struct to_nvfp4){.quiet = stage->quiet, .codec = codec_chosen(options->cpu)};
    unsigned threads = ordered_pool_threads(options->threads);
    if (!options->amax && !stage->plan)
        die_usage("--amax FILE is needed: the input scales come from a calibration");
    job->in = ts_open(stage_input(stage), stage);
    const struct model *model = ts_model(job->in);
    job->amaxes = options->amax ? amaxes_load(options->amax, model, stage->plan) : NULL;
    job->recipe = recipe_load(options->recipe, options->drafts, model);
    whole_check(job->in);
    weights_find(&job->weights, model, ts_toc(job->in), ts_name(job->in));
    select_weights(job, convertible);
    if (options->drafts)
        check_drafts(job, options->drafts);
    if (job->amaxes)
        amaxes_check(job->amaxes, job->in);
    plan(job);
    record_inputs(job, stage, options->kv);
    if (options->prepare)
        options->prepare(job, stage, options->context);
    job->out = ts_create(stage, job->in, job->toc);
    begin_counts(job);
    job->bands = bands_begin(job->out, job->in, threads, ORDERED_POOL_SLACK + options->ahead);
}

/* ---- the run ---- */

static void add_member(struct to_nvfp4 *job, struct group *group, uint32_t index)
{
    struct member *member = &group->member[group->members++];
    *member = (struct member){.w = &job->weights.weight[index]};
    member->tensor = &ts_toc(job->in)->tensor[member->w->line];
    if (first_line(member->w) < group->first)
        group->first = first_line(member->w);
    if (member->w->line > group->last)
        group->last = member->w->line;
    double amax = input_amax(job, member->w);
    if (amax > group->input_amax)
        group->input_amax = amax;
}

static struct group *begin_group(struct to_nvfp4 *job, uint32_t leader)
{
    struct group *group = xalloc(1, sizeof *group);
    group->first = SIZE_MAX;
    for (uint32_t i = leader; i < job->weights.count && job->leader[i] == leader; i++)
        add_member(job, group, i);
    return group;
}

static void hold_line(struct to_nvfp4 *job, struct group *group, size_t line)
{
    for (unsigned i = 0; i < group->members; i++) {
        struct member *member = &group->member[i];
        if (line == member->w->line)
            member->held = ts_hold(job->in);
        if (line != member->w->scale)
            continue;
        member->held_scale = ts_hold(job->in);
        const struct tensor *tensor = ts_held_tensor(member->held_scale);
        void *raw = xgrow(NULL, (size_t)tensor->size, 1);
        ts_held_read(member->held_scale, 0, raw, (size_t)tensor->size);
        scales_keep(&member->scales, member->w, job->in, (uint32_t)line, raw);
    }
}

static void free_group(void *context)
{
    struct group *group = context;
    for (unsigned i = 0; i < group->members; i++)
        scales_free(&group->member[i].scales);
    free(group);
}

static void end_group(struct to_nvfp4 *job, struct group *group, to_nvfp4_convert *convert,
                      void *context)
{
    convert(job, group, context);
    for (unsigned i = 0; i < group->members; i++) {
        ts_release(group->member[i].held);
        ts_release(group->member[i].held_scale);
    }
    bands_after(job->bands, free_group, group);
}

void to_nvfp4_pass(struct to_nvfp4 *job, const struct member *member)
{
    if (member->held_scale)
        bands_pass_held(job->bands, member->held_scale);
    bands_pass_held(job->bands, member->held);
}

void to_nvfp4_run(struct to_nvfp4 *job, to_nvfp4_convert *convert, void *context)
{
    struct group *group = NULL; /* the open group */
    for (const struct tensor *tensor; (tensor = ts_next(job->in));) {
        size_t line = (size_t)(tensor - ts_toc(job->in)->tensor);
        uint32_t index = job->weights.of_line[line];
        if (index == WEIGHT_NONE || job->leader[index] == WEIGHT_NONE) {
            bands_pass_checked(job->bands, weight_of(&job->weights, line));
            continue;
        }
        if (!group)
            group = begin_group(job, job->leader[index]);
        hold_line(job, group, line);
        if (line == group->last) {
            end_group(job, group, convert, context);
            group = NULL;
        }
    }
    bands_end(job->bands);
}

/* ---- output ---- */

/* Each expert counts once, with the first of its matrices that the recipe makes NVFP4, also if
 * another shard has the others. */
static bool is_first_of_expert(const struct to_nvfp4 *job, const struct place *place)
{
    char module[TENSOR_NAME_MAX + 1];
    struct place before = *place;
    while (before.matrix--)
        if (model_module(ts_model(job->in), &before, module) &&
            recipe_choice(job->recipe, module).format == FORMAT_NVFP4)
            return false;
    return true;
}

void to_nvfp4_count(const struct to_nvfp4 *job, const struct member *member)
{
    const struct model *model = ts_model(job->in);
    const struct place *place = &member->w->place;
    ts_count(job->out, NULL, "weights", 1);
    if (place_is_routed(place) && is_first_of_expert(job, place))
        ts_count(job->out, "experts", model_classes(model)[model_expert_class(model, place)].key,
                 1);
}

static void put_scalar(struct to_nvfp4 *job, const struct member *member, const char *which,
                       float value)
{
    char *name = xprintf("%s.%s", member->w->module, which);
    bands_put(job->bands, name, &value, sizeof value);
    free(name);
}

void to_nvfp4_scales(struct to_nvfp4 *job, const struct group *group, const struct member *member,
                     float scale_2)
{
    float input_scale = nvfp4_scale_2(group->input_amax);
    if (input_scale == 0)
        die("%s: %s: its input amax of %g is too small for an input_scale; calibrate again",
            ts_name(job->in), member->w->module, group->input_amax);
    put_scalar(job, member, "input_scale", input_scale);
    put_scalar(job, member, "weight_scale_2", scale_2);
}

void to_nvfp4_bands(struct to_nvfp4 *job, const struct member *member, const char *which,
                    const struct band *like, uint64_t most, uint64_t raw_row, uint64_t out_row)
{
    char *name = xprintf("%s.%s", member->w->module, which);
    uint64_t all = weight_filled_rows(member->w), rows;
    if (!all)
        bands_put_empty(job->bands, name);
    for (uint64_t first = 0; first < all; first += rows) {
        rows = at_most(all - first, most);
        struct band *band = bands_next(job->bands, first ? NULL : name, (size_t)(rows * raw_row),
                                       (size_t)(rows * out_row));
        band->convert = like->convert;
        band->check = like->check;
        band->of = like->of;
        band->first = first;
        band->rows = rows;
        if (raw_row)
            bands_read_held(job->bands, member->held, first * raw_row);
        bands_submit(job->bands);
    }
    free(name);
}

void to_nvfp4_put_from(struct to_nvfp4 *job, const struct member *member, const char *which,
                       const void *data, size_t size)
{
    char *name = xprintf("%s.%s", member->w->module, which);
    bands_put_from(job->bands, name, data, size);
    free(name);
}

void to_nvfp4_finish(struct to_nvfp4 *job)
{
    bool none = !ts_counted(job->out, "weights") && !ts_plan_only(job->in);
    /* the rest of a run that died may have none */
    if (none && !ts_is_of_shards(job->in) && !job->quiet)
        warn("nothing to do: this part has no matrix that the recipe makes NVFP4");
    ts_finish(job->out, job->in,
              job->amaxes ? json_pack("{s:O}", "amax", amaxes_counts(job->amaxes)) : NULL);
    amaxes_free(job->amaxes);
    weights_free(&job->weights);
    toc_free(job->toc);
    recipe_free(job->recipe);
    free(job->selected);
    free(job->leader);
}
