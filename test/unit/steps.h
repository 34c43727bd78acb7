/* steps.h: the steps of a layer of the DeepSeek-V4 architecture against golden ones: with what the
 * official model has before a step, ours gives what it has after it. The including file defines
 * STEPS, the goldens' .safetensors file, and CHECKPOINT, the folder. */
#ifndef STEPS_H
#define STEPS_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/die.h"
#include "forward/deepseek_v4/deepseek_v4.h"
#include "forward/experts.h"
#include "on_device.h"
#include "tensor/bf16.h"

/* ---- the golden steps ---- */

struct golden {
    struct toc *toc; /* of `in`, which stays open */
    struct ts_in *in;
    void **data; /* by line */
};

static struct golden golden;
static struct device *device;

static inline int open_all(void **state)
{
    (void)state;
    golden.in = ts_open(STEPS, NULL);
    golden.toc = ts_toc(golden.in);
    golden.data = xalloc(golden.toc->count, sizeof *golden.data);
    for (const struct tensor *tensor; (tensor = ts_next(golden.in));)
        golden.data[tensor - golden.toc->tensor] = ts_read_all(golden.in);
    return 0;
}

static inline int close_all(void **state)
{
    (void)state;
    for (size_t i = 0; golden.in && i < golden.toc->count; i++)
        free(golden.data[i]);
    free(golden.data);
    if (golden.in)
        ts_close(golden.in);
    return 0;
}

/* A golden tensor "PREFIX" "NAME". */
static inline const struct tensor *find(const char *prefix, const char *name, const void **data)
{
    char *full = xprintf("%s%s", prefix, name);
    int64_t line = toc_find(golden.toc, full);
    if (line < 0)
        fail_msg("there is no golden %s", full);
    free(full);
    *data = golden.data[line];
    return &golden.toc->tensor[line];
}

/* The same on the device: its first dimension's rows. */
static inline struct mat golden_mat(const char *prefix, const char *name)
{
    const void *data;
    const struct tensor *tensor = find(prefix, name, &data);
    uint64_t rows = tensor->dim[0], count = tensor->size / dtype_size(tensor->dtype);
    struct mat m = device->make(device, tensor->dtype, rows, count / rows);
    device->write(device, m, data);
    return m;
}

/* ---- comparing ---- */

/* BF16 codes in the order of their values. */
static inline int32_t ordered(uint16_t code)
{
    return code & 0x8000 ? -(code & 0x7fff) : code;
}

static inline uint16_t *read_bf16(struct mat m)
{
    uint16_t *value = xalloc((size_t)(m.rows * m.cols), sizeof *value);
    device->read(device, value, m);
    return value;
}

static inline void expect_bf16(struct mat got, const uint16_t *want, const char *name)
{
    size_t count = (size_t)(got.rows * got.cols), offloaded = 0;
    uint16_t *value = read_bf16(got);
    for (size_t i = 0; i < count; i++)
        offloaded += abs(ordered(value[i]) - ordered(want[i])) > 1;
    free(value);
    if (offloaded * 100 > count)
        fail_msg("%s: %zu of %zu elements are more than one unit off", name, offloaded, count);
    print_message("%s: %zu of %zu off by more than a unit\n", name, offloaded, count);
}

/* How far F32 results may be off that come of golden inputs; and on a GPU, of BF16 ones that were
 * computed there, some of which may be a unit off (only MTP's block has no golden input). */
static const float EXACT = 1e-5F, ROUNDED = 0x1p-9F;

static inline void expect_f32(struct mat got, const float *want, const char *name, float bound)
{
    size_t count = (size_t)(got.rows * got.cols);
    float *value = xalloc(count, sizeof *value), worst = 0;
    device->read(device, value, got);
    for (size_t i = 0; i < count; i++)
        worst = fmaxf(worst, fabsf(value[i] - want[i]) / fmaxf(fabsf(want[i]), 1e-30f));
    free(value);
    if (!(worst <= bound))
        fail_msg("%s: relative error %g", name, (double)worst);
    print_message("%s: relative error %g\n", name, (double)worst);
}

static inline void expect_within(struct mat got, const char *prefix, const char *name, float bound)
{
    const void *want;
    const struct tensor *tensor = find(prefix, name, &want);
    assert_int_equal(tensor->size, got.rows * got.cols * dtype_size(got.dtype));
    char *full = xprintf("%s%s", prefix, name);
    if (got.dtype == DTYPE_BF16)
        expect_bf16(got, want, full);
    else
        expect_f32(got, want, full, bound);
    free(full);
}

static inline void expect(struct mat got, const char *prefix, const char *name)
{
    expect_within(got, prefix, name, EXACT);
}

/* ---- a layer of the checkpoint ---- */

struct loaded {
    struct ts_in *in;
    struct network *network;
    struct forward run;
    const struct v4 *v4;
    struct weights weights;
    bool *wanted, *by_rows;
    struct feed feed;
    struct layer layer;
    struct linear (*expert)[EXPERT_MATRICES];
    struct mat seen;
};

