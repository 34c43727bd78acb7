/* Every version of the codecs against the portable one, byte by byte, on everything there is. */
#include "tensor/codec.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/die.h"
#include "reference.h"
#include "tensor/bf16.h"
#include "tensor/mxfp4.h"

enum { ALL = 0x10000, GUARD = 0xa5, GUARDS = 64 };

/* From subnormal up to where 6 * scale_2, and with it the divisor, overflows. */
static const float scales_2[] = {
    0x1p-149f,       0x1.8p-147f,   0x1p-135f,       0x1.234568p-127f, 0x1p-60f,
    0x1.86186p-18f,  1e-5f,         0x1.861862p-12f, 0x1p-8f,          0.1f,
    0x1.000002p0f,   0x1.fffffep0f, 0x1p20f,         0x1.345678p70f,   0x1p116f,
    0x1.861862p116f, 0x1.5p125f,    FLT_MAX,
};

enum { SCALES_2 = sizeof scales_2 / sizeof *scales_2 };

/* The version under test, and the one it has to equal. */
static const struct codec *codec, *portable;

static int route_topk(void **state)
{
    portable = codec_named("portable");
    codec = codec_named(*state);
    return 0;
}

static void need_codec(void)
{
    if (!codec) {
        print_message("# this processor lacks the instructions\n");
        skip();
    }
}

/* Fails at the first byte that differs; `what` names the case. */
__attribute__((format(printf, 4, 5))) static void expect_same(const void *expected, const void *got,
                                                              size_t size, const char *what, ...)
{
    if (!memcmp(expected, got, size))
        return;
    char text[200];
    va_list args;
    va_start(args, what);
    vsnprintf(text, sizeof text, what, args);
    va_end(args);
    const uint8_t *a = expected, *b = got;
    size_t i = 0;
    while (a[i] == b[i])
        i++;
    fail_msg("%s: %s: byte %zu of %zu: portable %02x, got %02x", codec->name, text, i, size, a[i],
             b[i]);
}

static void random_bytes(void *data, size_t size, uint64_t *seed)
{
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)data)[i] = (uint8_t)(sequence(seed) >> 20);
}

/* ---- FP8 ---- */

static void check_fp8(const uint8_t *w, const float *scale, size_t cols, size_t block)
{
    enum { COLS_MAX = 1024 };
    uint16_t expected[COLS_MAX + GUARDS], got[COLS_MAX + GUARDS];
    memset(expected, GUARD, sizeof expected);
    memset(got, GUARD, sizeof got);
    size_t nan = portable->fp8_dequant_row(expected, w, scale, cols, block);
    assert_int_equal(codec->fp8_dequant_row(got, w, scale, cols, block), nan);
    expect_same(expected, got, sizeof got, "FP8, %zu columns, block %zu, first scale %a", cols,
                block, (double)*scale);
}

static void fp8_every_code(void **state)
{
    (void)state;
    need_codec();
    uint8_t w[256];
    for (unsigned i = 0; i < 256; i++)
        w[i] = (uint8_t)(i * 37); /* each once */
    uint64_t seed = 1;
    for (unsigned i = 0; i < 20000; i++) {
        float scale = i < 512 ? ldexpf(i % 2 ? -1 : 1, (int)(i / 2) - 149 + 22)
                              : f32_of_bits(sequence(&seed));
        if (i >= 512 && i < 600) /* subnormal */
            scale = ldexpf((float)(sequence(&seed) % 1000), -149);
        if (isfinite(scale))
            check_fp8(w, (float[]){scale, scale}, 256, 128);
    }
}

static void fp8_every_shape(void **state)
{
    (void)state;
    need_codec();
    uint64_t seed = 2;
    static const size_t blocks[] = {128, 64, 33, 7, 1};
    for (size_t b = 0; b < sizeof blocks / sizeof *blocks; b++)
        for (size_t cols = 0; cols <= 600; cols++) {
            uint8_t w[600 + 1];
            float scale[600 + 1];
            random_bytes(w, sizeof w, &seed);
            for (size_t j = 0; j <= 600; j++)
                scale[j] = ldexpf((float)(sequence(&seed) >> 8), (int)(j % 20) - 40);
            check_fp8(w + cols % 2, scale, cols, blocks[b]);
        }
}

