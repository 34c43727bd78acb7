/* Blocks of memory that are kept. */
#include "base/blocks.h"

#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/die.h"

enum { MIB = 1 << 20, MANY = 16 };

/* Bytes that the process has allocated. */
static size_t allocated(void)
{
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

static void aligned_and_apart(void **state)
{
    (void)state;
    struct blocks *blocks = blocks_new();
    char *block[MANY];
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < MANY; i++) {
            block[i] = blocks_take(blocks, (i + 1) * 10001, i % 3 * 10);
            assert_int_equal((uintptr_t)block[i] % XALIGN, 0);
            memset(block[i], (int)i, (i + 1) * 10001 * (i % 3 * 10));
        }
        for (size_t i = 0; i < MANY; i++)
            for (size_t j = 0; j < (i + 1) * 10001 * (i % 3 * 10); j += 1000)
                assert_int_equal(block[i][j], i);
        for (size_t i = 0; i < MANY; i++)
            blocks_give(blocks, block[i]);
    }
    blocks_give(blocks, NULL);
    blocks_free(blocks);
}

static void one_that_fits_is_used_again(void **state)
{
    (void)state;
    struct blocks *blocks = blocks_new();
    char *rest = blocks_take(blocks, 8, MIB), *block = blocks_take(blocks, 1, MIB);
    blocks_give(blocks, block);
    char *small = blocks_take(blocks, 1, MIB / 2), *large = blocks_take(blocks, 2, MIB);
    assert_ptr_not_equal(small, block);
    assert_ptr_not_equal(large, block);
    assert_ptr_equal(blocks_take(blocks, 1, MIB - 1000), block);
    blocks_give(blocks, rest);
    blocks_give(blocks, block);
    blocks_give(blocks, small);
    blocks_give(blocks, large);
    blocks_free(blocks);
}

/* Blocks of another size need memory that those that are kept have. */
static void at_most_a_quarter_more_than_ever_taken(void **state)
{
    (void)state;
    size_t before = allocated();
    struct blocks *blocks = blocks_new();
    char *block[MANY];
    for (size_t size = 1; size <= 4; size *= 2) {
        for (size_t i = 0; i < MANY / size; i++) {
            block[i] = blocks_take(blocks, size, MIB);
            assert_in_range(allocated() - before, 0, MANY * 5 / 4 * MIB + MIB / 2);
        }
        for (size_t i = 0; i < MANY / size; i++)
            blocks_give(blocks, block[i]);
    }
    assert_in_range(allocated() - before, MANY * MIB, MANY * 5 / 4 * MIB + MIB / 2);
    blocks_free(blocks);
    assert_in_range(allocated() - before, 0, MIB / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(aligned_and_apart),
        cmocka_unit_test(one_that_fits_is_used_again),
        cmocka_unit_test(at_most_a_quarter_more_than_ever_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
