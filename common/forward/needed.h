/* needed.h: which of a stream's tensors a run takes, and how they come. */
#ifndef NEEDED_H
#define NEEDED_H

#include "forward/forward.h"
#include "model/weights.h"

struct needed {
    struct weights weights;
    /* By line of the table, see prefetch.h, prefetch_plan. */
    bool *wanted, *on_device, *unseen;
    uint64_t largest; /* bytes of the largest layer */
};

/* What a run comes to. */
bool needs_embedding(const struct forward *run);
bool needs_head(const struct forward *run);
bool needs_mtp(const struct forward *run);

/* Find them, and see that all are there in the right shape before anything is computed with, or the
 * process ends. The network has begun. */
void needed_find(struct needed *needed, const struct forward *run);
void needed_free(struct needed *needed);

#endif
