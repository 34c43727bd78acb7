/* st-cmp: compare two streams or checkpoints, tensor by tensor. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/ordered_pool.h"
#include "stream/finding.h"
#include "stream/pairing.h"
#include "stream/ts.h"

static const struct program program = {
    .about = "Compare two tensor streams or checkpoints: a line for each tensor that "
             "differs (where first, by how much), and totals. Exits 0 if all are the same, "
             "1 if some differ, 2 on errors.",
    .operands = {"A B"},
    .examples = {"st-cmp DeepSeek-V4 copy", "st-cmp --values DeepSeek-V4 DeepSeek-V4-NVFP4",
                 "st-read DeepSeek-V4 | fp8-dequant | st-cmp --values - DeepSeek-V4"},
    .max_operands = 2,
};

/* As cmp: 0 equal, 1 (elsewhere EXIT_FAILED) different, 2 error. */
enum { SAME, DIFFER, TROUBLE };

enum {
    BUFFER = 1 << 20,
    LARGE = 1 << 16, /* elements: worth a thread's turn */
};

struct options {
    bool common, files, json, tsv, summarize, values;
    enum report form;
    uint64_t threads;
};

struct totals {
    size_t count, equal, differ, only_a, only_b;
};

/* ---- findings ---- */

/* Count a finding, write its line if wanted, and free it. */
static void conclude(struct finding *f, struct totals *totals, const struct options *o,
                     const struct stage *stage)
{
    bool equal = finding_equal(f);
    totals->count++;
    totals->equal += equal;
    totals->only_a += !f->in_b;
    totals->only_b += !f->in_a;
    totals->differ += f->in_a && f->in_b && !equal;
    if (!o->summarize && !stage->quiet && (!equal || stage->verbose)) {
        if (o->form == REPORT_TEXT)
            finding_print_text(f);
        else
            finding_print_record(f, o->form);
    }
    difference_clear(&f->d);
}

static void print_totals(const struct totals *totals, const char *what, const struct options *o)
{
    if (o->form == REPORT_TEXT)
        printf("%zu %s: %zu equal, %zu differ, %zu only in A, %zu only in B\n", totals->count, what,
               totals->equal, totals->differ, totals->only_a, totals->only_b);
    else if (o->summarize)
        report_record(o->form,
                      json_pack("{s:s, s:I, s:I, s:I, s:I, s:I}", "what", what, "count",
                                (json_int_t)totals->count, "equal", (json_int_t)totals->equal,
                                "differ", (json_int_t)totals->differ, "only_a",
                                (json_int_t)totals->only_a, "only_b", (json_int_t)totals->only_b));
}

/* ---- tensors ---- */

/* Parts of two tensors to compare, or (ALL) the end of two tensors, after their parts. */
struct part {
    enum { ELEMENTS, BYTES, ALL } kind;
    struct finding found;
    struct elements_piece *a, *b;
};

/* Shared by the threads. */
struct comparison {
    const struct options *o;
    const struct stage *stage;
    struct pairing_side a, b;
    struct ordered_pool *line;
    struct difference so_far; /* of the current tensor */
    struct totals totals;
};

static void compare_part(void *context, void *item)
{
    const struct comparison *c = context;
    struct part *part = item;
    struct finding *f = &part->found;
    if (part->kind == ALL)
        return;
    const void *a = elements_load(c->a.elements, part->a);
    const void *b = elements_load(c->b.elements, part->b);
    size_t count = elements_count(part->a);
    if (part->kind == BYTES)
        difference_add_bytes(&f->d, a, b, count);
    else
        difference_add(&f->d, f->a.dtype, a, f->b.dtype, b, count, !c->o->values);
}

static void take_part(void *context, void *item)
{
    struct comparison *c = context;
    struct part *part = item;
    if (part->kind != ALL) {
        difference_join(&c->so_far, &part->found.d);
        return;
    }
    part->found.d = c->so_far;
    c->so_far = (struct difference){0};
    conclude(&part->found, &c->totals, c->o, c->stage);
}

static void free_part(void *item)
{
    struct part *part = item;
    elements_piece_free(part->a);
    elements_piece_free(part->b);
}

