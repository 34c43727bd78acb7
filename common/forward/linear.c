#include "forward/linear.h"

#include <stdlib.h>

#include "base/die.h"

/* The inputs whose amaxes are wanted should not be rounded before. */
static bool is_calibrated(const struct forward *run, const struct weight *weight, bool expert)
{
    return run->arithmetic == ARITHMETIC_CALIBRATION &&
           (expert || (run->quantizes && run->quantizes(run->context, weight->module)));
}

enum activation linear_activation(const struct forward *run, const struct weight *weight,
                                  bool expert)
{
    if (weight->format == FORMAT_PLAIN || is_calibrated(run, weight, expert))
        return ACTIVATION_BF16;
    if (weight->format == FORMAT_NVFP4 && run->arithmetic != ARITHMETIC_SOURCE)
        return ACTIVATION_NVFP4;
    return run->network->fp8;
}

/* ---- loading ---- */

/* The bytes on the device, uploaded if they are in memory. */
static struct mat on_device(struct device *d, const void *raw, uint64_t size, struct mat there)
{
    if (!raw)
        return there;
    struct mat bytes = d->make(d, DTYPE_U8, 1, size);
    d->write(d, bytes, raw);
    return bytes;
}

static struct mat seen(const struct linear *linear, unsigned what)
{
    return mat_cols(linear->seen, what, 1);
}

/* Groups of rows become operands of their own. */
static void load_operands(struct device *d, struct linear *linear, const struct raw_weight *from)
{
    uint64_t rows = from->weight->rows / linear->groups;
    const struct scales *scales = from->scales;
    struct mat bytes = on_device(d, from->raw, from->tensor->size, from->bytes);
    struct mat scale = on_device(d, scales->fp8 ? NULL : scales->raw,
                                 from->weight->rows * scales->cols, from->scale);
    struct mat parts = d->make(d, DTYPE_F32, linear->groups, 1);
    linear->operand = xalloc((size_t)linear->groups, sizeof *linear->operand);
    for (uint64_t i = 0; i < linear->groups; i++) {
        linear->operand[i] = d->operand(d, from->weight, from->tensor, scales, scale, bytes,
                                        i * rows, rows, mat_rows(parts, i, 1));
        d->max_abs(d, seen(linear, SEEN_WEIGHT), mat_rows(parts, i, 1));
    }
    if (from->raw)
        d->drop(d, bytes);
    if (scale.at != from->scale.at)
        d->drop(d, scale);
    d->drop(d, parts);
}

void linear_load(struct device *d, struct linear *linear, const struct raw_weight *from,
                 enum activation activation, uint64_t groups, struct mat seen)
{
    *linear = (struct linear){.groups = groups,
                              .outputs = from->weight->rows,
                              .activation = activation,
                              .scale_2 = from->input_scale,
                              .module = from->weight->module,
                              .seen = seen};
    if (activation == ACTIVATION_NVFP4 && !(from->input_scale > 0))
        die("%s.input_scale: wanted a number above 0, got %g; W4A4 arithmetic needs it",
            linear->module, (double)from->input_scale);
    load_operands(d, linear, from);
}

void linear_drop(struct device *d, struct linear *linear)
{
    for (uint64_t i = 0; i < linear->groups; i++)
        d->drop_operand(d, linear->operand[i]);
    free(linear->operand);
    *linear = (struct linear){0};
}

/* ---- products ---- */

void linear_apply(struct device *d, struct linear *linear, struct mat y, struct mat x)
{
    struct mat a = x;
    linear->rows += x.rows;
    d->max_abs(d, seen(linear, SEEN_INPUT), x);
    inputs_record(linear->inputs, d, x);
    if (linear->activation != ACTIVATION_BF16) {
        a = d->make(d, DTYPE_BF16, x.rows, x.cols);
        d->quantize(d, a, x, linear->activation, linear->scale_2);
    }
    uint64_t wide = x.cols / linear->groups, high = y.cols / linear->groups;
    for (uint64_t i = 0; i < linear->groups; i++)
        d->product(d, mat_cols(y, i * high, high), mat_cols(a, i * wide, wide), linear->operand[i]);
    if (a.at != x.at)
        d->drop(d, a);
    d->max_abs(d, seen(linear, SEEN_OUTPUT), y);
}

/* The largest input that `down` would have without the router's weight. */
static void see_unweighted(struct device *d, const struct linear *down, struct mat gate,
                           struct mat up, float limit)
{
    struct mat y = d->make(d, DTYPE_BF16, gate.rows, gate.cols);
    d->swiglu(d, y, gate, up, limit, (struct mat){0});
    d->max_abs(d, seen(down, SEEN_UNWEIGHTED), y);
    inputs_record_unweighted(down->inputs, d, y);
    d->drop(d, y);
}

void linear_mlp(struct device *d, struct linear *gate, struct linear *up, struct linear *down,
                float limit, struct mat y, struct mat x, struct mat weight)
{
    struct mat g = d->make(d, DTYPE_BF16, x.rows, gate->outputs);
    struct mat u = d->make(d, DTYPE_BF16, x.rows, up->outputs);
    linear_apply(d, gate, g, x);
    linear_apply(d, up, u, x);
    if (weight.rows)
        see_unweighted(d, down, g, u, limit);
    d->swiglu(d, g, g, u, limit, weight);
    linear_apply(d, down, y, g);
    d->drop(d, g);
    d->drop(d, u);
}
