/* network.h: a model as the forward pass sees it: its dimensions, what its layers consist of, and
 * the steps that differ between families. A family makes one from config.json (forward.c lists the
 * families); everything else, from embeddings to logits, is shared. */
#ifndef NETWORK_H
#define NETWORK_H

#include "forward/config.h"
#include "forward/device.h"

struct layer;
struct router;

/* What network_layer() returns for a tensor outside layers, and the layer number of final norm and
 * head. */
#define LAYER_NONE UINT64_MAX
#define LAYER_HEAD (UINT64_MAX - 1)

struct network {
    struct config config;  /* source of the dimensions */
    struct device *device; /* between begin() and end() */
    uint64_t dim;          /* of a token's embedding */
    uint64_t copies;       /* embeddings that a hidden state consists of, side by side; mostly 1 */
    uint64_t carried;      /* columns after them, for what else a layer leaves to later ones */
    uint64_t vocabulary;
    uint64_t longest; /* tokens that a sample may have; 0: any number */
    float norm_eps;
    enum activation fp8;         /* of products with FP8 and MXFP4 weights */
    bool calibrates_all;         /* in calibration, all products are of unquantized activations, not
                                    only experts' */
    bool rounds_logits;          /* to BF16 */
    uint64_t layers, mtp_layers; /* MTP layers are numbered from `layers` on */
    uint64_t kept;               /* columns that attention() keeps for join() */
    const char *embedding;       /* the embedding tensor's name */
    const char *rows;            /* part of the names of tensors whose rows are read by number
                                    (PIECE_ROWS) and of their scales; NULL: there are none */

    /* A layer's pieces (see layer.h): how many there can be, the first one after the experts, and
     * the one that makes logits. */
    size_t pieces, late_pieces, head_piece;

    /* Free the family's part and the network. */
    void (*close)(struct network *n);

    /* Prepare to run on a device over samples of up to `length` tokens. */
    void (*begin)(struct network *n, struct device *d, uint64_t length);
    void (*end)(struct network *n);

    /* Describe layer->number: its prefix, pieces and experts. */
    void (*describe)(const struct network *n, struct layer *layer);

    /* ---- the steps of a layer ---- */

    /* Attention, added to the hidden states [rows, copies * dim + carried]; then x [rows, dim] BF16
     * = the normed input of the experts. Sample s has rows start[s] - start[0] to start[s + 1] -
     * start[0] - 1; id has the token of each row. kept [rows, n->kept] F32 holds what join()
     * needs. */
    void (*attention)(const struct network *n, struct layer *layer, struct mat hidden, struct mat x,
                      struct mat kept, const uint64_t *start, uint64_t samples, const int32_t *id);

    /* For layers that have experts. */
    struct router (*router)(const struct network *n, struct layer *layer);

    /* y [rows, dim] BF16 = the output of the shared experts, or of the MLP in a layer without
     * experts. */
    void (*shared)(const struct network *n, struct layer *layer, struct mat y, struct mat x);

    /* Add y [rows, dim] BF16, the experts' output, to the hidden states. */
    void (*join)(const struct network *n, struct layer *layer, struct mat hidden, struct mat y,
                 struct mat kept);

    /* x [rows, dim] BF16 = the normed input of the logits' product. `layer` is the head or an MTP
     * layer. */
    void (*head)(const struct network *n, struct layer *layer, struct mat x, struct mat hidden);

    /* MTP: turn hidden states into those that the next block takes; `norm` is the layer whose norm
     * precedes logits, the head or an MTP layer. NULL: the block takes them as they are. */
    void (*mtp_states)(const struct network *n, const struct layer *norm, struct mat hidden);

    /* MTP: turn hidden states into the block's input, with the embeddings e [rows, dim] of the next
     * tokens. */
    void (*mtp_input)(const struct network *n, struct layer *layer, struct mat hidden,
                      struct mat e);
};

/* The model of a stream's weights. A family without a forward pass, and a missing or invalid
 * config.json, end the process. The stream may be closed before the network. */
struct network *network_open(struct ts_in *in);
void network_close(struct network *n);

/* Columns of a row of hidden states. */
static inline uint64_t network_columns(const struct network *n)
{
    return n->copies * n->dim + n->carried;
}

/* The number of the layer that a tensor of `in` belongs to. */
uint64_t network_layer(const struct network *n, const struct ts_in *in, const char *tensor);

/* The families' constructors. config->json and config->stream must outlive the network; `in`, which
 * has the side files, need not. */
struct network *deepseek_v4_open(const struct config *config, struct ts_in *in);
struct network *deepseek_v3_open(const struct config *config, struct ts_in *in);
struct network *deepseek_v41_open(const struct config *config, struct ts_in *in);

#endif
