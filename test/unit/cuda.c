/* The CUDA device's kernels against the CPU device: codecs byte by byte, over all that can go in;
 * what is made of sums, products and roots in a fixed order likewise; the rest, where exp or the
 * order of sums differs, by normalized mean squared error, and bit by bit on inputs that are made
 * to come out exact. */
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "../cuda/operand.h"
#include "base/die.h"
#include "base/library.h"
#include "on_device.h"
#include "tensor/bf16.h"

enum { FP8_BLOCK = 128 };

static struct device *cpu, *cuda;

/* ---- an operation on both devices ---- */

enum { MATS_MOST = 10 };

/* What an operation works on. `nmse` of a result: 0 for equal bytes. */
struct array {
    enum dtype dtype;
    uint64_t rows, cols;
    void *data; /* what is in it before; freed by compare() */
    bool result;
    double nmse;
};

typedef void operation(struct device *d, const struct mat *m);

static void expect_near(const char *name, const struct array *a, const void *want, const void *got)
{
    size_t count = (size_t)(a->rows * a->cols);
    double error = 0, size = 0;
    for (size_t i = 0; i < count; i++) {
        double w = dtype_value(a->dtype, want, i), g = dtype_value(a->dtype, got, i);
        if (a->nmse == 0 &&
            memcmp((const char *)want + i * dtype_size(a->dtype),
                   (const char *)got + i * dtype_size(a->dtype), dtype_size(a->dtype)) != 0)
            fail_msg("%s: row %zu, column %zu: cpu %.9g, cuda %.9g", name, i / (size_t)a->cols,
                     i % (size_t)a->cols, w, g);
        error += (w - g) * (w - g);
        size += w * w;
    }
    if (a->nmse > 0 && !(error <= a->nmse * size))
        fail_msg("%s: normalized squared error %g, wanted at most %g", name, error / size, a->nmse);
    if (a->nmse > 0)
        print_message("%s: %.2g\n", name, error / size);
}

static void compare(const char *name, operation *run, struct array *array, size_t count)
{
    struct device *const device[] = {cpu, cuda};
    void *got[2][MATS_MOST] = {{0}};
    for (int i = 0; i < 2; i++) {
        struct device *d = device[i];
        struct mat m[MATS_MOST];
        for (size_t k = 0; k < count; k++) {
            m[k] = d->make(d, array[k].dtype, array[k].rows, array[k].cols);
            d->write(d, m[k], array[k].data);
        }
        run(d, m);
        for (size_t k = 0; k < count; k++) {
            if (array[k].result) {
                got[i][k] = xalloc((size_t)(m[k].rows * m[k].cols), dtype_size(m[k].dtype));
                d->read(d, got[i][k], m[k]);
            }
            d->drop(d, m[k]);
        }
    }
    for (size_t k = 0; k < count; k++) {
        if (array[k].result)
            expect_near(name, &array[k], got[0][k], got[1][k]);
        free(got[0][k]);
        free(got[1][k]);
        free(array[k].data);
    }
}

#define COMPARE(run, array) compare(#run, run, array, sizeof(array) / sizeof *(array))

/* ---- inputs ---- */

static uint32_t next(uint32_t *seed)
{
    *seed = *seed * 1664525 + 1013904223;
    return *seed >> 8;
}

/* Numbers that look random, in [-size, size). */
static float noise(uint32_t *seed, float size)
{
    return ((float)next(seed) * 0x1p-23F - 1) * size;
}

static struct array f32(uint64_t rows, uint64_t cols, float size, uint32_t seed)
{
    float *data = xalloc((size_t)(rows * cols), sizeof *data);
    for (uint64_t i = 0; i < rows * cols; i++)
        data[i] = noise(&seed, size);
    return (struct array){DTYPE_F32, rows, cols, data, false, 0};
}

static struct array bf16(uint64_t rows, uint64_t cols, float size, uint32_t seed)
{
    uint16_t *data = xalloc((size_t)(rows * cols), sizeof *data);
    for (uint64_t i = 0; i < rows * cols; i++)
        data[i] = bf16_from_f32(noise(&seed, size));
    return (struct array){DTYPE_BF16, rows, cols, data, false, 0};
}

/* Whole numbers from -most to most, which sums of products keep exact. */
static struct array whole(uint64_t rows, uint64_t cols, uint32_t most, uint32_t seed)
{
    uint16_t *data = xalloc((size_t)(rows * cols), sizeof *data);
    for (uint64_t i = 0; i < rows * cols; i++)
        data[i] = bf16_from_f32((float)(next(&seed) % (2 * most + 1)) - (float)most);
    return (struct array){DTYPE_BF16, rows, cols, data, false, 0};
}

/* Numbers below `limit`, each row a different one if `limit` is the number of rows. */
static struct array i32(uint64_t rows, uint64_t cols, uint32_t limit, uint32_t step)
{
    int32_t *data = xalloc((size_t)(rows * cols), sizeof *data);
    for (uint64_t i = 0; i < rows * cols; i++)
        data[i] = (int32_t)(i * step % limit);
    return (struct array){DTYPE_I32, rows, cols, data, false, 0};
}

