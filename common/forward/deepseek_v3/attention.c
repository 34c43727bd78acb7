/* DeepSeek-V3's multi-head latent attention. */
#include <stdlib.h>

#include "base/die.h"
#include "forward/deepseek_v3/deepseek_v3.h"

/* ---- batches ---- */

void v3_batch_begin(const struct v3 *v3, struct v3_batch *batch, const uint64_t *start,
                    uint64_t samples)
{
    uint64_t rows = start[samples] - start[0], row = 0;
    int32_t *position = xalloc((size_t)rows, sizeof *position);
    int32_t *first = xalloc((size_t)rows, sizeof *first);
    *batch = (struct v3_batch){.rows = rows};
    for (uint64_t s = 0; s < samples; s++) {
        uint64_t length = start[s + 1] - start[s], own = row;
        for (uint64_t i = 0; i < length; i++, row++) {
            position[row] = (int32_t)i;
            first[row] = (int32_t)own;
        }
        batch->longest = length > batch->longest ? length : batch->longest;
    }
    batch->position = mat_numbers(v3->network.device, position, rows);
    batch->first = mat_numbers(v3->network.device, first, rows);
}

void v3_batch_end(const struct v3 *v3, struct v3_batch *batch)
{
    v3->network.device->drop(v3->network.device, batch->position);
    v3->network.device->drop(v3->network.device, batch->first);
}

/* ---- queries and keys ---- */

void v3_queries(const struct v3 *v3, struct layer *layer, const struct v3_batch *batch,
                struct mat low, struct mat q, struct mat x)
{
    const struct v3_config *c = &v3->config;
    struct device *d = v3->network.device;
    if (c->q_rank) {
        layer_apply(layer, V3_Q_A, low, x);
        layer_norm(layer, V3_Q_NORM, low, low);
        layer_apply(layer, V3_Q_B, q, low);
    } else {
        layer_apply(layer, V3_Q_PROJ, q, x);
    }
    d->rotate(d, q, c->nope_dim + c->rope.dim, v3->angles, batch->position, false);
}

void v3_keys(const struct v3 *v3, struct layer *layer, const struct v3_batch *batch, struct mat kv,
             struct mat x)
{
    struct device *d = v3->network.device;
    struct mat latent = mat_cols(kv, 0, v3->config.kv_rank);
    layer_apply(layer, V3_KV_A, kv, x);
    layer_norm(layer, V3_KV_NORM, latent, latent);
    d->rotate(d, kv, kv.cols, v3->angles, batch->position, false);
    if (v3->config.index_best) /* V3.2 computes with what a cache in FP8 would hold */
        d->quantize(d, latent, latent, v3->rounding, 0, (struct mat){0});
}

/* ---- the indexer ---- */

/* RoPE, Hadamard transform and FP8, for the indexer's queries and keys. The scale of each head
 * multiplies its `factor`. */
static void index_form(const struct v3 *v3, const struct v3_batch *batch, struct mat x,
                       struct mat factor)
{
    struct device *d = v3->network.device;
    uint64_t width = v3->config.index_dim;
    struct mat heads = mat_shaped(x, width);
    d->rotate_halves(d, x, width, v3->angles, batch->position);
    d->hadamard(d, x, width);
    d->encode(d, heads, heads, mat_shaped(factor, 1), v3->rounding == ACTIVATION_FP8);
}

static void set_to_one(struct device *d, struct mat m)
{
    float *one = xalloc((size_t)m.rows, sizeof *one);
    for (uint64_t i = 0; i < m.rows; i++)
        one[i] = 1;
    d->write(d, m, one);
    free(one);
}

void v3_index_parts(const struct v3 *v3, struct layer *layer, const struct v3_batch *batch,
                    const struct v3_index *index, struct mat x, struct mat low)
{
    struct device *d = v3->network.device;
    layer_apply(layer, V3_INDEX_WEIGHTS, index->weight, x);
    layer_apply(layer, V3_INDEX_Q, index->q, low);
    index_form(v3, batch, index->q, index->weight);
    set_to_one(d, index->scale);
    layer_apply(layer, V3_INDEX_K, index->key, x);
    d->layer_norm(d, index->key, index->key, layer->piece[V3_INDEX_K_NORM].vector,
                  layer->piece[V3_INDEX_K_BIAS].vector, v3->network.norm_eps);
    index_form(v3, batch, index->key, index->scale);
}

void v3_index_select(const struct v3 *v3, struct layer *layer, const struct v3_batch *batch,
                     struct mat selected, struct mat x, struct mat low)
{
    const struct v3_config *c = &v3->config;
    struct device *d = v3->network.device;
    const struct v3_index index = {
        .q = d->make(d, DTYPE_BF16, x.rows, c->index_heads * c->index_dim),
        .key = d->make(d, DTYPE_BF16, x.rows, c->index_dim),
        .weight = d->make(d, DTYPE_F32, x.rows, c->index_heads),
        .scale = d->make(d, DTYPE_F32, x.rows, 1)};
    v3_index_parts(v3, layer, batch, &index, x, low);
    const struct keys keys = {.compressed = index.key,
                              .scale = index.scale,
                              .position = batch->position,
                              .block = batch->first,
                              .ratio = 1};
    d->select(d, selected, index.q, &keys, index.weight);
    d->drop(d, index.q);
    d->drop(d, index.key);
    d->drop(d, index.weight);
    d->drop(d, index.scale);
}

