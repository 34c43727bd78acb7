/* DeepSeek-V4's weights: what a layer consists of, and how it gets onto the device. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "forward/deepseek_v4/deepseek_v4.h"

/* Blocks of this many tokens overlap, and an indexer selects among them (model.py, Compressor and
 * Attention); others are disjoint, and all are seen. */
enum { OVERLAPPING_RATIO = 4 };

/* ---- what a layer consists of ---- */

static void piece(struct v4_layer *layer, enum v4_slot slot, enum v4_kind kind, const char *name,
                  uint64_t rows, uint64_t cols)
{
    layer->piece[slot] = (struct v4_piece){kind, name, rows, cols};
}

static void attention_pieces(struct v4_layer *l, const struct v4_config *c)
{
    uint64_t q = c->heads * c->head_dim;
    piece(l, V4_ATTN_NORM, V4_VECTOR, "attn_norm.weight", 1, c->dim);
    piece(l, V4_WQ_A, V4_LINEAR, "attn.wq_a.weight", c->q_rank, c->dim);
    piece(l, V4_Q_NORM, V4_VECTOR, "attn.q_norm.weight", 1, c->q_rank);
    piece(l, V4_WQ_B, V4_LINEAR, "attn.wq_b.weight", q, c->q_rank);
    piece(l, V4_WKV, V4_LINEAR, "attn.wkv.weight", c->head_dim, c->dim);
    piece(l, V4_KV_NORM, V4_VECTOR, "attn.kv_norm.weight", 1, c->head_dim);
    piece(l, V4_SINK, V4_VECTOR, "attn.attn_sink", 1, c->heads);
    piece(l, V4_WO_A, V4_GROUPED, "attn.wo_a.weight", c->o_groups * c->o_rank, q / c->o_groups);
    piece(l, V4_WO_B, V4_LINEAR, "attn.wo_b.weight", c->dim, c->o_groups * c->o_rank);
    if (!l->ratio)
        return;
    uint64_t wide = l->ratio == OVERLAPPING_RATIO ? 2 : 1;
    piece(l, V4_APE, V4_VECTOR, "attn.compressor.ape", l->ratio, wide * c->head_dim);
    piece(l, V4_COMPRESS_WKV, V4_MATRIX, "attn.compressor.wkv.weight", wide * c->head_dim, c->dim);
    piece(l, V4_COMPRESS_WGATE, V4_MATRIX, "attn.compressor.wgate.weight", wide * c->head_dim,
          c->dim);
    piece(l, V4_COMPRESS_NORM, V4_VECTOR, "attn.compressor.norm.weight", 1, c->head_dim);
    if (l->ratio != OVERLAPPING_RATIO)
        return;
    piece(l, V4_INDEX_WQ_B, V4_LINEAR, "attn.indexer.wq_b.weight", c->index_heads * c->index_dim,
          c->q_rank);
    piece(l, V4_INDEX_WEIGHTS, V4_MATRIX, "attn.indexer.weights_proj.weight", c->index_heads,
          c->dim);
    piece(l, V4_INDEX_APE, V4_VECTOR, "attn.indexer.compressor.ape", l->ratio, wide * c->index_dim);
    piece(l, V4_INDEX_WKV, V4_MATRIX, "attn.indexer.compressor.wkv.weight", wide * c->index_dim,
          c->dim);
    piece(l, V4_INDEX_WGATE, V4_MATRIX, "attn.indexer.compressor.wgate.weight", wide * c->index_dim,
          c->dim);
    piece(l, V4_INDEX_NORM, V4_VECTOR, "attn.indexer.compressor.norm.weight", 1, c->index_dim);
}

static void ffn_pieces(struct v4_layer *l, const struct v4_config *c)
{
    piece(l, V4_FFN_NORM, V4_VECTOR, "ffn_norm.weight", 1, c->dim);
    piece(l, V4_GATE, V4_MATRIX, "ffn.gate.weight", c->experts, c->dim);
    if (l->hash)
        piece(l, V4_GATE_TABLE, V4_TABLE, "ffn.gate.tid2eid", c->vocabulary, c->experts_used);
    else
        piece(l, V4_GATE_BIAS, V4_VECTOR, "ffn.gate.bias", 1, c->experts);
    piece(l, V4_SHARED_W1, V4_LINEAR, "ffn.shared_experts.w1.weight", c->expert_dim, c->dim);
    piece(l, V4_SHARED_W3, V4_LINEAR, "ffn.shared_experts.w3.weight", c->expert_dim, c->dim);
    piece(l, V4_SHARED_W2, V4_LINEAR, "ffn.shared_experts.w2.weight", c->dim, c->expert_dim);
}

