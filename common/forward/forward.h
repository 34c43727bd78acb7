/* forward.h: a model's forward pass over samples of tokens, as a filter over its weights. All
 * samples go through a layer while the next layer is being read; then the layer's weights are
 * dropped. The pass is written on top of device.h; network.h hides what differs between
 * families. */
#ifndef FORWARD_H
#define FORWARD_H

#include "forward/device.h"
#include "forward/gather.h"
#include "forward/network.h"
#include "stream/tokens.h"
#include "stream/ts.h"

/* How activations are quantized before a product. */
enum arithmetic {
    ARITHMETIC_CALIBRATION, /* as served, but experts, and what `quantizes` says, see BF16; see also
                               network.h, calibrates_all */
    ARITHMETIC_SERVED, /* as the model's own code, by the format of each weight: FP8 for FP8 and
                          MXFP4, NVFP4 under its input_scale for NVFP4, BF16 for the rest */
    ARITHMETIC_SOURCE, /* the same, but FP8 for NVFP4 weights, as for their MXFP4 source */
    ARITHMETIC_ENGINE, /* as ARITHMETIC_SERVED, but a layer's routed experts in NVFP4 as serving
                          engines run them: all under the largest of their input_scales, and
                          with the router's weight after the down projection, not before it */
};

/* What was observed of one linear layer. */
struct linear_seen {
    const char *module;    /* "layers.3.ffn.experts.7.w1" */
    bool expert;           /* a routed expert's */
    uint64_t rows;         /* of activations */
    float input_amax;      /* the largest magnitude among them */
    bool weighted;         /* the input is times the router's weight: */
    float unweighted_amax; /* the same without it */
    float weight_amax;
    /* What forward.records asked for; else NULL, and 0: */
    const float *moments; /* [cols, DEVICE_BLOCK]: means over the rows, see device.h,
                             add_moments(). Of several ranks, only rank 0 has them. */
    uint64_t cols;
    float headroom_amax, unweighted_headroom_amax; /* see tensor/headroom.h */
};

/* Hidden states after a layer. */
struct states {
    uint64_t layer;
    struct offloaded hidden; /* [tokens, copies * dim + carried] BF16, see network.h */
    const char *weights; /* a digest that tells the layers so far from another checkpoint's: of the
                            table's lines and the first bytes of each tensor, scales included, that
                            is not a matrix. It does not depend on how the weights are stored. */
};

/* What a run does and reports. Callbacks are called in the order of the model. */
struct forward {
    struct ts_in *in; /* the weights, from the beginning; read to the end unless the run stops
                         earlier */
    struct network *network; /* their model */
    struct device *device;
    const struct tokens *tokens;
    struct ranks *ranks;   /* which run over the other samples, or NULL; the callbacks about layers
                              are told of all samples */
    struct gather *gather; /* shares the reading between ranks; NULL: each reads all */
    enum arithmetic arithmetic;
    const char *recipe;   /* a digest that tells what quantizes() says from what another run's
                             says, or NULL without it */
    bool all_experts;     /* every token also goes through every expert, for amaxes only */
    bool mtp;             /* run the multi-token prediction layers, too */
    bool head;            /* losses are wanted */
    bool verbose;         /* report where each layer's time went */
    bool quiet;           /* do not say which tensors are not used */
    uint64_t batch;       /* samples at a time outside experts; at least 1 */
    uint64_t memory;      /* bytes for weights that wait or are in use; 0: the device's default */
    uint64_t first, last; /* layers */
    /* Layers before `repeated` were reported by an earlier run, which the samples before `lagging`
     * went through, too: from `first` on only the others do, and only the last of these layers
     * calls back, for its hidden states. */
    uint64_t repeated, lagging;
    const char *states_in; /* hidden states to begin with instead of embeddings, or NULL */
    void *context;         /* for the callbacks, which may be NULL: */
    /* Fill hidden states of an earlier run that this one continues: those of all samples after
     * layer `first` - 1, or of those before `lagging` after layer `repeated` - 1. If `first` is 0,
     * there are embeddings already. */
    void (*resume)(void *context, const struct states *states);
    /* Whether the module is to be quantized after a calibration, which then shows it BF16. */
    bool (*quantizes)(void *context, const char *module);
    /* What to record of a linear's inputs besides amaxes: the kinds of inputs.h, 0 for none. */
    unsigned (*records)(void *context, const char *module, bool expert);
    void (*linear)(void *context, const struct linear_seen *seen);
    void (*routed)(void *context, const char *expert, uint64_t tokens);
    /* All was reported that will be; the weights are still open. */
    void (*reported)(void *context);
    /* The hidden states after a layer. */
    void (*states)(void *context, const struct states *states);
    /* Logits for the rows from `first` on, and the token that follows each, -1 after a sample's
     * last. mtp > 0: predictions of the mtp-th MTP layer, mtp tokens further ahead; each sample has
     * mtp rows fewer. */
    void (*logits)(void *context, unsigned mtp, uint64_t first, struct mat logits,
                   const int32_t *target);
};

/* End the process if a sample is longer than the model's forward pass takes. */
void forward_check(const struct forward *run);

/* Run. A missing tensor or one of a wrong shape ends the process before anything is computed. NaN
 * or infinity in a layer ends it, too. */
void forward_run(const struct forward *run);

#endif
