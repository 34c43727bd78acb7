/* st-write: convert a tensor stream to a checkpoint. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/die.h"
#include "base/json.h"
#include "base/progress.h"
#include "base/text.h"
#include "report/report.h"
#include "stream/ts.h"
#include "tensor/weight.h"
#include "write/answers.h"
#include "write/card.h"
#include "write/completed.h"
#include "write/config.h"
#include "write/copy.h"
#include "write/fit.h"
#include "write/incoming.h"
#include "write/join.h"
#include "write/last_look.h"
#include "write/output_dir.h"
#include "write/output_names.h"
#include "write/part_folder.h"
#include "write/parts.h"
#include "write/rest.h"
#include "write/run_record.h"
#include "write/shards.h"
#include "write/side_files.h"
#include "write/summary.h"

static const struct program program = {
    .about = "Write a tensor stream as a checkpoint: safetensors shards under their own "
             "names, the index, config.json and hf_quant_config.json for the formats in the "
             "stream, and all side files. References are copied inside the kernel, or shared with "
             "the source where the filesystem can. Everything is built in dir.partial; dir appears "
             "when it is complete and on disk. The same command continues a run that died.",
    .operands = {"dir [stream]", "dir", "dir"},
    .examples = {"st-read DeepSeek-V4 | nvfp4-cast --amax amax.ts | st-write DeepSeek-V4-NVFP4",
                 "st-write -n DeepSeek-V4-bf16 bf16.ts", "st-write --state DeepSeek-V4-NVFP4"},
    .max_operands = 2,
};

/* What README.md and the report say besides what the stream says; NULL where nothing is given. */
struct said {
    char *lines;       /* of --measured */
    json_t *figures;   /* of --report */
    struct maps *maps; /* of --amax */
};

struct options {
    bool join, json, no_share, overwrite, part, partial, state, todo, verify;
    struct arg_pair todo_part;
    const char *amax, *measured, *report;
    struct said *said;
    double start; /* of the run */
};

/* ---- the work ---- */

/* Write all tensors, to the proven end of the stream. */
static void write_tensors(struct ts_in *in, struct output_dir *output, const struct toc *toc,
                          struct shards *shards)
{
    uint32_t *line = toc_lines_in(ts_toc(in), toc);
    for (const struct tensor *tensor; (tensor = ts_next(in));)
        if (!tensor->context)
            shards_write(shards, output, in, line[tensor - ts_toc(in)->tensor]);
    free(line);
    shards_end(shards, output, in);
    incoming_refuse_plan(in);
    size_t missing = shards_missing(shards);
    if (missing)
        die("%s: %zu shards are still missing, which the stream does not bring; st-write --todo "
            "names them",
            output->partial, missing);
}

/* A page about a converted checkpoint, for people. */
static char *page_text(const struct rest *rest, const json_t *counts, const json_t *record,
                       const struct summary *s, const struct options *o)
{
    const struct report report = {.maps = o->said->maps,
                                  .measured = o->said->figures,
                                  .counts = counts,
                                  .input = json_object_get(ts_header(rest->in), "input"),
                                  .record = record,
                                  .step = o->join ? "join the parts" : "convert and write",
                                  .seconds = now() - o->start,
                                  .bytes = o->join ? 0 : s->file_bytes,
                                  .finished = s->finished};
    return report_page(&report, rest->in, rest->toc, rest->configs);
}

/* Write everything but shards. `rest` lacks what is made from it. */
static void write_rest(struct rest rest, struct output_dir *output, const json_t *counts,
                       const struct summary *s, const struct options *o, const struct stage *stage)
{
    json_t *record = run_record_of(rest.in, stage);
    char *readme = NULL, *page = NULL;
    if (rest.configs->converted) {
        readme = card_text(&(struct card){counts, o->said->lines}, rest.in, rest.toc, rest.configs);
        page = page_text(&rest, counts, record, s, o);
    }
    rest.record = record;
    rest.readme = readme;
    rest.page = page;
    rest_write(&rest, output);
    json_decref(record);
    free(readme);
    free(page);
}

/* What is known before the first byte, of a checkpoint that will be `whole`, or of a part. */
static struct summary summary_of(struct ts_in *in, struct toc *toc, const struct shards *shards,
                                 const struct configs *configs, const struct output_dir *output,
                                 bool whole)
{
    return (struct summary){.input = json_incref(json_object_get(ts_header(in), "input")),
                            .output = formats_totals(toc),
                            .notes = summary_notes(in, configs, toc),
                            .engines = summary_engines(configs, whole),
                            .classes = model_classes(ts_model(in)),
                            .file_bytes = shards_bytes(shards),
                            .free_bytes = output_dir_free_bytes(output),
                            .shards = shards_missing(shards)};
}