static void block_pieces(struct v4_layer *l, const struct v4_config *c)
{
    uint64_t mixes = (2 + c->copies) * c->copies, wide = c->copies * c->dim;
    piece(l, V4_HC_ATTN_FN, V4_MATRIX, "hc_attn_fn", mixes, wide);
    piece(l, V4_HC_ATTN_BASE, V4_VECTOR, "hc_attn_base", 1, mixes);
    piece(l, V4_HC_ATTN_SCALE, V4_VECTOR, "hc_attn_scale", 1, 3);
    piece(l, V4_HC_FFN_FN, V4_MATRIX, "hc_ffn_fn", mixes, wide);
    piece(l, V4_HC_FFN_BASE, V4_VECTOR, "hc_ffn_base", 1, mixes);
    piece(l, V4_HC_FFN_SCALE, V4_VECTOR, "hc_ffn_scale", 1, 3);
    attention_pieces(l, c);
    ffn_pieces(l, c);
}

static void head_pieces(struct v4_layer *l, const struct v4_config *c)
{
    piece(l, V4_NORM, V4_VECTOR, "norm.weight", 1, c->dim);
    piece(l, V4_HC_HEAD_FN, V4_MATRIX, "hc_head_fn", c->copies, c->copies * c->dim);
    piece(l, V4_HC_HEAD_BASE, V4_VECTOR, "hc_head_base", 1, c->copies);
    piece(l, V4_HC_HEAD_SCALE, V4_VECTOR, "hc_head_scale", 1, 1);
}

static void mtp_pieces(struct v4_layer *l, const struct v4_config *c)
{
    piece(l, V4_ENORM, V4_VECTOR, "enorm.weight", 1, c->dim);
    piece(l, V4_HNORM, V4_VECTOR, "hnorm.weight", 1, c->dim);
    piece(l, V4_E_PROJ, V4_LINEAR, "e_proj.weight", c->dim, c->dim);
    piece(l, V4_H_PROJ, V4_LINEAR, "h_proj.weight", c->dim, c->dim);
    block_pieces(l, c);
    head_pieces(l, c);
}

void v4_layer_begin(const struct v4 *v4, struct v4_layer *layer, uint64_t number)
{
    const struct v4_config *c = &v4->config;
    *layer = (struct v4_layer){0};
    if (number == UINT64_MAX) {
        layer->prefix = xstrdup("");
        head_pieces(layer, c);
        piece(layer, V4_HEAD, V4_MATRIX, "head.weight", c->vocabulary, c->dim);
    } else {
        layer->mtp = number >= c->layers;
        layer->ratio = c->ratio[number];
        layer->hash = number < c->hash_layers;
        layer->prefix = layer->mtp ? xprintf("mtp.%" PRIu64 ".", number - c->layers)
                                   : xprintf("layers.%" PRIu64 ".", number);
        (layer->mtp ? mtp_pieces : block_pieces)(layer, c);
    }
    struct device *d = v4->device;
    float zero[V4_SLOTS * V4_SEEN] = {0};
    layer->seen = d->make(d, DTYPE_F32, V4_SLOTS, V4_SEEN);
    d->write(d, layer->seen, zero);
}

static void linear_end(const struct v4 *v4, struct v4_linear *linear)
{
    for (uint64_t i = 0; i < linear->groups; i++)
        v4->device->drop_operand(v4->device, linear->operand[i]);
    free(linear->operand);
    free(linear->module);
    *linear = (struct v4_linear){0};
}

void v4_layer_end(const struct v4 *v4, struct v4_layer *layer)
{
    for (unsigned i = 0; i < V4_SLOTS; i++) {
        linear_end(v4, &layer->linear[i]);
        if (layer->vector[i].at)
            v4->device->drop(v4->device, layer->vector[i]);
    }
    v4->device->drop(v4->device, layer->seen);
    free(layer->table);
    free(layer->prefix);
}

/* ---- the table ---- */

