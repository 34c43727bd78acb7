/* st-write: convert a tensor stream to a checkpoint. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/die.h"
#include "base/json.h"
#include "base/owner.h"
#include "base/progress.h"
#include "base/text.h"
#include "report/report.h"
#include "stream/checkpoint.h"
#include "stream/ts.h"
#include "stream/whole.h"
#include "tensor/weight.h"
#include "write/card.h"
#include "write/config.h"
#include "write/copy.h"
#include "write/fit.h"
#include "write/output_dir.h"
#include "write/output_names.h"
#include "write/parts.h"
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

/* ---- questions ---- */

static void print_todo(const char *path)
{
    struct output_dir output;
    output_dir_name(&output, path);
    if (!output_dir_in_place(&output)) {
        if (!output_dir_resume(&output, NULL, NULL))
            die("%s: is not there: no run is to be continued; begin one without --todo",
                output.partial);
        struct shards *shards = shards_list(output.journal.toc);
        shards_resume(shards, &output);
        bool replaced =
            journal_find(&output.journal, "replaced"); /* by a checkpoint already in place */
        struct shard_file file;
        for (size_t i = 0; i < shards_count(shards) && !replaced; i++)
            if (shards_file(shards, i, &file) && !file.finished)
                puts(file.name);
        shards_free(shards);
    }
    output_dir_free(&output);
}

/* A complete part has nothing left to do. */
static void print_todo_part(const char *path, const struct arg_pair *part)
{
    struct output_dir output;
    bool complete;
    output_dir_name(&output, path);
    char *folder = parts_present(output.partial, part->a, part->b, &complete);
    if (!folder)
        die("%s: no run of part %s is to be continued; begin one without --todo-part",
            output.partial, part->text);
    if (!complete)
        print_todo(folder);
    free(folder);
    output_dir_free(&output);
}

static void print_state(const char *path)
{
    static const char *const names[] = {[OUTPUT_DIR_ABSENT] = "absent",
                                        [OUTPUT_DIR_PARTIAL] = "partial",
                                        [OUTPUT_DIR_COMPLETE] = "complete",
                                        [OUTPUT_DIR_OTHER] = "other"};
    struct output_dir output;
    output_dir_name(&output, path);
    puts(names[output_dir_state(&output)]);
    output_dir_free(&output);
}

/* ---- the work ---- */

/* The i-th, under another name. */
static void write_side_file(struct output_dir *output, struct copier *copier, struct ts_in *in,
                            size_t i, const char *name)
{
    size_t source;
    uint64_t size, offset;
    ts_file(in, i, &size);
    if (!ts_file_ref(in, i, &source, &offset)) {
        char *data = ts_file_read(in, i);
        output_dir_put(output, name, data, size);
        free(data);
        copier->written += size;
        return;
    }
    int fd = output_dir_open(output, name, true);
    int from = sources_acquire(ts_sources(in), source);
    if (!share_range(copier, from, offset, fd, 0, size, name))
        copy_range(copier, from, offset, fd, 0, size, name);
    sources_release(ts_sources(in), source);
    output_dir_close(fd, name, true);
}

static void write_side_files(struct output_dir *output, struct copier *copier, struct ts_in *in,
                             const struct configs *configs)
{
    for (size_t i = 0; i < ts_files(in); i++) {
        uint64_t size;
        const char *name = side_file_name(in, ts_file(in, i, &size), configs);
        if (name)
            write_side_file(output, copier, in, i, name);
    }
}

static void put_text(struct output_dir *output, const char *name, const char *text)
{
    if (text)
        output_dir_put(output, name, text, strlen(text));
}

/* A part may be empty. A `continued` run was already checked, and may lack only the last step. */
static void check_input(struct ts_in *in, const struct options *o, bool continued)
{
    const char *scope = json_string_value(json_object_get(ts_header(in), "scope"));
    bool data = continued || o->part;
    for (size_t i = 0; i < ts_toc(in)->count; i++)
        data |= !ts_toc(in)->tensor[i].context;
    if (o->part && !continued && strchr(scope, ','))
        die("%s: brings some shards only (%s), but no run of that part is to be continued; read "
            "the "
            "part without --shards",
            ts_name(in), scope);
    if (!data)
        die("%s: holds no tensor to write; is it the right stream?", ts_name(in));
    if (!ts_is_whole(in) && !o->partial && !o->part && !continued)
        die("%s: is only a part of a checkpoint (%s); --part writes it as one of several, "
            "--partial all the same; a whole one is read from its folder",
            ts_name(in), scope);
    if (!o->partial && !o->part && !continued)
        whole_check(in);
}

