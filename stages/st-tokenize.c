/* st-tokenize: convert texts to token ids, and back. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/die.h"
#include "base/progress.h"
#include "base/temporary.h"
#include "base/text.h"
#include "base/utf8.h"
#include "stream/report.h"
#include "stream/tokens.h"
#include "stream/ts.h"
#include "text/samples.h"
#include "text/tokenizer.h"

static const struct program program = {
    .about =
        "Turn texts into token ids with a checkpoint's own tokenizer.json: a tensor "
        "stream of input_ids [samples, length] and lengths [samples]. Reads JSON "
        "lines or an array (names that end in .json, .jsonl or .ndjson, and standard input) or "
        "plain text; decompresses gzip and zstd.",
    .operands = {"[text-file ...]", "[stream]"},
    .examples =
        {"st-tokenize --tokenizer DeepSeek-V4 --samples 512 --length 512 news.jsonl >calib.ts",
         "st-tokenize --tokenizer DeepSeek-V4 --length 2048 --full book.txt >eval.ts",
         "st-tokenize --tokenizer DeepSeek-V4 --decode calib.ts | head -n 3"},
    .max_operands = ANY_OPERANDS,
};

struct options {
    const char *tokenizer, *field, *format, *samples;
    uint64_t length;
    bool full, pack, no_bos, decode;
};

static void check_options(const struct options *o, const struct stage *stage)
{
    bool encoding = o->field || o->format || o->samples || o->length || o->full || o->pack;
    if (!o->tokenizer)
        die_usage("which tokenizer? Give --tokenizer the checkpoint's folder");
    if (o->decode && (encoding || stage->plan || stage->operands > 1))
        die_usage("--decode takes one stream, and none of the options for texts");
    if (o->length > INT32_MAX || o->length == 1)
        die_usage("--length: wanted 2 to %d", INT32_MAX);
    if ((o->full || o->pack) && !o->length)
        die_usage("--full and --pack need --length");
    if (o->field && (!*o->field || *o->field == '+'))
        die_usage("--field: '%s' names no field", o->field);
}

/* ---- rows of ids, in an unnamed file ---- */

struct rows {
    FILE *spool;
    int32_t *length; /* of each */
    size_t count, room;
    uint64_t longest, tokens;
};

static _Noreturn void die_spool(void)
{
    die_errno("ids, spooling to $TMPDIR");
}

static void rows_begin(struct rows *rows)
{
    int fd = temporary_file(temporary_folder());
    *rows = (struct rows){.spool = fd < 0 ? NULL : fdopen(fd, "w+")};
    if (!rows->spool)
        die_spool();
}

static void rows_add(struct rows *rows, const int32_t *id, size_t count)
{
    if (rows->count == rows->room) {
        rows->room = rows->room ? 2 * rows->room : 1024;
        rows->length = xgrow(rows->length, rows->room, sizeof *rows->length);
    }
    rows->length[rows->count++] = (int32_t)count;
    rows->tokens += count;
    if (count > rows->longest)
        rows->longest = count;
    if (fwrite(id, sizeof *id, count, rows->spool) != count)
        die_spool();
}

static void rows_end(struct rows *rows)
{
    fclose(rows->spool);
    free(rows->length);
}

/* ---- text to rows ---- */

struct job {
    const struct options *o;
    const struct stage *stage;
    struct tokenizer *tokenizer;
    int32_t bos; /* -1: none */
    struct rows rows;
    json_t *sources;
    uint64_t empty, too_short; /* samples left out */
    struct progress *progress;
};

/* Append the begin-of-text token and one text's ids; false, appending nothing, if the text is
 * empty. */
static bool encode(struct job *job, const struct samples *samples, const struct passage *passage,
                   int32_t bos, size_t enough, struct ids *ids)
{
    size_t first = ids->count, begin = first + (bos >= 0);
    if (bos >= 0)
        ids_add(ids, bos);
    char *error = tokenizer_encode_passage(job->tokenizer, passage, enough, ids);
    if (error)
        die("%s: line %" PRIu64 ": %s", samples_name(samples), samples_line(samples), error);
    if (bos >= 0 && ids->count > begin && ids->id[begin] == bos) {
        ids->count--; /* the text already has it */
        memmove(ids->id + first, ids->id + begin, (ids->count - first) * sizeof *ids->id);
    }
    if (ids->count > begin)
        return true;
    ids->count = first;
    job->empty++;
    return false;
}

