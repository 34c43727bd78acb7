/* amax-merge: merge calibration dumps into the amaxes that the quantizing stages read. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/output.h"
#include "quantize/amax_fill.h"
#include "quantize/amax_reader.h"
#include "quantize/amax_share.h"
#include "quantize/amax_summary.h"
#include "quantize/effective.h"

static const struct program program = {
    .about = "Merge the amaxes of several ranks (pt-read, amax-calib), choose those of w2's input "
             "that engines need, let w1 and w3 of an expert share the larger, and fill in amaxes "
             "of experts that no calibration token reached. "
             "Of a checkpoint in NVFP4, take the amaxes that its input scales stand for.",
    .operands = {"[stream ...]", ""},
    .examples = {"pt-read dumps/ | amax-merge --model DeepSeek-V4 --fallback layer-max >amax.ts",
                 "amax-merge --summary summary.txt rank0.ts rank1.ts >amax.ts",
                 "amax-merge --model DeepSeek-V4 DeepSeek-V4-NVFP4 >amax.ts",
                 "amax-merge --model DeepSeek-V4 --input-scale 1 >amax.ts"},
    .max_operands = ANY_OPERANDS,
};

struct options {
    const char *drafts, *model, *summary;
    bool json, peer_max, tsv;
    enum report form;          /* of the summary */
    struct amax_reader reader; /* which amaxes are read; its table is main's */
    struct amax_rules rules;   /* how they are filled in */
};

/* The output's history continues the first stream's; this program's entry keeps the others'. */
static void keep_history(const struct stage *stage, struct ts_in *in)
{
    json_t *streams = json_object_get(stage->entry, "with");
    if (!streams)
        json_object_set_new(stage->entry, "with", streams = json_array());
    json_array_append_new(streams, json_pack("{s:O, s:O*}", "history",
                                             json_object_get(ts_header(in), "history"), "counts",
                                             ts_end_counts(in)));
}

/* Returns the first one, still open. */
static struct ts_in *read_all(struct amax_reader *reader, struct stage *stage)
{
    struct amax_table *table = reader->table;
    size_t streams = stage->operands ? (size_t)stage->operands : 1, shards = 0;
    char **shard = NULL;
    struct ts_in *first = NULL;
    for (size_t i = 0; i < streams; i++) {
        const char *path = stage->operands ? stage->operand[i] : NULL;
        /* For a plan, too, values are read if they are there: they decide what is filled in. */
        struct ts_in *in = ts_open(path && strcmp(path, "-") != 0 ? path : NULL, NULL);
        if (!table->model)
            table->model = model_open(model_guess(ts_toc(in)), NULL);
        amax_reader_take(reader, in, stage->plan);
        struct toc *toc = ts_toc(in);
        shard = xgrow(shard, shards + toc->shards, sizeof *shard);
        for (size_t j = 0; j < toc->shards; j++)
            shard[shards++] = xstrdup(toc->shard[j]);
        if (i == 0) {
            first = in;
            continue;
        }
        keep_history(stage, in);
        ts_close(in);
    }
    amax_reader_check(reader, shard, shards);
    for (size_t i = 0; i < shards; i++)
        free(shard[i]);
    free(shard);
    return first;
}

/* What engines make of a calibration's input amaxes. */
static json_t *effective_of(const struct amax_table *table)
{
    struct effective *effective = effective_new(table->model);
    for (size_t i = 0; i < table->count; i++) {
        const struct amax_entry *entry = &table->entry[i];
        if (!entry->is_tokens && entry->which == AMAX_INPUT)
            effective_add(effective, &entry->place, entry->amax);
    }
    json_t *scales = effective_scales(effective);
    effective_free(effective);
    return scales;
}

static void write_entries(struct ts_out *out, const struct amax_table *table)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct amax_entry *entry = &table->entry[i];
        float amax = (float)entry->amax;
        if (entry->is_tokens)
            ts_put(out, amax_table_name(table, entry), &entry->tokens, sizeof entry->tokens);
        else if (table->exact)
            ts_put(out, amax_table_name(table, entry), &entry->amax, sizeof entry->amax);
        else
            ts_put(out, amax_table_name(table, entry), &amax, sizeof amax);
    }
}

/* A checkpoint's model, which outlives its stream. */
static struct model *reopened(struct ts_in *in)
{
    json_t *config = ts_file_json(in, "config.json");
    struct model *model = model_open(model_own_type(ts_model(in)), config);
    json_decref(config);
    return model;
}

