/* The steps of a DeepSeek-V4 layer but its attention: products, norms, hyper-connections, routing,
 * experts. */
#include <stdlib.h>

#include "base/die.h"
#include "forward/deepseek_v4/deepseek_v4.h"

/* ---- products ---- */

static struct mat seen(const struct v4_linear *linear, unsigned what)
{
    return mat_cols(linear->seen, what, 1);
}

void v4_linear(const struct v4 *v4, struct v4_linear *linear, struct mat y, struct mat x)
{
    struct device *d = v4->device;
    struct mat a = x;
    linear->rows += x.rows;
    d->max_abs(d, seen(linear, V4_SEEN_INPUT), x);
    if (linear->activation != ACTIVATION_BF16) {
        a = d->make(d, DTYPE_BF16, x.rows, x.cols);
        d->quantize(d, a, x, linear->activation, linear->scale_2);
    }
    uint64_t wide = x.cols / linear->groups, high = y.cols / linear->groups;
    for (uint64_t i = 0; i < linear->groups; i++)
        d->product(d, mat_cols(y, i * high, high), mat_cols(a, i * wide, wide), linear->operand[i]);
    if (a.at != x.at)
        d->drop(d, a);
    d->max_abs(d, seen(linear, V4_SEEN_OUTPUT), y);
}

void v4_norm(const struct v4 *v4, const struct v4_layer *layer, enum v4_slot norm, struct mat y,
             struct mat x)
{
    v4->device->rms_norm(v4->device, y, x, layer->vector[norm], v4->config.norm_eps);
}

/* ---- hyper-connections ---- */

void v4_hc_in(const struct v4 *v4, struct v4_layer *layer, enum v4_slot hc, struct mat y,
              struct mat post, struct mat comb, struct mat x)
{
    const struct v4_config *c = &v4->config;
    struct device *d = v4->device;
    struct mat mixes = d->make(d, DTYPE_F32, x.rows, (2 + c->copies) * c->copies);
    struct mat pre = d->make(d, DTYPE_F32, x.rows, c->copies);
    v4_linear(v4, &layer->linear[hc], mixes, x);
    d->hc_scale(d, mixes, x, c->norm_eps);
    d->sinkhorn(d, pre, post, comb, mixes, layer->vector[hc + V4_HC_SCALE],
                layer->vector[hc + V4_HC_BASE], c->sinkhorn_iterations, c->hc_eps);
    d->hc_in(d, y, x, pre);
    d->drop(d, mixes);
    d->drop(d, pre);
}

void v4_hc_head(const struct v4 *v4, struct v4_layer *layer, struct mat y, struct mat x)
{
    const struct v4_config *c = &v4->config;
    struct device *d = v4->device;
    struct mat pre = d->make(d, DTYPE_F32, x.rows, c->copies);
    v4_linear(v4, &layer->linear[V4_HC_HEAD_FN], pre, x);
    d->hc_scale(d, pre, x, c->norm_eps);
    d->hc_gate(d, pre, pre, layer->vector[V4_HC_HEAD_FN + V4_HC_SCALE],
               layer->vector[V4_HC_HEAD_FN + V4_HC_BASE], c->hc_eps);
    d->hc_in(d, y, x, pre);
    d->drop(d, pre);
}

/* ---- experts ---- */

/* Put the experts that the layer's table has for these tokens into `experts`. */
static void look_up(const struct v4 *v4, const struct v4_layer *layer, struct mat experts,
                    const int32_t *ids)
{
    uint64_t n = experts.cols;
    int32_t *found = xalloc((size_t)(experts.rows * n), sizeof *found);
    for (uint64_t i = 0; i < experts.rows; i++)
        for (uint64_t j = 0; j < n; j++)
            found[i * n + j] = layer->table[(uint64_t)ids[i] * n + j];
    v4->device->write(v4->device, experts, found);
    free(found);
}

/* Every expert's number in every row. */
static void number(const struct v4 *v4, struct mat experts)
{
    int32_t *all = xalloc((size_t)(experts.rows * experts.cols), sizeof *all);
    for (uint64_t i = 0; i < experts.rows * experts.cols; i++)
        all[i] = (int32_t)(i % experts.cols);
    v4->device->write(v4->device, experts, all);
    free(all);
}

void v4_route(const struct v4 *v4, struct v4_layer *layer, struct mat weights, struct mat experts,
              struct mat all_weights, const int32_t *ids, struct mat x)
{
    const struct v4_config *c = &v4->config;
    struct device *d = v4->device;
    bool normalize = c->scoring != SCORING_SOFTMAX;
    struct mat scores = d->make(d, DTYPE_F32, x.rows, c->experts);
    v4_linear(v4, &layer->linear[V4_GATE], scores, x);
    d->score(d, scores, c->scoring);
    if (layer->hash)
        look_up(v4, layer, experts, ids);
    else
        d->route_topk(d, experts, scores, layer->vector[V4_GATE_BIAS]);
    d->route_weights(d, weights, scores, experts, normalize, c->route_scale);
    if (all_weights.rows) {
        struct mat all = d->make(d, DTYPE_I32, x.rows, c->experts);
        number(v4, all);
        d->route_weights(d, all_weights, scores, all, normalize, c->route_scale);
        d->drop(d, all);
    }
    d->drop(d, scores);
}

void v4_ffn(const struct v4 *v4, struct v4_linear *w1, struct v4_linear *w3, struct v4_linear *w2,
            float limit, struct mat y, struct mat x, struct mat weight)
{
    struct device *d = v4->device;
    struct mat gate = d->make(d, DTYPE_BF16, x.rows, v4->config.expert_dim);
    struct mat up = d->make(d, DTYPE_BF16, x.rows, v4->config.expert_dim);
    v4_linear(v4, w1, gate, x);
    v4_linear(v4, w3, up, x);
    d->swiglu(d, gate, gate, up, limit, weight);
    v4_linear(v4, w2, y, gate);
    d->drop(d, gate);
    d->drop(d, up);
}

void v4_shared(const struct v4 *v4, struct v4_layer *layer, struct mat y, struct mat x)
{
    /* The limit is the routed experts' alone. */
    v4_ffn(v4, &layer->linear[V4_SHARED_W1], &layer->linear[V4_SHARED_W3],
           &layer->linear[V4_SHARED_W2], 0, y, x, (struct mat){0});
}

/* ---- multi-token prediction ---- */

void v4_mtp_input(const struct v4 *v4, struct v4_layer *layer, struct mat x, struct mat e)
{
    struct device *d = v4->device;
    uint64_t dim = v4->config.dim;
    struct mat copies = mat_shaped(x, dim);
    struct mat normed = d->make(d, DTYPE_BF16, copies.rows, dim);
    struct mat projected = d->make(d, DTYPE_BF16, e.rows, dim);
    v4_norm(v4, layer, V4_HNORM, normed, copies);
    v4_linear(v4, &layer->linear[V4_H_PROJ], copies, normed);
    v4_norm(v4, layer, V4_ENORM, mat_rows(normed, 0, e.rows), e);
    v4_linear(v4, &layer->linear[V4_E_PROJ], projected, mat_rows(normed, 0, e.rows));
    for (uint64_t i = 0; i < v4->config.copies; i++)
        d->add(d, mat_cols(x, i * dim, dim), projected);
    d->drop(d, normed);
    d->drop(d, projected);
}
