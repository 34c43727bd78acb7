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
#include "progress.h"
#include "shards.h"
#include "target.h"
#include "ts.h"
#include "weight.h"

static const char usage[] =
    "usage: st-write [-hnqv] [--json] [--no-share] [--overwrite] [--partial] [--progress]\n"
    "                dir [stream]\n"
    "\n"
    "Write a tensor stream as a checkpoint: safetensors shards under their own names, the index,\n"
    "config.json and hf_quant_config.json for the formats that arrived, all side files. What "
    "comes\n"
    "by reference is copied inside the kernel, or shared with the source where the filesystem "
    "can.\n"
    "Everything is built in DIR.partial; DIR appears when all of it is complete and on disk.\n"
    "\n"
    "      --json           print the summary as JSON on standard output\n"
    "      --no-share       copy; never share disk space with the source\n"
    "      --overwrite      replace DIR if it is not empty, at the very end\n"
    "      --partial        accept a stream that is only a part of a checkpoint\n"
    "  -n, --plan           say what would be written, write nothing\n"
    "      --progress       show bytes, rate and time left (on a terminal it is the default)\n"
    "  -q, --quiet          no messages but errors\n"
    "  -v, --verbose        say how the bytes went: shared, copied, written\n"
    "  -h, --help           this text\n"
    "      --version        the version\n"
    "\n"
    "Examples:\n"
    "  st-read DeepSeek-V4 | nvfp4-cast --amax amax.ts | st-write DeepSeek-V4-NVFP4\n"
    "  st-write -n DeepSeek-V4-bf16 bf16.ts\n";

struct options {
    bool json, no_share, overwrite, partial;
};

/* ---- what is said ---- */

struct summary {
    json_t *input;  /* tensors and bytes per format of the checkpoint that was read */
    json_t *output; /* of the one that is written */
    json_t *counts; /* of all stages */
    uint64_t file_bytes;
    uint64_t free_bytes;
    uint64_t shared, copied, written;
    double seconds;
};

static void print_side(FILE *out, const char *side, const json_t *totals)
{
    const char *format;
    json_t *bytes;
    char text[BYTES_TEXT];
    if (!totals)
        return;
    json_int_t tensors = json_integer_value(json_object_get(totals, "tensors"));
    json_int_t all = json_integer_value(json_object_get(totals, "bytes"));
    fprintf(out, "%-5s %7" PRId64 " tensors, %9s: ", side, (int64_t)tensors,
            bytes_text((double)all, text));
    const char *separator = "";
    json_object_foreach(json_object_get(totals, "formats"), format, bytes)
    {
        fprintf(out, "%s%s %s", separator, format,
                bytes_text((double)json_integer_value(bytes), text));
        separator = ", ";
    }
    fputc('\n', out);
}

/* What the stages before counted, in words. */
static void print_counts(FILE *out, const json_t *counts)
{
    size_t i;
    json_t *stage;
    json_array_foreach(counts, i, stage)
    {
        json_int_t blocks, lossy, weights, hash, score, mtp, n;
        const char *program = json_string_value(json_object_get(stage, "program")), *rule;
        json_t *amax = json_object_get(stage, "amax"), *merge;
        size_t j;
        if (!program)
            continue;
        if (!json_unpack(stage, "{s:I, s:{s:I, s:I, s:I}}", "weights", &weights, "experts", "hash",
                         &hash, "score", &score, "mtp", &mtp)) {
            fprintf(out,
                    "%s: %" PRId64 " weights; experts: %" PRId64 " hash-routed, %" PRId64
                    " score-routed",
                    strcmp(program, "nvfp4-cast") ? "packed" : "cast", (int64_t)weights,
                    (int64_t)hash, (int64_t)score);
            fprintf(out, mtp ? ", %" PRId64 " MTP\n" : "\n", (int64_t)mtp);
        }
        if (!json_unpack(stage, "{s:I}", "weight_amax_synthesized", &n))
            fprintf(out, "weight amaxes taken from the weight itself: %" PRId64 "\n", (int64_t)n);
        if (!json_unpack(stage, "{s:I}", "zero_weights", &n) && n)
            fprintf(out, "weights that are all zero: %" PRId64 "\n", (int64_t)n);
        json_array_foreach(amax, j, merge)
        {
            if (!json_unpack(merge, "{s:I, s:s}", "input_fallback", &n, "fallback", &rule) && n)
                fprintf(out, "input amaxes of experts never reached: %" PRId64 " filled in (%s)\n",
                        (int64_t)n, rule);
        }
        if (!json_unpack(stage, "{s:I, s:I}", "dequantized", &weights, "nan", &n))
            fprintf(out, "%s: %" PRId64 " weights became BF16%s\n", program, (int64_t)weights,
                    n ? ", with NaN among them" : "");
        if (!json_unpack(stage, "{s:I, s:I}", "blocks", &blocks, "lossy", &lossy))
            fprintf(out, "lossless MXFP4->NVFP4 blocks: %" PRId64 "/%" PRId64 " (%.4f%%)\n",
                    (int64_t)(blocks - lossy), (int64_t)blocks,
                    blocks ? 100.0 * (double)(blocks - lossy) / (double)blocks : 100.0);
    }
}

