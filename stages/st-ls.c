/* st-ls: list the tensors of a stream or checkpoint. */
#include <fnmatch.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/json.h"
#include "base/progress.h"
#include "base/text.h"
#include "stream/report.h"
#include "stream/ts.h"

static const struct program program = {
    .about = "List a stream's tensors: dtype, shape, size and name, and a closing line "
             "with totals. With shell patterns (quoted; * also matches dots), list only those "
             "whose names match one.",
    .operands = {"[stream [pattern ...]]", "[stream]"},
    .examples = {"st-ls DeepSeek-V4 '*.experts.7.*'",
                 "st-read DeepSeek-V4 | fp8-dequant | st-ls -l",
                 "st-ls --json DeepSeek-V4 | jq -r 'select(.dtype == \"I8\").name'"},
    .max_operands = ANY_OPERANDS,
};

struct options {
    bool header, json, tsv, details;
    enum report form;
    char **pattern;
    size_t patterns;
    bool *matched; /* by any tensor, for each pattern */
};

/* Columns are as wide as their longest text, known from the table before the first tensor. */
struct widths {
    int dtype, shape, shard;
};

struct totals {
    uint64_t tensors[DTYPE_COUNT], bytes[DTYPE_COUNT];
};

static bool wanted(const struct options *o, const char *name)
{
    bool match = !o->patterns;
    for (size_t i = 0; i < o->patterns; i++)
        if (!fnmatch(o->pattern[i], name, 0))
            match = o->matched[i] = true;
    return match;
}

static void widen(int *width, const char *text)
{
    int length = (int)strlen(text);
    if (length > *width)
        *width = length;
}

static struct widths measure(const struct options *o, const struct toc *toc)
{
    struct widths widths = {0};
    char shape[TENSOR_SHAPE_TEXT];
    for (size_t i = 0; i < toc->count; i++) {
        const struct tensor *tensor = &toc->tensor[i];
        if (!wanted(o, tensor->name))
            continue;
        widen(&widths.dtype, dtype_name(tensor->dtype));
        widen(&widths.shape, tensor_shape(tensor, shape));
        widen(&widths.shard, toc->shard[tensor->shard]);
    }
    return widths;
}

/* Where the current tensor's bytes are, written as in the stream's links. The caller frees it. */
static char *place(struct ts_in *in)
{
    size_t source;
    uint64_t offset;
    if (!ts_ref(in, &source, &offset))
        return xstrdup("inline");
    return xprintf("%s@%" PRIu64 "+%" PRIu64, ts_sources(in)->file[source].label, offset,
                   ts_present(in)->size);
}

static void print_line(const struct options *o, const struct widths *widths, const struct toc *toc,
                       const struct tensor *tensor, const char *where)
{
    char shape[TENSOR_SHAPE_TEXT], size[BYTES_TEXT];
    const char *use = tensor->context ? "context" : "data";
    if (o->form != REPORT_TEXT) {
        report_record(o->form,
                      json_pack("{s:s, s:s, s:o, s:I, s:s, s:s, s:s?}", "name", tensor->name,
                                "dtype", dtype_name(tensor->dtype), "shape", report_shape(tensor),
                                "bytes", (json_int_t)tensor->size, "shard",
                                toc->shard[tensor->shard], "use", use, "where", where));
        return;
    }
    printf("%-*s  %-*s  %8s  ", widths->dtype, dtype_name(tensor->dtype), widths->shape,
           tensor_shape(tensor, shape), bytes_text((double)tensor->size, size));
    if (o->details)
        text_print(stdout, "%-*s  %-7s  %s  %s\n", widths->shard, toc->shard[tensor->shard], use,
                   tensor->name, where ? where : "-");
    else
        printf("%s\n", tensor->name);
}

static void list(const struct options *o, const struct widths *widths, struct totals *totals,
                 const struct toc *toc, const struct tensor *tensor, const char *where)
{
    if (!wanted(o, tensor->name))
        return;
    print_line(o, widths, toc, tensor, where);
    totals->tensors[tensor->dtype]++;
    totals->bytes[tensor->dtype] += tensor->size;
}

