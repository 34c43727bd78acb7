#include "forward/layer.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "stream/whole.h"

void layer_begin(const struct network *n, struct layer *layer, uint64_t number)
{
    struct device *d = n->device;
    *layer = (struct layer){.network = n, .number = number};
    layer->piece = xalloc(n->pieces, sizeof *layer->piece);
    n->describe(n, layer);
    if (!d)
        return;
    float *zero = xalloc(n->pieces * SEEN, sizeof *zero);
    layer->seen = d->make(d, DTYPE_F32, n->pieces, SEEN);
    d->write(d, layer->seen, zero);
    free(zero);
}

void layer_end(struct layer *layer)
{
    struct device *d = layer->network->device;
    for (size_t i = 0; d && i < layer->network->pieces; i++) {
        struct piece *p = &layer->piece[i];
        linear_drop(d, &p->linear);
        if (layer->inputs)
            inputs_end(&layer->inputs[i], d);
        if (p->vector.at)
            d->drop(d, p->vector);
        free(p->table);
    }
    if (d)
        d->drop(d, layer->seen);
    free(layer->inputs);
    free(layer->piece);
    free(layer->prefix);
}

void layer_piece(struct layer *layer, size_t piece, enum piece_kind kind, const char *name,
                 uint64_t rows, uint64_t cols)
{
    layer->piece[piece] = (struct piece){.kind = kind, .name = name, .rows = rows, .cols = cols};
}

char *layer_expert(const struct layer *layer, uint64_t number)
{
    return xprintf("%s%s%" PRIu64, layer->prefix, layer->experts.name, number);
}

char *layer_expert_module(const struct layer *layer, uint64_t number, unsigned matrix)
{
    return xprintf("%s%s%" PRIu64 ".%s", layer->prefix, layer->experts.name, number,
                   layer->experts.matrix[matrix]);
}

/* ---- the stream's table ---- */

/* Of a checkpoint that lacks more than this tensor, all of that is said; and if its names are
 * others, what they are like. */
_Noreturn static void refuse_missing(struct ts_in *in, const char *name)
{
    const struct toc *toc = ts_toc(in);
    whole_check(in);
    for (size_t i = 0; i < toc->count; i++) {
        struct place place = model_place(ts_model(in), toc->tensor[i].name);
        if (place.section != SECTION_UNKNOWN)
            die("%s: %s is missing; the forward pass needs it", ts_name(in), name);
    }
    die("%s: %s is missing; names here are like %s, and the forward pass needs the release's own",
        ts_name(in), name, toc->count ? toc->tensor[0].name : "none");
}

static void check_tensor(struct ts_in *in, const struct weights *weights, const char *name,
                         const struct piece *p)
{
    struct toc *toc = ts_toc(in);
    int64_t line = toc_find(toc, name);
    if (line < 0)
        refuse_missing(in, name);
    const struct tensor *tensor = &toc->tensor[line];
    const struct weight *w = weight_of(weights, (size_t)line);
    uint64_t count = tensor->size / dtype_size(tensor->dtype);
    bool integers = tensor->dtype == DTYPE_I64 || tensor->dtype == DTYPE_I32;
    bool right = w ? w->rows == p->rows && w->cols == p->cols : count == p->rows * p->cols;
    right &= p->kind == PIECE_TABLE ? integers : w || dtype_is_float(tensor->dtype);
    if (!right) {
        char shape[TENSOR_SHAPE_TEXT];
        die("%s: %s: wanted %" PRIu64 " x %" PRIu64 " %s by config.json, got %s %s", ts_name(in),
            name, p->rows, p->cols, p->kind == PIECE_TABLE ? "integers" : "numbers",
            dtype_name(tensor->dtype), tensor_shape(tensor, shape));
    }
}

static void check_experts(const struct layer *layer, struct ts_in *in,
                          const struct weights *weights)
{
    const struct expert_pieces *x = &layer->experts;
    for (uint64_t e = 0; e < x->count; e++)
        for (unsigned i = 0; i < EXPERT_MATRICES; i++) {
            bool down = i == EXPERT_DOWN;
            const struct piece p = {.kind = PIECE_LINEAR,
                                    .rows = down ? x->dim : x->inner,
                                    .cols = down ? x->inner : x->dim};
            char *module = layer_expert_module(layer, e, i);
            char *name = xprintf("%s.weight", module);
            check_tensor(in, weights, name, &p);
            free(name);
            free(module);
        }
}