static void print_totals(FILE *out, const struct summary *s)
{
    char text[BYTES_TEXT];
    print_side(out, "in", s->input);
    print_side(out, "out", s->output);
    fprintf(out, "%-5s %s\n", "files", bytes_text((double)s->file_bytes, text));
}

static void print_summary(const struct summary *s, const char *path, bool verbose)
{
    char a[BYTES_TEXT], b[BYTES_TEXT], c[BYTES_TEXT], time[TIME_TEXT];
    fprintf(stderr, "%s\n", path);
    print_totals(stderr, s);
    print_counts(stderr, s->counts);
    if (verbose || s->shared)
        fprintf(stderr, "shared with the source %s, copied in the kernel %s, written %s\n",
                bytes_text((double)s->shared, a), bytes_text((double)s->copied, b),
                bytes_text((double)s->written, c));
    fprintf(stderr, "done in %s, %s/s\n", time_text(s->seconds, time),
            bytes_text((double)s->file_bytes / (s->seconds > 0 ? s->seconds : 1), a));
}

static void print_json(const struct summary *s, bool plan)
{
    json_t *document =
        json_pack("{s:b, s:O*, s:O, s:O*, s:I, s:I, s:I, s:I, s:I, s:f}", "plan", (int)plan,
                  "input", s->input, "output", s->output, "counts", s->counts, "file_bytes",
                  (json_int_t)s->file_bytes, "free_bytes", (json_int_t)s->free_bytes,
                  "shared_bytes", (json_int_t)s->shared, "copied_bytes", (json_int_t)s->copied,
                  "written_bytes", (json_int_t)s->written, "seconds", s->seconds);
    if (!document)
        die("out of memory");
    char *text = json_text(document, true, false);
    fputs(text, stdout);
    free(text);
    json_decref(document);
}

/* ---- the work ---- */

/* What makes two runs the same: input files, table, and where the bytes come from. */
static void fingerprint(struct ts_in *in, char *hex)
{
    char *text;
    json_t *files = sources_to_json(ts_sources(in));
    json_t *identity = json_pack("[O, O, O]", files, json_object_get(ts_header(in), "history"),
                                 json_object_get(ts_header(in), "scope"));
    struct digest *digest = digest_new();
    char *header = json_text(identity, false, true);
    digest_add(digest, header, strlen(header));
    size_t size = toc_format(ts_toc(in), &text);
    digest_add(digest, text, size);
    digest_end(digest, hex);
    json_decref(identity);
    json_decref(files);
    free(header);
    free(text);
}

/* Known before the first byte, where it can be: what is shared needs no space, but no more can be
 * shared than the sources hold. */
