#include "forward/row_table.h"

#include <stdlib.h>

#include "base/die.h"
#include "base/parallel.h"

/* Each row costs a disk access, so up to READERS threads read at a time, one for every
 * ROWS_OF_READER rows. */
enum { READERS = 32, ROWS_OF_READER = 16 };

void row_table_open(struct row_table *table, const struct weight *weight, struct ts_held *bytes,
                    struct ts_held *scale)
{
    bool scaled = scale && ts_held_tensor(scale)->rank == 2;
    if (weight->format != FORMAT_PLAIN && !(weight->format == FORMAT_FP8 && scaled))
        die("%s: rows are read from a matrix in BF16, or in FP8 with scales of blocks, not %s",
            ts_held_tensor(bytes)->name, format_name(weight->format));
    *table = (struct row_table){weight, bytes, scale};
}

/* The scales of row `number`, in fp8[]; raw: room for their bytes. */
static void read_scales(const struct row_table *table, uint64_t number, void *raw, float *fp8)
{
    const struct tensor *tensor = ts_held_tensor(table->scale);
    uint64_t cols = tensor->dim[1];
    size_t size = (size_t)cols * dtype_size(tensor->dtype);
    ts_held_read(table->scale, number / table->weight->block_rows * size, raw, size);
    for (uint64_t i = 0; i < cols; i++)
        fp8[i] = (float)dtype_value(tensor->dtype, raw, (size_t)i);
}

/* The rows to read. */
struct reading {
    const struct row_table *table;
    const int32_t *number;
    uint16_t *rows;
};

static void read_rows(void *context, unsigned thread, uint64_t first, uint64_t last)
{
    const struct reading *r = context;
    const struct row_table *table = r->table;
    const struct weight *w = table->weight;
    const struct tensor *tensor = ts_held_tensor(table->bytes);
    size_t size = (size_t)weight_row_bytes(w, tensor);
    size_t blocks = table->scale ? (size_t)ts_held_tensor(table->scale)->dim[1] : 0;
    char *raw = xalloc(size, 1);
    float *scale = xalloc(blocks, sizeof *scale), *stored = xalloc(blocks, sizeof *stored);
    const struct scales scales = {.fp8 = scale};
    (void)thread;
    for (uint64_t i = first; i < last; i++) {
        uint64_t row = (uint64_t)r->number[i];
        ts_held_read(table->bytes, row * size, raw, size);
        if (blocks)
            read_scales(table, row, stored, scale);
        weight_rows(w, tensor, &scales, 0, 1, raw, r->rows + i * w->cols);
    }
    free(raw);
    free(scale);
    free(stored);
}

void row_table_read(const struct row_table *table, const int32_t *number, uint64_t count,
                    uint16_t *rows)
{
    struct parallel *readers = parallel_new((unsigned)at_most(1 + count / ROWS_OF_READER, READERS));
    parallel_for(readers, count, 1, read_rows, &(struct reading){table, number, rows});
    parallel_free(readers);
}
