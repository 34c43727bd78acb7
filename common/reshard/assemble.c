#include "reshard/assemble.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/ordered_pool.h"
#include "stream/band_pipeline.h"
#include "stream/scales.h"
#include "tensor/fp4_to_fp8.h"
#include "tensor/mxfp4.h"

enum { BAND_BYTES = 1 << 20 };

struct work {
    const struct assembly *a;
    struct band_pipeline *bands;
    struct ts_held **held; /* by line of the input; NULL before it came and when it is used up */
    uint32_t *uses;        /* by line of the input: lines of the plan still to be made of it */
    struct fp4_to_fp8 tables;
    struct assembled done;
};

static struct ts_held *source(const struct work *work, const struct made *made, uint32_t i)
{
    return work->held[work->a->plan->from[made->first + i]];
}

/* The number of rows of `bytes` each in a band: at least one. */
static uint64_t band_rows(uint64_t bytes)
{
    return bytes && bytes < BAND_BYTES ? BAND_BYTES / bytes : 1;
}

/* The rows of a line that hold bytes: of an empty one none, whatever its shape claims. */
static uint64_t filled_rows(const struct tensor *line)
{
    return line->size ? line->dim[0] : 0;
}

/* ---- bytes ---- */

/* The bytes of all sources in sequence. */
static void make_stack(struct work *work, const struct tensor *line, const struct made *made)
{
    bool begun = false;
    for (uint32_t i = 0; i < made->count; i++) {
        struct ts_held *held = source(work, made, i);
        uint64_t size = ts_held_tensor(held)->size;
        for (uint64_t at = 0; at < size || !begun; at += BAND_BYTES) {
            size_t bytes = (size_t)at_most(size - at, BAND_BYTES);
            struct band *band = bands_next(work->bands, begun ? NULL : line->name, bytes, 0);
            ts_held_read(held, at, band->raw, bytes);
            bands_submit(work->bands);
            begun = true;
        }
    }
}

/* Rows of all sources side by side. */
static void make_side(struct work *work, const struct tensor *line, const struct made *made)
{
    uint64_t all = filled_rows(line), row_bytes = all ? line->size / all : 0;
    size_t part = (size_t)(row_bytes / made->count);
    uint64_t most = band_rows(row_bytes), first = 0;
    char *rows = xgrow(NULL, (size_t)most, part);
    do { /* at least one band: a tensor may be empty */
        uint64_t count = at_most(all - first, most);
        struct band *band =
            bands_next(work->bands, first ? NULL : line->name, (size_t)(count * row_bytes), 0);
        for (uint32_t i = 0; i < made->count && part; i++) {
            ts_held_read(source(work, made, i), first * part, rows, (size_t)count * part);
            for (uint64_t row = 0; row < count; row++)
                memcpy((char *)band->raw + row * row_bytes + i * part, rows + row * part, part);
        }
        bands_submit(work->bands);
        first += count;
    } while (first < all);
    free(rows);
}

/* Columns of a tensor being cut out. */
struct columns {
    uint64_t row_bytes, offset, bytes; /* of its rows, of the columns in them */
};

static void cut_columns(struct band *band)
{
    const struct columns *columns = band->of;
    for (uint64_t row = 0; row < band->rows; row++)
        memcpy((char *)band->out + row * columns->bytes,
               (char *)band->raw + row * columns->row_bytes + columns->offset,
               (size_t)columns->bytes);
}

static void make_cols(struct work *work, const struct tensor *line, const struct made *made)
{
    struct ts_held *held = source(work, made, 0);
    uint64_t all = filled_rows(line), first = 0;
    struct columns *columns = xalloc(1, sizeof *columns);
    if (all)
        *columns = (struct columns){.row_bytes = ts_held_tensor(held)->size / all,
                                    .offset = made->offset,
                                    .bytes = line->size / all};
    uint64_t most = band_rows(columns->row_bytes);
    do {
        uint64_t count = at_most(all - first, most);
        struct band *band =
            bands_next(work->bands, first ? NULL : line->name, (size_t)(count * columns->row_bytes),
                       (size_t)(count * columns->bytes));
        band->convert = cut_columns;
        band->of = columns;
        band->rows = count;
        bands_read_held(work->bands, held, first * columns->row_bytes);
        bands_submit(work->bands);
        first += count;
    } while (first < all);
    bands_after(work->bands, free, columns);
}