/* ---- unpacking ---- */

static void mxfp4_every_byte_under_every_scale(void **state)
{
    (void)state;
    need_codec();
    enum { BLOCKS = 16 };
    uint8_t packed[256];
    for (unsigned i = 0; i < 256; i++)
        packed[i] = (uint8_t)(i * 37);
    for (unsigned e8m0 = 0; e8m0 < 255; e8m0++)
        for (size_t blocks = 0; blocks <= BLOCKS; blocks += blocks < 4 ? 1 : 12) {
            uint16_t expected[BLOCKS * 32 + GUARDS], got[BLOCKS * 32 + GUARDS];
            uint8_t scale[BLOCKS];
            memset(expected, GUARD, sizeof expected);
            memset(got, GUARD, sizeof got);
            for (unsigned i = 0; i < BLOCKS; i++)
                scale[i] = (uint8_t)(i % 3 == 2 ? 254 - e8m0 : e8m0);
            portable->mxfp4_unpack_row(expected, packed, scale, blocks * 32);
            codec->mxfp4_unpack_row(got, packed, scale, blocks * 32);
            expect_same(expected, got, sizeof got, "MXFP4, scale byte %u, %zu blocks", e8m0,
                        blocks);
        }
}

static void nvfp4_every_byte_under_every_scale(void **state)
{
    (void)state;
    need_codec();
    enum { BLOCKS = 32 }; /* every byte is in any 32 blocks of 8 */
    uint8_t packed[256];
    for (unsigned i = 0; i < 256; i++)
        packed[i] = (uint8_t)(i * 37);
    for (size_t s = 0; s < SCALES_2; s++)
        for (unsigned code = 0; code < 256; code++)
            for (size_t blocks = 0; blocks <= BLOCKS; blocks += blocks < 18 ? 1 : 14) {
                uint16_t expected[BLOCKS * 16 + GUARDS], got[BLOCKS * 16 + GUARDS];
                uint8_t scale[BLOCKS];
                if (code % 128 == 127 || (code != 1 && blocks < BLOCKS))
                    continue; /* NaN is refused before; all shapes under one scale */
                memset(expected, GUARD, sizeof expected);
                memset(got, GUARD, sizeof got);
                memset(scale, (int)code, sizeof scale);
                portable->nvfp4_unpack_row(expected, packed, scale, blocks * 16, scales_2[s]);
                codec->nvfp4_unpack_row(got, packed, scale, blocks * 16, scales_2[s]);
                expect_same(expected, got, sizeof got, "NVFP4, scale %02x, scale_2 %a, %zu blocks",
                            code, (double)scales_2[s], blocks);
            }
}

/* ---- packing ---- */

/* Every magnitude as the largest of a block, at each of its places, with either sign. */
static void block_scales_of_every_amax(void **state)
{
    (void)state;
    need_codec();
    enum { BLOCKS = 0x8000 }; /* infinity and NaN too */
    uint16_t *row = calloc(BLOCKS, 16 * sizeof *row);
    static uint8_t expected[BLOCKS + GUARDS], got[BLOCKS + GUARDS];
    assert_non_null(row);
    for (unsigned i = 0; i < BLOCKS; i++) {
        for (unsigned j = 0; j < 16; j++)
            row[i * 16 + j] = (uint16_t)(i * j / 16 | (j % 2 ? 0x8000 : 0));
        row[i * 16 + i * 7 % 16] = (uint16_t)(i | (i % 3 ? 0 : 0x8000));
    }
    for (size_t s = 0; s < SCALES_2; s++) {
        memset(expected, GUARD, sizeof expected);
        memset(got, GUARD, sizeof got);
        portable->nvfp4_scales_row(expected, row, (size_t)BLOCKS * 16, scales_2[s]);
        codec->nvfp4_scales_row(got, row, (size_t)BLOCKS * 16, scales_2[s]);
        expect_same(expected, got, sizeof got, "block scales, scale_2 %a", (double)scales_2[s]);
    }
    for (size_t blocks = 0; blocks < 40; blocks++) {
        memset(expected, GUARD, sizeof expected);
        memset(got, GUARD, sizeof got);
        portable->nvfp4_scales_row(expected, row + 0x3f80 * 16, blocks * 16, 0.1f);
        codec->nvfp4_scales_row(got, row + 0x3f80 * 16, blocks * 16, 0.1f);
        expect_same(expected, got, sizeof got, "block scales of %zu blocks", blocks);
    }
    free(row);
}

