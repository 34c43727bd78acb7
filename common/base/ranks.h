/* ranks.h: the processes of one run that share its work, on one machine or many: each takes its
 * share of the samples; what they found is put together.
 *
 * They meet at rank 0, by TCP, and from then on watch each other: one that ends early, and one that
 * is not heard of for $SEEKPIPE_RANK_TIMEOUT seconds (30; its machine hangs, is cut off, or it is
 * stopped) or that waits so long for some bytes of a file, ends them all, each with a line that
 * says which. While a run starts, ranks are waited for ten times as long. Machines and network are
 * trusted, as for MPI and NCCL.
 *
 * The functions that put things together are called by all ranks, in the same order, with the same
 * sizes, from one thread. With ranks == NULL, a run of one process, they do nothing. */
#ifndef RANKS_H
#define RANKS_H

#include <stddef.h>
#include <stdint.h>

#include "base/launch.h"

struct ranks;

/* Meet the others. From here on, messages of this program tell its rank. */
struct ranks *ranks_open(const struct launch *launch);

/* Wait until all are done, and part. */
void ranks_close(struct ranks *ranks);

/* How many there are, 1 if this one is alone; its number; and among those on this machine. */
unsigned ranks_count(const struct ranks *ranks);
unsigned ranks_rank(const struct ranks *ranks);
unsigned ranks_local(const struct ranks *ranks);

/* This one's share of `total` things: *count from *first on; as equal as can be, in the order of
 * ranks. */
void ranks_share(const struct ranks *ranks, uint64_t total, uint64_t *first, uint64_t *count);

/* Each value becomes the largest of all ranks', a NaN where any has one; no value is negative. */
void ranks_max(struct ranks *ranks, float *value, size_t count);

/* Each value becomes the sum of all ranks'. */
void ranks_sum(struct ranks *ranks, uint64_t *value, size_t count);

/* Data of rank 0's for all. */
void ranks_broadcast(struct ranks *ranks, void *data, size_t size);

/* Give rank 0 what the others have: it is called with each one's data, in the order of ranks. */
void ranks_gather(struct ranks *ranks, const void *data, size_t size,
                  void (*take)(void *context, const void *data, size_t size), void *context);

/* Tell that this rank begins to read some of a tensor's bytes, or (NULL) is done with it: a read
 * that hangs is not waited for, either. Any one thread may do that. The name must live as long. */
void ranks_reading(struct ranks *ranks, const char *tensor);

/* End all if `text` is not the same in all ranks; `what` it tells, for the message. */
void ranks_agree(struct ranks *ranks, const char *what, const char *text);

#endif
