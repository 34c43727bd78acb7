/* row_table.h: a large matrix of which few rows are needed: each is read from the stream's tensor
 * when it is asked for. */
#ifndef ROW_TABLE_H
#define ROW_TABLE_H

#include "stream/ts.h"
#include "tensor/weight.h"

struct row_table {
    const struct weight *weight; /* plain, or FP8 */
    struct ts_held *bytes;       /* X.weight; NULL: not open */
    struct ts_held *scale;       /* FP8: one scale for each block of the grid */
};

/* Open a table; bytes and scale remain the caller's. A matrix of another format ends the
 * process. */
void row_table_open(struct row_table *table, const struct weight *weight, struct ts_held *bytes,
                    struct ts_held *scale);

/* Rows number[0 … count - 1] as BF16: count * weight->cols values. */
void row_table_read(const struct row_table *table, const int32_t *number, uint64_t count,
                    uint16_t *rows);

#endif