/* What people should know of the amaxes that were read and filled in. */
static void tell(const struct amax_reader *r, const struct amax_rules *rules,
                 const struct amax_filled *filled)
{
    if (r->one && strcmp(r->one_is, r->w2) != 0)
        warn("--w2 %s: of w2's inputs, %" PRIu64 " have amaxes %s the router's weight only, which "
             "are used as they are; amax-calib records both",
             r->w2, r->one, strcmp(r->w2, "engine") ? "without" : "with");
    if (r->raw)
        warn("%" PRIu64 " weight amaxes are 448, those of FP8 codes without their scales, as Model "
             "Optimizer 0.45 to 0.47 has them; the weights' own count instead (--trust-weight-amax "
             "keeps them)",
             r->raw);
    if (filled->experts)
        warn("%" PRIu64 " input amaxes of experts never reached were filled in by %s",
             filled->experts, rules->fallback);
    if (filled->drafts)
        warn("%" PRIu64 " input amaxes of drafts, which were not calibrated, were filled in from "
             "the last layer's by %s",
             filled->drafts, rules->fallback);
}

static void check_options(struct options *o, const struct stage *stage)
{
    if (o->rules.coverage > 100)
        die_usage("--coverage: at most 100 percent");
    o->form = report_form(o->tsv, o->json);
    if (o->form != REPORT_TEXT && !o->summary)
        die_usage("--json and --tsv are forms of the --summary; name its file");
    if (o->rules.input_scale == 0)
        return;
    if (!o->model || stage->operands)
        die_usage("--input-scale needs --model, and takes no stream");
    if (o->rules.coverage || o->reader.headroom || o->peer_max ||
        strcmp(o->rules.fallback, "none") != 0)
        die_usage("--coverage, --fallback, --headroom and --peer-max are for calibrations; not "
                  "with --input-scale");
}

static struct arg w2_arg(const char **to)
{
    return (struct arg){
        .name = "w2",
        .kind = ARG_CHOICE,
        .to = to,
        .value = "which",
        .choices = "engine|reference",
        .help = "of the two amaxes of w2's input that amax-calib records: engine (default), "
                "without the router's weight, which engines multiply in after w2; reference, with "
                "it, as Model Optimizer has them",
        .in = FORM(0)};
}

static struct arg trust_arg(bool *to)
{
    return (struct arg){
        .name = "trust-weight-amax",
        .to = to,
        .help = "keep weight amaxes of 448, which are those of FP8 codes without their scales",
        .in = FORM(0)};
}

static struct arg headroom_arg(bool *to)
{
    return (struct arg){
        .name = "headroom",
        .to = to,
        .help = "take the input amaxes with room above the calibration's largest inputs, which "
                "amax-calib --headroom recorded",
        .in = FORM(0)};
}

static struct arg peer_max_arg(bool *to)
{
    return (struct arg){.name = "peer-max",
                        .to = to,
                        .help =
                            "all experts of a layer share the layer's input amax of a projection",
                        .in = FORM(0)};
}

static struct arg json_arg(bool *to)
{
    return (struct arg){.name = "json",
                        .to = to,
                        .help = "write the summary as lines of JSON: of quantizers name, format, "
                                "amax, filled, and of the digest",
                        .silent = true};
}

static struct arg tsv_arg(bool *to)
{
    return (struct arg){.name = "tsv",
                        .to = to,
                        .help = "the same as --json, tab-separated",
                        .or_previous = true,
                        .silent = true};
}

