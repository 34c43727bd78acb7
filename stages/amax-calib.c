/* amax-calib: run the model over calibration text as its weights arrive, and write the largest
 * magnitude of each quantized matrix and of its input. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/die.h"
#include "base/hub.h"
#include "base/json.h"
#include "base/output.h"
#include "base/version.h"
#include "forward/forward_options.h"
#include "forward/inputs.h"
#include "forward/resume.h"
#include "model/weights.h"
#include "quantize/amax.h"
#include "quantize/moments.h"
#include "quantize/recipe.h"

static const struct program program = {
    .about = "Run the model over samples of tokens, layer by layer as its weights arrive, and "
             "write the amaxes of its routed experts: the largest magnitude of "
             "each weight and of its input. Reads a tensor stream of weights from a file "
             "or standard input, or a checkpoint's folder.",
    .operands = {"[stream]", ""},
    .examples =
        {"amax-calib --tokens calib.ts DeepSeek-V4 | amax-merge --fallback layer-max >amax.ts",
         "amax-calib --tokens calib.ts --layers 0-1 --states-out 1.ts DeepSeek-V4 >first.ts"},
    .max_operands = 1,
};

struct options {
    const char *recipe, *resume, *moments;
    uint64_t keep_every;
    bool all_experts, headroom, no_keep, resume_keep, resume_discard;
    struct forward_options forward;
};

/* The amax stream is kept in memory until the end: only then its table is known. */
struct results {
    const struct stage *stage;
    const struct options *options;
    const struct forward *run;
    const struct tokens *tokens;
    const struct model *model;
    const struct recipe *recipe; /* or NULL */
    char *name; /* of the checkpoint's folder, for whoever looks at the amaxes later; or NULL */
    struct resume resume;
    struct scalars scalars;
    struct moments_writer *moments; /* NULL: not wanted */
};

/* ---- collecting ---- */

static void add_amax(struct results *r, const char *module, enum amax_which which, float amax)
{
    char *name = amax_name(r->model, module, which);
    scalars_add(&r->scalars, name, DTYPE_F32, &amax);
    free(name);
}

static bool quantizes(void *context, const char *module)
{
    const struct results *r = context;
    return r->recipe && recipe_needs_amax(r->recipe, module);
}

static void take_linear(void *context, const struct linear_seen *seen)
{
    struct results *r = context;
    if (!seen->expert && !quantizes(r, seen->module))
        return;
    if (seen->rows)
        add_amax(r, seen->module, AMAX_INPUT, seen->input_amax);
    if (seen->rows && seen->weighted)
        add_amax(r, seen->module, AMAX_ENGINE_INPUT, seen->unweighted_amax);
    if (seen->rows && r->options->headroom)
        add_amax(r, seen->module, AMAX_HEADROOM, seen->headroom_amax);
    if (seen->rows && r->options->headroom && seen->weighted)
        add_amax(r, seen->module, AMAX_ENGINE_HEADROOM, seen->unweighted_headroom_amax);
    if (seen->moments)
        moments_add(r->moments, seen->module, seen->moments, seen->cols);
    add_amax(r, seen->module, AMAX_WEIGHT, seen->weight_amax);
}

/* True for the first module of a group, whose input the others have, too. */
static bool is_first(const struct results *r, const char *module)
{
    struct place place = model_place(r->model, module), first;
    return !model_group_member(r->model, &place, 0, &first) || !place_compare(&place, &first);
}

static unsigned records(void *context, const char *module, bool expert)
{
    const struct results *r = context;
    unsigned kinds = r->options->headroom ? INPUTS_AMAXES : 0;
    if (!expert && !quantizes(context, module))
        return 0;
    return r->options->moments && is_first(r, module) ? kinds | INPUTS_MOMENTS : kinds;
}

static void take_routed(void *context, const char *expert, uint64_t tokens)
{
    struct results *r = context;
    int64_t count = (int64_t)tokens;
    char *name = xprintf("%s.tokens", expert);
    scalars_add(&r->scalars, name, DTYPE_I64, &count);
    free(name);
    if (!tokens && r->stage->verbose)
        warn("%s: no token reached it", expert);
}