/* The current tensors, piece by piece; of the same form, or the same size, they are cut alike. */
static void give_parts(struct comparison *c, const struct finding *f, bool bytes)
{
    for (;;) {
        struct part *part = ordered_pool_piece(c->line);
        if (!elements_cut(c->a.elements, &part->a) || !elements_cut(c->b.elements, &part->b))
            return;
        part->kind = bytes ? BYTES : ELEMENTS;
        part->found = *f;
        if (elements_count(part->a) >= LARGE)
            ordered_pool_submit(c->line, true);
        else
            ordered_pool_do(c->line);
    }
}

/* Two references to the same bytes of the same unchanged file. */
static bool same_place(struct ts_in *a, struct ts_in *b)
{
    size_t i, j;
    uint64_t at_a, at_b;
    if (!ts_ref(a, &i, &at_a) || !ts_ref(b, &j, &at_b) || at_a != at_b)
        return false;
    const struct source *x = &ts_sources(a)->file[i], *y = &ts_sources(b)->file[j];
    if (strcmp(x->path, y->path) != 0 || x->size != y->size || x->mtime_ns != y->mtime_ns)
        return false;
    sources_verify(ts_sources(a), i);
    sources_verify(ts_sources(b), j);
    return true;
}

static void advance(struct pairing_side *side, const struct tensor *wanted)
{
    const struct tensor *tensor;
    do
        tensor = elements_next(side->elements);
    while (tensor && tensor != wanted);
    if (!tensor)
        die("%s: a plan, without tensors; run the stages before without -n, or compare the tables "
            "with st-cmp -n",
            ts_name(side->in));
}

/* A tensor that both have: x in A, y in B. */
static void compare_tensor(struct comparison *c, struct finding *f, const struct tensor *x,
                           const struct tensor *y)
{
    struct pairing_side *a = &c->a, *b = &c->b;
    struct tensor form = f->b;
    if (c->o->values)
        form.dtype = f->a.dtype;
    f->same_form = tensor_same_form(&f->a, &form);
    if (c->stage->plan)
        return;
    advance(a, x);
    advance(b, y);
    f->bytes_known = !f->same_form && !c->o->values && x->size == y->size;
    if (f->bytes_known) {
        elements_as_bytes(a->elements);
        elements_as_bytes(b->elements);
    }
    bool as_they_lie = f->bytes_known || (tensor_same_form(&f->a, x) &&
                                          tensor_same_form(&f->b, y) && f->a.dtype == f->b.dtype);
    if ((f->same_form || f->bytes_known) && !(as_they_lie && same_place(a->in, b->in)))
        give_parts(c, f, f->bytes_known);
}

static void compare_tensors(struct comparison *c, unsigned threads)
{
    size_t count;
    struct pair *pair = pairs_of(&c->a, &c->b, c->o->common, c->o->values, &count);
    c->line = ordered_pool_begin(threads, ORDERED_POOL_SLACK, sizeof(struct part), compare_part,
                                 take_part, c);
    for (size_t i = 0; i < count; i++) {
        uint32_t a = pair[i].a, b = pair[i].b;
        struct finding f = {.in_a = a != PAIRING_NONE, .in_b = b != PAIRING_NONE};
        if (f.in_a)
            elements_form_of(c->a.elements, a, &f.a);
        if (f.in_b)
            elements_form_of(c->b.elements, b, &f.b);
        f.name = f.in_a ? f.a.name : f.b.name;
        if (f.in_a && f.in_b)
            compare_tensor(c, &f, &ts_toc(c->a.in)->tensor[a], &ts_toc(c->b.in)->tensor[b]);
        struct part *all = ordered_pool_piece(c->line);
        all->kind = ALL;
        all->found = f;
        ordered_pool_do(c->line);
    }
    ordered_pool_end(c->line, free_part);
    free(pair);
}

/* ---- side files ---- */

static struct tensor file_form(struct ts_in *in, size_t i)
{
    struct tensor form = {.dtype = DTYPE_U8, .rank = 1};
    form.name = ts_file(in, i, &form.size);
    form.dim[0] = form.size;
    return form;
}

