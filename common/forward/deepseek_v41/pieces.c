/* DeepSeek-V4.1's tensors: what a layer consists of. */
#include <inttypes.h>

#include "base/die.h"
#include "forward/deepseek_v41/deepseek_v41.h"

static void engram_pieces(const struct v41 *v41, struct layer *l, uint64_t rows)
{
    const struct network *n = l->network;
    uint64_t wide = engram_columns(&v41->engram) * v41->engram.dim;
    layer_piece(l, V4_ENGRAM_TABLE, PIECE_ROWS, "engram.embed.weight", rows, v41->engram.dim);
    layer_piece(l, V4_ENGRAM_WKV, PIECE_LINEAR, "engram.wkv.weight", (n->copies + 1) * n->dim,
                wide);
    layer_piece(l, V4_ENGRAM_Q, PIECE_VECTOR, "engram.q_weight", n->copies, n->dim);
    layer_piece(l, V4_ENGRAM_K, PIECE_VECTOR, "engram.k_weight", n->copies, n->dim);
}

static void key_pieces(struct layer *l, const struct v4_config *c)
{
    const struct network *n = l->network;
    layer_piece(l, V4_COMPRESS_WKV, PIECE_MATRIX, "attn.compressor.wkv.weight", c->head_dim,
                n->dim);
    if (c->ratio[l->number] > 1)
        layer_piece(l, V4_COMPRESS_WGATE, PIECE_MATRIX, "attn.compressor.wgate.weight", c->head_dim,
                    n->dim);
    layer_piece(l, V4_COMPRESS_NORM, PIECE_VECTOR, "attn.compressor.norm.weight", 1, c->head_dim);
    layer_piece(l, V4_INDEX_WK, PIECE_MATRIX, "attn.indexer.wk.weight", c->index_dim, c->head_dim);
    layer_piece(l, V4_INDEX_K_NORM, PIECE_VECTOR, "attn.indexer.k_norm.weight", 1, c->index_dim);
}

void v41_describe(const struct network *n, struct layer *l)
{
    const struct v41 *v41 = v41_of(n);
    const struct v4_config *c = &v41->v4.config;
    if (l->number == LAYER_HEAD) {
        l->prefix = xstrdup("");
        layer_piece(l, V4_NORM, PIECE_VECTOR, "norm.weight", 1, n->dim);
        layer_piece(l, V4_HEAD, PIECE_MATRIX, "head.weight", n->vocabulary, n->dim);
        return;
    }
    const struct engram_hash *hash = engram_hash_of(&v41->engram, l->number);
    l->prefix = xprintf("layers.%" PRIu64 ".", l->number);
    v4_block_pieces(l);
    if (hash)
        engram_pieces(v41, l, hash->rows);
    if (v41->key_source[l->number])
        key_pieces(l, c);
    if (v41->index_source[l->number])
        v4_index_pieces(l);
}
