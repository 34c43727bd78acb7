/* The CPU as a device: memory and products. An operation is complete when its function returns. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/vectors.h"
#include "cpu/cpu.h"
#include "cpu/plain.h"
#include "tensor/split.h"

/* ---- memory ---- */

static struct mat make(struct device *d, enum dtype dtype, uint64_t rows, uint64_t cols)
{
    uint64_t count;
    if (!mul_fits(rows, cols, &count))
        die("out of memory");
    void *at = blocks_take(cpu_of(d)->blocks, count, dtype_size(dtype));
    return (struct mat){at, rows, cols, cols, dtype};
}

static void drop(struct device *d, struct mat m)
{
    blocks_give(cpu_of(d)->blocks, m.at);
}

static void write_mat(struct device *d, struct mat m, const void *data)
{
    (void)d;
    memcpy(m.at, data, mat_bytes(m));
}

static void read_mat(struct device *d, void *data, struct mat m)
{
    (void)d;
    memcpy(data, m.at, mat_bytes(m));
}

/* Nothing is offloaded: a matrix is always in memory. */
static struct offloaded make_offloaded(struct device *d, enum dtype dtype, uint64_t rows,
                                       uint64_t cols, uint64_t besides)
{
    (void)besides;
    return (struct offloaded){make(d, dtype, rows, cols), false};
}

static void drop_offloaded(struct device *d, struct offloaded offloaded)
{
    drop(d, offloaded.all);
}

static struct mat fetch(struct device *d, struct offloaded offloaded, uint64_t first, uint64_t rows)
{
    (void)d;
    return mat_rows(offloaded.all, first, rows);
}

static void fetch_ahead(struct device *d, struct offloaded offloaded, uint64_t first, uint64_t rows)
{
    (void)d;
    (void)mat_rows(offloaded.all, first, rows); /* checks that they are there */
}

static void store(struct device *d, struct offloaded offloaded, uint64_t first, struct mat rows)
{
    (void)d;
    (void)offloaded;
    (void)first;
    (void)rows;
}

/* Operations are complete when they return, so streams have nothing to order. */
static void stream(struct device *d, unsigned number)
{
    (void)d;
    (void)number;
}

/* The staging memory is the matrix itself. */
static void *acquire_staging(struct device *d, struct mat m, uint64_t at, size_t size, size_t phase)
{
    (void)d;
    (void)size;
    (void)phase;
    return (char *)m.at + at;
}

static void submit_staging(struct device *d, struct mat m, uint64_t at, size_t size, void *staging)
{
    (void)d;
    (void)m;
    (void)at;
    (void)size;
    (void)staging;
}

static void spent(struct device *d, double *upload, double *wait)
{
    (void)d;
    *upload = *wait = 0;
}

static double multiplied(struct device *d)
{
    return gemms_seconds(cpu_of(d)->gemms) / cpu_of(d)->thread_count;
}

/* ---- operands ---- */

/* A weight is packed in tiles of result columns: a tile stays in the cache while all rows of
 * activations are multiplied, and threads take different tiles. F32 weights, which are few and
 * small, are not packed, for more exact sums. */
enum { TILE = 256 };

struct operand {
    uint64_t rows, cols; /* of the weight */
    struct mat plain;    /* F32, as plain_product()'s; or else: */
    uint64_t tiles;
    const struct gemm *full, *last; /* the products of a full and of the last tile */
    void **tile;
};

static const struct gemm *tile_gemm(const struct operand *w, uint64_t tile)
{
    return tile + 1 == w->tiles ? w->last : w->full;
}

static uint64_t tile_rows(const struct operand *w, uint64_t tile)
{
    return tile + 1 == w->tiles ? w->rows - tile * TILE : TILE;
}

void cpu_fill(enum gemm_type type, void *to, uint64_t at, const uint16_t *from, uint64_t count)
{
    if (type == GEMM_BF16)
        memcpy((uint16_t *)to + at, from, (size_t)count * sizeof *from);
    else
        for (uint64_t i = 0; i < count; i++)
            ((float *)to)[at + i] = bf16_to_f32(from[i]);
}

/* The largest magnitude as bits: NaN is above infinity, infinity above all numbers. */
VECTORS(uint32_t, magnitude_bf16, (const uint16_t *x, uint64_t count), (x, count))
{
    int16_t most = 0; /* signed ones are compared faster */
    for (uint64_t i = 0; i < count; i++) {
        int16_t bits = (int16_t)(x[i] & 0x7fff);
        most = (int16_t)(bits > most ? bits : most);
    }
    return (uint32_t)most << 16;
}

