/* DeepSeek-V4.1's attention: as V4's, but few layers compress keys and select blocks; the others
 * use those of the last one that did. */
#include <math.h>
#include <stdlib.h>

#include "base/die.h"
#include "forward/deepseek_v41/deepseek_v41.h"

/* ---- what layers leave to later ones ---- */

/* BF16 columns of an I32 or F32 one; and what a row's columns are a multiple of, since a GPU copies
 * keys by 16 bytes. */
enum { HALVES = 2, COLUMNS = 8 };

uint64_t v41_carried_columns(const struct v41 *v41)
{
    const struct v4_config *c = &v41->v4.config;
    uint64_t wide = c->head_dim + c->index_dim + HALVES * (c->index_best + v41->v4.network.copies);
    return (wide + COLUMNS - 1) / COLUMNS * COLUMNS;
}

struct v41_carried v41_carried(const struct v41 *v41, struct mat hidden)
{
    const struct network *n = &v41->v4.network;
    const struct v4_config *c = &v41->v4.config;
    uint64_t copies = n->copies * n->dim, key = copies, index = key + c->head_dim;
    uint64_t selected = index + c->index_dim, pre = selected + HALVES * c->index_best;
    return (struct v41_carried){
        .copies = mat_cols(hidden, 0, copies),
        .key = mat_cols(hidden, key, c->head_dim),
        .index_key = mat_cols(hidden, index, c->index_dim),
        .selected = mat_as(mat_cols(hidden, selected, HALVES * c->index_best), DTYPE_I32),
        .pre = mat_as(mat_cols(hidden, pre, HALVES * n->copies), DTYPE_F32)};
}

void v41_carried_begin(const struct v41 *v41, struct mat hidden)
{
    const struct network *n = &v41->v4.network;
    struct device *d = n->device;
    struct v41_carried carried = v41_carried(v41, hidden);
    struct mat other = mat_cols(hidden, n->copies * n->dim, n->carried);
    size_t most = (size_t)(hidden.rows * n->carried);
    uint16_t *zero = xalloc(most, sizeof *zero);
    float *first = xalloc((size_t)(hidden.rows * n->copies), sizeof *first);
    for (uint64_t i = 0; i < hidden.rows; i++)
        first[i * n->copies] = 1;
    struct mat from = d->make(d, DTYPE_BF16, hidden.rows, n->carried);
    struct mat pre = d->make(d, DTYPE_F32, hidden.rows, n->copies);
    d->write(d, from, zero);
    d->write(d, pre, first);
    d->copy(d, other, from);
    d->copy(d, carried.pre, pre);
    d->drop(d, from);
    d->drop(d, pre);
    free(zero);
    free(first);
}

/* ---- batches ---- */

void v41_batch_begin(const struct v41 *v41, struct v41_batch *batch, const uint64_t *start,
                     uint64_t samples, uint64_t ratio)
{
    struct device *d = v41->v4.network.device;
    v4_batch_begin(&v41->v4, &batch->v4, start, samples, ratio);
    uint64_t rows = batch->v4.rows, none = batch->v4.blocks, row = 0, block = 0;
    int32_t *first = xalloc((size_t)rows, sizeof *first);
    int32_t *spread = xalloc((size_t)rows, sizeof *spread);
    for (uint64_t s = 0; s < samples; s++) {
        uint64_t length = start[s + 1] - start[s], blocks = ratio ? length / ratio : 0;
        for (uint64_t i = 0; i < length; i++) {
            first[row + i] = (int32_t)row;
            spread[row + i] = (int32_t)(i < blocks ? block + i : none);
        }
        row += length;
        block += blocks;
    }
    d->drop(d, batch->v4.block);
    batch->v4.block = mat_numbers(d, first, rows);
    batch->spread = mat_numbers(d, spread, rows);
}

void v41_batch_end(const struct v41 *v41, struct v41_batch *batch)
{
    v4_batch_end(&v41->v4, &batch->v4);
    v41->v4.network.device->drop(v41->v4.network.device, batch->spread);
}

/* ---- keys ---- */

/* y [blocks, head_dim] = the latent of each block of tokens, from x. */
static void compress(const struct v41 *v41, struct layer *layer, const struct v41_batch *batch,
                     struct mat y, struct mat x)
{
    struct device *d = v41->v4.network.device;
    uint64_t ratio = v4_ratio(layer);
    if (ratio == 1) {
        layer_apply(layer, V4_COMPRESS_WKV, y, x);
        layer_norm(layer, V4_COMPRESS_NORM, y, y);
        return;
    }
    struct mat kv = d->make(d, DTYPE_F32, x.rows, y.cols);
    struct mat score = d->make(d, DTYPE_F32, x.rows, y.cols);
    struct mat ape = d->make(d, DTYPE_F32, ratio, y.cols); /* V4.1 has none */
    float *zero = xalloc((size_t)(ratio * y.cols), sizeof *zero);
    d->write(d, ape, zero);
    free(zero);
    layer_apply(layer, V4_COMPRESS_WKV, kv, x);
    layer_apply(layer, V4_COMPRESS_WGATE, score, x);
    d->pool(d, y, kv, score, ape, batch->v4.block_first, batch->v4.block_number);
    layer_norm(layer, V4_COMPRESS_NORM, y, y);
    d->drop(d, kv);
    d->drop(d, score);
    d->drop(d, ape);
}