void layer_check(const struct layer *layer, struct ts_in *in, const struct weights *weights)
{
    for (size_t i = 0; i < layer->network->pieces; i++) {
        const struct piece *p = &layer->piece[i];
        if (p->kind == PIECE_ABSENT || p->kind == PIECE_UNUSED)
            continue;
        char *name = xprintf("%s%s", layer->prefix, p->name);
        check_tensor(in, weights, name, p);
        free(name);
    }
    check_experts(layer, in, weights);
}

size_t layer_find(const struct layer *layer, const char *tensor)
{
    size_t pieces = layer->network->pieces, prefix = strlen(layer->prefix), piece = 0;
    if (strncmp(tensor, layer->prefix, prefix) != 0)
        return pieces;
    while (piece < pieces && (layer->piece[piece].kind == PIECE_ABSENT ||
                              strcmp(layer->piece[piece].name, tensor + prefix) != 0))
        piece++;
    return piece;
}

/* ---- loading ---- */

static struct mat load_vector(struct device *d, const struct piece *p, const struct tensor *tensor,
                              const void *raw)
{
    size_t count = (size_t)(p->rows * p->cols);
    float *value = xalloc(count, sizeof *value);
    for (size_t i = 0; i < count; i++) {
        value[i] = (float)dtype_value(tensor->dtype, raw, i);
        if (!isfinite(value[i]))
            die("%s: element %zu is NaN or infinite; the checkpoint is damaged", tensor->name, i);
    }
    struct mat vector = d->make(d, DTYPE_F32, p->rows, p->cols);
    d->write(d, vector, value);
    free(value);
    return vector;
}

static int32_t *load_table(uint64_t experts, const struct piece *p, const struct tensor *tensor,
                           const void *raw)
{
    size_t count = (size_t)(p->rows * p->cols);
    int32_t *table = xalloc(count, sizeof *table);
    for (size_t i = 0; i < count; i++) {
        double expert = dtype_value(tensor->dtype, raw, i);
        if (expert < 0 || expert >= (double)experts)
            die("%s: element %zu: there is no expert %.0f", tensor->name, i, expert);
        table[i] = (int32_t)expert;
    }
    return table;
}

/* Load values, checked here wherever they were read to. */
static void load_numbers(const struct layer *layer, struct piece *p, const struct raw_weight *from)
{
    struct device *d = layer->network->device;
    void *copy = from->raw ? NULL : xalloc((size_t)from->tensor->size, 1);
    const void *raw = from->raw ? from->raw : copy;
    if (copy)
        d->read(d, copy, from->bytes);
    if (p->kind == PIECE_TABLE)
        p->table = load_table(layer->experts.count, p, from->tensor, raw);
    else
        p->vector = load_vector(d, p, from->tensor, raw);
    free(copy);
}

void layer_load(struct layer *layer, size_t piece, const struct forward *run,
                const struct raw_weight *from)
{
    struct piece *p = &layer->piece[piece];
    if (p->kind == PIECE_TABLE || p->kind == PIECE_VECTOR) {
        load_numbers(layer, p, from);
    } else if (p->kind == PIECE_ROWS) {
        row_table_open(&p->by_number, from->weight, from->rows, from->row_scales);
    } else if (p->kind != PIECE_ABSENT && p->kind != PIECE_UNUSED) {
        enum activation activation =
            p->kind == PIECE_MATRIX ? ACTIVATION_BF16
                                    : linear_activation(run, from->weight, p->kind == PIECE_EXPERT);
        struct cut cut = {p->cut.groups ? p->cut.groups : 1, p->cut.transposed};
        linear_load(layer->network->device, &p->linear, from, activation, cut,
                    mat_rows(layer->seen, piece, 1));
    }
    p->present = true;
}

/* ---- steps ---- */

void layer_apply(struct layer *layer, size_t piece, struct mat y, struct mat x)
{
    layer_apply_seeing(layer, piece, y, x, SEES_BOTH);
}

void layer_apply_seeing(struct layer *layer, size_t piece, struct mat y, struct mat x,
                        enum sees sees)
{
    linear_apply(layer->network->device, &layer->piece[piece].linear, y, x, sees);
}

void layer_norm(const struct layer *layer, size_t piece, struct mat y, struct mat x)
{
    struct device *d = layer->network->device;
    d->rms_norm(d, y, x, layer->piece[piece].vector, layer->network->norm_eps);
}