static inline void load(struct loaded *l, uint64_t number, const char *prefix)
{
    *l = (struct loaded){.in = ts_open(CHECKPOINT, NULL)};
    struct toc *toc = ts_toc(l->in);
    weights_find(&l->weights, ts_model(l->in), toc, CHECKPOINT);
    l->wanted = xalloc(toc->count, sizeof *l->wanted);
    l->by_rows = xalloc(toc->count, sizeof *l->by_rows);
    l->network = network_open(l->in);
    const char *rows = l->network->rows;
    for (size_t i = 0; i < toc->count; i++) {
        l->wanted[i] = !strncmp(toc->tensor[i].name, prefix, strlen(prefix));
        l->by_rows[i] = rows && strstr(toc->tensor[i].name, rows);
    }
    const struct prefetch_plan plan = {
        .wanted = l->wanted, .by_rows = l->by_rows, .device = device, .budget = 1 << 20};
    l->network->begin(l->network, device, 256);
    l->v4 = v4_of(l->network);
    l->run = (struct forward){.network = l->network, .arithmetic = ARITHMETIC_SERVED};
    l->feed = (struct feed){.in = l->in,
                            .network = l->network,
                            .weights = &l->weights,
                            .run = &l->run,
                            .prefetch = prefetch_begin(l->in, &plan)};
    layer_begin(l->network, &l->layer, number);
    layer_check(&l->layer, l->in, &l->weights);
    feed_layer(&l->feed, &l->layer, 0, V4_LATE);
    size_t experts = (size_t)l->layer.experts.count;
    l->expert = xalloc(experts, sizeof *l->expert);
    l->seen = device->make(device, DTYPE_F32, 1, SEEN);
    for (size_t e = 0; e < experts; e++) {
        struct held held[EXPERT_MATRICES];
        feed_expert(&l->feed, &l->layer, e, held);
        for (unsigned i = 0; i < EXPERT_MATRICES; i++) {
            linear_load(device, &l->expert[e][i], &held[i].from,
                        linear_activation(&l->run, held[i].from.weight, true),
                        (struct cut){.groups = 1}, l->seen);
            held_free(&l->feed, &held[i]);
        }
    }
}

static inline void unload(struct loaded *l)
{
    for (size_t e = 0; e < l->layer.experts.count; e++)
        for (unsigned i = 0; i < EXPERT_MATRICES; i++)
            linear_drop(device, &l->expert[e][i]);
    free(l->expert);
    device->drop(device, l->seen);
    layer_end(&l->layer);
    prefetch_end(l->feed.prefetch);
    l->network->end(l->network);
    network_close(l->network);
    free(l->wanted);
    free(l->by_rows);
    weights_free(&l->weights);
    ts_close(l->in);
}

/* ---- comparing steps ---- */

static inline struct mat like(struct mat m, uint64_t cols)
{
    return device->make(device, DTYPE_BF16, m.rows, cols);
}

static inline void test_norm(struct loaded *l, enum v4_piece norm, const char *prefix,
                             const char *from, const char *to)
{
    struct mat x = golden_mat(prefix, from), y = like(x, x.cols);
    layer_norm(&l->layer, norm, y, x);
    expect(y, prefix, to);
    device->drop(device, x);
    device->drop(device, y);
}

/* Attention's golden output, which is from before it is rotated back, rotated back. */
static inline struct mat golden_o_rotated(const struct v4 *v4, const struct layer *layer,
                                          const struct v4_batch *batch, const char *prefix)
{
    struct mat o = golden_mat(prefix, "attn.o");
    device->rotate(device, o, v4->config.head_dim, v4_angles(v4, layer), batch->position, true);
    return o;
}

/* That o is a golden matrix. */
static inline void expect_mat(struct mat o, struct mat golden, const char *name)
{
    uint16_t *want = read_bf16(golden);
    expect_bf16(o, want, name);
    free(want);
}

static inline int by_number(const void *left, const void *right)
{
    int32_t a = *(const int32_t *)left, b = *(const int32_t *)right;
    return (a > b) - (a < b);
}

/* Rows of numbers, each sorted. */
static inline int32_t *sorted(const int32_t *from, uint64_t rows, uint64_t cols)
{
    int32_t *to = xalloc((size_t)(rows * cols), sizeof *to);
    memcpy(to, from, (size_t)(rows * cols) * sizeof *to);
    for (uint64_t i = 0; i < rows; i++)
        qsort(to + i * cols, (size_t)cols, sizeof *to, by_number);
    return to;
}

/* Rows of numbers as sets, got and golden, sorted; how many rows differ. `offset` is what the
 * golden ones are larger by. */
struct sets {
    int32_t *got, *want;
    uint64_t rows, cols, differing;
};

static inline struct sets compare_sets(struct mat got, const char *prefix, const char *name,
                                       int32_t offset)
{
    const void *data;
    const struct tensor *tensor = find(prefix, name, &data);
    size_t count = (size_t)(got.rows * got.cols);
    assert_int_equal(tensor->size, count * sizeof(int32_t));
    int32_t *value = xalloc(count, sizeof *value), *want = xalloc(count, sizeof *want);
    device->read(device, value, got);
    for (size_t i = 0; i < count; i++) {
        int32_t number = ((const int32_t *)data)[i];
        want[i] = number < 0 ? number : number - offset;
    }
    struct sets sets = {sorted(value, got.rows, got.cols), sorted(want, got.rows, got.cols),
                        got.rows, got.cols, 0};
    for (uint64_t i = 0; i < got.rows; i++)
        sets.differing += memcmp(sets.got + i * got.cols, sets.want + i * got.cols,
                                 (size_t)got.cols * sizeof *value) != 0;
    free(value);
    free(want);
    return sets;
}

static inline void free_sets(struct sets *sets)
{
    free(sets->got);
    free(sets->want);
}

#endif
