/* DeepSeek-V4's attention: one key for all heads, which is the value, too; the last tokens as they
 * are, those before them in compressed blocks. */
#include <math.h>
#include <stdlib.h>

#include "base/die.h"
#include "forward/deepseek_v4/deepseek_v4.h"

/* ---- angles ---- */

/* The dimension that turns `turns` times over the original length. */
static double dimension_of(const struct v4_config *c, double turns, double base)
{
    double pi = 3.14159265358979323846;
    return (double)c->rope_dim * log((double)c->original_length / (turns * 2 * pi)) /
           (2 * log(base));
}

/* Each pair's angle per position; YaRN's interpolation where `stretched`. In F32 where the
 * reference has F32. */
static void frequencies(const struct v4_config *c, double base, bool stretched, float *frequency)
{
    uint64_t pairs = c->rope_dim / 2;
    double low = 0, high = 0;
    if (stretched) {
        low = fmax(floor(dimension_of(c, c->beta_fast, base)), 0);
        high = fmin(ceil(dimension_of(c, c->beta_slow, base)), (double)c->rope_dim - 1);
        if (low == high)
            high += 0.001;
    }
    for (uint64_t i = 0; i < pairs; i++) {
        float f = 1 / powf((float)base, (float)(2 * i) / (float)c->rope_dim);
        if (stretched) {
            float ramp = ((float)i - (float)low) / (float)(high - low);
            float smooth = 1 - fminf(fmaxf(ramp, 0), 1);
            f = f / (float)c->rope_factor * (1 - smooth) + f * smooth;
        }
        frequency[i] = f;
    }
}

static struct mat angles(struct device *d, const struct v4_config *c, double base, bool stretched,
                         uint64_t length)
{
    uint64_t pairs = c->rope_dim / 2;
    float *frequency = xalloc((size_t)pairs, sizeof *frequency);
    float *table = xalloc((size_t)(length * c->rope_dim), sizeof *table);
    frequencies(c, base, stretched, frequency);
    for (uint64_t t = 0; t < length; t++)
        for (uint64_t i = 0; i < pairs; i++) {
            float angle = (float)t * frequency[i];
            table[t * c->rope_dim + 2 * i] = cosf(angle);
            table[t * c->rope_dim + 2 * i + 1] = sinf(angle);
        }
    struct mat m = d->make(d, DTYPE_F32, length, c->rope_dim);
    d->write(d, m, table);
    free(frequency);
    free(table);
    return m;
}

void v4_begin(struct v4 *v4, const struct forward *run, uint64_t length)
{
    struct device *d = run->device;
    *v4 = (struct v4){.run = run, .device = d};
    v4_config_read(&v4->config, run->in);
    const struct v4_config *c = &v4->config;
    v4->angles = angles(d, c, c->rope_theta, false, length);
    v4->compress_angles = angles(d, c, c->compress_theta, c->original_length > 0, length);
}

void v4_end(struct v4 *v4)
{
    v4->device->drop(v4->device, v4->angles);
    v4->device->drop(v4->device, v4->compress_angles);
    v4_config_free(&v4->config);
}

/* ---- batches ---- */

static struct mat numbers(struct device *d, int32_t *value, uint64_t count)
{
    struct mat m = d->make(d, DTYPE_I32, count, 1);
    d->write(d, m, value);
    free(value);
    return m;
}

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
    batch->position = numbers(v4->device, position, rows);
    batch->block = numbers(v4->device, block, rows);
    batch->block_first = numbers(v4->device, first, blocks);
    batch->block_number = numbers(v4->device, number, blocks);
    batch->block_position = numbers(v4->device, at, blocks);
}

void v4_batch_end(const struct v4 *v4, struct v4_batch *batch)
{
    struct device *d = v4->device;
    d->drop(d, batch->position);
    d->drop(d, batch->block);
    d->drop(d, batch->block_first);
    d->drop(d, batch->block_number);
    d->drop(d, batch->block_position);
}

/* ---- steps ---- */

/* Compressed layers turn by angles of their own, for all their keys and queries. */
static struct mat angles_of(const struct v4 *v4, const struct v4_layer *layer)
{
    return layer->ratio ? v4->compress_angles : v4->angles;
}

void v4_project(const struct v4 *v4, struct v4_layer *layer, const struct v4_batch *batch,
                struct mat low, struct mat q, struct mat kv, struct mat x)
{
    const struct v4_config *c = &v4->config;
    struct device *d = v4->device;
    struct mat table = angles_of(v4, layer);
    v4_linear(v4, &layer->linear[V4_WQ_A], low, x);
    v4_norm(v4, layer, V4_Q_NORM, low, low);
    v4_linear(v4, &layer->linear[V4_WQ_B], q, low);
    d->unit(d, q, c->head_dim, c->norm_eps);
    d->rotate(d, q, c->head_dim, table, batch->position, false);
    /* The reference then quantizes kv in place, but rounds to BF16 what it has there: no change. */
    v4_linear(v4, &layer->linear[V4_WKV], kv, x);
    v4_norm(v4, layer, V4_KV_NORM, kv, kv);
    d->rotate(d, kv, c->head_dim, table, batch->position, false);
}

