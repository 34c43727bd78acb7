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
#include "tensor/weight.h"
#include "write/input_scales.h"
#include "write/side_files.h"

/* MXFP4 weights that a run has left as they are, beside the ones that it made NVFP4. */
struct kept {
    uint64_t drafts, others; /* matrices */
    uint64_t bytes;
};

static struct kept kept_mxfp4(const struct ts_in *in, const struct toc *toc)
{
    struct kept kept = {0};
    bool nvfp4 = false;
    for (size_t i = 0; i < toc->count; i++) {
        const struct tensor *tensor = &toc->tensor[i];
        const enum format format = tensor->context ? FORMAT_COUNT : format_of(tensor);
        nvfp4 |= format == FORMAT_NVFP4;
        if (format != FORMAT_MXFP4)
            continue;
        bool draft = model_place(ts_model(in), tensor->name).section == SECTION_MTP;
        *(draft ? &kept.drafts : &kept.others) += 1;
        kept.bytes += tensor->size;
    }
    return nvfp4 ? kept : (struct kept){0};
}

static void note_kept(json_t *notes, const struct ts_in *in, const struct toc *toc)
{
    char bytes[BYTES_TEXT];
    const struct kept kept = kept_mxfp4(in, toc);
    bytes_text((double)kept.bytes, bytes);
    if (kept.drafts && !kept.others)
        json_array_append_new(
            notes, json_sprintf("stays MXFP4: %s, %" PRIu64 " matrices of the drafts' experts "
                                "(mtp.*), as SGLang needs them (--drafts cast makes them NVFP4)",
                                bytes, kept.drafts));
    else if (kept.others)
        json_array_append_new(notes, json_sprintf("stays MXFP4: %s, %" PRIu64
                                                  " matrices that the recipe does not "
                                                  "name, and %" PRIu64 " of drafts (mtp.*)",
                                                  bytes, kept.others, kept.drafts));
}

json_t *summary_notes(const struct ts_in *in, const struct configs *configs, const struct toc *toc)
{
    json_t *notes = json_array();
    const char *left_out = side_files_left_out(in, configs);
    if (left_out)
        json_array_append_new(notes, json_sprintf("left out: %s, code for the source's formats; "
                                                  "README.md says how to load the result",
                                                  left_out));
    note_kept(notes, in, toc);
    return notes;
}

json_t *summary_engines(const struct configs *configs, bool whole)
{
    json_t *lines = json_array();
    if (!whole || !engines_know(&configs->evidence))
        return lines;
    bool any = false;
    for (const struct engine *engine = engines; engine->name; engine++) {
        const struct rule *rule;
        char *line = engine_line(engine, &configs->evidence);
        json_array_append_new(lines, json_string(line));
        free(line);
        any |= engine->serve &&
               engine_judge(engine, &configs->evidence, false, &rule) == VERDICT_LOADS;
    }
    if (!any)
        json_array_append_new(lines, json_string("no engine is known to serve this checkpoint"));
    return lines;
}

/* "in        667 tensors,   12.7 MB: BF16 5.2 MB, F32 1.1 MB, …" */
static void print_side(FILE *out, const char *side, const json_t *totals)
{
    enum { INDENT = 33 };
    const char *format;
    json_t *bytes;
    char text[BYTES_TEXT];
    size_t column = INDENT, left = json_object_size(json_object_get(totals, "formats"));
    if (!json_is_object(totals))
        return;
    text_print(out, "%-5s %7" PRId64 " tensors, %9s:", side,
               (int64_t)json_integer_value(json_object_get(totals, "tensors")),
               bytes_text(json_number_value(json_object_get(totals, "bytes")), text));
    json_object_foreach(json_object_get(totals, "formats"), format, bytes)
    {
        char *item = xprintf(" %s %s%s", format, bytes_text(json_number_value(bytes), text),
                             --left ? "," : "");
        if (column + strlen(item) > TEXT_WIDTH) {
            fprintf(out, "\n%*s", INDENT - 1, "");
            column = INDENT - 1;
        }
        text_print(out, "%s", item);
        column += strlen(item);
        free(item);
    }
    fputc('\n', out);
}