/* ---- attention ---- */

/* The part of queries and keys that is rotated; all heads share the key's. */
static void rotated_parts(const struct v3 *v3, struct causal *causal, struct mat q, struct mat kv)
{
    const struct v3_config *c = &v3->config;
    uint64_t own = c->nope_dim + c->rope.dim;
    causal->q[1] = (struct head_cols){q, c->nope_dim, c->rope.dim, own};
    causal->key[1] = (struct head_cols){kv, c->kv_rank, c->rope.dim, 0};
}

/* V3: all heads share the latent, as key and value. Each head's part of kv_b_proj is absorbed by
 * its query before, and by its output after. */
static void attend_absorbed(const struct v3 *v3, struct layer *layer, struct causal *causal,
                            struct mat o, struct mat q, struct mat kv)
{
    const struct v3_config *c = &v3->config;
    struct device *d = v3->network.device;
    struct linear *kv_b = &layer->piece[V3_KV_B].linear;
    uint64_t rank = c->kv_rank, own = c->nope_dim + c->rope.dim, values = c->value_dim;
    struct mat absorbed = d->make(d, DTYPE_BF16, q.rows, c->heads * rank);
    struct mat latent = d->make(d, DTYPE_BF16, q.rows, c->heads * rank);
    for (uint64_t h = 0; h < c->heads; h++)
        d->product(d, mat_cols(absorbed, h * rank, rank), mat_cols(q, h * own, c->nope_dim),
                   kv_b->transposed[h]);
    causal->q[0] = (struct head_cols){absorbed, 0, rank, rank};
    causal->key[0] = causal->value = (struct head_cols){kv, 0, rank, 0};
    causal->rounds_parts = true;
    d->attend_causal(d, latent, causal);
    for (uint64_t h = 0; h < c->heads; h++)
        d->product(d, mat_cols(o, h * values, values), mat_cols(latent, h * rank, rank),
                   kv_b->operand[h]);
    linear_observe(d, kv_b, o, mat_cols(kv, 0, rank));
    d->drop(d, absorbed);
    d->drop(d, latent);
}

/* V3.2: each head has its own keys and values. */
static void attend_expanded(const struct v3 *v3, struct layer *layer, struct causal *causal,
                            struct mat o, struct mat q, struct mat kv)
{
    const struct v3_config *c = &v3->config;
    struct device *d = v3->network.device;
    uint64_t own = c->nope_dim + c->rope.dim, both = c->nope_dim + c->value_dim;
    struct mat expanded = d->make(d, DTYPE_BF16, q.rows, c->heads * both);
    layer_apply(layer, V3_KV_B, expanded, mat_cols(kv, 0, c->kv_rank));
    causal->q[0] = (struct head_cols){q, 0, c->nope_dim, own};
    causal->key[0] = (struct head_cols){expanded, 0, c->nope_dim, both};
    causal->value = (struct head_cols){expanded, c->nope_dim, c->value_dim, both};
    d->attend_causal(d, o, causal);
    d->drop(d, expanded);
}

void v3_attend(const struct v3 *v3, struct layer *layer, const struct v3_batch *batch, struct mat o,
               struct mat q, struct mat kv, struct mat selected)
{
    const struct v3_config *c = &v3->config;
    struct causal causal = {.heads = c->heads,
                            .position = batch->position,
                            .first = batch->first,
                            .selected = selected,
                            .longest = batch->longest,
                            .scale = c->logit_scale};
    rotated_parts(v3, &causal, q, kv);
    (c->index_best ? attend_expanded : attend_absorbed)(v3, layer, &causal, o, q, kv);
}

void v3_attention(const struct v3 *v3, struct layer *layer, const struct v3_batch *batch,
                  struct mat y, struct mat x)
{
    const struct v3_config *c = &v3->config;
    struct device *d = v3->network.device;
    uint64_t best = batch->longest < c->index_best ? batch->longest : c->index_best;
    struct mat low = d->make(d, DTYPE_BF16, x.rows, c->q_rank);
    struct mat q = d->make(d, DTYPE_BF16, x.rows, c->heads * (c->nope_dim + c->rope.dim));
    struct mat kv = d->make(d, DTYPE_BF16, x.rows, c->kv_rank + c->rope.dim);
    struct mat o = d->make(d, DTYPE_BF16, x.rows, c->heads * c->value_dim);
    struct mat selected = d->make(d, DTYPE_I32, x.rows, best);
    v3_queries(v3, layer, batch, low, q, x);
    v3_keys(v3, layer, batch, kv, x);
    if (best)
        v3_index_select(v3, layer, batch, selected, x, low);
    v3_attend(v3, layer, batch, o, q, kv, selected);
    layer_apply(layer, V3_O_PROJ, y, o);
    d->drop(d, low);
    d->drop(d, q);
    d->drop(d, kv);
    d->drop(d, o);
    d->drop(d, selected);
}
