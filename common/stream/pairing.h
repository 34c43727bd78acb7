/* pairing.h: which tensors of two streams are compared with each other.
 *
 * Tensors of equal names form a pair, whatever their shards. If a name occurs several times (the
 * ranks of a model-parallel checkpoint repeat them), the first is paired with the first, and so on.
 */
#ifndef PAIRING_H
#define PAIRING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "stream/elements.h"
#include "stream/ts.h"

/* One side: a stream and its elements. */
struct pairing_side {
    struct ts_in *in;
    struct elements *elements;
};

/* A line of A's table and its partner in B's; PAIRING_NONE where there is none. */
enum { PAIRING_NONE = UINT32_MAX };
struct pair {
    uint32_t a, b;
};

/* The pairs of all tensors, in the order of both tables: both streams can be read in this order,
 * once. Scales that come with their matrix (elements.h) are left out. With `common`, tensors of one
 * side alone are left out; with `numbers`, input scales of one side alone are. Tensors of the same
 * names in different orders end the process. The caller frees the array of *count pairs. */
struct pair *pairs_of(const struct pairing_side *a, const struct pairing_side *b, bool common,
                      bool numbers, size_t *count);

#endif
