/* What range of values elements have, beside one element after the other by dtype_value(). */
#include "stream/stats.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tensor/bf16.h"

enum { MANY = 100000 };

/* The plain way. */
static void count(struct stats *stats, enum dtype dtype, const void *data, size_t elements,
                  enum stats_histogram histogram)
{
    for (size_t i = 0; i < elements; i++) {
        double x = dtype_value(dtype, data, i);
        stats->count++;
        stats->nan += isnan(x) != 0;
        stats->infinite += isinf(x) != 0; /* -1 for -infinity */
        stats->zeros += x == 0;
        if (isfinite(x)) {
            stats->sum += x;
            stats->min = x + 0.0 < stats->min ? x + 0.0 : stats->min;
            stats->max = x + 0.0 > stats->max ? x + 0.0 : stats->max;
        }
        if (histogram == STATS_BY_EXPONENT && isfinite(x) && x != 0)
            stats->exponent[ilogb(x) - STATS_EXPONENT_MIN]++;
        if (histogram == STATS_BY_CODE) {
            stats->code[((const uint8_t *)data)[i] & 15]++;
            stats->code[((const uint8_t *)data)[i] >> 4]++;
        }
    }
}

/* Equal, but for the order of the sum. */
static void assert_same(const struct stats *a, const struct stats *b)
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
                  enum stats_histogram histogram)
{
    struct stats found, wanted, part;
    stats_clear(&found);
    stats_clear(&wanted);
    stats_add(&found, dtype, data, elements, histogram);
    count(&wanted, dtype, data, elements, histogram);
    assert_same(&found, &wanted);
    /* In pieces of 1, 2, 4, ... elements. */
    stats_clear(&found);
    for (size_t at = 0, size = 1; at < elements; at += size, size *= 2) {
        size = size < elements - at ? size : elements - at;
        stats_clear(&part);
        stats_add(&part, dtype, (const char *)data + at * dtype_size(dtype), size, histogram);
        stats_join(&found, &part);
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
        for (enum stats_histogram histogram = STATS_NO_HISTOGRAM;
             dtype != DTYPE_F4 && histogram <= STATS_BY_EXPONENT; histogram++) {
            check((enum dtype)dtype, data, MANY, histogram);
            for (size_t elements = 0; elements < 20; elements++)
                check((enum dtype)dtype, data, elements, histogram);
        }
    check(DTYPE_I8, data, MANY, STATS_BY_CODE);
    check(DTYPE_U8, data, MANY, STATS_BY_CODE);
    free(data);
}

static void every_bf16(void **state)
{
    (void)state;
    enum { CODES = 1 << 16, STEP = 40503 }; /* odd: every code once, in disorder */
    uint16_t *data = malloc(CODES * sizeof *data);
    for (unsigned i = 0; i < CODES; i++)
        data[i] = (uint16_t)(i * STEP);
    check(DTYPE_BF16, data, CODES, STATS_BY_EXPONENT);
    for (unsigned i = 0; i < CODES; i++)
        check(DTYPE_BF16, &data[i], 1, STATS_BY_EXPONENT);
    /* Without what is not finite. */
    size_t finite = 0;
    for (unsigned i = 0; i < CODES; i++)
        if (!bf16_not_finite(data[i]))
            data[finite++] = data[i];
    check(DTYPE_BF16, data, finite, STATS_BY_EXPONENT);
    free(data);
}

/* Numbers of which any sum is exact. */
static void sums(void **state)
{
    (void)state;
    struct stats stats;
    double sum = 0;
    uint64_t random = 1;
    uint16_t *wide = malloc(MANY * sizeof *wide);
    int8_t *narrow = malloc(MANY);
    for (size_t i = 0; i < MANY; i++) {
        narrow[i] = (int8_t)next(&random);
        wide[i] = bf16_from_f32(narrow[i]);
        sum += narrow[i];
    }
    stats_clear(&stats);
    stats_add(&stats, DTYPE_BF16, wide, MANY, STATS_NO_HISTOGRAM);
    assert_true(stats.sum == sum);
    wide[3] = 0x7fc0;
    wide[4] = 0xff80;
    stats_add(&stats, DTYPE_BF16, wide, MANY, STATS_NO_HISTOGRAM);
    assert_true(stats.sum == 2 * sum - narrow[3] - narrow[4]);
    stats_clear(&stats);
    stats_add(&stats, DTYPE_I8, narrow, MANY, STATS_NO_HISTOGRAM);
    assert_true(stats.sum == sum);
    free(wide);
    free(narrow);
}

static void assert_sum(enum dtype dtype, const uint8_t *data)
{
    double sum = 0;
    struct stats stats;
    for (size_t i = 0; i < MANY; i++) {
        double x = dtype_value(dtype, data, i);
        sum += isnan(x) ? 0 : x;
    }
    stats_clear(&stats);
    stats_add(&stats, dtype, data, MANY, STATS_NO_HISTOGRAM);
    assert_true(stats.sum == sum);
}

/* Finite numbers of all magnitudes, zeros of either sign, and then one that is not finite. */
static void finite_f32(void **state)
{
    (void)state;
    uint64_t random = 1;
    uint32_t *bits = malloc(MANY * sizeof *bits);
    for (size_t i = 0; i < MANY; i++)
        bits[i] = (uint32_t)next(&random) & ~(1U << 23 << i % 8);
    bits[5] = 0;
    bits[77] = 0x80000000;
    check(DTYPE_F32, bits, MANY, STATS_NO_HISTOGRAM);
    const uint32_t others[] = {0x7f800000, 0xff800000, 0x7f800001, 0xffc00000};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        bits[MANY / 2] = others[i];
        check(DTYPE_F32, bits, MANY, STATS_NO_HISTOGRAM);
    }
    float *whole = malloc(MANY * sizeof *whole);
    double sum = 0;
    for (size_t i = 0; i < MANY; i++)
        sum += (double)(whole[i] = (float)(int16_t)next(&random));
    struct stats stats;
    stats_clear(&stats);
    stats_add(&stats, DTYPE_F32, whole, MANY, STATS_NO_HISTOGRAM);
    assert_true(stats.sum == sum);
    free(bits);
    free(whole);
}

/* Of bytes whose sums are exact: any, with NaN in one place, and the largest of either sign. */
static void sums_of_bytes(void **state)
{
    (void)state;
    static const enum dtype dtype[] = {DTYPE_I8, DTYPE_U8, DTYPE_F8_E4M3};
    uint64_t random = 1;
    uint8_t *data = malloc(MANY);
    for (size_t i = 0; i < sizeof dtype / sizeof *dtype; i++) {
        for (size_t j = 0; j < MANY; j++)
            data[j] = (uint8_t)(next(&random) % 0xff); /* without 0xff, which is a NaN */
        for (size_t j = 0; j < MANY; j++)
            data[j] = data[j] == 0x7f ? 0 : data[j]; /* nor the other */
        assert_sum(dtype[i], data);
        data[MANY / 2] = 0x7f;
        assert_sum(dtype[i], data);
        memset(data, 0x7e, MANY);
        assert_sum(dtype[i], data);
        memset(data, 0xfe, MANY);
        assert_sum(dtype[i], data);
    }
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_bits_of_any_dtype),
        cmocka_unit_test(every_bf16),
        cmocka_unit_test(sums),
        cmocka_unit_test(finite_f32),
        cmocka_unit_test(sums_of_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
