/* st-stat: statistics of each tensor's values. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/ordered_pool.h"
#include "quantize/amax.h"
#include "stream/elements.h"
#include "stream/report.h"
#include "stream/stats.h"
#include "stream/ts.h"

static const struct program program = {
    .about = "A line a tensor: smallest, largest, largest absolute and mean value of its "
             "elements (without NaN and infinities), how many are zero, NaN or infinite; "
             "and a closing line with totals.",
    .operands = {"[stream]"},
    .examples = {"st-stat --values DeepSeek-V4",
                 "st-grep 'experts\\.7\\.w1\\.scale' DeepSeek-V4 | st-stat --hist",
                 "st-stat --json amax.ts | jq -r 'select(.max > 100).name'"},
    .max_operands = 1,
};

enum { BAR = 50 /* characters */, LARGE = 1 << 16 /* elements: worth a thread */ };

struct options {
    bool hist, json, place, tsv, values;
    const struct model *model; /* to tell places by */
    enum report form;
    uint64_t threads;
};

/* A tensor's counts so far. */
struct stat {
    bool packed; /* elements are bytes of two 4-bit codes each */
    struct stats stats;
};

/* ---- writing ---- */

static uint64_t numbers(const struct stats *stats)
{
    return stats->count - stats->nan - stats->infinite;
}

static double max_abs(const struct stats *stats)
{
    return fmax(fabs(stats->min), fabs(stats->max));
}

static double mean(const struct stats *stats)
{
    return stats->sum / (double)numbers(stats);
}

/* {"-3": 17, "-2": 4}: exponents or codes with their counts, in order. */
static json_t *histogram(const struct stat *stat)
{
    const uint64_t *bin = stat->packed ? stat->stats.code : stat->stats.exponent;
    int bins = stat->packed ? STATS_CODES : STATS_EXPONENTS;
    int first = stat->packed ? 0 : STATS_EXPONENT_MIN;
    json_t *object = json_object();
    for (int i = 0; i < bins; i++) {
        if (!bin[i])
            continue;
        char *key = xprintf("%d", first + i);
        json_object_set_new(object, key, json_integer((json_int_t)bin[i]));
        free(key);
    }
    return object;
}

static json_t *if_finite(const struct stats *stats, double number)
{
    return numbers(stats) ? report_number(number) : json_null();
}

/* Add the place in the model of a tensor, or of an amax's matrix. */
static void add_place(json_t *record, const struct model *model, const char *name)
{
    static const char *const section[] = {
        [SECTION_EMBED] = "embed", [SECTION_LAYERS] = "layers", [SECTION_NORM] = "norm",
        [SECTION_HEAD] = "head",   [SECTION_MTP] = "mtp",       [SECTION_UNKNOWN] = NULL};
    static const char *const kind[] = {[AMAX_INPUT] = "input amax", [AMAX_WEIGHT] = "weight amax"};
    char module[TENSOR_NAME_MAX + 1];
    enum amax_which which;
    bool amax = amax_key(model, name, module, &which);
    struct place place = model_place(model, amax ? module : name);
    const char *matrix = model_matrix_name(model, &place), *dot = strrchr(name, '.');
    bool layer = place.section == SECTION_LAYERS || place.section == SECTION_MTP;
    json_object_set_new(record, "section",
                        section[place.section] ? json_string(section[place.section]) : json_null());
    json_object_set_new(record, "layer",
                        layer ? json_integer((json_int_t)place.layer) : json_null());
    json_object_set_new(record, "expert",
                        place_is_routed(&place) ? json_integer((json_int_t)place.expert)
                                                : json_null());
    json_object_set_new(record, "matrix", *matrix ? json_string(matrix) : json_null());
    json_object_set_new(record, "kind", json_string(amax ? kind[which] : dot ? dot + 1 : name));
}

