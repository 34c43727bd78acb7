/* deepseek_v41.h: DeepSeek-V4.1's part of the forward pass, where it differs from V4's: layers
 * share compressed keys, the indexer's keys and the selection of blocks; a hyper-connection's input
 * is weighted by what the previous one computed; Engram adds what n-grams of tokens look up.
 *
 * Source of all formulas: DeepSeek-V4.1-Flash's inference/model.py, engram.py and kernel.py.
 * Matrices have one row per token; the samples of a batch follow each other. Candidates (a first
 * choice among blocks) change nothing up to network->longest tokens, and are not implemented. */
#ifndef DEEPSEEK_V41_H
#define DEEPSEEK_V41_H

#include "forward/deepseek_v4/deepseek_v4.h"
#include "forward/deepseek_v41/hash.h"

struct v41 {
    struct v4 v4;
    struct engram engram;
    bool *key_source, *index_source; /* by layer: whether it makes keys, or selects blocks */
};

static inline const struct v41 *v41_of(const struct network *n)
{
    return (const struct v41 *)n;
}

/* Fill in the network's dimensions, v41->v4.config and the sources; whatever is missing or does not
 * fit ends the process. The caller frees the lists. */
void v41_config_read(struct v41 *v41, const struct config *config);

/* For struct network's describe(). */
void v41_describe(const struct network *n, struct layer *layer);

/* ---- what layers leave to later ones ---- */

/* Views of the columns of hidden states [rows, copies * dim + carried]. The key of block j of a
 * sample is in the sample's row j. */
struct v41_carried {
    struct mat copies;    /* [rows, copies * dim] BF16: the hidden states proper */
    struct mat key;       /* [rows, head_dim] BF16: compressed keys, rotated and rounded to FP4 */
    struct mat index_key; /* [rows, index_dim] BF16: the indexer's */
    struct mat selected;  /* [rows, index_best] I32: the blocks that a token sees, see device.h */
    struct mat pre;       /* [rows, copies] F32: weights of the next hyper-connection's input */
};

/* How many columns they take after the copies. */
uint64_t v41_carried_columns(const struct v41 *v41);

struct v41_carried v41_carried(const struct v41 *v41, struct mat hidden);

/* As they are before the first layer: no keys; the input is the first copy. */
void v41_carried_begin(const struct v41 *v41, struct mat hidden);

/* ---- batches ---- */

/* Samples that go through attention together. */
struct v41_batch {
    struct v4_batch v4; /* `block` is the sample's first row, see v41_carried */
    struct mat spread;  /* [rows, 1] I32: for row j of a sample, its block j among those of all
                           samples; v4.blocks where it has none */
};

void v41_batch_begin(const struct v41 *v41, struct v41_batch *batch, const uint64_t *start,
                     uint64_t samples, uint64_t ratio);
void v41_batch_end(const struct v41 *v41, struct v41_batch *batch);

/* ---- steps ---- */

/* Add what the layer's Engram table has for the tokens to the copies; id has the token of each
 * row. For layers that have a table. */
void v41_engram(const struct v41 *v41, struct layer *layer, struct mat copies,
                const uint64_t *start, uint64_t samples, const int32_t *id);

/* In a layer that makes keys: carried->key and carried->index_key, from x. */
void v41_make_keys(const struct v41 *v41, struct layer *layer, const struct v41_batch *batch,
                   const struct v41_carried *carried, struct mat x);

/* In a layer that selects blocks: carried->selected, from x and the low-rank queries. */
void v41_select(const struct v41 *v41, struct layer *layer, const struct v41_batch *batch,
                const struct v41_carried *carried, struct mat x, struct mat low);

/* All of attention: y [rows, dim] from x. */
void v41_attention(const struct v41 *v41, struct layer *layer, const struct v41_batch *batch,
                   const struct v41_carried *carried, struct mat y, struct mat x);

#endif
