/* shapes.h: whether config.json's dimensions are those of the tensors. Engines allocate by
 * config.json, and fail, or read past the end, where a tensor has another shape. */
#ifndef SHAPES_H
#define SHAPES_H

#include "model/model.h"

/* The first tensor of a whole table whose shape is not what config.json's keys make it, to be said
 * after a name: "has embed.weight of 256 columns, but config.json's hidden_size is 1". Keys that
 * config.json lacks, and tensors of which the family says no shape, are passed over; so are ranks'
 * tables, which must not be given. NULL if nothing is wrong. The caller frees it. */
char *model_misshapen(const struct model *model, const struct toc *toc);

#endif