/* The first byte of the tensor in which both differ; its size if they do not. */
static uint64_t same_bytes(struct ts_held *a, struct ts_held *b)
{
    uint64_t size = ts_held_tensor(a)->size, at = 0;
    char *x = xgrow(NULL, BAND_BYTES, 2), *y = x + BAND_BYTES;
    while (at < size) {
        size_t bytes = (size_t)at_most(size - at, BAND_BYTES), same = 0;
        ts_held_read(a, at, x, bytes);
        ts_held_read(b, at, y, bytes);
        if (memcmp(x, y, bytes) != 0)
            while (x[same] == y[same])
                same++;
        else
            same = bytes;
        at += same;
        if (same < bytes)
            break;
    }
    free(x);
    return at;
}

static void make_copy(struct work *work, const struct tensor *line, const struct made *made)
{
    const struct toc *toc = ts_toc(work->a->in);
    const uint32_t *from = work->a->plan->from + made->first;
    for (uint32_t i = 1; i < made->count; i++) {
        uint64_t same = same_bytes(source(work, made, 0), source(work, made, i));
        const struct tensor *first = &toc->tensor[from[0]], *other = &toc->tensor[from[i]];
        if (same < first->size)
            die("%s: %s: %s and %s differ from byte %" PRIu64
                " of the tensor on, where all ranks have the same; are the files of one run?",
                ts_name(work->a->in), first->name, toc->shard[first->shard],
                toc->shard[other->shard], same);
    }
    bands_pass_part(work->bands, line, source(work, made, 0), 0);
}

/* ---- matrices ---- */

/* A matrix being converted, and its scales. */
struct matrix {
    struct work *work;
    const struct weight *w;
    const struct tensor *tensor;
    struct scales scales;
    uint8_t *fp8_scale; /* to FP8 */
    uint64_t first;     /* row */
};

static struct matrix *matrix_of(struct work *work, const struct made *made)
{
    struct matrix *matrix = xalloc(1, sizeof *matrix);
    struct ts_held *scale = source(work, made, 0);
    size_t line = work->a->plan->from[made->first + made->count - 1];
    size_t size = (size_t)ts_held_tensor(scale)->size;
    void *raw = xgrow(NULL, size, 1);
    ts_held_read(scale, 0, raw, size);
    *matrix = (struct matrix){.work = work,
                              .w = weight_of(work->a->weights, line),
                              .tensor = &ts_toc(work->a->in)->tensor[line],
                              .first = made->offset};
    scales_keep(&matrix->scales, matrix->w, work->a->in, matrix->w->scale, raw);
    return matrix;
}

static void end_matrix(void *context)
{
    struct matrix *matrix = context;
    scales_free(&matrix->scales);
    free(matrix->fp8_scale);
    free(matrix);
}

/* Convert `rows` rows of the matrix to `out_bytes` bytes each, bands of up to `most` rows at a
 * time; then it is freed. */
static void convert_rows(struct work *work, const struct tensor *line, struct ts_held *held,
                         struct matrix *matrix, struct band like, uint64_t most, uint64_t out_bytes)
{
    uint64_t row_bytes = weight_row_bytes(matrix->w, matrix->tensor), first = 0;
    uint64_t all = filled_rows(line);
    do {
        uint64_t rows = at_most(all - first, most);
        struct band *band = bands_next(work->bands, first ? NULL : line->name,
                                       (size_t)(rows * row_bytes), (size_t)(rows * out_bytes));
        band->convert = like.convert;
        band->check = like.check;
        band->of = matrix;
        band->first = matrix->first + first;
        band->rows = rows;
        bands_read_held(work->bands, held, band->first * row_bytes);
        bands_submit(work->bands);
        first += rows;
    } while (first < all);
    bands_after(work->bands, end_matrix, matrix);
}

static void to_bf16(struct band *band)
{
    const struct matrix *m = band->of;
    band->found[0] = weight_rows_by(m->work->a->codec, m->w, m->tensor, &m->scales, band->first,
                                    band->rows, band->raw, band->out);
}

static void count_nan(struct band *band)
{
    struct matrix *m = band->of;
    m->work->done.nan += band->found[0];
}

static void make_bf16(struct work *work, const struct tensor *line, const struct made *made)
{
    struct matrix *matrix = matrix_of(work, made);
    work->done.dequantized += !made->offset;
    convert_rows(work, line, source(work, made, 1), matrix,
                 (struct band){.convert = to_bf16, .check = count_nan},
                 weight_band(matrix->w, matrix->tensor), matrix->w->cols * sizeof(uint16_t));
}

static void to_fp8(struct band *band)
{
    const struct matrix *m = band->of;
    size_t cols = (size_t)m->w->cols, blocks = cols / FP4_TO_FP8_BLOCK;
    const uint8_t *e8m0 = m->scales.raw;
    for (uint64_t i = 0; i < band->rows; i++) {
        uint64_t row = band->first + i;
        band->found[0] +=
            fp4_to_fp8_row(&m->work->tables, (uint8_t *)band->out + i * cols,
                           (uint8_t *)band->raw + i * cols / 2, e8m0 + row * (cols / MXFP4_BLOCK),
                           m->fp8_scale + row / FP4_TO_FP8_BLOCK * blocks, cols);
    }
}

