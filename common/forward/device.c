#include "forward/device.h"

#include <stdlib.h>

#include "base/die.h"

struct mat mat_rows(struct mat m, uint64_t first, uint64_t count)
{
    if (first > m.rows || count > m.rows - first)
        die("internal: rows beyond a matrix");
    m.at = (char *)m.at + first * m.stride * dtype_size(m.dtype);
    m.rows = count;
    return m;
}

struct mat mat_cols(struct mat m, uint64_t first, uint64_t count)
{
    if (first > m.cols || count > m.cols - first)
        die("internal: columns beyond a matrix");
    m.at = (char *)m.at + first * dtype_size(m.dtype);
    m.cols = count;
    return m;
}

struct mat mat_shaped(struct mat m, uint64_t cols)
{
    if (m.stride != m.cols || (m.rows * m.cols) % cols)
        die("internal: a matrix that cannot have another shape");
    m.rows = m.rows * m.cols / cols;
    m.cols = m.stride = cols;
    return m;
}

struct mat mat_as(struct mat m, enum dtype dtype)
{
    uint64_t from = dtype_size(m.dtype), to = dtype_size(dtype);
    if (m.cols * from % to || m.stride * from % to)
        die("internal: columns that are no elements of another type");
    m.cols = m.cols * from / to;
    m.stride = m.stride * from / to;
    m.dtype = dtype;
    return m;
}

size_t mat_bytes(struct mat m)
{
    if (m.rows > 1 && m.stride != m.cols)
        die("internal: a matrix with gaps");
    return (size_t)(m.rows * m.cols) * dtype_size(m.dtype);
}

struct mat mat_numbers(struct device *d, int32_t *value, uint64_t count)
{
    struct mat m = d->make(d, DTYPE_I32, count, 1);
    d->write(d, m, value);
    free(value);
    return m;
}

void mat_round(struct device *d, struct mat m)
{
    struct mat rounded = d->make(d, DTYPE_BF16, m.rows, m.cols);
    d->copy(d, rounded, m);
    d->copy(d, m, rounded);
    d->drop(d, rounded);
}

void device_attended(struct device *d, struct mat o, const struct keys *keys, uint64_t width,
                     const struct attended *then)
{
    if (then->table.rows)
        d->rotate(d, o, width, then->table, keys->position, true);
    if (then->seen.rows)
        d->max_abs(d, then->seen, o);
}
