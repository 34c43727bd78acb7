/* DeepSeek-V4's attention: all heads share one key, which is also the value; recent tokens are seen
 * in a window, earlier ones in compressed blocks. */
#include <math.h>
#include <stdlib.h>

#include "base/die.h"
#include "forward/deepseek_v4/deepseek_v4.h"

/* ---- batches ---- */

void v4_batch_begin(const struct v4 *v4, struct v4_batch *batch, const uint64_t *start,
                    uint64_t samples, uint64_t ratio)
{
    uint64_t rows = start[samples] - start[0], blocks = 0, row = 0;
    for (uint64_t s = 0; s < samples && ratio; s++)
        blocks += (start[s + 1] - start[s]) / ratio;
    int32_t *position = xalloc((size_t)rows, sizeof *position);
    int32_t *block = xalloc((size_t)rows, sizeof *block);
    int32_t *first = xalloc((size_t)blocks, sizeof *first);
    int32_t *number = xalloc((size_t)blocks, sizeof *number);
    int32_t *at = xalloc((size_t)blocks, sizeof *at);
    uint64_t b = 0;
    for (uint64_t s = 0; s < samples; s++) {
        uint64_t length = start[s + 1] - start[s], own = b;
        for (uint64_t i = 0; ratio && i < length / ratio; i++, b++) {
            first[b] = (int32_t)(row + i * ratio);
            number[b] = (int32_t)i;
            at[b] = (int32_t)(i * ratio);
        }
        for (uint64_t i = 0; i < length; i++, row++) {
            position[row] = (int32_t)i;
            block[row] = (int32_t)own;
        }
    }
    *batch = (struct v4_batch){.rows = rows, .blocks = blocks};
    batch->position = mat_numbers(v4->network.device, position, rows);
    batch->block = mat_numbers(v4->network.device, block, rows);
    batch->block_first = mat_numbers(v4->network.device, first, blocks);
    batch->block_number = mat_numbers(v4->network.device, number, blocks);
    batch->block_position = mat_numbers(v4->network.device, at, blocks);
}

void v4_batch_end(const struct v4 *v4, struct v4_batch *batch)
{
    struct device *d = v4->network.device;
    d->drop(d, batch->position);
    d->drop(d, batch->block);
    d->drop(d, batch->block_first);
    d->drop(d, batch->block_number);
    d->drop(d, batch->block_position);
}

/* ---- steps ---- */

struct mat v4_angles(const struct v4 *v4, const struct layer *layer)
{
    return v4_ratio(layer) ? v4->compress_angles : v4->angles;
}

void v4_project(const struct v4 *v4, struct layer *layer, const struct v4_batch *batch,
                struct mat low, struct mat q, struct mat kv, struct mat x)
{
    const struct v4_config *c = &v4->config;
    struct device *d = v4->network.device;
    struct mat table = v4_angles(v4, layer);
    layer_apply(layer, V4_WQ_A, low, x);
    layer_norm(layer, V4_Q_NORM, low, low);
    layer_apply_seeing(layer, V4_WQ_B, q, low, c->unit_queries ? SEES_INPUT : SEES_BOTH);
    if (c->unit_queries)
        d->unit(d, q, c->head_dim, v4->network.norm_eps,
                linear_seen(&layer->piece[V4_WQ_B].linear, SEEN_OUTPUT));
    d->rotate(d, q, c->head_dim, table, batch->position, false);
    layer_apply(layer, V4_WKV, kv, x);
    layer_norm(layer, V4_KV_NORM, kv, kv);
    d->rotate(d, kv, c->head_dim, table, batch->position, false);
    /* V4's reference also quantizes kv in place, but rounds the result to BF16: no change. */
    if (c->round_keys)
        d->quantize(d, kv, kv, v4->network.fp8, 0, (struct mat){0});
}

void v4_compress(const struct v4 *v4, struct layer *layer, enum v4_piece ape,
                 const struct v4_batch *batch, struct mat y, struct mat x)
{
    struct device *d = v4->network.device;
    uint64_t channels = layer->piece[ape].cols;
    struct mat kv = d->make(d, DTYPE_F32, x.rows, channels);
    struct mat score = d->make(d, DTYPE_F32, x.rows, channels);
    layer_apply(layer, ape + V4_APE_WKV, kv, x);
    layer_apply(layer, ape + V4_APE_WGATE, score, x);
    d->pool(d, y, kv, score, layer->piece[ape].vector, batch->block_first, batch->block_number);
    layer_norm(layer, ape + V4_APE_NORM, y, y);
    d->rotate(d, y, y.cols, v4_angles(v4, layer), batch->block_position, false);
    d->drop(d, kv);
    d->drop(d, score);
}

uint64_t v4_index_best(const struct v4 *v4, const struct layer *layer, const struct v4_batch *batch)
{
    bool indexed = layer->piece[V4_INDEX_WQ_B].kind != PIECE_ABSENT;
    uint64_t best = v4->config.index_best;
    return !indexed ? 0 : batch->blocks < best ? batch->blocks : best;
}