/* Where magnitudes are seen; not -0, whose bits are more than any number's. */
static struct array nothing_seen(uint64_t cols)
{
    return (struct array){DTYPE_F32, 1, cols, xalloc((size_t)cols, sizeof(float)), false, 0};
}

static struct array result(struct array a, double nmse)
{
    a.result = true;
    a.nmse = nmse;
    return a;
}

/* BF16 results that differ in a few roundings: one in a thousand by a unit is 1e-8. */
static const double ROUNDINGS = 1e-7;

/* Tensor cores cut off what lies far below a sum; at 4096 terms, 2e-11 was seen on an H100. */
static const double TENSOR_CORES = 1e-10;

/* ---- codecs: weights ---- */

/* A weight's rows on the GPU, and on the CPU. */
static void expect_weight(const char *name, const struct weight *w, const struct tensor *tensor,
                          const struct scales *scales, const void *raw)
{
    const uint64_t first = 3, rows = w->rows - 4, count = rows * w->cols;
    struct mat amax = cuda->make(cuda, DTYPE_F32, 1, 1);
    struct mat bytes = cuda->make(cuda, DTYPE_U8, 1, tensor->size);
    char *staging = cuda->acquire_staging(cuda, bytes, 5, (size_t)tensor->size - 5, 1234);
    assert_int_equal((uintptr_t)staging % 4096, 1234);
    memcpy(staging, (const char *)raw + 5, (size_t)tensor->size - 5);
    cuda->submit_staging(cuda, bytes, 5, (size_t)tensor->size - 5, staging);
    staging = cuda->acquire_staging(cuda, bytes, 0, 5, 0);
    memcpy(staging, raw, 5);
    cuda->submit_staging(cuda, bytes, 0, 5, staging);
    struct mat scale = cuda->make(cuda, DTYPE_U8, w->rows, scales->cols);
    if (scales->raw)
        cuda->write(cuda, scale, scales->raw);
    struct operand *on_gpu =
        cuda->operand(cuda, w, tensor, scales, scale, bytes,
                      (struct operand_part){.first = first, .rows = rows}, amax);
    cuda->drop(cuda, bytes);
    cuda->drop(cuda, scale);
    uint16_t *want = xalloc((size_t)count, sizeof *want), *got = xalloc((size_t)count, sizeof *got);
    weight_rows(w, tensor, scales, first, rows,
                (const char *)raw + first * weight_row_bytes(w, tensor), want);
    cuda->read(cuda, got, (struct mat){on_gpu->at, rows, w->cols, w->cols, DTYPE_BF16});
    uint32_t most = 0, got_most;
    for (uint64_t i = 0; i < count; i++) {
        if (got[i] != want[i])
            fail_msg("%s: row %d, column %d: cpu %#x, cuda %#x", name, (int)(first + i / w->cols),
                     (int)(i % w->cols), want[i], got[i]);
        most = (want[i] & 0x7fffU) > most ? want[i] & 0x7fffU : most;
    }
    cuda->read(cuda, &got_most, amax);
    assert_int_equal(got_most, most << 16);
    cuda->drop_operand(cuda, on_gpu);
    cuda->drop(cuda, amax);
    free(want);
    free(got);
}

/* Every code under every scale. Rows have an odd length, so that reading eight at a time has an
 * end, and blocks of 128 rows are met at other places than their beginnings. */
static void fp8_weights(void **state)
{
    (void)state;
    need_device(cuda);
    enum { BLOCKS = 256, ROWS = 16, COLS = BLOCKS * FP8_BLOCK - 27 };
    uint8_t *raw = xalloc((size_t)ROWS * COLS, 1);
    float *scale = xalloc(BLOCKS, sizeof *scale);
    for (size_t i = 0; i < (size_t)ROWS * COLS; i++)
        raw[i] = (uint8_t)(i / COLS * FP8_BLOCK + i % COLS);
    for (unsigned i = 0; i < BLOCKS; i++)
        scale[i] = i < 255 ? ldexpf(1, (int)i - 127) : 0.7F;
    struct weight w = {.format = FORMAT_FP8,
                       .rows = ROWS,
                       .cols = COLS,
                       .block_rows = FP8_BLOCK,
                       .block_cols = FP8_BLOCK};
    struct tensor tensor = {.size = (uint64_t)ROWS * COLS, .dtype = DTYPE_F8_E4M3};
    struct scales scales = {.fp8 = scale, .cols = BLOCKS};
    expect_weight("FP8", &w, &tensor, &scales, raw);
    free(raw);
    free(scale);
}

