/* layout.h: the tensors that mkckpt makes, by a family's names. */
#ifndef LAYOUT_H
#define LAYOUT_H

#include <jansson.h>
#include <stdint.h>

#include "tensor/toc.h"

/* The tensors in the order of their making; what belongs in one file has one shard. The line of a
 * scale is directly before its weight's. */
struct layout {
    struct toc *toc;
    char prefix[32]; /* "layers.3." */
};

/* Begin a file: the tensors that follow lie in it, and in this block ("layers") if its name is not
 * "". */
void layout_file(struct layout *layout, const char *block, uint64_t number);

/* Add a tensor, called PREFIX MODULE SUFFIX: [rows, cols], or [rows] with cols == 0. */
void layout_add(struct layout *layout, enum dtype dtype, uint64_t rows, uint64_t cols,
                const char *module, const char *suffix);

/* A number of config.json, of which there must be one that is not negative. */
uint64_t layout_number(const json_t *config, const char *key);

/* A family of models. */
struct maker {
    const char *type;
    enum dtype quantized; /* of weights that have amaxes */
    /* The release's config.json of a preset's name, which the caller frees; or NULL. */
    json_t *(*preset)(const char *name);
    void (*lay_out)(struct layout *layout, const json_t *config);
};
extern const struct maker maker_deepseek_v3, maker_deepseek_v4;

/* Layers of these ratios of compression ("4,128") instead; MTP blocks keep theirs. */
void deepseek_v4_ratios(json_t *config, const char *list);

#endif
