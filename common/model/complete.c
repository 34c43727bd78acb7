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
    char *weight[GROUP_MAX + 1]; /* of an expert, after its path: ".w1.weight" */
    char *list;                  /* of the first that are missing */
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
    char name[TENSOR_NAME_MAX + 1];
    if (strlen(start) + strlen(rest) > TENSOR_NAME_MAX)
        return false;
    stpcpy(stpcpy(name, start), rest);
    return toc_find(search->toc, name) >= 0;
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

/* The matrices of an expert of the part at `place`. */
static void name_weights(struct search *search, struct place place)
{
    for (place.matrix = 0; place.matrix < GROUP_MAX; place.matrix++) {
        const char *matrix = model_matrix_name(search->model, &place);
        if (!*matrix)
            return;
        search->weight[place.matrix] = xprintf(".%s.weight", matrix);
    }
}

static void find_expert(struct search *search, const struct place *place)
{
    char path[TENSOR_NAME_MAX + 1];
    model_expert_path(search->model, place, path);
    find_all(search, path, (const char *const *)search->weight, path);
}

/* ---- layers ---- */

/* What the table has of a section: how many layers, and the most experts of any. */
struct extent {
    uint32_t layers, experts;
};

struct extents {
    bool any; /* the family knows a name, without which nothing can be said to be missing */
    struct extent of[SECTION_UNKNOWN];
    struct place surplus; /* an expert beyond config.json's count of its layer's; or unknown */
};

static struct extents extents_of(const struct model *model, const struct toc *toc)
{
    struct extents all = {.surplus.section = SECTION_UNKNOWN};
    struct place last = {.section = SECTION_UNKNOWN};
    uint32_t experts = 0; /* of its layer, by config.json */
    for (size_t i = 0; i < toc->count; i++) {
        struct place place = model_place(model, toc->tensor[i].name);
        if (place.section == SECTION_UNKNOWN)
            continue;
        all.any = true;
        struct extent *extent = &all.of[place.section];
        if (place.layer >= extent->layers)
            extent->layers = place.layer + 1;
        if (!place_is_routed(&place))
            continue;
        if (place.expert >= extent->experts)
            extent->experts = place.expert + 1;
        if (place.section != last.section || place.layer != last.layer)
            experts = model_experts(model, &place);
        last = place;
        if (experts && place.expert >= experts && all.surplus.section == SECTION_UNKNOWN)
            all.surplus = place;
    }
    return all;
}

/* Of a section, `layers` layers are wanted, with as many experts as config.json says, or `most` if
 * that does not say it. */
static void find_layers(struct search *search, enum section section, uint32_t layers, uint32_t most)
{
    const struct family *family = search->model->family;
    struct place place = {.section = (uint8_t)section};
    bool routed = routed_part(family, &place);
    if (routed && !search->weight[0])
        name_weights(search, place);
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
            find_expert(search, &place);
    }
}

/* ---- all of it ---- */

static char *text_of_surplus(const struct model *model, const struct place *expert)
{
    char path[TENSOR_NAME_MAX + 1];
    return xprintf("has %s, but config.json's %s is %" PRIu32,
                   model_expert_path(model, expert, path),
                   model->family->experts_key(model, expert), model_experts(model, expert));
}

char *model_incomplete(const struct model *model, struct toc *toc)
{
    const struct family *family = model->family;
    struct search search = {.model = model, .toc = toc};
    const json_t *said = json_object_get(model->config, "num_hidden_layers");
    if (!family->layer_has || !(model->layers || said))
        return NULL;
    struct extents there = extents_of(model, toc);
    if (!there.any)
        return NULL;
    if (!model->layers) {
        char *value = json_dumps(said, JSON_ENCODE_ANY);
        char *wrong =
            xprintf("has layers, but config.json's num_hidden_layers is %.40s", value ? value : "");
        free(value);
        return wrong;
    }
    uint32_t layers = there.of[SECTION_LAYERS].layers;
    if (layers > model->layers)
        return xprintf("has a layer %" PRIu32 ", but config.json's num_hidden_layers is %" PRIu32,
                       layers - 1, model->layers);
    if (there.surplus.section != SECTION_UNKNOWN)
        return text_of_surplus(model, &there.surplus);
    find_all(&search, "", family->has, NULL);
    find_layers(&search, SECTION_LAYERS, model->layers, there.of[SECTION_LAYERS].experts);
    find_layers(&search, SECTION_MTP, there.of[SECTION_MTP].layers, there.of[SECTION_MTP].experts);
    for (size_t i = 0; search.weight[i]; i++)
        free(search.weight[i]);
    if (!search.count)
        return NULL;
    size_t more = search.count > LISTED ? search.count - LISTED : 0;
    char *text = !more ? xprintf("lacks %s", search.list)
                       : xprintf("lacks %s and %zu more", search.list, more);
    free(search.list);
    return text;
}
