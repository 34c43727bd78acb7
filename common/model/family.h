/* family.h: what a file of a family says about it. For files in model/; all others include model.h.
 *
 * A family is a table of names in the order of execution. In a prefix, '#' stands for a number: of
 * the layer, and of the expert. Adding a family: a file with such a table, and a line in
 * families.def.
 */
#ifndef FAMILY_H
#define FAMILY_H

#include "model/model.h"

/* How the names of a section begin: "layers.#.", or "norm.". */
struct section_name {
    const char *prefix;
    enum section section;
    uint8_t part; /* where a section without layers has several */
    bool stays;   /* see place.h */
};

/* A matrix of a part, and the group in that part that it belongs to (see place.h); 0: none. */
struct matrix_name {
    const char *name; /* "w1" */
    uint8_t group;
};

/* How the names of a layer's part go on: "attn.", or "ffn.experts.#." for routed experts. */
struct part_name {
    const char *prefix;
    const struct matrix_name *matrix; /* in the order of use, ended by a NULL name; or NULL: names
                                         go by their natural order */
    bool stays;                       /* see place.h */
};

struct family {
    const char *type;                   /* config.json's model_type */
    const struct section_name *section; /* ended by a NULL prefix. Without SECTION_MTP, layers from
                                           num_hidden_layers on are that section's */
    const struct part_name *part;       /* in the order of execution, ended by a NULL prefix */
    const char *amax_separator;         /* between a module and "input_quantizer._amax" */

    /* The module as the calibration dumps of the reference call it, into `dumped`
     * (TENSOR_NAME_MAX + 1 bytes), and back; false if it has no such name. NULL: they call it what
     * the checkpoint does. */
    bool (*to_dump)(const char *module, char *dumped);
    bool (*from_dump)(const struct model *model, const char *dumped, char *module);

    const struct fp8_block
        *fp8_block; /* sizes beside weight_block_size, ended by 0 rows; or NULL */

    const struct expert_class *classes; /* of routed experts, ended by a NULL key; NULL: one
                                           class */
    /* Which of them; NULL: the first. */
    unsigned (*expert_class)(const struct model *model, const struct place *place);

    enum chat_style chat;
};

struct model {
    const struct family *family;
    json_t *config;             /* config.json's object that holds the dimensions, or NULL */
    uint32_t layers;            /* num_hidden_layers; 0 if it is not known */
    struct fp8_block fp8_block; /* quantization_config's weight_block_size; 0 rows if not known */
};

#define FAMILY(name) extern const struct family family_##name;
#include "model/families.def"
#undef FAMILY

/* Of models that no family knows. */
extern const struct family family_generic;

#endif
