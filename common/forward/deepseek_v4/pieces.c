/* DeepSeek-V4's tensors: what a layer consists of. */
#include <inttypes.h>

#include "base/die.h"
#include "forward/deepseek_v4/deepseek_v4.h"

/* Blocks of this many tokens overlap, and an indexer selects among them (model.py, Compressor and
 * Attention); others are disjoint, and all are seen. */
enum { OVERLAPPING_RATIO = 4 };

static void attention_pieces(struct layer *l, const struct v4_config *c)
{
    const struct network *n = l->network;
    uint64_t q = c->heads * c->head_dim;
    layer_piece(l, V4_ATTN_NORM, PIECE_VECTOR, "attn_norm.weight", 1, n->dim);
    layer_piece(l, V4_WQ_A, PIECE_LINEAR, "attn.wq_a.weight", c->q_rank, n->dim);
    layer_piece(l, V4_Q_NORM, PIECE_VECTOR, "attn.q_norm.weight", 1, c->q_rank);
    layer_piece(l, V4_WQ_B, PIECE_LINEAR, "attn.wq_b.weight", q, c->q_rank);
    layer_piece(l, V4_WKV, PIECE_LINEAR, "attn.wkv.weight", c->head_dim, n->dim);
    layer_piece(l, V4_KV_NORM, PIECE_VECTOR, "attn.kv_norm.weight", 1, c->head_dim);
    layer_piece(l, V4_SINK, PIECE_VECTOR, "attn.attn_sink", 1, c->heads);
    layer_piece(l, V4_WO_A, PIECE_MATRIX, "attn.wo_a.weight", c->o_groups * c->o_rank,
                q / c->o_groups);
    l->piece[V4_WO_A].cut.groups = c->o_groups; /* and never quantized */
    layer_piece(l, V4_WO_B, PIECE_LINEAR, "attn.wo_b.weight", n->dim, c->o_groups * c->o_rank);
}

void v4_index_pieces(struct layer *l)
{
    const struct network *n = l->network;
    const struct v4_config *c = &v4_of(n)->config;
    layer_piece(l, V4_INDEX_WQ_B, PIECE_LINEAR, "attn.indexer.wq_b.weight",
                c->index_heads * c->index_dim, c->q_rank);
    layer_piece(l, V4_INDEX_WEIGHTS, PIECE_MATRIX, "attn.indexer.weights_proj.weight",
                c->index_heads, n->dim);
}

static void compression_pieces(struct layer *l, const struct v4_config *c)
{
    const struct network *n = l->network;
    uint64_t ratio = c->ratio[l->number];
    if (!ratio)
        return;
    uint64_t wide = ratio == OVERLAPPING_RATIO ? 2 : 1;
    layer_piece(l, V4_APE, PIECE_VECTOR, "attn.compressor.ape", ratio, wide * c->head_dim);
    layer_piece(l, V4_COMPRESS_WKV, PIECE_MATRIX, "attn.compressor.wkv.weight", wide * c->head_dim,
                n->dim);
    layer_piece(l, V4_COMPRESS_WGATE, PIECE_MATRIX, "attn.compressor.wgate.weight",
                wide * c->head_dim, n->dim);
    layer_piece(l, V4_COMPRESS_NORM, PIECE_VECTOR, "attn.compressor.norm.weight", 1, c->head_dim);
    if (ratio != OVERLAPPING_RATIO)
        return;
    v4_index_pieces(l);
    layer_piece(l, V4_INDEX_APE, PIECE_VECTOR, "attn.indexer.compressor.ape", ratio,
                wide * c->index_dim);
    layer_piece(l, V4_INDEX_WKV, PIECE_MATRIX, "attn.indexer.compressor.wkv.weight",
                wide * c->index_dim, n->dim);
    layer_piece(l, V4_INDEX_WGATE, PIECE_MATRIX, "attn.indexer.compressor.wgate.weight",
                wide * c->index_dim, n->dim);
    layer_piece(l, V4_INDEX_NORM, PIECE_VECTOR, "attn.indexer.compressor.norm.weight", 1,
                c->index_dim);
}

static void expert_pieces(struct layer *l, const struct v4_config *c)
{
    l->experts = (struct expert_pieces){
        .count = c->experts,
        .used = c->experts_used,
        .name = "ffn.experts.",
        .matrix = {[EXPERT_GATE] = "w1", [EXPERT_UP] = "w3", [EXPERT_DOWN] = "w2"},
        .dim = l->network->dim,
        .inner = c->expert_dim,
        .swiglu = {.limit = c->swiglu_limit}};
}

