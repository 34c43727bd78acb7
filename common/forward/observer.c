#include "forward/observer.h"

#include <math.h>
#include <stdlib.h>

#include "base/die.h"

static void check_finite(const struct linear_seen *seen, float output)
{
    const char *what = !isfinite(seen->weight_amax) ? "its weight holds"
                       : !isfinite(seen->input_amax) || !isfinite(seen->unweighted_amax)
                           ? "its input holds"
                       : !isfinite(output) ? "its output holds"
                                           : NULL;
    if (what)
        die("%s: %s NaN or infinity; is the checkpoint whole, and of this model?", seen->module,
            what);
}

/* Report a linear. The rest of *seen is filled in from `magnitude`, a row of `seen` in linear.h. */
static void tell(const struct forward *run, struct linear_seen *seen, const float *magnitude)
{
    seen->input_amax = magnitude[SEEN_INPUT];
    seen->unweighted_amax = magnitude[SEEN_UNWEIGHTED];
    seen->weight_amax = magnitude[SEEN_WEIGHT];
    check_finite(seen, magnitude[SEEN_OUTPUT]);
    if (run->linear)
        run->linear(run->context, seen);
}

/* The largest magnitudes over all ranks; the caller frees them. */
static float *magnitudes(const struct forward *run, struct mat seen)
{
    size_t count = (size_t)(seen.rows * seen.cols);
    float *magnitude = xalloc(count, sizeof *magnitude);
    run->device->read(run->device, magnitude, seen);
    ranks_max(run->ranks, magnitude, count);
    return magnitude;
}

void observe_layer(const struct forward *run, const struct layer *layer)
{
    size_t pieces = layer->network->pieces;
    float *magnitude = magnitudes(run, layer->seen);
    uint64_t *rows = xalloc(pieces, sizeof *rows);
    for (size_t i = 0; i < pieces; i++)
        rows[i] = layer->piece[i].linear.rows;
    ranks_sum(run->ranks, rows, pieces);
    for (size_t i = 0; i < pieces; i++) {
        struct linear_seen seen = {.module = layer->piece[i].linear.module, .rows = rows[i]};
        if (seen.module)
            tell(run, &seen, magnitude + i * SEEN);
    }
    free(magnitude);
    free(rows);
}

void observe_experts(const struct forward *run, const struct experts *experts)
{
    const struct layer *layer = experts->layer;
    size_t count = (size_t)layer->experts.count;
    float *magnitude = magnitudes(run, experts->seen);
    ranks_sum(run->ranks, experts->rows, count);
    ranks_sum(run->ranks, experts->routed, count);
    for (size_t e = 0; e < count; e++) {
        char *expert = layer_expert(layer, e);
        for (unsigned i = 0; i < EXPERT_MATRICES; i++) {
            char *module = layer_expert_module(layer, e, i);
            struct linear_seen seen = {.module = module,
                                       .expert = true,
                                       .rows = experts->rows[e],
                                       .weighted = i == EXPERT_DOWN && !layer->experts.weigh_sum};
            tell(run, &seen, magnitude + (e * EXPERT_MATRICES + i) * SEEN);
            free(module);
        }
        if (run->routed)
            run->routed(run->context, expert, experts->routed[e]);
        free(expert);
    }
    free(magnitude);
}