/* Blocks of every size in use, one of the whole matrix among them. */
static void fp8_blocks(void **state)
{
    (void)state;
    need_device(cuda);
    enum { ROWS = 400, COLS = 136 };
    static const uint64_t block[][2] = {{128, 128}, {32, 32}, {1, 32}, {ROWS, COLS}};
    uint8_t *raw = xalloc((size_t)ROWS * COLS, 1);
    for (size_t i = 0; i < (size_t)ROWS * COLS; i++)
        raw[i] = (uint8_t)(i * 7);
    for (size_t b = 0; b < sizeof block / sizeof *block; b++) {
        struct weight w = {.format = FORMAT_FP8,
                           .rows = ROWS,
                           .cols = COLS,
                           .block_rows = block[b][0],
                           .block_cols = block[b][1]};
        struct tensor tensor = {.size = (uint64_t)ROWS * COLS, .dtype = DTYPE_F8_E4M3};
        struct scales scales = {.cols = (COLS + w.block_cols - 1) / w.block_cols};
        uint64_t count = (ROWS + w.block_rows - 1) / w.block_rows * scales.cols;
        scales.fp8 = xalloc((size_t)count, sizeof *scales.fp8);
        for (uint64_t i = 0; i < count; i++)
            scales.fp8[i] = (float)(i + 1) / 3;
        expect_weight("FP8", &w, &tensor, &scales, raw);
        free(scales.fp8);
    }
    free(raw);
}

/* Every nibble at every place of a byte, under every scale but NaN. */
static void fp4_weights(void **state)
{
    (void)state;
    need_device(cuda);
    enum { ROWS = 260, COLS = 512 };
    static const float scale_2[] = {1, 0.013F, 0x1p-140F, 0x1p-100F, 0x1p110F, 3e-6F};
    uint8_t *raw = xalloc((size_t)ROWS * COLS / 2, 1), *scale = xalloc((size_t)ROWS * COLS / 16, 1);
    for (size_t i = 0; i < (size_t)ROWS * COLS / 2; i++)
        raw[i] = (uint8_t)i; /* a row has all 256 bytes */
    for (size_t i = 0; i < (size_t)ROWS * COLS / 32; i++)
        scale[i] = (uint8_t)(i / (COLS / 32) % 255);
    struct weight w = {.format = FORMAT_MXFP4, .rows = ROWS, .cols = COLS};
    struct tensor tensor = {.size = (uint64_t)ROWS * COLS / 2, .dtype = DTYPE_I8};
    struct scales scales = {.raw = scale, .cols = COLS / 32};
    expect_weight("MXFP4", &w, &tensor, &scales, raw);
    for (size_t i = 0; i < (size_t)ROWS * COLS / 16; i++) {
        scale[i] = (uint8_t)(i / (COLS / 16));
        scale[i] -= scale[i] % 128 == 127;
    }
    w.format = FORMAT_NVFP4;
    tensor.dtype = DTYPE_U8;
    for (size_t i = 0; i < sizeof scale_2 / sizeof *scale_2; i++) {
        scales = (struct scales){.raw = scale, .scale_2 = scale_2[i], .cols = COLS / 16};
        expect_weight("NVFP4", &w, &tensor, &scales, raw);
    }
    free(raw);
    free(scale);
}

static void plain_weights(void **state)
{
    (void)state;
    need_device(cuda);
    enum { ROWS = 70, COLS = 1000 };
    uint16_t *raw = xalloc((size_t)ROWS * COLS, sizeof *raw);
    for (size_t i = 0; i < (size_t)ROWS * COLS; i++)
        raw[i] = (uint16_t)i;
    struct weight w = {.format = FORMAT_PLAIN, .rows = ROWS, .cols = COLS};
    struct tensor tensor = {.size = (uint64_t)ROWS * COLS * 2, .dtype = DTYPE_BF16};
    struct scales scales = {0};
    expect_weight("BF16", &w, &tensor, &scales, raw);
    for (size_t i = 0; i < (size_t)ROWS * COLS; i++)
        raw[i] = (raw[i] & 0x7c00) == 0x7c00 ? 0 : raw[i]; /* no NaN, whose bits are free */
    tensor.dtype = DTYPE_F16;
    expect_weight("F16", &w, &tensor, &scales, raw);
    free(raw);
}

/* ---- codecs: activations ---- */

static void to_fp8(struct device *d, const struct mat *m)
{
    d->quantize(d, m[0], m[0], ACTIVATION_FP8, 0, (struct mat){0});
}

static void to_fp8_32(struct device *d, const struct mat *m)
{
    d->quantize(d, m[0], m[0], ACTIVATION_FP8_32, 0, (struct mat){0});
}

static void to_fp4(struct device *d, const struct mat *m)
{
    d->quantize(d, m[0], m[0], ACTIVATION_FP4, 0, (struct mat){0});
}

static void to_nvfp4(struct device *d, const struct mat *m)
{
    static const float scale_2[] = {1, 1e-3F, 0.37F, 1e-30F, 1e10F};
    for (uint64_t i = 0; i < m[0].rows; i++) {
        struct mat row = mat_rows(m[0], i, 1);
        d->quantize(d, row, row, ACTIVATION_NVFP4, scale_2[i % 5], (struct mat){0});
    }
}

/* All finite numbers, in an order that mixes them, exponents cut at another limit in each row: so
 * every number meets every scale that its block can have. */
