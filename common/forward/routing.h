/* routing.h: which experts each token goes to, with which weights. */
#ifndef ROUTING_H
#define ROUTING_H

#include "forward/config.h"
#include "forward/linear.h"

/* A layer's router. It picks the best experts by score plus bias, or those that a table gives for
 * the token id. */
struct router {
    struct linear *gate; /* one output per expert */
    struct mat bias;     /* [1, experts] F32, or no rows */
    struct expert_groups groups;
    bool rounds;          /* logits, scores and weights are rounded to BF16 */
    const int32_t *table; /* [vocabulary, experts of a token], or NULL */
    enum scoring scoring;
    bool normalize; /* weights are divided by their sum */
    float scale;    /* of weights */
};

/* config.json's scoring_func. */
enum scoring routing_scoring(const struct config *config);

/* Weights [tokens, n] F32 and numbers I32 of the experts of each token; ids are the token ids.
 * all_weights, [tokens, experts] F32 or no rows, gets the weights of all experts, in numeric order,
 * as if all were selected. */
void route(struct device *d, const struct router *router, struct mat weights, struct mat experts,
           struct mat all_weights, const int32_t *ids, struct mat x);

#endif
