/* deepseek_v3.h: DeepSeek-V3's part of the forward pass, and V3.2's, which adds an indexer to the
 * attention: dimensions, the pieces of a layer, and the steps of attention, as separate functions
 * so that tests can check each one.
 *
 * Source of all formulas: DeepSeek-V3's and DeepSeek-V3.2-Exp's inference/model.py and kernel.py
 * (the latter's revision 87e509a); for MTP, which they leave out, the DeepSeek-V3 technical report,
 * 2.2, and what network.c names. Matrices have one row per token; the samples of a batch follow
 * each other. */
#ifndef DEEPSEEK_V3_H
#define DEEPSEEK_V3_H

#include "forward/layer.h"
#include "forward/rope.h"
#include "forward/routing.h"

/* ---- the model ---- */

struct v3_config {
    uint64_t heads;
    uint64_t q_rank;    /* of low-rank queries; 0: they are not */
    uint64_t kv_rank;   /* of the latent that keys and values are made of */
    uint64_t nope_dim;  /* columns of a head's key that are not rotated */
    uint64_t value_dim; /* of a head */
    uint64_t index_heads, index_dim, index_best; /* index_best 0: there is no indexer */
    uint64_t dense_layers, dense_dim;            /* the first ones, with an MLP and no experts */
    uint64_t experts, experts_used, expert_dim, shared_dim;
    struct expert_groups groups;
    enum scoring scoring;
    bool bias;         /* a router's choice is by score plus bias */
    bool normalize;    /* the weights of a token's experts are divided by their sum */
    float route_scale; /* of these weights */
    float logit_scale; /* of attention */
    struct rope rope;
};

struct v3 {
    struct network network;
    struct v3_config config;
    enum activation rounding; /* of V3.2's keys */
    struct mat angles;        /* on the device, see device.h, rotate() */
};

static inline const struct v3 *v3_of(const struct network *n)
{
    return (const struct v3 *)n;
}

/* V3 rounds to BF16 after each operation; V3.2 computes sums, norms, routing and logits in F32. */
static inline bool v3_rounds(const struct network *n)
{
    return !v3_of(n)->config.index_best;
}

static inline struct swiglu v3_swiglu(const struct network *n)
{
    return (struct swiglu){.rounds = v3_rounds(n)};
}

/* Fill in the network's dimensions and v3->config; a missing or invalid key ends the process. */
void v3_config_read(struct v3 *v3, const struct config *config);

/* For struct network's describe(). */
void v3_describe(const struct network *n, struct layer *layer);

/* ---- the pieces of a layer ---- */

/* All tensors of a layer except the experts', in the order of use. */
enum v3_piece {
    V3_EMBED, /* MTP only, like ENORM, HNORM, EH_PROJ; the embedding's copy is not used */
    V3_ENORM,
    V3_HNORM,
    V3_EH_PROJ,
    V3_ATTN_NORM,
    V3_Q_PROJ, /* without q_rank, in place of the next three */
    V3_Q_A,
    V3_Q_NORM,
    V3_Q_B,
    V3_KV_A,
    V3_KV_NORM,
    V3_INDEX_Q, /* V3.2 only, like all INDEX */
    V3_INDEX_K,
    V3_INDEX_K_NORM,
    V3_INDEX_K_BIAS,
    V3_INDEX_WEIGHTS,
    V3_KV_B,
    V3_O_PROJ,
    V3_FFN_NORM,
    V3_GATE, /* in layers with experts */
    V3_GATE_BIAS,
    V3_MLP_GATE, /* of the shared experts, or of a dense layer's MLP */
    V3_MLP_UP,
    V3_MLP_DOWN,
    V3_LATE, /* after the experts: the head's, and MTP's own */
    V3_NORM = V3_LATE,
    V3_HEAD,
    V3_PIECES
};

/* ---- batches ---- */

/* Samples that go through attention together. */
struct v3_batch {
    uint64_t rows, longest; /* of all samples; of one */
    struct mat position;    /* [rows, 1] I32: position in the sample */
    struct mat first;       /* [rows, 1] I32: the row of the sample's first token */
};

/* Sample i has rows start[i] … start[i + 1] - 1. */
void v3_batch_begin(const struct v3 *v3, struct v3_batch *batch, const uint64_t *start,
                    uint64_t samples);
void v3_batch_end(const struct v3 *v3, struct v3_batch *batch);

/* ---- steps ---- */

/* Queries q [rows, heads * (nope_dim + rope)], rotated, and their low-rank form low [rows, q_rank]
 * if there is one, from x. */
void v3_queries(const struct v3 *v3, struct layer *layer, const struct v3_batch *batch,
                struct mat low, struct mat q, struct mat x);

/* kv [rows, kv_rank + rope] from x: the normed latent of keys and values, and the part of the keys
 * that is rotated, which all heads share. */
void v3_keys(const struct v3 *v3, struct layer *layer, const struct v3_batch *batch, struct mat kv,
             struct mat x);

/* What the indexer compares, in codes of FP8: its queries q [rows, index_heads * index_dim] and
 * keys key [rows, index_dim], both rotated and transformed, BF16; the keys' scales [rows, 1] and
 * the heads' weights [rows, index_heads], queries' scales included, up to a factor that all have;
 * F32. */
struct v3_index {
    struct mat q, key, scale, weight;
};
void v3_index_parts(const struct v3 *v3, struct layer *layer, const struct v3_batch *batch,
                    const struct v3_index *index, struct mat x, struct mat low);

/* The tokens that the indexer selects for each token: selected [rows, n] I32, see device.h. */
void v3_index_select(const struct v3 *v3, struct layer *layer, const struct v3_batch *batch,
                     struct mat selected, struct mat x, struct mat low);

/* o [rows, heads * value_dim] from queries and keys; `selected` with no columns: all tokens so
 * far. */
void v3_attend(const struct v3 *v3, struct layer *layer, const struct v3_batch *batch, struct mat o,
               struct mat q, struct mat kv, struct mat selected);

/* All of these steps, and the output's projection: y [rows, dim]. */
void v3_attention(const struct v3 *v3, struct layer *layer, const struct v3_batch *batch,
                  struct mat y, struct mat x);

#endif
