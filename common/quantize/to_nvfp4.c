#include "quantize/to_nvfp4.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/digest.h"
#include "base/ordered_pool.h"
#include "quantize/recipe.h"
#include "tensor/nvfp4.h"

/* ---- the plan ---- */

static uint32_t partner_of(struct to_nvfp4 *job, const struct weight *w)
{
    char module[TENSOR_NAME_MAX + 1], partner[TENSOR_NAME_MAX + 1];
    struct toc *toc = ts_toc(job->in);
    if (!ts_model(job->in)->fused(weight_module(&toc->tensor[w->line], module), partner))
        return WEIGHT_NONE;
    char *name = xprintf("%s.weight", partner);
    int64_t line = toc_find(toc, name);
    if (line < 0)
        die("%s: %s: its partner %s, with which it shares weight_scale_2, is not in the stream; "
            "st-read takes it along also for a part",
            ts_name(job->in), toc->tensor[w->line].name, name);
    if (job->weights.of_line[line] == WEIGHT_NONE)
        die("%s: %s: its partner %s is no matrix of a known format", ts_name(job->in),
            toc->tensor[w->line].name, name);
    free(name);
    return job->weights.of_line[line];
}

static size_t first_line(const struct weight *w)
{
    return w->scale != WEIGHT_NONE && w->scale < w->line ? w->scale : w->line;
}

/* Two halves must be alike, both be wanted, and follow each other: what is held is then one group
 * at most. */
static void check_pair(struct to_nvfp4 *job, uint32_t a, uint32_t b)
{
    const struct toc *toc = ts_toc(job->in);
    const struct weight *x = &job->weights.weight[a], *y = &job->weights.weight[b];
    const struct weight *low = x->line < y->line ? x : y, *high = low == x ? y : x;
    if (first_line(high) != low->line + 1)
        die("%s: %s does not follow %s directly; the stream is out of order (st-read makes it "
            "right)",
            ts_name(job->in), toc->tensor[high->line].name, toc->tensor[low->line].name);
    if (low->format != high->format)
        die("%s: %s is %s, but %s, its partner, is %s", ts_name(job->in),
            toc->tensor[low->line].name, format_name(low->format), toc->tensor[high->line].name,
            format_name(high->format));
    if (!job->selected[b] && !toc->tensor[y->line].context)
        die("%s: the recipe names %s, but not %s, with which it shares weight_scale_2; name both",
            ts_name(job->in), toc->tensor[x->line].name, toc->tensor[y->line].name);
}

static void select_weights(struct to_nvfp4 *job, const bool *convertible)
{
    const struct toc *toc = ts_toc(job->in);
    struct weights *weights = &job->weights;
    job->selected = xalloc(weights->count, sizeof *job->selected);
    job->partner = xgrow(NULL, weights->count, sizeof *job->partner);
    for (size_t i = 0; i < weights->count; i++) {
        const struct weight *w = &weights->weight[i];
        const struct tensor *tensor = &toc->tensor[w->line];
        char module[TENSOR_NAME_MAX + 1];
        job->partner[i] = WEIGHT_NONE;
        job->selected[i] = convertible[w->format] && !tensor->context &&
                           recipe_is_nvfp4(job->recipe, weight_module(tensor, module));
        if (job->selected[i] && w->cols % NVFP4_BLOCK)
            die("%s: %s: %" PRIu64 " columns, which is no multiple of NVFP4's block of %d",
                ts_name(job->in), tensor->name, w->cols, NVFP4_BLOCK);
    }
    for (size_t i = 0; i < weights->count; i++)
        if (job->selected[i])
            job->partner[i] = partner_of(job, &weights->weight[i]);
    for (size_t i = 0; i < weights->count; i++)
        if (job->partner[i] != WEIGHT_NONE) {
            check_pair(job, (uint32_t)i, job->partner[i]);
            job->partner[job->partner[i]] = (uint32_t)i; /* of a half that is context, too */
        }
}

