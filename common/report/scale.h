/* scale.h: the axis of a chart: where values lie on it, and which of them have a label. */
#ifndef SCALE_H
#define SCALE_H

#include <stdbool.h>
#include <stddef.h>

struct scale {
    double low, high; /* low < high; both above 0 if it is logarithmic */
    bool logarithmic;
};

/* A scale for values from `low` to `high`, widened where these are equal or, logarithmic, not above
 * 0. A linear one begins at 0. */
struct scale scale_of(double low, double high, bool logarithmic);

/* Where a value lies: 0 at the low end, 1 at the high one, never beyond. */
double scale_part(const struct scale *scale, double value);

/* Round numbers within a scale, at most SCALE_TICKS, into `tick`; returns how many. */
enum { SCALE_TICKS = 12 };
size_t scale_ticks(const struct scale *scale, double tick[SCALE_TICKS]);

/* A number in a few characters: "0.0013", "12.5", "1186", "12.3k". Into `text`, which is returned.
 */
enum { NUMBER_TEXT = 32 };
char *number_text(double number, char text[NUMBER_TEXT]);

#endif
