/* place.h: where a tensor belongs in its model. The model's family (model/) derives the place from
 * the name; all other code reads the place and knows no names. */
#ifndef PLACE_H
#define PLACE_H

#include <stdbool.h>
#include <stdint.h>

/* In the order of execution. */
enum section {
    SECTION_EMBED,
    SECTION_LAYERS,
    SECTION_NORM, /* before the head */
    SECTION_HEAD,
    SECTION_MTP, /* layers that predict further tokens */
    SECTION_UNKNOWN,
};

/* What each model-parallel rank of DeepSeek's inference code has of a tensor. Routed experts are
 * dealt out whole instead: of N ranks, each has the next N-th of a layer's. */
enum share {
    SHARE_ALL,       /* all of it */
    SHARE_ROWS,      /* a part of its rows, the first dimension */
    SHARE_ROWS_BF16, /* the same, in BF16 also where the release has FP8 */
    SHARE_COLS,      /* a part of its columns, the second dimension */
    SHARE_NOTHING,   /* no rank has it */
    SHARE_UNKNOWN,   /* the family does not say */
};

/* What engines do with a matrix, where they differ over it. */
enum use {
    USE_PRODUCT, /* multiply with it, in the format that the configs say */
    USE_LATENT,  /* the same, fused with others of its group that calibrations keep apart: the first
                  * products of attention, down to a low rank */
    USE_ABSORBED, /* take it apart, and multiply the parts into others: keys and values from a low
                   * rank */
    USE_INDEXER,  /* fuse it with others into a product in BF16, whatever the configs say: keys and
                   * weights of an indexer */
};

#define PLACE_NONE UINT32_MAX

struct place {
    uint8_t section; /* enum section */
    uint8_t share;   /* enum share */
    uint8_t use;     /* enum use */
    uint8_t group;   /* in a part, or an expert: matrices with the same number other than 0 share
                      * their second-level scale and their input scale */
    bool stays;      /* never quantized: router, norms, embeddings */
    uint32_t layer;  /* index in the section; 0 outside of layers */
    uint32_t part;   /* index in the layer, in the order of execution */
    uint32_t expert; /* index of a routed expert, else PLACE_NONE */
    uint32_t matrix; /* index in the part or the expert, in the order of use */
};

/* Compare in the order of execution: <0, 0 or >0, as strcmp(). */
int place_compare(const struct place *a, const struct place *b);

static inline bool place_is_routed(const struct place *place)
{
    return place->expert != PLACE_NONE;
}

/* True if both are the same matrix of routed experts of the same layer. */
bool place_are_peers(const struct place *a, const struct place *b);

#endif
