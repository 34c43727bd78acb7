/* The steps of a DeepSeek-V4 layer other than attention: hyper-connections, the shared expert,
 * multi-token prediction. */
#include "forward/deepseek_v4/deepseek_v4.h"

/* ---- hyper-connections ---- */

void v4_hc_mix(const struct v4 *v4, struct layer *layer, enum v4_piece hc, struct mat pre,
               struct mat post, struct mat comb, struct mat x)
{
    const struct v4_config *c = &v4->config;
    const struct network *n = &v4->network;
    struct device *d = n->device;
    struct mat mixes = d->make(d, DTYPE_F32, x.rows, (2 + n->copies) * n->copies);
    layer_apply(layer, hc, mixes, x);
    d->hc_scale(d, mixes, x, n->norm_eps);
    d->sinkhorn(d, pre, post, comb, mixes, layer->piece[hc + V4_HC_SCALE].vector,
                layer->piece[hc + V4_HC_BASE].vector, c->sinkhorn_iterations, c->hc_eps);
    d->drop(d, mixes);
}

void v4_hc_in(const struct v4 *v4, struct layer *layer, enum v4_piece hc, struct mat y,
              struct mat post, struct mat comb, struct mat x)
{
    struct device *d = v4->network.device;
    struct mat pre = d->make(d, DTYPE_F32, x.rows, v4->network.copies);
    v4_hc_mix(v4, layer, hc, pre, post, comb, x);
    d->hc_in(d, y, x, pre);
    d->drop(d, pre);
}

void v4_hc_head(const struct v4 *v4, struct layer *layer, struct mat y, struct mat x)
{
    const struct v4_config *c = &v4->config;
    const struct network *n = &v4->network;
    struct device *d = n->device;
    struct mat pre = d->make(d, DTYPE_F32, x.rows, n->copies);
    layer_apply(layer, V4_HC_HEAD_FN, pre, x);
    d->hc_scale(d, pre, x, n->norm_eps);
    d->hc_gate(d, pre, pre, layer->piece[V4_HC_HEAD_FN + V4_HC_SCALE].vector,
               layer->piece[V4_HC_HEAD_FN + V4_HC_BASE].vector, c->hc_eps);
    d->hc_in(d, y, x, pre);
    d->drop(d, pre);
}

/* ---- experts ---- */

void v4_shared(const struct network *n, struct layer *layer, struct mat y, struct mat x)
{
    linear_mlp(n->device, &layer->piece[V4_SHARED_W1].linear, &layer->piece[V4_SHARED_W3].linear,
               &layer->piece[V4_SHARED_W2].linear,
               (struct swiglu){.limit = v4_of(n)->config.shared_limit}, y, x, (struct mat){0},
               SEES_BOTH);
}

/* ---- multi-token prediction ---- */

void v4_mtp_input(const struct network *n, struct layer *layer, struct mat x, struct mat e)
{
    struct device *d = n->device;
    uint64_t dim = n->dim;
    struct mat copies = mat_shaped(x, dim);
    struct mat normed = d->make(d, DTYPE_BF16, copies.rows, dim);
    struct mat projected = d->make(d, DTYPE_BF16, e.rows, dim);
    layer_norm(layer, V4_HNORM, normed, copies);
    layer_apply(layer, V4_H_PROJ, copies, normed);
    layer_norm(layer, V4_ENORM, mat_rows(normed, 0, e.rows), e);
    layer_apply(layer, V4_E_PROJ, projected, mat_rows(normed, 0, e.rows));
    for (uint64_t i = 0; i < n->copies; i++)
        d->add(d, mat_cols(x, i * dim, dim), projected);
    d->drop(d, normed);
    d->drop(d, projected);
}