/* What a run makes of a stream. */
struct work {
    struct toc *toc; /* the whole table: the stream may have only the missing shards */
    struct copier copier;
    struct shards *shards;
    struct configs configs;
    struct summary summary;
};

/* Lay out all files: everything that is known before the first byte. The table is in *work. */
static void lay_out(struct work *work, struct ts_in *in, const struct output_dir *output,
                    const struct options *o)
{
    bool whole = ts_is_whole(in) || (!o->part && !o->partial); /* or what is left of it */
    work->copier = (struct copier){.no_share = o->no_share};
    work->shards = shards_plan(work->toc, in, &work->copier);
    configs_derive(&work->configs, in, work->toc);
    output_names_check(work->shards, in, &work->configs);
    work->summary = summary_of(in, work->toc, work->shards, &work->configs, output, whole);
    work->summary.folders = ts_folders(in);
}

/* Print the summary, and free it. */
static void say(struct summary *s, const char *path, const struct options *o,
                const struct stage *stage)
{
    s->seconds = now() - o->start;
    json_t *document = summary_document(s, stage->plan);
    if (o->json) {
        json_print(stdout, document, true);
        putchar('\n');
    } else if (stage->plan)
        summary_print_plan(stdout, document, path);
    if (!stage->plan && !stage->quiet)
        summary_print(stderr, document, path, stage->verbose);
    json_decref(document);
    summary_free(s);
}

/* With -n: print the plan. Closes the stream. */
static void plan_stream(struct ts_in *in, struct output_dir *output, const struct options *o,
                        const struct stage *stage)
{
    struct work work = {.toc = ts_toc(in)};
    char hex[DIGEST_TEXT];
    const char *identity = incoming_identity(in, stage, hex);
    if (o->part) {
        part_folder_plan(output, in, identity);
    } else {
        part_folder_refuse(output);
        output_dir_plan(output, identity, work.toc);
    }
    incoming_check(in, o->part, o->partial, false);
    lay_out(&work, in, output, o);
    char *shortage = fit_shortage(work.shards, output, in, work.summary.free_bytes, o->no_share);
    while (ts_next(in))
        continue;
    work.summary.counts = json_deep_copy(ts_end_counts(in));
    shards_free(work.shards);
    configs_free(&work.configs);
    ts_close(in);
    say(&work.summary, output->path, o, stage);
    if (shortage && !fflush(stdout))
        die("%s", shortage);
}

/* Write all shards, and unless it is a part, what belongs to them; and look at them again. */
static void write_files(struct work *work, struct ts_in *in, struct output_dir *output,
                        const struct options *o, const struct stage *stage)
{
    struct summary *s = &work->summary;
    struct rest rest = {
        .in = in, .toc = work->toc, .configs = &work->configs, .copier = &work->copier};
    write_tensors(in, output, work->toc, work->shards);
    if (o->verify)
        shards_verify(work->shards, output, in);
    const json_t *counts = ts_end_counts(in);
    if (!o->part)
        write_rest(rest, output, counts, s, o, stage);
    s->counts = json_deep_copy(counts);
    last_look(work->shards, output, in, o->part, &s->counts);
    s->shared = work->copier.shared;
    s->copied = work->copier.copied;
    s->written = work->copier.written;
    s->verified = o->verify;
}

/* Write a stream to a folder. Closes the stream. */
static void write_stream(struct ts_in *in, struct output_dir *output, const struct options *o,
                         const struct stage *stage)
{
    struct work work = {.toc = ts_toc(in)};
    char hex[DIGEST_TEXT];
    const char *identity = incoming_identity(in, stage, hex);
    if (!o->part)
        part_folder_refuse(output);
    if (output_dir_was_done(output, identity, work.toc)) {
        warn("%s: an earlier run had completed it but for its journal", output->path);
        ts_close(in);
        return;
    }
    bool continued = output_dir_resume(output, identity, work.toc);
    incoming_check(in, o->part, o->partial, continued);
    if (continued)
        work.toc = output->journal.toc;
    lay_out(&work, in, output, o);
    struct summary *s = &work.summary;
    if (continued)
        s->finished = shards_resume(work.shards, output);
    char *shortage = fit_shortage(work.shards, output, in, s->free_bytes, o->no_share);
    if (shortage)
        die("%s", shortage);
    if (!continued)
        output_dir_begin(output, identity, work.toc);
    write_files(&work, in, output, o, stage);
    char *notes = shards_notes(work.shards);
    shards_free(work.shards);
    configs_free(&work.configs);
    if (o->part)
        parts_leave(output->partial, stage, in, work.toc, notes, identity, s->finished);
    else
        ts_close(in);
    free(notes);
    output_dir_finish(output);
    say(s, output->path, o, stage);
}