/* All 65,536 BF16 values, NaN and infinities too, under each block scale. */
static void nibbles_of_every_value_under_every_scale(void **state)
{
    (void)state;
    need_codec();
    static uint16_t row[ALL];
    static uint8_t scale[ALL / 16], expected[ALL / 2 + GUARDS], got[ALL / 2 + GUARDS];
    for (unsigned i = 0; i < ALL; i++)
        row[i] = (uint16_t)(i * 40503U); /* each once */
    for (size_t s = 0; s < SCALES_2; s++)
        for (unsigned code = 0; code < 127; code++) {
            memset(scale, (int)code, sizeof scale);
            memset(expected, GUARD, sizeof expected);
            memset(got, GUARD, sizeof got);
            portable->nvfp4_nibbles_row(expected, scale, row, ALL, scales_2[s]);
            codec->nvfp4_nibbles_row(got, scale, row, ALL, scales_2[s]);
            expect_same(expected, got, sizeof got, "nibbles, scale %02x, scale_2 %a", code,
                        (double)scales_2[s]);
        }
    for (size_t blocks = 0; blocks < 40; blocks++) {
        memset(expected, GUARD, sizeof expected);
        memset(got, GUARD, sizeof got);
        for (size_t i = 0; i < blocks; i++)
            scale[i] = (uint8_t)(0x20 + i);
        portable->nvfp4_nibbles_row(expected, scale, row, blocks * 16, 0.1f);
        codec->nvfp4_nibbles_row(got, scale, row, blocks * 16, 0.1f);
        expect_same(expected, got, sizeof got, "nibbles of %zu blocks", blocks);
    }
}

/* ---- searches for block scales ---- */

typedef void scales_row(uint8_t *scale, const uint16_t *w, size_t cols, float scale_2);

/* Blocks with a largest magnitude up to 2^spread below the row's, and magnitudes below that of
 * every size. */
static void random_weights(uint16_t *w, size_t cols, unsigned spread, uint64_t *seed)
{
    for (size_t j = 0; j < cols; j++) {
        float size = ldexpf(1, -(int)(j / 16 * 7 % (spread + 1)));
        float any = (float)(sequence(seed) >> 8) * 0x1p-23f - 1;
        w[j] = bf16_from_f32(size * (j % 5 ? any : any * any * any));
    }
}

static void check_search(scales_row *expect, scales_row *run, const uint16_t *w, size_t cols,
                         float scale_2)
{
    enum { MOST = 4096 };
    static uint8_t expected[MOST + GUARDS], got[MOST + GUARDS];
    memset(expected, GUARD, sizeof expected);
    memset(got, GUARD, sizeof got);
    expect(expected, w, cols, scale_2);
    run(got, w, cols, scale_2);
    expect_same(expected, got, sizeof got, "search, scale_2 %a, %zu columns", (double)scale_2,
                cols);
}

/* The second moments of inputs of each block's columns: every fourth of one input, so that they are
 * singular, and every seventh of none. */
static void random_moments(struct block_moments *moments, size_t blocks, uint64_t *seed)
{
    float(*all)[16][16] = xalloc(blocks, sizeof *all);
    for (size_t i = 0; i < blocks; i++) {
        float(*h)[16] = all[i], x[16];
        for (unsigned n = 0; n < (i % 7 == 0 ? 0 : i % 4 == 0 ? 1 : 40); n++) {
            for (size_t j = 0; j < 16; j++)
                x[j] = (float)(sequence(seed) >> 8) * 0x1p-23f - (j % 3 ? 1 : 0.5f);
            for (size_t j = 0; j < 256; j++)
                h[j / 16][j % 16] += x[j / 16] * x[j % 16];
        }
    }
    block_moments_prepare(moments, **all, blocks);
    free(all);
}