VECTORS(uint32_t, magnitude_f32, (const float *x, uint64_t count), (x, count))
{
    uint32_t most = 0;
    for (uint64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits &= 0x7fffffff;
        most = bits > most ? bits : most;
    }
    return most;
}

static uint32_t largest(const uint32_t *magnitude, uint64_t count)
{
    uint32_t most = 0;
    for (uint64_t i = 0; i < count; i++)
        most = magnitude[i] > most ? magnitude[i] : most;
    return most;
}

/* The source of a tile. */
struct origin {
    const struct weight *weight;
    const struct tensor *tensor;
    const struct scales *scales;
    const char *raw;
    struct operand_part part;
};

/* Dequantize rows of the matrix. */
static void dequantize(const struct origin *from, uint64_t row, uint64_t rows, uint16_t *to)
{
    const char *raw = from->raw + row * weight_row_bytes(from->weight, from->tensor);
    weight_rows(from->weight, from->tensor, from->scales, row, rows, raw, to);
}

/* The same, split. */
static void dequantize_split(const struct origin *from, uint64_t row, uint64_t rows, uint16_t *to)
{
    uint64_t bytes = weight_row_bytes(from->weight, from->tensor);
    for (uint64_t i = row; i < row + rows; i++, to += SPLIT * from->weight->cols)
        weight_split_row(from->weight, from->tensor, from->scales, i, from->raw + i * bytes, to);
}

/* Some of the part's columns, which are rows of its transpose. */
static void dequantize_columns(struct cpu *cpu, const struct origin *from, uint64_t first,
                               uint64_t count, uint16_t *to)
{
    uint64_t rows = from->part.rows, cols = from->weight->cols;
    uint16_t *all = blocks_take(cpu->blocks, rows * cols, sizeof *all);
    dequantize(from, from->part.first, rows, all);
    for (uint64_t i = 0; i < count; i++)
        for (uint64_t j = 0; j < rows; j++)
            to[i * rows + j] = all[j * cols + first + i];
    blocks_give(cpu->blocks, all);
}

/* Dequantize and pack one tile; returns the largest magnitude's bits. */
static uint32_t make_tile(struct cpu *cpu, const struct operand *w, uint64_t tile,
                          const struct origin *from, unsigned thread)
{
    uint64_t rows = tile_rows(w, tile), count = rows * w->cols;
    const struct gemm *gemm = tile_gemm(w, tile);
    w->tile[tile] = blocks_take(cpu->blocks, gemm_packed_size(gemm), 1);
    uint16_t *rows_bf16 = blocks_take(cpu->blocks, count, sizeof *rows_bf16);
    if (from->part.transposed)
        dequantize_columns(cpu, from, tile * TILE, rows, rows_bf16);
    else if (from->part.split)
        dequantize_split(from, from->part.first + tile * TILE, rows, rows_bf16);
    else
        dequantize(from, from->part.first + tile * TILE, rows, rows_bf16);
    uint32_t most = magnitude_bf16(rows_bf16, count);
    void *filled = rows_bf16;
    if (cpu->type != GEMM_BF16) {
        filled = blocks_take(cpu->blocks, count, sizeof(float));
        cpu_fill(cpu->type, filled, 0, rows_bf16, count);
        blocks_give(cpu->blocks, rows_bf16);
    }
    gemm_pack(gemm, thread, filled, w->tile[tile]);
    blocks_give(cpu->blocks, filled);
    return most;
}

/* The tiles of an operand to make. */
struct making {
    struct cpu *cpu;
    const struct operand *w;
    const struct origin *from;
    uint32_t *most; /* by tile */
};

static void make_tiles(void *context, unsigned thread, uint64_t first, uint64_t last)
{
    const struct making *m = context;
    for (uint64_t tile = first; tile < last; tile++)
        m->most[tile] = make_tile(m->cpu, m->w, tile, m->from, thread);
}

/* An F32 matrix's part; returns the largest magnitude's bits. */
static uint32_t copy_plain(struct operand *w, const float *raw, struct operand_part part)
{
    const float *from = raw + part.first * (part.transposed ? w->rows : w->cols);
    w->plain = plain_new(w->rows, w->cols);
    for (uint64_t i = 0; i < w->rows && part.transposed; i++)
        for (uint64_t j = 0; j < w->cols; j++)
            f32_row(w->plain, i)[j] = from[j * w->rows + i];
    for (uint64_t i = 0; i < w->rows && !part.transposed; i++)
        memcpy(f32_row(w->plain, i), from + i * w->cols, (size_t)w->cols * sizeof *from);
    return magnitude_f32(from, w->rows * w->cols);
}

