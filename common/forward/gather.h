/* gather.h: the seam between reading weights and what carries them between ranks that share the
 * reading: each reads its piece of a tensor only, and gets the others'. Without it, each rank reads
 * all by itself. */
#ifndef GATHER_H
#define GATHER_H

#include <stdint.h>

#include "base/ranks.h"
#include "forward/device.h"

struct gather {
    /* `bytes`, a matrix of U8, holds a piece of `piece` bytes for each rank, in their order: this
     * rank's was taken (see device.h), and then all arrive, as what is taken does. Does not wait.
     * Ranks call it for the same tensors in the same order, one at a time. */
    void (*all)(struct gather *gather, struct mat bytes, uint64_t piece);

    void (*close)(struct gather *gather);
};

/* From GPU to GPU by NCCL, for a device of device_cuda()'s. NULL if that is not to be had on all
 * of them; then *why says why (the caller frees it). Called by all ranks. It is closed before the
 * device is. */
struct gather *gather_nccl(struct ranks *ranks, struct device *device, char **why);

#endif
