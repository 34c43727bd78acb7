/* ranks.h: the processes of one run, on one machine or many. Each takes its share of the samples;
 * their results are combined.
 *
 * They connect to rank 0 by TCP and from then on monitor each other. If one exits early, is silent
 * for $SEEKPIPE_RANK_TIMEOUT seconds (30; its machine hangs, is cut off, or it is stopped), or
 * waits that long for some bytes of a file, all end, each with a line that says which rank it was.
 * At the start of a run, ranks wait ten times as long for one that has not connected yet. Who joins
 * must prove that it may (proof.h); once all have, machines and network are trusted, as with MPI
 * and NCCL.
 *
 * All ranks call the collective functions (max, sum, broadcast, gather, agree) in the same order,
 * with the same sizes, from one thread. With ranks == NULL, a run of one process, they do nothing.
 */
#ifndef RANKS_H
#define RANKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/launch.h"

struct ranks;

/* Connect to the others. From here on, this program's messages show its rank. ranks_close() frees
 * it. */
struct ranks *ranks_open(const struct launch *launch);

/* Wait until all are done, then disconnect. */
void ranks_close(struct ranks *ranks);

/* The number of ranks (1 without others), this one's rank, and its rank on this machine. */
unsigned ranks_count(const struct ranks *ranks);
unsigned ranks_rank(const struct ranks *ranks);
unsigned ranks_local(const struct ranks *ranks);

/* This rank's share of `total` things: *count of them, starting at *first. Shares are as equal as
 * possible and in the order of ranks. */
void ranks_share(const struct ranks *ranks, uint64_t total, uint64_t *first, uint64_t *count);

/* Each value becomes the largest of all ranks', or NaN if any rank's is NaN. No value is negative.
 */
void ranks_max(struct ranks *ranks, float *value, size_t count);

/* Each value becomes the sum of all ranks'. */
void ranks_sum(struct ranks *ranks, uint64_t *value, size_t count);

/* Copy rank 0's data to all. */
void ranks_broadcast(struct ranks *ranks, void *data, size_t size);

/* Send every rank's data to rank 0, which calls `receive` with each other rank's data, in the order
 * of ranks. If that returns false, this is not what the others should have sent, and all end. */
void ranks_gather(struct ranks *ranks, const void *data, size_t size,
                  bool (*receive)(void *context, const void *data, size_t size), void *context);

/* Say that this rank begins to read bytes of a tensor, or (NULL) that the read is done: no rank
 * waits for a read that hangs, either. Call it from one thread; the name must live until the read
 * is done. */
void ranks_reading(struct ranks *ranks, const char *tensor);

/* End all ranks if `text` is not the same in all of them; `what` names it in the message. */
void ranks_agree(struct ranks *ranks, const char *what, const char *text);

#endif
