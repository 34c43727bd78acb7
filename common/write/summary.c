#include "write/summary.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/json.h"
#include "base/progress.h"
#include "base/text.h"
#include "engines/engines.h"
#include "write/input_scales.h"
#include "write/side_files.h"

json_t *summary_notes(const struct ts_in *in, const struct configs *configs, bool whole)
{
    json_t *notes = json_array();
    const char *left_out = side_files_left_out(in, configs);
    if (left_out)
        json_array_append_new(notes, json_sprintf("left out: %s, code that reads the formats of "
                                                  "the source; README.md says what is here",
                                                  left_out));
    if (!whole || !engines_know(&configs->evidence))
        return notes;
    bool any = false;
    for (const struct engine *engine = engines; engine->name; engine++) {
        const struct rule *rule;
        char *line = engine_line(engine, &configs->evidence);
        json_array_append_new(notes, json_string(line));
        free(line);
        any |= engine->serve &&
               engine_judge(engine, &configs->evidence, false, &rule) == VERDICT_LOADS;
    }
    if (!any)
        json_array_append_new(notes, json_string("no engine is known to serve this checkpoint"));
    return notes;
}

static void print_side(FILE *out, const char *side, const json_t *totals)
{
    const char *format;
    json_t *bytes;
    char text[BYTES_TEXT];
    if (!totals)
        return;
    json_int_t tensors = json_integer_value(json_object_get(totals, "tensors"));
    json_int_t all = json_integer_value(json_object_get(totals, "bytes"));
    text_print(out, "%-5s %7" PRId64 " tensors, %9s: ", side, (int64_t)tensors,
               bytes_text((double)all, text));
    const char *separator = "";
    json_object_foreach(json_object_get(totals, "formats"), format, bytes)
    {
        text_print(out, "%s%s %s", separator, format,
                   bytes_text((double)json_integer_value(bytes), text));
        separator = ", ";
    }
    fputc('\n', out);
}

/* The stream may name any. */
static void print_folders(FILE *out, const struct summary *s)
{
    size_t i;
    json_t *folder;
    json_array_foreach(s->folders, i, folder)
        text_print(out, "%-5s %s\n", "from", json_string_value(folder));
}

static void print_totals(FILE *out, const struct summary *s)
{
    char text[BYTES_TEXT];
    print_side(out, "in", s->input);
    json_int_t unindexed = json_integer_value(json_object_get(s->input, "unindexed"));
    if (unindexed)
        text_print(out, "left out: %" PRId64 " tensors that the source's index does not name\n",
                   (int64_t)unindexed);
    print_side(out, "out", s->output);
    text_print(out, "%-5s %s\n", "files", bytes_text((double)s->file_bytes, text));
    json_int_t left_out;
    const char *first;
    if (!json_unpack(s->input, "{s:I, s:s}", "left_out", &left_out, "left_out_first", &first))
        text_print(out,
                   "left out: %" PRId64 " side files that are no part of a checkpoint, first %s\n",
                   (int64_t)left_out, first);
    size_t i;
    json_t *note;
    json_array_foreach(s->notes, i, note) text_print(out, "%s\n", json_string_value(note));
}

/* ---- the stages' counts: each line is printed if its numbers exist ---- */

static void print_experts(const struct summary *s, const json_t *stage, const char *program)
{
    json_t *weights = json_object_get(stage, "weights"),
           *experts = json_object_get(stage, "experts");
    if (!json_is_integer(weights) || !json_is_object(experts))
        return;
    text_print(stderr, "%s: %" PRId64 " weights", strcmp(program, "nvfp4-cast") ? "packed" : "cast",
               (int64_t)json_integer_value(weights));
    const char *separator = "; experts: ";
    for (const struct expert_class *class = s->classes; class->key; class ++) {
        json_int_t count = json_integer_value(json_object_get(experts, class->key));
        if (!count)
            continue;
        text_print(stderr, "%s%" PRId64 " %s", separator, (int64_t)count, class->title);
        separator = ", ";
    }
    fputc('\n', stderr);
}

