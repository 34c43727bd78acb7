/* deepseek_v4.h: DeepSeek-V4's part of the forward pass: dimensions, the pieces of a layer, and the
 * steps of its attention and hyper-connections, as separate functions so that tests can check each
 * one. DeepSeek-V4.1 (deepseek_v41/) adds to it.
 *
 * Source of all formulas: DeepSeek-V4-Flash's inference/model.py and kernel.py. Matrices have one
 * row per token; the samples of a batch follow each other. */
#ifndef DEEPSEEK_V4_H
#define DEEPSEEK_V4_H

#include "forward/layer.h"
#include "forward/rope.h"
#include "forward/routing.h"

/* ---- the model ---- */

struct v4_config {
    uint64_t heads, head_dim, q_rank, o_groups, o_rank, window;
    uint64_t index_heads, index_dim, index_best;
    uint64_t experts, experts_used, expert_dim, hash_layers;
    uint64_t sinkhorn_iterations;
    uint64_t *ratio; /* tokens per compressed block, 0 for none; by layer, MTP layers last */
    float hc_eps, route_scale;
    float swiglu_limit, shared_limit; /* of routed experts, and of the shared one */
    bool unit_queries;                /* each head's query is divided by its rms */
    bool round_keys;                  /* the window's keys are rounded to FP8 */
    enum scoring scoring;
    struct rope rope, compress_rope; /* of layers without and with compression */
};

struct v4 {
    struct network network;
    struct v4_config config;
    struct mat angles, compress_angles; /* on the device, see device.h, rotate() */
};

static inline const struct v4 *v4_of(const struct network *n)
{
    return (const struct v4 *)n;
}

/* Fill in the network's dimensions and v4->config; a missing or invalid key ends the process. The
 * caller frees v4->config.ratio. */
void v4_config_read(struct v4 *v4, const struct config *config);

/* For struct network's describe(). */
void v4_describe(const struct network *n, struct layer *layer);

/* What all layers have: everything but compressor, indexer and MTP's own. */
void v4_block_pieces(struct layer *layer);

/* The indexer's queries and their heads' weights. */
void v4_index_pieces(struct layer *layer);

/* For struct network: what V4.1 has unchanged. */
void v4_begin(struct network *n, struct device *d, uint64_t length);
void v4_end(struct network *n);
struct router v4_router(const struct network *n, struct layer *layer);
void v4_join(const struct network *n, struct layer *layer, struct mat hidden, struct mat y,
             struct mat kept);

/* What a hyper-connection keeps for hc_out(): n->kept columns. */
struct mat v4_post(const struct network *n, struct mat kept);
struct mat v4_comb(const struct network *n, struct mat kept);

/* ---- the pieces of a layer ---- */

/* All tensors of a layer except the experts', in the order of use. */
enum v4_piece {
    V4_ENORM, /* MTP only, like HNORM, E_PROJ, H_PROJ */
    V4_HNORM,
    V4_E_PROJ,
    V4_H_PROJ,
    V4_ENGRAM_TABLE, /* V4.1 only, like all ENGRAM, INDEX_WK and INDEX_K_NORM */
    V4_ENGRAM_WKV,
    V4_ENGRAM_Q,
    V4_ENGRAM_K,
    V4_HC_ATTN_FN, /* a hyper-connection's three follow each other */
    V4_HC_ATTN_BASE,
    V4_HC_ATTN_SCALE,
    V4_ATTN_NORM,
    V4_WQ_A,
    V4_Q_NORM,
    V4_WQ_B,
    V4_WKV,
    V4_KV_NORM,
    V4_INDEX_WQ_B, /* with ratio 4 */
    V4_INDEX_WEIGHTS,
    V4_INDEX_APE, /* a compressor's four follow each other */
    V4_INDEX_WKV,
    V4_INDEX_WGATE,
    V4_INDEX_NORM,
    V4_APE, /* with a ratio */
    V4_COMPRESS_WKV,
    V4_COMPRESS_WGATE,
    V4_COMPRESS_NORM,
    V4_INDEX_WK,
    V4_INDEX_K_NORM,
    V4_SINK,
    V4_WO_A,
    V4_WO_B,
    V4_HC_FFN_FN,
    V4_HC_FFN_BASE,
    V4_HC_FFN_SCALE,
    V4_FFN_NORM,
    V4_GATE,
    V4_GATE_BIAS,    /* routed by score; also in hash layers of models that see images */
    V4_GATE_TABLE,   /* routed by token */
    V4_GATE_BIAS_VL, /* for the tokens of images */
    V4_SHARED_W1,
    V4_SHARED_W3,
    V4_SHARED_W2,
    V4_LATE, /* after the experts: the head's, and MTP's own */
    V4_NORM = V4_LATE,
    V4_HC_HEAD_FN,
    V4_HC_HEAD_BASE,
    V4_HC_HEAD_SCALE,
    V4_HEAD,
    V4_PIECES
};

