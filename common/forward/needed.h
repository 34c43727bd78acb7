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
    bool together;    /* a layer's experts are needed at once: they share their input scales */
};

/* Which parts of the model a run uses. */
bool needs_embedding(const struct forward *run);
bool needs_head(const struct forward *run);
bool needs_norm(const struct forward *run); /* that of the head, for logits or MTP */
bool needs_mtp(const struct forward *run);

/* Check that each needed tensor exists in the right shape, that there is none in a needed layer
 * that the network does not know, and with run->mtp that its drafts have a forward pass; end the
 * process if not. Says in a line what is not used, unless run->quiet, or there is no device. */
void needed_check(const struct forward *run);

/* The same, and find the needed tensors. Call it after the network's begin(). */
void needed_find(struct needed *needed, const struct forward *run);
void needed_free(struct needed *needed);

#endif
