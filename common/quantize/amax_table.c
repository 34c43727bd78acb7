#include "quantize/amax_table.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/die.h"

void amax_table_init(struct amax_table *table)
{
    *table = (struct amax_table){.toc = toc_new(), .places = names_new()};
}

void amax_table_free(struct amax_table *table)
{
    for (struct amax_peers *peers = table->peers, *next; peers; peers = next) {
        next = peers->next;
        free(peers);
    }
    free(table->by_place);
    names_free(table->places);
    free(table->entry);
    for (size_t i = 0; i < table->disabled_count; i++)
        free(table->disabled[i]);
    free(table->disabled);
    toc_free(table->toc);
    recipe_free(table->recipe);
    model_close(table->model);
}

struct amax_entry *amax_table_append(struct amax_table *table, const char *name, enum dtype dtype)
{
    toc_append(table->toc, "amax.safetensors", name, dtype, 0, NULL);
    if (table->count == table->capacity) {
        table->capacity = table->capacity ? 2 * table->capacity : 256;
        table->entry = xgrow(table->entry, table->capacity, sizeof *table->entry);
    }
    struct amax_entry *entry = &table->entry[table->count++];
    *entry = (struct amax_entry){0};
    return entry;
}

struct amax_entry *amax_table_add(struct amax_table *table, const char *module,
                                  enum amax_which which, double amax)
{
    char *name = amax_name(table->model, module, which);
    struct amax_entry *entry = amax_table_append(table, name, table->exact ? DTYPE_F64 : DTYPE_F32);
    free(name);
    entry->which = (uint8_t)which;
    entry->amax = amax;
    entry->place = model_place(table->model, module);
    entry->peers = amax_table_peers(table, &entry->place);
    return entry;
}

struct amax_entry *amax_table_find(struct amax_table *table, const char *module,
                                   enum amax_which which)
{
    char *name = amax_name(table->model, module, which);
    int64_t line = toc_find(table->toc, name);
    free(name);
    return line < 0 ? NULL : &table->entry[line];
}

const char *amax_table_name(const struct amax_table *table, const struct amax_entry *entry)
{
    return table->toc->tensor[entry - table->entry].name;
}

struct amax_peers *amax_table_peers(struct amax_table *table, const struct place *place)
{
    if (!place_is_routed(place))
        return NULL;
    char key[64];
    snprintf(key, sizeof key, "%u %" PRIu32 " %" PRIu32 " %" PRIu32, place->section, place->layer,
             place->part, place->matrix);
    size_t number = names_add(table->places, key);
    if (number == table->kinds) {
        struct amax_peers *peers = xalloc(1, sizeof *peers);
        *peers = (struct amax_peers){.next = table->peers, .place = *place};
        table->peers = peers;
        if (!(number & (number - 1))) /* it is full */
            table->by_place = xgrow(table->by_place, 2 * number + 1, sizeof *table->by_place);
        table->by_place[table->kinds++] = peers;
    }
    return table->by_place[number];
}

void amax_table_sort(struct amax_table *table)
{
    model_sort(table->model, table->toc, table->entry, sizeof *table->entry);
}