static void say_complete(const struct output_dir *output, const struct options *o,
                         const struct stage *stage)
{
    static const char text[] = "complete already, of the same input and options";
    if (o->json)
        printf("{\n  \"plan\": %s,\n  \"complete\": true\n}\n", stage->plan ? "true" : "false");
    else if (stage->plan)
        text_print(stdout, "%s: %s\n", output->path, text);
    if (!stage->plan && !stage->quiet)
        warn("%s: %s%s", output->path, text, o->verify ? "; verified" : "");
}

/* ---- --join ---- */

/* Make everything but the shards of the whole, from the parts. */
static void write_joined(struct output_dir *output, struct summary *s, const struct options *o,
                         const struct stage *stage)
{
    struct join join;
    join_begin(&join, output);
    struct ts_in *in = join.parts.in;
    struct toc *toc = join.parts.toc;
    struct rest rest = {.in = in, .toc = toc, .configs = &join.configs, .copier = &join.copier};
    if (o->amax)
        o->said->maps = maps_load(o->amax, ts_model(in));
    *s = summary_of(in, toc, join.shards, &join.configs, output, true);
    s->counts = json_deep_copy(join.parts.counts);
    s->shards = shards_count(join.shards);
    s->finished = join.parts.finished;
    join_check(&join, output, o->verify, &s->counts);
    write_rest(rest, output, join.parts.counts, s, o, stage);
    join_end(&join, output);
}

/* Join the parts. The journal begins when all of them are present, and says "joined" when only
 * shards are left to move. */
static void join(struct output_dir *output, const struct options *o, const struct stage *stage)
{
    struct summary s = {0};
    if (output_dir_was_done(output, NULL, NULL)) {
        warn("%s: an earlier run had completed it but for its journal", output->path);
        return;
    }
    if (!output_dir_adopt(output) || !journal_find(&output->journal, "joined"))
        write_joined(output, &s, o, stage);
    parts_move_up(output->partial);
    output_dir_finish(output);
    s.verified = o->verify;
    if (s.output)
        say(&s, output->path, o, stage);
}

static void check_options(const struct options *o, const struct stage *stage)
{
    bool part = o->todo_part.text;
    const char *alone = o->join    ? "join"
                        : o->state ? "state"
                        : o->todo  ? "todo"
                        : part     ? "todo-part"
                                   : NULL;
    if (!stage->operands)
        die_usage("into which folder?");
    if (stage->output)
        die_usage("-o does not go with st-write; the folder is its operand");
    if (o->part + o->partial + o->join + o->state + o->todo + part > 1)
        die_usage("--part, --partial, --join, --state, --todo and --todo-part exclude each other");
    if (alone && (stage->operands > 1 || stage->plan))
        die_usage("--%s reads no stream, and has no plan", alone);
}

static void answer(const struct options *o, const char *path)
{
    if (o->state)
        answer_state(path);
    else if (o->todo)
        answer_todo(path);
    else
        answer_todo_part(path, &o->todo_part);
}

/* The program's own options and its questions about the folder; the caller frees them. */
static struct arg *add_questions(struct options *o, const struct arg *own)
{
    const struct arg questions[] = {
        {.name = "state",
         .to = &o->state,
         .help = "print the state of dir in one word: absent, partial (a run died, or is working), "
                 "complete, or other (it is not a checkpoint)",
         .in = FORM(2),
         .required = FORM(2),
         .silent = true},
        {.name = "todo",
         .to = &o->todo,
         .help =
             "print the shards that a dead run did not finish, one per line, for st-read --shards",
         .in = FORM(2),
         .required = FORM(2),
         .or_previous = true,
         .silent = true},
        {.name = "todo-part",
         .kind = ARG_PART,
         .to = &o->todo_part,
         .value = "I/N",
         .help = "the same for part I of N",
         .in = FORM(2),
         .required = FORM(2),
         .or_previous = true,
         .silent = true},
        {0},
    };
    return args_join(own, questions);
}

/* The same and files from which README.md and the report take something. */
static struct arg *add_files(struct options *o, const struct arg *own)
{
    const unsigned forms = FORM(0) | FORM(1);
    const struct arg files[] = {
        {.name = "amax",
         .kind = ARG_INPUT,
         .to = &o->amax,
         .value = "file",
         .help = REPORT_FILE " draws these amaxes and tokens, as amax-merge wrote them",
         .in = forms,
         .silent = true},
        {.name = "measured",
         .kind = ARG_INPUT,
         .to = &o->measured,
         .value = "file",
         .help = "README.md quotes the lines of this file, what st-eval measured",
         .in = forms,
         .silent = true},
        {.name = "report",
         .kind = ARG_INPUT,
         .to = &o->report,
         .value = "file",
         .help = REPORT_FILE " shows what a pipeline measured, a JSON object a line",
         .in = forms,
         .silent = true},
        {0},
    };
    struct arg *questions = add_questions(o, own), *all = args_join(questions, files);
    free(questions);
    return all;
}

