/* feed.h: a stream's weights in its order, each tensor with its scales. */
#ifndef FEED_H
#define FEED_H

#include "base/digest.h"
#include "forward/layer.h"
#include "forward/prefetch.h"

struct feed {
    struct ts_in *in;
    const struct network *network; /* matrices are uploaded to its device */
    const struct weights *weights;
    const struct forward *run; /* its arithmetic is what they are loaded for */
    struct prefetch *prefetch;
    struct digest *digest; /* of the tensors taken, see feed_digest(); or NULL */
};

/* Add a tensor to the digest that tells one checkpoint's layers from another's (see forward.h,
 * struct states). `data` holds the tensor's first `size` bytes, where size is feed_digested() of
 * its line of the table: 0 for a matrix, at most FEED_DIGESTED for scales and all other tensors.
 * Training changes these bytes, and they are few enough to read again. */
enum { FEED_DIGESTED = PREFETCH_HEAD };
size_t feed_digested(const struct weights *weights, size_t line, const struct tensor *tensor);
void feed_digest(struct digest *digest, const struct tensor *tensor, const void *data, size_t size);

/* Before anything is prefetched: read a layer for feed->digest only, up to the first tensor of a
 * later layer or the first wanted one (by line of the table). */
void feed_skip(const struct feed *feed, const bool *wanted, uint64_t layer);

/* A tensor taken from the feed. `from` points into it, so it must not move. */
struct held {
    struct raw_weight from;
    struct scales scales;
    struct weight plain; /* for a tensor that is no X.weight */
    struct prefetched arrived;
};

/* The name of the next tensor, or of the first of its scales; "" at the end. */
const char *feed_peek(const struct feed *feed);

/* Take the next tensor with its scales; the caller frees it with held_free(). */
void feed_take(const struct feed *feed, struct held *held);
void held_free(const struct feed *feed, struct held *held);

/* Load the next tensors of a layer, up to its experts or its end. They must include its pieces
 * `first` to `end` - 1. An unknown tensor ends the process. */
void feed_layer(const struct feed *feed, struct layer *layer, size_t first, size_t end);

/* Take the matrices of expert `number`, which must be next, into held[EXPERT_MATRICES]. */
void feed_expert(const struct feed *feed, const struct layer *layer, uint64_t number,
                 struct held *held);

#endif
