#include "report/maps.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/names.h"
#include "quantize/amax.h"

/* What a tensor of a calibration is about. */
struct what {
    struct place place;
    enum map_kind kind;
};

/* False: of nothing that is drawn. */
static bool is_drawn(const struct model *model, const struct tensor *tensor, struct what *what)
{
    char module[TENSOR_NAME_MAX + 1];
    enum amax_which which;
    if (amax_is_tokens(tensor)) {
        what->kind = MAP_TOKENS;
        what->place = model_place(model, tensor->name);
    } else if (amax_key(model, tensor->name, module, &which) &&
               (which == AMAX_INPUT || which == AMAX_WEIGHT)) {
        what->kind = which == AMAX_INPUT ? MAP_INPUT : MAP_WEIGHT;
        what->place = model_place(model, module);
    } else {
        return false;
    }
    const struct place *place = &what->place;
    return place_is_routed(place) && place->expert < MAP_EXPERTS_MAX &&
           place->layer < MAP_ROWS_MAX / 2 &&
           (place->section == SECTION_LAYERS || place->section == SECTION_MTP);
}

/* ---- rows and maps ---- */

struct reading {
    struct maps *maps;
    const struct model *model;
    struct names *layers; /* by number: a row, as they came */
    struct names *kinds;  /* by number: a map */
    size_t *row;          /* of a number: its place in the order */
};

static size_t layer_number(struct reading *r, const struct place *place)
{
    char key[64];
    snprintf(key, sizeof key, "%u %" PRIu32, place->section, place->layer);
    return names_add(r->layers, key);
}

static size_t map_number(struct reading *r, const struct what *what)
{
    char *matrices =
        what->kind == MAP_TOKENS ? xstrdup("") : model_product_name(r->model, &what->place);
    char *name = xprintf("%u %s", what->kind, matrices);
    size_t number = names_add(r->kinds, name);
    free(name);
    if (number == r->maps->count) {
        r->maps->map = xgrow(r->maps->map, number + 1, sizeof *r->maps->map);
        r->maps->map[r->maps->count++] =
            (struct map){.kind = what->kind, .order = number, .matrices = matrices};
        matrices = NULL;
    }
    free(matrices);
    return number;
}

static int by_layer(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    if (x->section != y->section)
        return x->section < y->section ? -1 : 1;
    return (x->layer > y->layer) - (x->layer < y->layer);
}

/* From the table: which rows and columns there are. */
static void find_rows(struct reading *r, const struct toc *toc)
{
    struct maps *maps = r->maps;
    struct what what;
    for (size_t i = 0; i < toc->count; i++) {
        if (!is_drawn(r->model, &toc->tensor[i], &what))
            continue;
        if (layer_number(r, &what.place) == maps->rows) {
            maps->layer = xgrow(maps->layer, maps->rows + 1, sizeof *maps->layer);
            maps->layer[maps->rows++] = what.place;
        }
        if (what.place.expert >= maps->experts)
            maps->experts = what.place.expert + 1;
        map_number(r, &what);
    }
    if (!maps->rows)
        return;
    qsort(maps->layer, maps->rows, sizeof *maps->layer, by_layer);
    r->row = xalloc(maps->rows, sizeof *r->row);
    for (size_t i = 0; i < maps->rows; i++)
        r->row[layer_number(r, &maps->layer[i])] = i;
    size_t cells = maps->rows * maps->experts;
    for (size_t i = 0; i < maps->count; i++) {
        maps->map[i].value = xalloc(cells, sizeof *maps->map[i].value);
        for (size_t j = 0; j < cells; j++)
            maps->map[i].value[j] = NAN;
    }
    maps->cold = xalloc(cells, sizeof *maps->cold);
}

/* ---- values ---- */

static void read_value(struct reading *r, struct ts_in *in, const struct what *what)
{
    int64_t tokens;
    double value;
    size_t cell = r->row[layer_number(r, &what->place)] * r->maps->experts + what->place.expert;
    double *to = &r->maps->map[map_number(r, what)].value[cell];
    if (what->kind == MAP_TOKENS) {
        ts_read(in, &tokens, sizeof tokens);
        value = (double)tokens;
    } else {
        value = amax_read(r->model, in);
    }
    if (isnan(*to) || value > *to)
        *to = value;
}

static bool is_cold(const struct maps *maps, size_t cell)
{
    bool lacks = false;
    for (size_t i = 0; i < maps->count; i++) {
        double value = maps->map[i].value[cell];
        if (maps->map[i].kind == MAP_TOKENS && !isnan(value))
            return value <= 0;
        lacks |= maps->map[i].kind != MAP_TOKENS && isnan(value);
    }
    return lacks;
}

static void find_cold(struct maps *maps)
{
    for (size_t row = 0; row < maps->rows; row++)
        for (uint32_t expert = 0; expert < maps->experts; expert++) {
            size_t cell = row * maps->experts + expert;
            maps->cold[cell] = maps_has(maps, row, expert) && is_cold(maps, cell);
            maps->cold_count += maps->cold[cell];
            maps->expert_count += maps_has(maps, row, expert);
        }
}

static int by_kind(const void *a, const void *b)
{
    const struct map *x = a, *y = b;
    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    return (x->order > y->order) - (x->order < y->order);
}

struct maps *maps_load(const char *path, const struct model *model)
{
    struct ts_in *in = ts_open(path, NULL);
    struct reading r = {.maps = xalloc(1, sizeof *r.maps),
                        .model = model,
                        .layers = names_new(),
                        .kinds = names_new()};
    struct what what;
    find_rows(&r, ts_toc(in));
    for (const struct tensor *tensor; (tensor = ts_next(in));)
        if (r.row && is_drawn(r.model, tensor, &what))
            read_value(&r, in, &what);
    if (ts_plan_only(in))
        die("%s: is a plan, without values", path);
    ts_close(in);
    names_free(r.layers);
    names_free(r.kinds);
    free(r.row);
    find_cold(r.maps);
    if (r.maps->count)
        qsort(r.maps->map, r.maps->count, sizeof *r.maps->map, by_kind);
    return r.maps;
}

bool maps_has(const struct maps *maps, size_t row, uint32_t expert)
{
    for (size_t i = 0; i < maps->count; i++)
        if (!isnan(maps->map[i].value[row * maps->experts + expert]))
            return true;
    return false;
}

void maps_free(struct maps *maps)
{
    for (size_t i = 0; maps && i < maps->count; i++) {
        free(maps->map[i].matrices);
        free(maps->map[i].value);
    }
    if (maps) {
        free(maps->map);
        free(maps->layer);
        free(maps->cold);
    }
    free(maps);
}