static uint64_t operand_cols(const struct weight *weight, struct operand_part part)
{
    return part.transposed ? part.rows : part.split ? SPLIT * weight->cols : weight->cols;
}

static struct operand *operand(struct device *d, const struct weight *weight,
                               const struct tensor *tensor, const struct scales *scales,
                               struct mat scale, struct mat raw, struct operand_part part,
                               struct mat amax)
{
    struct cpu *cpu = cpu_of(d);
    struct operand *w = xalloc(1, sizeof *w);
    uint64_t rows = part.transposed ? weight->cols : part.rows;
    *w = (struct operand){.rows = rows, .cols = operand_cols(weight, part)};
    if (tensor->dtype == DTYPE_F32) {
        uint32_t most = copy_plain(w, raw.at, part);
        memcpy(amax.at, &most, sizeof most);
        return w;
    }
    w->tiles = (rows + TILE - 1) / TILE;
    w->tile = xalloc((size_t)w->tiles, sizeof *w->tile);
    if (w->tiles > 1)
        w->full = gemm_get(cpu->gemms, cpu->type, GEMM_PACKED, GEMM_ROWS, TILE, w->cols);
    w->last = gemm_get(cpu->gemms, cpu->type, GEMM_PACKED, GEMM_ROWS, tile_rows(w, w->tiles - 1),
                       w->cols);
    struct scales all = *scales;
    all.raw = scale.at;
    struct origin from = {weight, tensor, &all, raw.at, part};
    struct making making = {cpu, w, &from, xalloc((size_t)w->tiles, sizeof(uint32_t))};
    parallel_for(cpu->threads, w->tiles, cpu_grain(w->cols * TILE), make_tiles, &making);
    uint32_t most = largest(making.most, w->tiles);
    free(making.most);
    memcpy(amax.at, &most, sizeof most);
    return w;
}

static void drop_operand(struct device *d, struct operand *w)
{
    if (!w)
        return;
    for (uint64_t i = 0; i < w->tiles; i++)
        blocks_give(cpu_of(d)->blocks, w->tile[i]);
    free(w->tile);
    free(w->plain.at);
    free(w);
}

/* ---- products ---- */

VECTORS(void, put,
        (struct mat y, uint64_t row, uint64_t col, const float *c, uint64_t rows, uint64_t cols),
        (y, row, col, c, rows, cols))
{
    for (uint64_t i = 0; i < rows; i++, c += cols) {
        if (y.dtype == DTYPE_F32)
            memcpy(f32_row(y, row + i) + col, c, (size_t)cols * sizeof *c);
        else
            for (uint64_t j = 0; j < cols; j++)
                bf16_row(y, row + i)[col + j] = bf16_from_f32(c[j]);
    }
}

/* y = x · wᵀ in pieces: a tile of w and a block of GEMM_ROWS rows of x each. */
struct packed {
    struct cpu *cpu;
    struct mat y, x;
    const struct operand *w;
    uint64_t blocks;
    uint64_t in_place; /* blocks that are multiplied where they are in x, and then, in the type of
                        * products and padded with zeros, from here: */
    char *rest;
};

static size_t packed_element(const struct packed *p)
{
    return p->cpu->type == GEMM_BF16 ? sizeof(uint16_t) : sizeof(float);
}

static void fill_rest(void *context, unsigned thread, uint64_t first, uint64_t last)
{
    const struct packed *p = context;
    (void)thread;
    for (uint64_t i = first; i < last; i++)
        cpu_fill(p->cpu->type, p->rest, i * p->x.cols, bf16_row(p->x, p->in_place * GEMM_ROWS + i),
                 p->x.cols);
}

static const void *packed_rows(const struct packed *p, uint64_t block)
{
    if (block < p->in_place)
        return bf16_row(p->x, block * GEMM_ROWS);
    return p->rest + (block - p->in_place) * GEMM_ROWS * p->x.cols * packed_element(p);
}

static void run_tiles(void *context, unsigned thread, uint64_t first, uint64_t last)
{
    const struct packed *p = context;
    float *c = blocks_take(p->cpu->blocks, (size_t)GEMM_ROWS * TILE, sizeof *c);
    for (uint64_t i = first; i < last; i++) {
        uint64_t tile = i / p->blocks, block = i % p->blocks;
        uint64_t row = block * GEMM_ROWS, rows = p->x.rows - row;
        gemm_run(tile_gemm(p->w, tile), thread, packed_rows(p, block), p->w->tile[tile], c);
        put(p->y, row, tile * TILE, c, at_most(rows, GEMM_ROWS), tile_rows(p->w, tile));
    }
    blocks_give(p->cpu->blocks, c);
}