static struct array all_numbers(void)
{
    enum { LIMITS = 255, NUMBERS = 1 << 16 };
    uint16_t *data = xalloc((size_t)LIMITS * NUMBERS, sizeof *data);
    for (uint32_t limit = 0; limit < LIMITS; limit++)
        for (uint32_t i = 0; i < NUMBERS; i++) {
            uint32_t code = i * 40503 % NUMBERS, exponent = code >> 7 & 0xff;
            exponent = exponent > limit ? limit : exponent;
            data[limit * NUMBERS + i] = (uint16_t)((code & 0x807f) | exponent << 7);
        }
    return result((struct array){DTYPE_BF16, LIMITS, NUMBERS, data, false, 0}, 0);
}

static void activations(void **state)
{
    (void)state;
    need_device(cuda);
    struct array x[] = {all_numbers()};
    COMPARE(to_fp8, x);
    x[0] = all_numbers();
    COMPARE(to_fp8_32, x);
    x[0] = all_numbers();
    COMPARE(to_fp4, x);
    x[0] = all_numbers();
    COMPARE(to_nvfp4, x);
    x[0] = result(bf16(7, 304, 3, 5), 0); /* the last block of 128 is not full */
    COMPARE(to_fp8, x);
}

/* ---- moving ---- */

static void moves(struct device *d, const struct mat *m)
{
    d->gather(d, m[1], m[0], m[3], mat_cols(m[6], 2, 1));
    d->scatter_add(d, m[2], m[1], m[3], (struct mat){0}, mat_cols(m[6], 3, 1));
    d->copy(d, mat_cols(m[4], 8, m[0].cols), m[0]);
    d->copy(d, mat_cols(m[5], 3, m[0].cols), m[2]);
    d->scale(d, mat_cols(m[5], 2, 90), 0.3F);
    d->scale_rows(d, mat_cols(m[5], 4, 93), m[7]);
    d->add(d, mat_cols(m[5], 3, m[0].cols), m[1]);
    d->max_abs(d, mat_cols(m[6], 0, 1), m[5]);
    d->max_abs(d, mat_cols(m[6], 1, 1), m[2]);
}

static void moving(void **state)
{
    (void)state;
    need_device(cuda);
    for (uint64_t cols = 100; cols <= 2216; cols += 2116) {
        struct array m[] = {bf16(40, cols, 1, 1),
                            result(bf16(40, cols, 1, 2), 0),
                            result(f32(40, cols, 1, 3), 0),
                            i32(40, 1, 40, 7),
                            result(f32(40, cols + 8, 1, 4), 0),
                            result(bf16(40, cols + 5, 1, 5), 0),
                            result(nothing_seen(4), 0),
                            f32(40, 1, 1, 7)};
        COMPARE(moves, m);
    }
}

static void rounds(struct device *d, const struct mat *m)
{
    d->copy(d, m[1], m[0]);
}

/* All finite BF16 numbers and infinity, and what lies between each and the next: ties, and what is
 * next to them. */
static void rounding(void **state)
{
    (void)state;
    need_device(cuda);
    static const uint32_t below[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};
    enum { BELOW = sizeof below / sizeof *below, CODES = 0x7f80 };
    struct array m[] = {f32(2 * BELOW, CODES, 1, 1), result(bf16(2 * BELOW, CODES, 1, 2), 0)};
    uint32_t *bits = m[0].data;
    for (uint32_t i = 0; i < 2 * BELOW * CODES; i++)
        bits[i] = (i / CODES % 2 << 31 | i % CODES << 16) + below[i / CODES / 2];
    bits[0] = 0x7f800000;
    bits[CODES] = 0xff800000;
    COMPARE(rounds, m);
}

/* Sums in lanes, some of which take long to get there; then what lane 0 makes of them. A sum's last
 * bits tell in which order its terms came. */
static void sums(struct device *d, const struct mat *m)
{
    for (unsigned i = 0; i < 10 * DEVICE_STREAMS; i++) {
        d->stream(d, 1 + i % DEVICE_STREAMS);
        struct mat x = d->make(d, DTYPE_BF16, m[1].rows, m[1].cols);
        for (unsigned turn = 0; turn <= (i % 3 ? 0 : 50); turn++)
            d->copy(d, x, m[1]);
        d->scale(d, x, (float)(i * i + 1) * (i % 2 ? 1.7F : -1.7F));
        d->scatter_add(d, m[0], x, m[2], (struct mat){0}, (struct mat){0});
        d->drop(d, x);
    }
    d->stream(d, 0);
    d->copy(d, m[3], m[0]);
}

static void lanes(void **state)
{
    (void)state;
    need_device(cuda);
    struct array m[] = {result(f32(40, 2216, 1, 1), 0), bf16(40, 2216, 1, 2), i32(40, 1, 40, 7),
                        result(bf16(40, 2216, 1, 3), 0)};
    COMPARE(sums, m);
}

/* ---- norms and turns ---- */

