/* model.h: a model as its family knows it: how its tensors are called, ordered and belong together.
 *
 * A family is opened with config.json; a tensor's name is then parsed in one place, here, into a
 * struct place. No other file, stage or script knows a name. */
#ifndef MODEL_H
#define MODEL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tensor/place.h"
#include "tensor/toc.h"

struct model;

/* Open the family `type` (config.json's model_type; NULL or an unknown one: a generic family, with
 * names in natural order and nothing known of them) with config.json (NULL: not there). Never NULL;
 * the caller closes it. */
struct model *model_open(const char *type, const json_t *config);
void model_close(struct model *model);

/* The type of the family whose names most tensors of the table have (or whose calibration dumps
 * they are); "" if none has any. For streams without a model_type. */
const char *model_guess(const struct toc *toc);

/* The family's model_type; "" for the generic one. */
const char *model_type(const struct model *model);

/* ---- names ---- */

/* The place of a tensor, or of a module (a tensor's name less ".weight"). */
struct place model_place(const struct model *model, const char *name);

/* The name of the module at a place, into `module` (TENSOR_NAME_MAX + 1 bytes). False if the family
 * has no name for it. */
bool model_module(const struct model *model, const struct place *place, char *module);

/* The `i`-th member of the group that `place` belongs to, in the order of use. False if there is
 * none: i is too large, or the place belongs to no group. */
bool model_group_member(const struct model *model, const struct place *place, unsigned i,
                        struct place *member);
enum { GROUP_MAX = 8 }; /* members, at most */

/* Of a matrix of a routed expert: what the path of all the layer's experts is called
 * ("layers.3.ffn.experts") and that of this expert ("layers.3.ffn.experts.7"), into `path`
 * (TENSOR_NAME_MAX + 1 bytes), returning it; the matrix's own name ("w1"); and whether it is the
 * one used last. */
char *model_experts_path(const struct model *model, const struct place *place, char *path);
char *model_expert_path(const struct model *model, const struct place *place, char *path);
const char *model_matrix_name(const struct model *model, const struct place *place);
bool model_is_last_matrix(const struct model *model, const struct place *place);

/* Parse "PREFIX<number>." at *name: true, *number, and *name moved after the dot. */
bool name_number(const char **name, const char *prefix, uint32_t *number);

/* ---- what else depends on the family ---- */

/* Routed experts are counted by class: those of hash-routed layers, for example. */
struct expert_class {
    const char *key;   /* in JSON: "hash" */
    const char *title; /* for people: "hash-routed" */
};

/* All classes, ended by a NULL key, and which of them an expert is of. */
const struct expert_class *model_classes(const struct model *model);
unsigned model_expert_class(const struct model *model, const struct place *place);

/* Block sizes that FP8 weights may have: config.json's weight_block_size or, without that, those
 * that are in use; then what the family has besides. The i-th one; false after the last. */
struct fp8_block {
    uint64_t rows, cols;
};
bool model_fp8_block(const struct model *model, unsigned i, struct fp8_block *block);

/* A module's name in the reference's calibration dumps, and back, as in family.h. */
bool model_to_dump(const struct model *model, const char *module, char *dumped);
bool model_from_dump(const struct model *model, const char *dumped, char *module);
const char *model_amax_separator(const struct model *model);

/* How a conversation becomes text; CHAT_UNKNOWN if the family leaves it to the tokenizer's chat
 * template. */
enum chat_style {
    CHAT_UNKNOWN,
    CHAT_V3,  /* system, <User> text <Assistant> text <eos> (V3, R1) */
    CHAT_V31, /* the same with </think> after <Assistant> (V3.1) */
    CHAT_V4,  /* the encoding rules of V4's release: reasoning, tools and their results, tasks */
};
enum chat_style model_chat_style(const struct model *model);

/* ---- order ---- */

/* Sort a table's lines, and the parallel array `with` (elements of `size` bytes; may be NULL), into
 * the stream's order: of execution, then the natural order of names; scales before their weight. */
void model_sort(const struct model *model, struct toc *toc, void *with, size_t size);

#endif
