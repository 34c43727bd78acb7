#include "quantize/fit.h"

#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/names.h"
#include "stream/whole.h"

/* Paths of experts, each once. */
struct experts {
    struct names *path;
    size_t count;
};

struct fit {
    struct ts_in *checkpoint;
    bool whole;             /* the stream has a whole checkpoint, not a part */
    struct experts have;    /* amaxes */
    struct experts lacking; /* in the checkpoint */
    char *example;          /* a module that it lacks, or NULL */
};

struct fit *fit_begin(struct ts_in *checkpoint)
{
    const char *scope = json_string_value(json_object_get(ts_header(checkpoint), "scope"));
    struct fit *fit = xalloc(1, sizeof *fit);
    *fit = (struct fit){.checkpoint = checkpoint,
                        .whole = scope && !strcmp(scope, "all"),
                        .have = {.path = names_new()},
                        .lacking = {.path = names_new()}};
    return fit;
}

/* Add the expert of a place. */
static void add_expert(const struct fit *fit, struct experts *experts, const struct place *place)
{
    char path[TENSOR_NAME_MAX + 1];
    size_t number =
        names_add(experts->path, model_expert_path(ts_model(fit->checkpoint), place, path));
    if (number == experts->count)
        experts->count++;
}

void fit_add(struct fit *fit, const char *module)
{
    struct place place = model_place(ts_model(fit->checkpoint), module);
    if (!fit->whole || !place_is_routed(&place))
        return;
    add_expert(fit, &fit->have, &place);
    char *name = xprintf("%s.weight", module);
    if (toc_find(ts_toc(fit->checkpoint), name) < 0) {
        add_expert(fit, &fit->lacking, &place);
        if (!fit->example)
            fit->example = xstrdup(module);
    }
    free(name);
}

static size_t experts_of_checkpoint(const struct fit *fit)
{
    const struct toc *toc = ts_toc(fit->checkpoint);
    struct experts experts = {.path = names_new()};
    for (size_t i = 0; i < toc->count; i++) {
        struct place place = model_place(ts_model(fit->checkpoint), toc->tensor[i].name);
        if (place_is_routed(&place))
            add_expert(fit, &experts, &place);
    }
    names_free(experts.path);
    return experts.count;
}

void fit_end(struct fit *fit, const char *name)
{
    if (fit->lacking.count)
        whole_check(fit->checkpoint); /* which lacks them, rather than being another model */
    if (fit->lacking.count)
        die("%s: has amaxes of %zu routed experts, but %s has %zu routed experts, and lacks %zu of "
            "those, as %s; a calibration of this model is needed",
            name, fit->have.count, ts_name(fit->checkpoint), experts_of_checkpoint(fit),
            fit->lacking.count, fit->example);
    names_free(fit->have.path);
    names_free(fit->lacking.path);
    free(fit);
}
