#include "forward/forward.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "forward/observer.h"
#include "forward/pass.h"
#include "forward/states.h"

/* ---- families ---- */

static const struct family {
    const char *type; /* config.json's model_type */
    struct network *(*open)(const struct config *config, struct ts_in *in);
} families[] = {
    {"deepseek_v3", deepseek_v3_open},
    {"deepseek_v4", deepseek_v4_open},
    {"deepseek_v41", deepseek_v41_open},
};
enum { FAMILIES = sizeof families / sizeof *families };

static void refuse(struct ts_in *in)
{
    const char *type = json_string_value(json_object_get(ts_header(in), "model_type"));
    char *known = xstrdup(families[0].type);
    for (size_t i = 1; i < FAMILIES; i++)
        known = xprintf("%s or %s", known, families[i].type);
    die("%s: wanted a model of type %s, got %s; no other has a forward pass here", ts_name(in),
        known, type ? type : "one without model_type in its config.json");
}

struct network *network_open(struct ts_in *in)
{
    const struct family *family = families;
    const char *type = model_type(ts_model(in));
    while (family < families + FAMILIES && strcmp(family->type, type) != 0)
        family++;
    if (family == families + FAMILIES)
        refuse(in);
    struct config config;
    config_open(&config, in);
    struct network *n = family->open(&config, in);
    n->config = config;
    return n;
}

void network_close(struct network *n)
{
    config_close(&n->config);
    n->close(n);
}

uint64_t network_layer(const struct network *n, const struct ts_in *in, const char *tensor)
{
    const struct place place = model_place(ts_model(in), tensor);
    switch (place.section) {
    case SECTION_LAYERS:
        return place.layer < n->layers ? place.layer : LAYER_NONE;
    case SECTION_MTP:
        return place.layer < n->mtp_layers ? n->layers + place.layer : LAYER_NONE;
    case SECTION_NORM:
    case SECTION_HEAD:
        return LAYER_HEAD;
    default:
        return LAYER_NONE;
    }
}

/* ---- a run ---- */

void forward_check(const struct forward *run)
{
    const struct network *n = run->network;
    const struct tokens *tokens = run->tokens;
    for (uint64_t i = 0; i < tokens->samples && n->longest; i++)
        if (tokens->start[i + 1] - tokens->start[i] > n->longest)
            die("%s: sample %" PRIu64 " has %" PRIu64 " tokens; this model's forward pass takes at "
                "most %" PRIu64 ": cut samples with st-tokenize --length",
                ts_name(run->in), i, tokens->start[i + 1] - tokens->start[i], n->longest);
}

static void run_layers(struct pass *pass)
{
    const struct forward *run = pass->run;
    const struct states before = {run->first - 1, pass->rows.hidden, pass->digest};
    if (run->states_in)
        states_load(run, &before);
    else if (!run->first)
        embed_all(pass);
    if (run->resume)
        run->resume(run->context, &before);
    if (run->verbose && run->device->read_file)
        warn("files are read directly into the device's memory");
    if (run->verbose)
        times_tell("start:", pass_times(pass), (struct times){0});
    for (uint64_t i = run->first; i <= run->last; i++) {
        struct layer_pass lp;
        layer_pass_begin(&lp, pass, i);
        layer_pass_run(&lp);
        layer_pass_end(&lp);
        if (run->states && i + 1 >= run->repeated)
            run->states(run->context, &(struct states){i, pass->rows.hidden, pass->digest});
    }
}

void forward_run(const struct forward *run)
{
    struct pass pass;
    struct layer head;
    forward_check(run);
    pass_begin(&pass, run);
    run_layers(&pass);
    layer_begin(pass.network, &head, LAYER_HEAD);
    if (needs_norm(run))
        feed_layer(&pass.feed, &head, pass.network->late_pieces,
                   needs_head(run) ? pass.network->pieces : pass.network->head_piece);
    if (needs_head(run))
        run_head(&pass, &head, &head, 0);
    if (needs_mtp(run))
        prepare_mtp(&pass, &head);
    for (unsigned i = 0; i < pass.network->mtp_layers && needs_mtp(run); i++)
        run_mtp(&pass, &head, i);
    observe_layer(run, &head);
    if (run->reported)
        run->reported(run->context);
    if (run->verbose)
        times_tell_bound(pass_times(&pass));
    layer_end(&head);
    pass_end(&pass);
}
