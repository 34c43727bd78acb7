/* st-write: a tensor stream becomes a checkpoint. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint.h"
#include "config.h"
#include "die.h"
#include "digest.h"
#include "json.h"
#include "parts.h"
#include "progress.h"
#include "shards.h"
#include "summary.h"
#include "target.h"
#include "ts.h"
#include "weight.h"

static const char usage[] =
    "usage: st-write [-hnqv] [--join] [--json] [--no-share] [--overwrite] [--part | --partial]\n"
    "                [--progress] [--todo] [--verify] dir [stream]\n"
    "\n"
    "Write a tensor stream as a checkpoint: safetensors shards under their own names, the index,\n"
    "config.json and hf_quant_config.json for the formats that arrived, all side files. What "
    "comes\n"
    "by reference is copied inside the kernel, or shared with the source where the filesystem "
    "can.\n"
    "Everything is built in DIR.partial; DIR appears when all of it is complete and on disk. A "
    "run\n"
    "that died is continued by the same command.\n"
    "\n"
    "      --join           put the parts that --part wrote together; no stream is read\n"
    "      --json           print the summary as JSON on standard output\n"
    "      --no-share       copy; never share disk space with the source\n"
    "      --overwrite      replace DIR if it is not empty, at the very end\n"
    "      --part           the stream is a part (st-read --part) of what becomes DIR: others may "
    "be\n"
    "                       written at the same time, also by other machines, until --join\n"
    "      --partial        accept a stream that is only a part of a checkpoint\n"
    "  -n, --plan           say what would be written, write nothing\n"
    "      --progress       show bytes, rate and time left (on a terminal it is the default)\n"
    "  -q, --quiet          no messages but errors\n"
    "      --todo           name the shards that a run that died left to do, one a line, for\n"
    "                       st-read --shards; no stream is read\n"
    "      --verify         read all shards again before DIR appears, and compare\n"
    "  -v, --verbose        say how the bytes went: shared, copied, written\n"
    "  -h, --help           this text\n"
    "      --version        the version\n"
    "\n"
    "Examples:\n"
    "  st-read DeepSeek-V4 | nvfp4-cast --amax amax.ts | st-write DeepSeek-V4-NVFP4\n"
    "  st-write -n DeepSeek-V4-bf16 bf16.ts\n";

struct options {
    bool join, json, no_share, overwrite, part, partial, todo, verify;
};

/* ---- one run, or several ---- */

/* Take out of the history which shards st-read took, with --shards or --part: the others are
 * another run's. An st-read that did nothing else is as good as none. */
static void forget_shards(json_t *history)
{
    for (size_t i = json_array_size(history); i-- > 0;) {
        json_t *stage = json_array_get(history, i), *options = json_object_get(stage, "options");
        const char *program = json_string_value(json_object_get(stage, "program"));
        if (!program || strcmp(program, "st-read") != 0)
            continue;
        for (size_t j = json_array_size(options); j-- > 0;) {
            const char *option = json_string_value(json_array_get(options, j));
            if (option && (!strncmp(option, "--shards=", 9) || !strncmp(option, "--part=", 7)))
                json_array_remove(options, j);
        }
        if (!json_array_size(options))
            json_array_remove(history, i);
    }
}

/* What makes runs the same: the files that were read, and what the stages did with them. Which
 * shards a run takes does not matter; the journal's table says which there are. */
static char *identity_of(struct ts_in *in, char *hex)
{
    json_t *files = sources_to_json(ts_sources(in));
    json_t *history = json_deep_copy(json_object_get(ts_header(in), "history"));
    json_t *identity = json_pack("[o, o]", files, history);
    if (!identity)
        die("out of memory");
    forget_shards(history);
    struct digest *digest = digest_new();
    char *text = json_text(identity, false, true);
    digest_add(digest, text, strlen(text));
    json_decref(identity);
    free(text);
    return digest_end(digest, hex);
}

