/* greedy.h: a text continued by a model, each time by the token that it finds likeliest. The whole
 * text is computed anew for each one, and the weights are read again: a smoke test, no server. */
#ifndef GREEDY_H
#define GREEDY_H

#include "base/args.h"
#include "base/ids.h"
#include "forward/forward.h"

struct greedy {
    const char *path; /* of the weights: a checkpoint's folder, or a stream in a file */
    uint64_t count;   /* at most so many tokens */
    int32_t end;      /* the token that ends a text, which is not appended; -1 for none */
    void *context;
    void (*added)(void *context, const struct ids *ids); /* after each token */
};

/* Append to `ids`, of which there is at least one. `run` says how (device, arithmetic, batch,
 * memory, layers). */
void greedy_continue(const struct greedy *greedy, const struct forward *run,
                     const struct stage *stage, struct ids *ids);

#endif