_Noreturn static void die_of_plan(const struct ts_in *in)
{
    die("%s: is a plan, without tensors; run its stages without -n", ts_name(in));
}

/* To be called after the end of the stream, which says whether it is one. */
static void refuse_plan(const struct ts_in *in)
{
    if (ts_plan_only(in))
        die_of_plan(in);
}

/* The identity of the stream's run, in `hex`; NULL if only a plan is to be made, and it is not
 * known. */
static const char *identity_of(struct ts_in *in, const struct stage *stage, char *hex)
{
    const char *identity = run_identity(in, hex);
    if (!identity && !stage->plan)
        die_of_plan(in);
    return identity;
}

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
    refuse_plan(in);
    size_t missing = shards_missing(shards);
    if (missing)
        die("%s: %zu shards are still missing, which the stream does not bring; st-write --todo "
            "names them",
            output->partial, missing);
}

/* A page about a converted checkpoint, for people. */
static char *page_text(struct ts_in *in, const struct toc *toc, const struct configs *configs,
                       const json_t *counts, const json_t *record, const struct summary *s,
                       const struct options *o)
{
    const struct report report = {.maps = o->said->maps,
                                  .measured = o->said->figures,
                                  .counts = counts,
                                  .input = json_object_get(ts_header(in), "input"),
                                  .record = record,
                                  .step = o->join ? "join the parts" : "convert and write",
                                  .seconds = now() - o->start,
                                  .bytes = o->join ? 0 : s->file_bytes,
                                  .finished = s->finished};
    return report_page(&report, in, toc, configs);
}

/* Write everything but shards: side files, what is made from the stream, and last the index. */
static void write_rest(struct ts_in *in, struct output_dir *output, struct toc *toc,
                       struct copier *copier, const struct configs *configs, const json_t *counts,
                       const struct summary *s, const struct options *o, const struct stage *stage)
{
    char *index = shards_index(toc);
    json_t *record = run_record_of(in, stage);
    char *run = json_text(record, true, false), *readme = NULL, *page = NULL;
    if (configs->converted) {
        readme = card_text(&(struct card){counts, o->said->lines}, in, toc, configs);
        page = page_text(in, toc, configs, counts, record, s, o);
    }
    write_side_files(output, copier, in, configs);
    sources_check(ts_sources(in));
    put_text(output, RUN_RECORD, run);
    put_text(output, "README.md", readme);
    put_text(output, REPORT_FILE, page);
    put_text(output, "config.json", configs->config);
    put_text(output, "hf_quant_config.json", configs->hf_quant);
    put_text(output, CHECKPOINT_INDEX, index);
    json_decref(record);
    free(run);
    free(readme);
    free(page);
    free(index);
}

/* What st-write itself counts, beside the counts of earlier stages. */
static void add_zeros(struct summary *s, uint64_t zeros, const char *first)
{
    if (!s->counts)
        s->counts = json_array();
    if (zeros && json_array_append_new(
                     s->counts, json_pack("{s:s, s:I, s:s}", "program", "st-write", "zero_weights",
                                          (json_int_t)zeros, "zero_first", first)))
        die("out of memory");
}

/* Count them in all shards, also in those of an earlier run. That all of them are as they were when
 * they were complete shows that no side file was one of them under another name. */
static void count_zeros(struct summary *s, struct shards *shards, struct output_dir *output,
                        struct ts_in *in)
{
    struct shard_file file;
    const char *first = NULL;
    uint64_t zeros = 0;
    for (size_t i = 0; i < shards_count(shards); i++)
        if (shards_file(shards, i, &file)) {
            int fd = output_dir_open(output, file.name, false);
            char *difference = shards_file_difference(shards, i, fd, in, false);
            if (difference)
                die("%s/%s: %s; remove the folder (rm -r), and run it again where nothing else "
                    "writes "
                    "to it",
                    output->partial, file.name, difference);
            zeros += shards_zeros(shards, i, fd, &first);
            output_dir_close(fd, file.name, false);
        }
    add_zeros(s, zeros, first);
}

