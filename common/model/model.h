/* model.h: a model as its family knows it: the names, order and groups of its tensors.
 *
 * A model is opened with config.json. Only this code parses a tensor's name; it gives a struct
 * place. No other file, stage or script knows a name. A model is not modified after model_open(),
 * so that any thread may use it. */
#ifndef MODEL_H
#define MODEL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tensor/place.h"
#include "tensor/toc.h"

struct model;

/* Open a model of the family `type`, config.json's model_type. NULL or an unknown type gives the
 * generic family, which knows no names; their order is the natural one. `config` is config.json or
 * NULL; the model keeps a reference. Never NULL; model_close() frees it and accepts NULL. */
struct model *model_open(const char *type, const json_t *config);
void model_close(struct model *model);

/* Guess the family of a stream without a model_type: the type of the family that knows the most
 * tensor names of the table (or names in its calibration dumps). Static; "" if no family knows any.
 */
const char *model_guess(const struct toc *toc);

/* The family's model_type, which is also that of its recipes; static; "" for the generic family.
 * Models of other types may belong to the family: V3.2 is "deepseek_v3". */
const char *model_type(const struct model *model);

/* config.json's model_type, if it is one of a known family; static; else "". */
const char *model_own_type(const struct model *model);

/* The object of config.json that holds the dimensions; owned by the model. NULL without
 * config.json.
 */
const json_t *model_config(const struct model *model);

/* ---- names ---- */

/* The place of a tensor, or of a module (a tensor's name without ".weight"), by its name in the
 * checkpoint or in the files of ranks (below). SECTION_UNKNOWN if the family does not know the
 * name.
 */
struct place model_place(const struct model *model, const char *name);

/* Write the name of the module at `place` to `module` (TENSOR_NAME_MAX + 1 bytes). False if the
 * family has no name for it. */
bool model_module(const struct model *model, const struct place *place, char *module);

/* The name of a module by which patterns find it, into `name` (TENSOR_NAME_MAX + 1 bytes), which is
 * returned: its own, but MTP's layers that are numbered after the others (model.layers.61.X) are
 * mtp.0.X, mtp.1.X, ... */
char *model_pattern_name(const struct model *model, const char *module, char *name);

/* *member = the place of the `i`-th member of the group of `place`, in the order of use. False if
 * the place is in no group or i is too large. */
bool model_group_member(const struct model *model, const struct place *place, unsigned i,
                        struct place *member);
enum { GROUP_MAX = 8 }; /* the maximum number of members */

/* For a matrix of a routed expert. The paths go to `path` (TENSOR_NAME_MAX + 1 bytes), which is
 * returned: of all experts of the layer ("layers.3.ffn.experts"), and of this expert
 * ("layers.3.ffn.experts.7"). The matrix's own name ("w1") is static. The last function is true for
 * the matrix that is used last. */
char *model_experts_path(const struct model *model, const struct place *place, char *path);
char *model_expert_path(const struct model *model, const struct place *place, char *path);
const char *model_matrix_name(const struct model *model, const struct place *place);
bool model_is_last_matrix(const struct model *model, const struct place *place);

/* The matrices of an expert that engines multiply at once with the one at `place`: "w1+w3", "w2".
 * The caller frees it. */
char *model_product_name(const struct model *model, const struct place *place);

/* The path of a place's layer ("layers.3", "mtp.0"), into `path` (TENSOR_NAME_MAX + 1 bytes), which
 * it returns; "" outside of layers. */
char *model_layer_path(const struct model *model, const struct place *place, char *path);

/* ---- the files of model-parallel ranks, as DeepSeek's inference/convert.py writes them ---- */

/* Write the name that such files have for a tensor of the checkpoint to `renamed` (TENSOR_NAME_MAX
 * + 1 bytes), and back. False if the family does not know the name, or does not know such files. */
bool model_to_ranks(const struct model *model, const char *name, char *renamed);
bool model_from_ranks(const struct model *model, const char *name, char *renamed);

