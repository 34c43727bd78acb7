/* chart.h: figures of a page, as inline SVG with a title and a description. */
#ifndef CHART_H
#define CHART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Begin a figure with a drawing of that size in pixels, which scrolls on narrow screens, and end
 * it. Title and description are text. */
struct figure {
    const char *title, *description;
    double width, height;
};
void figure_begin(FILE *out, const struct figure *figure);
void figure_end(FILE *out);

/* Values of layers side by side. */
enum { COLUMN_TEXT = 24 };
struct column {
    char name[COLUMN_TEXT]; /* "3" */
    double value;
    double from;            /* a line goes from here to the value; 0: a bar from the bottom */
    char mark[COLUMN_TEXT]; /* at the top */
};
struct chart {
    const char *title, *description;
    const char *unit; /* of the values */
    bool logarithmic;
    const struct column *column;
    size_t count; /* at least 1 */
};
void chart_write(FILE *out, const struct chart *chart);

#endif
