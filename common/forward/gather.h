/* gather.h: ranks share the reading of weights: each rank reads only some pieces of a tensor and
 * receives the others'. Without it, each rank reads everything. */
#ifndef GATHER_H
#define GATHER_H

#include <stdint.h>

#include "base/ranks.h"
#include "forward/device.h"

/* A piece of a matrix of U8: `size` bytes from `at` on, which rank `owner` has read. The first
 * piece of a matrix begins at 0. */
struct gathered {
    struct mat bytes;
    uint64_t at, size;
    unsigned owner;
};

struct gather {
    uint64_t batch; /* bytes of the matrices of one call, unless one alone has more */

    /* `count` pieces, all of some matrices. This rank has submitted its own (see device.h,
     * submit_staging()); the others' arrive while operations run, and operations on these matrices
     * wait for them. Does not wait. Ranks call it for the same pieces, divided in the same way and
     * in the same order, one at a time. */
    void (*all)(struct gather *gather, const struct gathered *part, size_t count);

    /* Seconds so far that exchanges took that are complete, each from when this rank's pieces were
     * on its device: waiting for slower ranks counts. Any thread may call it. */
    double (*spent)(struct gather *gather);

    void (*close)(struct gather *gather);
};

/* From GPU to GPU by NCCL, for a device from device_cuda(). All ranks call it. NULL if any of them
 * cannot use NCCL; then *why says why (the caller frees it). Close it before the device. */
struct gather *gather_nccl(struct ranks *ranks, struct device *device, char **why);

#endif
