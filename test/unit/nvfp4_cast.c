/* The lossless cast of MXFP4 to NVFP4: every scale byte under every k_max. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "golden.h"
#include "reference.h"
#include "tensor/mxfp4.h"
#include "tensor/nvfp4.h"

enum { BYTES = MXFP4_BLOCK / 2, GUARD = 0xa5, BLOCKS_MAX = 8 };

static unsigned nibble_at(const uint8_t *bytes, size_t column)
{
    return column % 2 ? bytes[column / 2] / 16 : bytes[column / 2] % 16;
}

/* True if the block scale 2^(k_j - k_max + 8) is below what E4M3 has. */
static bool below_e4m3(unsigned e8m0, int k_max)
{
    return ldexp(1, (int)e8m0 - 127 - k_max + 8) < reference_value(&e4m3_format, 1);
}

static unsigned expected_scale(unsigned e8m0, int k_max)
{
    if (below_e4m3(e8m0, k_max))
        return 1;
    double value = ldexp(1, (int)e8m0 - 127 - k_max + 8);
    for (unsigned code = 0; code <= e4m3_format.last; code++)
        if (reference_value(&e4m3_format, code) == value)
            return code;
    fail_msg("E4M3 has no %a", value);
    return 0;
}

/* The reference dequantizes to BF16 and packs that again, by F32 division. */
static unsigned expected_nibble(unsigned nibble, unsigned e8m0, int k_max, bool zero_positive)
{
    if (!below_e4m3(e8m0, k_max))
        return zero_positive && nibble == 8 ? 0 : nibble;
    double w = ldexp(reference_from_e2m1(nibble), (int)e8m0 - 127);
    double divisor = f32(ldexp(0x1p-9, k_max - 8));
    return reference_to_e2m1(f32(reference_from_bf16(reference_bf16(w)) / divisor));
}

static void check_scales(const uint8_t *e8m0, size_t blocks, int k_max)
{
    uint8_t scale[2 * BLOCKS_MAX + 1];
    memset(scale, GUARD, sizeof scale);
    /* Counts are added to what is there. */
    struct nvfp4_cast_count count = {.blocks = 1000, .lossy = 200, .rewrite = 30};
    nvfp4_cast_scales_row(scale, e8m0, blocks, k_max, &count);
    uint64_t lossy = 200, rewrite = 30;
    for (size_t block = 0; block < blocks; block++) {
        unsigned expected = expected_scale(e8m0[block], k_max);
        for (size_t half = 0; half < 2; half++)
            if (scale[2 * block + half] != expected)
                fail_msg("block %zu, half %zu: scale byte %u under k_max %d: expected %02x, got "
                         "%02x",
                         block, half, e8m0[block], k_max, expected, scale[2 * block + half]);
        if (below_e4m3(e8m0[block], k_max)) {
            rewrite++;
            lossy += e8m0[block] != 0;
        }
    }
    if (count.blocks != 1000 + blocks || count.lossy != lossy || count.rewrite != rewrite)
        fail_msg("%zu blocks, the first %u, k_max %d: expected counts %zu %ju %ju, got %ju %ju %ju",
                 blocks, e8m0[0], k_max, 1000 + blocks, (uintmax_t)lossy, (uintmax_t)rewrite,
                 (uintmax_t)count.blocks, (uintmax_t)count.lossy, (uintmax_t)count.rewrite);
    assert_int_equal(scale[2 * blocks], GUARD);
}

static void check_nibbles(const uint8_t *packed, const uint8_t *e8m0, size_t blocks, int k_max,
                          bool zero_positive)
{
    uint8_t out[BLOCKS_MAX * BYTES + 1];
    memcpy(out, packed, blocks * BYTES);
    out[blocks * BYTES] = GUARD;
    nvfp4_cast_nibbles_row(out, e8m0, blocks, k_max, zero_positive);
    for (size_t j = 0; j < blocks * MXFP4_BLOCK; j++) {
        unsigned code = e8m0[j / MXFP4_BLOCK], nibble = nibble_at(packed, j);
        unsigned expected = expected_nibble(nibble, code, k_max, zero_positive);
        if (nibble_at(out, j) != expected)
            fail_msg("column %zu: nibble %u, scale byte %u, k_max %d, zero_positive %d: expected "
                     "%u, got %u",
                     j, nibble, code, k_max, zero_positive, expected, nibble_at(out, j));
    }
    assert_int_equal(out[blocks * BYTES], GUARD);
}