static void norms(struct device *d, const struct mat *m)
{
    d->rms_norm(d, m[1], m[0], m[2], 1e-6F);
    d->unit(d, m[3], 96, 1e-6F, m[5]);
    d->hc_scale(d, m[4], m[0], 1e-6F);
}

static void turns(struct device *d, const struct mat *m)
{
    d->rotate(d, m[0], 128, m[1], m[2], false);
    d->hadamard(d, m[0], 64);
    d->rotate(d, m[0], 256, m[1], m[2], true);
}

static void norms_and_turns(void **state)
{
    (void)state;
    need_device(cuda);
    struct array n[] = {bf16(30, 3000, 2, 1),
                        result(bf16(30, 3000, 1, 2), ROUNDINGS),
                        f32(1, 3000, 1, 3),
                        result(bf16(30, 960, 5, 4), ROUNDINGS),
                        result(f32(30, 24, 1, 5), 1e-12),
                        result(nothing_seen(1), 0)};
    COMPARE(norms, n);
    struct array t[] = {result(bf16(30, 1024, 2, 1), 0), f32(50, 64, 1, 2), i32(30, 1, 50, 11)};
    COMPARE(turns, t);
}

/* ---- hyper-connections ---- */

static void mixes_in(struct device *d, const struct mat *m)
{
    d->sinkhorn(d, m[1], m[2], m[3], m[0], m[4], m[5], 20, 1e-6F);
    d->hc_gate(d, m[6], mat_cols(m[0], 0, 4), mat_cols(m[4], 0, 1), mat_cols(m[5], 0, 4), 1e-6F);
}

static void mixes_out(struct device *d, const struct mat *m)
{
    d->hc_in(d, m[1], m[0], m[2]);
    d->hc_out(d, m[0], m[1], m[2], m[3]);
}

static void hyper_connections(void **state)
{
    (void)state;
    need_device(cuda);
    struct array in[] = {f32(300, 24, 3, 1),
                         result(f32(300, 4, 0, 2), 1e-12),
                         result(f32(300, 4, 0, 3), 1e-12),
                         result(f32(300, 16, 0, 4), 1e-12),
                         f32(1, 3, 1, 5),
                         f32(1, 24, 1, 6),
                         result(f32(300, 4, 0, 7), 1e-12)};
    COMPARE(mixes_in, in);
    static const uint64_t shape[][2] = {{300, 4}, {2056, 4}, {300, 3}, {300, 8}}; /* n copies */
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
        uint64_t cols = shape[i][0], n = shape[i][1];
        struct array out[] = {result(bf16(50, n * cols, 1, 1), 0), result(bf16(50, cols, 1, 2), 0),
                              f32(50, n, 1, 3), f32(50, n * n, 1, 4)};
        COMPARE(mixes_out, out);
    }
}

/* ---- experts ---- */

static void routes(struct device *d, const struct mat *m)
{
    d->route_topk(d, m[2], m[0], m[1], (struct expert_groups){1, 1});
    d->route_weights(d, m[3], m[0], m[2], true, 2.5F);
    d->route_weights(d, m[4], m[0], m[2], false, 2.5F);
    d->score(d, m[5], SCORING_SOFTMAX);
    d->score(d, m[6], SCORING_SIGMOID);
    d->score(d, m[7], SCORING_SQRT_SOFTPLUS);
}

/* Scores of a few values only: of equal ones the first. */
static struct array few_values(uint64_t rows, uint64_t cols, uint32_t seed)
{
    struct array a = f32(rows, cols, 1, seed);
    for (uint64_t i = 0; i < rows * cols; i++)
        ((float *)a.data)[i] = roundf(((float *)a.data)[i] * 8) / 8;
    return a;
}

static void sorts(struct device *d, const struct mat *m)
{
    uint64_t number[40];
    float as_float[40];
    d->route_topk(d, m[1], m[0], (struct mat){0}, (struct expert_groups){1, 1});
    d->route_weights(d, m[2], m[0], m[1], true, 1);
    d->sort_by_expert(d, m[3], m[4], m[1], m[2], number, 40);
    for (unsigned e = 0; e < 40; e++)
        as_float[e] = (float)number[e];
    d->write(d, m[5], as_float);
}

static void tokens_by_expert(void **state)
{
    (void)state;
    need_device(cuda);
    for (uint64_t tokens = 1; tokens <= 3001; tokens += 1000) {
        struct array m[] = {few_values(tokens, 40, 1),
                            i32(tokens, 6, 1, 2),
                            f32(tokens, 6, 0, 3),
                            result(i32(tokens * 6, 1, 1, 4), 0),
                            result(f32(tokens * 6, 1, 0, 5), 0),
                            result(f32(1, 40, 0, 6), 0)};
        COMPARE(sorts, m);
    }
}

static void gates(struct device *d, const struct mat *m)
{
    const struct swiglu_seen seen = {mat_cols(m[4], 0, 1), mat_cols(m[4], 1, 1),
                                     mat_cols(m[4], 2, 1), mat_cols(m[4], 3, 1)};
    d->swiglu(d, m[2], m[0], m[1], (struct swiglu){.limit = 10}, m[3], &seen);
    d->swiglu(d, m[0], m[0], m[1], (struct swiglu){.rounds = true}, (struct mat){0}, NULL);
}

