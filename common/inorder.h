/* inorder.h: work on several threads, finished in the order in which it was given.
 *
 * The caller fills pieces one after the other, worker threads compute on them, each on its own, and
 * one more thread finishes them in the order of the calls, whichever was ready first. So results
 * do not depend on the number of threads. There are few pieces, used again and again: a caller who
 * is ahead waits, and memory does not grow.
 *
 *     struct inorder *line = inorder_begin(threads, INORDER_AHEAD, sizeof *piece, ...);
 *     piece = inorder_piece(line);
 *     ... fill it ...
 *     inorder_give(line, true);
 *     inorder_end(line);
 */
#ifndef INORDER_H
#define INORDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct inorder;

enum { INORDER_THREADS_MOST = 32 };

/* How many threads to compute on: `wanted`, or as many as there are processors for 0; at most
 * INORDER_THREADS_MOST, which ends the process with a usage error if it was wanted. */
unsigned inorder_threads(uint64_t wanted);

/* What is done with a piece; `context` is inorder_begin()'s. */
typedef void inorder_step(void *context, void *piece);

/* Start `threads` worker threads and the one that finishes. Beside one piece for each worker there
 * are `ahead`; INORDER_AHEAD are enough where each takes as long as the next: one that is filled,
 * one that is finished, and one on the way to each. A piece has `size` bytes, which are 0 at first,
 * and later what its last use left in them. */
enum { INORDER_AHEAD = 4 };
struct inorder *inorder_begin(unsigned threads, unsigned ahead, size_t size, inorder_step *compute,
                              inorder_step *finish, void *context);

/* A free piece, as soon as there is one. */
void *inorder_piece(struct inorder *line);

/* Give the piece that inorder_piece() returned last. Without `computes` it is only finished. */
void inorder_give(struct inorder *line, bool computes);

/* For a piece that is not worth the turn of another thread: compute it here, and finish it, too, if
 * nothing is before it. */
void inorder_do(struct inorder *line);

/* True if all that was given is finished; what it did is then seen by the caller. */
bool inorder_idle(struct inorder *line);

/* Wait until all is finished, end the threads, call `release` (may be NULL) for each piece, and
 * free the rest. */
void inorder_end(struct inorder *line, void (*release)(void *piece));

#endif
