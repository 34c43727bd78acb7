/* st-stat: what range of values each tensor has. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "die.h"
#include "report.h"
#include "ts.h"
#include "values.h"

static const char usage[] =
    "usage: st-stat [-hnq] [--hist] [--json | --tsv] [-o file] [--progress] [--values]\n"
    "               [stream]\n"
    "\n"
    "A line a tensor: smallest, largest, largest absolute and mean value of its elements (without\n"
    "NaN and infinities), how many are zero, NaN or infinite; and a closing line with totals.\n"
    "\n"
    "      --hist       also how many values lie in [2^k, 2^(k+1)) for each k, by absolute value;\n"
    "                   for packed 4-bit weights as they lie, how many of each code there are\n"
    "      --json       a line of JSON a tensor\n"
    "      --tsv        the same as --json, tab-separated\n"
    "      --values     FP8, MXFP4 and NVFP4 matrices as their scales make them, in BF16; without\n"
    "                   it, elements as they lie (bytes of packed 4-bit weights)\n"
    "  -n, --plan       from the table only: no lines but the closing one\n"
    "  -o, --output F   write to F instead of standard output\n"
    "      --progress   show bytes, rate and time left\n"
    "  -q, --quiet      no head and no closing line\n"
    "  -h, --help       this text\n"
    "      --version    the version\n"
    "\n"
    "Examples:\n"
    "  st-stat --values DeepSeek-V4\n"
    "  st-grep 'experts\\.7\\.w1\\.scale' DeepSeek-V4 | st-stat --hist\n"
    "  st-stat --json amax.ts | jq -r 'select(.max > 100).name'\n";

enum {
    WIDE = 1024,
    EXPONENT_MIN = -1074, /* of doubles, subnormals too */
    EXPONENTS = 1074 + 1024,
    CODES = 16,
    BAR = 50 /* characters */
};

struct options {
    bool hist, json, tsv, values;
    enum report form;
};

struct stat {
    bool packed; /* elements are bytes of two 4-bit codes each */
    uint64_t count, zeros, nan, infinite;
    double min, max, sum; /* of the finite ones; min > max if there are none */
    uint64_t exponent[EXPONENTS];
    uint64_t code[CODES];
};

/* ---- counting ---- */

/* A quantized matrix's elements as they lie, two a byte (weight.h has the formats). */
static bool is_packed(const struct tensor *form)
{
    const char *dot = strrchr(form->name, '.');
    return form->rank == 2 && dot && !strcmp(dot, ".weight") &&
           (form->dtype == DTYPE_I8 || form->dtype == DTYPE_U8);
}

/* In local variables, and without a jump that depends on a value: several times as fast. */
static void add_values(struct stat *stat, const double *value, size_t count)
{
    double min = stat->min, max = stat->max, sum = 0;
    size_t zeros = 0, nan = 0, infinite = 0;
    for (size_t i = 0; i < count; i++) {
        double x = value[i] + 0.0; /* -0 becomes 0 */
        bool is_finite = fabs(x) < INFINITY;
        nan += x != x;
        infinite += fabs(x) == INFINITY;
        zeros += x == 0;
        sum += is_finite ? x : 0;
        min = is_finite && x < min ? x : min;
        max = is_finite && x > max ? x : max;
    }
    stat->min = min;
    stat->max = max;
    stat->sum += sum;
    stat->zeros += zeros;
    stat->nan += nan;
    stat->infinite += infinite;
}

static void add_exponents(struct stat *stat, const double *value, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t bits;
        memcpy(&bits, &value[i], sizeof bits);
        int exponent = (int)(bits >> 52 & 0x7ff);
        if (exponent > 0 && exponent < 0x7ff)
            stat->exponent[exponent - 1023 - EXPONENT_MIN]++;
        else if (value[i] != 0 && isfinite(value[i]))
            stat->exponent[ilogb(value[i]) - EXPONENT_MIN]++; /* a subnormal */
    }
}

static void add_codes(struct stat *stat, const uint8_t *byte, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        stat->code[byte[i] & 15]++;
        stat->code[byte[i] >> 4]++;
    }
}

/* All of the present tensor. */
static void count_tensor(struct stat *stat, struct values *values, bool hist)
{
    const struct tensor *form = values_form(values);
    *stat = (struct stat){.packed = is_packed(form), .min = INFINITY, .max = -INFINITY};
    double value[WIDE];
    const void *data;
    for (size_t count; (count = values_peek(values, &data));) {
        count = count < WIDE ? count : WIDE;
        values_widen(form->dtype, data, count, value);
        add_values(stat, value, count);
        if (hist && stat->packed)
            add_codes(stat, data, count);
        else if (hist)
            add_exponents(stat, value, count);
        stat->count += count;
        values_skip(values, count);
    }
}