static void experts(void **state)
{
    (void)state;
    need_device(cuda);
    for (int few = 0; few <= 1; few++) {
        struct array m[] = {few ? few_values(90, 384, 1) : f32(90, 384, 1, 1),
                            few ? few_values(1, 384, 2) : f32(1, 384, 1, 2),
                            result(i32(90, 6, 1, 1), 0),
                            result(f32(90, 6, 1, 3), 0),
                            result(f32(90, 6, 1, 3), 0),
                            result(f32(90, 384, 5, 4), 1e-12),
                            result(f32(90, 384, 5, 5), 1e-12),
                            result(f32(90, 384, 25, 6), 1e-12)};
        COMPARE(routes, m);
    }
    struct array g[] = {result(bf16(60, 776, 20, 1), ROUNDINGS), bf16(60, 776, 20, 2),
                        result(bf16(60, 776, 1, 3), ROUNDINGS), f32(60, 1, 1, 4),
                        result(nothing_seen(4), ROUNDINGS)};
    COMPARE(gates, g);
}

static void results(struct device *d, const struct mat *m)
{
    d->loss(d, m[1], m[0], m[2]);
    d->best(d, m[3], m[4], m[0]);
}

static void losses(void **state)
{
    (void)state;
    need_device(cuda);
    for (int few = 0; few <= 1; few++) {
        struct array m[] = {few ? few_values(20, 5000, 1) : f32(20, 5000, 9, 1),
                            result(f32(20, 1, 0, 2), 1e-12), i32(20, 1, 5000, 7919),
                            result(f32(20, 40, 0, 3), 1e-12), result(i32(20, 40, 1, 1), 0)};
        COMPARE(results, m);
    }
}

/* ---- products ---- */

/* m[0] = m[1] · m[2]ᵀ, in parts: all rows but the first, then that one. */
static void multiplies(struct device *d, const struct mat *m)
{
    uint64_t rows = m[2].rows, cols = m[2].cols;
    size_t size = (size_t)(rows * cols) * dtype_size(m[2].dtype);
    void *raw = xalloc(size, 1);
    d->read(d, raw, m[2]);
    const struct weight w = {.format = FORMAT_PLAIN, .rows = rows, .cols = cols};
    const struct tensor tensor = {.size = size, .dtype = (uint8_t)m[2].dtype};
    const struct scales none = {0};
    struct mat bytes = d->make(d, DTYPE_U8, 1, size);
    d->write(d, bytes, raw);
    struct operand *operand =
        d->operand(d, &w, &tensor, &none, bytes, bytes, (struct operand_part){.rows = rows}, m[3]);
    d->drop(d, bytes);
    uint64_t behind = m[0].rows - 1;
    d->product(d, mat_rows(m[0], 1, behind), mat_rows(m[1], 1, behind), operand);
    d->product(d, mat_rows(m[0], 0, 1), mat_rows(m[1], 0, 1), operand);
    d->drop_operand(d, operand);
    free(raw);
}

static struct array as_f32(struct array a)
{
    float *data = xalloc((size_t)(a.rows * a.cols), sizeof *data);
    for (uint64_t i = 0; i < a.rows * a.cols; i++)
        data[i] = bf16_to_f32(((const uint16_t *)a.data)[i]);
    free(a.data);
    a.data = data;
    a.dtype = DTYPE_F32;
    return a;
}

static void products(void **state)
{
    (void)state;
    need_device(cuda);
    struct array exact[] = {result(f32(203, 336, 0, 1), 0), whole(203, 1024, 3, 2),
                            whole(336, 1024, 3, 3), result(nothing_seen(1), 0)};
    COMPARE(multiplies, exact);
    struct array rounded[] = {result(bf16(203, 336, 0, 1), 0), whole(203, 1024, 3, 2),
                              whole(336, 1024, 3, 3), result(nothing_seen(1), 0)};
    COMPARE(multiplies, rounded);
    struct array plain[] = {result(f32(203, 26, 0, 1), 0), whole(203, 1028, 3, 2),
                            as_f32(whole(26, 1028, 3, 3)), result(nothing_seen(1), 0)};
    COMPARE(multiplies, plain);
    struct array real[] = {result(f32(203, 336, 0, 1), TENSOR_CORES), bf16(203, 4096, 1, 2),
                           bf16(336, 4096, 1, 3), result(nothing_seen(1), 0)};
    COMPARE(multiplies, real);
    struct array real_plain[] = {result(f32(203, 24, 0, 1), 1e-12), bf16(203, 4096, 1, 2),
                                 f32(24, 4096, 1, 3), result(nothing_seen(1), 0)};
    COMPARE(multiplies, real_plain);
}

/* ---- attention ---- */

/* Two samples of 150 and 90 tokens: positions, and the first block of each one's sample. */
enum { FIRST = 150, TOKENS = 240 };