/* The last look at the folder, in which others may have been at work. */
static void look_again(struct summary *s, struct shards *shards, struct output_dir *output,
                       struct ts_in *in, bool part)
{
    count_zeros(s, shards, output, in);
    output_dir_refuse_foreign(output, part ? parts_own : NULL);
}

static void say(const struct summary *s, const char *path, const struct options *o,
                const struct stage *stage)
{
    json_t *document = summary_document(s, stage->plan);
    if (o->json) {
        json_print(stdout, document, true);
        putchar('\n');
    } else if (stage->plan)
        summary_print_plan(stdout, document, path);
    if (!stage->plan && !stage->quiet)
        summary_print(stderr, document, path, stage->verbose);
    json_decref(document);
}

static void forget(struct summary *s)
{
    json_decref(s->input);
    json_decref(s->output);
    json_decref(s->counts);
    json_decref(s->folders);
    json_decref(s->notes);
    json_decref(s->engines);
}

/* What is known before the first byte, of a checkpoint that will be `whole`, or of a part. */
static struct summary summary_of(struct ts_in *in, struct toc *toc, const struct shards *shards,
                                 const struct configs *configs, const struct output_dir *output,
                                 bool whole)
{
    return (struct summary){.input = json_incref(json_object_get(ts_header(in), "input")),
                            .output = formats_totals(toc),
                            .folders = ts_folders(in),
                            .notes = summary_notes(in, configs, toc),
                            .engines = summary_engines(configs, whole),
                            .classes = model_classes(ts_model(in)),
                            .file_bytes = shards_bytes(shards),
                            .free_bytes = output_dir_free_bytes(output),
                            .shards = shards_missing(shards)};
}

/* What a run would refuse of what another one left; with --part, but for its number if the stream
 * is of the whole. */
static void plan_beside(struct output_dir *output, struct ts_in *in, bool part,
                        const char *identity)
{
    if (!part) {
        output_dir_plan(output, identity, ts_toc(in));
        return;
    }
    const char *scope = json_string_value(json_object_get(ts_header(in), "scope"));
    if (!output_dir_is_joined(output, identity) && !output_dir_was_replaced(output))
        parts_check(output->partial, scope, identity);
}

/* A run in one piece would leave its shards beside parts. */
static void refuse_parts(const struct output_dir *output)
{
    uint64_t of = parts_begun(output->partial);
    if (of)
        die("%s: holds parts of a run in %" PRIu64 " (--part), which the others and --join "
            "complete, as -j %" PRIu64 " does; or remove it (rm -r) to start again",
            output->partial, of, of);
}

static void take_bytes(struct summary *s, const struct copier *copier)
{
    s->shared = copier->shared;
    s->copied = copier->copied;
    s->written = copier->written;
}

/* Write all shards, and unless it is a part, what belongs to them. */
static void write_all(struct ts_in *in, struct output_dir *output, struct toc *toc,
                      struct shards *shards, struct copier *copier, const struct configs *configs,
                      const struct summary *s, const struct options *o, const struct stage *stage)
{
    write_tensors(in, output, toc, shards);
    if (o->verify)
        shards_verify(shards, output, in);
    if (!o->part)
        write_rest(in, output, toc, copier, configs, ts_end_counts(in), s, o, stage);
}