static void print_record(const struct options *o, const struct tensor *form,
                         const struct stat *stat)
{
    const struct stats *stats = &stat->stats;
    json_t *record = json_pack(
        "{s:s, s:s, s:o, s:b, s:I, s:o, s:o, s:o, s:o, s:I, s:I, s:I}", "name", form->name, "dtype",
        dtype_name(form->dtype), "shape", report_shape(form), "packed", (int)stat->packed, "count",
        (json_int_t)stats->count, "min", if_finite(stats, stats->min), "max",
        if_finite(stats, stats->max), "max_abs", if_finite(stats, max_abs(stats)), "mean",
        if_finite(stats, mean(stats)), "zeros", (json_int_t)stats->zeros, "nan",
        (json_int_t)stats->nan, "inf", (json_int_t)stats->infinite);
    if (o->hist)
        json_object_set_new(record, "hist", histogram(stat));
    if (o->place)
        add_place(record, o->model, form->name);
    report_record(o->form, record);
}

static void print_bars(const struct stat *stat)
{
    json_t *bins = histogram(stat), *value;
    const char *key;
    json_int_t most = 1;
    json_object_foreach(bins, key, value)
    {
        most = json_integer_value(value) > most ? json_integer_value(value) : most;
    }
    json_object_foreach(bins, key, value)
    {
        json_int_t count = json_integer_value(value);
        int length = (int)ceil(BAR * (double)count / (double)most);
        printf("  %s%-5s %12" JSON_INTEGER_FORMAT " %.*s\n", stat->packed ? "code " : "2^", key,
               count, length, "##################################################");
    }
    json_decref(bins);
}

static void print_number(const struct stats *stats, double number)
{
    if (numbers(stats))
        printf("%11.4g  ", number);
    else
        printf("%11s  ", "-");
}

static void print_head(void)
{
    printf("%-8s %11s  %11s  %11s  %11s  %8s %6s %6s  %s\n", "dtype", "min", "max", "max |x|",
           "mean", "zeros", "NaN", "inf", "name and shape");
}

static void print_text(const struct options *o, const struct tensor *form, const struct stat *stat)
{
    char shape[TENSOR_SHAPE_TEXT];
    const struct stats *stats = &stat->stats;
    printf("%-8s ", dtype_name(form->dtype));
    print_number(stats, stats->min);
    print_number(stats, stats->max);
    print_number(stats, max_abs(stats));
    print_number(stats, mean(stats));
    printf("%8" PRIu64 " %6" PRIu64 " %6" PRIu64 "  %s %s%s\n", stats->zeros, stats->nan,
           stats->infinite, form->name, tensor_shape(form, shape), stat->packed ? " packed" : "");
    if (o->hist)
        print_bars(stat);
}

/* The closing line, from the table. */
static void print_plan(const struct elements *elements, const struct toc *toc)
{
    uint64_t tensors = 0, count = 0;
    struct tensor form;
    for (size_t i = 0; i < toc->count; i++)
        if (elements_form_of(elements, i, &form)) {
            tensors++;
            count += form.size / dtype_size(form.dtype);
        }
    printf("%" PRIu64 " tensors, %" PRIu64 " elements\n", tensors, count);
}

/* ---- counting ---- */

/* A part of a tensor, or the mark of its end. */
struct part {
    struct tensor form;
    bool ends;
    struct elements_piece *piece;
    struct stats stats;
};

/* Shared by the threads. */
struct counting {
    const struct options *o;
    struct elements *elements;
    struct stat stat; /* of the current tensor */
    uint64_t tensors, count, nan, infinite;
};

/* A quantized matrix's elements as stored, two per byte (weight.h has the formats). */
static bool is_packed(const struct tensor *form)
{
    const char *dot = strrchr(form->name, '.');
    return form->rank == 2 && dot && !strcmp(dot, ".weight") &&
           (form->dtype == DTYPE_I8 || form->dtype == DTYPE_U8);
}

static void count_part(void *context, void *item)
{
    const struct counting *c = context;
    struct part *part = item;
    if (part->ends)
        return;
    const void *data = elements_load(c->elements, part->piece);
    stats_clear(&part->stats);
    stats_add(&part->stats, part->form.dtype, data, elements_count(part->piece),
              !c->o->hist              ? STATS_NO_HISTOGRAM
              : is_packed(&part->form) ? STATS_BY_CODE
                                       : STATS_BY_EXPONENT);
}

