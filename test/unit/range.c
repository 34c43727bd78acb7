/* What range of values elements have, beside one element after the other by dtype_value(). */
#include "range.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bf16.h"

enum { MANY = 100000 };

/* The plain way. */
static void count(struct range *range, enum dtype dtype, const void *data, size_t elements,
                  enum range_histogram histogram)
{
    for (size_t i = 0; i < elements; i++) {
        double x = dtype_value(dtype, data, i);
        range->count++;
        range->nan += isnan(x) != 0;
        range->infinite += isinf(x) != 0; /* -1 for -infinity */
        range->zeros += x == 0;
        if (isfinite(x)) {
            range->sum += x;
            range->min = x + 0.0 < range->min ? x + 0.0 : range->min;
            range->max = x + 0.0 > range->max ? x + 0.0 : range->max;
        }
        if (histogram == RANGE_BY_EXPONENT && isfinite(x) && x != 0)
            range->exponent[ilogb(x) - RANGE_EXPONENT_MIN]++;
        if (histogram == RANGE_BY_CODE) {
            range->code[((const uint8_t *)data)[i] & 15]++;
            range->code[((const uint8_t *)data)[i] >> 4]++;
        }
    }
}

/* Equal, but for the order of the sum. */
static void assert_same(const struct range *a, const struct range *b)
{
    assert_int_equal(a->count, b->count);
    assert_int_equal(a->zeros, b->zeros);
    assert_int_equal(a->nan, b->nan);
    assert_int_equal(a->infinite, b->infinite);
    assert_memory_equal(&a->min, &b->min, sizeof a->min);
    assert_memory_equal(&a->max, &b->max, sizeof a->max);
    assert_memory_equal(a->exponent, b->exponent, sizeof a->exponent);
    assert_memory_equal(a->code, b->code, sizeof a->code);
}

static void check(enum dtype dtype, const void *data, size_t elements,
                  enum range_histogram histogram)
{
    struct range found, wanted, part;
    range_clear(&found);
    range_clear(&wanted);
    range_add(&found, dtype, data, elements, histogram);
    count(&wanted, dtype, data, elements, histogram);
    assert_same(&found, &wanted);
    /* In pieces of 1, 2, 4, ... elements. */
    range_clear(&found);
    for (size_t at = 0, size = 1; at < elements; at += size, size *= 2) {
        size = size < elements - at ? size : elements - at;
        range_clear(&part);
        range_add(&part, dtype, (const char *)data + at * dtype_size(dtype), size, histogram);
        range_join(&found, &part);
    }
    assert_same(&found, &wanted);
}

static uint64_t next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

static void any_bits_of_any_dtype(void **state)
{
    (void)state;
    uint64_t random = 1, *data = malloc(MANY * sizeof *data);
    for (size_t i = 0; i < MANY; i++)
        data[i] = next(&random);
    for (unsigned dtype = 0; dtype < DTYPE_COUNT; dtype++)
        for (enum range_histogram histogram = RANGE_NONE; histogram <= RANGE_BY_EXPONENT;
             histogram++) {
            check((enum dtype)dtype, data, MANY, histogram);
            for (size_t elements = 0; elements < 20; elements++)
                check((enum dtype)dtype, data, elements, histogram);
        }
    check(DTYPE_I8, data, MANY, RANGE_BY_CODE);
    check(DTYPE_U8, data, MANY, RANGE_BY_CODE);
    free(data);
}

static void every_bf16(void **state)
{
    (void)state;
    enum { CODES = 1 << 16, STEP = 40503 }; /* odd: every code once, in disorder */
    uint16_t *data = malloc(CODES * sizeof *data);
    for (unsigned i = 0; i < CODES; i++)
        data[i] = (uint16_t)(i * STEP);
    check(DTYPE_BF16, data, CODES, RANGE_BY_EXPONENT);
    for (unsigned i = 0; i < CODES; i++)
        check(DTYPE_BF16, &data[i], 1, RANGE_BY_EXPONENT);
    /* Without what is not finite. */
    size_t finite = 0;
    for (unsigned i = 0; i < CODES; i++)
        if (!bf16_not_finite(data[i]))
            data[finite++] = data[i];
    check(DTYPE_BF16, data, finite, RANGE_BY_EXPONENT);
    free(data);
}

/* Numbers of which any sum is exact. */
static void sums(void **state)
{
    (void)state;
    struct range range;
    double sum = 0;
    uint64_t random = 1;
    uint16_t *wide = malloc(MANY * sizeof *wide);
    int8_t *narrow = malloc(MANY);
    for (size_t i = 0; i < MANY; i++) {
        narrow[i] = (int8_t)next(&random);
        wide[i] = bf16_from_f32(narrow[i]);
        sum += narrow[i];
    }
    range_clear(&range);
    range_add(&range, DTYPE_BF16, wide, MANY, RANGE_NONE);
    assert_true(range.sum == sum);
    wide[3] = 0x7fc0;
    wide[4] = 0xff80;
    range_add(&range, DTYPE_BF16, wide, MANY, RANGE_NONE);
    assert_true(range.sum == 2 * sum - narrow[3] - narrow[4]);
    range_clear(&range);
    range_add(&range, DTYPE_I8, narrow, MANY, RANGE_NONE);
    assert_true(range.sum == sum);
    free(wide);
    free(narrow);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_bits_of_any_dtype),
        cmocka_unit_test(every_bf16),
        cmocka_unit_test(sums),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