/* Offsets of a hyper-connection's other pieces from its FN, and of a compressor's from its APE. */
enum { V4_HC_BASE = 1, V4_HC_SCALE = 2, V4_APE_WKV = 1, V4_APE_WGATE = 2, V4_APE_NORM = 3 };

/* ---- batches ---- */

/* Samples that go through attention together. */
struct v4_batch {
    uint64_t rows;
    struct mat position; /* [rows, 1] I32: position in the sample */
    uint64_t blocks;     /* of tokens to compress, in all samples */
    struct mat block;    /* [rows, 1] I32: the row of the sample's first block */
    struct mat block_first, block_number, block_position; /* [blocks, 1] I32: a block's first row;
                                                             its number and its first token's
                                                             position, both in its sample */
};

/* Tokens per block of a layer; 0 where it sees no blocks. */
static inline uint64_t v4_ratio(const struct layer *layer)
{
    return v4_of(layer->network)->config.ratio[layer->number];
}

/* The angles of a layer: compressed layers rotate all their keys and queries by their own. */
struct mat v4_angles(const struct v4 *v4, const struct layer *layer);

/* Sample i has rows start[i] … start[i + 1] - 1; ratio is that of the layers to come. */
void v4_batch_begin(const struct v4 *v4, struct v4_batch *batch, const uint64_t *start,
                    uint64_t samples, uint64_t ratio);
void v4_batch_end(const struct v4 *v4, struct v4_batch *batch);

/* ---- steps ---- */

/* A hyper-connection's coefficients from the copies x [rows, copies * dim]: pre and post [rows,
 * copies], comb [rows, copies²], see device.h. hc: V4_HC_ATTN_FN or V4_HC_FFN_FN. */
void v4_hc_mix(const struct v4 *v4, struct layer *layer, enum v4_piece hc, struct mat pre,
               struct mat post, struct mat comb, struct mat x);

/* Hyper-connection: y [rows, dim] from the copies x [rows, copies * dim], with post [rows, copies]
 * and comb [rows, copies²] for device.h's hc_out(). hc: V4_HC_ATTN_FN or V4_HC_FFN_FN. */
void v4_hc_in(const struct v4 *v4, struct layer *layer, enum v4_piece hc, struct mat y,
              struct mat post, struct mat comb, struct mat x);

/* The head's: y [rows, dim]. */
void v4_hc_head(const struct v4 *v4, struct layer *layer, struct mat y, struct mat x);

/* From x: queries q [rows, heads * head_dim], their low-rank form low [rows, q_rank], and keys kv
 * [rows, head_dim], both rotated. */
void v4_project(const struct v4 *v4, struct layer *layer, const struct v4_batch *batch,
                struct mat low, struct mat q, struct mat kv, struct mat x);

/* Keys of blocks, y [batch->blocks, width], from x; ape: V4_APE or V4_INDEX_APE. */
void v4_compress(const struct v4 *v4, struct layer *layer, enum v4_piece ape,
                 const struct v4_batch *batch, struct mat y, struct mat x);

/* What the indexer compares: its queries q [rows, index_heads * index_dim] and keys key [blocks,
 * index_dim], both rotated and rounded to FP4, and weight [rows, index_heads]; BF16. */
void v4_index_parts(const struct v4 *v4, struct layer *layer, const struct v4_batch *batch,
                    struct mat q, struct mat key, struct mat weight, struct mat x, struct mat low);

/* The blocks that the indexer selects for each token: selected [rows, n] I32. */
void v4_index(const struct v4 *v4, struct layer *layer, const struct v4_batch *batch,
              struct mat selected, struct mat x, struct mat low);

/* How many blocks the indexer selects: columns of `selected`. */
uint64_t v4_index_best(const struct v4 *v4, const struct layer *layer,
                       const struct v4_batch *batch);

/* Attention's output o, rotated back, and seen as wo_a's input. */
void v4_attend(const struct v4 *v4, const struct layer *layer, const struct v4_batch *batch,
               struct mat o, struct mat q, struct mat kv, struct mat compressed,
               struct mat selected);

/* Project attention's output o to y [rows, dim]. */
void v4_output(const struct v4 *v4, struct layer *layer, struct mat y, struct mat o);

/* All steps from v4_project() to v4_output(). */
void v4_attention(const struct v4 *v4, struct layer *layer, const struct v4_batch *batch,
                  struct mat y, struct mat x);

/* The shared expert: y [rows, dim]. */
void v4_shared(const struct network *n, struct layer *layer, struct mat y, struct mat x);

/* MTP: x [rows, copies * dim] = the block's input, from x and the embeddings e of the next
 * tokens. */
void v4_mtp_input(const struct network *n, struct layer *layer, struct mat x, struct mat e);

#endif
