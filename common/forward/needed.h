/* needed.h: which of a stream's tensors a run needs, and how they are loaded. */
#ifndef NEEDED_H
#define NEEDED_H

#include "forward/forward.h"
#include "model/weights.h"

struct needed {
    struct weights weights;
    /* By line of the table, see prefetch.h, prefetch_plan. */
    bool *wanted, *on_device, *unseen, *by_rows;
    uint64_t largest; /* bytes of the largest layer */
};

/* Which parts of the model a run uses. */
bool needs_embedding(const struct forward *run);
bool needs_head(const struct forward *run);
bool needs_mtp(const struct forward *run);

/* Find the needed tensors, and check that each exists in the right shape; end the process if not.
 * Call it after the network's begin(). */
void needed_find(struct needed *needed, const struct forward *run);
void needed_free(struct needed *needed);

#endif
