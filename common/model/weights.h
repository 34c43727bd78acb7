/* weights.h: the matrices of a table: which lines form each one, and its place in the model. */
#ifndef WEIGHTS_H
#define WEIGHTS_H

#include "model/model.h"
#include "tensor/weight.h"

/* All matrices of a table. */
struct weights {
    struct weight *weight;
    size_t count;
    uint32_t *of_line;   /* index into weight[] of the line's matrix, or WEIGHT_NONE */
    struct arena *arena; /* owns the modules' names */
};

/* Find the matrices of a table. If the scale of a quantized weight is missing, has a wrong shape or
 * dtype, or is not directly before it, the process ends with a line that names it; `stream` is the
 * stream's name for that message. weights_free() frees the content. */
void weights_find(struct weights *weights, const struct model *model, struct toc *toc,
                  const char *stream);
void weights_free(struct weights *weights);

/* The matrix of line `line`, owned by weights, or NULL. */
const struct weight *weight_of(const struct weights *weights, size_t line);

#endif