void v4_compress(const struct v4 *v4, struct v4_layer *layer, enum v4_slot ape,
                 const struct v4_batch *batch, struct mat y, struct mat x)
{
    struct device *d = v4->device;
    struct v4_linear *wkv = &layer->linear[ape + V4_APE_WKV];
    uint64_t channels = layer->piece[ape].cols;
    struct mat kv = d->make(d, DTYPE_F32, x.rows, channels);
    struct mat score = d->make(d, DTYPE_F32, x.rows, channels);
    v4_linear(v4, wkv, kv, x);
    v4_linear(v4, &layer->linear[ape + V4_APE_WGATE], score, x);
    d->pool(d, y, kv, score, layer->vector[ape], batch->block_first, batch->block_number);
    v4_norm(v4, layer, (enum v4_slot)(ape + V4_APE_NORM), y, y);
    d->rotate(d, y, y.cols, angles_of(v4, layer), batch->block_position, false);
    d->drop(d, kv);
    d->drop(d, score);
}

uint64_t v4_index_best(const struct v4 *v4, const struct v4_layer *layer,
                       const struct v4_batch *batch)
{
    bool indexed = layer->piece[V4_INDEX_WQ_B].kind != V4_ABSENT;
    uint64_t best = v4->config.index_best;
    return !indexed ? 0 : batch->blocks < best ? batch->blocks : best;
}

/* Hadamard and FP4, as the indexer has its queries and keys. */
static void index_form(const struct v4 *v4, struct mat x)
{
    struct device *d = v4->device;
    d->hadamard(d, x, v4->config.index_dim);
    d->quantize(d, x, x, ACTIVATION_FP4, 0);
}

void v4_index_parts(const struct v4 *v4, struct v4_layer *layer, const struct v4_batch *batch,
                    struct mat q, struct mat key, struct mat weight, struct mat x, struct mat low)
{
    const struct v4_config *c = &v4->config;
    struct device *d = v4->device;
    v4_linear(v4, &layer->linear[V4_INDEX_WQ_B], q, low);
    d->rotate(d, q, c->index_dim, angles_of(v4, layer), batch->position, false);
    index_form(v4, q);
    v4_compress(v4, layer, V4_INDEX_APE, batch, key, x);
    index_form(v4, key);
    v4_linear(v4, &layer->linear[V4_INDEX_WEIGHTS], weight, x);
    d->scale(d, weight, (float)(1 / sqrt((double)c->index_dim) / sqrt((double)c->index_heads)));
}

void v4_index(const struct v4 *v4, struct v4_layer *layer, const struct v4_batch *batch,
              struct mat selected, struct mat x, struct mat low)
{
    const struct v4_config *c = &v4->config;
    struct device *d = v4->device;
    struct mat q = d->make(d, DTYPE_BF16, x.rows, c->index_heads * c->index_dim);
    struct mat key = d->make(d, DTYPE_BF16, batch->blocks, c->index_dim);
    struct mat weight = d->make(d, DTYPE_BF16, x.rows, c->index_heads);
    v4_index_parts(v4, layer, batch, q, key, weight, x, low);
    const struct keys keys = {.compressed = key,
                              .position = batch->position,
                              .block = batch->block,
                              .ratio = layer->ratio};
    d->select(d, selected, q, &keys, weight);
    d->drop(d, q);
    d->drop(d, key);
    d->drop(d, weight);
}

void v4_attend(const struct v4 *v4, const struct v4_layer *layer, const struct v4_batch *batch,
               struct mat o, struct mat q, struct mat kv, struct mat compressed,
               struct mat selected)
{
    const struct v4_config *c = &v4->config;
    const struct keys keys = {.window = kv,
                              .compressed = compressed,
                              .position = batch->position,
                              .block = batch->block,
                              .selected = selected,
                              .sliding = c->window,
                              .ratio = layer->ratio};
    v4->device->attend(v4->device, o, q, &keys, layer->vector[V4_SINK],
                       (float)(1 / sqrt((double)c->head_dim)));
}

void v4_output(const struct v4 *v4, struct v4_layer *layer, const struct v4_batch *batch,
               struct mat y, struct mat o)
{
    const struct v4_config *c = &v4->config;
    struct device *d = v4->device;
    struct mat low = d->make(d, DTYPE_BF16, o.rows, c->o_groups * c->o_rank);
    d->rotate(d, o, c->head_dim, angles_of(v4, layer), batch->position, true);
    v4_linear(v4, &layer->linear[V4_WO_A], low, o);
    v4_linear(v4, &layer->linear[V4_WO_B], y, low);
    d->drop(d, low);
}

void v4_attention(const struct v4 *v4, struct v4_layer *layer, const struct v4_batch *batch,
                  struct mat y, struct mat x)
{
    const struct v4_config *c = &v4->config;
    struct device *d = v4->device;
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
    v4_output(v4, layer, batch, y, o);
    d->drop(d, low);
    d->drop(d, q);
    d->drop(d, kv);
    d->drop(d, compressed);
    d->drop(d, selected);
    d->drop(d, o);
}
