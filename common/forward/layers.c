/* Run all samples through a layer: attention in batches, experts in groups of batches. */
#include <stdlib.h>

#include "base/die.h"
#include "forward/observer.h"
#include "forward/pass.h"
#include "forward/routing.h"

/* See forward.h. */
static bool is_repeated(const struct layer_pass *lp)
{
    return lp->layer.number < lp->pass->run->repeated;
}

/* A group, with its hidden states. */
struct layer_group {
    struct group experts;
    uint64_t sample, samples; /* which they are, and its rows in pass->rows: */
    uint64_t first, rows;
    struct mat *hidden; /* of each batch */
    struct mat kept;    /* see network.h, attention() */
};

/* A batch of a group: some of its samples, and rows of its matrices. */
struct batch {
    uint64_t number, sample, samples, at, rows;
};

static bool next_batch(const struct layer_pass *lp, const struct layer_group *g, struct batch *b)
{
    const struct pass *pass = lp->pass;
    uint64_t size = pass->run->batch, end = g->sample + g->samples;
    b->sample = g->sample + b->number * size;
    if (b->sample >= end)
        return false;
    b->samples = at_most(end - b->sample, size);
    b->at = pass->rows.start[b->sample] - g->first;
    b->rows = rows_of(&pass->rows, b->sample, b->samples);
    return true;
}

/* The hidden states of as many batches as a group has are copied while operations run: of those
 * that come next, in this layer and after its end in the next one. Not beyond those of this group,
 * which are in use. */
static void fetch_ahead(const struct layer_pass *lp, const struct layer_group *g, uint64_t sample)
{
    const struct pass *pass = lp->pass;
    const struct rows *rows = &pass->rows;
    uint64_t batch = pass->run->batch;
    for (uint64_t i = 0; rows->hidden.on_host && i < pass->memory.group; i += batch) {
        sample = rows->samples - sample > batch ? sample + batch : 0;
        if (sample == g->sample || (!sample && lp->layer.number >= pass->run->last))
            break;
        pass->device->fetch_ahead(pass->device, rows->hidden, rows->start[sample],
                                  rows_of(rows, sample, at_most(rows->samples - sample, batch)));
    }
}

/* Attention, and everything before the experts. */
static void run_batch(struct layer_pass *lp, struct layer_group *g, const struct batch *b)
{
    const struct network *n = lp->pass->network;
    struct device *d = n->device;
    struct group *e = &g->experts;
    const uint64_t *start = lp->pass->rows.start + b->sample;
    const int32_t *id = lp->pass->rows.id + start[0];
    struct mat x = mat_rows(e->x, b->at, b->rows), y = d->make(d, DTYPE_BF16, b->rows, n->dim);
    struct mat *hidden = &g->hidden[b->number];
    *hidden = d->fetch(d, lp->pass->rows.hidden, start[0], b->rows);
    fetch_ahead(lp, g, b->sample);
    n->attention(n, &lp->layer, *hidden, x, mat_rows(g->kept, b->at, b->rows), start, b->samples,
                 id);
    if (lp->layer.experts.count) {
        const struct router router = n->router(n, &lp->layer);
        struct mat all =
            e->all_weights.rows ? mat_rows(e->all_weights, b->at, b->rows) : e->all_weights;
        route(d, &router, mat_rows(e->weight, b->at, b->rows), mat_rows(e->expert, b->at, b->rows),
              all, id, x);
    }
    n->shared(n, &lp->layer, y, x);
    d->copy(d, mat_rows(e->y, b->at, b->rows), y);
    d->drop(d, y);
}

/* The experts' output joins the hidden states, which are complete then. */
static void join_batch(struct layer_pass *lp, struct layer_group *g, const struct batch *b)
{
    const struct network *n = lp->pass->network;
    struct device *d = n->device;
    struct mat x = mat_rows(g->experts.x, b->at, b->rows);
    d->copy(d, x, mat_rows(g->experts.y, b->at, b->rows));
    n->join(n, &lp->layer, g->hidden[b->number], x, mat_rows(g->kept, b->at, b->rows));
    rows_store(&lp->pass->rows, g->first + b->at, g->hidden[b->number]);
}

static void run_group(struct layer_pass *lp, uint64_t sample, uint64_t samples)
{
    struct pass *pass = lp->pass;
    struct device *d = pass->device;
    struct layer_group g = {.sample = sample,
                            .samples = samples,
                            .first = pass->rows.start[sample],
                            .rows = rows_of(&pass->rows, sample, samples)};
    g.hidden = xalloc((size_t)(samples / pass->run->batch + 1), sizeof *g.hidden);
    group_begin(&g.experts, &lp->layer, g.rows, pass->run->all_experts && !is_repeated(lp));
    g.kept = d->make(d, DTYPE_F32, g.rows, pass->network->kept);
    for (struct batch b = {0}; next_batch(lp, &g, &b); b.number++)
        run_batch(lp, &g, &b);
    experts_run(&lp->experts, &g.experts);
    for (struct batch b = {0}; next_batch(lp, &g, &b); b.number++)
        join_batch(lp, &g, &b);
    group_end(&g.experts, d);
    d->drop(d, g.kept);
    free(g.hidden);
}

void layer_pass_begin(struct layer_pass *lp, struct pass *pass, uint64_t number)
{
    const struct network *n = pass->network;
    *lp = (struct layer_pass){.pass = pass, .begin = pass_times(pass)};
    pass_digest_begin(pass);
    layer_begin(n, &lp->layer, number);
    feed_layer(&pass->feed, &lp->layer, 0, n->late_pieces);
    experts_begin(&lp->experts, &lp->layer, &pass->feed, pass->memory.resident);
    if (!is_repeated(lp))
        observe_begin(pass->run, &lp->layer, &lp->experts);
}

void layer_pass_run(struct layer_pass *lp)
{
    const struct pass *pass = lp->pass;
    uint64_t samples = pass->rows.samples;
    uint64_t group = pass->memory.resident ? pass->memory.group : samples;
    for (uint64_t i = is_repeated(lp) ? pass->run->lagging : 0; i < samples; i += group)
        run_group(lp, i, at_most(samples - i, group));
}

void layer_pass_end(struct layer_pass *lp)
{
    struct pass *pass = lp->pass;
    pass_digest_end(pass);
    if (!is_repeated(lp)) {
        observe_layer(pass->run, &lp->layer);
        observe_experts(pass->run, &lp->experts);
    }
    if (pass->run->verbose)
        times_tell(lp->layer.prefix, pass_times(pass), lp->begin);
    experts_end(&lp->experts);
    layer_end(&lp->layer);
}