/* One row per sample. */
static void take_sample(struct job *job, struct ids *ids)
{
    size_t length = (size_t)job->o->length;
    if (job->o->full && ids->count < length)
        job->too_short++;
    else
        rows_add(&job->rows, ids->id, length && ids->count > length ? length : ids->count);
    ids->count = 0;
}

/* Cut the ids so far into rows, until there are `end` rows; each begins with `bos` unless that is
 * -1. At the file's end, the last one may be shorter. */
static void cut_rows(struct job *job, struct ids *ids, int32_t bos, size_t end, bool last)
{
    size_t length = (size_t)job->o->length, done = 0;
    size_t least = !last || job->o->full ? length : bos < 0 ? 1 : 2;
    while (job->rows.count < end && ids->count - done >= least) {
        size_t left = ids->count - done, size = left < length ? left : length;
        rows_add(&job->rows, ids->id + done, size);
        done += size;
        if (bos >= 0)
            ids->id[--done] = bos; /* over an id already written */
    }
    ids->count -= done;
    if (done) /* otherwise there may be no array */
        memmove(ids->id, ids->id + done, ids->count * sizeof *ids->id);
}

static void add_source(struct job *job, const char *path, size_t samples)
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    char *name;
    utf8_repair(base, strlen(base), &name);
    json_array_append_new(job->sources,
                          json_pack("{s:s, s:I}", "file", name, "samples", (json_int_t)samples));
    free(name);
}

/* All rows of one file, at most `limit`; how many there were. */
static size_t tokenize(struct job *job, const char *path, enum samples_format format, size_t limit)
{
    const struct options *o = job->o;
    size_t before = job->rows.count, end = limit < SIZE_MAX - before ? before + limit : SIZE_MAX;
    bool flow = o->pack || format == SAMPLES_TEXT;
    size_t enough = flow || !o->length ? SIZE_MAX : (size_t)o->length + 1;
    int32_t bos = job->bos, row_bos = o->pack ? -1 : bos;
    struct ids ids = {0};
    struct samples *samples =
        samples_open(path, format, o->field, tokenizer_chat_style(job->tokenizer));
    if (format == SAMPLES_TEXT && !o->length)
        die_usage("plain text has no samples of its own: give --length");

    struct passage passage;
    uint64_t seen = 0;
    while (job->rows.count < end && samples_next(samples, &passage)) {
        if (encode(job, samples, &passage, bos, enough, &ids)) {
            if (flow)
                cut_rows(job, &ids, row_bos, end, false);
            else
                take_sample(job, &ids);
        }
        if (format == SAMPLES_TEXT)
            bos = -1; /* the rest is of the same sample */
        progress_add(job->progress, samples_bytes(samples) - seen, 0);
        seen = samples_bytes(samples);
    }
    if (ids.count)
        cut_rows(job, &ids, row_bos, end, true);

    size_t found = job->rows.count - before;
    job->empty += samples_nulls(samples);
    add_source(job, samples_name(samples), found);
    samples_close(samples);
    free(ids.id);
    return found;
}

static enum samples_format format_of(const struct options *o, const char *path)
{
    static const char *const lines[] = {".jsonl", ".ndjson", ".json"};
    static const char *const packed[] = {"", ".gz", ".zst"};
    if (o->format)
        return strcmp(o->format, "text") ? SAMPLES_JSONL : SAMPLES_TEXT;
    enum { LINES = sizeof lines / sizeof *lines, PACKED = sizeof packed / sizeof *packed };
    bool found = !path;
    for (unsigned i = 0; i < LINES * PACKED && !found; i++) {
        char *end = xprintf("%s%s", lines[i / PACKED], packed[i % PACKED]);
        found = ends_with(path, end);
        free(end);
    }
    return found ? SAMPLES_JSONL : SAMPLES_TEXT;
}

/* The row limit of each file from --samples, whose last number also applies to further files. The
 * caller frees it. */
static size_t *limits_of(const char *list, size_t files)
{
    size_t *limit = xalloc(files, sizeof *limit), count = 0;
    for (const char *at = list; at; count++) {
        char *end;
        errno = 0;
        unsigned long long number = strtoull(at, &end, 10);
        if (errno || *at < '0' || *at > '9' || number < 1 || (*end && *end != ','))
            die_usage("--samples: '%s' is not a number above 0, or several with commas", at);
        if (count == files)
            die_usage("--samples: more numbers than files");
        limit[count] = (size_t)number;
        at = *end ? end + 1 : NULL;
    }
    for (; count < files; count++)
        limit[count] = count ? limit[count - 1] : SIZE_MAX;
    return limit;
}

