/* complete.h: whether a table has all that its family and config.json say a model has. */
#ifndef COMPLETE_H
#define COMPLETE_H

#include "model/model.h"

/* What a table lacks of the model, or has beyond config.json's counts of layers and experts, to be
 * said after a name: "lacks layers.2, layers.3.ffn.experts.5 and 7 more". Of a layer, or an expert,
 * of which nothing is there, no parts are listed. MTP layers need not be there, but those that are
 * must be whole. NULL if nothing is wrong, or if the family does not say what a model has, or
 * knows none of the names. The caller frees it. */
char *model_incomplete(const struct model *model, struct toc *toc);

#endif