/* The stream may name any. */
static void print_folders(FILE *out, const json_t *document)
{
    size_t i;
    json_t *folder;
    json_array_foreach(json_object_get(document, "folders"), i, folder)
        text_print(out, "%-5s %s\n", "from", json_string_value(folder));
}

void summary_print_lines(FILE *out, const json_t *lines)
{
    size_t i;
    json_t *line;
    json_array_foreach(lines, i, line) if (json_is_string(line))
        text_wrap(out, 0, 2, json_string_value(line));
}

void summary_print_formats(FILE *out, const json_t *document)
{
    char text[BYTES_TEXT];
    json_t *input = json_object_get(document, "input");
    print_side(out, "in", input);
    json_int_t unindexed = json_integer_value(json_object_get(input, "unindexed"));
    if (unindexed)
        text_print(out, "left out: %" PRId64 " tensors that the source's index does not name\n",
                   (int64_t)unindexed);
    print_side(out, "out", json_object_get(document, "output"));
    text_print(out, "%-5s %s\n", "files",
               bytes_text(json_number_value(json_object_get(document, "file_bytes")), text));
    json_int_t left_out;
    const char *first;
    if (!json_unpack(input, "{s:I, s:s}", "left_out", &left_out, "left_out_first", &first)) {
        char *line = xprintf("left out: %" PRId64 " side files that are no part of a checkpoint, "
                             "first %s",
                             (int64_t)left_out, first);
        text_wrap(out, 0, 2, line);
        free(line);
    }
    summary_print_lines(out, json_object_get(document, "notes"));
}

/* ---- the stages' counts: each line is printed if its numbers exist ---- */

static void print_experts(FILE *out, const json_t *document, const json_t *stage,
                          const char *program)
{
    json_t *weights = json_object_get(stage, "weights"),
           *experts = json_object_get(stage, "experts");
    if (!json_is_integer(weights) || !json_is_object(experts))
        return;
    text_print(out, "%s: %" PRId64 " weights", strcmp(program, "nvfp4-cast") ? "packed" : "cast",
               (int64_t)json_integer_value(weights));
    const char *separator = "; experts: ";
    const char *key;
    json_t *title;
    json_object_foreach(json_object_get(document, "classes"), key, title)
    {
        json_int_t count = json_integer_value(json_object_get(experts, key));
        if (!count)
            continue;
        text_print(out, "%s%" PRId64 " %s", separator, (int64_t)count, json_string_value(title));
        separator = ", ";
    }
    fputc('\n', out);
}

static void print_weight_amaxes(FILE *out, const json_t *document, const json_t *stage,
                                const char *program)
{
    (void)document;
    (void)program;
    const json_t *synthesized = json_object_get(stage, "weight_amax_synthesized");
    if (synthesized)
        text_print(out, "weight amaxes taken from the weights themselves: %" PRId64 "\n",
                   (int64_t)json_integer_value(synthesized));
}

static void print_fp8(FILE *out, const json_t *document, const json_t *stage, const char *program)
{
    (void)document;
    json_int_t weights, synthesized;
    if (!json_unpack((json_t *)stage, "{s:I, s:I}", "fp8_weights", &weights, "fp8_amax_synthesized",
                     &synthesized) &&
        weights)
        text_print(out,
                   "%s: %" PRId64 " weights became FP8 with one scale, of which %" PRId64
                   " amaxes were taken from the weights themselves\n",
                   program, (int64_t)weights, (int64_t)synthesized);
}

static void print_zeros(FILE *out, const json_t *document, const json_t *stage, const char *program)
{
    (void)document;
    json_int_t zero;
    const char *first;
    if (!json_unpack((json_t *)stage, "{s:I, s:s}", "zero_weights", &zero, "zero_first", &first))
        text_print(out, "%s: weights or scales that are all zero: %" PRId64 ", first %s\n", program,
                   (int64_t)zero, first);
}

