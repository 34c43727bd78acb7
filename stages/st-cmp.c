/* st-cmp: compare two streams or checkpoints, tensor by tensor. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/ordered_pool.h"
#include "stream/elements.h"
#include "stream/report.h"
#include "stream/ts.h"

static const struct program program = {
    .about = "Compare two tensor streams or checkpoints: a line for each tensor that "
             "differs (where first, by how much), and totals. Exits 0 if all are the same, "
             "1 if some differ, 2 on trouble.",
    .operands = {"A B"},
    .examples = {"st-cmp DeepSeek-V4 copy", "st-cmp --values DeepSeek-V4 DeepSeek-V4-NVFP4",
                 "st-read DeepSeek-V4 | fp8-dequant | st-cmp --values - DeepSeek-V4"},
    .max_operands = 2,
};

/* As cmp: 0 the same, 1 (elsewhere EXIT_FAILED) they differ, 2 trouble. */
enum { SAME, DIFFER, TROUBLE };

enum {
    BUFFER = 1 << 20,
    WIDE = 1024,
    LARGE = 1 << 16, /* elements: worth a thread's turn */
    NO_LINE = UINT32_MAX
};

struct options {
    bool common, files, json, tsv, summary, values;
    enum report form;
    uint64_t threads;
};

/* One of the two. */
struct side {
    struct ts_in *in;
    struct elements *elements;
    uint32_t *line; /* the lines of its table that are compared, in order */
    uint32_t lines;
    uint32_t *mate; /* for each of these: the index of the other side's, or NO_LINE */
};

/* What was found out about some elements, or all of a tensor. */
struct difference {
    bool other_bytes; /* of tensors of different forms but as many bytes */
    uint64_t elements, differing;
    uint64_t first; /* that differs; its values */
    json_t *value_a, *value_b;
    double max_error;     /* infinite if a NaN or an infinity differs */
    double signal, noise; /* sums of squares of A, and of A - B, where they are finite */
};

/* What was found out about a tensor, or a side file, which counts as U8 [bytes]. */
struct finding {
    const char *name;
    bool in_a, in_b;
    struct tensor a, b; /* its forms, where it is */
    bool same_form;
    bool bytes_known; /* of different forms but as many bytes, which were compared */
    struct difference d;
};

struct totals {
    size_t count, equal, differ, only_a, only_b;
};

/* ---- which lines belong together ---- */

static bool is_input_scale(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot && !strcmp(dot, ".input_scale");
}

/* With --values, scales come with their matrix; an input scale counts only if both have it. */
static void choose_lines(struct side *side, struct side *other, const struct options *o)
{
    struct toc *toc = ts_toc(side->in);
    side->line = xalloc(toc->count, sizeof *side->line);
    side->mate = xalloc(toc->count, sizeof *side->mate);
    for (size_t i = 0; i < toc->count; i++) {
        struct tensor form;
        const char *name = toc->tensor[i].name;
        bool optional = o->common || (o->values && is_input_scale(name));
        if (!elements_form_of(side->elements, i, &form) ||
            (optional && toc_find(ts_toc(other->in), name) < 0))
            continue;
        side->mate[side->lines] = NO_LINE;
        side->line[side->lines++] = (uint32_t)i;
    }
}

struct named {
    const char *name;
    uint32_t index;
};

static int by_name(const void *left, const void *right)
{
    const struct named *a = left, *b = right;
    int difference = strcmp(a->name, b->name);
    return difference ? difference : a->index < b->index ? -1 : 1;
}

static struct named *sorted_names(const struct side *side)
{
    struct named *names = xalloc(side->lines, sizeof *names);
    for (uint32_t i = 0; i < side->lines; i++)
        names[i] = (struct named){ts_toc(side->in)->tensor[side->line[i]].name, i};
    qsort(names, side->lines, sizeof *names, by_name);
    return names;
}

/* Equal names are mates, whatever their shards; of a name that comes several times (the ranks of a
 * model-parallel checkpoint repeat them), the first goes with the first, and so on. */
static void find_mates(struct side *a, struct side *b)
{
    struct named *x = sorted_names(a), *y = sorted_names(b);
    for (uint32_t i = 0, j = 0; i < a->lines && j < b->lines;) {
        int order = strcmp(x[i].name, y[j].name);
        if (order == 0) {
            a->mate[x[i].index] = y[j].index;
            b->mate[y[j].index] = x[i].index;
        }
        i += order <= 0;
        j += order >= 0;
    }
    free(x);
    free(y);
}

/* Tensors come once, in the order of the table: those of both must come in the same order. Seen
 * before the first is read. */