static void print_totals(const struct totals *totals)
{
    char text[BYTES_TEXT];
    uint64_t tensors = 0, bytes = 0;
    for (int i = 0; i < DTYPE_COUNT; i++) {
        tensors += totals->tensors[i];
        bytes += totals->bytes[i];
    }
    printf("%" PRIu64 " tensors, %s", tensors, bytes_text((double)bytes, text));
    const char *before = ": ";
    for (int i = 0; i < DTYPE_COUNT; i++) {
        if (!totals->tensors[i])
            continue;
        printf("%s%" PRIu64 " %s %s", before, totals->tensors[i], dtype_name((enum dtype)i),
               bytes_text((double)totals->bytes[i], text));
        before = ", ";
    }
    putchar('\n');
}

static void check_matched(const struct options *o, const char *stream)
{
    for (size_t i = 0; i < o->patterns; i++)
        if (!o->matched[i])
            die("%s: no tensor's name matches '%s'", stream, o->pattern[i]);
}

static void list_all(const struct options *o, const struct stage *stage, struct ts_in *in)
{
    const struct toc *toc = ts_toc(in);
    struct widths widths = measure(o, toc);
    check_matched(o, ts_name(in));
    struct totals totals = {0};
    for (const struct tensor *tensor; (tensor = ts_next(in));) {
        char *where = place(in);
        list(o, &widths, &totals, toc, tensor, where);
        free(where);
    }
    for (size_t i = 0; ts_plan_only(in) && i < toc->count; i++)
        list(o, &widths, &totals, toc, &toc->tensor[i], NULL);
    if (o->form == REPORT_TEXT && !stage->quiet)
        print_totals(&totals);
}

static void print_header(struct ts_in *in)
{
    json_t *header = json_deep_copy(ts_header(in));
    while (ts_next(in))
        continue;
    const json_t *counts = ts_end_counts(in);
    if (counts)
        json_object_set_new(header, "counts", json_deep_copy(counts));
    json_print(stdout, header, true);
    putchar('\n');
    json_decref(header);
}

static void take_options(struct options *o, struct stage *stage, int argc, char **argv)
{
    const struct arg args[] = {
        {.name = "header",
         .to = &o->header,
         .help =
             "print the header (.stream: files, history) and the counts of .end instead, as JSON",
         .in = FORM(1),
         .required = FORM(1)},
        {.name = "json",
         .to = &o->json,
         .help = "a line of JSON per tensor: name, dtype, shape, bytes, shard, use, where",
         .in = FORM(0)},
        {.name = "tsv",
         .to = &o->tsv,
         .help = "the same as --json, tab-separated",
         .or_previous = true,
         .in = FORM(0)},
        {.name = "long",
         .letter = 'l',
         .to = &o->details,
         .help = "also print shard, use (data or context), and where the bytes are",
         .in = FORM(0)},
        {.name = "plan",
         .help = "list from the table only, without where the bytes are",
         .in = FORM(0)},
        {.name = "quiet", .help = "no closing line", .in = FORM(0)},
        {0},
    };
    stage_begin(stage, &program, args, argc, argv);
}

int main(int argc, char **argv)
{
    struct options o = {0};
    struct stage stage;
    take_options(&o, &stage, argc, argv);
    stage.allow_zeros = true; /* it reports what is there */
    o.form = report_form(o.tsv, o.json);
    if (stage.operands > 1) {
        o.pattern = stage.operand + 1;
        o.patterns = (size_t)stage.operands - 1;
        o.matched = xalloc(o.patterns, sizeof *o.matched);
    }
    if (o.header && (o.patterns || o.form != REPORT_TEXT || o.details || stage.plan))
        die_usage("--header goes with none of -l, -n, --json, --tsv and patterns");
    struct ts_in *in = ts_open(stage_input(&stage), &stage);
    report_begin(&stage);
    if (o.header)
        print_header(in);
    else
        list_all(&o, &stage, in);
    ts_close(in);
    free(o.matched);
    return report_end(&stage);
}
