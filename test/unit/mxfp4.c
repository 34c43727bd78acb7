/* MXFP4 to BF16: all nibbles under all scales, at all places of a row. */
#include "tensor/mxfp4.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "golden.h"
#include "reference.h"

enum { BLOCKS_MAX = 8, COLS_MAX = BLOCKS_MAX * MXFP4_BLOCK, GUARD = 0xa5a5 };

static unsigned nibble_at(const uint8_t *packed, size_t column)
{
    return column % 2 ? packed[column / 2] / 16 : packed[column / 2] % 16;
}

/* Unpack and compare all; out has one guard element behind the row. */
static void check_row(const uint8_t *packed, const uint8_t *scale, size_t cols)
{
    uint16_t out[COLS_MAX + 1];
    for (size_t j = 0; j <= COLS_MAX; j++)
        out[j] = GUARD;
    mxfp4_unpack_row(out, packed, scale, cols);
    for (size_t j = 0; j < cols; j++) {
        unsigned nibble = nibble_at(packed, j), code = scale[j / 32];
        uint16_t expected = reference_bf16(ldexp(reference_from_e2m1(nibble), (int)code - 127));
        if (out[j] != expected)
            fail_msg("column %zu of %zu: nibble %u under scale %u: expected %04x, got %04x", j,
                     cols, nibble, code, expected, out[j]);
    }
    if (out[cols] != GUARD)
        fail_msg("%zu columns: wrote behind the row", cols);
}

static void every_nibble_under_every_scale(void **state)
{
    (void)state;
    uint8_t packed[16];
    for (unsigned i = 0; i < 16; i++)
        packed[i] = (uint8_t)(i + 16 * ((i * 7 + 3) % 16)); /* all sixteen, low and high */
    for (unsigned code = 0; code < 255; code++)
        check_row(packed, (uint8_t[]){(uint8_t)code}, 32);
}

static void ends_of_the_range(void **state)
{
    (void)state;
    static const struct {
        uint8_t scale, nibble;
        uint16_t expected;
    } cases[] = {
        {0, 1, 0x0020},   /* .5 * 2^-127 = 2^-128, a subnormal */
        {0, 15, 0x8140},  /* -6 * 2^-127 = -1.5 * 2^-125 */
        {254, 1, 0x7e80}, /* .5 * 2^127 */
        {254, 3, 0x7f40}, /* 1.5 * 2^127 is finite */
        {254, 4, 0x7f80}, /* 2 * 2^127 is not */
        {253, 5, 0x7f40}, {253, 6, 0x7f80}, {254, 15, 0xff80}, {252, 7, 0x7f40},
        {127, 8, 0x8000}, {254, 8, 0x8000}, {0, 8, 0x8000},    {0, 0, 0x0000},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t packed[16] = {cases[i].nibble};
        uint16_t out[32];
        mxfp4_unpack_row(out, packed, &cases[i].scale, 32);
        if (out[0] != cases[i].expected)
            fail_msg("nibble %u under scale %u: expected %04x, got %04x", cases[i].nibble,
                     cases[i].scale, cases[i].expected, out[0]);
    }
}

static void rows_of_several_blocks(void **state)
{
    (void)state;
    uint64_t seed = 1;
    for (unsigned turn = 0; turn < 500; turn++) {
        uint8_t packed[COLS_MAX / 2], scale[BLOCKS_MAX];
        for (size_t i = 0; i < sizeof packed; i++)
            packed[i] = (uint8_t)(sequence(&seed) >> 24);
        for (size_t i = 0; i < BLOCKS_MAX; i++)
            scale[i] = (uint8_t)(sequence(&seed) % 255);
        check_row(packed, scale, turn % (BLOCKS_MAX + 1) * MXFP4_BLOCK);
    }
}

/* Row 255 has the scale that stands for NaN, which the reference takes for a number. */
static void golden_values(void **state)
{
    (void)state;
    const uint8_t *weight = golden_tensor("U8", 256 * 16, "mxfp4.weight");
    const uint8_t *scale = golden_tensor("U8", 256, "mxfp4.scale");
    const uint16_t *expected = golden_tensor("BF16", 256 * 32, "mxfp4.bf16");
    for (size_t row = 0; row < 255; row++) {
        assert_int_equal(scale[row], row);
        uint16_t out[32];
        mxfp4_unpack_row(out, weight + row * 16, scale + row, 32);
        for (size_t j = 0; j < 32; j++)
            if (out[j] != expected[row * 32 + j])
                fail_msg("nibble %u under scale %u: golden %04x, got %04x",
                         nibble_at(weight + row * 16, j), scale[row], expected[row * 32 + j],
                         out[j]);
    }
}

static void golden_is_covered(void **state)
{
    (void)state;
    golden_expect_all_read("mxfp4.");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_nibble_under_every_scale),
        cmocka_unit_test(ends_of_the_range),
        cmocka_unit_test(rows_of_several_blocks),
        cmocka_unit_test(golden_values),
        cmocka_unit_test(golden_is_covered),
    };
    return cmocka_run_group_tests_name("mxfp4", tests, golden_open, golden_close);
}