static void print_weight_amaxes(const struct summary *s, const json_t *stage, const char *program)
{
    (void)s;
    (void)program;
    const json_t *synthesized = json_object_get(stage, "weight_amax_synthesized");
    if (synthesized)
        text_print(stderr, "weight amaxes taken from the weight itself: %" PRId64 "\n",
                   (int64_t)json_integer_value(synthesized));
}

static void print_fp8(const struct summary *s, const json_t *stage, const char *program)
{
    (void)s;
    json_int_t weights, synthesized;
    if (!json_unpack((json_t *)stage, "{s:I, s:I}", "fp8_weights", &weights, "fp8_amax_synthesized",
                     &synthesized) &&
        weights)
        text_print(stderr,
                   "%s: %" PRId64 " weights became FP8 with one scale, of which %" PRId64
                   " amaxes were taken from the weight itself\n",
                   program, (int64_t)weights, (int64_t)synthesized);
}

static void print_zeros(const struct summary *s, const json_t *stage, const char *program)
{
    (void)s;
    json_int_t zero;
    const char *first;
    if (!json_unpack((json_t *)stage, "{s:I, s:s}", "zero_weights", &zero, "zero_first", &first))
        text_print(stderr, "%s: weights or scales that are all zero: %" PRId64 ", first %s\n",
                   program, (int64_t)zero, first);
}

/* True if a stage before this one had the same amaxes. */
static bool told_amaxes(const struct summary *s, const json_t *stage)
{
    size_t i;
    json_t *before;
    json_array_foreach(s->counts, i, before)
    {
        if (before == stage)
            break;
        if (json_equal(json_object_get(before, "amax"), json_object_get(stage, "amax")))
            return true;
    }
    return false;
}

static void print_input_amaxes(const struct summary *s, const json_t *stage, const char *program)
{
    (void)program;
    size_t i;
    json_t *merge;
    if (told_amaxes(s, stage))
        return;
    json_array_foreach(json_object_get(stage, "amax"), i, merge)
    {
        json_int_t filled, drafts;
        const char *rule, *w2 = json_string_value(json_object_get(merge, "w2"));
        if (!json_unpack(merge, "{s:I, s:s}", "input_fallback", &filled, "fallback", &rule) &&
            filled)
            text_print(stderr,
                       "input amaxes of experts never reached: %" PRId64 " filled in (%s)\n",
                       (int64_t)filled, rule);
        if (!json_unpack(merge, "{s:I, s:s}", "drafts_fallback", &drafts, "fallback", &rule) &&
            drafts)
            text_print(stderr,
                       "input amaxes of drafts not calibrated: %" PRId64
                       " filled in from the last layer (%s)\n",
                       (int64_t)drafts, rule);
        if (json_is_true(json_object_get(merge, "headroom")))
            text_print(stderr, "input amaxes: with room above the calibration's largest inputs\n");
        if (w2)
            text_print(stderr, "input amaxes of w2: %s the router's weight (%s)\n",
                       strcmp(w2, "engine") ? "with" : "without", w2);
    }
}

static void print_moments(const struct summary *s, const json_t *stage, const char *program)
{
    (void)s;
    json_int_t known, unknown;
    if (!json_unpack((json_t *)stage, "{s:I, s:I}", "moments_known", &known, "moments_unknown",
                     &unknown))
        text_print(stderr,
                   "%s: weights whose block scales were chosen by the output's error: %" PRId64
                   " of %" PRId64 "\n",
                   program, (int64_t)known, (int64_t)(known + unknown));
}

static void print_dequantized(const struct summary *s, const json_t *stage, const char *program)
{
    (void)s;
    json_int_t weights, nan;
    if (!json_unpack((json_t *)stage, "{s:I, s:I}", "dequantized", &weights, "nan", &nan) &&
        weights)
        text_print(stderr, "%s: %" PRId64 " weights became BF16%s\n", program, (int64_t)weights,
                   nan ? ", with NaN among them" : "");
}