static uint64_t bytes_of(const struct stage *stage)
{
    uint64_t total = 0;
    for (int i = 0; i < stage->operands; i++) {
        struct stat status;
        if (!stat(stage->operand[i], &status) && S_ISREG(status.st_mode))
            total += (uint64_t)status.st_size;
    }
    return total;
}

static void tokenize_all(struct job *job)
{
    static char *standard_input[] = {"-"};
    const struct stage *stage = job->stage;
    char **path = stage->operands ? stage->operand : standard_input;
    size_t files = stage->operands ? (size_t)stage->operands : 1;
    size_t *limit = limits_of(job->o->samples, files), *found = xalloc(files, sizeof *found);
    const char *full = job->o->full ? " of full length" : "";
    for (size_t i = 0; i < files; i++) {
        const char *name = strcmp(path[i], "-") ? path[i] : NULL;
        enum samples_format format = format_of(job->o, name);
        found[i] = tokenize(job, name, format, limit[i]);
    }
    if (!job->rows.count)
        die("%s: no sample%s in %s (%" PRIu64 " empty, %" PRIu64 " too short)", path[0], full,
            files > 1 ? "it and the other files" : "it", job->empty, job->too_short);
    for (size_t i = 0; i < files && !stage->quiet; i++)
        if (limit[i] != SIZE_MAX && found[i] < limit[i])
            warn("%s: %zu samples%s, wanted %zu", path[i], found[i], full, limit[i]);
    free(found);
    free(limit);
}

/* ---- rows to a stream ---- */

/* Rows are padded with the pad token, or 0 if the tokenizer has none. */
static void write_ids(struct job *job, struct ts_out *out, uint64_t length)
{
    struct rows *rows = &job->rows;
    int32_t pad = tokenizer_pad(job->tokenizer);
    int32_t *row = xgrow(NULL, (size_t)length, sizeof *row);
    if (fflush(rows->spool) || fseek(rows->spool, 0, SEEK_SET))
        die_spool();
    ts_begin(out, "input_ids");
    for (size_t i = 0; i < rows->count; i++) {
        size_t count = (size_t)rows->length[i];
        if (fread(row, sizeof *row, count, rows->spool) != count)
            die_spool();
        for (size_t k = count; k < length; k++)
            row[k] = pad < 0 ? 0 : pad;
        ts_write(out, row, (size_t)length * sizeof *row);
    }
    free(row);
}

static void write_stream(struct job *job)
{
    static const char shard[] = "tokens.safetensors";
    const struct rows *rows = &job->rows;
    json_t *entry = job->stage->entry;
    uint64_t length = job->o->length ? job->o->length : rows->longest;
    struct toc *toc = toc_new();
    const uint64_t dim[] = {rows->count, length};
    toc_append(toc, shard, "input_ids", DTYPE_I32, 2, dim);
    toc_append(toc, shard, "lengths", DTYPE_I32, 1, dim);
    json_object_set(entry, "sources", job->sources);
    json_object_set_new(entry, "tokenizer", json_string(tokenizer_digest(job->tokenizer)));
    struct ts_out *out = ts_create(job->stage, NULL, toc);
    if (!job->stage->plan) {
        write_ids(job, out, length);
        ts_put(out, "lengths", rows->length, rows->count * sizeof *rows->length);
    }
    ts_finish(out, NULL,
              json_pack("{s:I, s:I, s:I, s:I}", "samples", (json_int_t)rows->count, "tokens",
                        (json_int_t)rows->tokens, "empty", (json_int_t)job->empty, "too_short",
                        (json_int_t)job->too_short));
    toc_free(toc);
}