static float input_amax(struct to_nvfp4 *job, const struct weight *w)
{
    char module[TENSOR_NAME_MAX + 1];
    float amax = 0;
    const struct tensor *tensor = &ts_toc(job->in)->tensor[w->line];
    if (job->amaxes && !amaxes_find(job->amaxes, weight_module(tensor, module), AMAX_INPUT, &amax))
        die("%s: %s has no input amax: no calibration token reached it; amax-merge --fallback "
            "layer-max fills in",
            ts_name(job->in), module);
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
            continue; /* the old scale goes */
        (void)input_amax(job, w);
        struct tensor line = in->tensor[i];
        line.shard = toc_shard(out, in->shard[line.shard]);
        char module[TENSOR_NAME_MAX + 1];
        weight_module(&line, module);
        static const char *const scalars[] = {"input_scale", "weight_scale_2"};
        for (size_t j = 0; j < 2; j++) {
            char *name = xprintf("%s.%s", module, scalars[j]);
            toc_derive(out, &line, name, DTYPE_F32, 0, NULL);
            free(name);
        }
        char *name = xprintf("%s.weight_scale", module);
        toc_derive(out, &line, name, DTYPE_F8_E4M3, 2,
                   (const uint64_t[]){w->rows, w->cols / NVFP4_BLOCK});
        free(name);
        toc_derive(out, &line, line.name, DTYPE_U8, 2, (const uint64_t[]){w->rows, w->cols / 2});
    }
}

static uint64_t read_hash_layers(struct ts_in *in)
{
    const char *key = ts_model(in)->hash_layers_key;
    json_t *config = key ? ts_file_json(in, "config.json") : NULL;
    json_int_t layers = json_integer_value(json_object_get(config, key ? key : ""));
    json_decref(config);
    return layers > 0 ? (uint64_t)layers : 0;
}

void to_nvfp4_begin(struct to_nvfp4 *job, const struct stage *stage,
                    const struct to_nvfp4_options *options, const bool *convertible)
{
    *job = (struct to_nvfp4){.quiet = stage->quiet, .codec = codec_chosen(options->cpu)};
    unsigned threads = ordered_pool_threads(options->threads);
    if (!options->amax && !stage->plan)
        die_usage("--amax FILE is needed: the input scales come from a calibration");
    char hex[DIGEST_TEXT];
    job->amaxes = options->amax ? amaxes_load(options->amax) : NULL;
    if (job->amaxes)
        json_object_set_new(stage->entry, "amax", json_string(amaxes_digest(job->amaxes, hex)));
    job->in = ts_open(stage_input(stage), stage);
    json_t *header = ts_header(job->in);
    job->recipe =
        recipe_load(options->recipe, json_string_value(json_object_get(header, "model_type")));
    weights_find(&job->weights, ts_toc(job->in), ts_name(job->in));
    select_weights(job, convertible);
    plan(job);
    json_t *quant = json_object_get(header, "quant");
    static const char *const keys[] = {"producer", "kv_cache_quant_algo", "exclude_modules"};
    json_object_set(quant, "recipe", json_object_get(job->recipe, "name"));
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        json_object_set(quant, keys[i], json_object_get(job->recipe, keys[i]));
    job->hash_layers = read_hash_layers(job->in);
    job->out = ts_create(stage, job->in, job->toc);
    job->bands = bands_begin(job->out, job->in, threads, ORDERED_POOL_SLACK + options->ahead);
}

/* ---- the run ---- */

static void add_member(struct to_nvfp4 *job, struct group *group, uint32_t index)
{
    struct member *member = &group->member[group->members++];
    *member = (struct member){.w = &job->weights.weight[index]};
    member->tensor = &ts_toc(job->in)->tensor[member->w->line];
    weight_module(member->tensor, member->module);
    if (first_line(member->w) < group->first)
        group->first = first_line(member->w);
    if (member->w->line > group->last)
        group->last = member->w->line;
    float amax = input_amax(job, member->w);
    if (amax > group->input_amax)
        group->input_amax = amax;
}