static void take_states(void *context, const struct states *states)
{
    struct results *r = context;
    forward_options_states(&r->options->forward, r->stage, r->run, states);
    if (r->moments) /* before the layer counts as done */
        moments_flush(r->moments);
    resume_save(&r->resume, r->stage, states, &r->scalars);
}

static void take_end(void *context)
{
    const struct results *r = context;
    if (r->moments)
        moments_flush(r->moments); /* of the last drafts */
}

static void give_states(void *context, const struct states *states)
{
    const struct results *r = context;
    resume_states(&r->resume, r->run, states);
}

/* True if the run goes through the layer that the matrix is in. */
static bool is_run(const struct forward *run, const struct place *place)
{
    if (place->section == SECTION_MTP)
        return run->mtp;
    return place->section != SECTION_LAYERS ||
           (place->layer >= run->first && place->layer <= run->last);
}

static struct keeping keeping(const struct options *o)
{
    return (struct keeping){.every = o->keep_every, .never = o->no_keep};
}

/* What a run would record if every expert were reached, and keep meanwhile. */
static void plan(struct results *r, struct ts_in *in)
{
    struct weights weights;
    weights_find(&weights, r->model, ts_toc(in), ts_name(in));
    for (size_t i = 0; i < weights.count; i++) {
        const struct weight *w = &weights.weight[i];
        bool routed = place_is_routed(&w->place);
        char expert[TENSOR_NAME_MAX + 1];
        if (!is_run(r->run, &w->place) || !(routed || quantizes(r, w->module)))
            continue;
        bool last = routed && model_is_last_matrix(r->model, &w->place); /* w2 */
        take_linear(r, &(struct linear_seen){
                           .module = w->module, .expert = routed, .rows = 1, .weighted = last});
        if (last)
            take_routed(r, model_expert_path(r->model, &w->place, expert), 1);
    }
    weights_free(&weights);
    const struct keeping how = keeping(r->options);
    resume_plan(r->options->resume, r->run, &how, r->stage->quiet);
}

/* ---- beginning ---- */

/* The options that decide the result and the states file, as a text. */
static char *deciding_options(const struct results *r)
{
    const struct options *o = r->options;
    json_t *options =
        json_pack("{s:s, s:b, s:b, s:b, s:b, s:I, s:I, s:s*}", "version", SEEKPIPE_VERSION,
                  "all_experts", (int)o->all_experts, "headroom", (int)o->headroom, "moments",
                  o->moments != NULL, "mtp", (int)r->run->mtp, "first", (json_int_t)r->run->first,
                  "last", (json_int_t)r->run->last, "states_out", o->forward.states_out);
    if (!options)
        die("out of memory");
    char *text = json_text(options, false, true);
    json_decref(options);
    return text;
}

/* --recipe, or NULL. */
static struct recipe *open_recipe(const struct options *o, const struct stage *stage,
                                  struct ts_in *in)
{
    if (!o->recipe)
        return NULL;
    struct recipe *recipe = recipe_load(o->recipe, NULL, ts_model(in));
    recipe_check(recipe, ts_model(in), ts_toc(in), ts_is_whole(in), ts_name(in));
    json_object_set_new(stage->entry, "recipe", json_string(recipe_digest(recipe)));
    return recipe;
}

/* Where a resumed run begins. */
static void tell_resumed(const struct resume *resume, const struct forward *run)
{
    if (resume->finished)
        warn("%s: the calibration is finished; writing its result again", resume->file);
    else if (run->first < run->repeated)
        warn("%s: layers up to %" PRIu64 " are done; resuming after them, once samples %" PRIu64
             "-%" PRIu64 " have gone through layers %" PRIu64 "-%" PRIu64 " again",
             resume->file, run->repeated - 1, run->lagging, run->tokens->samples - 1, run->first,
             run->repeated - 1);
    else
        warn("%s: layers up to %" PRIu64 " are done; resuming after them", resume->file,
             run->repeated - 1);
}

/* Begin, or resume an interrupted run. */
static void resume(struct results *r, struct forward *run)
{
    char *options = deciding_options(r);
    const struct keeping how = keeping(r->options);
    resume_begin(&r->resume, r->options->resume, options, &how);
    free(options);
    if (!resume_load(&r->resume, run, &r->scalars))
        return;
    run->resume = give_states;
    if (!r->stage->quiet)
        tell_resumed(&r->resume, run);
}

