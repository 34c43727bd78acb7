/* routing.h: which experts each token goes to, and with which weights. */
#ifndef ROUTING_H
#define ROUTING_H

#include "forward/config.h"
#include "forward/linear.h"

/* A layer's router. Its experts are the best by score plus bias, or a table's by token id. */
struct router {
    struct linear *gate;  /* one output an expert */
    struct mat bias;      /* [1, experts] F32 */
    const int32_t *table; /* [vocabulary, experts of a token], or NULL */
    enum scoring scoring;
    bool normalize; /* weights are divided by their sum */
    float scale;    /* of weights */
};

/* config.json's scoring_func. */
enum scoring routing_scoring(const struct config *config);

/* Weights [tokens, n] F32 and numbers I32 of the experts of each token, ids: their token ids. With
 * all_weights [tokens, experts] F32 (or no rows): those of all experts, in numeric order, as if all
 * of them were chosen. */
void route(struct device *d, const struct router *router, struct mat weights, struct mat experts,
           struct mat all_weights, const int32_t *ids, struct mat x);

#endif
