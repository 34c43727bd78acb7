/* pass.h: the state of a forward pass, shared by its parts. */
#ifndef PASS_H
#define PASS_H

#include "forward/embedding.h"
#include "forward/experts.h"
#include "forward/memory.h"
#include "forward/needed.h"
#include "forward/times.h"

struct pass {
    const struct forward *run;
    struct network *network;
    struct device *device;
    struct needed needed;
    struct feed feed;
    struct memory_plan memory;
    struct rows rows;
    struct embedding embedding;
    char digest[DIGEST_TEXT]; /* of the layers so far, see forward.h, states */
    double begin;             /* see base/progress.h, now() */
};

/* Rows embedded at a time. */
enum { EMBEDDING_ROWS = 2048 };

/* Prepare the run, and read run->in up to the first layer that is computed. */
void pass_begin(struct pass *pass, const struct forward *run);
void pass_end(struct pass *pass);

struct times pass_times(const struct pass *pass);

/* Between these, the feed gives a layer's tensors, which go into the digest of the layers so
 * far. */
void pass_digest_begin(struct pass *pass);
void pass_digest_end(struct pass *pass);

/* The next layer, `number`: all samples go through it, and the callbacks report what was observed.
 * Between begin and end, the layer's other pieces may be used. */
struct layer_pass {
    struct pass *pass;
    struct times begin;
    struct layer layer;
    struct experts experts;
};
void layer_pass_begin(struct layer_pass *lp, struct pass *pass, uint64_t number);
void layer_pass_run(struct layer_pass *lp);
void layer_pass_end(struct layer_pass *lp);

/* The hidden states before the first layer. */
void embed_all(struct pass *pass);

/* Pass the logits of all rows to run->logits. `norm` is the layer whose norm precedes them, the
 * head or an MTP layer; the vocabulary is always the head's. */
void run_head(struct pass *pass, struct layer *norm, struct layer *head, unsigned mtp);

/* Make the hidden states those that the first block of multi-token prediction takes; `norm` is the
 * layer whose norm precedes logits. run_mtp() does so for the block after it. */
void prepare_mtp(struct pass *pass, const struct layer *norm);

/* Run block `mtp` of multi-token prediction, and its losses if wanted. Each sample becomes a row
 * shorter. */
void run_mtp(struct pass *pass, struct layer *head, unsigned mtp);

#endif
