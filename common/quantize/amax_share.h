/* amax_share.h: matrices that share an amax: the largest that any of them has. */
#ifndef AMAX_SHARE_H
#define AMAX_SHARE_H

#include "quantize/amax_table.h"

/* The members of a group (gate and up, for example) feed one product in the engines: they share the
 * largest, unless the recipe gives each its own. Returns how many amaxes that changes. */
uint64_t amax_share_groups(struct amax_table *table);

/* After that, and before any is filled in: find the largest input amax of each layer's matrices,
 * and of the trunk. */
void amax_find_largest(struct amax_table *table);

/* After that: all experts of a layer share the largest input amax of a matrix. */
void amax_share_largest(struct amax_table *table);

#endif