static struct array positions(void)
{
    struct array a = i32(TOKENS, 1, TOKENS, 1);
    for (int32_t i = FIRST; i < TOKENS; i++)
        ((int32_t *)a.data)[i] = i - FIRST;
    return a;
}

static uint64_t blocks_of(uint64_t ratio)
{
    return FIRST / ratio + (TOKENS - FIRST) / ratio;
}

static struct array first_blocks(uint64_t ratio)
{
    struct array a = i32(TOKENS, 1, 1, 1);
    for (int32_t i = FIRST; i < TOKENS; i++)
        ((int32_t *)a.data)[i] = (int32_t)(FIRST / ratio);
    return a;
}

/* Where blocks begin, and their numbers. */
static struct array block_rows(uint64_t ratio, bool numbers)
{
    struct array a = i32(blocks_of(ratio), 1, UINT32_MAX, 1);
    for (uint64_t b = 0; b < blocks_of(ratio); b++) {
        uint64_t own = b < FIRST / ratio ? b : b - FIRST / ratio;
        uint64_t row = (b < FIRST / ratio ? 0 : FIRST) + own * ratio;
        ((int32_t *)a.data)[b] = (int32_t)(numbers ? own : row);
    }
    return a;
}

static void pools(struct device *d, const struct mat *m)
{
    d->pool(d, m[0], m[1], m[2], m[3], m[4], m[5]);
}

static void compression(void **state)
{
    (void)state;
    need_device(cuda);
    for (uint64_t wide = 1; wide <= 2; wide++)
        for (uint64_t ratio = 4; ratio <= 32; ratio += 28) {
            uint64_t c = wide * 72;
            struct array m[] = {result(bf16(blocks_of(ratio), 72, 0, 1), ROUNDINGS),
                                f32(TOKENS, c, 1, 2),
                                f32(TOKENS, c, 5, 3),
                                f32(ratio, c, 1, 4),
                                block_rows(ratio, false),
                                block_rows(ratio, true)};
            COMPARE(pools, m);
        }
}

static void selects(struct device *d, const struct mat *m)
{
    const struct keys keys = {
        .compressed = m[2], .position = m[3], .block = m[4], .ratio = TOKENS / m[2].rows};
    d->select(d, m[0], m[1], &keys, m[5]);
}

/* Scores are small whole numbers, so every step is exact, and many are equal. */
static void selection(void **state)
{
    (void)state;
    need_device(cuda);
    for (uint64_t n = 1; n <= blocks_of(4); n += n < 8 ? 1 : 13) {
        struct array m[] = {result(i32(TOKENS, n, 1, 1), 0),
                            whole(TOKENS, 3 * 64, 1, 2),
                            whole(blocks_of(4), 64, 1, 3),
                            positions(),
                            first_blocks(4),
                            whole(TOKENS, 3, 1, 4)};
        COMPARE(selects, m);
    }
}

static uint64_t ratio_of(struct mat compressed)
{
    return compressed.rows ? TOKENS / compressed.rows : 0;
}

static void attends(struct device *d, const struct mat *m)
{
    const struct keys keys = {.window = m[2],
                              .compressed = m[3],
                              .position = m[4],
                              .block = m[5],
                              .selected = m[6],
                              .sliding = 50,
                              .ratio = ratio_of(m[3])};
    d->attend(d, m[0], m[1], &keys, m[7], 0.1F, &(struct attended){m[8], m[9]});
}

/* Some of the blocks that a token sees, some of them none. */
static struct array some_blocks(uint64_t n, uint64_t ratio)
{
    struct array a = i32(TOKENS, n, 1, 1);
    for (int32_t i = 0; i < TOKENS; i++) {
        int32_t position = i < FIRST ? i : i - FIRST, blocks = (position + 1) / (int32_t)ratio;
        for (int32_t j = 0; j < (int32_t)n; j++)
            ((int32_t *)a.data)[i * (int32_t)n + j] = j < blocks && j % 5 != 3 ? j : -1;
    }
    return a;
}

/* Keys of a kind: without blocks, with all of them, with selected ones. With queries of 0 all keys
 * count the same, and sums are exact. */
static void attend_to(int kind, uint64_t heads, uint64_t width, bool exact, bool rotates)
{
    uint64_t ratio = kind == 1 ? 16 : 4, blocks = kind ? blocks_of(ratio) : 0;
    struct array m[] = {result(bf16(TOKENS, heads * width, 0, 1), exact ? 0 : 1e-5),
                        bf16(TOKENS, heads * width, exact ? 0 : 2, 2),
                        exact ? whole(TOKENS, width, 8, 3) : bf16(TOKENS, width, 2, 3),
                        exact ? whole(blocks, width, 8, 4) : bf16(blocks, width, 2, 4),
                        positions(),
                        first_blocks(ratio),
                        kind == 2 ? some_blocks(30, ratio) : i32(TOKENS, 0, 1, 1),
                        f32(1, heads, exact ? 0 : 2, 5),
                        f32(rotates ? TOKENS : 0, 16, 1, 6),
                        result(nothing_seen(1), exact ? 0 : 1e-4)};
    COMPARE(attends, m);
}