/* All sixteen nibbles at even and at odd columns of one block. */
static void all_nibbles(uint8_t *packed)
{
    for (unsigned i = 0; i < BYTES; i++)
        packed[i] = (uint8_t)(i + 16 * ((i * 7 + 3) % 16));
}

static void expect_k_max(const uint8_t *e8m0, size_t n, int expected)
{
    int got = nvfp4_cast_k_max(e8m0, n);
    size_t place = 0;
    while (place < n && e8m0[place] != expected + 127)
        place++;
    if (got != expected)
        fail_msg("k_max of %zu codes, the largest %d at index %zu: expected %d, got %d", n,
                 expected + 127, place, expected, got);
}

static void k_max_is_the_largest(void **state)
{
    (void)state;
    enum { N = 70 };
    uint8_t e8m0[N] = {0};
    for (size_t n = 0; n <= N; n++)
        expect_k_max(e8m0, n, -127);
    for (unsigned code = 1; code < 255; code++)
        for (size_t place = 0; place < N; place++) {
            uint8_t codes[N];
            for (size_t i = 0; i < N; i++)
                codes[i] = (uint8_t)(i * 5 % code);
            codes[place] = (uint8_t)code;
            expect_k_max(codes, N, (int)code - 127);
            /* Beside zeros only, which take no part: also the smallest. */
            memset(codes, 0, sizeof codes);
            codes[place] = (uint8_t)code;
            expect_k_max(codes, N, (int)code - 127);
            expect_k_max(codes, place, -127);
        }
}

static void scale_2_is_a_power_of_two(void **state)
{
    (void)state;
    for (int k_max = -127; k_max <= 127; k_max++) {
        float got = nvfp4_cast_scale_2(k_max);
        if ((double)got != ldexp(1, k_max - 8))
            fail_msg("nvfp4_cast_scale_2(%d): expected %a, got %a", k_max, ldexp(1, k_max - 8),
                     (double)got);
    }
    assert_int_equal(f32_bits(nvfp4_cast_scale_2(-127)), 1 << 14); /* 2^-135 of 2^-149 */
}

static void scales_of_every_pair(void **state)
{
    (void)state;
    for (int k_max = -127; k_max <= 127; k_max++)
        for (int e8m0 = 0; e8m0 <= k_max + 127; e8m0++)
            check_scales((uint8_t[]){(uint8_t)e8m0}, 1, k_max);
}

static void nibbles_of_every_pair(void **state)
{
    (void)state;
    uint8_t packed[BYTES];
    all_nibbles(packed);
    for (int k_max = -127; k_max <= 127; k_max++)
        for (int e8m0 = 0; e8m0 <= k_max + 127; e8m0++) {
            uint8_t code = (uint8_t)e8m0;
            check_nibbles(packed, &code, 1, k_max, false);
            check_nibbles(packed, &code, 1, k_max, true);
        }
}

