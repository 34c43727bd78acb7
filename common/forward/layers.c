/* Run all samples through a layer: attention in batches, experts in groups of batches. */
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
    uint64_t first;    /* of pass->rows */
    struct mat hidden; /* theirs */
    struct mat kept;   /* see network.h, attention() */
};

/* Attention, and everything before the experts, for some samples of a group. */
static void run_batch(struct layer_pass *lp, struct layer_group *g, uint64_t sample,
                      uint64_t samples)
{
    const struct network *n = lp->pass->network;
    struct device *d = n->device;
    struct group *e = &g->experts;
    const uint64_t *start = lp->pass->rows.start + sample;
    uint64_t rows = start[samples] - start[0], at = start[0] - g->first;
    struct mat x = mat_rows(e->x, at, rows), y = d->make(d, DTYPE_BF16, rows, n->dim);
    n->attention(n, &lp->layer, mat_rows(g->hidden, at, rows), x, mat_rows(g->kept, at, rows),
                 start, samples, lp->pass->rows.id + start[0]);
    if (lp->layer.experts.count) {
        const struct router router = n->router(n, &lp->layer);
        struct mat all = e->all_weights.rows ? mat_rows(e->all_weights, at, rows) : e->all_weights;
        route(d, &router, mat_rows(e->weight, at, rows), mat_rows(e->expert, at, rows), all,
              lp->pass->rows.id + start[0], x);
    }
    n->shared(n, &lp->layer, y, x);
    d->copy(d, mat_rows(e->y, at, rows), y);
    d->drop(d, y);
}

static void run_group(struct layer_pass *lp, uint64_t sample, uint64_t samples)
{
    struct pass *pass = lp->pass;
    const struct network *n = pass->network;
    struct device *d = n->device;
    uint64_t rows = rows_of(&pass->rows, sample, samples), batch = pass->run->batch;
    uint64_t next = at_most(pass->rows.samples - sample - samples, samples);
    struct layer_group g = {.first = pass->rows.start[sample]};
    g.hidden =
        d->fetch(d, pass->rows.hidden, g.first, rows, rows_of(&pass->rows, sample + samples, next));
    group_begin(&g.experts, &lp->layer, rows, pass->run->all_experts && !is_repeated(lp));
    g.kept = d->make(d, DTYPE_F32, rows, n->kept);
    for (uint64_t i = 0; i < samples; i += batch)
        run_batch(lp, &g, sample + i, at_most(samples - i, batch));
    experts_run(&lp->experts, &g.experts);
    d->copy(d, g.experts.x, g.experts.y);
    n->join(n, &lp->layer, g.hidden, g.experts.x, g.kept);
    group_end(&g.experts, d);
    d->drop(d, g.kept);
    rows_store(&pass->rows, g.first, g.hidden);
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
