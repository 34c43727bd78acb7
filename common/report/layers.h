/* layers.h: layers by their place, as people count them. */
#ifndef LAYERS_H
#define LAYERS_H

#include "tensor/place.h"

/* "3" or "mtp 0", into `text`, which is returned. */
enum { LAYER_TEXT = 24 };
char *layer_text(const struct place *place, char text[LAYER_TEXT]);

#endif