static void count_lossy(struct band *band)
{
    struct matrix *m = band->of;
    m->work->done.lossy += band->found[0];
    m->work->done.blocks += band->rows * (m->w->cols / MXFP4_BLOCK);
}

/* The scales in FP8, one a block of 128 x 128; the caller frees them. */
static uint8_t *fp8_scales(const struct matrix *matrix)
{
    size_t rows = (size_t)(weight_filled_rows(matrix->w) / FP4_TO_FP8_BLOCK),
           cols = (size_t)matrix->w->cols;
    uint8_t *scale = xalloc(rows, cols / FP4_TO_FP8_BLOCK);
    for (size_t i = 0; i < rows; i++)
        fp4_to_fp8_scales(
            scale + i * (cols / FP4_TO_FP8_BLOCK),
            (uint8_t *)matrix->scales.raw + i * FP4_TO_FP8_BLOCK * (cols / MXFP4_BLOCK), cols);
    return scale;
}

static void make_fp8(struct work *work, const struct tensor *line, const struct made *made)
{
    struct matrix *matrix = matrix_of(work, made);
    matrix->fp8_scale = fp8_scales(matrix);
    convert_rows(work, line, source(work, made, 1), matrix,
                 (struct band){.convert = to_fp8, .check = count_lossy},
                 weight_band(matrix->w, matrix->tensor), matrix->w->cols);
}

static void make_fp8_scale(struct work *work, const struct tensor *line, const struct made *made)
{
    struct matrix *matrix = matrix_of(work, made);
    uint8_t *scale = fp8_scales(matrix);
    bands_put(work->bands, line->name, scale, (size_t)line->size);
    free(scale);
    end_matrix(matrix);
}

/* ---- all ---- */

static void make(struct work *work, const struct tensor *line, const struct made *made)
{
    switch (made->how) {
    case MAKE_RANGE:
        bands_pass_part(work->bands, line, source(work, made, 0), made->offset);
        break;
    case MAKE_COLS:
        make_cols(work, line, made);
        break;
    case MAKE_STACK:
        make_stack(work, line, made);
        break;
    case MAKE_SIDE:
        make_side(work, line, made);
        break;
    case MAKE_COPY:
        make_copy(work, line, made);
        break;
    case MAKE_BF16:
        make_bf16(work, line, made);
        break;
    case MAKE_FP8:
        make_fp8(work, line, made);
        break;
    case MAKE_FP8_SCALE:
        make_fp8_scale(work, line, made);
        break;
    }
}

/* True if all that the line is made of is there. */
static bool is_ready(const struct work *work, const struct made *made)
{
    for (uint32_t i = 0; i < made->count; i++)
        if (!source(work, made, i))
            return false;
    return true;
}

static void release(struct work *work, const struct made *made)
{
    for (uint32_t i = 0; i < made->count; i++) {
        uint32_t line = work->a->plan->from[made->first + i];
        if (--work->uses[line])
            continue;
        ts_release(work->held[line]);
        work->held[line] = NULL;
    }
}

static void count_uses(struct work *work)
{
    const struct plan *plan = work->a->plan;
    for (size_t i = 0; i < plan->toc->count; i++)
        for (uint32_t j = 0; j < plan->made[i].count; j++)
            work->uses[plan->from[plan->made[i].first + j]]++;
}

struct assembled assemble(const struct assembly *a)
{
    const struct plan *plan = a->plan;
    const struct toc *toc = ts_toc(a->in);
    struct work work = {.a = a};
    size_t next = 0;
    work.held = xalloc(toc->count, sizeof *work.held);
    work.uses = xalloc(toc->count, sizeof *work.uses);
    work.bands = bands_begin(a->out, a->in, a->threads, ORDERED_POOL_SLACK);
    fp4_to_fp8_init(&work.tables);
    count_uses(&work);
    for (const struct tensor *tensor; (tensor = ts_next(a->in));) {
        size_t line = (size_t)(tensor - toc->tensor);
        if (!work.uses[line])
            continue;
        work.held[line] = ts_hold(a->in);
        for (; next < plan->toc->count && is_ready(&work, &plan->made[next]); next++) {
            make(&work, &plan->toc->tensor[next], &plan->made[next]);
            release(&work, &plan->made[next]);
        }
    }
    bands_end(work.bands);
    free(work.held);
    free(work.uses);
    return work.done;
}
