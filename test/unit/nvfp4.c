/* NVFP4: packing of every BF16 value, unpacking of every nibble under every scale. */
#include "tensor/nvfp4.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "golden.h"
#include "reference.h"

enum {
    FINITE = 2 * 0x7f80, /* how many BF16 codes are finite */
    ROW = 2 * FINITE,    /* more columns than any row here has */
    GUARD = 0xa5
};

static uint8_t packed[ROW / 2 + 1], scale[ROW / NVFP4_BLOCK + 1];
static uint16_t row[ROW];

/* From subnormal up to where 6 * scale_2, and with it the divisor, overflows. */
static const float scales_2[] = {
    0x1p-149f,       0x1p-148f,        0x1.8p-147f,     0x1p-135f,      0x1.234568p-127f,
    0x1p-126f,       0x1.fffffep-120f, 0x1p-60f,        0x1.86186p-18f, 1e-5f,
    0x1.861862p-12f, 0x1.861862p-9f,   0x1p-8f,         0.1f,           1.0f,
    0x1.000002p0f,   0x1.555556p0f,    0x1.fffffep0f,   3.0f,           0x1p20f,
    0x1.345678p70f,  0x1p116f,         0x1.861862p116f, 0x1.5p125f,     FLT_MAX,
};

enum { SCALES_2 = sizeof scales_2 / sizeof *scales_2 };

static uint16_t finite_code(unsigned i)
{
    return (uint16_t)(i < 0x7f80 ? i : i - 0x7f80 + 0x8000);
}

static unsigned nibble_at(const uint8_t *bytes, size_t column)
{
    return column % 2 ? bytes[column / 2] / 16 : bytes[column / 2] % 16;
}

/* The E4M3 code of a block: what lies below the smallest non-zero value takes that. */
static unsigned expected_scale(double amax, double scale_2)
{
    double s = f32(amax / f32(6 * scale_2));
    unsigned code = reference_nearest(&e4m3_format, s == 0 ? 1 : s);
    return code == 0 ? 1 : code;
}

/* Pack row and compare all of it. */
static void check_pack(size_t cols, float scale_2)
{
    packed[cols / 2] = scale[cols / NVFP4_BLOCK] = GUARD;
    nvfp4_pack_row(packed, scale, row, cols, scale_2);
    for (size_t block = 0; block < cols / NVFP4_BLOCK; block++) {
        double amax = 0;
        for (size_t j = block * 16; j < block * 16 + 16; j++)
            amax = fmax(amax, fabs(reference_from_bf16(row[j])));
        unsigned code = expected_scale(amax, (double)scale_2);
        if (scale[block] != code)
            fail_msg("block %zu with amax %a, scale_2 %a: expected scale %02x, got %02x", block,
                     amax, (double)scale_2, code, scale[block]);
        double divisor = f32(reference_value(&e4m3_format, code) * (double)scale_2);
        for (size_t j = block * 16; j < block * 16 + 16; j++) {
            double w = reference_from_bf16(row[j]);
            unsigned expected = reference_to_e2m1(f32(w / divisor)), got = nibble_at(packed, j);
            if (got != expected)
                fail_msg("column %zu: %04x (%a) under scale %02x, scale_2 %a: expected nibble %u, "
                         "got %u",
                         j, row[j], w, code, (double)scale_2, expected, got);
        }
    }
    if (packed[cols / 2] != GUARD || scale[cols / NVFP4_BLOCK] != GUARD)
        fail_msg("%zu columns: wrote behind the row", cols);
}

static void scale_2_is_amax_by_2688(void **state)
{
    (void)state;
    uint64_t seed = 1;
    for (unsigned i = 0; i < 200000; i++) {
        /* All BF16 magnitudes first, then any F32. */
        float amax = f32_of_bits(i < 0x7f80 ? i << 16 : sequence(&seed) >> 1);
        if (!isfinite(amax))
            continue;
        double expected = f32((double)amax / 2688);
        float got = nvfp4_scale_2(amax);
        if ((double)got != expected)
            fail_msg("nvfp4_scale_2(%a): expected %a, got %a", (double)amax, expected, (double)got);
    }
}

/* In the order of their codes, so that a block's values are near to its largest. */
static void packs_every_value_in_order(void **state)
{
    (void)state;
    for (unsigned i = 0; i < FINITE; i++)
        row[i] = finite_code(i);
    for (size_t i = 0; i < SCALES_2; i++)
        check_pack(FINITE, scales_2[i]);
}

/* Every value up to an amax that each block has at some place, with either sign: all values under
 * one block scale. */
