/* Amaxes with headroom: buckets by logarithms in doubles, percentiles from sorted values. */
#include "tensor/headroom.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "reference.h"

static int64_t count[HEADROOM_BUCKETS];

/* The buckets' limits are no BF16 values, but for some powers of two, whose logarithm is exact. */
static void buckets_are_equal_in_logarithms(void **state)
{
    (void)state;
    for (unsigned code = 1; code < 0x7f80; code++) {
        double bucket = floor((log2(reference_from_bf16((uint16_t)code)) + 40) / 80 * 512);
        bucket = fmin(fmax(bucket, 0), 511);
        assert_int_equal(headroom_bucket(code), (unsigned)bucket);
    }
}

static void expect(double amax)
{
    float got = headroom_amax(count, 7);
    if (fabs((double)got / amax - 1) > 1e-6)
        fail_msg("expected %g, got %g", amax, (double)got);
}

static double middle(int bucket)
{
    return exp2(-40 + (bucket + 0.5) * 80 / 512);
}

static void percentiles_by_hand(void **state)
{
    (void)state;
    memset(count, 0, sizeof count);
    expect(7); /* no blocks */
    count[256] = 5;
    expect(16384 * middle(256)); /* all of one size */
    count[250] = 1;              /* more than 1 % */
    expect(16384 * middle(250));
    count[256] = 99;
    expect(16384 * middle(250)); /* exactly 1 % */
    count[256] = 100;
    expect(16384 * middle(256)); /* a little less */
    count[256] = 50;
    count[350] = 50; /* 2^14.7 times larger: no headroom is left */
    expect(middle(350));
    count[350] = 1; /* less than one in 10^4 is clipped */
    count[256] = 20000;
    expect(16384 * middle(256));
}

/* Blocks 10^6 times smaller than the largest do not decide. */
static void tiny_blocks_do_not_count(void **state)
{
    (void)state;
    memset(count, 0, sizeof count);
    count[300] = 100;
    count[300 - 128] = 100; /* just within */
    expect(fmax(middle(300), 16384 * middle(300 - 128)));
    memset(count, 0, sizeof count);
    count[300] = 100;
    count[300 - 129] = 100;
    expect(16384 * middle(300));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buckets_are_equal_in_logarithms),
        cmocka_unit_test(percentiles_by_hand),
        cmocka_unit_test(tiny_blocks_do_not_count),
    };
    return cmocka_run_group_tests_name("headroom", tests, NULL, NULL);
}