static int encode_main(const struct options *o, struct stage *stage, struct tokenizer *tokenizer)
{
    struct job job = {.o = o,
                      .stage = stage,
                      .tokenizer = tokenizer,
                      .bos = o->no_bos ? -1 : tokenizer_bos(tokenizer),
                      .sources = json_array(),
                      .progress = progress_begin(stage->progress, bytes_of(stage), NULL, NULL)};
    if (job.bos < 0 && !o->no_bos)
        die("%s: no token begins a text; see bos_token in tokenizer_config.json, or use --no-bos",
            o->tokenizer);
    rows_begin(&job.rows);
    tokenize_all(&job);
    progress_end(job.progress);
    if (job.empty + job.too_short && !stage->quiet)
        warn("left out: %" PRIu64 " empty or null samples, %" PRIu64 " shorter than %" PRIu64
             " tokens",
             job.empty, job.too_short, o->length);
    if (stage->verbose)
        warn("%zu samples, %" PRIu64 " tokens, the longest %" PRIu64, job.rows.count,
             job.rows.tokens, job.rows.longest);
    write_stream(&job);
    rows_end(&job.rows);
    json_decref(job.sources);
    return stage_end(stage);
}

/* ---- ids to text ---- */

static int decode_main(const struct options *o, struct stage *stage,
                       const struct tokenizer *tokenizer)
{
    struct tokens tokens;
    tokens_load(&tokens, stage_input(stage), INT32_MAX, 0, 0);
    report_begin(stage);
    int32_t bos = o->no_bos ? -1 : tokenizer_bos(tokenizer);
    for (uint64_t i = 0; i < tokens.samples; i++) {
        const int32_t *row = tokens.id + tokens.start[i];
        size_t count = (size_t)(tokens.start[i + 1] - tokens.start[i]),
               first = count && bos >= 0 && row[0] == bos;
        char *text;
        size_t length;
        size_t good = tokenizer_decode(tokenizer, row + first, count - first, &text, &length);
        if (good < count - first)
            die("input_ids: row %" PRIu64 ", column %zu: the tokenizer has no token %" PRId32
                "; is it another checkpoint's?",
                i, first + good, row[first + good]);
        report_record(REPORT_JSON, json_pack("{s:s%}", "text", text, length));
        free(text);
    }
    if (stage->verbose)
        warn("%" PRIu64 " samples", tokens.samples);
    tokens_free(&tokens);
    return report_end(stage);
}

static void take_options(struct options *o, struct stage *stage, int argc, char **argv)
{
    const struct arg args[] = {
        {.name = "tokenizer",
         .kind = ARG_INPUT,
         .to = &o->tokenizer,
         .value = "dir | file",
         .help = "a checkpoint's folder, or its tokenizer.json",
         .required = EVERY_FORM,
         .silent = true},
        {.name = "decode",
         .to = &o->decode,
         .help = "turn ids back into text: a line {\"text\": ...} per sample",
         .in = FORM(1),
         .required = FORM(1)},
        {.name = "field",
         .kind = ARG_TEXT,
         .to = &o->field,
         .value = "name",
         .help = "the field with a sample's text or messages; a+b joins texts (default: the first "
                 "present of text, article, prompt+response, messages, conversations)",
         .in = FORM(0)},
        {.name = "format",
         .kind = ARG_CHOICE,
         .to = &o->format,
         .value = "form",
         .choices = "jsonl|text",
         .help = "read all files as jsonl or as text, whatever their names",
         .in = FORM(0)},
        {.name = "samples",
         .kind = ARG_TEXT,
         .to = &o->samples,
         .value = "list",
         .help = "the most samples from each file; 24,12: 24 from the first, 12 from each other",
         .in = FORM(0)},
        {.name = "length",
         .kind = ARG_NUMBER,
         .to = &o->length,
         .value = "L",
         .help = "cut samples to L tokens",
         .in = FORM(0)},
        {.name = "full",
         .to = &o->full,
         .help = "leave out samples with fewer than L tokens",
         .in = FORM(0)},
        {.name = "pack",
         .to = &o->pack,
         .help = "join samples, and cut rows every L tokens",
         .in = FORM(0)},
        {.name = "no-bos",
         .to = &o->no_bos,
         .help = "do not begin samples with the begin-of-text token"},
        {.name = "plan", .in = FORM(0)},
        {.name = "verbose", .help = "say how many samples and tokens there are"},
        {0},
    };
    stage_begin(stage, &program, args, argc, argv);
}

int main(int argc, char **argv)
{
    struct options o = {0};
    struct stage stage;
    take_options(&o, &stage, argc, argv);
    check_options(&o, &stage);
    struct tokenizer *tokenizer = tokenizer_open(o.tokenizer);
    int status = o.decode ? decode_main(&o, &stage, tokenizer) : encode_main(&o, &stage, tokenizer);
    tokenizer_free(tokenizer);
    return status;
}