static void print_todo(const char *path)
{
    struct target target;
    struct shards shards;
    target_name(&target, path);
    if (!target_in_place(&target)) {
        if (!target_resume(&target, NULL, NULL))
            die("%s: is not there: no run is to be continued; begin one without --todo",
                target.partial);
        shards_list(&shards, target.journal.toc);
        shards_resume(&shards, &target);
        bool replaced = journal_find(&target.journal, "replaced"); /* by one that is in place */
        for (size_t i = 0; i < shards.count && !replaced; i++)
            if (shards.shard[i].count && !shards.shard[i].note)
                puts(shards.shard[i].name);
        shards_free(&shards);
    }
    target_free(&target);
}

/* ---- the work ---- */

/* Known before the first byte, where it can be: what is shared needs no space, but no more can be
 * shared than the sources hold. */
static void check_space(const struct summary *s, const struct shards *shards,
                        const struct target *target, struct ts_in *in, bool no_share)
{
    char needed[BYTES_TEXT], there[BYTES_TEXT];
    struct sources *sources = ts_sources(in);
    uint64_t least = shards_to_write(shards);
    uint64_t available =
        s->free_bytes + shards_left_over(shards, target) + parts_left_over(target->partial);
    if (least > available && !no_share && sources->count &&
        target_can_share(target, sources_fd(sources, 0)))
        for (size_t i = 0; i < sources->count; i++)
            least -= least < sources->file[i].size ? least : sources->file[i].size;
    if (least > available)
        die("%s: %s are needed, %s are free; make room, or choose another disk", target->path,
            bytes_text((double)least, needed), bytes_text((double)available, there));
}

static void write_side_file(struct target *target, struct shards *shards, struct ts_in *in,
                            size_t i)
{
    size_t source;
    uint64_t size, offset;
    const char *name = ts_file(in, i, &size);
    if (!ts_file_ref(in, i, &source, &offset)) {
        char *data = ts_file_read(in, i);
        target_put(target, name, data, size);
        free(data);
        shards->written += size;
        return;
    }
    int fd = target_open(target, name, true);
    int from = sources_fd(ts_sources(in), source);
    if (!share_range(&shards->copier, from, offset, fd, 0, size, name))
        copy_range(&shards->copier, from, offset, fd, 0, size, name);
    target_close(fd, name, true);
}

static void write_side_files(struct target *target, struct shards *shards, struct ts_in *in,
                             const struct configs *configs)
{
    for (size_t i = 0; i < ts_files(in); i++) {
        uint64_t size;
        const char *name = ts_file(in, i, &size);
        bool derived = (!strcmp(name, "config.json") && configs->config) ||
                       (!strcmp(name, "hf_quant_config.json") && !configs->keep_hf_quant);
        if (!derived && !side_file_excluded(name))
            write_side_file(target, shards, in, i);
    }
}

static void write_derived(struct target *target, const struct configs *configs, const char *index)
{
    if (configs->config)
        target_put(target, "config.json", configs->config, strlen(configs->config));
    if (configs->hf_quant)
        target_put(target, "hf_quant_config.json", configs->hf_quant, strlen(configs->hf_quant));
    if (index)
        target_put(target, "model.safetensors.index.json", index, strlen(index));
}

/* A part may be empty. A run that is `continued` has been allowed its part already, and may lack
 * the last step only. */
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
    if (scope && strcmp(scope, "all") != 0 && !o->partial && !o->part && !continued)
        die("%s: is only a part of a checkpoint (%s); --part writes it as one of several, "
            "--partial all the same",
            ts_name(in), scope);
}

/* Everything that comes by reference or through the pipe, to the proven end. */
static void write_tensors(struct ts_in *in, struct target *target, struct shards *shards)
{
    uint32_t *line = toc_lines_in(ts_toc(in), shards->toc);
    for (const struct tensor *tensor; (tensor = ts_next(in));)
        if (!tensor->context)
            shards_write(shards, target, in, line[tensor - ts_toc(in)->tensor]);
    free(line);
    shards_end(shards, target, in);
    if (ts_plan_only(in))
        die("%s: is a plan, without tensors; run its stages without -n", ts_name(in));
    size_t missing = shards_missing(shards);
    if (missing)
        die("%s: %zu shards are still missing, which the stream does not bring; st-write --todo "
            "names them",
            target->partial, missing);
}