/* Write a stream to a folder, or with -n print its plan. Closes the stream. */
static void write_stream(struct ts_in *in, struct output_dir *output, const struct options *o,
                         const struct stage *stage)
{
    struct copier copier = {.no_share = o->no_share};
    struct configs configs;
    struct toc *toc = ts_toc(in);
    char hex[DIGEST_TEXT];
    const char *identity = identity_of(in, stage, hex);
    if (!o->part)
        refuse_parts(output);
    if (!stage->plan && output_dir_was_done(output, identity, toc)) {
        warn("%s: an earlier run had completed it but for its journal", output->path);
        ts_close(in);
        return;
    }
    if (stage->plan)
        plan_beside(output, in, o->part, identity);
    bool continued = !stage->plan && output_dir_resume(output, identity, toc);
    check_input(in, o, continued);
    if (continued)
        toc = output->journal.toc; /* the stream may have only the missing shards */
    struct shards *shards = shards_plan(toc, in, &copier);
    configs_derive(&configs, in, toc);
    output_names_check(shards, in, &configs);
    bool whole = ts_is_whole(in) || (!o->part && !o->partial); /* or what is left of it */
    struct summary s = summary_of(in, toc, shards, &configs, output, whole);
    if (continued)
        s.finished = shards_resume(shards, output);
    char *shortage = fit_shortage(shards, output, in, s.free_bytes, o->no_share);
    if (shortage && !stage->plan)
        die("%s", shortage);
    if (stage->plan) {
        while (ts_next(in))
            continue;
    } else {
        if (!continued)
            output_dir_begin(output, identity, toc);
        write_all(in, output, toc, shards, &copier, &configs, &s, o, stage);
    }
    s.counts = json_deep_copy(ts_end_counts(in));
    if (!stage->plan)
        look_again(&s, shards, output, in, o->part);
    take_bytes(&s, &copier);
    char *notes = shards_notes(shards);
    shards_free(shards);
    configs_free(&configs);
    if (o->part && !stage->plan)
        parts_leave(output->partial, stage, in, toc, notes, identity, s.finished);
    else
        ts_close(in);
    free(notes);
    if (!stage->plan)
        output_dir_finish(output);
    s.seconds = now() - o->start;
    s.verified = o->verify && !stage->plan;
    say(&s, output->path, o, stage);
    if (shortage && !fflush(stdout))
        die("%s", shortage);
    forget(&s);
}

/* ---- a checkpoint that is complete already ---- */

/* How a file of DST differs from its `size` bytes, of which `data` may be NULL; the caller frees
 * it. NULL if it does not. */
static char *file_difference(const struct output_dir *output, const char *name, const char *data,
                             uint64_t size)
{
    struct stat status;
    char *difference = NULL, *path = xprintf("%s/%s", output->path, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT)
        difference = xprintf("%s is not there", name);
    else if (fd < 0 || fstat(fd, &status))
        difference = xprintf("%s: %s", name, strerror(errno));
    else if ((uint64_t)status.st_size != size)
        difference = xprintf("%s has another size", name);
    else if (data) {
        char *own = xalloc(size + 1, 1);
        read_at(fd, 0, own, size, path);
        difference = memcmp(own, data, size) ? xprintf("%s was changed", name) : NULL;
        free(own);
    }
    if (fd >= 0)
        close(fd);
    free(path);
    return difference;
}

/* The same of all files but the shards, of a stream that is whole. */
static char *rest_difference(const struct output_dir *output, struct ts_in *in)
{
    struct configs configs;
    char *index = shards_index(ts_toc(in)), *difference = NULL;
    configs_derive(&configs, in, ts_toc(in));
    for (size_t i = 0; i < ts_files(in) && !difference; i++) {
        uint64_t size;
        const char *name = ts_file(in, i, &size);
        const char *own = side_file_name(in, name, &configs);
        if (own)
            difference = file_difference(output, own, NULL, size);
    }
    const char *const derived[][2] = {{"config.json", configs.config},
                                      {"hf_quant_config.json", configs.hf_quant},
                                      {CHECKPOINT_INDEX, index}};
    for (size_t i = 0; i < sizeof derived / sizeof *derived && !difference; i++)
        if (derived[i][1])
            difference =
                file_difference(output, derived[i][0], derived[i][1], strlen(derived[i][1]));
    configs_free(&configs);
    free(index);
    return difference;
}

/* End the process if the checkpoint at DST is not what the stream gives: another record, a shard of
 * the stream is not there, or another file is not as it was written. */