static void packs_every_value_under_one_block_scale(void **state)
{
    (void)state;
    static const uint16_t amaxes[] = {0x7f7f, 0x7b21, 0x5a00, 0x4720, 0x40c0, 0x3f80,
                                      0x3e9d, 0x3b10, 0x2000, 0x0180, 0x0001};
    for (size_t a = 0; a < sizeof amaxes / sizeof *amaxes; a++) {
        size_t cols = 0;
        for (unsigned i = 0; i < FINITE; i++) {
            uint16_t w = finite_code(i);
            if (w % 0x8000 > amaxes[a])
                continue;
            if (cols % 16 == cols / 16 % 16) {
                row[cols] = (uint16_t)(amaxes[a] + (cols / 256 % 2 ? 0x8000 : 0));
                cols++;
            }
            row[cols++] = w;
        }
        for (; cols % 16 != 0; cols++)
            row[cols] = amaxes[a];
        for (size_t i = 0; i < SCALES_2; i++)
            check_pack(cols, scales_2[i]);
    }
}

/* One block whose scale is 1 (amax is 6 times scale_2), the value in question at each column. */
static void expect_nibble(uint16_t w, int exponent, unsigned expected)
{
    float scale_2 = ldexpf(1, exponent);
    for (size_t column = 0; column < 15; column++) {
        uint16_t in[16] = {0};
        uint8_t out[8], code;
        in[15] = reference_bf16(ldexp(6, exponent));
        in[column] = w;
        nvfp4_pack_row(out, &code, in, 16, scale_2);
        assert_int_equal(code, 0x38);
        for (size_t j = 0; j < 16; j++) {
            unsigned wanted = j == 15 ? 7 : j == column ? expected : 0;
            if (nibble_at(out, j) != wanted)
                fail_msg("column %zu: %04x (%a) by %a: expected nibble %u, got %u", j, in[j],
                         reference_from_bf16(in[j]), (double)scale_2, wanted, nibble_at(out, j));
        }
    }
}

static void ties_go_to_even(void **state)
{
    (void)state;
    static const struct {
        double tie;
        unsigned below, at, above;
    } cases[] = {
        {0.25, 0, 0, 1}, {0.75, 1, 2, 2}, {1.25, 2, 2, 3}, {1.75, 3, 4, 4},
        {2.5, 4, 4, 5},  {3.5, 5, 6, 6},  {5, 6, 6, 7},
    };
    for (int exponent = -100; exponent <= 100; exponent += 50)
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            uint16_t tie = reference_bf16(ldexp(cases[i].tie, exponent));
            expect_nibble(tie - 1, exponent, cases[i].below);
            expect_nibble(tie, exponent, cases[i].at);
            expect_nibble(tie + 1, exponent, cases[i].above);
            expect_nibble((tie - 1) | 0x8000, exponent, 8 + cases[i].below);
            expect_nibble(tie | 0x8000, exponent, 8 + cases[i].at);
            expect_nibble((tie + 1) | 0x8000, exponent, 8 + cases[i].above);
        }
}

/* The smallest BF16 value is 2^-133: divided by 2^16 the smallest F32, by 2^17 half of that, which
 * F32 rounds to zero. */
static void signs_of_zeros_and_tiny_values(void **state)
{
    (void)state;
    expect_nibble(0x0000, 0, 0);
    expect_nibble(0x8000, 0, 0);
    expect_nibble(0x0001, 0, 0);
    expect_nibble(0x8001, 0, 8);
    expect_nibble(0x8001, 16, 8);
    expect_nibble(0x8001, 17, 0);
    expect_nibble(0x8002, 17, 8);
    expect_nibble(0x8001, 40, 0);
    expect_nibble(0xb000, 0, 8);
}

static void blocks_of_zeros(void **state)
{
    (void)state;
    for (size_t i = 0; i < SCALES_2; i++) {
        uint16_t in[32] = {0};
        for (size_t j = 0; j < 16; j++)
            in[j] = j % 3 ? 0x8000 : 0;
        uint8_t out[16], code[2];
        memset(out, GUARD, sizeof out);
        nvfp4_pack_row(out, code, in, 32, scales_2[i]);
        for (size_t j = 0; j < 32; j++)
            if (nibble_at(out, j) != 0)
                fail_msg("%04x, scale_2 %a: expected nibble 0, got %u", in[j], (double)scales_2[i],
                         nibble_at(out, j));
        for (size_t block = 0; block < 2; block++)
            if (code[block] != 0x38)
                fail_msg("block of zeros, scale_2 %a: expected scale 38 (1.0), got %02x",
                         (double)scales_2[i], code[block]);
    }
}

