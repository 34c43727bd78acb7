/* gather.h: all-gather of weights between ranks that share the reading: each rank reads only its
 * piece of a tensor and receives the others'. Without it, each rank reads everything. */
#ifndef GATHER_H
#define GATHER_H

#include <stdint.h>

#include "base/ranks.h"
#include "forward/device.h"

struct gather {
    /* `bytes`, a matrix of U8, holds `piece` bytes for each rank, in rank order. This rank has
     * submitted its own (see device.h, submit_staging()); the others' arrive as submitted bytes do.
     * Does not wait. Ranks call it for the same tensors in the same order, one at a time. */
    void (*all)(struct gather *gather, struct mat bytes, uint64_t piece);

    void (*close)(struct gather *gather);
};

/* From GPU to GPU by NCCL, for a device from device_cuda(). All ranks call it. NULL if any of them
 * cannot use NCCL; then *why says why (the caller frees it). Close it before the device. */
struct gather *gather_nccl(struct ranks *ranks, struct device *device, char **why);

#endif
