/* DeepSeek-V3 as a network of the forward pass. */
#include <stdlib.h>

#include "base/die.h"
#include "forward/deepseek_v3/deepseek_v3.h"

static void begin(struct network *n, struct device *d, uint64_t length)
{
    struct v3 *v3 = (struct v3 *)n;
    n->device = d;
    v3->angles = rope_table(d, &v3->config.rope, length);
}

static void end(struct network *n)
{
    struct v3 *v3 = (struct v3 *)n;
    n->device->drop(n->device, v3->angles);
    n->device = NULL;
}

static void close_all(struct network *n)
{
    free(n);
}

/* ---- hidden states ---- */

/* V3.2's hidden states are the sum of two matrices, side by side: the residual, and the output of
 * the layer's MLP or experts, which is added to it in the next norm. */
static struct mat residual(const struct network *n, struct mat hidden)
{
    return mat_cols(hidden, 0, n->dim);
}

static struct mat latest(const struct network *n, struct mat hidden)
{
    return mat_cols(hidden, n->dim, n->carried);
}

/* There is no latest output yet. */
static void clear_latest(const struct network *n, struct mat hidden)
{
    struct device *d = n->device;
    struct mat zero = d->make(d, DTYPE_BF16, hidden.rows, n->carried);
    uint16_t *value = xalloc((size_t)(hidden.rows * n->carried), sizeof *value);
    d->write(d, zero, value);
    d->copy(d, latest(n, hidden), zero);
    d->drop(d, zero);
    free(value);
}

/* x = the norm of hidden states. The latest output is added to the residual, so it must be set
 * again before the next norm. */
static void norm_hidden(const struct network *n, const struct layer *layer, enum v3_piece norm,
                        struct mat x, struct mat hidden)
{
    if (n->carried)
        n->device->add_norm(n->device, x, residual(n, hidden), latest(n, hidden),
                            layer->piece[norm].vector, n->norm_eps);
    else
        layer_norm(layer, norm, x, hidden);
}

/* Add a step's output to hidden states. */
static void add_output(const struct network *n, struct mat hidden, struct mat y)
{
    if (n->carried)
        n->device->copy(n->device, latest(n, hidden), y);
    else
        n->device->add(n->device, hidden, y);
}

/* The same as norm_hidden(), of hidden states that remain as they are. */
static void norm_copy(const struct network *n, const struct layer *layer, enum v3_piece norm,
                      struct mat x, struct mat hidden)
{
    struct device *d = n->device;
    struct mat copy = d->make(d, DTYPE_BF16, hidden.rows, hidden.cols);
    d->copy(d, copy, hidden);
    norm_hidden(n, layer, norm, x, copy);
    d->drop(d, copy);
}

/* ---- steps ---- */

static void attention(const struct network *n, struct layer *layer, struct mat hidden, struct mat x,
                      struct mat kept, const uint64_t *start, uint64_t samples, const int32_t *id)
{
    (void)kept;
    (void)id;
    const struct v3 *v3 = v3_of(n);
    struct device *d = n->device;
    struct mat y = d->make(d, DTYPE_BF16, x.rows, n->dim);
    struct v3_batch batch;
    if (n->carried && layer->number == 0)
        clear_latest(n, hidden);
    v3_batch_begin(v3, &batch, start, samples);
    norm_hidden(n, layer, V3_ATTN_NORM, x, hidden);
    v3_attention(v3, layer, &batch, y, x);
    add_output(n, hidden, y);
    norm_hidden(n, layer, V3_FFN_NORM, x, hidden);
    v3_batch_end(v3, &batch);
    d->drop(d, y);
}

/* V3 computes all of routing in BF16, V3.2 in F32. */
static struct router router(const struct network *n, struct layer *layer)
{
    const struct v3_config *c = &v3_of(n)->config;
    return (struct router){.gate = &layer->piece[V3_GATE].linear,
                           .bias = layer->piece[V3_GATE_BIAS].vector,
                           .groups = c->groups,
                           .rounds = v3_rounds(n),
                           .scoring = c->scoring,
                           .normalize = c->normalize,
                           .scale = c->route_scale};
}

static void shared(const struct network *n, struct layer *layer, struct mat y, struct mat x)
{
    linear_mlp(n->device, &layer->piece[V3_MLP_GATE].linear, &layer->piece[V3_MLP_UP].linear,
               &layer->piece[V3_MLP_DOWN].linear, v3_swiglu(n), y, x, (struct mat){0}, SEES_BOTH);
}

static void join(const struct network *n, struct layer *layer, struct mat hidden, struct mat y,
                 struct mat kept)
{
    (void)layer;
    (void)kept;
    add_output(n, hidden, y);
}

static void head(const struct network *n, struct layer *layer, struct mat x, struct mat hidden)
{
    norm_copy(n, layer, V3_NORM, x, hidden);
}

/* The block takes the states after the norm that precedes logits, although hnorm norms them again:
 * the two norms' weights differ, and hnorm was trained on normed states. The technical report
 * leaves it open. Sources: modeling_deepseek.py in AMD's release of R1-0528 with MTP, whose model
 * ends with self.norm and hands that to MTP; vLLM 0.33's deepseek_mtp.py and SGLang 0.5.23's
 * deepseek_nextn.py, which do so, and between blocks, too. */
static void mtp_states(const struct network *n, const struct layer *norm, struct mat hidden)
{
    struct device *d = n->device;
    struct mat x = d->make(d, DTYPE_BF16, hidden.rows, n->dim);
    norm_hidden(n, norm, V3_NORM, x, hidden);
    d->copy(d, residual(n, hidden), x);
    if (n->carried)
        clear_latest(n, hidden);
    d->drop(d, x);
}

/* The block's input is a projection of both, side by side; mtp_states() has made `hidden`. */
static void mtp_input(const struct network *n, struct layer *layer, struct mat hidden, struct mat e)
{
    struct device *d = n->device;
    struct mat both = d->make(d, DTYPE_BF16, e.rows, 2 * n->dim);
    layer_norm(layer, V3_ENORM, mat_cols(both, 0, n->dim), e);
    layer_norm(layer, V3_HNORM, mat_cols(both, n->dim, n->dim), residual(n, hidden));
    layer_apply(layer, V3_EH_PROJ, residual(n, hidden), both);
    d->drop(d, both);
}

struct network *deepseek_v3_open(const struct config *config, struct ts_in *in)
{
    (void)in;
    struct v3 *v3 = xalloc(1, sizeof *v3);
    struct network *n = &v3->network;
    *n = (struct network){.embedding = "model.embed_tokens.weight",
                          .pieces = V3_PIECES,
                          .late_pieces = V3_LATE,
                          .head_piece = V3_HEAD,
                          .calibrates_all = true,
                          .close = close_all,
                          .begin = begin,
                          .end = end,
                          .describe = v3_describe,
                          .attention = attention,
                          .router = router,
                          .shared = shared,
                          .join = join,
                          .head = head,
                          .mtp_states = mtp_states,
                          .mtp_input = mtp_input};
    v3_config_read(v3, config);
    return n;
}
