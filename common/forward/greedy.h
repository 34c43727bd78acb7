/* greedy.h: greedy decoding: a model continues a text, each time with its most likely token. Each
 * token computes the whole text and reads the weights again: a smoke test, not a server. */
#ifndef GREEDY_H
#define GREEDY_H

#include "base/args.h"
#include "base/ids.h"
#include "forward/forward.h"

struct greedy {
    const char *path; /* of the weights: a checkpoint directory, or a stream in a file */
    uint64_t count;   /* the most tokens to append */
    int32_t end;      /* the token that ends a text, not appended; -1 for none */
    void *context;
    void (*added)(void *context, const struct ids *ids); /* after each token */
};

/* End the process where greedy_continue() would before it computes anything. `run` besides has the
 * weights open, or their plan. */
void greedy_check(const struct forward *run, const struct ids *ids);

/* Append to `ids`, which holds at least one. `run` sets device, arithmetic, batch, memory and
 * layers. */
void greedy_continue(const struct greedy *greedy, const struct forward *run,
                     const struct stage *stage, struct ids *ids);

#endif