static void check_order(const struct side *a, const struct side *b)
{
    uint32_t next = 0;
    for (uint32_t i = 0; i < a->lines; i++) {
        if (a->mate[i] == NO_LINE)
            continue;
        if (a->mate[i] < next)
            die("%s and %s hold their tensors in different orders: in %s, %s comes before %s; make "
                "one of them anew with st-read and st-write",
                ts_name(a->in), ts_name(b->in), ts_name(b->in),
                ts_toc(a->in)->tensor[a->line[i]].name,
                ts_toc(b->in)->tensor[b->line[next - 1]].name);
        next = a->mate[i] + 1;
    }
}

/* ---- comparing ---- */

/* Two references to the same bytes of the same file, which is as it was. */
static bool same_place(struct ts_in *a, struct ts_in *b)
{
    size_t i, j;
    uint64_t at_a, at_b;
    if (!ts_ref(a, &i, &at_a) || !ts_ref(b, &j, &at_b) || at_a != at_b)
        return false;
    const struct source *x = &ts_sources(a)->file[i], *y = &ts_sources(b)->file[j];
    if (strcmp(x->path, y->path) != 0 || x->size != y->size || x->mtime_ns != y->mtime_ns)
        return false;
    return sources_fd(ts_sources(a), i) >= 0 && sources_fd(ts_sources(b), j) >= 0;
}

/* Element i for the report. */
static json_t *element(enum dtype dtype, const void *data, size_t i)
{
    int64_t exact;
    double value = dtype_value(dtype, data, i);
    if (dtype == DTYPE_I64)
        memcpy(&exact, (const char *)data + i * sizeof exact, sizeof exact);
    else if (!dtype_is_float(dtype) && value < 0x1p53)
        exact = (int64_t)value;
    else
        return report_number(value);
    return json_integer(exact);
}

static double square_if_finite(double value)
{
    double x = fabs(value) < INFINITY ? value : 0;
    return x * x;
}

static double sum_of_squares(const double *value, size_t count)
{
    enum { LANES = 8 }; /* independent sums, which the processor adds in parallel */
    double lane[LANES] = {0}, sum = 0;
    size_t i = 0;
    for (; i + LANES <= count; i += LANES)
        for (size_t j = 0; j < LANES; j++)
            lane[j] += square_if_finite(value[i + j]);
    for (; i < count; i++)
        lane[i % LANES] += square_if_finite(value[i]);
    for (i = 0; i < LANES; i++)
        sum += lane[i];
    return sum;
}

static void count_difference(struct difference *d, double a, double b)
{
    double error = fabs(a - b);
    if (isfinite(a) && isfinite(b))
        d->noise += error * error;
    else if (!(isnan(a) && isnan(b))) /* NaNs that differ in their bits only */
        error = INFINITY;
    else
        error = 0;
    if (error > d->max_error)
        d->max_error = error;
    d->differing++;
}

/* The next `count` elements: the same bits (exact), or the same numbers? */
static void compare_elements(struct finding *f, const void *x, const void *y, size_t count,
                             bool exact)
{
    double a[WIDE], b[WIDE];
    struct difference *d = &f->d;
    size_t size_a = dtype_size(f->a.dtype), size_b = dtype_size(f->b.dtype);
    bool is_float = dtype_is_float(f->a.dtype);
    if (!is_float && f->a.dtype == f->b.dtype)
        exact = true; /* doubles do not hold all 64-bit integers */
    for (size_t done = 0; done < count;) {
        size_t n = count - done < WIDE ? count - done : WIDE;
        const char *p = (const char *)x + done * size_a, *q = (const char *)y + done * size_b;
        bool equal = f->a.dtype == f->b.dtype && !memcmp(p, q, n * size_a);
        if (is_float || !equal)
            elements_widen(f->a.dtype, p, n, a);
        if (is_float)
            d->signal += sum_of_squares(a, n);
        if (!equal)
            elements_widen(f->b.dtype, q, n, b);
        for (size_t i = 0; i < n && !equal; i++) {
            if (exact ? !memcmp(p + i * size_a, q + i * size_a, size_a)
                      : a[i] == b[i] || (isnan(a[i]) && isnan(b[i])))
                continue;
            if (!d->differing) {
                d->first = d->elements + i;
                d->value_a = element(f->a.dtype, p, i);
                d->value_b = element(f->b.dtype, q, i);
            }
            count_difference(d, a[i], b[i]);
        }
        d->elements += n;
        done += n;
    }
}

