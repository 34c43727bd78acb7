/* st-sum: a checksum of a stream's tensors, independent of order, shards and side files. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/digest.h"
#include "base/ordered_pool.h"
#include "base/text.h"
#include "stream/report.h"
#include "stream/ts.h"

static const struct program program = {
    .about = "Print a digest over all tensors, whatever their order, with their number and "
             "bytes: two streams or checkpoints with equal digests hold the same tensors.",
    .operands = {"[stream]"},
    .examples =
        {"st-sum DeepSeek-V4",
         "st-sum --each DeepSeek-V4 >sums && ssh host st-sum --check - DeepSeek-V4 <sums",
         "st-read DeepSeek-V4 | fp8-dequant | tee a.ts | st-write b && st-sum a.ts && st-sum b"},
    .max_operands = 1,
};

/* A buffer stays in the processor's cache between reading and summing; tensors of at least LARGE
 * bytes are worth a thread. */
enum { BUFFER = 1 << 17, LARGE = 1 << 20 };

struct options {
    const char *algorithm, *check;
    bool each, json, tsv;
    enum report form;
    uint64_t threads;
};

/* Lines of a listing. */
struct listing {
    char **line;
    size_t count, capacity;
};

static void add_line(struct listing *listing, char *line)
{
    if (listing->count == listing->capacity) {
        listing->capacity = listing->capacity ? 2 * listing->capacity : 256;
        listing->line = xgrow(listing->line, listing->capacity, sizeof *listing->line);
    }
    listing->line[listing->count++] = line;
}

static void sort_lines(struct listing *listing, int compare(const void *, const void *))
{
    if (listing->count)
        qsort(listing->line, listing->count, sizeof *listing->line, compare);
}

static void free_lines(struct listing *listing)
{
    for (size_t i = 0; i < listing->count; i++)
        free(listing->line[i]);
    free(listing->line);
}

/* `digest`: NULL in a plan. */
static void print_sum(enum report form, const char *digest, size_t tensors, uint64_t bytes)
{
    if (form == REPORT_TEXT)
        printf("%s\t%zu tensors\t%" PRIu64 " bytes\n", digest ? digest : "-", tensors, bytes);
    else
        report_record(form, json_pack("{s:s?, s:I, s:I}", "digest", digest, "tensors",
                                      (json_int_t)tensors, "bytes", (json_int_t)bytes));
}

/* A line of the listing. */
static char *listing_line(const char *digest, const struct tensor *tensor)
{
    char shape[TENSOR_SHAPE_TEXT];
    return xprintf("%s\t%s\t%s\t%s", digest, tensor->name, dtype_name(tensor->dtype),
                   tensor_shape(tensor, shape));
}

/* A line's fields, in one allocation. A line of somebody's listing may lack some: NULL. */
struct fields {
    char *digest, *name, *dtype, *shape;
};

static struct fields split(const char *line)
{
    char *rest = xstrdup(line);
    struct fields fields;
    fields.digest = strsep(&rest, "\t");
    fields.name = strsep(&rest, "\t");
    fields.dtype = strsep(&rest, "\t");
    fields.shape = rest;
    return fields;
}

/* A field as a value of a record; null for none. */
static json_t *text_value(char *field)
{
    return field ? json_string(printable(field)) : json_null();
}

static json_t *shape_value(const char *field)
{
    json_t *shape = field ? json_loads(field, 0, NULL) : NULL;
    return shape ? shape : json_null();
}

/* A line of the listing, which is tab-separated in any case. */
static void print_line(enum report form, const char *line)
{
    if (form != REPORT_JSON) {
        puts(line);
        return;
    }
    struct fields of = split(line);
    json_t *digest = strcmp(of.digest, "-") ? json_string(of.digest) : json_null();
    report_record(form,
                  json_pack("{s:o, s:o, s:o, s:o}", "digest", digest, "name", text_value(of.name),
                            "dtype", text_value(of.dtype), "shape", shape_value(of.shape)));
    free(of.digest);
}

/* Shared by the threads. */
struct summing {
    struct ts_in *in;
    enum digest_kind kind;
    enum report form;
    bool each;
    struct listing listing;
};

/* A tensor to checksum. */
struct sum {
    const struct tensor *tensor;
    bool by_reference;
    size_t source;
    uint64_t offset;
    char *buffer; /* BUFFER bytes, kept */
    char *line;   /* its result */
};

static void sum_tensor(void *context, void *piece)
{
    const struct summing *s = context;
    struct sum *sum = piece;
    const struct tensor *tensor = sum->tensor;
    struct digest *digest = digest_new_of(s->kind);
    for (uint64_t done = 0; done < tensor->size;) {
        size_t size = tensor->size - done < BUFFER ? (size_t)(tensor->size - done) : BUFFER;
        if (sum->by_reference)
            sources_read(ts_sources(s->in), sum->source, sum->offset + done, sum->buffer, size,
                         tensor->name);
        else
            ts_read(s->in, sum->buffer, size);
        digest_add(digest, sum->buffer, size);
        done += size;
    }
    char hex[DIGEST_TEXT];
    sum->line = listing_line(digest_end(digest, hex), tensor);
}

