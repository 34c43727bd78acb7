/* experts.h: samples go through the routed experts of a layer: rows are sorted by expert, gathered,
 * multiplied, and scattered back. */
#ifndef EXPERTS_H
#define EXPERTS_H

#include "forward/feed.h"

/* A layer's experts in use. */
struct experts {
    struct layer *layer;
    const struct feed *feed;
    struct held *held; /* by expert and matrix, if all are resident; NULL if they are taken from the
                          feed and dropped one by one */
    struct mat seen;   /* [experts * EXPERT_MATRICES, SEEN] F32 */
    struct inputs *inputs; /* the same, what else is recorded; NULL: nothing */
    uint64_t *rows;        /* by expert: how many went through it */
    uint64_t *routed;      /* by expert: how many the router sent to it */
};

/* `stay`: take all of them from the feed now, so that any number of groups can go through them, and
 * so that in ARITHMETIC_ENGINE they share their input scales; otherwise one group can. A layer may
 * have no experts. */
void experts_begin(struct experts *experts, struct layer *layer, const struct feed *feed,
                   bool stay);
void experts_end(struct experts *experts);

/* Samples that go through experts together. */
struct group {
    struct mat x;              /* [rows, dim] BF16: what goes into the experts */
    struct mat y;              /* [rows, dim] F32: what comes out */
    struct mat weight, expert; /* [rows, experts of a token], see routing.h, route() */
    struct mat all_weights;    /* the same; no rows unless all rows also go through all experts */
    /* Expert e has sorted rows offset[e] to offset[e + 1] - 1. */
    uint64_t *offset;
    struct mat sorted_row, sorted_weight; /* [rows * experts of a token, 1] I32 and F32 */
};

/* The matrices are uninitialized. */
void group_begin(struct group *g, const struct layer *layer, uint64_t rows, bool all_experts);
void group_end(struct group *g, struct device *d);

/* y += the output of each row's experts. Where all_weights has rows, all rows also go through all
 * experts, only to be observed. */
void experts_run(struct experts *experts, struct group *g);

#endif