static void check_space(const struct summary *s, const struct shards *shards,
                        const struct target *target, struct ts_in *in, bool no_share)
{
    char needed[BYTES_TEXT], there[BYTES_TEXT];
    struct sources *sources = ts_sources(in);
    uint64_t least = s->file_bytes, available = s->free_bytes + shards_left_over(shards, target);
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
    copy_range(&shards->copier, sources_fd(ts_sources(in), source), offset, fd, 0, size, name);
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

static void check_input(struct ts_in *in, const struct options *o)
{
    const char *scope = json_string_value(json_object_get(ts_header(in), "scope"));
    bool data = false;
    for (size_t i = 0; i < ts_toc(in)->count; i++)
        data |= !ts_toc(in)->tensor[i].context;
    if (!data)
        die("%s: holds no tensor to write; is it the right stream?", ts_name(in));
    if (scope && strcmp(scope, "all") != 0 && !o->partial)
        die("%s: is only a part of a checkpoint (%s); --partial writes it all the same",
            ts_name(in), scope);
}

/* Everything that comes by reference or through the pipe, to the proven end. */
static void write_all(struct ts_in *in, struct target *target, struct shards *shards,
                      const struct configs *configs, const struct options *o, const char *hex)
{
    target_begin(target, hex);
    shards->copier.no_clone = o->no_share;
    shards_create(shards, target, in);
    for (const struct tensor *tensor; (tensor = ts_next(in));)
        if (!tensor->context)
            shards_write(shards, in);
    if (ts_plan_only(in))
        die("%s: is a plan, without tensors; run its stages without -n", ts_name(in));
    shards_finish(shards);
    write_side_files(target, shards, in, configs);
    sources_check(ts_sources(in));
}

int main(int argc, char **argv)
{
    struct options o = {0};
    const struct arg args[] = {
        {"json", ARG_FLAG, &o.json, 0, NULL, true},
        {"no-share", ARG_FLAG, &o.no_share, 0, NULL, true},
        {"overwrite", ARG_FLAG, &o.overwrite, 0, NULL, true},
        {"partial", ARG_FLAG, &o.partial, 0, NULL, true},
        {0},
    };
    struct stage stage;
    double start = now();
    stage_begin(&stage, usage, args, argc, argv, 2);
    if (!stage.operands)
        die_usage("into which folder?");
    if (stage.output)
        die_usage("-o does not go with st-write; the folder is its operand");
    stage.progress |= isatty(STDERR_FILENO) && !stage.quiet; /* always the last one */
    struct ts_in *in = ts_open(stage.operands > 1 ? stage.operand[1] : NULL, &stage);
    struct target target;
    struct shards shards;
    struct configs configs;
    check_input(in, &o);
    target_check(&target, stage.operand[0], o.overwrite,
                 json_string_value(json_object_get(ts_header(in), "source")), ts_sources(in));
    shards_plan(&shards, in);
    configs_derive(&configs, in);
    struct summary s = {.input = json_object_get(ts_header(in), "input"),
                        .output = formats_totals(ts_toc(in)),
                        .file_bytes = shards.bytes,
                        .free_bytes = target_free_bytes(&target)};

    char hex[DIGEST_TEXT];
    fingerprint(in, hex);
    bool plan = stage.plan;
    if (!plan && target_was_done(&target, hex)) {
        warn("%s: an earlier run had completed it but for its journal", target.path);
        ts_close(in);
        return stage_end(&stage);
    }
    check_space(&s, &shards, &target, in, o.no_share);
    if (plan)
        while (ts_next(in))
            continue;
    else
        write_all(in, &target, &shards, &configs, &o, hex);
    s.input = json_incref(s.input);
    s.counts = json_deep_copy(ts_end_counts(in));
    char *index = shards_index(ts_toc(in));
    char *path = xstrdup(target.path), free_text[BYTES_TEXT];
    if (!plan)
        write_derived(&target, &configs, index);
    shards_free(&shards);
    ts_close(in);
    if (!plan)
        target_finish(&target);

    s.shared = shards.copier.shared;
    s.copied = shards.copier.copied;
    s.written = shards.written;
    s.seconds = now() - start;
    if (o.json)
        print_json(&s, plan);
    if (plan && !o.json) {
        printf("plan for %s\n", path);
        print_totals(stdout, &s);
        printf("%-5s %s\n", "free", bytes_text((double)s.free_bytes, free_text));
    } else if (!plan && !stage.quiet) {
        print_summary(&s, path, stage.verbose);
    }
    configs_free(&configs);
    json_decref(s.input);
    json_decref(s.output);
    json_decref(s.counts);
    free(index);
    free(path);
    return stage_end(&stage);
}
