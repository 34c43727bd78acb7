/* DeepSeek-V3's tensors: what a layer consists of. */
#include <inttypes.h>

#include "base/die.h"
#include "forward/deepseek_v3/deepseek_v3.h"

static void query_pieces(struct layer *l, const struct v3_config *c)
{
    uint64_t q = c->heads * (c->nope_dim + c->rope.dim), dim = l->network->dim;
    if (!c->q_rank) {
        layer_piece(l, V3_Q_PROJ, PIECE_LINEAR, "self_attn.q_proj.weight", q, dim);
        return;
    }
    layer_piece(l, V3_Q_A, PIECE_LINEAR, "self_attn.q_a_proj.weight", c->q_rank, dim);
    layer_piece(l, V3_Q_NORM, PIECE_VECTOR, "self_attn.q_a_layernorm.weight", 1, c->q_rank);
    layer_piece(l, V3_Q_B, PIECE_LINEAR, "self_attn.q_b_proj.weight", q, c->q_rank);
}

static void index_pieces(struct layer *l, const struct v3_config *c)
{
    uint64_t dim = l->network->dim;
    if (!c->index_best)
        return;
    layer_piece(l, V3_INDEX_Q, PIECE_LINEAR, "self_attn.indexer.wq_b.weight",
                c->index_heads * c->index_dim, c->q_rank);
    layer_piece(l, V3_INDEX_K, PIECE_LINEAR, "self_attn.indexer.wk.weight", c->index_dim, dim);
    layer_piece(l, V3_INDEX_K_NORM, PIECE_VECTOR, "self_attn.indexer.k_norm.weight", 1,
                c->index_dim);
    layer_piece(l, V3_INDEX_K_BIAS, PIECE_VECTOR, "self_attn.indexer.k_norm.bias", 1, c->index_dim);
    layer_piece(l, V3_INDEX_WEIGHTS, PIECE_MATRIX, "self_attn.indexer.weights_proj.weight",
                c->index_heads, dim);
}

static void attention_pieces(struct layer *l, const struct v3_config *c)
{
    uint64_t dim = l->network->dim;
    layer_piece(l, V3_ATTN_NORM, PIECE_VECTOR, "input_layernorm.weight", 1, dim);
    query_pieces(l, c);
    layer_piece(l, V3_KV_A, PIECE_LINEAR, "self_attn.kv_a_proj_with_mqa.weight",
                c->kv_rank + c->rope.dim, dim);
    layer_piece(l, V3_KV_NORM, PIECE_VECTOR, "self_attn.kv_a_layernorm.weight", 1, c->kv_rank);
    index_pieces(l, c);
    bool absorbed = !c->index_best;
    layer_piece(l, V3_KV_B, absorbed ? PIECE_MATRIX : PIECE_LINEAR, "self_attn.kv_b_proj.weight",
                c->heads * (c->nope_dim + c->value_dim), c->kv_rank);
    if (absorbed)
        l->piece[V3_KV_B].cut = (struct cut){.groups = c->heads, .transposed = c->nope_dim};
    layer_piece(l, V3_O_PROJ, PIECE_LINEAR, "self_attn.o_proj.weight", dim,
                c->heads * c->value_dim);
}

static void expert_pieces(struct layer *l, const struct v3_config *c)
{
    uint64_t dim = l->network->dim;
    layer_piece(l, V3_GATE, PIECE_MATRIX, "mlp.gate.weight", c->experts, dim);
    if (c->bias)
        layer_piece(l, V3_GATE_BIAS, PIECE_VECTOR, "mlp.gate.e_score_correction_bias", 1,
                    c->experts);
    layer_piece(l, V3_MLP_GATE, PIECE_EXPERT, "mlp.shared_experts.gate_proj.weight", c->shared_dim,
                dim);
    layer_piece(l, V3_MLP_UP, PIECE_EXPERT, "mlp.shared_experts.up_proj.weight", c->shared_dim,
                dim);
    layer_piece(l, V3_MLP_DOWN, PIECE_EXPERT, "mlp.shared_experts.down_proj.weight", dim,
                c->shared_dim);
    l->experts = (struct expert_pieces){
        .count = c->experts,
        .used = c->experts_used,
        .name = "mlp.experts.",
        .matrix =
            {[EXPERT_GATE] = "gate_proj", [EXPERT_UP] = "up_proj", [EXPERT_DOWN] = "down_proj"},
        .dim = dim,
        .inner = c->expert_dim,
        .swiglu = v3_swiglu(l->network),
        .weigh_sum = true};
}

static void dense_pieces(struct layer *l, const struct v3_config *c)
{
    uint64_t dim = l->network->dim;
    layer_piece(l, V3_MLP_GATE, PIECE_LINEAR, "mlp.gate_proj.weight", c->dense_dim, dim);
    layer_piece(l, V3_MLP_UP, PIECE_LINEAR, "mlp.up_proj.weight", c->dense_dim, dim);
    layer_piece(l, V3_MLP_DOWN, PIECE_LINEAR, "mlp.down_proj.weight", dim, c->dense_dim);
}

/* MTP's embedding and head are copies of the model's. */
static void mtp_pieces(struct layer *l)
{
    uint64_t dim = l->network->dim, vocabulary = l->network->vocabulary;
    layer_piece(l, V3_EMBED, PIECE_UNUSED, "embed_tokens.weight", vocabulary, dim);
    layer_piece(l, V3_ENORM, PIECE_VECTOR, "enorm.weight", 1, dim);
    layer_piece(l, V3_HNORM, PIECE_VECTOR, "hnorm.weight", 1, dim);
    layer_piece(l, V3_EH_PROJ, PIECE_LINEAR, "eh_proj.weight", dim, 2 * dim);
    layer_piece(l, V3_NORM, PIECE_VECTOR, "shared_head.norm.weight", 1, dim);
    layer_piece(l, V3_HEAD, PIECE_UNUSED, "shared_head.head.weight", vocabulary, dim);
}

static void head_pieces(struct layer *l)
{
    const struct network *n = l->network;
    layer_piece(l, V3_NORM, PIECE_VECTOR, "model.norm.weight", 1, n->dim);
    layer_piece(l, V3_HEAD, PIECE_MATRIX, "lm_head.weight", n->vocabulary, n->dim);
}

void v3_describe(const struct network *n, struct layer *layer)
{
    const struct v3_config *c = &v3_of(n)->config;
    if (layer->number == LAYER_HEAD) {
        layer->prefix = xstrdup("");
        head_pieces(layer);
        return;
    }
    layer->prefix = xprintf("model.layers.%" PRIu64 ".", layer->number);
    attention_pieces(layer, c);
    layer_piece(layer, V3_FFN_NORM, PIECE_VECTOR, "post_attention_layernorm.weight", 1, n->dim);
    if (layer->number < c->dense_layers)
        dense_pieces(layer, c);
    else
        expert_pieces(layer, c);
    if (layer->number >= n->layers)
        mtp_pieces(layer);
}