/* Hadamard transform and FP4, for the indexer's queries and keys. */
static void index_form(const struct v4 *v4, struct mat x)
{
    struct device *d = v4->network.device;
    d->hadamard(d, x, v4->config.index_dim);
    d->quantize(d, x, x, ACTIVATION_FP4, 0, (struct mat){0});
}

void v4_index_parts(const struct v4 *v4, struct layer *layer, const struct v4_batch *batch,
                    struct mat q, struct mat key, struct mat weight, struct mat x, struct mat low)
{
    const struct v4_config *c = &v4->config;
    struct device *d = v4->network.device;
    layer_apply(layer, V4_INDEX_WQ_B, q, low);
    d->rotate(d, q, c->index_dim, v4_angles(v4, layer), batch->position, false);
    index_form(v4, q);
    v4_compress(v4, layer, V4_INDEX_APE, batch, key, x);
    index_form(v4, key);
    layer_apply(layer, V4_INDEX_WEIGHTS, weight, x);
    d->scale(d, weight, (float)(1 / sqrt((double)c->index_dim) / sqrt((double)c->index_heads)));
}

void v4_index(const struct v4 *v4, struct layer *layer, const struct v4_batch *batch,
              struct mat selected, struct mat x, struct mat low)
{
    const struct v4_config *c = &v4->config;
    struct device *d = v4->network.device;
    struct mat q = d->make(d, DTYPE_BF16, x.rows, c->index_heads * c->index_dim);
    struct mat key = d->make(d, DTYPE_BF16, batch->blocks, c->index_dim);
    struct mat weight = d->make(d, DTYPE_BF16, x.rows, c->index_heads);
    v4_index_parts(v4, layer, batch, q, key, weight, x, low);
    const struct keys keys = {.compressed = key,
                              .position = batch->position,
                              .block = batch->block,
                              .ratio = v4_ratio(layer)};
    d->select(d, selected, q, &keys, weight);
    d->drop(d, q);
    d->drop(d, key);
    d->drop(d, weight);
}

void v4_attend(const struct v4 *v4, const struct layer *layer, const struct v4_batch *batch,
               struct mat o, struct mat q, struct mat kv, struct mat compressed,
               struct mat selected)
{
    const struct attended then = {v4_angles(v4, layer),
                                  linear_seen(&layer->piece[V4_WO_A].linear, SEEN_INPUT)};
    const struct v4_config *c = &v4->config;
    const struct keys keys = {.window = kv,
                              .compressed = compressed,
                              .position = batch->position,
                              .block = batch->block,
                              .selected = selected,
                              .sliding = at_most(c->window, kv.rows),
                              .ratio = v4_ratio(layer)};
    v4->network.device->attend(v4->network.device, o, q, &keys, layer->piece[V4_SINK].vector,
                               (float)(1 / sqrt((double)c->head_dim)), &then);
}

void v4_output(const struct v4 *v4, struct layer *layer, struct mat y, struct mat o)
{
    const struct v4_config *c = &v4->config;
    struct device *d = v4->network.device;
    struct mat low = d->make(d, DTYPE_BF16, o.rows, c->o_groups * c->o_rank);
    layer_apply_seeing(layer, V4_WO_A, low, o, SEES_NEITHER); /* low is seen as wo_b's input */
    layer_apply(layer, V4_WO_B, y, low);
    d->drop(d, low);
}

void v4_attention(const struct v4 *v4, struct layer *layer, const struct v4_batch *batch,
                  struct mat y, struct mat x)
{
    const struct v4_config *c = &v4->config;
    struct device *d = v4->network.device;
    uint64_t best = v4_index_best(v4, layer, batch);
    struct mat low = d->make(d, DTYPE_BF16, x.rows, c->q_rank);
    struct mat q = d->make(d, DTYPE_BF16, x.rows, c->heads * c->head_dim);
    struct mat kv = d->make(d, DTYPE_BF16, x.rows, c->head_dim);
    struct mat compressed = d->make(d, DTYPE_BF16, batch->blocks, c->head_dim);
    struct mat selected = d->make(d, DTYPE_I32, x.rows, best);
    v4_project(v4, layer, batch, low, q, kv, x);
    if (best)
        v4_index(v4, layer, batch, selected, x, low);
    if (batch->blocks)
        v4_compress(v4, layer, V4_APE, batch, compressed, x);
    struct mat o = d->make(d, DTYPE_BF16, x.rows, c->heads * c->head_dim);
    v4_attend(v4, layer, batch, o, q, kv, compressed, selected);
    v4_output(v4, layer, y, o);
    d->drop(d, low);
    d->drop(d, q);
    d->drop(d, kv);
    d->drop(d, compressed);
    d->drop(d, selected);
    d->drop(d, o);
}
