/* effective.h: the input scales that serving engines use. They quantize the inputs of all experts
 * of a layer under one scale, the largest: of gate and up, which are one product there, and of
 * down. So one expert sets the scale of all; the further it is above most of them, the coarser it
 * is for these. */
#ifndef EFFECTIVE_H
#define EFFECTIVE_H

#include <jansson.h>

#include "model/model.h"

struct effective;

/* The model must outlive it. effective_free() frees it. */
struct effective *effective_new(const struct model *model);
void effective_free(struct effective *effective);

/* Add the input amax of a matrix; of others than routed experts' nothing is kept. */
void effective_add(struct effective *effective, const struct place *place, double amax);

/* For each layer's experts, and each product of theirs, in the order of the model: {experts
 * "layers.3.ffn.experts", matrices "w1+w3", input_scale, expert: the number of the first one that
 * has it, median: the input scale of the median expert}. The caller owns the array. */
json_t *effective_scales(const struct effective *effective);

#endif