static bool is_product(enum v4_kind kind)
{
    return kind == V4_LINEAR || kind == V4_GROUPED || kind == V4_MATRIX;
}

static void check_tensor(struct toc *toc, const struct weights *weights, const char *stream,
                         const char *name, const struct v4_piece *p)
{
    int64_t line = toc_find(toc, name);
    if (line < 0)
        die("%s: %s is missing; the forward pass needs it", stream, name);
    const struct tensor *tensor = &toc->tensor[line];
    const struct weight *w = weight_of(weights, (size_t)line);
    uint64_t count = tensor->size / dtype_size(tensor->dtype);
    bool table = tensor->dtype == DTYPE_I64 || tensor->dtype == DTYPE_I32;
    bool right = w ? w->rows == p->rows && w->cols == p->cols : count == p->rows * p->cols;
    right &= p->kind == V4_TABLE ? table : w || dtype_is_float(tensor->dtype);
    if (!right) {
        char shape[TENSOR_SHAPE_TEXT];
        die("%s: %s: wanted %" PRIu64 " x %" PRIu64 " %s by config.json, got %s %s", stream, name,
            p->rows, p->cols, p->kind == V4_TABLE ? "integers" : "numbers",
            dtype_name(tensor->dtype), tensor_shape(tensor, shape));
    }
}

static void check_experts(const struct v4 *v4, const struct weights *weights, const char *prefix)
{
    static const char *const matrix[V4_EXPERT_MATRICES] = {"w1", "w3", "w2"};
    const struct v4_config *c = &v4->config;
    struct ts_in *in = v4->run->in;
    for (uint64_t e = 0; e < c->experts; e++)
        for (unsigned i = 0; i < V4_EXPERT_MATRICES; i++) {
            bool down = i == V4_W2;
            struct v4_piece p = {V4_LINEAR, NULL, down ? c->dim : c->expert_dim,
                                 down ? c->expert_dim : c->dim};
            char *name = xprintf("%sffn.experts.%" PRIu64 ".%s.weight", prefix, e, matrix[i]);
            check_tensor(ts_toc(in), weights, ts_name(in), name, &p);
            free(name);
        }
}

void v4_layer_check(const struct v4 *v4, const struct v4_layer *layer,
                    const struct weights *weights, bool experts)
{
    struct ts_in *in = v4->run->in;
    for (unsigned i = 0; i < V4_SLOTS; i++) {
        const struct v4_piece *p = &layer->piece[i];
        if (p->kind == V4_ABSENT)
            continue;
        char *name = xprintf("%s%s", layer->prefix, p->name);
        check_tensor(ts_toc(in), weights, ts_name(in), name, p);
        free(name);
    }
    if (experts)
        check_experts(v4, weights, layer->prefix);
}

enum v4_slot v4_slot_of(const struct v4_layer *layer, const char *name)
{
    unsigned slot = 0;
    while (slot < V4_SLOTS &&
           (layer->piece[slot].kind == V4_ABSENT || strcmp(layer->piece[slot].name, name) != 0))
        slot++;
    return (enum v4_slot)slot;
}

/* ---- loading ---- */

static enum activation activation_for(const struct forward *run, enum format format, bool expert)
{
    if (format == FORMAT_PLAIN || (expert && run->arithmetic == ARITHMETIC_CALIBRATION))
        return ACTIVATION_BF16;
    if (format == FORMAT_NVFP4 && run->arithmetic != ARITHMETIC_SOURCE)
        return ACTIVATION_NVFP4;
    return ACTIVATION_FP8;
}

/* Bytes in memory to the device, or those that are there. */
static struct mat on_device(struct device *d, const void *raw, uint64_t size, struct mat there)
{
    if (!raw)
        return there;
    struct mat bytes = d->make(d, DTYPE_U8, 1, size);
    d->write(d, bytes, raw);
    return bytes;
}

