#include "forward/inputs.h"

#include <stdlib.h>

#include "base/die.h"
#include "tensor/headroom.h"

static struct mat make_zeros(struct device *d, enum dtype dtype, uint64_t rows, uint64_t cols)
{
    struct mat m = d->make(d, dtype, rows, cols);
    void *zeros = xalloc((size_t)(rows * cols), dtype_size(dtype));
    d->write(d, m, zeros);
    free(zeros);
    return m;
}

void inputs_begin(struct inputs *inputs, struct device *d, unsigned kinds, uint64_t cols)
{
    *inputs = (struct inputs){0};
    if (kinds & INPUTS_MOMENTS && cols % DEVICE_BLOCK == 0)
        inputs->moments = make_zeros(d, DTYPE_F32, cols, DEVICE_BLOCK);
    if (kinds & INPUTS_AMAXES)
        inputs->amaxes = make_zeros(d, DTYPE_I64, 2, HEADROOM_BUCKETS);
}

void inputs_end(struct inputs *inputs, struct device *d)
{
    if (inputs->moments.rows)
        d->drop(d, inputs->moments);
    if (inputs->amaxes.rows)
        d->drop(d, inputs->amaxes);
    *inputs = (struct inputs){0};
}

void inputs_record(const struct inputs *inputs, struct device *d, struct mat x)
{
    if (inputs && inputs->moments.rows)
        d->add_moments(d, inputs->moments, x);
    if (inputs && inputs->amaxes.rows)
        d->count_amaxes(d, mat_rows(inputs->amaxes, 0, 1), x);
}

void inputs_record_unweighted(const struct inputs *inputs, struct device *d, struct mat x)
{
    if (inputs && inputs->amaxes.rows)
        d->count_amaxes(d, mat_rows(inputs->amaxes, 1, 1), x);
}
