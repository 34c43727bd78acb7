#include "forward/observer.h"

#include <math.h>
#include <stdlib.h>

#include "base/die.h"
#include "tensor/headroom.h"

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

/* ---- what is recorded besides amaxes ---- */

static void begin_pieces(const struct forward *run, struct layer *layer)
{
    layer->inputs = xalloc(layer->network->pieces, sizeof *layer->inputs);
    for (size_t i = 0; i < layer->network->pieces; i++) {
        struct piece *p = &layer->piece[i];
        unsigned kinds = p->linear.module ? run->records(run->context, p->linear.module, false) : 0;
        if (p->linear.groups > 1) /* each has inputs of its own */
            kinds &= ~(unsigned)INPUTS_MOMENTS;
        inputs_begin(&layer->inputs[i], run->device, kinds, p->cols);
        p->linear.inputs = &layer->inputs[i];
    }
}

void observe_begin(const struct forward *run, struct layer *layer, struct experts *experts)
{
    size_t count = (size_t)layer->experts.count;
    if (!run->records)
        return;
    begin_pieces(run, layer);
    experts->inputs = xalloc(count * EXPERT_MATRICES, sizeof *experts->inputs);
    for (size_t e = 0; e < count; e++)
        for (unsigned i = 0; i < EXPERT_MATRICES; i++) {
            char *module = layer_expert_module(layer, e, i);
            uint64_t cols = i == EXPERT_DOWN ? layer->experts.inner : layer->experts.dim;
            inputs_begin(&experts->inputs[e * EXPERT_MATRICES + i], run->device,
                         run->records(run->context, module, true), cols);
            free(module);
        }
}

/* What the ranks add up, on rank 0. */
struct sum {
    float *value;
    size_t count;
};

static bool add_rank(void *context, const void *data, size_t size)
{
    const struct sum *sum = context;
    const float *more = data;
    if (size != sum->count * sizeof *more)
        return false;
    for (size_t i = 0; i < sum->count; i++)
        sum->value[i] += more[i];
    return true;
}

/* The means over all ranks' rows; NULL on other ranks than 0. The caller frees them. */
static float *read_moments(const struct forward *run, struct mat moments, uint64_t rows)
{
    size_t count = (size_t)(moments.rows * moments.cols);
    float *mean = xalloc(count, sizeof *mean);
    run->device->read(run->device, mean, moments);
    ranks_gather(run->ranks, mean, count * sizeof *mean, add_rank, &(struct sum){mean, count});
    for (size_t i = 0; i < count; i++)
        mean[i] /= (float)rows;
    if (!ranks_rank(run->ranks))
        return mean;
    free(mean);
    return NULL;
}

static void read_amaxes(const struct forward *run, struct linear_seen *seen, struct mat amaxes)
{
    int64_t count[2][HEADROOM_BUCKETS];
    run->device->read(run->device, count, amaxes);
    ranks_sum(run->ranks, (uint64_t *)*count, sizeof count / sizeof **count);
    seen->headroom_amax = headroom_amax(count[0], seen->input_amax);
    seen->unweighted_headroom_amax = headroom_amax(count[1], seen->unweighted_amax);
}

/* Report a linear. The rest of *seen is filled in from `magnitude`, a row of `seen` in linear.h,
 * and from what else was recorded. */
static void tell(const struct forward *run, struct linear_seen *seen, const float *magnitude,
                 const struct inputs *inputs)
{
    float *moments = NULL;
    seen->input_amax = magnitude[SEEN_INPUT];
    seen->unweighted_amax = magnitude[SEEN_UNWEIGHTED];
    seen->weight_amax = magnitude[SEEN_WEIGHT];
    check_finite(seen, magnitude[SEEN_OUTPUT]);
    if (inputs && inputs->amaxes.rows)
        read_amaxes(run, seen, inputs->amaxes);
    if (inputs && inputs->moments.rows && seen->rows) {
        seen->moments = moments = read_moments(run, inputs->moments, seen->rows);
        seen->cols = inputs->moments.rows;
    }
    if (run->linear)
        run->linear(run->context, seen);
    free(moments);
}

/* ---- reports ---- */

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
            tell(run, &seen, magnitude + i * SEEN, layer->inputs ? &layer->inputs[i] : NULL);
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
            size_t at = e * EXPERT_MATRICES + i;
            tell(run, &seen, magnitude + at * SEEN, experts->inputs ? &experts->inputs[at] : NULL);
            free(module);
        }
        if (run->routed)
            run->routed(run->context, expert, experts->routed[e]);
        free(expert);
    }
    free(magnitude);
}
