/* model.h: what is known of a model family: how its tensors are called, ordered and belong
 * together. One file a family in common/model/; stages ask here and know no names themselves. */
#ifndef MODEL_H
#define MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tensor/toc.h"

/* Where a tensor stands in the model's execution order: compared member by member, then by the
 * natural order of names, then by the order of a module's own tensors (scales before weight). */
struct model_order {
    uint32_t section; /* embeddings, layers, final norm, head, MTP, unknown */
    uint32_t layer;
    uint32_t part; /* of a layer */
    uint32_t expert;
    uint32_t matrix; /* w1, w3, w2 */
};

struct model {
    const char *type; /* config.json's model_type */

    /* The place of a tensor by its name. */
    struct model_order (*order)(const char *name);

    /* If the module (a tensor's name less ".weight") shares its second-level scale and its input
     * scale with another one (w1 and w3 feed one fused product), the other's name into `partner`
     * (TENSOR_NAME_MAX + 1 bytes) and true. */
    bool (*fused)(const char *module, char *partner);

    /* If the module belongs to a routed expert: the path of all the layer's experts
     * ("layers.3.ffn.experts") into `experts`, the matrix ("w1") into `projection`, both of
     * TENSOR_NAME_MAX + 1 bytes, the layer's and expert's numbers, and true. MTP layers count too;
     * *mtp says so. */
    bool (*expert)(const char *module, char *experts, char *projection, uint32_t *layer,
                   uint32_t *expert, bool *mtp);

    /* config.json's name of the number of leading hash-routed layers, or NULL. */
    const char *hash_layers_key;
};

/* The family of a model_type; a generic one (natural order, nothing known) for NULL or an unknown
 * type. Never NULL. */
const struct model *model_of(const char *type);

/* Compare lines of a table for the stream's order: <0, 0, >0 as strcmp. */
int model_compare(const struct model *model, const struct toc *toc, const struct tensor *a,
                  const struct tensor *b);

/* Sort a table's lines, and the parallel array `with` (elements of `size` bytes; may be NULL), into
 * the stream's order. */
void model_sort(const struct model *model, struct toc *toc, void *with, size_t size);

/* strcmp that orders runs of digits by their number. */
int natural_compare(const char *a, const char *b);

/* Parse "PREFIX<number>." at *name: true, *number, and *name moved behind the dot. */
bool name_number(const char **name, const char *prefix, uint32_t *number);

/* The families. */
extern const struct model model_generic;
extern const struct model model_deepseek_v4;

#endif
