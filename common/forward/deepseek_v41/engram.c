/* Engram: n-grams that end at a token look up rows of a table; a product makes a key for each copy
 * of the hidden state and one value of them, which is added where the key fits the copy. */
#include <math.h>
#include <stdlib.h>

#include "base/die.h"
#include "base/parallel.h"
#include "forward/deepseek_v41/deepseek_v41.h"
#include "tensor/bf16.h"

/* Tokens at a time: keys take several times the memory of hidden states. */
enum { ENGRAM_TOKENS = 1024 };

/* ---- the gate: in the host's memory, since it takes little time ---- */

/* A row of one copy. Sums are taken in double and rounded once, as the CPU device does. */
static void add_value(uint16_t *copy, const uint16_t *key, const uint16_t *value,
                      const float *weight, uint64_t dim, float eps)
{
    double copy_square = 0, key_square = 0, product = 0;
    for (uint64_t j = 0; j < dim; j++) {
        float h = bf16_to_f32(copy[j]), k = bf16_to_f32(key[j]);
        copy_square += (double)h * (double)h;
        key_square += (double)k * (double)k;
        product += (double)(h * weight[j] * k);
    }
    float scale = 1 / sqrtf((float)copy_square / (float)dim + eps);
    scale *= 1 / sqrtf((float)key_square / (float)dim + eps);
    float fit = (float)product * scale * (float)(1 / sqrt((double)dim));
    float gate = 1 / (1 + expf(-copysignf(sqrtf(fmaxf(fabsf(fit), 1e-6F)), fit)));
    for (uint64_t j = 0; j < dim; j++)
        copy[j] = bf16_from_f32(bf16_to_f32(copy[j]) + gate * bf16_to_f32(value[j]));
}

/* The product of the layer's two weights of each copy, which the caller frees. */
static float *gate_weights(struct layer *layer)
{
    const struct network *n = layer->network;
    struct device *d = n->device;
    size_t count = (size_t)(n->copies * n->dim);
    float *weight = xalloc(count, sizeof *weight), *other = xalloc(count, sizeof *other);
    d->read(d, weight, layer->piece[V4_ENGRAM_Q].vector);
    d->read(d, other, layer->piece[V4_ENGRAM_K].vector);
    for (size_t i = 0; i < count; i++)
        weight[i] *= other[i];
    free(other);
    return weight;
}

/* What gate_rows() adds to, and what it adds. */
struct gating {
    const struct network *n;
    uint16_t *hidden; /* [rows, copies * dim] */
    const uint16_t *kv;
    const float *weight;
};

static void gate_rows(void *context, unsigned thread, uint64_t first, uint64_t last)
{
    const struct gating *g = context;
    uint64_t copies = g->n->copies, dim = g->n->dim;
    (void)thread;
    for (uint64_t i = first; i < last; i++) {
        const uint16_t *keys = g->kv + i * (copies + 1) * dim;
        for (uint64_t k = 0; k < copies; k++)
            add_value(g->hidden + (i * copies + k) * dim, keys + k * dim, keys + copies * dim,
                      g->weight + k * dim, dim, g->n->norm_eps);
    }
}

/* Add to the copies what kv [rows, (copies + 1) * dim], the keys and the value, have. */
static void gate_all(struct layer *layer, struct mat copies, struct mat kv)
{
    const struct network *n = layer->network;
    struct device *d = n->device;
    uint64_t wide = copies.cols;
    float *weight = gate_weights(layer);
    uint16_t *hidden = xalloc((size_t)(copies.rows * wide), sizeof *hidden);
    uint16_t *keys = xalloc((size_t)(kv.rows * kv.cols), sizeof *keys);
    struct mat whole = d->make(d, DTYPE_BF16, copies.rows, wide);
    d->copy(d, whole, copies);
    d->read(d, hidden, whole);
    d->read(d, keys, kv);
    struct parallel *threads = parallel_new(d->threads ? d->threads : parallel_processors());
    parallel_for(threads, copies.rows, 1, gate_rows, &(struct gating){n, hidden, keys, weight});
    parallel_free(threads);
    d->write(d, whole, hidden);
    d->copy(d, copies, whole);
    d->drop(d, whole);
    free(weight);
    free(hidden);
    free(keys);
}

/* ---- looking up ---- */

/* Tokens first … first + copies.rows - 1 of a sample, whose ids are id[]. */
static void add_tokens(const struct v41 *v41, struct layer *layer, struct mat copies,
                       const int32_t *id, uint64_t first)
{
    const struct engram *engram = &v41->engram;
    struct device *d = v41->v4.network.device;
    uint64_t rows = copies.rows, columns = engram_columns(engram);
    int32_t *number = xalloc((size_t)(rows * columns), sizeof *number);
    uint16_t *value = xalloc((size_t)(rows * columns * engram->dim), sizeof *value);
    engram_rows(engram, engram_hash_of(engram, layer->number), id, first, rows, number);
    row_table_read(&layer->piece[V4_ENGRAM_TABLE].by_number, number, rows * columns, value);
    struct mat e = d->make(d, DTYPE_BF16, rows, columns * engram->dim);
    struct mat kv = d->make(d, DTYPE_BF16, rows, copies.cols + v41->v4.network.dim);
    d->write(d, e, value);
    layer_apply(layer, V4_ENGRAM_WKV, kv, e);
    gate_all(layer, copies, kv);
    d->drop(d, e);
    d->drop(d, kv);
    free(number);
    free(value);
}

void v41_engram(const struct v41 *v41, struct layer *layer, struct mat copies,
                const uint64_t *start, uint64_t samples, const int32_t *id)
{
    for (uint64_t s = 0; s < samples; s++) {
        uint64_t row = start[s] - start[0], length = start[s + 1] - start[s];
        for (uint64_t i = 0; i < length; i += ENGRAM_TOKENS)
            add_tokens(v41, layer, mat_rows(copies, row + i, at_most(length - i, ENGRAM_TOKENS)),
                       id + row, i);
    }
}
