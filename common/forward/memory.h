/* memory.h: which data of a run stay on the device, and which are offloaded or loaded one by
 * one. */
#ifndef FORWARD_MEMORY_H
#define FORWARD_MEMORY_H

#include "forward/forward.h"
#include "forward/rows.h"

struct memory_plan {
    bool resident;  /* a layer's experts all stay on the device; else they are loaded and dropped
                       one by one */
    uint64_t group; /* samples that go through the experts together */
    uint64_t ahead; /* bytes of weights that may wait to be used */
};

/* Allocate the hidden states of all rows, on the device or offloaded, and plan the rest. largest:
 * bytes of the largest layer; together: a layer's experts must be resident. If --mem is too small
 * for that, or for these samples, the process ends; the default grows. */
void memory_plan(struct memory_plan *plan, const struct forward *run, struct rows *rows,
                 uint64_t largest, bool together);

#endif