static void compare_file(struct finding *f, struct ts_in *a, size_t i, struct ts_in *b, size_t j)
{
    f->same_form = tensor_same_form(&f->a, &f->b);
    if (!f->same_form)
        return;
    char *x = xgrow(NULL, BUFFER, 1), *y = xgrow(NULL, BUFFER, 1);
    for (uint64_t at = 0; at < f->a.size; at += BUFFER) {
        size_t size = (size_t)at_most(f->a.size - at, BUFFER);
        ts_file_part(a, i, at, x, size);
        ts_file_part(b, j, at, y, size);
        difference_add(&f->d, DTYPE_U8, x, DTYPE_U8, y, size, true);
    }
    free(x);
    free(y);
}

static void compare_files(struct comparison *c, struct totals *totals)
{
    struct ts_in *a = c->a.in, *b = c->b.in;
    for (size_t i = 0; i < ts_files(a); i++) {
        struct finding f = {.in_a = true, .a = file_form(a, i)};
        f.name = f.a.name;
        int64_t j = ts_file_find(b, f.name);
        if (j >= 0) {
            f.in_b = true;
            f.b = file_form(b, (size_t)j);
            compare_file(&f, a, i, b, (size_t)j);
        }
        if (f.in_b || !c->o->common)
            conclude(&f, totals, c->o, c->stage);
    }
    for (size_t j = 0; j < ts_files(b) && !c->o->common; j++) {
        struct finding f = {.in_b = true, .b = file_form(b, j)};
        f.name = f.b.name;
        if (ts_file_find(a, f.name) < 0)
            conclude(&f, totals, c->o, c->stage);
    }
}

/* ---- both streams ---- */

static void open_side(struct pairing_side *side, const char *path, const struct stage *stage,
                      const struct options *o)
{
    side->in = ts_open(strcmp(path, "-") ? path : NULL, stage);
    side->elements = elements_new(side->in, o->values);
}

static void close_side(struct pairing_side *side)
{
    elements_free(side->elements);
    ts_close(side->in);
}

static void take_options(struct options *o, struct stage *stage, int argc, char **argv)
{
    const struct arg args[] = {
        {.name = "common",
         .to = &o->common,
         .help = "only tensors (and side files) that both have"},
        {.name = "files", .to = &o->files, .help = "also compare side files, byte by byte"},
        arg_threads(&o->threads),
        {.name = "json", .to = &o->json, .help = "a line of JSON for each tensor that differs"},
        {.name = "tsv",
         .to = &o->tsv,
         .help = "the same as --json, tab-separated",
         .or_previous = true},
        {.name = "summarize", .letter = 's', .to = &o->summarize, .help = "write the totals only"},
        {.name = "values",
         .to = &o->values,
         .help = "compare numbers, FP8, MXFP4 and NVFP4 matrices as BF16; not dtypes, bytes or "
                 "scales; -0 equals 0, NaN equals NaN"},
        {.name = "plan", .help = "compare the tables only: names, dtypes, shapes"},
        {.name = "quiet", .help = "write nothing; the exit status is the result"},
        {.name = "verbose", .help = "also write a line for each equal tensor"},
        {0},
    };
    stage_begin(stage, &program, args, argc, argv);
}

int main(int argc, char **argv)
{
    die_with(TROUBLE);
    struct options o = {0};
    struct stage stage;
    take_options(&o, &stage, argc, argv);
    stage.allow_zeros = true; /* it reports what is there */
    o.form = report_form(o.tsv, o.json);
    if (stage.operands != 2)
        die_usage("which two? Give two streams or checkpoints (- is standard input)");
    if (!strcmp(stage.operand[0], "-") && !strcmp(stage.operand[1], "-"))
        die_usage("standard input can be only one of the two");
    unsigned threads = ordered_pool_threads(o.threads);
    struct stage second = stage; /* one line of progress, A's */
    second.progress = false;
    struct comparison c = {.o = &o, .stage = &stage};
    open_side(&c.a, stage.operand[0], &stage, &o);
    open_side(&c.b, stage.operand[1], &second, &o);
    report_begin(&stage);

    struct totals files = {0};
    compare_tensors(&c, threads);
    if (o.files)
        compare_files(&c, &files);
    close_side(&c.a);
    close_side(&c.b);
    if (!stage.quiet) {
        print_totals(&c.totals, "tensors", &o);
        if (o.files)
            print_totals(&files, "side files", &o);
    }
    report_end(&stage);
    return c.totals.count == c.totals.equal && files.count == files.equal ? SAME : DIFFER;
}
