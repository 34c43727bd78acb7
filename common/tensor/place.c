#include "tensor/place.h"

#include <stddef.h>

int place_compare(const struct place *a, const struct place *b)
{
    const uint32_t x[] = {a->section, a->layer, a->part, a->expert, a->matrix};
    const uint32_t y[] = {b->section, b->layer, b->part, b->expert, b->matrix};
    for (size_t i = 0; i < sizeof x / sizeof *x; i++)
        if (x[i] != y[i])
            return x[i] < y[i] ? -1 : 1;
    return 0;
}

static bool same_part(const struct place *a, const struct place *b)
{
    return a->section == b->section && a->layer == b->layer && a->part == b->part;
}

bool place_are_peers(const struct place *a, const struct place *b)
{
    return place_is_routed(a) && place_is_routed(b) && same_part(a, b) && a->matrix == b->matrix;
}
