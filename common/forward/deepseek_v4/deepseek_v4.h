/* deepseek_v4.h: what the files of DeepSeek-V4's forward pass share: dimensions, a layer's weights,
 * and the steps of a layer, each by itself, so that tests can look at one alone.
 *
 * Source of all formulas: DeepSeek-V4-Flash's inference/model.py and kernel.py. Matrices have a row
 * a token; the samples of a batch lie one behind the other. */
#ifndef DEEPSEEK_V4_H
#define DEEPSEEK_V4_H

#include "forward/forward.h"
#include "model/weights.h"

/* ---- dimensions ---- */

struct v4_config {
    uint64_t dim, layers, mtp_layers, vocabulary;
    uint64_t heads, head_dim, rope_dim, q_rank, o_groups, o_rank, window;
    uint64_t index_heads, index_dim, index_best;
    uint64_t experts, experts_used, expert_dim, hash_layers;
    uint64_t copies, sinkhorn_iterations;
    uint64_t *ratio; /* by layer, those of MTP behind */
    float norm_eps, hc_eps, route_scale, swiglu_limit;
    enum scoring scoring;
    double rope_theta, compress_theta, rope_factor, beta_fast, beta_slow;
    uint64_t original_length;
};

/* From config.json; what is missing or makes no sense ends the process. */
void v4_config_read(struct v4_config *config, struct ts_in *in);
void v4_config_free(struct v4_config *config);

/* ---- a layer's weights ---- */

/* All tensors of a layer but the experts', in the order of use. */
enum v4_slot {
    V4_ENORM, /* MTP only, as are HNORM, E_PROJ, H_PROJ */
    V4_HNORM,
    V4_E_PROJ,
    V4_H_PROJ,
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
    V4_SINK,
    V4_WO_A,
    V4_WO_B,
    V4_HC_FFN_FN,
    V4_HC_FFN_BASE,
    V4_HC_FFN_SCALE,
    V4_FFN_NORM,
    V4_GATE,
    V4_GATE_BIAS,  /* routed by score */
    V4_GATE_TABLE, /* routed by token */
    V4_SHARED_W1,
    V4_SHARED_W3,
    V4_SHARED_W2,
    V4_NORM, /* the head's, and MTP's own */
    V4_HC_HEAD_FN,
    V4_HC_HEAD_BASE,
    V4_HC_HEAD_SCALE,
    V4_HEAD,
    V4_SLOTS
};

/* Where the others of a hyper-connection stand behind its FN, of a compressor behind its APE. */
enum { V4_HC_BASE = 1, V4_HC_SCALE = 2, V4_APE_WKV = 1, V4_APE_WGATE = 2, V4_APE_NORM = 3 };

enum v4_kind {
    V4_ABSENT,
    V4_LINEAR,  /* a product whose activations may be quantized */
    V4_GROUPED, /* the same, but its rows are cut into o_groups, each for its columns; never
                   quantized */
    V4_MATRIX,  /* a product of activations as they are, with a result in F32 or BF16 */
    V4_VECTOR,  /* numbers, kept in F32 */
    V4_TABLE,   /* experts by token id */
};

/* What a tensor must be. */
struct v4_piece {
    enum v4_kind kind;
    const char *name; /* behind the layer's prefix */
    uint64_t rows, cols;
};

/* The largest magnitudes that a weight, what went into it and what came out of it have. */
enum { V4_SEEN_WEIGHT, V4_SEEN_INPUT, V4_SEEN_OUTPUT, V4_SEEN };

/* A weight in use. */
struct v4_linear {
    struct operand **operand; /* `groups` of them */
    uint64_t groups;
    enum activation activation;
    float scale_2;
    char *module;
    struct mat seen; /* [1, V4_SEEN] F32: largest magnitudes of weight, input and output */
    uint64_t rows;   /* that went through */
};

struct v4_layer {
    char *prefix; /* "layers.3.", "mtp.0.", or "" for what lies outside of layers */
    uint64_t ratio;
    bool hash, mtp;
    struct v4_piece piece[V4_SLOTS];
    struct v4_linear linear[V4_SLOTS]; /* linear, grouped and matrix */
    struct mat vector[V4_SLOTS];
    int32_t *table; /* [vocabulary, experts_used] */
    bool present[V4_SLOTS];
    struct mat seen; /* of all its linears, [V4_SLOTS, V4_SEEN] */
};

/* A routed expert's matrices, in the order of use. */
enum { V4_W1, V4_W3, V4_W2, V4_EXPERT_MATRICES };

/* A tensor with all that belongs to it, as it came. */
struct v4_weight {
    const struct tensor *tensor;
    const struct weight *weight; /* for products */
    const struct scales *scales;
    float input_scale; /* NVFP4; else 0 */
    const void *raw;   /* its bytes in memory, or else on the device: */
    struct mat bytes;
    struct mat scale; /* the same for its scales->raw */
};

/* ---- the model ---- */

struct v4 {
    const struct forward *run;
    struct device *device;
    struct v4_config config;
    struct mat angles, compress_angles; /* see device.h, rotate */
};

/* For samples of up to `length` tokens. */
void v4_begin(struct v4 *v4, const struct forward *run, uint64_t length);
void v4_end(struct v4 *v4);

/* What layer `number` (those of MTP count on), or with UINT64_MAX the head, is made of; nothing is
 * loaded yet. */
void v4_layer_begin(const struct v4 *v4, struct v4_layer *layer, uint64_t number);
void v4_layer_end(const struct v4 *v4, struct v4_layer *layer);

