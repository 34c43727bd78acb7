/* DeepSeek-V4 as a network of the forward pass. */
#include <stdlib.h>

#include "base/die.h"
#include "forward/deepseek_v4/deepseek_v4.h"

void v4_begin(struct network *n, struct device *d, uint64_t length)
{
    struct v4 *v4 = (struct v4 *)n;
    n->device = d;
    v4->angles = rope_table(d, &v4->config.rope, length);
    v4->compress_angles = rope_table(d, &v4->config.compress_rope, length);
}

void v4_end(struct network *n)
{
    struct v4 *v4 = (struct v4 *)n;
    n->device->drop(n->device, v4->angles);
    n->device->drop(n->device, v4->compress_angles);
    n->device = NULL;
}

static void close_all(struct network *n)
{
    struct v4 *v4 = (struct v4 *)n;
    free(v4->config.ratio);
    free(v4);
}

/* ---- steps ---- */

struct mat v4_post(const struct network *n, struct mat kept)
{
    return mat_cols(kept, 0, n->copies);
}

struct mat v4_comb(const struct network *n, struct mat kept)
{
    return mat_cols(kept, n->copies, n->copies * n->copies);
}

static void attention(const struct network *n, struct layer *layer, struct mat hidden, struct mat x,
                      struct mat kept, const uint64_t *start, uint64_t samples, const int32_t *id)
{
    (void)id;
    const struct v4 *v4 = v4_of(n);
    struct device *d = n->device;
    struct mat post = v4_post(n, kept), comb = v4_comb(n, kept);
    struct mat y = d->make(d, DTYPE_BF16, x.rows, n->dim);
    struct v4_batch batch;
    v4_batch_begin(v4, &batch, start, samples, v4_ratio(layer));
    v4_hc_in(v4, layer, V4_HC_ATTN_FN, x, post, comb, hidden);
    layer_norm(layer, V4_ATTN_NORM, x, x);
    v4_attention(v4, layer, &batch, y, x);
    d->hc_out(d, hidden, y, post, comb);
    v4_hc_in(v4, layer, V4_HC_FFN_FN, x, post, comb, hidden);
    layer_norm(layer, V4_FFN_NORM, x, x);
    v4_batch_end(v4, &batch);
    d->drop(d, y);
}

struct router v4_router(const struct network *n, struct layer *layer)
{
    const struct v4_config *c = &v4_of(n)->config;
    return (struct router){.gate = &layer->piece[V4_GATE].linear,
                           .bias = layer->piece[V4_GATE_BIAS].vector,
                           .table = layer->piece[V4_GATE_TABLE].table,
                           .groups = {1, 1},
                           .scoring = c->scoring,
                           .normalize = c->scoring != SCORING_SOFTMAX,
                           .scale = c->route_scale};
}

void v4_join(const struct network *n, struct layer *layer, struct mat hidden, struct mat y,
             struct mat kept)
{
    (void)layer;
    n->device->hc_out(n->device, mat_cols(hidden, 0, n->copies * n->dim), y, v4_post(n, kept),
                      v4_comb(n, kept));
}

static void head(const struct network *n, struct layer *layer, struct mat x, struct mat hidden)
{
    v4_hc_head(v4_of(n), layer, x, hidden);
    layer_norm(layer, V4_NORM, x, x);
}

struct network *deepseek_v4_open(const struct config *config, struct ts_in *in)
{
    (void)in;
    struct v4 *v4 = xalloc(1, sizeof *v4);
    struct network *n = &v4->network;
    *n = (struct network){.embedding = "embed.weight",
                          .pieces = V4_PIECES,
                          .late_pieces = V4_LATE,
                          .head_piece = V4_HEAD,
                          .close = close_all,
                          .begin = v4_begin,
                          .end = v4_end,
                          .describe = v4_describe,
                          .attention = attention,
                          .router = v4_router,
                          .shared = v4_shared,
                          .join = v4_join,
                          .head = head,
                          .mtp_input = v4_mtp_input};
    v4_config_read(v4, config);
    n->fp8 = ACTIVATION_FP8;
    v4->config.unit_queries = true;
    return n;
}
