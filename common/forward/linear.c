#include "forward/linear.h"

#include <stdlib.h>

#include "base/die.h"
#include "tensor/split.h"

/* The inputs whose amaxes are wanted should not be rounded before. */
static bool is_calibrated(const struct forward *run, const struct weight *weight, bool expert)
{
    return run->arithmetic == ARITHMETIC_CALIBRATION &&
           (expert || run->network->calibrates_all ||
            (run->quantizes && run->quantizes(run->context, weight->module)));
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

struct mat linear_seen(const struct linear *linear, enum seen what)
{
    return mat_cols(linear->seen, (uint64_t)what, 1);
}

/* Some rows of each group become an operand; returns these. */
static struct operand **load_rows(struct device *d, const struct linear *linear,
                                  const struct raw_weight *from, struct mat bytes, struct mat scale,
                                  struct operand_part part)
{
    uint64_t rows = from->weight->rows / linear->groups;
    part.split = activation_splits(linear->activation);
    struct operand **operand = xalloc((size_t)linear->groups, sizeof(struct operand *));
    struct mat amax = d->make(d, DTYPE_F32, linear->groups, 1);
    for (uint64_t i = 0; i < linear->groups; i++, part.first += rows) {
        operand[i] = d->operand(d, from->weight, from->tensor, from->scales, scale, bytes, part,
                                mat_rows(amax, i, 1));
        d->max_abs(d, linear_seen(linear, SEEN_WEIGHT), mat_rows(amax, i, 1));
    }
    d->drop(d, amax);
    return operand;
}

static void load_operands(struct device *d, struct linear *linear, const struct raw_weight *from,
                          uint64_t transposed)
{
    uint64_t rows = from->weight->rows / linear->groups;
    const struct scales *scales = from->scales;
    struct mat bytes = on_device(d, from->raw, from->tensor->size, from->bytes);
    struct mat scale = on_device(d, scales->fp8 ? NULL : scales->raw,
                                 from->weight->rows * scales->cols, from->scale);
    if (transposed)
        linear->transposed =
            load_rows(d, linear, from, bytes, scale,
                      (struct operand_part){.rows = transposed, .transposed = true});
    linear->operand =
        load_rows(d, linear, from, bytes, scale,
                  (struct operand_part){.first = transposed, .rows = rows - transposed});
    if (from->raw)
        d->drop(d, bytes);
    if (scale.at != from->scale.at)
        d->drop(d, scale);
}

void linear_load(struct device *d, struct linear *linear, const struct raw_weight *from,
                 enum activation activation, struct cut cut, struct mat seen)
{
    *linear = (struct linear){.groups = cut.groups,
                              .outputs = from->weight->rows,
                              .activation = activation,
                              .scale_2 = from->input_scale,
                              .module = from->weight->module,
                              .seen = seen};
    if (activation == ACTIVATION_NVFP4 && !(from->input_scale > 0))
        die("%s.input_scale: wanted a number above 0, got %g; W4A4 arithmetic needs it",
            linear->module, (double)from->input_scale);
    load_operands(d, linear, from, cut.transposed);
}

void linear_drop(struct device *d, struct linear *linear)
{
    for (uint64_t i = 0; i < linear->groups; i++) {
        d->drop_operand(d, linear->operand[i]);
        if (linear->transposed)
            d->drop_operand(d, linear->transposed[i]);
    }
    free(linear->operand);
    free(linear->transposed);
    *linear = (struct linear){0};
}

/* ---- products ---- */

void linear_observe(struct device *d, struct linear *linear, struct mat y, struct mat x)
{
    linear->rows += x.rows;
    d->max_abs(d, linear_seen(linear, SEEN_INPUT), x);
    d->max_abs(d, linear_seen(linear, SEEN_OUTPUT), y);
    inputs_record(linear->inputs, d, x);
}

/* x quantized for the product, seen meanwhile if `sees`; x itself if there is nothing to do. */
static struct mat quantized(struct device *d, const struct linear *linear, struct mat x, bool sees)
{
    struct mat seen = sees ? linear_seen(linear, SEEN_INPUT) : (struct mat){0};
    if (linear->activation == ACTIVATION_BF16) {
        if (sees)
            d->max_abs(d, seen, x);
        return x;
    }
    struct mat a = d->make(d, DTYPE_BF16, x.rows,
                           activation_splits(linear->activation) ? SPLIT * x.cols : x.cols);
    d->quantize(d, a, x, linear->activation, linear->scale_2, seen);
    return a;
}

void linear_apply(struct device *d, struct linear *linear, struct mat y, struct mat x,
                  enum sees sees)
{
    struct mat a = quantized(d, linear, x, sees & SEES_INPUT);
    uint64_t wide = a.cols / linear->groups, high = y.cols / linear->groups;
    linear->rows += x.rows;
    inputs_record(linear->inputs, d, x);
    for (uint64_t i = 0; i < linear->groups; i++)
        d->product(d, mat_cols(y, i * high, high), mat_cols(a, i * wide, wide), linear->operand[i]);
    if (a.at != x.at)
        d->drop(d, a);
    if (sees & SEES_OUTPUT)
        d->max_abs(d, linear_seen(linear, SEEN_OUTPUT), y);
}

/* Record what `down` would have as input without the router's weight. */
static void record_unweighted(struct device *d, const struct linear *down, struct mat gate,
                              struct mat up, struct swiglu how)
{
    struct mat y = d->make(d, DTYPE_BF16, gate.rows, gate.cols);
    d->swiglu(d, y, gate, up, how, (struct mat){0}, NULL);
    inputs_record_unweighted(down->inputs, d, y);
    d->drop(d, y);
}

void linear_mlp(struct device *d, struct linear *gate, struct linear *up, struct linear *down,
                struct swiglu how, struct mat y, struct mat x, struct mat weight, enum sees sees)
{
    struct mat g = d->make(d, DTYPE_BF16, x.rows, gate->outputs);
    struct mat u = d->make(d, DTYPE_BF16, x.rows, up->outputs);
    const struct swiglu_seen both = {linear_seen(gate, SEEN_OUTPUT), linear_seen(up, SEEN_OUTPUT),
                                     linear_seen(down, SEEN_UNWEIGHTED),
                                     linear_seen(down, SEEN_INPUT)};
    linear_apply(d, gate, g, x, sees & SEES_INPUT);
    linear_apply(d, up, u, x, SEES_NEITHER); /* of the same input: */
    d->max_abs(d, linear_seen(up, SEEN_INPUT), linear_seen(gate, SEEN_INPUT));
    if (weight.rows && down->inputs)
        record_unweighted(d, down, g, u, how);
    d->swiglu(d, g, g, u, how, weight, &both);
    linear_apply(d, down, y, g, sees & SEES_OUTPUT);
    d->drop(d, g);
    d->drop(d, u);
}
