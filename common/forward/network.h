/* network.h: a model as the forward pass sees it: its dimensions, what its layers consist of, and
 * what is its family's own about them. A family makes one of its config.json (see forward.c, where
 * the families are listed); all else, from embeddings to logits, is the same for all of them. */
#ifndef NETWORK_H
#define NETWORK_H

#include "forward/config.h"
#include "forward/device.h"

struct layer;
struct router;

/* What network_layer() gives for a tensor that belongs to none, and the number of the layer that
 * stands for final norm and head. */
#define LAYER_NONE UINT64_MAX
#define LAYER_HEAD (UINT64_MAX - 1)

struct network {
    struct config config;  /* where the dimensions are from */
    struct device *device; /* between begin() and end() */
    uint64_t dim;          /* of a token's embedding */
    uint64_t copies; /* of these that its hidden state consists of, side by side; 1 for most */
    uint64_t vocabulary;
    float norm_eps;
    uint64_t layers, mtp_layers; /* those of multi-token prediction count on from `layers` */
    uint64_t kept;               /* columns of what attention() keeps for join() */
    const char *embedding;       /* the embeddings' tensor */

    /* A layer's pieces (see layer.h): how many there can be, the first of those that come after its
     * experts, and the one that makes logits. */
    size_t pieces, late_pieces, head_piece;

    /* Frees the family's part, and the network. */
    void (*close)(struct network *n);

    /* Make ready to run on a device over samples of up to `length` tokens. */
    void (*begin)(struct network *n, struct device *d, uint64_t length);
    void (*end)(struct network *n);

    /* Say what layer->number consists of: its prefix, pieces and experts. */
    void (*describe)(const struct network *n, struct layer *layer);

    /* ---- the steps of a layer ---- */

    /* From hidden states [rows, copies * dim], which take in what attention gives, to what goes
     * into the experts: x [rows, dim] BF16, normed. Sample s has rows start[s] - start[0] to
     * start[s + 1] - start[0] - 1. kept [rows, n->kept] F32 is what join() needs. */
    void (*attention)(const struct network *n, struct layer *layer, struct mat hidden, struct mat x,
                      struct mat kept, const uint64_t *start, uint64_t samples);

    /* For layers that have experts. */
    struct router (*router)(const struct network *n, struct layer *layer);

    /* y [rows, dim] BF16 = what all of x goes through: shared experts, or the MLP of a layer that
     * has no others. */
    void (*shared)(const struct network *n, struct layer *layer, struct mat y, struct mat x);

    /* Hidden states take in y [rows, dim] BF16, what came out of the experts. */
    void (*join)(const struct network *n, struct layer *layer, struct mat hidden, struct mat y,
                 struct mat kept);

    /* x [rows, dim] BF16 = what logits are made of, normed. `layer` is the head, or one of MTP. */
    void (*head)(const struct network *n, struct layer *layer, struct mat x, struct mat hidden);

    /* MTP: hidden states become what goes into the block, of themselves and of the embeddings e
     * [rows, dim] of the next tokens. */
    void (*mtp_input)(const struct network *n, struct layer *layer, struct mat hidden,
                      struct mat e);
};

/* The model that a stream's weights are of; one of a family without a forward pass, and one whose
 * config.json is missing or makes no sense, ends the process. The stream may be closed before. */
struct network *network_open(struct ts_in *in);
void network_close(struct network *n);

/* The number of the layer that a tensor of `in` belongs to. */
uint64_t network_layer(const struct network *n, const struct ts_in *in, const char *tensor);

/* The families'. config->json and config->stream outlive what they return. */
struct network *deepseek_v4_open(const struct config *config);

#endif