static void take_part(void *context, void *item)
{
    struct counting *c = context;
    const struct part *part = item;
    struct stats *stats = &c->stat.stats;
    if (!part->ends) {
        stats_join(stats, &part->stats);
        return;
    }
    c->stat.packed = is_packed(&part->form);
    if (c->o->form == REPORT_TEXT)
        print_text(c->o, &part->form, &c->stat);
    else
        print_record(c->o, &part->form, &c->stat);
    c->tensors++;
    c->count += stats->count;
    c->nan += stats->nan;
    c->infinite += stats->infinite;
    stats_clear(stats);
}

static void free_part(void *item)
{
    elements_piece_free(((struct part *)item)->piece);
}

static void count_all(struct counting *c, unsigned threads)
{
    struct ordered_pool *line = ordered_pool_begin(threads, ORDERED_POOL_SLACK, sizeof(struct part),
                                                   count_part, take_part, c);
    stats_clear(&c->stat.stats);
    while (elements_next(c->elements)) {
        for (bool ends = false; !ends;) {
            struct part *part = ordered_pool_piece(line);
            part->form = *elements_form(c->elements);
            part->ends = ends = !elements_cut(c->elements, &part->piece);
            if (!ends && elements_count(part->piece) >= LARGE)
                ordered_pool_submit(line, true);
            else
                ordered_pool_do(line);
        }
    }
    ordered_pool_end(line, free_part);
}

static void take_options(struct options *o, struct stage *stage, int argc, char **argv)
{
    const struct arg args[] = {
        {.name = "hist",
         .to = &o->hist,
         .help = "also count absolute values in [2^k, 2^(k+1)) for each k; for packed 4-bit "
                 "weights without --values, count each code"},
        arg_threads(&o->threads),
        {.name = "json", .to = &o->json, .help = "a line of JSON per tensor"},
        {.name = "tsv",
         .to = &o->tsv,
         .help = "the same as --json, tab-separated",
         .or_previous = true},
        {.name = "place",
         .to = &o->place,
         .help = "with --json or --tsv: also each tensor's place in the model"},
        {.name = "values",
         .to = &o->values,
         .help = "dequantize FP8, MXFP4 and NVFP4 matrices to BF16 with their scales; without it, "
                 "elements as stored (bytes of packed 4-bit weights)"},
        {.name = "plan", .help = "from the table only: no lines but the closing one"},
        {.name = "quiet", .help = "no heading and no closing line"},
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
    if (o.place && o.form == REPORT_TEXT)
        die_usage("--place adds members to --json and columns to --tsv; give one of them");
    unsigned threads = ordered_pool_threads(o.threads);
    struct ts_in *in = ts_open(stage_input(&stage), &stage);
    /* Amax streams do not record their model. */
    struct model *guessed = model_open(model_guess(ts_toc(in)), NULL);
    o.model = *model_type(ts_model(in)) ? ts_model(in) : guessed;
    struct counting counting = {.o = &o, .elements = elements_new(in, o.values)};
    bool frame = o.form == REPORT_TEXT && !stage.quiet;
    report_begin(&stage);

    if (frame && stage.plan)
        print_plan(counting.elements, ts_toc(in));
    frame &= !stage.plan;
    if (frame)
        print_head();
    count_all(&counting, threads);
    if (ts_plan_only(in) && !stage.plan)
        die("%s: a plan, without tensors; run the stages before without -n", ts_name(in));
    elements_free(counting.elements);
    model_close(guessed);
    ts_close(in);
    if (frame)
        printf("%" PRIu64 " tensors, %" PRIu64 " elements, %" PRIu64 " NaN, %" PRIu64 " infinite\n",
               counting.tensors, counting.count, counting.nan, counting.infinite);
    return report_end(&stage);
}
