/* family.h: the description of a model family. Only files in model/ include it; all others include
 * model.h.
 *
 * A family is a table of tensor names in the order of execution. In a prefix, '#' stands for a
 * number: the layer's or the expert's. To add a family: add a file with such a table, and a line to
 * families.def.
 *
 * `in_ranks` is the name that DeepSeek's inference code has for it, which the files of
 * model-parallel ranks use; NULL: the same. `share` is what each rank has (see place.h). */
#ifndef FAMILY_H
#define FAMILY_H

#include "model/model.h"

/* The prefix of a section's names: "layers.#." or "norm.". */
struct section_name {
    const char *prefix;
    enum section section;
    uint8_t part; /* distinguishes the parts of a section without layers */
    bool stays;   /* see place.h */
    const char *in_ranks;
    enum share share; /* outside of layers */
};

/* A matrix of a part, and its group in that part (see place.h); 0 for none. */
struct matrix_name {
    const char *name; /* "w1" */
    uint8_t group;
    enum use use;
    bool stays; /* see place.h */
    const char *in_ranks;
    enum share share;
};

/* The prefix of a part's names within a layer: "attn.", or "ffn.experts.#." for routed experts. */
struct part_name {
    const char *prefix;
    const struct matrix_name *matrix; /* in the order of use, ended by a NULL name; or NULL: names
                                       * are in natural order */
    bool stays;                       /* see place.h */
    const char *in_ranks;
    enum share share; /* without matrices */
};

/* The files of model-parallel ranks, as the family's inference/convert.py writes them. */
struct rank_files {
    bool mtp;                   /* they have the layers of MTP */
    const char *scale;          /* the last component that they call "scale"; NULL: the same */
    const char *const *divides; /* config.json's keys for numbers that the number of ranks must
                                 * divide, ended by NULL */
};

/* Names of tensors in a layer, ended by NULL, and the layers that have them; NULL: all. */
struct layer_names {
    const char *const *names;
    bool (*where)(const struct model *model, const struct place *place);
};

/* The shape of a tensor of any checkpoint's, as it lies there whole: config.json's keys, of which a
 * dimension is the product ("o_groups*o_lora_rank"), or NULL: not by keys. In the name, '#' stands
 * for a number. */
struct shape_name {
    const char *name, *rows, *cols;
};

struct family {
    const char *type;                   /* config.json's model_type */
    const char *const *other_types;     /* others with the same names, ended by NULL; or NULL */
    const struct section_name *section; /* ended by a NULL prefix. If it has no SECTION_MTP, layers
                                         * from num_hidden_layers on belong to that section */
    const struct part_name *part;       /* in the order of execution, ended by a NULL prefix */
    /* What any model has, for finding out that a checkpoint is incomplete: tensors, ended by NULL,
     * and those of layers, ended by NULL names: first what each has, then what some have. NULL if
     * it is not known. */
    const char *const *has;
    const struct layer_names *layer_has;
    /* With layer_has: config.json's key for the number of routed experts in the layer at `place`;
     * NULL: that layer has none. */
    const char *(*experts_key)(const struct model *model, const struct place *place);
    const struct shape_name *shapes; /* ended by a NULL name; or NULL: not known */
    /* A module that only drafts of DSpark have, which predict a block of tokens from several
     * layers' hidden states; or NULL. */
    const char *dspark;

    /* The model multiplies with the router's weight before the last matrix of an expert, unlike
     * engines, which do it after. */
    bool weighs_early;

    const char *requantized_by; /* the command that makes NVFP4 of its releases, whatever format
                                 * their routed experts have; NULL: none is known */

    const char *amax_separator; /* between a module and "input_quantizer._amax" */

    bool dumped_as_ranks; /* the reference's calibration dumps have the modules' names in ranks */

    const struct fp8_block
        *fp8_block; /* block sizes besides weight_block_size, ended by 0 rows; or NULL */

    const struct expert_class *classes; /* classes of routed experts, ended by a NULL key; NULL: one
                                         * class */
    /* The index of an expert's class; NULL: always the first. */
    unsigned (*expert_class)(const struct model *model, const struct place *place);

    const struct rank_files *ranks; /* NULL: none are known */

    enum chat_style chat;
    const char *untemplated_type; /* the model_type that has a style without a chat template; or
                                   * NULL */
    enum chat_style untemplated_chat;
};

struct model {
    const struct family *family;
    const char *type;           /* the model_type of config.json, one of the family's; static */
    json_t *config;             /* the object of config.json that holds the dimensions, or NULL;
                                 * owned */
    uint32_t layers;            /* num_hidden_layers; 0 if unknown */
    struct fp8_block fp8_block; /* quantization_config's weight_block_size; 0 rows if unknown */
};

/* config.json's count of that name; 0 if it has none, or for a NULL key. */
uint32_t model_count(const struct model *model, const char *key);

/* For families without hash-routed layers: the experts of layers, and MTP's. */
extern const struct expert_class classes_by_score[];
unsigned class_by_score(const struct model *model, const struct place *place);

#define FAMILY(name) extern const struct family family_##name;
#include "model/families.def"
#undef FAMILY

/* For models of an unknown family. */
extern const struct family family_generic;

#endif