/* ---- writing ---- */

static uint64_t numbers(const struct stat *stat)
{
    return stat->count - stat->nan - stat->infinite;
}

static double max_abs(const struct stat *stat)
{
    return fmax(fabs(stat->min), fabs(stat->max));
}

static double mean(const struct stat *stat)
{
    return stat->sum / (double)numbers(stat);
}

/* {"-3": 17, "-2": 4}: exponents or codes with their counts, in order. */
static json_t *histogram(const struct stat *stat)
{
    const uint64_t *bin = stat->packed ? stat->code : stat->exponent;
    int bins = stat->packed ? CODES : EXPONENTS, first = stat->packed ? 0 : EXPONENT_MIN;
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

static json_t *if_finite(const struct stat *stat, double number)
{
    return numbers(stat) ? report_number(number) : json_null();
}

static void print_record(const struct options *o, const struct tensor *form,
                         const struct stat *stat)
{
    json_t *record = json_pack(
        "{s:s, s:s, s:o, s:b, s:I, s:o, s:o, s:o, s:o, s:I, s:I, s:I}", "name", form->name, "dtype",
        dtype_name(form->dtype), "shape", report_shape(form), "packed", (int)stat->packed, "count",
        (json_int_t)stat->count, "min", if_finite(stat, stat->min), "max",
        if_finite(stat, stat->max), "max_abs", if_finite(stat, max_abs(stat)), "mean",
        if_finite(stat, mean(stat)), "zeros", (json_int_t)stat->zeros, "nan", (json_int_t)stat->nan,
        "inf", (json_int_t)stat->infinite);
    if (o->hist)
        json_object_set_new(record, "hist", histogram(stat));
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

static void print_number(const struct stat *stat, double number)
{
    if (numbers(stat))
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
    printf("%-8s ", dtype_name(form->dtype));
    print_number(stat, stat->min);
    print_number(stat, stat->max);
    print_number(stat, max_abs(stat));
    print_number(stat, mean(stat));
    printf("%8" PRIu64 " %6" PRIu64 " %6" PRIu64 "  %s %s%s\n", stat->zeros, stat->nan,
           stat->infinite, form->name, tensor_shape(form, shape), stat->packed ? " packed" : "");
    if (o->hist)
        print_bars(stat);
}

/* The closing line, as far as the table tells. */
static void print_plan(const struct values *values, const struct toc *toc)
{
    uint64_t tensors = 0, elements = 0;
    struct tensor form;
    for (size_t i = 0; i < toc->count; i++)
        if (values_form_of(values, i, &form)) {
            tensors++;
            elements += form.size / dtype_size(form.dtype);
        }
    printf("%" PRIu64 " tensors, %" PRIu64 " elements\n", tensors, elements);
}

int main(int argc, char **argv)
{
    struct options o = {0};
    const struct arg args[] = {
        {"hist", ARG_FLAG, &o.hist, 0, NULL, false},
        {"json", ARG_FLAG, &o.json, 0, NULL, false},
        {"tsv", ARG_FLAG, &o.tsv, 0, NULL, false},
        {"values", ARG_FLAG, &o.values, 0, NULL, false},
        {0},
    };
    struct stage stage;
    stage_begin(&stage, usage, args, argc, argv, 1);
    o.form = report_form(o.tsv, o.json);
    struct ts_in *in = ts_open(stage_input(&stage), &stage);
    struct values *values = values_new(in, o.values);
    struct stat *stat = xalloc(1, sizeof *stat);
    bool frame = o.form == REPORT_TEXT && !stage.quiet;
    uint64_t tensors = 0, elements = 0, nan = 0, infinite = 0;
    report_begin(&stage);

    if (frame && stage.plan)
        print_plan(values, ts_toc(in));
    frame &= !stage.plan;
    if (frame)
        print_head();
    for (; values_next(values); tensors++) {
        count_tensor(stat, values, o.hist);
        if (o.form == REPORT_TEXT)
            print_text(&o, values_form(values), stat);
        else
            print_record(&o, values_form(values), stat);
        elements += stat->count;
        nan += stat->nan;
        infinite += stat->infinite;
    }
    if (ts_plan_only(in) && !stage.plan)
        die("%s: a plan, without tensors; run the stages before without -n", ts_name(in));
    values_free(values);
    ts_close(in);
    free(stat);
    if (frame)
        printf("%" PRIu64 " tensors, %" PRIu64 " elements, %" PRIu64 " NaN, %" PRIu64 " infinite\n",
               tensors, elements, nan, infinite);
    return report_end(&stage);
}