static void packed_product(struct cpu *cpu, struct mat y, struct mat x, const struct operand *w)
{
    struct packed p = {cpu, y, x, w, (x.rows + GEMM_ROWS - 1) / GEMM_ROWS, 0, NULL};
    if (cpu->type == GEMM_BF16 && x.stride == x.cols)
        p.in_place = x.rows / GEMM_ROWS;
    uint64_t rows = x.rows - p.in_place * GEMM_ROWS;
    uint64_t padded = (p.blocks - p.in_place) * GEMM_ROWS;
    size_t element = packed_element(&p);
    p.rest = blocks_take(cpu->blocks, padded * x.cols, element);
    memset(p.rest + rows * x.cols * element, 0, (size_t)((padded - rows) * x.cols) * element);
    parallel_for(cpu->threads, rows, cpu_grain(x.cols), fill_rest, &p);
    parallel_for(cpu->threads, w->tiles * p.blocks, 1, run_tiles, &p);
    blocks_give(cpu->blocks, p.rest);
}

static void product(struct device *d, struct mat y, struct mat x, const struct operand *w)
{
    if (x.cols != w->cols || y.cols != w->rows || y.rows != x.rows)
        die("internal: a product of wrong shapes");
    if (w->plain.at)
        plain_product(cpu_of(d)->threads, y, x, w->plain);
    else
        packed_product(cpu_of(d), y, x, w);
}

struct magnitudes {
    struct mat x;
    uint32_t *most; /* by thread */
};

static void max_rows(void *context, unsigned thread, uint64_t first, uint64_t last)
{
    const struct magnitudes *m = context;
    struct mat x = m->x;
    for (uint64_t i = first; i < last; i++) {
        uint32_t magnitude = x.dtype == DTYPE_F32 ? magnitude_f32(f32_row(x, i), x.cols)
                                                  : magnitude_bf16(bf16_row(x, i), x.cols);
        m->most[thread] = magnitude > m->most[thread] ? magnitude : m->most[thread];
    }
}

static void max_abs(struct device *d, struct mat amax, struct mat x)
{
    struct cpu *cpu = cpu_of(d);
    struct magnitudes m = {x, xalloc(cpu->thread_count, sizeof(uint32_t))};
    memcpy(&m.most[0], amax.at, sizeof m.most[0]);
    parallel_for(cpu->threads, x.rows, cpu_grain(x.cols), max_rows, &m);
    uint32_t most = largest(m.most, cpu->thread_count);
    memcpy(amax.at, &most, sizeof most);
    free(m.most);
}

/* ---- the device ---- */

static void close_cpu(struct device *d)
{
    gemms_free(cpu_of(d)->gemms);
    blocks_free(cpu_of(d)->blocks);
    parallel_free(cpu_of(d)->threads);
    free(cpu_of(d));
}

struct device *device_cpu(unsigned threads)
{
    struct cpu *cpu = xalloc(1, sizeof *cpu);
    cpu->thread_count = threads ? threads : parallel_processors();
    cpu->threads = parallel_new(cpu->thread_count);
    cpu->blocks = blocks_new();
    cpu->gemms = gemms_new(cpu->thread_count);
    cpu->type = gemm_bf16() ? GEMM_BF16 : GEMM_F32_BLOCKS;
    struct device *d = &cpu->device;
    d->name = "cpu";
    d->threads = cpu->thread_count;
    d->memory = (uint64_t)4 << 30;
    d->room = UINT64_MAX;
    d->rows = 2048;
    d->close = close_cpu;
    d->make = make;
    d->drop = drop;
    d->write = write_mat;
    d->read = read_mat;
    d->make_offloaded = make_offloaded;
    d->drop_offloaded = drop_offloaded;
    d->fetch = fetch;
    d->fetch_ahead = fetch_ahead;
    d->store = store;
    d->stream = stream;
    d->acquire_staging = acquire_staging;
    d->submit_staging = submit_staging;
    d->spent = spent;
    d->multiplied = multiplied;
    d->operand = operand;
    d->drop_operand = drop_operand;
    d->product = product;
    d->max_abs = max_abs;
    cpu_rows(d);
    cpu_norms(d);
    cpu_rotations(d);
    cpu_swiglu(d);
    cpu_hyper_connections(d);
    cpu_routing(d);
    cpu_losses(d);
    cpu_attention(d);
    cpu_causal(d);
    cpu_inputs(d);
    return d;
}