static void take_line(void *context, void *piece)
{
    struct summing *s = context;
    struct sum *sum = piece;
    if (s->each) {
        print_line(s->form, sum->line);
        free(sum->line);
    } else {
        add_line(&s->listing, sum->line);
    }
}

static void free_sum(void *piece)
{
    struct sum *sum = piece;
    free(sum->buffer);
}

/* Threads sum large tensors in files; small and inline ones are summed here. */
static void sum_all(struct summing *s, unsigned threads)
{
    struct ordered_pool *line = ordered_pool_begin(threads, ORDERED_POOL_SLACK, sizeof(struct sum),
                                                   sum_tensor, take_line, s);
    while (ts_next(s->in)) {
        struct sum *sum = ordered_pool_piece(line);
        sum->tensor = ts_present(s->in);
        sum->by_reference = ts_ref(s->in, &sum->source, &sum->offset);
        if (!sum->buffer)
            sum->buffer = xgrow(NULL, BUFFER, 1);
        if (sum->by_reference && sum->tensor->size >= LARGE)
            ordered_pool_submit(line, true);
        else
            ordered_pool_do(line);
    }
    ordered_pool_end(line, free_sum);
}

/* In the order of LC_ALL=C sort. */
static int by_bytes(const void *left, const void *right)
{
    return strcmp(*(char *const *)left, *(char *const *)right);
}

/* For a plan: the same lines, with - instead of digests. */
static void print_plan(const struct toc *toc, const struct options *o)
{
    for (size_t i = 0; i < toc->count && o->each; i++) {
        char *line = listing_line("-", &toc->tensor[i]);
        print_line(o->form, line);
        free(line);
    }
    if (!o->each)
        print_sum(o->form, NULL, toc->count, toc_bytes(toc, true));
}

static void sum_listing(struct listing *listing, enum digest_kind kind, enum report form,
                        uint64_t bytes)
{
    sort_lines(listing, by_bytes);
    struct digest *digest = digest_new_of(kind);
    for (size_t i = 0; i < listing->count; i++) {
        digest_add(digest, listing->line[i], strlen(listing->line[i]));
        digest_add(digest, "\n", 1);
    }
    char hex[DIGEST_TEXT];
    print_sum(form, digest_end(digest, hex), listing->count, bytes);
}

/* ---- --check ---- */

/* A line without its digest: name, dtype and shape. */
static const char *line_tensor(const char *line)
{
    return line + strcspn(line, "\t") + 1;
}

/* Whether a line begins with a digest of that kind, and goes on. */
static bool line_valid(const char *line, enum digest_kind kind)
{
    size_t digits = strspn(line, "0123456789abcdef");
    return digits == digest_digits(kind) && line[digits] == '\t' && line[digits + 1] &&
           line[digits + 1] != '\t';
}

static int by_tensor(const void *left, const void *right)
{
    const char *a = *(char *const *)left, *b = *(char *const *)right;
    int difference = strcmp(line_tensor(a), line_tensor(b));
    return difference ? difference : strcmp(a, b);
}

enum { LINE_MOST = DIGEST_TEXT + TENSOR_NAME_MAX + 16 + TENSOR_SHAPE_TEXT };

/* The next line without its end, or false after the last. Of one that is too long, or holds a NUL,
 * nothing: no listing has it. */
static bool next_line(FILE *file, char *line)
{
    size_t length = 0;
    int c;
    while ((c = getc_unlocked(file)) != EOF && c != '\n') {
        if (!c || length == LINE_MOST) {
            line[0] = 0;
            return true;
        }
        line[length++] = (char)c;
    }
    line[length] = 0;
    return c != EOF || length;
}

/* Returns which digests the listing has. */
static enum digest_kind read_listing(struct listing *listing, const char *path)
{
    enum digest_kind kind = DIGEST_SHA256;
    bool from_stdin = !strcmp(path, "-");
    FILE *file = from_stdin ? stdin : fopen(path, "re");
    if (!file)
        die_errno("%s", path);
    char line[LINE_MOST + 1];
    while (next_line(file, line)) {
        if (!listing->count && line_valid(line, DIGEST_XXH128))
            kind = DIGEST_XXH128;
        if (!line_valid(line, kind))
            die("%s: line %zu: not of a listing as --each writes it", path, listing->count + 1);
        add_line(listing, xstrdup(line));
    }
    if (ferror(file))
        die_errno("%s", path);
    if (!from_stdin)
        fclose(file);
    return kind;
}