/* That of more elements, which follow. */
static void join(struct difference *d, const struct difference *next)
{
    if (!d->differing) {
        d->first = d->elements + next->first;
        d->value_a = next->value_a;
        d->value_b = next->value_b;
    } else {
        json_decref(next->value_a);
        json_decref(next->value_b);
    }
    d->other_bytes |= next->other_bytes;
    d->elements += next->elements;
    d->differing += next->differing;
    d->max_error = fmax(d->max_error, next->max_error);
    d->signal += next->signal;
    d->noise += next->noise;
}

static void advance(struct side *side, const struct tensor *wanted)
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

/* ---- side files ---- */

static int64_t find_file(struct ts_in *in, const char *name)
{
    uint64_t size;
    for (size_t i = 0; i < ts_files(in); i++)
        if (!strcmp(ts_file(in, i, &size), name))
            return (int64_t)i;
    return -1;
}

/* A side file read piece by piece. */
struct file_reader {
    struct ts_in *in;
    const char *name;
    char *data; /* NULL: by reference */
    size_t source;
    uint64_t offset;
};

static struct file_reader open_file(struct ts_in *in, size_t i)
{
    uint64_t size;
    struct file_reader file = {.in = in, .name = ts_file(in, i, &size)};
    if (!ts_file_ref(in, i, &file.source, &file.offset))
        file.data = ts_file_read(in, i);
    return file;
}

static void read_file(const struct file_reader *file, uint64_t at, char *data, size_t size)
{
    if (file->data)
        memcpy(data, file->data + at, size);
    else
        sources_read(ts_sources(file->in), file->source, file->offset + at, data, size, file->name);
}

static void compare_file(struct finding *f, struct ts_in *a, size_t i, struct ts_in *b, size_t j)
{
    f->same_form = tensor_same_form(&f->a, &f->b);
    if (!f->same_form)
        return;
    struct file_reader file_a = open_file(a, i), file_b = open_file(b, j);
    char *x = xgrow(NULL, BUFFER, 1), *y = xgrow(NULL, BUFFER, 1);
    for (uint64_t left = f->a.size; left;) {
        size_t size = left < BUFFER ? (size_t)left : BUFFER;
        read_file(&file_a, f->a.size - left, x, size);
        read_file(&file_b, f->a.size - left, y, size);
        compare_elements(f, x, y, size, true);
        left -= size;
    }
    free(x);
    free(y);
    free(file_a.data);
    free(file_b.data);
}

/* ---- the report ---- */

static const char *status(const struct finding *f)
{
    return !f->in_b         ? "only A"
           : !f->in_a       ? "only B"
           : !f->same_form  ? "form"
           : f->d.differing ? "differs"
                            : "equal";
}

static json_t *index_of(const struct finding *f)
{
    uint64_t index[TENSOR_RANK_MAX], left = f->d.first;
    for (unsigned i = f->a.rank; i-- > 0; left /= f->a.dim[i])
        index[i] = left % f->a.dim[i];
    json_t *array = json_array();
    for (unsigned i = 0; i < f->a.rank; i++)
        json_array_append_new(array, json_integer((json_int_t)index[i]));
    return array;
}

static double sqnr(const struct finding *f)
{
    return 10 * log10(f->d.signal / f->d.noise);
}

static bool has_sqnr(const struct finding *f)
{
    return f->d.noise > 0 && dtype_is_float(f->a.dtype);
}

static void print_record(const struct finding *f, enum report form)
{
    bool both = f->in_a && f->in_b && f->same_form, differ = f->d.differing > 0;
    json_t *record = json_pack("{s:s, s:s, s:s?, s:o, s:s?, s:o}", "name", f->name, "status",
                               status(f), "dtype_a", f->in_a ? dtype_name(f->a.dtype) : NULL,
                               "shape_a", f->in_a ? report_shape(&f->a) : json_null(), "dtype_b",
                               f->in_b ? dtype_name(f->b.dtype) : NULL, "shape_b",
                               f->in_b ? report_shape(&f->b) : json_null());
    json_object_set_new(record, "same_bytes",
                        f->bytes_known ? json_boolean(!f->d.other_bytes) : json_null());
    json_object_set_new(record, "differing",
                        both ? json_integer((json_int_t)f->d.differing) : json_null());
    json_object_set_new(record, "index", differ ? index_of(f) : json_null());
    json_object_set(record, "value_a", differ ? f->d.value_a : json_null());
    json_object_set(record, "value_b", differ ? f->d.value_b : json_null());
    json_object_set_new(record, "max_error", differ ? report_number(f->d.max_error) : json_null());
    json_object_set_new(record, "sqnr", has_sqnr(f) ? report_number(sqnr(f)) : json_null());
    report_record(form, record);
}