/* See that all its tensors, its experts' too if asked, are in the table of run->in, in the right
 * shape; or the process ends. */
void v4_layer_check(const struct v4 *v4, const struct v4_layer *layer,
                    const struct weights *weights, bool experts);

/* The slot of the tensor of that name behind the prefix; V4_SLOTS if it has none. */
enum v4_slot v4_slot_of(const struct v4_layer *layer, const char *name);

/* A tensor to its place on the device. */
void v4_load(const struct v4 *v4, struct v4_layer *layer, enum v4_slot slot,
             const struct v4_weight *from);

/* One matrix of an expert; what it sees goes into `seen`, [1, V4_SEEN]. v4_expert_end() drops all
 * V4_EXPERT_MATRICES of them. */
void v4_load_expert(const struct v4 *v4, struct v4_linear *linear, const struct v4_weight *from,
                    struct mat seen);
void v4_expert_end(const struct v4 *v4, struct v4_linear *linear);

/* ---- batches ---- */

/* Samples that go through attention together. */
struct v4_batch {
    uint64_t rows;
    struct mat position; /* [rows, 1] I32: in its sample */
    uint64_t blocks;     /* of compressed tokens, in all samples */
    struct mat block;    /* [rows, 1] I32: the sample's first block */
    struct mat block_first, block_number, block_position; /* [blocks, 1] I32: first row of a block;
                                                            its number and its first token's
                                                            position in its sample */
};

/* Of samples whose rows are start[i] … start[i + 1] - 1, for layers of that ratio. */
void v4_batch_begin(const struct v4 *v4, struct v4_batch *batch, const uint64_t *start,
                    uint64_t samples, uint64_t ratio);
void v4_batch_end(const struct v4 *v4, struct v4_batch *batch);

/* ---- steps ---- */

/* y = x · weight, after quantization of x if it asks for that. */
void v4_linear(const struct v4 *v4, struct v4_linear *linear, struct mat y, struct mat x);

/* Hyper-connection: y [rows, dim] out of the copies x [rows, copies * dim]; post [rows, copies],
 * comb [rows, copies²] for its way back. hc: V4_HC_ATTN_FN or V4_HC_FFN_FN. */
void v4_hc_in(const struct v4 *v4, struct v4_layer *layer, enum v4_slot hc, struct mat y,
              struct mat post, struct mat comb, struct mat x);

/* The head's: y [rows, dim]. */
void v4_hc_head(const struct v4 *v4, struct v4_layer *layer, struct mat y, struct mat x);

void v4_norm(const struct v4 *v4, const struct v4_layer *layer, enum v4_slot norm, struct mat y,
             struct mat x);

/* Queries q [rows, heads * head_dim], their low-rank form low [rows, q_rank], keys kv [rows,
 * head_dim] of x. */
void v4_project(const struct v4 *v4, struct v4_layer *layer, const struct v4_batch *batch,
                struct mat low, struct mat q, struct mat kv, struct mat x);

/* Keys of blocks, y [batch->blocks, width] of x; ape: V4_APE or V4_INDEX_APE. */
void v4_compress(const struct v4 *v4, struct v4_layer *layer, enum v4_slot ape,
                 const struct v4_batch *batch, struct mat y, struct mat x);

/* What the indexer compares: its queries q [rows, index_heads * index_dim] and keys key [blocks,
 * index_dim], both rotated and in FP4, and weight [rows, index_heads]; BF16. */
void v4_index_parts(const struct v4 *v4, struct v4_layer *layer, const struct v4_batch *batch,
                    struct mat q, struct mat key, struct mat weight, struct mat x, struct mat low);

/* The blocks that the indexer selects for each token: selected [rows, n] I32. */
void v4_index(const struct v4 *v4, struct v4_layer *layer, const struct v4_batch *batch,
              struct mat selected, struct mat x, struct mat low);

/* How many blocks the indexer selects: columns of `selected`. */
uint64_t v4_index_best(const struct v4 *v4, const struct v4_layer *layer,
                       const struct v4_batch *batch);

void v4_attend(const struct v4 *v4, const struct v4_layer *layer, const struct v4_batch *batch,
               struct mat o, struct mat q, struct mat kv, struct mat compressed,
               struct mat selected);

/* From what attention gave, which is changed, to the hidden state: y [rows, dim]. */
void v4_output(const struct v4 *v4, struct v4_layer *layer, const struct v4_batch *batch,
               struct mat y, struct mat o);

/* All of these. */
void v4_attention(const struct v4 *v4, struct v4_layer *layer, const struct v4_batch *batch,
                  struct mat y, struct mat x);

/* Weights [rows, experts_used] F32 and numbers I32 of the experts of each token; ids: their token
 * ids. With all_weights (or no rows): those of all experts, in numeric order, as if all of them
 * were chosen. */
void v4_route(const struct v4 *v4, struct v4_layer *layer, struct mat weights, struct mat experts,
              struct mat all_weights, const int32_t *ids, struct mat x);

/* y = an expert's or the shared one's output for x; weight: each row's, or no rows. */
void v4_ffn(const struct v4 *v4, struct v4_linear *w1, struct v4_linear *w3, struct v4_linear *w2,
            float limit, struct mat y, struct mat x, struct mat weight);
void v4_shared(const struct v4 *v4, struct v4_layer *layer, struct mat y, struct mat x);

/* MTP: x [rows, copies * dim] = what goes into the block, of x and the embeddings e of the next
 * tokens. */
void v4_mtp_input(const struct v4 *v4, struct v4_layer *layer, struct mat x, struct mat e);

#endif