static void expect_scale(uint16_t amax, float scale_2, unsigned expected)
{
    for (size_t column = 0; column < 16; column++)
        for (unsigned sign = 0; sign <= 0x8000; sign += 0x8000) {
            uint16_t in[16] = {0};
            uint8_t out[8], code;
            in[column] = (uint16_t)(amax | sign);
            nvfp4_pack_row(out, &code, in, 16, scale_2);
            if (code != expected)
                fail_msg("amax %04x (%a) at column %zu, scale_2 %a: expected scale %02x, got %02x",
                         amax, reference_from_bf16(amax), column, (double)scale_2, expected, code);
        }
}

static void block_scales_are_clamped(void **state)
{
    (void)state;
    uint16_t most = reference_bf16(6 * 448), least = reference_bf16(6 * 0x1p-9);
    expect_scale(most, 1, 0x7e);
    expect_scale(most + 1, 1, 0x7e);
    expect_scale(reference_bf16(6 * 512), 1, 0x7e);
    expect_scale(0x7f7f, 1, 0x7e);
    expect_scale(0x7f7f, 0x1p-149f, 0x7e); /* the quotient is infinite */
    expect_scale(least, 1, 1);
    expect_scale(least - 1, 1, 1);
    expect_scale(least / 2, 1, 1);
    expect_scale(reference_bf16(6 * 0x1p-10), 1, 1);
    expect_scale(reference_bf16(6 * 0x1p-40), 1, 1);
    expect_scale(0x0001, 1, 1);
    /* A quotient that underflows is a zero like any other. */
    expect_scale(0x0001, 0x1p13f, 1);    /* 2^-146 / 6 */
    expect_scale(0x0001, 0x1p20f, 0x38); /* 2^-153 / 6 */
}

/* 6 times the middle of two E4M3 values needs 7 bits, so BF16 has it. */
static void block_scales_round_to_even(void **state)
{
    (void)state;
    for (unsigned code = 1; code < 0x7e; code++) {
        double middle =
            (reference_value(&e4m3_format, code) + reference_value(&e4m3_format, code + 1)) / 2;
        uint16_t amax = reference_bf16(6 * middle);
        assert_true(reference_from_bf16(amax) == 6 * middle);
        expect_scale(amax - 1, 1, code);
        expect_scale(amax, 1, code % 2 ? code + 1 : code);
        expect_scale(amax + 1, 1, code + 1);
    }
}

/* Scales that no packer writes too (negative, zero, NaN); of NaN only that it is one. Each code has
 * a block with all nibbles at even and at odd columns. */
static void unpacks_every_nibble_under_every_scale(void **state)
{
    (void)state;
    static uint8_t in[256 * 16], codes[256 * 2];
    static uint16_t out[256 * 32 + 1];
    for (size_t i = 0; i < sizeof in; i++)
        in[i] = (uint8_t)(i % 16 + 16 * ((i % 16 * 7 + 3) % 16));
    for (size_t i = 0; i < sizeof codes; i++)
        codes[i] = (uint8_t)(i / 2);
    for (size_t i = 0; i < SCALES_2; i++) {
        double scale_2 = (double)scales_2[i];
        out[256 * 32] = GUARD;
        nvfp4_unpack_row(out, in, codes, 256 * 32, scales_2[i]);
        for (size_t j = 0; j < 256 * 32; j++) {
            unsigned nibble = nibble_at(in, j), code = codes[j / 16];
            double element = nibble == 8 ? 0 : reference_from_e2m1(nibble);
            double expected = f32(element * f32(reference_from_e4m3((uint8_t)code) * scale_2));
            /* NaN, as 0 times an overflown scale is, has no certain sign. */
            bool right =
                isnan(expected) ? out[j] % 0x8000 == 0x7fc0 : out[j] == reference_bf16(expected);
            if (!right)
                fail_msg("nibble %u under scale %02x, scale_2 %a: expected %a (%04x), got %04x",
                         nibble, code, scale_2, expected,
                         isnan(expected) ? 0x7fc0 : reference_bf16(expected), out[j]);
        }
        assert_int_equal(out[256 * 32], GUARD);
    }
}

static void rows_of_several_blocks(void **state)
{
    (void)state;
    uint64_t seed = 3;
    for (unsigned turn = 0; turn < 300; turn++) {
        size_t cols = turn % 9 * NVFP4_BLOCK;
        for (size_t j = 0; j < cols; j++)
            row[j] = finite_code(0x3a00 + sequence(&seed) % 0x0700 + sequence(&seed) % 2 * 0x7f80);
        check_pack(cols, ldexpf((float)(sequence(&seed) >> 8 | 1), -32));
    }
}

