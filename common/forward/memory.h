/* memory.h: what of a run stays on the device, and what comes and goes. */
#ifndef FORWARD_MEMORY_H
#define FORWARD_MEMORY_H

#include "forward/forward.h"
#include "forward/rows.h"

struct memory_plan {
    bool resident;  /* a whole layer's experts stay; else they come, and go, one by one */
    uint64_t group; /* samples that go through the experts together */
    uint64_t ahead; /* bytes of weights that may wait to be used */
};

/* Make room for the hidden states of all rows, on the device or off it, and plan the rest; largest:
 * bytes of the largest layer. Where --mem is too small for these samples, the process ends. */
void memory_plan(struct memory_plan *plan, const struct forward *run, struct rows *rows,
                 uint64_t largest);

#endif