/* `here`: the tensor's line, `there`: the listing's; one of them may be NULL. */
static void say_tensor(enum report form, const char *here, const char *there, const char *status)
{
    struct fields of = split(here ? here : there), listed = split(there ? there : here);
    if (form == REPORT_TEXT)
        text_print(stdout, "%s: %s\n", of.name, status);
    else
        report_record(form,
                      json_pack("{s:o, s:s, s:o, s:o, s:s?, s:s?}", "name", text_value(of.name),
                                "status", status, "dtype", text_value(of.dtype), "shape",
                                shape_value(of.shape), "digest", here ? of.digest : NULL, "listed",
                                there ? listed.digest : NULL));
    free(of.digest);
    free(listed.digest);
}

/* Compare the stream with the listing; returns how many tensors differ. */
static size_t check_listing(struct listing *found, struct listing *listed, enum report form,
                            const struct stage *stage)
{
    sort_lines(found, by_tensor);
    sort_lines(listed, by_tensor);
    size_t wrong = 0;
    for (size_t i = 0, j = 0; i < found->count || j < listed->count;) {
        bool have = i < found->count, want = j < listed->count;
        const char *here = have ? found->line[i] : NULL, *there = want ? listed->line[j] : NULL;
        int order = !have ? 1 : !want ? -1 : strcmp(line_tensor(here), line_tensor(there));
        bool equal = order == 0 && !strcmp(here, there);
        i += order <= 0;
        j += order >= 0;
        wrong += !equal;
        if (!stage->quiet && (!equal || stage->verbose))
            say_tensor(form, order > 0 ? NULL : here, order < 0 ? NULL : there,
                       equal       ? "OK"
                       : order > 0 ? "missing"
                       : order < 0 ? "not listed"
                                   : "FAILED");
    }
    return wrong;
}

static void take_options(struct options *o, struct stage *stage, int argc, char **argv)
{
    const struct arg args[] = {
        {.name = "algorithm",
         .letter = 'a',
         .kind = ARG_CHOICE,
         .to = &o->algorithm,
         .value = "name",
         .choices = "sha256|xxh128",
         .help = "xxh128 is XXH3-128: several times as fast, but no proof against intent"},
        {.name = "check",
         .letter = 'c',
         .kind = ARG_INPUT,
         .to = &o->check,
         .value = "file",
         .help = "compare with file, which --each wrote: print missing, changed and new tensors"},
        {.name = "each",
         .to = &o->each,
         .help = "a tab-separated line per tensor: digest, name, dtype, shape",
         .or_previous = true},
        {.name = "json",
         .to = &o->json,
         .help = "lines of JSON: digest, tensors, bytes; with --each digest, name, dtype, shape; "
                 "with --check name, status, dtype, shape, digest, listed"},
        {.name = "tsv",
         .to = &o->tsv,
         .help = "the same as --json, tab-separated",
         .or_previous = true},
        arg_threads(&o->threads),
        {.name = "plan", .help = "from the table only: number and bytes, - for digests"},
        {.name = "quiet", .help = "with --check: no lines on standard output"},
        {.name = "verbose", .help = "with --check: also say which tensors are as listed"},
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
    if (o.check && o.each)
        die_usage("--check and --each exclude each other");
    if (o.check && o.algorithm)
        die_usage("--check takes the algorithm from its file; leave -a out");
    if (stage.plan && o.check)
        die_usage("-n: without bytes there is nothing to check; st-cmp -n compares tables");
    if (o.check && !strcmp(o.check, "-") && !stage_input(&stage))
        die_usage("standard input cannot be both the listing and the stream");
    unsigned threads = ordered_pool_threads(o.threads);
    struct listing listed = {0};
    struct summing summing = {.each = o.each, .form = o.form};
    if (o.algorithm && !strcmp(o.algorithm, "xxh128"))
        summing.kind = DIGEST_XXH128;
    if (o.check)
        summing.kind = read_listing(&listed, o.check);
    struct ts_in *in = summing.in = ts_open(stage_input(&stage), &stage);
    uint64_t bytes = toc_bytes(ts_toc(in), true);
    char *name = xstrdup(ts_name(in));
    report_begin(&stage);

    if (stage.plan)
        print_plan(ts_toc(in), &o);
    sum_all(&summing, threads);
    if (ts_plan_only(in) && !stage.plan)
        die("%s: a plan, without tensors; run the stages before without -n", ts_name(in));
    ts_close(in);
    size_t wrong = 0;
    if (o.check)
        wrong = check_listing(&summing.listing, &listed, o.form, &stage);
    else if (!o.each && !stage.plan)
        sum_listing(&summing.listing, summing.kind, o.form, bytes);
    if (wrong)
        die("%s: %zu tensors are not as %s lists them", name, wrong, o.check);
    free(name);
    free_lines(&summing.listing);
    free_lines(&listed);
    return report_end(&stage);
}