/* True if a stage before this one had the same amaxes. */
static bool told_amaxes(const json_t *document, const json_t *stage)
{
    size_t i;
    json_t *before;
    json_array_foreach(json_object_get(document, "counts"), i, before)
    {
        if (before == stage)
            break;
        if (json_equal(json_object_get(before, "amax"), json_object_get(stage, "amax")))
            return true;
    }
    return false;
}

static void print_input_amaxes(FILE *out, const json_t *document, const json_t *stage,
                               const char *program)
{
    (void)program;
    size_t i;
    json_t *merge;
    if (told_amaxes(document, stage))
        return;
    json_array_foreach(json_object_get(stage, "amax"), i, merge)
    {
        json_int_t filled, drafts;
        const char *rule, *w2 = json_string_value(json_object_get(merge, "w2"));
        if (!json_unpack(merge, "{s:I, s:s}", "input_fallback", &filled, "fallback", &rule) &&
            filled)
            text_print(out, "input amaxes of experts never reached: %" PRId64 " filled in (%s)\n",
                       (int64_t)filled, rule);
        if (!json_unpack(merge, "{s:I, s:s}", "drafts_fallback", &drafts, "fallback", &rule) &&
            drafts)
            text_print(out,
                       "input amaxes of drafts not calibrated: %" PRId64
                       " filled in from the last layer (%s)\n",
                       (int64_t)drafts, rule);
        if (json_is_true(json_object_get(merge, "headroom")))
            text_print(out, "input amaxes: with room above the calibration's largest inputs\n");
        if (w2)
            text_print(out, "input amaxes of w2: %s the router's weight (%s)\n",
                       strcmp(w2, "engine") ? "with" : "without", w2);
    }
}

static void print_moments(FILE *out, const json_t *document, const json_t *stage,
                          const char *program)
{
    (void)document;
    json_int_t known, unknown;
    if (!json_unpack((json_t *)stage, "{s:I, s:I}", "moments_known", &known, "moments_unknown",
                     &unknown))
        text_print(out,
                   "%s: weights whose block scales were chosen by the output's error: %" PRId64
                   " of %" PRId64 "\n",
                   program, (int64_t)known, (int64_t)(known + unknown));
}

static void print_dequantized(FILE *out, const json_t *document, const json_t *stage,
                              const char *program)
{
    (void)document;
    json_int_t weights, nan;
    if (!json_unpack((json_t *)stage, "{s:I, s:I}", "dequantized", &weights, "nan", &nan) &&
        weights)
        text_print(out, "%s: %" PRId64 " weights became BF16%s\n", program, (int64_t)weights,
                   nan ? ", with NaN among them" : "");
}

static void print_blocks(FILE *out, const json_t *document, const json_t *stage,
                         const char *program)
{
    (void)document;
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
            text_print(out, "lossless MXFP4->%s blocks: %" PRId64 "/%" PRId64 " (%.4f%%)\n",
                       cast[i].format, (int64_t)(blocks - lossy), (int64_t)blocks,
                       blocks ? 100.0 * (double)(blocks - lossy) / (double)blocks : 100.0);
    }
}

static void print_counts(FILE *out, const json_t *document)
{
    static void (*const lines[])(FILE * out, const json_t *document, const json_t *stage,
                                 const char *program) = {
        print_experts,      print_weight_amaxes, print_fp8,         print_zeros,
        print_input_amaxes, print_moments,       print_dequantized, print_blocks};
    size_t i;
    json_t *stage;
    json_array_foreach(json_object_get(document, "counts"), i, stage)
    {
        const char *program = json_string_value(json_object_get(stage, "program"));
        for (size_t j = 0; program && j < sizeof lines / sizeof *lines; j++)
            lines[j](out, document, stage, program);
    }
}

/* The input scales that amax-merge says engines use, of the last stage that quantized. */
static void print_input_scales(FILE *out, const json_t *document, bool verbose)
{
    size_t i, j;
    json_t *stage, *merge;
    const json_t *scales = NULL;
    json_array_foreach(json_object_get(document, "counts"), i, stage)
        json_array_foreach(json_object_get(stage, "amax"), j, merge)
    {
        const json_t *own = json_object_get(merge, "input_scales");
        scales = own ? own : scales;
    }
    if (scales)
        input_scales_print(out, scales, verbose);
}

