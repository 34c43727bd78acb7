/* ordered_pool.h: work on several threads, finished in the order in which it was given.
 *
 * The caller fills pieces one after the other, worker threads compute on them, each on its own, and
 * one more thread finishes them in the order of the calls, whichever was ready first. So results
 * do not depend on the number of threads. There are few pieces, used again and again: a caller who
 * is ahead waits, and memory does not grow.
 *
 *     struct ordered_pool *line = ordered_pool_begin(threads, ORDERED_POOL_SLACK, sizeof *piece,
 * ...); piece = ordered_pool_piece(line);
 *     ... fill it ...
 *     ordered_pool_submit(line, true);
 *     ordered_pool_end(line);
 */
#ifndef ORDERED_POOL_H
#define ORDERED_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ordered_pool;

enum { ORDERED_POOL_THREADS_MAX = 32 };

/* How many threads to compute on: `wanted`, or as many as there are processors for 0; at most
 * ORDERED_POOL_THREADS_MAX, which ends the process with a usage error if it was wanted. */
unsigned ordered_pool_threads(uint64_t wanted);

/* What is done with a piece; `context` is ordered_pool_begin()'s. */
typedef void ordered_pool_step(void *context, void *piece);

/* Start `threads` worker threads and the one that finishes. Beside one piece for each worker there
 * are `ahead`; ORDERED_POOL_SLACK are enough where each takes as long as the next: one that is
 * filled, one that is finished, and one on the way to each. A piece has `size` bytes, which are 0
 * at first, and later what its last use left in them. */
enum { ORDERED_POOL_SLACK = 4 };
struct ordered_pool *ordered_pool_begin(unsigned threads, unsigned ahead, size_t size,
                                        ordered_pool_step *compute, ordered_pool_step *finish,
                                        void *context);

/* A free piece, as soon as there is one. */
void *ordered_pool_piece(struct ordered_pool *line);

/* Give the piece that ordered_pool_piece() returned last. Without `computes` it is only finished.
 */
void ordered_pool_submit(struct ordered_pool *line, bool computes);

/* For a piece that is not worth the turn of another thread: compute it here, and finish it, too, if
 * nothing is before it. */
void ordered_pool_do(struct ordered_pool *line);

/* True if all that was given is finished; what it did is then seen by the caller. */
bool ordered_pool_idle(struct ordered_pool *line);

/* Wait until all is finished, end the threads, call `release` (may be NULL) for each piece, and
 * free the rest. */
void ordered_pool_end(struct ordered_pool *line, void (*release)(void *piece));

#endif