/* ---- output ---- */

static void emit(struct results *r)
{
    const struct scalars *scalars = &r->scalars;
    json_int_t experts = 0, unreached = 0;
    for (size_t i = 0; i < scalars->toc->count; i++)
        if (scalars->toc->tensor[i].dtype == DTYPE_I64) { /* tokens of an expert */
            experts++;
            unreached += !scalars->value[i];
        }
    if (unreached && !r->stage->quiet)
        warn("no token reached %" PRId64 " of %" PRId64 " experts; amax-merge --fallback "
             "fills in for them",
             (int64_t)unreached, (int64_t)experts);
    struct ts_out *out = ts_create(r->stage, NULL, scalars->toc);
    if (!r->stage->plan)
        scalars_write(scalars, out);
    json_t *counts = json_pack("{s:I, s:I}", "experts", experts, "experts_unreached", unreached);
    json_object_update(counts, r->tokens->counts);
    if (r->name)
        json_object_set_new(counts, "model", json_string(r->name));
    ts_finish(out, NULL, counts);
}

/* --resume-discard */
static int discard(const struct options *o, struct stage *stage)
{
    if (!o->resume || o->forward.tokens || stage->operands)
        die_usage(
            "--resume-discard goes with --resume, which names the folder, and computes nothing");
    resume_discard(o->resume);
    return stage_end(stage);
}

static struct arg moments_arg(const char **to)
{
    return (struct arg){
        .name = "moments",
        .kind = ARG_TEXT,
        .to = to,
        .value = "dir",
        .help = "write second moments of the inputs to dir, for nvfp4-pack --scale-search hessian",
        .in = FORM(0),
        .silent = true};
}

static struct arg headroom_arg(bool *to)
{
    return (struct arg){.name = "headroom",
                        .to = to,
                        .help = "also record input amaxes with headroom, for amax-merge --headroom",
                        .in = FORM(0)};
}

static struct arg resume_arg(const char **to)
{
    return (struct arg){.name = "resume",
                        .kind = ARG_TEXT,
                        .to = to,
                        .value = "dir",
                        .help = "keep the calibration in dir, from which the same command resumes "
                                "after it was killed",
                        .required = FORM(1),
                        .silent = true};
}

static struct arg keep_every_arg(uint64_t *to)
{
    return (struct arg){.name = "keep-every",
                        .kind = ARG_NUMBER,
                        .to = to,
                        .value = "N",
                        .help = "keep hidden states after every N layers (default: as often as "
                                "fits in a tenth of the time)",
                        .in = FORM(0),
                        .silent = true};
}

static struct arg no_keep_arg(bool *to)
{
    return (struct arg){.name = "no-keep",
                        .to = to,
                        .help = "keep no hidden states, only what --resume-keep does",
                        .in = FORM(0),
                        .silent = true};
}

static void take_options(struct options *o, struct stage *stage, int argc, char **argv)
{
    const struct arg own[] = {
        {.name = "all-experts",
         .to = &o->all_experts,
         .help = "also send every token through every expert, for amaxes only",
         .in = FORM(0)},
        headroom_arg(&o->headroom),
        moments_arg(&o->moments),
        {.name = "recipe",
         .kind = ARG_TEXT,
         .to = &o->recipe,
         .value = "name",
         .help = "also calibrate the other matrices that this recipe quantizes: record their "
                 "amaxes, and do not round their inputs either",
         .in = FORM(0)},
        resume_arg(&o->resume),
        keep_every_arg(&o->keep_every),
        no_keep_arg(&o->no_keep),
        {.name = "resume-keep",
         .to = &o->resume_keep,
         .help = "keep the finished calibration in dir; the same command then writes it again "
                 "without computing",
         .in = FORM(0),
         .silent = true},
        {.name = "resume-discard",
         .to = &o->resume_discard,
         .help = "remove the checkpoint, and dir if it holds nothing else; compute nothing",
         .in = FORM(1),
         .required = FORM(1),
         .silent = true},
        {.name = "plan",
         .help = "write the table only, as if every expert were reached; compute nothing",
         .in = FORM(0)},
        {.name = "output", .in = FORM(0)},
        {.name = "progress", .in = FORM(0)},
        {.name = "quiet", .in = FORM(0)},
        {.name = "verbose",
         .help = "name the experts that no token reached, and print where time went",
         .in = FORM(0)},
        {0},
    };
    struct arg *args = forward_options_args(&o->forward, own, 0);
    stage_begin(stage, &program, args, argc, argv);
    free(args);
}