static void check_complete(const struct output_dir *output, struct ts_in *in,
                           const struct shards *shards, const json_t *record,
                           const struct stage *stage)
{
    struct shard_file file;
    json_t *own = run_record_of(in, stage);
    char *difference = run_record_difference(record, own, stage->plan);
    for (size_t i = 0; i < shards_count(shards) && !difference; i++) {
        if (shards_file(shards, i, &file))
            difference = file_difference(output, file.name, NULL, file.size);
    }
    if (!difference && ts_is_whole(in))
        difference = rest_difference(output, in);
    if (difference)
        die("%s: is complete, but not of the same input and options: %s; choose another folder, or "
            "%s",
            output->path, difference, output->inside ? "remove its files" : "--overwrite it");
    json_decref(own);
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

/* End the process if DST is another user's, who can have put anything there under its names. */
static void refuse_other(const struct output_dir *output, const char *remedy)
{
    int folder = open(output->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        die_errno("%s", output->path);
    if (!owner_is_self(folder, folder))
        die("%s: belongs to another user; %schoose another folder", output->path, remedy);
    close(folder);
}

/* True if DST is a checkpoint that the same run made, so that nothing is left to do but, with
 * --verify, to compare it. The stream is then read to its end, so that no earlier stage fails. A
 * checkpoint of another run ends the process. */
static bool was_complete(struct output_dir *output, struct ts_in *in, const struct options *o,
                         const struct stage *stage)
{
    if (o->overwrite || output_dir_state(output) != OUTPUT_DIR_COMPLETE)
        return false;
    json_t *record = run_record_read(output->path);
    if (!record)
        return false;
    if (!o->verify)
        refuse_other(output, "compare it with what the stream gives (--verify), or ");
    struct copier copier = {0};
    struct shards *shards = shards_plan(ts_toc(in), in, &copier);
    check_complete(output, in, shards, record, stage);
    json_decref(record);
    if (!stage->plan)
        output_dir_was_done(output, NULL, NULL);
    const struct toc *toc = ts_toc(in);
    for (const struct tensor *tensor; (tensor = ts_next(in));)
        if (o->verify && !tensor->context)
            shards_compare(shards, output->path, in, (size_t)(tensor - toc->tensor));
    if (!stage->plan)
        refuse_plan(in);
    shards_free(shards);
    ts_close(in);
    say_complete(output, o, stage);
    return true;
}

/* The same for --join, which has no stream to compare. */
static bool was_joined(const struct output_dir *output, const struct options *o)
{
    json_t *record = run_record_read(output->path);
    bool joined =
        record && access(output->partial, F_OK) && output_dir_state(output) == OUTPUT_DIR_COMPLETE;
    json_decref(record);
    if (joined && o->overwrite)
        die("%s: is complete, and no parts are at %s: an earlier --join put it in place, or --part "
            "has yet to write them",
            output->path, output->partial);
    if (joined)
        refuse_other(output, "");
    return joined;
}

/* ---- parts ---- */

/* Check that the stream brings what a complete part was written from. */
static void compare_part(const char *folder, struct ts_in *in)
{
    struct copier copier = {0};
    const struct toc *toc = ts_toc(in);
    struct shards *shards = shards_plan(ts_toc(in), in, &copier);
    char *notes = parts_notes(folder);
    shards_take_notes(shards, notes);
    for (const struct tensor *tensor; (tensor = ts_next(in));)
        if (!tensor->context)
            shards_check(shards, folder, in, (size_t)(tensor - toc->tensor));
    shards_free(shards);
    free(notes);
}

/* Use the folder of the stream's part instead of the whole's; false if that part is already
 * complete, as all are when a --join was killed. */
static bool enter_part(struct output_dir *output, struct ts_in *in, const struct stage *stage)
{
    const char *scope = json_string_value(json_object_get(ts_header(in), "scope"));
    char hex[DIGEST_TEXT];
    const char *identity = identity_of(in, stage, hex);
    if (output_dir_is_joined(output, identity))
        return false;
    /* of another run: --join would take it for this one's */
    if (output_dir_in_place(output) || output_dir_was_replaced(output))
        output_dir_was_done(output, identity, NULL);
    char *folder = parts_folder(output->partial, scope, identity);
    if (!folder)
        die("%s: is no part of a checkpoint (%s); st-read --part makes one", ts_name(in), scope);
    output_dir_free(output);
    output_dir_name(output, folder);
    free(folder);
    if (!access(output->path, F_OK) && !output_dir_in_place(output)) {
        compare_part(output->path, in);
        return false;
    }
    output_dir_check(output, false, NULL, ts_sources(in));
    return true;
}

/* Check that the files of all parts' shards are as they were noted; with `read`, byte for byte.
 * Adds the zeros that they hold to the summary's counts. */
static void check_shards(struct shards *shards, const char *partial, struct ts_in *in, bool read,
                         struct summary *s)
{
    struct shard_file file;
    const char *first = NULL;
    uint64_t zeros = 0;
    for (size_t i = 0; i < shards_count(shards); i++) {
        char *folder;
        if (!shards_file(shards, i, &file))
            continue;
        int fd = parts_open(partial, file.name, &folder);
        if (fd < 0)
            die("%s: %s is not there; remove its part, and run that again", partial, file.name);
        char *difference = shards_file_difference(shards, i, fd, in, read);
        if (difference)
            die("%s/%s: %s; remove the folder of its part, and run that again%s", folder, file.name,
                difference, read ? "" : ", or compare its bytes (--verify)");
        zeros += shards_zeros(shards, i, fd, &first);
        close(fd);
        free(folder);
    }
    add_zeros(s, zeros, first);
}

/* Make everything but the shards of the whole, from the parts. */
static void write_joined(struct output_dir *output, struct summary *s, const struct options *o,
                         const struct stage *stage)
{
    struct parts parts;
    struct copier copier = {0};
    struct configs configs;
    parts_gather(&parts, output->partial);
    if (o->amax)
        o->said->maps = maps_load(o->amax, ts_model(parts.in));
    struct shards *shards = shards_plan(parts.toc, parts.in, &copier);
    configs_derive(&configs, parts.in, parts.toc);
    output_names_check(shards, parts.in, &configs);
    shards_take_notes(shards, parts.notes);
    *s = (struct summary){.input = json_incref(json_object_get(ts_header(parts.in), "input")),
                          .output = formats_totals(parts.toc),
                          .notes = summary_notes(parts.in, &configs, parts.toc),
                          .engines = summary_engines(&configs, true),
                          .classes = model_classes(ts_model(parts.in)),
                          .counts = json_deep_copy(parts.counts),
                          .file_bytes = shards_bytes(shards),
                          .free_bytes = output_dir_free_bytes(output),
                          .shards = shards_count(shards),
                          .finished = parts.finished};
    check_shards(shards, output->partial, parts.in, o->verify, s);
    whole_check_table(parts.in, parts.toc);
    if (output->journal.fd < 0)
        output_dir_begin(output, parts.identity, parts.toc);
    else if (!journal_is_of(&output->journal, parts.identity, parts.toc))
        die("%s: its parts are not of the run that its journal is of; remove it (rm -r) to start "
            "again",
            output->partial);
    write_rest(parts.in, output, parts.toc, &copier, &configs, parts.counts, s, o, stage);
    configs_free(&configs);
    shards_free(shards);
    parts_free(&parts);
    output_dir_refuse_foreign(output, parts_own);
    journal_note(&output->journal, "joined\n");
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
    s.seconds = now() - o->start;
    s.verified = o->verify;
    if (s.output)
        say(&s, output->path, o, stage);
    forget(&s);
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
        print_state(path);
    else if (o->todo)
        print_todo(path);
    else
        print_todo_part(path, &o->todo_part);
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
    if (was_joined(output, o)) {
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
    if (was_complete(output, in, o, stage))
        return;
    if (o->amax && !o->part && !stage->plan) /* before any work: it may be no calibration */
        o->said->maps = maps_load(o->amax, ts_model(in));
    output_dir_check(output, o->overwrite,
                     json_string_value(json_object_get(ts_header(in), "source")), ts_sources(in));
    if (!o->part || stage->plan || enter_part(output, in, stage)) {
        write_stream(in, output, o, stage);
        return;
    }
    if (!stage->quiet)
        warn("%s: this part is complete", output->path);
    ts_close(in);
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