/* Heads of every width, and as many as do not fill what is done at a time. */
static void attention(void **state)
{
    (void)state;
    need_device(cuda);
    for (uint64_t width = 64; width <= 512; width *= 2)
        for (uint64_t heads = 4; heads <= 68; heads += 64)
            for (int kind = 0; kind < 3; kind++) {
                attend_to(kind, heads, width, false, kind != 2);
                attend_to(kind, heads, width, true, kind != 1);
            }
}

/* ---- files ---- */

/* A file of noise under a name made of `path`, open with O_DIRECT. Skips where that cannot be. */
static int noise_file(char *path, uint8_t *bytes, size_t size)
{
    uint32_t seed = 5;
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)next(&seed);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, size), size);
    assert_int_equal(fsync(fd), 0);
    assert_int_equal(close(fd), 0);
    fd = open(path, O_RDONLY | O_DIRECT);
    if (fd < 0) {
        assert_int_equal(unlink(path), 0);
        print_message("no O_DIRECT for %s\n", path);
        skip();
    }
    return fd;
}

/* Read from all kinds of places to all kinds of places, more often than there are pieces; and not
 * beyond the end. */
static void read_noise(struct device *d, void *file, const uint8_t *bytes, size_t size)
{
    static const uint64_t offsets[] = {0, 1, 4095, 4096, 5000, DEVICE_PIECE - 3, DEVICE_PIECE};
    static const size_t sizes[] = {1, 100, 4096, 12345, DEVICE_PIECE - 1, DEVICE_PIECE};
    enum { BEHIND = 77 };
    uint8_t *got = xalloc(DEVICE_PIECE + BEHIND, 1);
    struct mat m = d->make(d, DTYPE_U8, 1, DEVICE_PIECE + BEHIND);
    for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++)
        for (size_t j = 0; j < sizeof sizes / sizeof *sizes; j++) {
            uint64_t at = (i + j) % BEHIND;
            assert_true(d->read_file(d, m, at, sizes[j], file, offsets[i]));
            d->read(d, got, m);
            assert_memory_equal(got + at, bytes + offsets[i], sizes[j]);
        }
    assert_true(d->read_file(d, m, 0, 10, file, size - 10));
    assert_false(d->read_file(d, m, 0, 11, file, size - 10));
    d->read(d, got, m);
    assert_memory_equal(got, bytes + size - 10, 10);
    d->drop(d, m);
    free(got);
}

/* Through cuFile, with nvidia-fs or without. */
static void files(void **state)
{
    (void)state;
    need_device(cuda);
    char *library = library_path("libcufile.so.0");
    if (!library) {
        print_message("no libcufile.so.0\n");
        skip();
    }
    free(library);
    const size_t size = 2 * DEVICE_PIECE + 1234;
    uint8_t *bytes = xalloc(size, 1);
    const char *folder = getenv("TMPDIR");
    char *path = xprintf("%s/cufile-XXXXXX", folder ? folder : "/tmp");
    int fd = noise_file(path, bytes, size);
    const char *why;
    assert_int_equal(setenv("CUFILE_LOGFILE_PATH", "/tmp/cufile.log", 0), 0);
    assert_int_equal(setenv("SEEKPIPE_CUFILE", "compat", 1), 0);
    struct device *d = device_cuda(0, &why);
    assert_int_equal(unsetenv("SEEKPIPE_CUFILE"), 0);
    assert_non_null(d->read_file);
    void *file = d->open_file(d, fd); /* which wants its name */
    assert_int_equal(unlink(path), 0);
    if (!file) {
        print_message("cuFile takes no file beside %s; its log says why\n", path);
        skip();
    }
    read_noise(d, file, bytes, size);
    d->close_file(d, file);
    d->close(d);
    assert_int_equal(close(fd), 0);
    free(bytes);
    free(path);
}

static int open_devices(void **state)
{
    const char *why;
    (void)state;
    cpu = device_cpu(0);
    cuda = device_cuda(0, &why);
    return 0;
}

static int close_devices(void **state)
{
    (void)state;
    cpu->close(cpu);
    if (cuda)
        cuda->close(cuda);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fp8_weights),     cmocka_unit_test(fp8_blocks),
        cmocka_unit_test(fp4_weights),     cmocka_unit_test(plain_weights),
        cmocka_unit_test(activations),     cmocka_unit_test(rounding),
        cmocka_unit_test(moving),          cmocka_unit_test(lanes),
        cmocka_unit_test(norms_and_turns), cmocka_unit_test(hyper_connections),
        cmocka_unit_test(experts),         cmocka_unit_test(tokens_by_expert),
        cmocka_unit_test(losses),          cmocka_unit_test(products),
        cmocka_unit_test(compression),     cmocka_unit_test(selection),
        cmocka_unit_test(attention),       cmocka_unit_test(files),
    };
    return cmocka_run_group_tests(tests, open_devices, close_devices);
}
