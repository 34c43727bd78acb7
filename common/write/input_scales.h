/* input_scales.h: a table of the input scales that engines use, for people. */
#ifndef INPUT_SCALES_H
#define INPUT_SCALES_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

/* A line for each layer: its products' input scales, which expert sets them, and how far above the
 * median expert's that is. `scales` is the array of quantize/effective.h. Of many layers only those
 * where that is furthest, unless all are wanted. */
void input_scales_print(FILE *out, const json_t *scales, bool all);

#endif
