/* forward.h: a model's forward pass over samples of tokens, as a filter over its weights: all
 * samples advance together through a layer while the next one is being read, then its weights are
 * dropped. It is written once, on top of device.h; what is a family's own is behind network.h. */
#ifndef FORWARD_H
#define FORWARD_H

#include "forward/device.h"
#include "forward/gather.h"
#include "forward/network.h"
#include "stream/tokens.h"
#include "stream/ts.h"

/* How activations are quantized before a product. */
enum arithmetic {
    ARITHMETIC_CALIBRATION, /* as served, but experts see BF16 */
    ARITHMETIC_SERVED,      /* as the format of each weight asks: FP8 for FP8 and MXFP4, NVFP4 under
                               its input_scale for NVFP4, BF16 for the rest */
    ARITHMETIC_SOURCE,      /* the same, but NVFP4 weights see FP8, as their MXFP4 source did */
};

/* What one linear layer saw. */
struct linear_seen {
    const char *module; /* "layers.3.ffn.experts.7.w1" */
    bool expert;        /* of a routed one */
    uint64_t rows;      /* of activations that went through it */
    float input_amax;   /* the largest magnitude among them */
    float weight_amax;
};

/* Hidden states behind a layer. */
struct states {
    uint64_t layer, copies;
    struct offloaded hidden; /* [tokens, copies * dim] BF16 */
    const char *weights; /* a digest that tells the layers so far from another checkpoint's: of the
                            table's lines, and the first bytes of each tensor that is no matrix,
                            scales too. The same however the weights come, and for a copy. */
};

/* What a run does and wants to know. Calls come in the order of the model. */
struct forward {
    struct ts_in *in; /* the weights, from the beginning; read to its end unless it stops before */
    struct network *network; /* the model that they are of */
    struct device *device;
    const struct tokens *tokens;
    struct ranks *ranks;   /* who runs over other samples at the same time, or NULL; what the
                              functions below are told of layers is of all samples */
    struct gather *gather; /* how ranks share the reading, or NULL: each reads all */
    enum arithmetic arithmetic;
    bool all_experts;      /* every token goes through every expert as well, for amaxes only */
    bool mtp;              /* the layers that predict further ahead, too */
    bool head;             /* losses are wanted */
    bool verbose;          /* say where each layer's time went */
    uint64_t batch;        /* samples at a time outside of experts; at least 1 */
    uint64_t memory;       /* bytes for weights that wait or are in use; 0: the device's own wish */
    uint64_t first, last;  /* layers */
    const char *states_in; /* hidden states to begin with instead of the embeddings, or NULL */
    void *context;         /* for the functions, which may be NULL: */
    void (*linear)(void *context, const struct linear_seen *seen);
    void (*routed)(void *context, const char *expert, uint64_t tokens);
    /* The hidden states behind a layer. */
    void (*states)(void *context, const struct states *states);
    /* Logits of what follows the tokens from `first` on, and what does follow, -1 behind a sample's
     * last token. mtp > 0: what the mtp-th of those layers predicts, that many tokens further
     * ahead; each sample has that many tokens less. */
    void (*logits)(void *context, unsigned mtp, uint64_t first, struct mat logits,
                   const int32_t *target);
};

/* Run. NaN or infinity in a layer, a missing tensor and one of a wrong shape end the process, the
 * latter two before the first is computed with. */
void forward_run(const struct forward *run);

#endif
