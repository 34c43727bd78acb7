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

bool needs_norm(const struct forward *run)
{
    return needs_head(run) || (needs_mtp(run) && run->network->mtp_states);
}

bool needs_embedding(const struct forward *run)
{
    return (!run->states_in && !run->first) || needs_mtp(run);
}

static bool is_wanted(const struct forward *run, uint64_t layer)
{
    const struct network *n = run->network;
    if (layer == LAYER_HEAD)
        return needs_norm(run);
    if (layer < n->layers)
        return layer >= run->first && layer <= run->last;
    return needs_mtp(run) && layer < n->layers + n->mtp_layers;
}

/* The same of a tensor. Without logits, the head's matrix, which is large, is left out. */
static bool is_wanted_tensor(const struct forward *run, const char *tensor)
{
    struct place place = model_place(ts_model(run->in), tensor);
    return is_wanted(run, network_layer(run->network, run->in, tensor)) &&
           (place.section != SECTION_HEAD || needs_head(run));
}

static void check_layer(const struct forward *run, const struct weights *weights, uint64_t number)
{
    struct layer layer;
    layer_begin(run->network, &layer, number);
    layer_check(&layer, run->in, weights);
    layer_end(&layer);
}

/* ---- tensors that are not used ---- */

struct unused {
    size_t count;
    const char *first;
};

static void add_unused(struct unused *unused, const struct tensor *tensor)
{
    if (!unused->count++)
        unused->first = tensor->name;
}

/* Look at the tensors from line `i` on that belong to the same layer and are not experts'. One that
 * the layer has no place for ends the process. Returns the line after them. */
static size_t look_at_layer(const struct forward *run, const struct weights *weights, size_t i,
                            struct unused *unused)
{
    const struct network *n = run->network;
    const struct toc *toc = ts_toc(run->in);
    uint64_t number = network_layer(n, run->in, toc->tensor[i].name);
    struct layer layer;
    layer_begin(n, &layer, number);
    for (; i < toc->count; i++) {
        const struct tensor *tensor = &toc->tensor[i];
        const struct weight *w = weight_of(weights, i);
        struct place place = model_place(ts_model(run->in), tensor->name);
        if (network_layer(n, run->in, tensor->name) != number)
            break;
        if (place_is_routed(&place) || (w && w->line != i))
            continue;
        size_t piece = layer_find(&layer, tensor->name);
        if (piece == n->pieces)
            die("%s: %s: the forward pass does not know this tensor, so its results would be wrong",
                ts_name(run->in), tensor->name);
        if (layer.piece[piece].kind == PIECE_UNUSED)
            add_unused(unused, tensor);
    }
    layer_end(&layer);
    return i;
}

/* Say in a line which tensors a run over text does not use, for it may be another model than
 * thought: images' parts, and names that the family does not know. */
static void look_at_unused(const struct forward *run, const struct weights *weights)
{
    const struct toc *toc = ts_toc(run->in);
    struct unused unused = {0};
    for (size_t i = 0; i < toc->count;) {
        struct place place = model_place(ts_model(run->in), toc->tensor[i].name);
        if (place.section == SECTION_UNKNOWN)
            add_unused(&unused, &toc->tensor[i]);
        if (is_wanted(run, network_layer(run->network, run->in, toc->tensor[i].name)))
            i = look_at_layer(run, weights, i, &unused);
        else
            i++;
    }
    if (unused.count && run->device && !run->quiet)
        warn("%s: %zu tensors are not used for text, first %s", ts_name(run->in), unused.count,
             unused.first);
}

/* ---- what must be there ---- */

static void check_mtp(const struct forward *run)
{
    if (model_has_dspark(ts_model(run->in), ts_toc(run->in)))
        die("%s: its drafts are of DSpark, which have no forward pass here; leave --mtp out",
            ts_name(run->in));
    if (!run->network->mtp_layers)
        die("%s: --mtp: config.json says that it has no multi-token prediction layers",
            ts_name(run->in));
}

static void check_all(const struct forward *run, const struct weights *weights)
{
    const struct network *n = run->network;
    if (run->mtp)
        check_mtp(run);
    look_at_unused(run, weights);
    for (uint64_t i = run->first; i < n->layers + n->mtp_layers; i++)
        if (is_wanted(run, i))
            check_layer(run, weights, i);
    if (needs_norm(run))
        check_layer(run, weights, LAYER_HEAD);
    if (needs_embedding(run))
        embedding_check(n, run->in, weights);
}

/* True for a table whose rows are read by number. */
static bool is_by_rows(const struct network *n, const char *tensor)
{
    return n->rows && strstr(tensor, n->rows);
}

void needed_check(const struct forward *run)
{
    struct weights weights;
    weights_find(&weights, ts_model(run->in), ts_toc(run->in), ts_name(run->in));
    check_all(run, &weights);
    weights_free(&weights);
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

static bool shares_input_scales(const struct forward *run, const struct weights *weights)
{
    for (size_t i = 0; i < weights->count && run->arithmetic == ARITHMETIC_ENGINE; i++)
        if (weights->weight[i].format == FORMAT_NVFP4 && place_is_routed(&weights->weight[i].place))
            return true;
    return false;
}

void needed_find(struct needed *needed, const struct forward *run)
{
    struct toc *toc = ts_toc(run->in);
    const struct network *n = run->network;
    *needed = (struct needed){.largest = largest_layer(n, run->in)};
    weights_find(&needed->weights, ts_model(run->in), toc, ts_name(run->in));
    check_all(run, &needed->weights);
    needed->together = shares_input_scales(run, &needed->weights);
    needed->wanted = xalloc(toc->count, sizeof *needed->wanted);
    needed->on_device = xalloc(toc->count, sizeof *needed->on_device);
    needed->unseen = xalloc(toc->count, sizeof *needed->unseen);
    needed->by_rows = xalloc(toc->count, sizeof *needed->by_rows);
    for (size_t i = 0; i < toc->count; i++) {
        const struct weight *w = weight_of(&needed->weights, i);
        bool byte_scales = w && (w->format == FORMAT_MXFP4 || w->format == FORMAT_NVFP4);
        needed->wanted[i] = is_wanted_tensor(run, toc->tensor[i].name);
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
