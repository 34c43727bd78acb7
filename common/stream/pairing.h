/* pairing.h: which tensors of two streams belong together.
 *
 * Equal names do, whatever their shards; of a name that comes several times (the ranks of a
 * model-parallel checkpoint repeat them), the first goes with the first, and so on. */
#ifndef PAIRING_H
#define PAIRING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "stream/elements.h"
#include "stream/ts.h"

/* One of the two: a stream and the elements of its tensors. */
struct pairing_side {
    struct ts_in *in;
    struct elements *elements;
};

/* A line of A's table and the one of B's that it goes with, or PAIRING_NONE for one of them. */
enum { PAIRING_NONE = UINT32_MAX };
struct pair {
    uint32_t a, b;
};

/* The pairs of all tensors, in the order of both tables: read both streams in this order, once.
 * Scales that come with their matrix (elements.h) are not among them. With `common` those of one
 * alone are left out; with `numbers` input scales of one alone are. Ends the process if tensors of
 * the same names come in different orders. The caller frees the array of *count. */
struct pair *pairs_of(const struct pairing_side *a, const struct pairing_side *b, bool common,
                      bool numbers, size_t *count);

#endif
