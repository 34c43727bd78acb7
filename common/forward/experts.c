#include "forward/experts.h"

#include <math.h>
#include <stdlib.h>

#include "base/die.h"
#include "forward/rows.h"

/* Rows per product with an expert. */
enum { EXPERT_ROWS = 2048 };

/* Engines quantize the inputs of all experts under the largest of their scales: gate and up, which
 * are one product there, and down. A scale that is missing stays so. */
static void share_input_scales(struct held *held, size_t matrices)
{
    float largest[2] = {0};
    for (size_t i = 0; i < matrices; i++) {
        float *shared = &largest[i % EXPERT_MATRICES == EXPERT_DOWN];
        *shared = fmaxf(*shared, held[i].from.input_scale);
    }
    for (size_t i = 0; i < matrices; i++)
        if (held[i].from.input_scale > 0)
            held[i].from.input_scale = largest[i % EXPERT_MATRICES == EXPERT_DOWN];
}

void experts_begin(struct experts *experts, struct layer *layer, const struct feed *feed, bool stay)
{
    struct device *d = layer->network->device;
    size_t count = (size_t)layer->experts.count, matrices = count * EXPERT_MATRICES;
    *experts = (struct experts){.layer = layer, .feed = feed};
    if (stay)
        experts->held = xalloc(matrices, sizeof *experts->held);
    for (size_t e = 0; e < count && stay; e++)
        feed_expert(feed, layer, e, &experts->held[e * EXPERT_MATRICES]);
    if (stay && feed->run->arithmetic == ARITHMETIC_ENGINE)
        share_input_scales(experts->held, matrices);
    float *zero = xalloc(matrices * SEEN, sizeof *zero);
    experts->seen = d->make(d, DTYPE_F32, matrices, SEEN);
    d->write(d, experts->seen, zero);
    free(zero);
    experts->rows = xalloc(count, sizeof *experts->rows);
    experts->routed = xalloc(count, sizeof *experts->routed);
}

void experts_end(struct experts *experts)
{
    struct device *d = experts->layer->network->device;
    size_t matrices = (size_t)experts->layer->experts.count * EXPERT_MATRICES;
    for (size_t i = 0; i < matrices && experts->held; i++)
        held_free(experts->feed, &experts->held[i]);
    for (size_t i = 0; i < matrices && experts->inputs; i++)
        inputs_end(&experts->inputs[i], d);
    d->drop(d, experts->seen);
    free(experts->inputs);
    free(experts->held);
    free(experts->rows);
    free(experts->routed);
}

/* ---- groups ---- */

void group_begin(struct group *g, const struct layer *layer, uint64_t rows, bool all_experts)
{
    const struct expert_pieces *x = &layer->experts;
    struct device *d = layer->network->device;
    uint64_t dim = layer->network->dim;
    *g = (struct group){.x = d->make(d, DTYPE_BF16, rows, dim),
                        .y = d->make(d, DTYPE_F32, rows, dim)};
    g->weight = d->make(d, DTYPE_F32, rows, x->used);
    g->expert = d->make(d, DTYPE_I32, rows, x->used);
    g->all_weights = d->make(d, DTYPE_F32, all_experts ? rows : 0, x->count);
}

void group_end(struct group *g, struct device *d)
{
    const struct mat mats[] = {g->x,           g->y,          g->weight,       g->expert,
                               g->all_weights, g->sorted_row, g->sorted_weight};
    for (size_t i = 0; i < sizeof mats / sizeof *mats; i++)
        d->drop(d, mats[i]);
    free(g->offset);
}

/* The host needs to know how many rows each expert has: here alone it waits for the device. */
static void sort_rows(struct group *g, struct device *d, uint64_t experts)
{
    uint64_t count = g->expert.rows * g->expert.cols;
    uint64_t *number = xalloc((size_t)experts, sizeof *number);
    g->sorted_row = d->make(d, DTYPE_I32, count, 1);
    g->sorted_weight = d->make(d, DTYPE_F32, count, 1);
    d->sort_by_expert(d, g->sorted_row, g->sorted_weight, g->expert, g->weight, number, experts);
    g->offset = xalloc((size_t)experts + 1, sizeof *g->offset);
    for (uint64_t e = 0; e < experts; e++)
        g->offset[e + 1] = g->offset[e] + number[e];
    free(number);
}

/* ---- running ---- */

/* What the router's weight multiplies. */
enum weighing { WEIGH_INPUT, WEIGH_OUTPUT, WEIGH_SUM };

