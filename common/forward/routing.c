#include "forward/routing.h"

#include <stdlib.h>

#include "base/die.h"

enum scoring routing_scoring(const struct config *config)
{
    static const char *const names[] = {[SCORING_SOFTMAX] = "softmax",
                                        [SCORING_SIGMOID] = "sigmoid",
                                        [SCORING_SQRT_SOFTPLUS] = "sqrtsoftplus"};
    return (enum scoring)config_choice(config, "scoring_func", names, sizeof names / sizeof *names);
}

/* Look up these tokens' experts in a table. */
static void look_up(struct device *d, const int32_t *table, struct mat experts, const int32_t *ids)
{
    uint64_t n = experts.cols;
    int32_t *found = xalloc((size_t)(experts.rows * n), sizeof *found);
    for (uint64_t i = 0; i < experts.rows; i++)
        for (uint64_t j = 0; j < n; j++)
            found[i * n + j] = table[(uint64_t)ids[i] * n + j];
    d->write(d, experts, found);
    free(found);
}

/* Every expert's number in every row. */
static void number(struct device *d, struct mat experts)
{
    int32_t *all = xalloc((size_t)(experts.rows * experts.cols), sizeof *all);
    for (uint64_t i = 0; i < experts.rows * experts.cols; i++)
        all[i] = (int32_t)(i % experts.cols);
    d->write(d, experts, all);
    free(all);
}

/* The weights of `experts`, chosen by any rule. */
static void weigh(struct device *d, const struct router *router, struct mat weights,
                  struct mat scores, struct mat experts)
{
    d->route_weights(d, weights, scores, experts, router->normalize, router->scale);
    if (router->rounds)
        mat_round(d, weights);
}

void route(struct device *d, const struct router *router, struct mat weights, struct mat experts,
           struct mat all_weights, const int32_t *ids, struct mat x)
{
    struct mat scores = d->make(d, DTYPE_F32, x.rows, router->gate->outputs);
    linear_apply(d, router->gate, scores, x, SEES_BOTH);
    if (router->rounds)
        mat_round(d, scores);
    d->score(d, scores, router->scoring);
    if (router->rounds && router->scoring != SCORING_SOFTMAX)
        mat_round(d, scores);
    if (router->table)
        look_up(d, router->table, experts, ids);
    else
        d->route_topk(d, experts, scores, router->bias, router->groups);
    weigh(d, router, weights, scores, experts);
    if (all_weights.rows) {
        struct mat all = d->make(d, DTYPE_I32, x.rows, all_weights.cols);
        number(d, all);
        weigh(d, router, all_weights, scores, all);
        d->drop(d, all);
    }
    d->drop(d, scores);
}
