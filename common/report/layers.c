#include "report/layers.h"

#include <inttypes.h>
#include <stdio.h>

char *layer_text(const struct place *place, char text[LAYER_TEXT])
{
    snprintf(text, LAYER_TEXT, "%s%" PRIu32, place->section == SECTION_MTP ? "mtp " : "",
             place->layer);
    return text;
}