/* Beside the shards: side files, configurations, and the index, which comes last. */
static void write_rest(struct ts_in *in, struct target *target, struct shards *shards,
                       const struct configs *configs)
{
    char *index = shards_index(shards->toc);
    write_side_files(target, shards, in, configs);
    sources_check(ts_sources(in));
    write_derived(target, configs, index);
    free(index);
}

static void write_all(struct ts_in *in, struct target *target, struct shards *shards,
                      const struct configs *configs, const struct options *o)
{
    shards->copier.no_share = o->no_share;
    write_tensors(in, target, shards);
    if (o->verify)
        shards_verify(shards, target, in);
    if (!o->part)
        write_rest(in, target, shards, configs);
}

static void say(const struct summary *s, const char *path, const struct options *o,
                const struct stage *stage)
{
    if (o->json)
        summary_print_json(s, stage->plan);
    else if (stage->plan)
        summary_print_plan(s, path);
    if (!stage->plan && !stage->quiet)
        summary_print(s, path, stage->verbose);
}

/* A stream into a folder, or with -n its plan. Closes the stream. */
static void write_stream(struct ts_in *in, struct target *target, const struct options *o,
                         const struct stage *stage, double start)
{
    struct shards shards;
    struct configs configs;
    struct toc *toc = ts_toc(in);
    char identity[DIGEST_TEXT];
    identity_of(in, identity);
    if (!stage->plan && target_was_done(target, identity, toc)) {
        warn("%s: an earlier run had completed it but for its journal", target->path);
        ts_close(in);
        return;
    }
    bool continued = !stage->plan && target_resume(target, identity, toc);
    check_input(in, o, continued);
    if (continued)
        toc = target->journal.toc; /* the stream may bring the shards that are missing only */
    shards_plan(&shards, toc, in);
    configs_derive(&configs, in, toc);
    struct summary s = {.input = json_incref(json_object_get(ts_header(in), "input")),
                        .output = formats_totals(toc),
                        .file_bytes = shards.bytes,
                        .free_bytes = target_free_bytes(target),
                        .shards = shards_missing(&shards)};
    if (continued)
        s.finished = shards_resume(&shards, target);
    check_space(&s, &shards, target, in, o->no_share);
    if (stage->plan) {
        while (ts_next(in))
            continue;
    } else {
        if (!continued)
            target_begin(target, identity, toc);
        write_all(in, target, &shards, &configs, o);
    }
    s.counts = json_deep_copy(ts_end_counts(in));
    s.shared = shards.copier.shared;
    s.copied = shards.copier.copied;
    s.written = shards.written;
    shards_free(&shards);
    configs_free(&configs);
    if (o->part && !stage->plan)
        parts_leave(target->partial, stage, in, toc, identity, s.finished);
    else
        ts_close(in);
    if (!stage->plan)
        target_finish(target);
    s.seconds = now() - start;
    say(&s, target->path, o, stage);
    json_decref(s.input);
    json_decref(s.output);
    json_decref(s.counts);
}

/* ---- parts ---- */

/* The folder of the part that the stream is takes the place of the whole's; false if that part is
 * complete already. */
static bool enter_part(struct target *target, struct ts_in *in)
{
    const char *scope = json_string_value(json_object_get(ts_header(in), "scope"));
    char identity[DIGEST_TEXT];
    char *folder = parts_folder(target->partial, scope, identity_of(in, identity));
    if (!folder)
        die("%s: is no part of a checkpoint (%s); st-read --part makes one", ts_name(in), scope);
    target_free(target);
    target_name(target, folder);
    free(folder);
    if (!access(target->path, F_OK) && !target_in_place(target))
        return false;
    target_check(target, false, NULL, ts_sources(in));
    return true;
}

static void check_shards(const struct shards *shards, const char *partial)
{
    for (size_t i = 0; i < shards->count; i++) {
        const struct shard *shard = &shards->shard[i];
        uint64_t size = 0;
        bool found = !shard->count || parts_find(partial, shard->name, &size);
        if (!found || size != shard->size)
            die("%s: %s: wanted %" PRIu64 " bytes, %s; remove its part, and run that again",
                partial, shard->name, shard->size, found ? "it has others" : "it is not there");
    }
}

