#include "model/complete.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "model/family.h"

/* What is listed, and what is counted at most: a count may claim anything. */
enum { LISTED = 3, COUNTED = 10000 };

struct search {
    const struct model *model;
    struct toc *toc;
    char *list; /* of the first that are missing */
    size_t count;
};

static void add_missing(struct search *search, const char *name)
{
    if (search->count++ >= LISTED)
        return;
    char *longer = search->list ? xprintf("%s, %s", search->list, name) : xstrdup(name);
    free(search->list);
    search->list = longer;
}

static bool is_there(struct search *search, const char *start, const char *rest)
{
    char *name = xprintf("%s%s", start, rest);
    bool found = toc_find(search->toc, name) >= 0;
    free(name);
    return found;
}

/* Look for the tensors START + name; if none of them is there, `whole` is missing instead of them
 * all (NULL: it is not a thing of its own). False then. */
static bool find_all(struct search *search, const char *start, const char *const *names,
                     const char *whole)
{
    size_t found = 0, count = 0;
    for (; names[count]; count++)
        found += is_there(search, start, names[count]);
    if (whole && count && !found) {
        add_missing(search, whole);
        return false;
    }
    for (size_t i = 0; i < count && found < count; i++)
        if (!is_there(search, start, names[i])) {
            char *name = xprintf("%s%s", start, names[i]);
            add_missing(search, name);
            free(name);
        }
    return true;
}

/* ---- experts ---- */

/* The place of a layer's first routed expert. False if the family has none. */
static bool routed_part(const struct family *family, struct place *place)
{
    const struct part_name *part = family->part;
    while (part->prefix && !(strchr(part->prefix, '#') && part->matrix))
        part++;
    place->part = (uint32_t)(part - family->part);
    return part->prefix;
}

static void find_expert(struct search *search, struct place place)
{
    char path[TENSOR_NAME_MAX + 1], module[TENSOR_NAME_MAX + 1];
    char *weight[GROUP_MAX + 1] = {0};
    size_t start = strlen(model_expert_path(search->model, &place, path));
    for (place.matrix = 0; place.matrix < GROUP_MAX; place.matrix++)
        if (model_module(search->model, &place, module))
            weight[place.matrix] = xprintf("%s.weight", module + start);
        else
            break;
    find_all(search, path, (const char *const *)weight, path);
    for (size_t i = 0; weight[i]; i++)
        free(weight[i]);
}

/* ---- layers ---- */

/* How many layers there are of a section, and the most experts of any. */
struct extent {
    uint32_t layers, experts;
};

static struct extent extent_of(const struct search *search, enum section section)
{
    struct extent extent = {0};
    for (size_t i = 0; i < search->toc->count; i++) {
        struct place place = model_place(search->model, search->toc->tensor[i].name);
        if (place.section != section)
            continue;
        if (place.layer >= extent.layers)
            extent.layers = place.layer + 1;
        if (place_is_routed(&place) && place.expert >= extent.experts)
            extent.experts = place.expert + 1;
    }
    return extent;
}

/* Of a section, `layers` layers are wanted, with as many experts as config.json says, or as any of
 * them has if that does not say it. */
static void find_layers(struct search *search, enum section section, uint32_t layers)
{
    const struct family *family = search->model->family;
    struct place place = {.section = (uint8_t)section};
    bool routed = routed_part(family, &place);
    uint32_t most = extent_of(search, section).experts;
    for (; place.layer < layers && search->count < COUNTED; place.layer++) {
        char path[TENSOR_NAME_MAX + 1];
        place.expert = PLACE_NONE;
        model_layer_path(search->model, &place, path);
        char *start = xprintf("%s.", path);
        const struct layer_names *some = family->layer_has;
        bool there = find_all(search, start, some->names, path);
        while (there && (++some)->names)
            if (some->where(search->model, &place))
                find_all(search, start, some->names, NULL);
        free(start);
        if (!there || !routed)
            continue;
        const char *key = family->experts_key(search->model, &place);
        uint32_t experts = model_count(search->model, key);
        if (key && !experts)
            experts = most;
        for (place.expert = 0; place.expert < experts && search->count < COUNTED; place.expert++)
            find_expert(search, place);
    }
}

/* ---- all of it ---- */

/* False if the family knows none of the names, of which nothing can be said to be missing then. */
static bool knows_any(const struct search *search)
{
    for (size_t i = 0; i < search->toc->count; i++)
        if (model_place(search->model, search->toc->tensor[i].name).section != SECTION_UNKNOWN)
            return true;
    return false;
}

/* The first expert beyond config.json's count of its layer's, to be said; NULL if there is none. */
static char *surplus_expert(const struct search *search)
{
    for (size_t i = 0; i < search->toc->count; i++) {
        struct place place = model_place(search->model, search->toc->tensor[i].name);
        if (!place_is_routed(&place))
            continue;
        const char *key = search->model->family->experts_key(search->model, &place);
        uint32_t count = model_count(search->model, key);
        char path[TENSOR_NAME_MAX + 1];
        if (count && place.expert >= count)
            return xprintf("has %s, but config.json's %s is %" PRIu32,
                           model_expert_path(search->model, &place, path), key, count);
    }
    return NULL;
}

char *model_incomplete(const struct model *model, struct toc *toc)
{
    const struct family *family = model->family;
    struct search search = {.model = model, .toc = toc};
    const json_t *said = json_object_get(model->config, "num_hidden_layers");
    if (!family->layer_has || !(model->layers || said) || !knows_any(&search))
        return NULL;
    if (!model->layers) {
        char *value = json_dumps(said, JSON_ENCODE_ANY);
        char *wrong =
            xprintf("has layers, but config.json's num_hidden_layers is %.40s", value ? value : "");
        free(value);
        return wrong;
    }
    uint32_t layers = extent_of(&search, SECTION_LAYERS).layers;
    if (layers > model->layers)
        return xprintf("has a layer %" PRIu32 ", but config.json's num_hidden_layers is %" PRIu32,
                       layers - 1, model->layers);
    char *surplus = surplus_expert(&search);
    if (surplus)
        return surplus;
    find_all(&search, "", family->has, NULL);
    find_layers(&search, SECTION_LAYERS, model->layers);
    find_layers(&search, SECTION_MTP, extent_of(&search, SECTION_MTP).layers);
    if (!search.count)
        return NULL;
    size_t more = search.count > LISTED ? search.count - LISTED : 0;
    char *text = !more ? xprintf("lacks %s", search.list)
                       : xprintf("lacks %s and %zu more", search.list, more);
    free(search.list);
    return text;
}