/* The first difference of two arrays of bytes, by what it belongs to. */
static void expect_bytes(const char *what, unsigned set, const uint8_t *expected,
                         const uint8_t *got, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (expected[i] != got[i])
            fail_msg("%s of set %u, byte %zu: golden %02x, got %02x", what, set, i, expected[i],
                     got[i]);
}

static void expect_scale_2(float amax, float scale_2)
{
    float got = nvfp4_scale_2(amax);
    if (f32_bits(got) != f32_bits(scale_2))
        fail_msg("nvfp4_scale_2(%a): golden %a, got %a", (double)amax, (double)scale_2,
                 (double)got);
}

static void golden_rows(void **state)
{
    (void)state;
    enum { ROWS = 256, COLS = 512 };
    static uint8_t bytes[ROWS * COLS / 2], codes[ROWS * COLS / 16];
    const uint16_t *in = golden_tensor("BF16", ROWS * COLS, "pack.in");
    for (unsigned set = 0; set < 3; set++) {
        const float *amax = golden_tensor("F32", 1, "pack.%u.amax", set);
        const float *scale_2 = golden_tensor("F32", 1, "pack.%u.scale_2", set);
        const uint8_t *weight = golden_tensor("U8", sizeof bytes, "pack.%u.weight", set);
        const uint8_t *block = golden_tensor("U8", sizeof codes, "pack.%u.weight_scale", set);
        const uint16_t *dequant = golden_tensor("BF16", ROWS * COLS, "pack.%u.dequant_bf16", set);
        expect_scale_2(*amax, *scale_2);
        for (size_t r = 0; r < ROWS; r++)
            nvfp4_pack_row(bytes + r * COLS / 2, codes + r * COLS / 16, in + r * COLS, COLS,
                           *scale_2);
        expect_bytes("weight_scale", set, block, codes, sizeof codes);
        expect_bytes("weight", set, weight, bytes, sizeof bytes);
        for (size_t r = 0; r < ROWS; r++) {
            uint16_t out[COLS];
            nvfp4_unpack_row(out, weight + r * COLS / 2, block + r * COLS / 16, COLS, *scale_2);
            for (size_t j = 0; j < COLS; j++)
                if (out[j] != dequant[r * COLS + j])
                    fail_msg("set %u, row %zu, column %zu: nibble %u under scale %02x, scale_2 %a: "
                             "golden %04x, got %04x",
                             set, r, j, nibble_at(weight + r * COLS / 2, j),
                             block[(r * COLS + j) / 16], (double)*scale_2, dequant[r * COLS + j],
                             out[j]);
        }
    }
}

static void golden_every_value(void **state)
{
    (void)state;
    const uint16_t *in = golden_tensor("BF16", FINITE, "pack_all.in");
    for (unsigned set = 0; set < 4; set++) {
        const float *amax = golden_tensor("F32", 1, "pack_all.%u.amax", set);
        const float *scale_2 = golden_tensor("F32", 1, "pack_all.%u.scale_2", set);
        const uint8_t *weight = golden_tensor("U8", FINITE / 2, "pack_all.%u.weight", set);
        const uint8_t *block = golden_tensor("U8", FINITE / 16, "pack_all.%u.weight_scale", set);
        expect_scale_2(*amax, *scale_2);
        nvfp4_pack_row(packed, scale, in, FINITE, *scale_2);
        expect_bytes("weight_scale (all)", set, block, scale, FINITE / 16);
        expect_bytes("weight (all)", set, weight, packed, FINITE / 2);
    }
}

static void golden_is_covered(void **state)
{
    (void)state;
    golden_expect_all_read("pack");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scale_2_is_amax_by_2688),
        cmocka_unit_test(packs_every_value_in_order),
        cmocka_unit_test(packs_every_value_under_one_block_scale),
        cmocka_unit_test(ties_go_to_even),
        cmocka_unit_test(signs_of_zeros_and_tiny_values),
        cmocka_unit_test(blocks_of_zeros),
        cmocka_unit_test(block_scales_are_clamped),
        cmocka_unit_test(block_scales_round_to_even),
        cmocka_unit_test(unpacks_every_nibble_under_every_scale),
        cmocka_unit_test(rows_of_several_blocks),
        cmocka_unit_test(golden_rows),
        cmocka_unit_test(golden_every_value),
        cmocka_unit_test(golden_is_covered),
    };
    return cmocka_run_group_tests_name("nvfp4", tests, golden_open, golden_close);
}