/* All that the whole has beside the shards, from what the parts left. */
static void write_joined(struct target *target, struct summary *s)
{
    struct parts parts;
    struct shards shards;
    struct configs configs;
    parts_gather(&parts, target->partial);
    shards_plan(&shards, parts.toc, parts.in);
    configs_derive(&configs, parts.in, parts.toc);
    check_shards(&shards, target->partial);
    if (target->journal.fd < 0)
        target_begin(target, parts.identity, parts.toc);
    else if (!journal_is_of(&target->journal, parts.identity, parts.toc))
        die("%s: its parts are not of the run that its journal is of; remove it (rm -r) to start "
            "anew",
            target->partial);
    write_rest(parts.in, target, &shards, &configs);
    configs_free(&configs);
    *s = (struct summary){.input = json_incref(json_object_get(ts_header(parts.in), "input")),
                          .output = formats_totals(parts.toc),
                          .counts = json_incref(parts.counts),
                          .file_bytes = shards.bytes,
                          .free_bytes = target_free_bytes(target),
                          .shards = shards.count,
                          .finished = parts.finished};
    shards_free(&shards);
    parts_free(&parts);
    journal_note(&target->journal, "joined\n");
}

/* Parts become the whole. The journal is begun when all of them are there, and says "joined" when
 * only shards are left to move. */
static void join(struct target *target, const struct options *o, const struct stage *stage,
                 double start)
{
    struct summary s = {0};
    if (target_in_place(target) && target_was_done(target, NULL, NULL)) {
        warn("%s: an earlier run had completed it but for its journal", target->path);
        return;
    }
    if (!target_adopt(target) || !journal_find(&target->journal, "joined"))
        write_joined(target, &s);
    parts_move_up(target->partial);
    target_finish(target);
    s.seconds = now() - start;
    if (s.output)
        say(&s, target->path, o, stage);
    json_decref(s.input);
    json_decref(s.output);
    json_decref(s.counts);
}

int main(int argc, char **argv)
{
    struct options o = {0};
    const struct arg args[] = {
        {"join", ARG_FLAG, &o.join, 0, NULL, true},
        {"json", ARG_FLAG, &o.json, 0, NULL, true},
        {"no-share", ARG_FLAG, &o.no_share, 0, NULL, true},
        {"overwrite", ARG_FLAG, &o.overwrite, 0, NULL, true},
        {"part", ARG_FLAG, &o.part, 0, NULL, true},
        {"partial", ARG_FLAG, &o.partial, 0, NULL, true},
        {"todo", ARG_FLAG, &o.todo, 0, NULL, true},
        {"verify", ARG_FLAG, &o.verify, 0, NULL, true},
        {0},
    };
    struct stage stage;
    struct target target;
    double start = now();
    stage_begin(&stage, usage, args, argc, argv, 2);
    if (!stage.operands)
        die_usage("into which folder?");
    if (stage.output)
        die_usage("-o does not go with st-write; the folder is its operand");
    if (o.part + o.partial + o.join + o.todo > 1)
        die_usage("--part, --partial, --join and --todo exclude each other");
    if ((o.join || o.todo) && (stage.operands > 1 || stage.plan))
        die_usage("--%s reads no stream, and has no plan", o.join ? "join" : "todo");
    if (o.todo) {
        print_todo(stage.operand[0]);
        return stage_end(&stage);
    }
    stage.progress |= isatty(STDERR_FILENO) && !stage.quiet; /* always the last one */
    target_name(&target, stage.operand[0]);
    if (o.join) {
        target_check(&target, o.overwrite, NULL, &(struct sources){0});
        join(&target, &o, &stage, start);
    } else {
        struct ts_in *in = ts_open(stage.operands > 1 ? stage.operand[1] : NULL, &stage);
        target_check(&target, o.overwrite,
                     json_string_value(json_object_get(ts_header(in), "source")), ts_sources(in));
        if (o.part && !stage.plan && !enter_part(&target, in)) {
            if (!stage.quiet)
                warn("%s: this part is complete", target.path);
            ts_close(in);
        } else {
            write_stream(in, &target, &o, &stage, start);
        }
    }
    target_free(&target);
    return stage_end(&stage);
}
