/* e^x, beside the C library's in double. */
#include "cpu/exp.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { COUNT = 4096, STEP = 811 /* F32s from one that is tested to the next */ };

VECTORS(void, powers, (float *y, const float *x, size_t count), (y, x, count))
{
    for (size_t i = 0; i < count; i++)
        y[i] = exp_f32(x[i]);
}

/* COUNT numbers from the F32 with these bits on. */
static void numbers(float *x, uint64_t bits)
{
    for (size_t i = 0; i < COUNT; i++, bits += STEP) {
        uint32_t own = (uint32_t)bits;
        memcpy(&x[i], &own, sizeof own);
    }
}

static void nearest_or_next_to_it(void **state)
{
    (void)state;
    float x[COUNT], y[COUNT];
    size_t tested = 0, not_nearest = 0;
    for (uint64_t bits = 0; bits <= UINT32_MAX; bits += (uint64_t)COUNT * STEP) {
        numbers(x, bits);
        powers(y, x, COUNT);
        for (size_t i = 0; i < COUNT; i++) {
            float nearest = (float)exp((double)x[i]);
            if (isnan(x[i]) ? !isnan(y[i]) : nextafterf(y[i], nearest) != nearest)
                fail_msg("exp_f32(%a): wanted %a, got %a", (double)x[i], (double)nearest,
                         (double)y[i]);
            tested++;
            not_nearest += !isnan(x[i]) && y[i] != nearest;
        }
    }
    assert_true(not_nearest * 1000 < tested);
}

static void ends(void **state)
{
    (void)state;
    assert_true(exp_f32(0) == 1 && exp_f32(-0.0F) == 1);
    assert_true(exp_f32(INFINITY) == INFINITY && exp_f32(89) == INFINITY);
    assert_true(exp_f32(-INFINITY) == 0 && exp_f32(-104) == 0);
    assert_true(exp_f32(-103) == 0x1p-149F);
    assert_true(isnan(exp_f32(NAN)));
}

#ifdef __x86_64__

static void same_bits_with_all_vectors(void **state)
{
    (void)state;
    float x[COUNT], any[COUNT], wide[COUNT];
    for (uint64_t bits = 0; bits <= UINT32_MAX; bits += (uint64_t)COUNT * STEP * 7) {
        numbers(x, bits);
        powers_any(any, x, COUNT);
        if (has_avx2()) {
            powers_avx2(wide, x, COUNT);
            assert_memory_equal(wide, any, sizeof any);
        }
        if (has_avx512()) {
            powers_avx512(wide, x, COUNT);
            assert_memory_equal(wide, any, sizeof any);
        }
    }
}

#else

static void same_bits_with_all_vectors(void **state)
{
    (void)state;
    skip();
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nearest_or_next_to_it),
        cmocka_unit_test(ends),
        cmocka_unit_test(same_bits_with_all_vectors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