static void ffn_pieces(struct layer *l, const struct v4_config *c)
{
    const struct network *n = l->network;
    layer_piece(l, V4_FFN_NORM, PIECE_VECTOR, "ffn_norm.weight", 1, n->dim);
    layer_piece(l, V4_GATE, PIECE_MATRIX, "ffn.gate.weight", c->experts, n->dim);
    bool hash = l->number < c->hash_layers;
    if (hash)
        layer_piece(l, V4_GATE_TABLE, PIECE_TABLE, "ffn.gate.tid2eid", n->vocabulary,
                    c->experts_used);
    layer_piece(l, V4_GATE_BIAS, hash ? PIECE_UNUSED : PIECE_VECTOR, "ffn.gate.bias", 1,
                c->experts);
    layer_piece(l, V4_GATE_BIAS_VL, PIECE_UNUSED, "ffn.gate.bias_vl", 1, c->experts);
    layer_piece(l, V4_SHARED_W1, PIECE_EXPERT, "ffn.shared_experts.w1.weight", c->expert_dim,
                n->dim);
    layer_piece(l, V4_SHARED_W3, PIECE_EXPERT, "ffn.shared_experts.w3.weight", c->expert_dim,
                n->dim);
    layer_piece(l, V4_SHARED_W2, PIECE_EXPERT, "ffn.shared_experts.w2.weight", n->dim,
                c->expert_dim);
}

void v4_block_pieces(struct layer *l)
{
    const struct network *n = l->network;
    const struct v4_config *c = &v4_of(n)->config;
    uint64_t mixes = (2 + n->copies) * n->copies, wide = n->copies * n->dim;
    layer_piece(l, V4_HC_ATTN_FN, PIECE_MATRIX, "hc_attn_fn", mixes, wide);
    layer_piece(l, V4_HC_ATTN_BASE, PIECE_VECTOR, "hc_attn_base", 1, mixes);
    layer_piece(l, V4_HC_ATTN_SCALE, PIECE_VECTOR, "hc_attn_scale", 1, 3);
    layer_piece(l, V4_HC_FFN_FN, PIECE_MATRIX, "hc_ffn_fn", mixes, wide);
    layer_piece(l, V4_HC_FFN_BASE, PIECE_VECTOR, "hc_ffn_base", 1, mixes);
    layer_piece(l, V4_HC_FFN_SCALE, PIECE_VECTOR, "hc_ffn_scale", 1, 3);
    attention_pieces(l, c);
    ffn_pieces(l, c);
    expert_pieces(l, c);
}

static void head_pieces(struct layer *l)
{
    const struct network *n = l->network;
    layer_piece(l, V4_NORM, PIECE_VECTOR, "norm.weight", 1, n->dim);
    layer_piece(l, V4_HC_HEAD_FN, PIECE_MATRIX, "hc_head_fn", n->copies, n->copies * n->dim);
    layer_piece(l, V4_HC_HEAD_BASE, PIECE_VECTOR, "hc_head_base", 1, n->copies);
    layer_piece(l, V4_HC_HEAD_SCALE, PIECE_VECTOR, "hc_head_scale", 1, 1);
}

static void mtp_pieces(struct layer *l, const struct v4_config *c)
{
    const struct network *n = l->network;
    layer_piece(l, V4_ENORM, PIECE_VECTOR, "enorm.weight", 1, n->dim);
    layer_piece(l, V4_HNORM, PIECE_VECTOR, "hnorm.weight", 1, n->dim);
    layer_piece(l, V4_E_PROJ, PIECE_LINEAR, "e_proj.weight", n->dim, n->dim);
    layer_piece(l, V4_H_PROJ, PIECE_LINEAR, "h_proj.weight", n->dim, n->dim);
    v4_block_pieces(l);
    compression_pieces(l, c);
    head_pieces(l);
}

void v4_describe(const struct network *n, struct layer *layer)
{
    const struct v4_config *c = &v4_of(n)->config;
    if (layer->number == LAYER_HEAD) {
        layer->prefix = xstrdup("");
        head_pieces(layer);
        layer_piece(layer, V4_HEAD, PIECE_MATRIX, "head.weight", n->vocabulary, n->dim);
    } else if (layer->number < n->layers) {
        layer->prefix = xprintf("layers.%" PRIu64 ".", layer->number);
        v4_block_pieces(layer);
        compression_pieces(layer, c);
    } else {
        layer->prefix = xprintf("mtp.%" PRIu64 ".", layer->number - n->layers);
        mtp_pieces(layer, c);
    }
}