static void print_value(const json_t *value)
{
    char text[NUMBER_TEXT];
    if (json_is_integer(value))
        printf("%" JSON_INTEGER_FORMAT, json_integer_value(value));
    else if (json_is_real(value))
        fputs(number_text(json_real_value(value), text), stdout);
    else
        fputs(json_string_value(value), stdout);
}

static void print_forms(const struct finding *f)
{
    char a[TENSOR_SHAPE_TEXT], b[TENSOR_SHAPE_TEXT];
    printf("%s %s in A, %s %s in B", dtype_name(f->a.dtype), tensor_shape(&f->a, a),
           dtype_name(f->b.dtype), tensor_shape(&f->b, b));
    if (f->bytes_known)
        printf("; %s", f->d.other_bytes ? "other bytes" : "the same bytes");
}

static void print_difference(const struct finding *f)
{
    char error[NUMBER_TEXT];
    json_t *index = index_of(f);
    char *at = json_dumps(index, JSON_COMPACT);
    printf("%" PRIu64 " of %" PRIu64 " differ, first at %s: ", f->d.differing, f->d.elements, at);
    print_value(f->d.value_a);
    printf(" in A, ");
    print_value(f->d.value_b);
    printf(" in B; max error %s", number_text(f->d.max_error, error));
    if (has_sqnr(f))
        printf(", SQNR %.2f dB", sqnr(f));
    free(at);
    json_decref(index);
}

static void print_text(const struct finding *f)
{
    printf("%s: ", f->name);
    if (!f->in_a || !f->in_b)
        printf("only in %s", f->in_a ? "A" : "B");
    else if (!f->same_form)
        print_forms(f);
    else if (f->d.differing)
        print_difference(f);
    else
        printf("equal");
    putchar('\n');
}

/* Count a finding, write its line if it is wanted, and forget it. */
static void conclude(const struct finding *f, struct totals *totals, const struct options *o,
                     const struct stage *stage)
{
    bool equal = f->in_a && f->in_b && f->same_form && !f->d.differing;
    totals->count++;
    totals->equal += equal;
    totals->only_a += !f->in_b;
    totals->only_b += !f->in_a;
    totals->differ += f->in_a && f->in_b && !equal;
    if (!o->summary && !stage->quiet && (!equal || stage->verbose)) {
        if (o->form == REPORT_TEXT)
            print_text(f);
        else
            print_record(f, o->form);
    }
    json_decref(f->d.value_a);
    json_decref(f->d.value_b);
}

static void print_totals(const struct totals *totals, const char *what, const struct options *o)
{
    if (o->form == REPORT_TEXT)
        printf("%zu %s: %zu equal, %zu differ, %zu only in A, %zu only in B\n", totals->count, what,
               totals->equal, totals->differ, totals->only_a, totals->only_b);
    else if (o->summary)
        report_record(o->form,
                      json_pack("{s:s, s:I, s:I, s:I, s:I, s:I}", "what", what, "count",
                                (json_int_t)totals->count, "equal", (json_int_t)totals->equal,
                                "differ", (json_int_t)totals->differ, "only_a",
                                (json_int_t)totals->only_a, "only_b", (json_int_t)totals->only_b));
}

/* ---- all of it ---- */

/* Some of two tensors on their way, or (ALL) the whole of them, whose parts went before. */
struct part {
    enum { ELEMENTS, BYTES, ALL } kind;
    struct finding found;
    struct elements_piece a, b;
};

/* What threads share. */
struct comparison {
    const struct options *o;
    const struct stage *stage;
    struct side a, b;
    struct ordered_pool *line;
    struct difference so_far; /* of the tensor whose parts come */
    struct totals totals;
};

static void compare_part(void *context, void *item)
{
    const struct comparison *c = context;
    struct part *part = item;
    if (part->kind == ALL)
        return;
    elements_load(c->a.elements, &part->a);
    elements_load(c->b.elements, &part->b);
    if (part->kind == BYTES)
        part->found.d.other_bytes = memcmp(part->a.data, part->b.data, part->a.count) != 0;
    else
        compare_elements(&part->found, part->a.data, part->b.data, part->a.count, !c->o->values);
}

static void take_part(void *context, void *item)
{
    struct comparison *c = context;
    struct part *part = item;
    if (part->kind != ALL) {
        join(&c->so_far, &part->found.d);
        return;
    }
    part->found.d = c->so_far;
    c->so_far = (struct difference){0};
    conclude(&part->found, &c->totals, c->o, c->stage);
}

