#include "quantize/amax_share.h"

#include <math.h>

/* The largest amax in the group of an entry. */
static double group_amax(struct amax_table *table, const struct amax_entry *entry)
{
    char module[TENSOR_NAME_MAX + 1];
    struct place member;
    double largest = entry->amax;
    bool shares = !table->recipe || !model_module(table->model, &entry->place, module) ||
                  recipe_shares_scales(table->recipe, module);
    for (unsigned i = 0; shares && model_group_member(table->model, &entry->place, i, &member);
         i++) {
        const struct amax_entry *other = model_module(table->model, &member, module)
                                             ? amax_table_find(table, module, entry->which)
                                             : NULL;
        if (other)
            largest = fmax(largest, other->amax);
    }
    return largest;
}

uint64_t amax_share_groups(struct amax_table *table)
{
    uint64_t fused = 0;
    for (size_t i = 0; i < table->count; i++) {
        struct amax_entry *entry = &table->entry[i];
        double largest = entry->is_tokens ? 0 : group_amax(table, entry);
        if (!entry->is_tokens && entry->amax < largest) {
            entry->amax = largest;
            fused++;
        }
    }
    return fused;
}

/* The layers with the same matrix as `peers`, whose maximum is known. */
static void add_to_trunk(struct amax_table *table, const struct amax_peers *peers)
{
    struct amax_trunk *trunk = &table->trunk[peers->place.matrix];
    if (peers->place.section != SECTION_MTP)
        trunk->largest = fmax(trunk->largest, peers->input_amax);
    if (peers->place.section == SECTION_LAYERS && peers->reached &&
        (!trunk->last || peers->place.layer > trunk->last->place.layer))
        trunk->last = peers;
}

void amax_find_largest(struct amax_table *table)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct amax_entry *entry = &table->entry[i];
        if (entry->peers && entry->which == AMAX_INPUT) {
            entry->peers->input_amax = fmax(entry->peers->input_amax, entry->amax);
            entry->peers->reached++;
        }
    }
    for (const struct amax_peers *peers = table->peers; peers; peers = peers->next)
        add_to_trunk(table, peers);
}

void amax_share_largest(struct amax_table *table)
{
    for (size_t i = 0; i < table->count; i++) {
        struct amax_entry *entry = &table->entry[i];
        if (entry->peers && entry->peers->reached && entry->which == AMAX_INPUT)
            entry->amax = entry->peers->input_amax;
    }
}
