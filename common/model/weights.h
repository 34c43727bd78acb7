/* weights.h: the matrices of a table: which lines belong together, and where each matrix stands in
 * the model. */
#ifndef WEIGHTS_H
#define WEIGHTS_H

#include "model/model.h"
#include "tensor/weight.h"

/* All matrices of a table. */
struct weights {
    struct weight *weight;
    size_t count;
    uint32_t *of_line;   /* index into weight[] of the matrix a line belongs to, or WEIGHT_NONE */
    struct arena *arena; /* of the modules' names */
};

/* Find the matrices of a table. A quantized weight whose scale is missing, misshapen, of a wrong
 * dtype or not directly before it ends the process with a line that names it; `stream` is for that
 * message. The caller frees it. */
void weights_find(struct weights *weights, const struct model *model, struct toc *toc,
                  const char *stream);
void weights_free(struct weights *weights);

/* The matrix that line i belongs to, or NULL. */
const struct weight *weight_of(const struct weights *weights, size_t line);

#endif