static struct group *begin_group(struct to_nvfp4 *job, uint32_t index)
{
    struct group *group = xalloc(1, sizeof *group);
    group->first = SIZE_MAX;
    add_member(job, group, index);
    if (job->partner[index] != WEIGHT_NONE)
        add_member(job, group, job->partner[index]);
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
    struct group *group = NULL; /* that is open */
    for (const struct tensor *tensor; (tensor = ts_next(job->in));) {
        size_t line = (size_t)(tensor - ts_toc(job->in)->tensor);
        uint32_t index = job->weights.of_line[line];
        bool grouped =
            index != WEIGHT_NONE && (job->selected[index] || job->partner[index] != WEIGHT_NONE);
        if (!grouped) {
            bands_pass(job->bands);
            continue;
        }
        if (!group)
            group = begin_group(job, index);
        hold_line(job, group, line);
        if (line == group->last) {
            end_group(job, group, convert, context);
            group = NULL;
        }
    }
    bands_end(job->bands);
}

/* ---- output ---- */

static void count_member(struct to_nvfp4 *job, const struct member *member)
{
    char experts[TENSOR_NAME_MAX + 1], projection[TENSOR_NAME_MAX + 1];
    uint32_t layer, number;
    bool mtp;
    job->tally.weights++;
    if (!ts_model(job->in)->expert(member->module, experts, projection, &layer, &number, &mtp))
        return;
    size_t length = strlen(member->module) - strlen(projection);
    if (!strncmp(job->tally.last, member->module, length) && !job->tally.last[length])
        return; /* another matrix of the same expert */
    memcpy(job->tally.last, member->module, length);
    job->tally.last[length] = 0;
    if (mtp)
        job->tally.mtp++;
    else if (layer < job->hash_layers)
        job->tally.hash++;
    else
        job->tally.score++;
}

static void put_scalar(struct to_nvfp4 *job, const struct member *member, const char *which,
                       float value)
{
    char *name = xprintf("%s.%s", member->module, which);
    bands_put(job->bands, name, &value, sizeof value);
    free(name);
}

void to_nvfp4_scales(struct to_nvfp4 *job, const struct group *group, const struct member *member,
                     float scale_2)
{
    float input_scale = nvfp4_scale_2(group->input_amax);
    if (input_scale == 0)
        die("%s: %s: its input amax of %g is too small for an input_scale; calibrate again",
            ts_name(job->in), member->module, (double)group->input_amax);
    put_scalar(job, member, "input_scale", input_scale);
    put_scalar(job, member, "weight_scale_2", scale_2);
    count_member(job, member);
}

void to_nvfp4_bands(struct to_nvfp4 *job, const struct member *member, const char *which,
                    const struct band *like, uint64_t most, uint64_t raw_row, uint64_t out_row)
{
    char *name = xprintf("%s.%s", member->module, which);
    uint64_t first = 0, rows;
    do { /* at least one: a tensor may be empty */
        rows = member->w->rows - first < most ? member->w->rows - first : most;
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
        first += rows;
    } while (first < member->w->rows);
    free(name);
}

void to_nvfp4_put_from(struct to_nvfp4 *job, const struct member *member, const char *which,
                       const void *data, size_t size)
{
    char *name = xprintf("%s.%s", member->module, which);
    bands_put_from(job->bands, name, data, size);
    free(name);
}

void to_nvfp4_finish(struct to_nvfp4 *job, json_t *counts)
{
    json_object_set_new(counts, "weights", json_integer((json_int_t)job->tally.weights));
    json_object_set_new(counts, "experts",
                        json_pack("{s:I, s:I, s:I}", "hash", (json_int_t)job->tally.hash, "score",
                                  (json_int_t)job->tally.score, "mtp", (json_int_t)job->tally.mtp));
    if (job->amaxes)
        json_object_set(counts, "amax", (json_t *)amaxes_counts(job->amaxes));
    if (!job->tally.weights && !ts_plan_only(job->in) && !job->quiet)
        warn("nothing to do: the recipe names no matrix of this stream that could become NVFP4");
    ts_finish(job->out, job->in, counts);
    amaxes_free(job->amaxes);
    weights_free(&job->weights);
    toc_free(job->toc);
    json_decref(job->recipe);
    free(job->selected);
    free(job->partner);
}