static void check_hessian(const uint16_t *w, size_t cols, float scale_2)
{
    enum { MOST = 4096 };
    static uint8_t expected[MOST + GUARDS], got[MOST + GUARDS];
    static struct block_moments moments[MOST / HESSIAN_LANES];
    uint64_t seed = 6;
    if (!moments[0].known)
        random_moments(moments, MOST, &seed);
    memset(expected, GUARD, sizeof expected);
    memset(got, GUARD, sizeof got);
    portable->nvfp4_scales_hessian_row(expected, w, cols, scale_2, moments);
    codec->nvfp4_scales_hessian_row(got, w, cols, scale_2, moments);
    expect_same(expected, got, sizeof got, "hessian, scale_2 %a, %zu columns", (double)scale_2,
                cols);
}

static void check_searches(const uint16_t *w, size_t cols, float scale_2)
{
    check_search(portable->nvfp4_scales_mse_row, codec->nvfp4_scales_mse_row, w, cols, scale_2);
    check_search(portable->nvfp4_scales_four_over_six_row, codec->nvfp4_scales_four_over_six_row, w,
                 cols, scale_2);
    check_hessian(w, cols, scale_2);
}

/* From a scale_2 with which all block scales are subnormal to one with which all saturate. */
static void searches_choose_the_same(void **state)
{
    (void)state;
    need_codec();
    enum { COLS = 16 * 1024 };
    static uint16_t w[COLS], any[ALL];
    uint64_t seed = 4;
    for (unsigned spread = 0; spread < 30; spread += 3)
        for (int e = -16; e < 12; e++) {
            random_weights(w, COLS, spread, &seed);
            check_searches(w, COLS, ldexpf(0x1.861862p-12f, -e));
        }
    for (size_t blocks = 0; blocks < 40; blocks++)
        check_searches(w, blocks * 16, 0x1.861862p-12f);
    for (unsigned i = 0; i < ALL;
         i++) /* each once: neighbours in a block, NaN and infinities too */
        any[i] = (uint16_t)i;
    for (size_t s = 0; s < SCALES_2; s++) {
        check_searches(any, ALL, scales_2[s]);
        for (unsigned i = 0; i < ALL; i++) /* each once: any in a block */
            any[i] = (uint16_t)(any[i] * 40503U);
        check_searches(any, ALL, scales_2[s]);
    }
}

/* ---- MXFP4 to NVFP4 ---- */

static void check_cast(const uint8_t *e8m0, size_t blocks, int k_max)
{
    uint8_t expected[512 + GUARDS], got[512 + GUARDS];
    struct nvfp4_cast_count want = {1, 2, 3}, count = {1, 2, 3};
    memset(expected, GUARD, sizeof expected);
    memset(got, GUARD, sizeof got);
    portable->nvfp4_cast_scales_row(expected, e8m0, blocks, k_max, &want);
    codec->nvfp4_cast_scales_row(got, e8m0, blocks, k_max, &count);
    expect_same(expected, got, sizeof got, "cast of %zu scales, k_max %d", blocks, k_max);
    assert_int_equal(count.blocks, want.blocks);
    assert_int_equal(count.lossy, want.lossy);
    assert_int_equal(count.rewrite, want.rewrite);
}

static void cast_scales_of_every_pair(void **state)
{
    (void)state;
    need_codec();
    for (int k_max = -127; k_max <= 127; k_max++) {
        uint8_t e8m0[256];
        for (int i = 0; i < 256; i++)
            e8m0[i] = (uint8_t)(i * 37 % (k_max + 128));
        for (size_t blocks = 0; blocks <= 256; blocks += blocks < 70 ? 1 : 31)
            check_cast(e8m0, blocks, k_max);
        for (int i = 0; i < 256; i++)
            e8m0[i] = (uint8_t)(i % (k_max + 128));
        check_cast(e8m0, 256, k_max);
    }
}