/* NULL if the model can be shared by that many ranks; otherwise why not, as a clause that the
 * caller frees: its heads, experts and the like must be divided evenly. */
char *model_ranks_refuse(const struct model *model, uint64_t ranks);

/* The number of routed experts in the layer at `place`, by config.json; 0 if it does not say. */
uint32_t model_experts(const struct model *model, const struct place *place);

/* ---- what else depends on the family ---- */

/* True if the table has drafts of DSpark (V4 from June on, V4.1): they need hidden states of
 * several layers at once, and predict a block of tokens. */
bool model_has_dspark(const struct model *model, struct toc *toc);

/* Routed experts are counted by class, such as those of hash-routed layers. */
struct expert_class {
    const char *key;   /* in JSON: "hash" */
    const char *title; /* for people: "hash-routed" */
};

/* All classes, ended by a NULL key, and the index of an expert's class; static. */
const struct expert_class *model_classes(const struct model *model);
unsigned model_expert_class(const struct model *model, const struct place *place);

/* The i-th block size that FP8 weights may have; false after the last. They are config.json's
 * weight_block_size or, without it, the common ones; then the family's own. */
struct fp8_block {
    uint64_t rows, cols;
};
bool model_fp8_block(const struct model *model, unsigned i, struct fp8_block *block);

/* The last component of the names of FP8 weights' scales by blocks; static. */
const char *model_scale_name(const struct model *model);

/* Convert a module's name to that in the reference's calibration dumps, and back: buffers of
 * TENSOR_NAME_MAX + 1 bytes. A name that the family does not know stays. */
void model_to_dump(const struct model *model, const char *module, char *dumped);
void model_from_dump(const struct model *model, const char *dumped, char *module);

/* The command that makes NVFP4 of the model's routed experts, whatever format they have; NULL if
 * none is known. Static. */
const char *model_requantized_by(const struct model *model);

/* True if the reference's summary of quantizers also lists those that are disabled: of all other
 * matrices of the layers and of the head's. And the i-th one that it has beside a module for a
 * product without weights ("layers.3.attn.kv_bmm_quantizer"), always disabled, into `name`
 * (TENSOR_NAME_MAX + 1 bytes); false after the last. */
bool model_lists_disabled(const struct model *model);
bool model_unused_quantizer(const struct model *model, const char *module, unsigned i, char *name);

/* True if the model multiplies with the router's weight before the last matrix of an expert.
 * Serving engines do it after. */
bool model_weighs_early(const struct model *model);

/* The separator between a dumped module's name and "input_quantizer._amax"; static. */
const char *model_amax_separator(const struct model *model);

/* How a conversation is written as text: by the rules of a release. */
enum chat_style {
    CHAT_UNKNOWN,
    CHAT_V25, /* V2.5 */
    CHAT_V3,  /* V3 of December 2024 */
    CHAT_V3_0324,
    CHAT_R1_FIRST, /* R1's first template, which its distillations have */
    CHAT_R1,       /* its later one */
    CHAT_R1_0528,
    CHAT_V31,
    CHAT_V31_TERMINUS, /* also V3.2-Exp */
    CHAT_V32,          /* by its encoding folder: reasoning, tools and their results */
    CHAT_V4,           /* the same, and tasks */
    CHAT_V41,          /* as V4, with a token for systems, and other tags of calls */
};

/* The style of a family, whatever the tokenizer's chat template; CHAT_UNKNOWN: the template
 * decides. And that of a model whose tokenizer has no template. */
enum chat_style model_chat_style(const struct model *model);
enum chat_style model_untemplated_chat(const struct model *model);

/* ---- order ---- */

/* Sort a table's lines into stream order: by execution, then by natural order of names; scales
 * before their weight. `with` (may be NULL) is a parallel array of elements of `size` bytes, which
 * is sorted along. Of a module whose names come twice, in model-parallel ranks, each shard's
 * tensors stay together. */
void model_sort(const struct model *model, struct toc *toc, void *with, size_t size);

#endif