static void free_part(void *item)
{
    struct part *part = item;
    elements_piece_free(&part->a);
    elements_piece_free(&part->b);
}

/* The present tensors, piece by piece: of one form, or of as many bytes, they are cut alike. */
static void give_parts(struct comparison *c, const struct finding *f, bool bytes)
{
    for (;;) {
        struct part *part = ordered_pool_piece(c->line);
        if (!elements_cut(c->a.elements, &part->a) || !elements_cut(c->b.elements, &part->b))
            return;
        part->kind = bytes ? BYTES : ELEMENTS;
        part->found = *f;
        if (part->a.count >= LARGE)
            ordered_pool_submit(c->line, true);
        else
            ordered_pool_do(c->line);
    }
}

/* Line i of A and line j of B, which have the same name. */
static void compare_tensor(struct comparison *c, struct finding *f, uint32_t i, uint32_t j)
{
    struct side *a = &c->a, *b = &c->b;
    const struct tensor *x = &ts_toc(a->in)->tensor[a->line[i]];
    const struct tensor *y = &ts_toc(b->in)->tensor[b->line[j]];
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
    struct side *a = &c->a, *b = &c->b;
    choose_lines(a, b, c->o);
    choose_lines(b, a, c->o);
    find_mates(a, b);
    check_order(a, b);
    c->line = ordered_pool_begin(threads, ORDERED_POOL_SLACK, sizeof(struct part), compare_part,
                                 take_part, c);
    for (uint32_t i = 0, j = 0; i < a->lines || j < b->lines;) {
        bool only_a = i < a->lines && a->mate[i] == NO_LINE;
        bool only_b = !only_a && j < b->lines && b->mate[j] == NO_LINE;
        struct finding f = {.in_a = !only_b, .in_b = !only_a};
        if (f.in_b)
            elements_form_of(b->elements, b->line[j], &f.b);
        if (f.in_a)
            elements_form_of(a->elements, a->line[i], &f.a);
        f.name = f.in_a ? f.a.name : f.b.name;
        if (f.in_a && f.in_b)
            compare_tensor(c, &f, i, j);
        i += f.in_a;
        j += f.in_b;
        struct part *all = ordered_pool_piece(c->line);
        all->kind = ALL;
        all->found = f;
        ordered_pool_do(c->line);
    }
    ordered_pool_end(c->line, free_part);
}

static struct tensor file_form(struct ts_in *in, size_t i)
{
    struct tensor form = {.dtype = DTYPE_U8, .rank = 1};
    form.name = ts_file(in, i, &form.size);
    form.dim[0] = form.size;
    return form;
}

static void compare_files(struct comparison *c, struct totals *totals)
{
    struct ts_in *a = c->a.in, *b = c->b.in;
    for (size_t i = 0; i < ts_files(a); i++) {
        struct finding f = {.in_a = true, .a = file_form(a, i)};
        f.name = f.a.name;
        int64_t j = find_file(b, f.name);
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
        if (find_file(a, f.name) < 0)
            conclude(&f, totals, c->o, c->stage);
    }
}

static void open_side(struct side *side, const char *path, const struct stage *stage,
                      const struct options *o)
{
    side->in = ts_open(strcmp(path, "-") ? path : NULL, stage);
    side->elements = elements_new(side->in, o->values);
}

static void close_side(struct side *side)
{
    elements_free(side->elements);
    ts_close(side->in);
    free(side->line);
    free(side->mate);
}

static void take_options(struct options *o, struct stage *stage, int argc, char **argv)
{
    const struct arg args[] = {
        {.name = "common",
         .to = &o->common,
         .help = "only tensors (and side files) that both have"},
        {.name = "files", .to = &o->files, .help = "side files too, byte by byte"},
        arg_threads(&o->threads),
        {.name = "json", .to = &o->json, .help = "a line of JSON for each tensor that differs"},
        {.name = "tsv",
         .to = &o->tsv,
         .help = "the same as --json, tab-separated",
         .or_previous = true},
        {.name = "summary", .letter = 's', .to = &o->summary, .help = "write the totals only"},
        {.name = "values",
         .to = &o->values,
         .help = "compare numbers, FP8, MXFP4 and NVFP4 matrices as BF16; not dtypes, bytes or "
                 "scales; -0 equals 0, NaN equals NaN"},
        {.name = "plan", .help = "compare the tables only: names, dtypes, shapes"},
        {.name = "quiet", .help = "write nothing; the exit status says it"},
        {.name = "verbose", .help = "a line also for each tensor that is the same"},
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