/* Groups of rows become operands of their own. */
static void load_linear(const struct v4 *v4, struct v4_linear *linear, const struct v4_weight *from,
                        uint64_t groups)
{
    struct device *d = v4->device;
    uint64_t rows = from->weight->rows / groups;
    const struct scales *scales = from->scales;
    struct mat bytes = on_device(d, from->raw, from->tensor->size, from->bytes);
    struct mat scale = on_device(d, scales->fp8 ? NULL : scales->raw,
                                 from->weight->rows * scales->cols, from->scale);
    struct mat parts = d->make(d, DTYPE_F32, groups, 1);
    linear->groups = groups;
    linear->scale_2 = from->input_scale;
    if (linear->activation == ACTIVATION_NVFP4 && !(from->input_scale > 0))
        die("%s.input_scale: wanted a number above 0, got %g; W4A4 arithmetic needs it",
            linear->module, (double)from->input_scale);
    linear->operand = xalloc((size_t)groups, sizeof *linear->operand);
    for (uint64_t i = 0; i < groups; i++) {
        linear->operand[i] = d->operand(d, from->weight, from->tensor, scales, scale, bytes,
                                        i * rows, rows, mat_rows(parts, i, 1));
        d->max_abs(d, mat_cols(linear->seen, V4_SEEN_WEIGHT, 1), mat_rows(parts, i, 1));
    }
    if (from->raw)
        d->drop(d, bytes);
    if (scale.at != from->scale.at)
        d->drop(d, scale);
    d->drop(d, parts);
}

/* The module's name of a weight's tensor. */
static char *module_of(const struct tensor *tensor)
{
    char *module = xstrdup(tensor->name);
    char *dot = strrchr(module, '.');
    if (dot && !strcmp(dot, ".weight"))
        *dot = 0;
    return module;
}

static struct mat load_vector(const struct v4 *v4, const struct v4_piece *p,
                              const struct tensor *tensor, const void *raw)
{
    struct device *d = v4->device;
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

static int32_t *load_table(const struct v4 *v4, const struct v4_piece *p,
                           const struct tensor *tensor, const void *raw)
{
    size_t count = (size_t)(p->rows * p->cols);
    int32_t *table = xalloc(count, sizeof *table);
    for (size_t i = 0; i < count; i++) {
        double expert = dtype_value(tensor->dtype, raw, i);
        if (expert < 0 || expert >= (double)v4->config.experts)
            die("%s: element %zu: there is no expert %.0f", tensor->name, i, expert);
        table[i] = (int32_t)expert;
    }
    return table;
}

/* Numbers, which are looked at here wherever they came to. */
static void load_numbers(const struct v4 *v4, struct v4_layer *layer, enum v4_slot slot,
                         const struct v4_weight *from)
{
    const struct v4_piece *p = &layer->piece[slot];
    void *copy = from->raw ? NULL : xalloc((size_t)from->tensor->size, 1);
    const void *raw = from->raw ? from->raw : copy;
    if (copy)
        v4->device->read(v4->device, copy, from->bytes);
    if (p->kind == V4_TABLE)
        layer->table = load_table(v4, p, from->tensor, raw);
    else
        layer->vector[slot] = load_vector(v4, p, from->tensor, raw);
    free(copy);
}

void v4_load(const struct v4 *v4, struct v4_layer *layer, enum v4_slot slot,
             const struct v4_weight *from)
{
    const struct v4_piece *p = &layer->piece[slot];
    struct v4_linear *linear = &layer->linear[slot];
    if (p->kind == V4_TABLE || p->kind == V4_VECTOR) {
        load_numbers(v4, layer, slot, from);
    } else if (is_product(p->kind)) {
        bool shared = slot == V4_SHARED_W1 || slot == V4_SHARED_W3 || slot == V4_SHARED_W2;
        linear->module = module_of(from->tensor);
        linear->seen = mat_rows(layer->seen, slot, 1);
        linear->activation = p->kind == V4_LINEAR
                                 ? activation_for(v4->run, from->weight->format, shared)
                                 : ACTIVATION_BF16;
        load_linear(v4, linear, from, p->kind == V4_GROUPED ? v4->config.o_groups : 1);
    }
    layer->present[slot] = true;
}

void v4_load_expert(const struct v4 *v4, struct v4_linear *linear, const struct v4_weight *from,
                    struct mat seen)
{
    *linear = (struct v4_linear){.module = module_of(from->tensor), .seen = seen};
    linear->activation = activation_for(v4->run, from->weight->format, true);
    load_linear(v4, linear, from, 1);
}

void v4_expert_end(const struct v4 *v4, struct v4_linear *linear)
{
    for (unsigned i = 0; i < V4_EXPERT_MATRICES; i++)
        linear_end(v4, &linear[i]);
}
