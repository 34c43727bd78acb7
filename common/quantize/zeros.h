/* zeros.h: weights and scales of zero bytes only: what a file holds where a download never arrived.
 * A trained weight has none, so they are counted and named; they are no error, because an expert
 * that was never used may be zero. */
#ifndef ZEROS_H
#define ZEROS_H

#include <stdbool.h>

#include "base/zero.h"
#include "stream/ts.h"

/* Have the stage's counts say `zero_weights`, also if there are none. */
void zeros_begin(struct ts_out *out);

/* Count the tensor of that name, as ts_count() does; the first one's name is `zero_first`. With
 * `verbose`, warn of it, too. */
void zeros_add(struct ts_out *out, const char *name, bool verbose);

#endif