static void take_options(struct options *o, struct stage *stage, int argc, char **argv)
{
    const struct arg own[] = {
        {.name = "join",
         .to = &o->join,
         .help = "join the parts that --part wrote; no stream is read",
         .in = FORM(1),
         .required = FORM(1),
         .silent = true},
        {.name = "json",
         .to = &o->json,
         .help = "print the summary as JSON on standard output",
         .in = FORM(0) | FORM(1),
         .silent = true},
        {.name = "no-share",
         .to = &o->no_share,
         .help = "copy; never share disk space with the source",
         .in = FORM(0),
         .silent = true},
        {.name = "overwrite",
         .to = &o->overwrite,
         .help = "replace the checkpoint in dir when the new one is complete",
         .in = FORM(0) | FORM(1),
         .silent = true},
        {.name = "part",
         .to = &o->part,
         .help = "the stream is a part (st-read --part) of dir: others may be written at the same "
                 "time, also by other machines, before --join",
         .in = FORM(0),
         .silent = true},
        {.name = "partial",
         .to = &o->partial,
         .help = "accept a stream that is only a part of a checkpoint",
         .in = FORM(0),
         .or_previous = true,
         .silent = true},
        {.name = "verify",
         .to = &o->verify,
         .help = "read all shards again before dir appears, and compare",
         .in = FORM(0) | FORM(1),
         .silent = true},
        {.name = "plan", .help = "print what would be written, write nothing", .in = FORM(0)},
        {.name = "output", .in = NO_FORM},
        {.name = "progress",
         .help = "show bytes, rate and time left (on a terminal it is the default)",
         .in = FORM(0) | FORM(1)},
        {.name = "quiet", .in = FORM(0) | FORM(1)},
        {.name = "verbose",
         .help = "say how the bytes were written: shared, copied, or through memory",
         .in = FORM(0) | FORM(1)},
        {0},
    };
    struct arg *args = add_files(o, own);
    stage_begin(stage, &program, args, argc, argv);
    free(args);
}

static void run_join(struct output_dir *output, const struct options *o, const struct stage *stage)
{
    if (completed_by_join(output, o->overwrite)) {
        if (!stage->quiet)
            warn("%s: complete already", output->path);
        return;
    }
    output_dir_check(output, o->overwrite, NULL, &(struct sources){0});
    join(output, o, stage);
}

static void run_stream(struct output_dir *output, const struct options *o,
                       const struct stage *stage)
{
    struct ts_in *in = ts_open(stage->operands > 1 ? stage->operand[1] : NULL, stage);
    if (!o->overwrite && completed_by_stream(output, in, o->verify, stage)) {
        ts_close(in);
        say_complete(output, o, stage);
        return;
    }
    if (o->amax && !o->part && !stage->plan) /* before any work: it may be no calibration */
        o->said->maps = maps_load(o->amax, ts_model(in));
    output_dir_check(output, o->overwrite,
                     json_string_value(json_object_get(ts_header(in), "source")), ts_sources(in));
    if (stage->plan) {
        plan_stream(in, output, o, stage);
    } else if (!o->part || part_folder_enter(output, in, stage)) {
        write_stream(in, output, o, stage);
    } else {
        if (!stage->quiet)
            warn("%s: this part is complete", output->path);
        ts_close(in);
    }
}

int main(int argc, char **argv)
{
    struct said said = {0};
    struct options o = {.said = &said, .start = now()};
    struct stage stage;
    struct output_dir output;
    take_options(&o, &stage, argc, argv);
    check_options(&o, &stage);
    if (o.state || o.todo || o.todo_part.text) {
        answer(&o, stage.operand[0]);
        return stage_end(&stage);
    }
    if (!stage.plan) /* nobody has to read what it says of its work */
        signal(SIGPIPE, SIG_IGN);
    said.lines = o.measured ? card_measured(o.measured) : NULL;
    said.figures = o.report ? report_measured(o.report) : NULL;
    stage.progress |= isatty(STDERR_FILENO) && !stage.quiet; /* always the last stage */
    output_dir_name(&output, stage.operand[0]);
    if (o.join)
        run_join(&output, &o, &stage);
    else
        run_stream(&output, &o, &stage);
    output_dir_free(&output);
    free(said.lines);
    json_decref(said.figures);
    maps_free(said.maps);
    return stage.plan ? stage_end(&stage) : stage_end_in_place(&stage, stage.operand[0]);
}