/* Blocks with every nibble there is beside a largest magnitude, under every scale byte. */
static void recode_is_unpacking_and_packing(void **state)
{
    (void)state;
    need_codec();
    enum { BLOCKS = 255 * 8, COLS = BLOCKS * 32 };
    static uint8_t in[COLS / 2], e8m0[BLOCKS], scale[COLS / 16 + GUARDS], out[COLS / 2 + GUARDS];
    static uint8_t want_scale[COLS / 16 + GUARDS], want[COLS / 2 + GUARDS];
    static uint16_t w[COLS];
    static struct recode recode, same;
    uint64_t seed = 3;
    for (unsigned block = 0; block < BLOCKS; block++) {
        e8m0[block] = (uint8_t)(block / 8);
        for (unsigned j = 0; j < 32; j++) {
            unsigned most = j < 16 ? block % 8 : (block * 5 + 3) % 8;
            unsigned nibble = (unsigned)(sequence(&seed) >> 10) % 16;
            nibble = (nibble & 7) > most || j % 16 == block % 16 ? most | (nibble & 8) : nibble;
            in[block * 16 + j / 2] |= (uint8_t)(nibble << 4 * (j % 2));
        }
    }
    for (size_t s = 0; s < SCALES_2; s++) {
        memset(want_scale, GUARD, sizeof want_scale);
        memset(want, GUARD, sizeof want);
        memset(scale, GUARD, sizeof scale);
        memset(out, GUARD, sizeof out);
        mxfp4_unpack_row(w, in, e8m0, COLS);
        nvfp4_pack_row(want, want_scale, w, COLS, scales_2[s]);
        for (size_t j = 0; j < COLS; j++)
            if (bf16_not_finite(w[j]))
                want_scale[j / 16] = NVFP4_NOT_FINITE;
        recode_init(&recode, codec, scales_2[s]);
        recode_init(&same, portable, scales_2[s]);
        expect_same(&same, &recode, sizeof recode, "table, scale_2 %a", (double)scales_2[s]);
        codec->recode_row(out, scale, &recode, in, e8m0, BLOCKS);
        expect_same(want_scale, scale, sizeof scale, "recoded scales, scale_2 %a",
                    (double)scales_2[s]);
        expect_same(want, out, sizeof out, "recoded nibbles, scale_2 %a", (double)scales_2[s]);
        /* In place, and fewer blocks. */
        memcpy(out, in, sizeof in);
        codec->recode_row(out, scale, &recode, out, e8m0, BLOCKS - 1);
        memcpy(want + sizeof in - 16, in + sizeof in - 16, 16);
        expect_same(want, out, sizeof in, "in place, scale_2 %a", (double)scales_2[s]);
    }
}

static void best_is_one_of_them(void **state)
{
    (void)state;
    const struct codec *best = codec_best();
    assert_ptr_equal(best, codec_named(best->name));
    assert_non_null(strstr("|" CODEC_NAMES "|", best->name));
    assert_null(codec_named("sse9"));
    if (codec_named("avx512"))
        assert_string_equal(best->name, "avx512");
}

#define EACH(test)                                                                                 \
    {"portable: " #test, test, route_topk, NULL, "portable"},                                      \
        {"avx2: " #test, test, route_topk, NULL, "avx2"},                                          \
    {                                                                                              \
        "avx512: " #test, test, route_topk, NULL, "avx512"                                         \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH(fp8_every_code),
        EACH(fp8_every_shape),
        EACH(mxfp4_every_byte_under_every_scale),
        EACH(nvfp4_every_byte_under_every_scale),
        EACH(block_scales_of_every_amax),
        EACH(nibbles_of_every_value_under_every_scale),
        EACH(searches_choose_the_same),
        EACH(cast_scales_of_every_pair),
        EACH(recode_is_unpacking_and_packing),
        cmocka_unit_test(best_is_one_of_them),
    };
    return cmocka_run_group_tests_name("codec", tests, NULL, NULL);
}