static void refuse_kept(const struct options *o, const char *file)
{
    if (o->resume && file && resume_keeps(o->resume, file))
        die_usage("%s: --resume keeps and removes files of such names there; name another file, or "
                  "another folder",
                  file);
}

static void refuse_among_moments(const struct options *o, const char *file)
{
    if (o->moments && file && output_is_in(file, o->moments))
        die_usage("%s: is in the folder of --moments, where all files are of moments; name another "
                  "file, or another folder",
                  file);
}

static void check_options(const struct options *o, const struct stage *stage)
{
    struct launch launch;
    if (o->resume && o->forward.states_in)
        die_usage(
            "--resume and --states-in exclude each other: --resume begins with states of its own");
    if (!o->resume && (o->keep_every || o->no_keep || o->resume_keep))
        die_usage("--keep-every, --no-keep and --resume-keep go with --resume: into which folder?");
    if (o->no_keep && (o->keep_every || !o->resume_keep))
        die_usage(o->keep_every ? "--no-keep and --keep-every exclude each other"
                                : "--resume with --no-keep keeps nothing: leave both out, or give "
                                  "--resume-keep, which keeps the finished calibration");
    if (!stage->output && isatty(STDOUT_FILENO)) /* not only after hours of work */
        die_usage("standard output is a terminal, and a tensor stream is binary; redirect it, or "
                  "use -o FILE");
    if (o->resume && launch_read(&launch))
        die_usage(
            "--resume does not go with several ranks: each has the states of its own samples");
    if (o->resume)
        output_check_folder(o->resume);
    refuse_kept(o, stage->output);
    refuse_kept(o, o->forward.states_out);
    refuse_kept(o, o->forward.tokens);
    if (o->moments)
        output_check_folder(o->moments);
    refuse_among_moments(o, stage->output);
    refuse_among_moments(o, o->forward.states_out);
}

/* What the run reports, and to whom. */
static void listen(struct forward *run, struct results *r)
{
    run->arithmetic = ARITHMETIC_CALIBRATION;
    run->all_experts = r->options->all_experts;
    run->context = r;
    run->quantizes = quantizes;
    run->recipe = r->recipe ? recipe_digest(r->recipe) : NULL;
    run->records = r->options->headroom || r->options->moments ? records : NULL;
    run->linear = take_linear;
    run->routed = take_routed;
    run->reported = take_end;
    run->states = take_states;
    if (r->options->moments && !r->stage->plan && !ranks_rank(run->ranks))
        r->moments = moments_writer_new(r->options->moments, r->model, r->stage);
}

int main(int argc, char **argv)
{
    struct options o = {0};
    struct stage stage;
    struct forward run;
    struct tokens tokens;
    take_options(&o, &stage, argc, argv);
    if (o.resume_discard)
        return discard(&o, &stage);
    check_options(&o, &stage);
    forward_options_open(&o.forward, &stage, &run, &tokens, 1);
    const struct model *model = ts_model(run.in);
    struct recipe *recipe = open_recipe(&o, &stage, run.in);
    struct results results = {
        .stage = &stage,
        .options = &o,
        .run = &run,
        .tokens = &tokens,
        .model = model,
        .recipe = recipe,
        .name = hub_label(json_string_value(json_object_get(ts_header(run.in), "source")))};
    scalars_begin(&results.scalars, "amax.safetensors");
    listen(&run, &results);
    if (stage.plan)
        plan(&results, run.in);
    else
        resume(&results, &run);
    forward_options_run(&run);
    if (o.resume_keep)
        resume_finish(&results.resume, &stage, &results.scalars);
    if (!ranks_rank(run.ranks))
        emit(&results);
    forward_options_close(&run);
    tokens_free(&tokens);
    scalars_free(&results.scalars);
    moments_writer_free(results.moments);
    recipe_free(recipe);
    free(results.name);
    int code = stage_end(&stage);
    resume_end(&results.resume); /* the output is complete */
    return code;
}
