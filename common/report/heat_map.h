/* heat_map.h: a map of layers and experts, drawn. */
#ifndef HEAT_MAP_H
#define HEAT_MAP_H

#include <stdio.h>

#include "report/maps.h"

/* A figure of one of the maps. Colours are logarithmic, from the least value above 0 to the
 * largest; cold experts have a colour of their own, and a cross where there is room, but where the
 * map is of weights, which are known all the same. */
void heat_map_write(FILE *out, const struct maps *maps, size_t number);

#endif
