#include "stream/difference.h"

#include <math.h>
#include <string.h>

#include "base/die.h"
#include "stream/elements.h"
#include "stream/report.h"

enum { WIDE = 1024 }; /* elements converted to double at a time */

/* Element i as JSON for reports. */
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
    else if (!(isnan(a) && isnan(b))) /* NaNs with different bits */
        error = INFINITY;
    else
        error = 0;
    if (error > d->max_error)
        d->max_error = error;
    d->differing++;
}

/* Keep the first difference: element i of x and y. */
static void note_first(struct difference *d, enum dtype dtype_a, const void *x, enum dtype dtype_b,
                       const void *y, size_t i)
{
    if (d->differing)
        return;
    d->first = d->elements + i;
    d->value_a = element(dtype_a, x, i);
    d->value_b = element(dtype_b, y, i);
}

void difference_add(struct difference *d, enum dtype dtype_a, const void *x, enum dtype dtype_b,
                    const void *y, size_t count, bool exact)
{
    double a[WIDE], b[WIDE];
    size_t size_a = dtype_size(dtype_a), size_b = dtype_size(dtype_b);
    bool is_float = dtype_is_float(dtype_a), one_dtype = dtype_a == dtype_b;
    if (!is_float && one_dtype)
        exact = true; /* doubles do not hold all 64-bit integers */
    for (size_t done = 0, n; done < count; done += n) {
        n = (size_t)at_most(count - done, WIDE);
        const char *p = (const char *)x + done * size_a, *q = (const char *)y + done * size_b;
        bool equal = one_dtype && !memcmp(p, q, n * size_a);
        if (is_float || !equal)
            elements_widen(dtype_a, p, n, a);
        if (is_float)
            d->signal += sum_of_squares(a, n);
        if (!equal)
            elements_widen(dtype_b, q, n, b);
        for (size_t i = 0; i < n && !equal; i++) {
            if (exact ? !memcmp(p + i * size_a, q + i * size_a, size_a)
                      : a[i] == b[i] || (isnan(a[i]) && isnan(b[i])))
                continue;
            note_first(d, dtype_a, p, dtype_b, q, i);
            count_difference(d, a[i], b[i]);
        }
        d->elements += n;
    }
}

void difference_add_bytes(struct difference *d, const void *a, const void *b, size_t size)
{
    d->other_bytes |= memcmp(a, b, size) != 0;
}

void difference_join(struct difference *d, struct difference *next)
{
    if (!d->differing) {
        d->first = d->elements + next->first;
        d->value_a = next->value_a;
        d->value_b = next->value_b;
    } else {
        json_decref(next->value_a);
        json_decref(next->value_b);
    }
    next->value_a = next->value_b = NULL;
    d->other_bytes |= next->other_bytes;
    d->elements += next->elements;
    d->differing += next->differing;
    d->max_error = fmax(d->max_error, next->max_error);
    d->signal += next->signal;
    d->noise += next->noise;
}

double difference_sqnr(const struct difference *d)
{
    return 10 * log10(d->signal / d->noise);
}

void difference_clear(struct difference *d)
{
    json_decref(d->value_a);
    json_decref(d->value_b);
    *d = (struct difference){0};
}
