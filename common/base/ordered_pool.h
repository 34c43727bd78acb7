/* ordered_pool.h: a thread pool whose results are finished in the order they were submitted.
 *
 * The caller fills one piece of work after another. Worker threads compute them, each its own. One
 * more thread finishes them in the order of submission, so that results do not depend on the number
 * of threads. The pieces are few and reused: a caller that is too fast waits, and memory does not
 * grow.
 *
 *     struct ordered_pool *pool = ordered_pool_begin(threads, ORDERED_POOL_SLACK, sizeof *piece,
 *                                                    compute, finish, context);
 *     piece = ordered_pool_piece(pool);
 *     ... fill it ...
 *     ordered_pool_submit(pool, true);
 *     ordered_pool_end(pool, NULL); */
#ifndef ORDERED_POOL_H
#define ORDERED_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ordered_pool;

enum { ORDERED_POOL_THREADS_MAX = 32 };

/* The number of worker threads: `wanted`, or for 0 the number of processors, up to
 * ORDERED_POOL_THREADS_MAX. A larger `wanted` is a usage error. */
unsigned ordered_pool_threads(uint64_t wanted);

/* What is done with a piece; `context` is ordered_pool_begin()'s. */
typedef void ordered_pool_step(void *context, void *piece);

/* Start `threads` worker threads and the one that finishes. There is one piece per worker and
 * `slack` more. ORDERED_POOL_SLACK suffices where all pieces take equally long: one being filled,
 * one being finished, and one waiting for each of these. A piece has `size` bytes. They are 0 at
 * first; afterwards they keep what the last use left in them. ordered_pool_end() frees the pool. */
enum { ORDERED_POOL_SLACK = 4 };
struct ordered_pool *ordered_pool_begin(unsigned threads, unsigned slack, size_t size,
                                        ordered_pool_step *compute, ordered_pool_step *finish,
                                        void *context);

/* A free piece, owned by the pool; waits until there is one. */
void *ordered_pool_piece(struct ordered_pool *pool);

/* Submit the piece that ordered_pool_piece() returned last. Without `computes` it is only finished.
 */
void ordered_pool_submit(struct ordered_pool *pool, bool computes);

/* For a piece too small to be worth passing to another thread: compute it here, and finish it here,
 * too, if the pool is idle. */
void ordered_pool_do(struct ordered_pool *pool);

/* True if everything submitted is finished. Its effects are then visible to the caller. */
bool ordered_pool_idle(struct ordered_pool *pool);

/* Wait until everything is finished, stop the threads, call `release` (may be NULL) for each piece,
 * and free the pool. */
void ordered_pool_end(struct ordered_pool *pool, void (*release)(void *piece));

#endif
