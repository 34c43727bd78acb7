#include "stream/finding.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

bool finding_equal(const struct finding *f)
{
    return f->in_a && f->in_b && f->same_form && !f->d.differing;
}

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

static bool has_sqnr(const struct finding *f)
{
    return f->d.noise > 0 && dtype_is_float(f->a.dtype);
}

void finding_print_record(const struct finding *f, enum report form)
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
    json_object_set_new(record, "sqnr",
                        has_sqnr(f) ? report_number(difference_sqnr(&f->d)) : json_null());
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
        printf(", SQNR %.2f dB", difference_sqnr(&f->d));
    free(at);
    json_decref(index);
}

void finding_print_text(const struct finding *f)
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
