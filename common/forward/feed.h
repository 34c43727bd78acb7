/* feed.h: weights as they come out of a stream, each tensor with all that belongs to it. */
#ifndef FEED_H
#define FEED_H

#include "base/digest.h"
#include "forward/layer.h"
#include "forward/prefetch.h"

struct feed {
    struct ts_in *in;
    const struct network *network; /* matrices come to its device */
    const struct weights *weights;
    enum arithmetic arithmetic;
    struct prefetch *prefetch;
    struct digest *digest; /* of what was taken, see feed_digest(); or NULL */
};

/* Add a tensor to the digest that tells one checkpoint's layers from another's (see forward.h,
 * states), of which `data` holds its first `size` bytes: feed_digested() of that line of the table,
 * none of a matrix, at most FEED_DIGESTED of its scales and of all else. Any training changes
 * those, and they are so few that reading them once more costs nothing. */
enum { FEED_DIGESTED = PREFETCH_HEAD };
size_t feed_digested(const struct weights *weights, size_t line, const struct tensor *tensor);
void feed_digest(struct digest *digest, const struct tensor *tensor, const void *data, size_t size);

/* Before anything is prefetched: read a layer for feed->digest only, up to the first tensor of a
 * later one, or one that is wanted (by line of the table). */
void feed_skip(const struct feed *feed, const bool *wanted, uint64_t layer);

/* A tensor that was taken: `from` points into it, so it must stay where it is. */
struct held {
    struct raw_weight from;
    struct scales scales;
    struct weight plain; /* for a tensor that is no X.weight */
    struct prefetched arrived;
};

/* The name of the tensor that comes next, or of the first of its scales; "" at the end. */
const char *feed_peek(const struct feed *feed);

/* Take the next tensor with its scales; the caller frees it with held_free(). */
void feed_take(const struct feed *feed, struct held *held);
void held_free(const struct feed *feed, struct held *held);

/* Load what comes next of a layer, up to its experts or its end. That must include its pieces from
 * `first` to the one before `end`; an unknown tensor ends the process. */
void feed_layer(const struct feed *feed, struct layer *layer, size_t first, size_t end);

/* Take the matrices of expert `number`, which must come next: held[EXPERT_MATRICES]. */
void feed_expert(const struct feed *feed, const struct layer *layer, uint64_t number,
                 struct held *held);

#endif