static void print_blocks(const struct summary *s, const json_t *stage, const char *program)
{
    (void)s;
    (void)program;
    static const struct {
        const char *blocks, *lossy, *format;
        bool none; /* also where there are none */
    } cast[] = {{"blocks", "lossy", "NVFP4", true}, {"fp8_blocks", "fp8_lossy", "FP8", false}};
    for (size_t i = 0; i < sizeof cast / sizeof *cast; i++) {
        json_int_t blocks, lossy;
        if (!json_unpack((json_t *)stage, "{s:I, s:I}", cast[i].blocks, &blocks, cast[i].lossy,
                         &lossy) &&
            (blocks || cast[i].none))
            text_print(stderr, "lossless MXFP4->%s blocks: %" PRId64 "/%" PRId64 " (%.4f%%)\n",
                       cast[i].format, (int64_t)(blocks - lossy), (int64_t)blocks,
                       blocks ? 100.0 * (double)(blocks - lossy) / (double)blocks : 100.0);
    }
}

static void print_counts(const struct summary *s)
{
    static void (*const lines[])(const struct summary *s, const json_t *stage,
                                 const char *program) = {
        print_experts,      print_weight_amaxes, print_fp8,         print_zeros,
        print_input_amaxes, print_moments,       print_dequantized, print_blocks};
    size_t i;
    json_t *stage;
    json_array_foreach(s->counts, i, stage)
    {
        const char *program = json_string_value(json_object_get(stage, "program"));
        for (size_t j = 0; program && j < sizeof lines / sizeof *lines; j++)
            lines[j](s, stage, program);
    }
}

/* The input scales that amax-merge says engines use, of the last stage that quantized. */
static void print_input_scales(const struct summary *s, bool verbose)
{
    size_t i, j;
    json_t *stage, *merge;
    const json_t *scales = NULL;
    json_array_foreach(s->counts, i, stage)
        json_array_foreach(json_object_get(stage, "amax"), j, merge)
    {
        const json_t *own = json_object_get(merge, "input_scales");
        scales = own ? own : scales;
    }
    if (scales)
        input_scales_print(stderr, scales, verbose);
}

/* ---- the whole summary ---- */

void summary_print(const struct summary *s, const char *path, bool verbose)
{
    char a[BYTES_TEXT], b[BYTES_TEXT], c[BYTES_TEXT], time[TIME_TEXT];
    text_print(stderr, "%s\n", path);
    if (verbose)
        print_folders(stderr, s);
    print_totals(stderr, s);
    print_counts(s);
    print_input_scales(s, verbose);
    if (s->finished)
        text_print(stderr, "%" PRIu64 " of %" PRIu64 " shards were finished by an earlier run\n",
                   s->finished, s->shards);
    if (verbose || s->shared)
        text_print(stderr, "shared with the source %s, copied in the kernel %s, written %s\n",
                   bytes_text((double)s->shared, a), bytes_text((double)s->copied, b),
                   bytes_text((double)s->written, c));
    text_print(stderr, "done in %s, %s/s\n", time_text(s->seconds, time),
               bytes_text((double)s->file_bytes / (s->seconds > 0 ? s->seconds : 1), a));
}

void summary_print_plan(const struct summary *s, const char *path)
{
    char text[BYTES_TEXT];
    text_print(stdout, "plan for %s\n", path);
    print_folders(stdout, s);
    print_totals(stdout, s);
    text_print(stdout, "%-5s %s\n", "free", bytes_text((double)s->free_bytes, text));
}

void summary_print_json(const struct summary *s, bool plan)
{
    json_t *document = json_pack(
        "{s:b, s:O*, s:O*, s:O, s:O*, s:O*, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f}", "plan",
        (int)plan, "folders", s->folders, "input", s->input, "output", s->output, "counts",
        s->counts, "notes", s->notes, "file_bytes", (json_int_t)s->file_bytes, "free_bytes",
        (json_int_t)s->free_bytes, "shared_bytes", (json_int_t)s->shared, "copied_bytes",
        (json_int_t)s->copied, "written_bytes", (json_int_t)s->written, "shards",
        (json_int_t)s->shards, "finished_shards", (json_int_t)s->finished, "seconds", s->seconds);
    if (!document)
        die("out of memory");
    json_print(stdout, document, true);
    putchar('\n');
    json_decref(document);
}