static enum weighing weighing(const struct experts *experts, const struct linear *linear)
{
    bool engine = experts->feed->run->arithmetic == ARITHMETIC_ENGINE &&
                  linear[EXPERT_DOWN].activation == ACTIVATION_NVFP4;
    return experts->layer->experts.weigh_sum ? WEIGH_SUM : engine ? WEIGH_OUTPUT : WEIGH_INPUT;
}

static void run(const struct experts *experts, struct linear *linear, struct mat y, struct mat x,
                struct mat weight, enum sees sees)
{
    struct device *d = experts->layer->network->device;
    enum weighing what = weighing(experts, linear);
    linear_mlp(d, &linear[EXPERT_GATE], &linear[EXPERT_UP], &linear[EXPERT_DOWN],
               experts->layer->experts.swiglu, y, x, what == WEIGH_INPUT ? weight : (struct mat){0},
               sees);
    if (what == WEIGH_OUTPUT)
        d->scale_rows(d, y, weight);
}

/* The rows that were routed to an expert. */
static void run_routed(const struct experts *experts, struct group *g, struct linear *linear,
                       uint64_t first, uint64_t count)
{
    struct device *d = experts->layer->network->device;
    struct mat index = mat_rows(g->sorted_row, first, count);
    struct mat weight = mat_rows(g->sorted_weight, first, count);
    struct mat x = d->make(d, DTYPE_BF16, count, g->x.cols);
    struct mat y = d->make(d, DTYPE_BF16, count, g->x.cols);
    d->gather(d, x, g->x, index, linear_seen(&linear[EXPERT_GATE], SEEN_INPUT));
    run(experts, linear, y, x, weight, SEES_NEITHER);
    d->scatter_add(d, g->y, y, index,
                   weighing(experts, linear) == WEIGH_SUM ? weight : (struct mat){0},
                   linear_seen(&linear[EXPERT_DOWN], SEEN_OUTPUT));
    d->drop(d, x);
    d->drop(d, y);
}

/* Run all rows through an expert, only to observe it. */
static void run_all(const struct experts *experts, struct group *g, struct linear *linear,
                    uint64_t e, uint64_t first, uint64_t count)
{
    struct device *d = experts->layer->network->device;
    struct mat y = d->make(d, DTYPE_BF16, count, g->x.cols);
    run(experts, linear, y, mat_rows(g->x, first, count),
        mat_cols(mat_rows(g->all_weights, first, count), e, 1), SEES_BOTH);
    d->drop(d, y);
}

/* Load an expert's matrices. */
static void load(const struct experts *experts, struct linear *linear, uint64_t e)
{
    const struct feed *feed = experts->feed;
    struct held taken[EXPERT_MATRICES], *held = taken;
    if (experts->held)
        held = &experts->held[e * EXPERT_MATRICES];
    else
        feed_expert(feed, experts->layer, e, taken);
    for (unsigned i = 0; i < EXPERT_MATRICES; i++)
        linear_load(feed->network->device, &linear[i], &held[i].from,
                    linear_activation(feed->run, held[i].from.weight, true),
                    (struct cut){.groups = 1}, mat_rows(experts->seen, e * EXPERT_MATRICES + i, 1));
    for (unsigned i = 0; i < EXPERT_MATRICES && experts->inputs; i++)
        linear[i].inputs = &experts->inputs[e * EXPERT_MATRICES + i];
    for (unsigned i = 0; i < EXPERT_MATRICES && !experts->held; i++)
        held_free(feed, &taken[i]);
}

static void run_expert(struct experts *experts, struct group *g, uint64_t e)
{
    struct linear linear[EXPERT_MATRICES];
    load(experts, linear, e);
    for (uint64_t i = g->offset[e]; i < g->offset[e + 1]; i += EXPERT_ROWS)
        run_routed(experts, g, linear, i, at_most(g->offset[e + 1] - i, EXPERT_ROWS));
    for (uint64_t i = 0; i < g->all_weights.rows; i += EXPERT_ROWS)
        run_all(experts, g, linear, e, i, at_most(g->x.rows - i, EXPERT_ROWS));
    experts->rows[e] += linear[EXPERT_GATE].rows;
    experts->routed[e] += g->offset[e + 1] - g->offset[e];
    for (unsigned i = 0; i < EXPERT_MATRICES; i++)
        linear_drop(experts->layer->network->device, &linear[i]);
}

void experts_run(struct experts *experts, struct group *g)
{
    struct device *d = experts->layer->network->device;
    uint64_t count = experts->layer->experts.count;
    if (!count)
        return;
    sort_rows(g, d, count);
    for (uint64_t e = 0; e < count; e++) {
        d->stream(d, 1 + (unsigned)(e % DEVICE_STREAMS));
        run_expert(experts, g, e);
    }
    d->stream(d, 0);
}
