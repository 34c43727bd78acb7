/* gather.h: the seam between reading weights and what carries them between ranks that share the
 * reading: each reads its piece of a tensor only, and gets the others'. Without it, each rank reads
 * all by itself. */
#ifndef GATHER_H
#define GATHER_H

#include <stdint.h>

#include "ranks.h"

struct gather {
    /* data holds a piece of `piece` bytes for each rank, in their order: this rank's is there, and
     * then all are. Ranks do that for the same tensors in the same order, each from one thread. */
    void (*all)(struct gather *gather, void *data, uint64_t piece);

    void (*close)(struct gather *gather);
};

/* From GPU to GPU by NCCL; each rank has chosen its GPU before. NULL if that is not to be had on
 * all of them; then *why says why (the caller frees it). Called by all ranks. */
struct gather *gather_nccl(struct ranks *ranks, char **why);

#endif