void summary_print_counts(FILE *out, const json_t *document, bool verbose)
{
    print_counts(out, document);
    print_input_scales(out, document, verbose);
    int64_t finished = json_integer_value(json_object_get(document, "finished_shards"));
    if (finished)
        text_print(out, "%" PRId64 " of %" PRId64 " shards were finished by an earlier run\n",
                   finished, (int64_t)json_integer_value(json_object_get(document, "shards")));
    if (json_is_true(json_object_get(document, "verified")))
        text_print(out, "verified: all shards were read again, and are what was written\n");
}

/* ---- the whole summary ---- */

static double number_of(const json_t *document, const char *key)
{
    return json_number_value(json_object_get(document, key));
}

/* The rate is of the bytes that this run wrote, in all of its time: shared ones cost none, and
 * those of an earlier run are not its own. */
static void print_time(FILE *out, const json_t *document)
{
    char rate[BYTES_TEXT], time[TIME_TEXT];
    double seconds = number_of(document, "seconds");
    double bytes = number_of(document, "copied_bytes") + number_of(document, "written_bytes");
    text_print(out, "done in %s", time_text(seconds, time));
    if (bytes > 0 && seconds > 0)
        text_print(out, ", %s/s", bytes_text(bytes / seconds, rate));
    fputc('\n', out);
}

void summary_print(FILE *out, const json_t *document, const char *path, bool verbose)
{
    char a[BYTES_TEXT], b[BYTES_TEXT], c[BYTES_TEXT];
    text_print(out, "%s\n", path);
    if (verbose)
        print_folders(out, document);
    summary_print_formats(out, document);
    summary_print_lines(out, json_object_get(document, "engines"));
    summary_print_counts(out, document, verbose);
    if (verbose || number_of(document, "shared_bytes") > 0)
        text_print(out, "shared with the source %s, copied in the kernel %s, written %s\n",
                   bytes_text(number_of(document, "shared_bytes"), a),
                   bytes_text(number_of(document, "copied_bytes"), b),
                   bytes_text(number_of(document, "written_bytes"), c));
    print_time(out, document);
}

void summary_print_plan(FILE *out, const json_t *document, const char *path)
{
    char text[BYTES_TEXT];
    text_print(out, "plan for %s\n", path);
    print_folders(out, document);
    summary_print_formats(out, document);
    summary_print_lines(out, json_object_get(document, "engines"));
    text_print(out, "%-5s %s\n", "free", bytes_text(number_of(document, "free_bytes"), text));
}

json_t *summary_document(const struct summary *s, bool plan)
{
    json_t *classes = json_object();
    for (const struct expert_class *class = s->classes; class && class->key; class ++)
        json_object_set_new(classes, class->key, json_string(class->title));
    json_t *document = json_pack(
        "{s:b, s:O*, s:O*, s:O, s:O*, s:o, s:O*, s:O*, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, "
        "s:f}",
        "plan", (int)plan, "folders", s->folders, "input", s->input, "output", s->output, "counts",
        s->counts, "classes", classes, "notes", s->notes, "engines", s->engines, "file_bytes",
        (json_int_t)s->file_bytes, "free_bytes", (json_int_t)s->free_bytes, "shared_bytes",
        (json_int_t)s->shared, "copied_bytes", (json_int_t)s->copied, "written_bytes",
        (json_int_t)s->written, "shards", (json_int_t)s->shards, "finished_shards",
        (json_int_t)s->finished, "verified", (int)s->verified, "seconds", s->seconds);
    if (!document)
        die("out of memory");
    return document;
}

void summary_free(struct summary *s)
{
    json_decref(s->input);
    json_decref(s->output);
    json_decref(s->counts);
    json_decref(s->folders);
    json_decref(s->notes);
    json_decref(s->engines);
}
