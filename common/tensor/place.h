/* place.h: where a tensor stands in its model. The model's family (model/) finds it from the name;
 * everything else reads the place and knows no names. */
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
    SECTION_MTP, /* layers that predict further ahead */
    SECTION_UNKNOWN,
};

#define PLACE_NONE UINT32_MAX

struct place {
    uint8_t section; /* enum section */
    uint8_t group;   /* matrices of one part, and of one expert, with the same number other than 0
                        share their second-level scale and their input scale */
    bool stays;      /* no recipe may quantize it: router, norms, embeddings */
    uint32_t layer;  /* its number in the section; 0 outside of layers */
    uint32_t part;   /* of the layer, in the order of execution */
    uint32_t expert; /* of a routed expert, else PLACE_NONE */
    uint32_t matrix; /* in the part or the expert, in the order of use */
};

/* <0, 0, >0 as strcmp, in the order of execution. */
int place_compare(const struct place *a, const struct place *b);

static inline bool place_is_routed(const struct place *place)
{
    return place->expert != PLACE_NONE;
}

/* True if both belong to one group. */
bool place_same_group(const struct place *a, const struct place *b);

/* True if both are the same matrix of routed experts of the same layer. */
bool place_are_peers(const struct place *a, const struct place *b);

#endif