/* The border by numbers: the last block in range, the first out of it, and far below. */
static void range_ends_at_17(void **state)
{
    (void)state;
    static const struct {
        uint8_t e8m0;
        int k_max;
        unsigned scale;
        uint64_t lossy, rewrite;
    } cases[] = {
        {127, 0, 0x78, 0, 0},  {126, 0, 0x70, 0, 0},   {113, 0, 0x08, 0, 0},
        {112, 0, 0x04, 0, 0},  {111, 0, 0x02, 0, 0},   {110, 0, 0x01, 0, 0},
        {109, 0, 0x01, 1, 1},  {1, 0, 0x01, 1, 1},     {0, 0, 0x01, 0, 1},
        {0, -110, 0x01, 0, 0}, {0, -109, 0x01, 0, 1},  {0, -127, 0x78, 0, 0},
        {1, -108, 0x01, 1, 1}, {254, 127, 0x78, 0, 0}, {236, 127, 0x01, 1, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct nvfp4_cast_count count = {0};
        uint8_t scale[2];
        nvfp4_cast_scales_row(scale, &cases[i].e8m0, 1, cases[i].k_max, &count);
        if (scale[0] != cases[i].scale || count.lossy != cases[i].lossy ||
            count.rewrite != cases[i].rewrite)
            fail_msg("scale byte %u under k_max %d: expected %02x, lossy %ju, rewrite %ju; got "
                     "%02x, %ju, %ju",
                     cases[i].e8m0, cases[i].k_max, cases[i].scale, (uintmax_t)cases[i].lossy,
                     (uintmax_t)cases[i].rewrite, scale[0], (uintmax_t)count.lossy,
                     (uintmax_t)count.rewrite);
    }
    assert_int_equal(NVFP4_CAST_RANGE, 17);
}

/* What becomes of the sixteen nibbles out of range, by hand: 18 below they count half, 19 below a
 * quarter. A zero scale byte far below leaves signs only, and where the quotient is no F32 any
 * more, not even those. */
static void nibbles_out_of_range(void **state)
{
    (void)state;
    static const struct {
        uint8_t e8m0;
        int k_max;
        uint8_t expected[16];
    } cases[] = {
        {109, 0, {0, 0, 1, 2, 2, 3, 4, 5, 0, 8, 9, 10, 10, 11, 12, 13}},
        {108, 0, {0, 0, 0, 1, 1, 2, 2, 3, 0, 8, 8, 9, 9, 10, 10, 11}},
        {0, 0, {0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 8, 8, 8, 8, 8, 8}},
        {0, 38, {0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 8, 8, 8, 8, 8, 8}},
        {0, 39, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 8, 8, 8, 8, 8}},
        {0, 127, {0}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (unsigned nibble = 0; nibble < 16; nibble++) {
            uint8_t packed[BYTES];
            memset(packed, (int)(nibble * 17), sizeof packed);
            nvfp4_cast_nibbles_row(packed, &cases[i].e8m0, 1, cases[i].k_max, false);
            for (size_t j = 0; j < MXFP4_BLOCK; j++)
                if (nibble_at(packed, j) != cases[i].expected[nibble])
                    fail_msg("nibble %u, scale byte %u, k_max %d: expected %u, got %u", nibble,
                             cases[i].e8m0, cases[i].k_max, cases[i].expected[nibble],
                             nibble_at(packed, j));
        }
}

/* Both sides dequantized are the same but for the sign of zero, where the block is in range. */
static void values_stay(void **state)
{
    (void)state;
    uint8_t packed[BYTES];
    all_nibbles(packed);
    unsigned compared = 0;
    for (int k_max = -127; k_max <= 127; k_max++)
        for (int e8m0 = 0; e8m0 <= k_max + 127; e8m0++) {
            if (below_e4m3((unsigned)e8m0, k_max))
                continue;
            uint8_t code = (uint8_t)e8m0, scale[2], cast[BYTES];
            struct nvfp4_cast_count count = {0};
            uint16_t before[MXFP4_BLOCK], after[MXFP4_BLOCK];
            memcpy(cast, packed, sizeof cast);
            mxfp4_unpack_row(before, packed, &code, MXFP4_BLOCK);
            nvfp4_cast_scales_row(scale, &code, 1, k_max, &count);
            nvfp4_cast_nibbles_row(cast, &code, 1, k_max, false);
            nvfp4_unpack_row(after, cast, scale, MXFP4_BLOCK, nvfp4_cast_scale_2(k_max));
            for (size_t j = 0; j < MXFP4_BLOCK; j++) {
                uint16_t expected = before[j] == 0x8000 ? 0 : before[j];
                if (after[j] != expected)
                    fail_msg("nibble %u, scale byte %u, k_max %d: %04x before, %04x after",
                             nibble_at(packed, j), code, k_max, expected, after[j]);
                compared++;
            }
        }
    assert_int_equal(compared, 32 * (18 * 255 - 17 * 18 / 2));
}

static void rows_of_several_blocks(void **state)
{
    (void)state;
    uint64_t seed = 5;
    for (unsigned turn = 0; turn < 5000; turn++) {
        uint8_t packed[BLOCKS_MAX * BYTES], e8m0[BLOCKS_MAX];
        size_t blocks = turn % (BLOCKS_MAX + 1);
        for (size_t i = 0; i < sizeof packed; i++)
            packed[i] = (uint8_t)(sequence(&seed) >> 24);
        for (size_t i = 0; i < BLOCKS_MAX; i++) /* a third is out of range */
            e8m0[i] = (uint8_t)(sequence(&seed) % 8 ? 100 + sequence(&seed) % 27 : 0);
        check_scales(e8m0, blocks, 0);
        check_nibbles(packed, e8m0, blocks, 0, turn % 2);
    }
}

static void overflow(void **state)
{
    (void)state;
    for (unsigned code = 0; code < 255; code++)
        for (unsigned nibble = 0; nibble < 16; nibble++) {
            double value = ldexp(reference_from_e2m1(nibble), (int)code - 127);
            bool expected = fabs(value) >= 0x1p128;
            for (size_t place = 0; place < 3 * MXFP4_BLOCK; place++) {
                uint8_t packed[3 * BYTES], e8m0[3] = {254, 254, 254};
                memset(packed, 0x3b, sizeof packed); /* -1.5 and 1.5: finite under any code */
                e8m0[place / MXFP4_BLOCK] = (uint8_t)code;
                uint8_t *byte = packed + place / 2;
                *byte = (uint8_t)(place % 2 ? *byte % 16 + 16 * nibble : *byte / 16 * 16 + nibble);
                bool got = nvfp4_cast_overflows_row(packed, e8m0, 3);
                if (got != expected)
                    fail_msg("nibble %u at column %zu under scale byte %u (%a): expected %d, got "
                             "%d",
                             nibble, place, code, value, expected, got);
            }
        }
    assert_false(nvfp4_cast_overflows_row((uint8_t[BYTES]){0x77}, (uint8_t[]){252}, 1));
    assert_true(nvfp4_cast_overflows_row((uint8_t[BYTES]){0x06}, (uint8_t[]){253}, 1));
    assert_true(nvfp4_cast_overflows_row((uint8_t[BYTES]){0xc0}, (uint8_t[]){254}, 1));
    assert_false(nvfp4_cast_overflows_row((uint8_t[BYTES]){0x77}, (uint8_t[]){254}, 0));
}

/* .0 under the k_max of its own scales, .3 under one larger by 3, as if a partner had it. */
static void golden_cast(const char *set, int more)
{
    enum { ROWS = 64, BLOCKS = 4, ROW_BYTES = BLOCKS * BYTES };
    const uint8_t *weight = golden_tensor("U8", ROWS * ROW_BYTES, "cast.%s.%d.weight", set, more);
    const uint8_t *scale = golden_tensor("U8", ROWS * BLOCKS, "cast.%s.%d.scale", set, more);
    const int64_t *k_max = golden_tensor("I64", 1, "cast.%s.%d.k_max", set, more);
    const int64_t *blocks = golden_tensor("I64", 2, "cast.%s.%d.blocks", set, more);
    const float *out_scale_2 = golden_tensor("F32", 1, "cast.%s.%d.out_scale_2", set, more);
    const uint8_t *out_weight =
        golden_tensor("U8", ROWS * ROW_BYTES, "cast.%s.%d.out_weight", set, more);
    const uint8_t *out_scale =
        golden_tensor("U8", ROWS * BLOCKS * 2, "cast.%s.%d.out_weight_scale", set, more);

    expect_k_max(scale, ROWS * BLOCKS, (int)*k_max - more);
    float scale_2 = nvfp4_cast_scale_2((int)*k_max);
    if (f32_bits(scale_2) != f32_bits(*out_scale_2))
        fail_msg("cast.%s.%d: scale_2 of k_max %d: golden %a, got %a", set, more, (int)*k_max,
                 (double)*out_scale_2, (double)scale_2);
    struct nvfp4_cast_count count = {0};
    for (size_t row = 0; row < ROWS; row++) {
        const uint8_t *e8m0 = scale + row * BLOCKS;
        uint8_t codes[2 * BLOCKS], cast[ROW_BYTES];
        nvfp4_cast_scales_row(codes, e8m0, BLOCKS, (int)*k_max, &count);
        for (size_t i = 0; i < 2 * BLOCKS; i++)
            if (codes[i] != out_scale[row * 2 * BLOCKS + i])
                fail_msg("cast.%s.%d: scale byte %u: golden %02x, got %02x", set, more, e8m0[i / 2],
                         out_scale[row * 2 * BLOCKS + i], codes[i]);
        memcpy(cast, weight + row * ROW_BYTES, sizeof cast);
        nvfp4_cast_nibbles_row(cast, e8m0, BLOCKS, (int)*k_max, true);
        for (size_t i = 0; i < ROW_BYTES; i++)
            if (cast[i] != out_weight[row * ROW_BYTES + i])
                fail_msg("cast.%s.%d: row %zu, byte %zu: %02x, scale byte %u: golden %02x, got "
                         "%02x",
                         set, more, row, i, weight[row * ROW_BYTES + i], e8m0[i / BYTES],
                         out_weight[row * ROW_BYTES + i], cast[i]);
        assert_false(nvfp4_cast_overflows_row(weight + row * ROW_BYTES, e8m0, BLOCKS));
    }
    if (count.blocks != (uint64_t)blocks[0] || count.blocks - count.lossy != (uint64_t)blocks[1])
        fail_msg("cast.%s.%d: golden %jd of %jd blocks lossless, got %ju of %ju", set, more,
                 (intmax_t)blocks[1], (intmax_t)blocks[0], (uintmax_t)(count.blocks - count.lossy),
                 (uintmax_t)count.blocks);
}

static void golden_casts(void **state)
{
    (void)state;
    static const char *const sets[] = {"narrow", "edge", "wide", "zeros"};
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        golden_cast(sets[i], 0);
        golden_cast(sets[i], 3);
    }
}

static void golden_is_covered(void **state)
{
    (void)state;
    golden_expect_all_read("cast.");
}

/* Every pair of a largest nibble and a distance above k: k_row() names the least k under which the
 * values stay, and one less loses something. */
static void above_the_range(void **state)
{
    (void)state;
    static const int doublings[8] = {0, 3, 2, 2, 1, 1, 0, 0};
    for (unsigned largest = 1; largest < 8; largest++) {
        uint8_t packed[BYTES] = {0}, code = 140;
        for (unsigned i = 0; i <= largest; i++) /* in the right half; the left one is zeros */
            packed[8 + i] = (uint8_t)(i | (8 + largest - i) << 4);
        int k = nvfp4_cast_k_row(packed, &code, 1, -127);
        assert_int_equal(k, 13 - doublings[largest]);
        assert_int_equal(nvfp4_cast_k_row(packed, &code, 1, 20), 20);
        for (int less = 0; less < 2; less++, k--) {
            uint8_t scale[2], cast[BYTES];
            struct nvfp4_cast_count count = {0};
            uint16_t before[MXFP4_BLOCK], after[MXFP4_BLOCK];
            memcpy(cast, packed, sizeof cast);
            mxfp4_unpack_row(before, packed, &code, MXFP4_BLOCK);
            nvfp4_cast_scales_row(scale, &code, 1, k, &count);
            nvfp4_cast_nibbles_row(cast, &code, 1, k, false);
            nvfp4_unpack_row(after, cast, scale, MXFP4_BLOCK, nvfp4_cast_scale_2(k));
            assert_int_equal(count.rewrite, k < 13);
            assert_int_equal(count.lossy, 0);
            assert_int_equal(nvfp4_cast_any_out_of_range(&code, 1, k), k < 13);
            unsigned differ = 0;
            for (size_t j = 0; j < MXFP4_BLOCK; j++)
                differ += after[j] != (before[j] == 0x8000 ? 0 : before[j]);
            if (less != (differ > 0))
                fail_msg("largest nibble %u, k %d: %u values differ", largest, k, differ);
        }
    }
    /* Zeros ask for nothing; the larger half of a row decides. */
    uint8_t packed[2 * BYTES] = {0}, codes[2] = {254, 100};
    assert_int_equal(nvfp4_cast_k_row(packed, codes, 2, -127), -127);
    packed[BYTES] = 0x70;
    assert_int_equal(nvfp4_cast_k_row(packed, codes, 2, -127), -27);
    packed[15] = 0x02;
    assert_int_equal(nvfp4_cast_k_row(packed, codes, 2, -127), 127 - 2);
    assert_int_equal(nvfp4_cast_below_range((uint8_t[]){0, 1, 100, 101, 118}, 5, -9), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(k_max_is_the_largest), cmocka_unit_test(scale_2_is_a_power_of_two),
        cmocka_unit_test(scales_of_every_pair), cmocka_unit_test(nibbles_of_every_pair),
        cmocka_unit_test(range_ends_at_17),     cmocka_unit_test(nibbles_out_of_range),
        cmocka_unit_test(values_stay),          cmocka_unit_test(rows_of_several_blocks),
        cmocka_unit_test(above_the_range),      cmocka_unit_test(overflow),
        cmocka_unit_test(golden_casts),         cmocka_unit_test(golden_is_covered),
    };
    return cmocka_run_group_tests_name("nvfp4_cast", tests, golden_open, golden_close);
}
