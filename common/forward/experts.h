/* experts.h: the routed experts of a layer, and samples on their way through them: rows are sorted
 * by expert, gathered, computed with, and added up where they came from. */
#ifndef EXPERTS_H
#define EXPERTS_H

#include "forward/feed.h"

/* A layer's experts in use. */
struct experts {
    struct layer *layer;
    const struct feed *feed;
    struct held *held; /* by expert and matrix, where all of them stay; else NULL, and they come out
                          of the feed, and go, one by one */
    struct mat seen;   /* [experts * EXPERT_MATRICES, SEEN] F32 */
    uint64_t *rows;    /* by expert: that went through it */
    uint64_t *routed;  /* by expert: that the router sent there */
};

/* `stay`: all of them are taken from the feed now, so that any number of groups may go through
 * them; else one. A layer may have none. */
void experts_begin(struct experts *experts, struct layer *layer, const struct feed *feed,
                   bool stay);
void experts_end(struct experts *experts);

/* Samples that go through experts together. */
struct group {
    struct mat x;              /* [rows, dim] BF16: what goes into the experts */
    struct mat y;              /* [rows, dim] F32: what has come out */
    struct mat weight, expert; /* [rows, experts of a token], see routing.h, route() */
    struct mat all_weights;    /* the same; no rows unless all rows go through all experts, too */
    /* Rows by expert: those of expert e from offset[e] to offset[e + 1] - 1. */
    uint64_t *offset;
    struct mat sorted_row, sorted_weight; /* [rows * experts of a token, 1] I32 and F32 */
};

/* With anything in the matrices. */
void group_begin(struct group *g, const struct layer *layer, uint64_t rows, bool all_experts);
void group_end(struct group *g, struct device *d);

/* y += what each row's experts give for it; and all rows through all of them for observation, where
 * that is wanted. */
void experts_run(struct experts *experts, struct group *g);

#endif