/* Room for rows of all blocks, and a row of zeros after them. */
static struct mat make_blocks(struct device *d, const struct v41_batch *batch, uint64_t cols)
{
    struct mat m = d->make(d, DTYPE_BF16, batch->v4.blocks + 1, cols);
    uint16_t *zero = xalloc((size_t)cols, sizeof *zero);
    d->write(d, mat_rows(m, batch->v4.blocks, 1), zero);
    free(zero);
    return m;
}

void v41_make_keys(const struct v41 *v41, struct layer *layer, const struct v41_batch *batch,
                   const struct v41_carried *carried, struct mat x)
{
    struct device *d = v41->v4.network.device;
    const struct mat angles = v4_angles(&v41->v4, layer), at = batch->v4.block_position;
    const struct mat none = {0};
    struct mat all = make_blocks(d, batch, carried->key.cols);
    struct mat all_index = make_blocks(d, batch, carried->index_key.cols);
    struct mat latent = mat_rows(all, 0, batch->v4.blocks);
    struct mat index = mat_rows(all_index, 0, batch->v4.blocks);
    if (batch->v4.blocks) {
        compress(v41, layer, batch, latent, x);
        layer_apply(layer, V4_INDEX_WK, index, latent); /* before the latent is rotated */
        layer_norm(layer, V4_INDEX_K_NORM, index, index);
        d->rotate(d, index, index.cols, angles, at, false);
        d->quantize(d, index, index, ACTIVATION_FP4, 0, none);
        d->rotate(d, latent, latent.cols, angles, at, false);
        d->quantize(d, latent, latent, ACTIVATION_NVFP4, 1, none);
    }
    d->gather(d, carried->key, all, batch->spread, none);
    d->gather(d, carried->index_key, all_index, batch->spread, none);
    d->drop(d, all);
    d->drop(d, all_index);
}

/* ---- the selection ---- */

void v41_select(const struct v41 *v41, struct layer *layer, const struct v41_batch *batch,
                const struct v41_carried *carried, struct mat x, struct mat low)
{
    const struct v4_config *c = &v41->v4.config;
    struct device *d = v41->v4.network.device;
    struct mat q = d->make(d, DTYPE_BF16, x.rows, c->index_heads * c->index_dim);
    struct mat weight = d->make(d, DTYPE_BF16, x.rows, c->index_heads);
    const struct keys keys = {.compressed = carried->index_key,
                              .position = batch->v4.position,
                              .block = batch->v4.block,
                              .ratio = v4_ratio(layer)};
    layer_apply(layer, V4_INDEX_WQ_B, q, low);
    d->rotate(d, q, c->index_dim, v4_angles(&v41->v4, layer), batch->v4.position, false);
    d->quantize(d, q, q, ACTIVATION_FP4, 0, (struct mat){0});
    layer_apply(layer, V4_INDEX_WEIGHTS, weight, x);
    d->scale(d, weight, (float)(1 / sqrt((double)c->index_dim) / sqrt((double)c->index_heads)));
    d->select(d, carried->selected, q, &keys, weight);
    d->drop(d, q);
    d->drop(d, weight);
}

void v41_attention(const struct v41 *v41, struct layer *layer, const struct v41_batch *batch,
                   const struct v41_carried *carried, struct mat y, struct mat x)
{
    const struct v4_config *c = &v41->v4.config;
    struct device *d = v41->v4.network.device;
    uint64_t seen = v4_ratio(layer) ? x.rows : 0, best = seen ? c->index_best : 0;
    struct mat low = d->make(d, DTYPE_BF16, x.rows, c->q_rank);
    struct mat q = d->make(d, DTYPE_BF16, x.rows, c->heads * c->head_dim);
    struct mat kv = d->make(d, DTYPE_BF16, x.rows, c->head_dim);
    struct mat o = d->make(d, DTYPE_BF16, x.rows, c->heads * c->head_dim);
    v4_project(&v41->v4, layer, &batch->v4, low, q, kv, x);
    if (v41->key_source[layer->number])
        v41_make_keys(v41, layer, batch, carried, x);
    if (v41->index_source[layer->number])
        v41_select(v41, layer, batch, carried, x, low);
    v4_attend(&v41->v4, layer, &batch->v4, o, q, kv, mat_rows(carried->key, 0, seen),
              mat_cols(carried->selected, 0, best));
    v4_output(&v41->v4, layer, y, o);
    d->drop(d, low);
    d->drop(d, q);
    d->drop(d, kv);
    d->drop(d, o);
}