static void take_options(struct options *o, struct stage *stage, int argc, char **argv)
{
    const struct arg args[] = {
        {.name = "coverage",
         .kind = ARG_NUMBER,
         .to = &o->rules.coverage,
         .value = "percent",
         .help = "the share of each layer's experts that must have input amaxes of their own; "
                 "fewer are an error (default: 0)",
         .in = FORM(0),
         .silent = true},
        recipe_drafts_arg(&o->drafts),
        {.name = "fallback",
         .kind = ARG_CHOICE,
         .to = &o->rules.fallback,
         .value = "rule",
         .choices = "none|layer-max|projection-max",
         .help = "the input amax of an expert never reached: none, that is an error (default); "
                 "layer-max, the largest of its projection in its layer; projection-max, the "
                 "largest of its projection in all layers but MTP (Model Optimizer's rule for V4)",
         .in = FORM(0)},
        headroom_arg(&o->reader.headroom),
        {.name = "input-scale",
         .kind = ARG_REAL,
         .to = &o->rules.input_scale,
         .value = "N",
         .help = "no calibration: N is the input scale of all that the recipe names in the "
                 "checkpoint; with 1, engines quantize activations by their blocks alone",
         .in = FORM(1),
         .required = FORM(1)},
        json_arg(&o->json),
        tsv_arg(&o->tsv),
        {.name = "model",
         .kind = ARG_INPUT,
         .to = &o->model,
         .value = "dir",
         .help = "the checkpoint: every matrix that the recipe names needs an amax. Without it, "
                 "every layer that occurs needs experts 0 to the last one seen",
         .required = FORM(1),
         .silent = true},
        peer_max_arg(&o->peer_max),
        {.name = "recipe",
         .kind = ARG_TEXT,
         .to = &o->rules.recipe,
         .value = "name",
         .help = "which matrices of the checkpoint count (default: experts)"},
        {.name = "summary",
         .kind = ARG_OUTPUT,
         .to = &o->summary,
         .value = "file",
         .help = "a line per quantizer, and a digest per layer",
         .silent = true},
        trust_arg(&o->reader.trust),
        w2_arg(&o->reader.w2),
        {.name = "plan", .help = "write the table only, no values"},
        {.name = "verbose", .help = "name each expert whose amax was filled in"},
        {0},
    };
    stage_begin(stage, &program, args, argc, argv);
}

/* The counts of the stream's end. */
static json_t *counts_of(const struct options *o, const struct amax_table *table, uint64_t fused,
                         const struct amax_filled *filled, bool plan)
{
    const float scale = o->rules.input_scale;
    return json_pack("{s:I, s:I, s:I, s:I, s:s, s:s*, s:o*, s:s*, s:o*, s:o*}", "amaxes",
                     (json_int_t)table->count, "fused", (json_int_t)fused, "input_fallback",
                     (json_int_t)filled->experts, "drafts_fallback", (json_int_t)filled->drafts,
                     "fallback", o->rules.fallback, "w2", amax_reader_w2(&o->reader), "input_scale",
                     scale > 0 ? json_real(scale) : NULL, "from",
                     table->exact && scale == 0 ? "checkpoint" : NULL, "headroom",
                     o->reader.headroom ? json_true() : NULL, "input_scales",
                     plan || scale > 0 ? NULL : effective_of(table));
}

int main(int argc, char **argv)
{
    struct options o = {.reader = {.w2 = "engine", .one_is = "reference"},
                        .rules = {.fallback = "none", .recipe = "experts"}};
    struct stage stage;
    struct amax_table table;
    take_options(&o, &stage, argc, argv);
    check_options(&o, &stage);
    o.rules.verbose = stage.verbose;
    o.reader.table = &table;
    struct ts_in *model = o.model ? ts_open(o.model, NULL) : NULL;
    amax_table_init(&table);
    if (model) {
        table.model = reopened(model);
        table.recipe = recipe_load(o.rules.recipe, o.drafts, table.model);
        recipe_record(table.recipe, stage.entry);
    }
    table.exact = o.rules.input_scale > 0;
    struct ts_in *in = o.rules.input_scale > 0 ? NULL : read_all(&o.reader, &stage);
    uint64_t fused = amax_share_groups(&table);
    amax_find_largest(&table);
    const char *name = in ? ts_name(in) : "--input-scale";
    struct amax_filled filled = amax_fill(&table, &o.rules, model, name);
    if (model)
        ts_close(model);     /* frees memory before sorting */
    if (in && table.exact) { /* the output is no checkpoint */
        ts_close(in);
        in = NULL;
    }
    if (o.peer_max)
        amax_share_largest(&table);
    amax_table_sort(&table);
    struct output summary;
    bool summarize = o.summary && !stage.plan;
    if (summarize)
        amax_summary_write(&summary, o.summary, o.form, &table);
    if (!stage.quiet)
        tell(&o.reader, &o.rules, &filled);

    struct ts_out *out = ts_create(&stage, in, table.toc);
    if (!stage.plan)
        write_entries(out, &table);
    ts_finish(out, in, counts_of(&o, &table, fused, &filled, stage.plan));
    if (summarize)
        output_finish(&summary);
    amax_table_free(&table);
    return stage_end(&stage);
}
