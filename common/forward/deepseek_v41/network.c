/* DeepSeek-V4.1 as a network of the forward pass: its text path. */
#include <stdlib.h>

#include "base/die.h"
#include "forward/deepseek_v41/deepseek_v41.h"

static void close_all(struct network *n)
{
    struct v41 *v41 = (struct v41 *)n;
    engram_close(&v41->engram);
    free(v41->v4.config.ratio);
    free(v41->key_source);
    free(v41->index_source);
    free(v41);
}

/* A hyper-connection mixes by what it computes itself, but its input is weighted by what the
 * previous one computed. */
static void attention(const struct network *n, struct layer *layer, struct mat hidden, struct mat x,
                      struct mat kept, const uint64_t *start, uint64_t samples, const int32_t *id)
{
    const struct v41 *v41 = v41_of(n);
    struct device *d = n->device;
    struct mat post = v4_post(n, kept), comb = v4_comb(n, kept);
    if (layer->number == 0)
        v41_carried_begin(v41, hidden);
    const struct v41_carried carried = v41_carried(v41, hidden);
    struct mat y = d->make(d, DTYPE_BF16, x.rows, n->dim);
    struct mat pre = d->make(d, DTYPE_F32, x.rows, n->copies);
    struct v41_batch batch;
    v41_batch_begin(v41, &batch, start, samples, v4_ratio(layer));
    if (engram_hash_of(&v41->engram, layer->number))
        v41_engram(v41, layer, carried.copies, start, samples, id);
    v4_hc_mix(&v41->v4, layer, V4_HC_ATTN_FN, pre, post, comb, carried.copies);
    d->hc_in(d, x, carried.copies, carried.pre);
    layer_norm(layer, V4_ATTN_NORM, x, x);
    v41_attention(v41, layer, &batch, &carried, y, x);
    d->hc_out(d, carried.copies, y, post, comb);
    v4_hc_mix(&v41->v4, layer, V4_HC_FFN_FN, carried.pre, post, comb, carried.copies);
    d->hc_in(d, x, carried.copies, pre);
    layer_norm(layer, V4_FFN_NORM, x, x);
    v41_batch_end(v41, &batch);
    d->drop(d, y);
    d->drop(d, pre);
}

static void head(const struct network *n, struct layer *layer, struct mat x, struct mat hidden)
{
    const struct v41_carried carried = v41_carried(v41_of(n), hidden);
    n->device->hc_in(n->device, x, carried.copies, carried.pre);
    layer_norm(layer, V4_NORM, x, x);
}

struct network *deepseek_v41_open(const struct config *config, struct ts_in *in)
{
    struct v41 *v41 = xalloc(1, sizeof *v41);
    struct network *n = &v41->v4.network;
    *n = (struct network){.embedding = "embed.weight",
                          .rows = ".engram.embed.",
                          .pieces = V4_PIECES,
                          .late_pieces = V4_LATE,
                          .head_piece = V4_HEAD,
                          .close = close_all,
                          .begin = v4_begin,
                          .end = v4_end,
                          .describe = v41_describe,
                          .attention = attention,
                          .router = v4_router,
                          .shared = v4_shared,
                          .join = v4_join,
                          .head = head};
    v41_config_read(v41, config);
    engram_open(&v41->engram, config, in);
    return n;
}
