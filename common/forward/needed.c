#include "forward/needed.h"

#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "forward/embedding.h"
#include "forward/layer.h"

static bool runs_to_the_end(const struct forward *run)
{
    return run->last == run->network->layers - 1;
}

bool needs_mtp(const struct forward *run)
{
    return run->mtp && runs_to_the_end(run);
}

bool needs_head(const struct forward *run)
{
    return run->head && runs_to_the_end(run);
}

bool needs_embedding(const struct forward *run)
{
    return !run->states_in || needs_mtp(run);
}

static bool is_wanted(const struct forward *run, uint64_t layer)
{
    const struct network *n = run->network;
    if (layer == LAYER_HEAD)
        return needs_head(run);
    if (layer < n->layers)
        return layer >= run->first && layer <= run->last;
    return needs_mtp(run) && layer < n->layers + n->mtp_layers;
}

static void check_layer(const struct forward *run, const struct weights *weights, uint64_t number)
{
    struct layer layer;
    layer_begin(run->network, &layer, number);
    layer_check(&layer, run->in, weights);
    layer_end(&layer);
}

static void check_all(const struct forward *run, const struct weights *weights)
{
    const struct network *n = run->network;
    for (uint64_t i = run->first; i < n->layers + n->mtp_layers; i++)
        if (is_wanted(run, i))
            check_layer(run, weights, i);
    if (needs_head(run))
        check_layer(run, weights, LAYER_HEAD);
    if (needs_embedding(run))
        embedding_check(n, run->in, weights);
}

/* True for a table whose rows are read by number. */
static bool is_by_rows(const struct network *n, const char *tensor)
{
    return n->rows && strstr(tensor, n->rows);
}

static uint64_t largest_layer(const struct network *n, struct ts_in *in)
{
    const struct toc *toc = ts_toc(in);
    uint64_t most = 0, bytes = 0, present = LAYER_NONE;
    for (size_t i = 0; i < toc->count; i++) {
        uint64_t number = network_layer(n, in, toc->tensor[i].name);
        if (number >= LAYER_HEAD || is_by_rows(n, toc->tensor[i].name))
            continue;
        bytes = number == present ? bytes + toc->tensor[i].size : toc->tensor[i].size;
        present = number;
        most = bytes > most ? bytes : most;
    }
    return most;
}

void needed_find(struct needed *needed, const struct forward *run)
{
    struct toc *toc = ts_toc(run->in);
    const struct network *n = run->network;
    *needed = (struct needed){.largest = largest_layer(n, run->in)};
    weights_find(&needed->weights, ts_model(run->in), toc, ts_name(run->in));
    check_all(run, &needed->weights);
    needed->wanted = xalloc(toc->count, sizeof *needed->wanted);
    needed->on_device = xalloc(toc->count, sizeof *needed->on_device);
    needed->unseen = xalloc(toc->count, sizeof *needed->unseen);
    needed->by_rows = xalloc(toc->count, sizeof *needed->by_rows);
    for (size_t i = 0; i < toc->count; i++) {
        const struct weight *w = weight_of(&needed->weights, i);
        bool byte_scales = w && (w->format == FORMAT_MXFP4 || w->format == FORMAT_NVFP4);
        needed->wanted[i] = is_wanted(run, network_layer(n, run->in, toc->tensor[i].name));
        needed->by_rows[i] = is_by_rows(n, toc->tensor[i].name);
        needed->on_device[i] =
            w && !needed->by_rows[i] && (i == w->line || (byte_scales && i == w->scale));
        needed->unseen[i] = needed->on_device[i] && i == w->line;
    }
}

void needed_free(struct needed *needed)
{
    weights_free(&needed->weights);
    free(needed->wanted);
    free(needed->on_device);
    free(needed->unseen);
    free(needed->by_rows);
}
