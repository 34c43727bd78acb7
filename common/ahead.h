/* ahead.h: tensors read ahead, on a thread of their own, while the program computes. */
#ifndef AHEAD_H
#define AHEAD_H

#include "gather.h"
#include "ts.h"

struct ahead;

/* Read on in `in` from where it is: those tensors of its table for which wanted[line] is true,
 * while no more than `budget` bytes wait to be taken (but one tensor always, whatever its size).
 * Until ahead_end(), nobody else reads from `in`; `wanted` must live as long. `ranks` (or
 * NULL) see to it that reads do not hang; with `gather` (or NULL), only this rank's piece is read
 * of large tensors that come by reference. */
struct ahead *ahead_begin(struct ts_in *in, const bool *wanted, uint64_t budget,
                          struct ranks *ranks, struct gather *gather);

/* The next tensor's line of the table, and its bytes through *data, which the caller frees; NULL
 * after the last one. ahead_peek() is the line that ahead_take() will give next, without taking it.
 */
const struct tensor *ahead_peek(struct ahead *ahead);
const struct tensor *ahead_take(struct ahead *ahead, void **data);

/* Stop, wait for the thread, and free what was not taken. `in` may be read on, or closed. */
void ahead_end(struct ahead *ahead);

#endif
