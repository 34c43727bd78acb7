#include "report/chart.h"

#include <math.h>

#include "report/html.h"
#include "report/scale.h"

void figure_begin(FILE *out, const struct figure *figure)
{
    html_print(
        out,
        "<figure>\n<figcaption>%s</figcaption>\n<div class=\"scroll\" role=\"group\" "
        "tabindex=\"0\" aria-label=\"%s\">\n<svg role=\"img\" width=\"%.0f\" height=\"%.0f\" "
        "viewBox=\"0 0 %.0f %.0f\">\n<title>%s</title>\n<desc>%s</desc>\n",
        figure->title, figure->title, figure->width, figure->height, figure->width, figure->height,
        figure->title, figure->description);
}

void figure_end(FILE *out)
{
    fputs("</svg>\n</div>\n</figure>\n", out);
}

/* Pixels; and up to FEW columns are WIDE. */
enum { LEFT = 64, RIGHT = 16, TOP = 52, PLOT = 180, BOTTOM = 44, WIDE = 34, NARROW = 12, FEW = 20 };

static double height_of(const struct scale *scale, double value)
{
    return TOP + PLOT * (1 - scale_part(scale, value));
}

static void put_axes(FILE *out, const struct chart *chart, const struct scale *scale, double width)
{
    double tick[SCALE_TICKS];
    char text[NUMBER_TEXT];
    size_t ticks = scale_ticks(scale, tick);
    for (size_t i = 0; i < ticks; i++) {
        double y = height_of(scale, tick[i]);
        html_print(out,
                   "<path class=\"grid\" d=\"M%u %.1fH%.0f\"/><text class=\"end\" x=\"%u\" "
                   "y=\"%.1f\">%s</text>\n",
                   LEFT, y, width - RIGHT, LEFT - 6, y + 4, number_text(tick[i], text));
    }
    html_print(out, "<text x=\"4\" y=\"14\">%s</text><text x=\"%u\" y=\"%u\">layer</text>\n",
               chart->unit, LEFT, TOP + PLOT + BOTTOM - 6);
}

static void put_column(FILE *out, const struct column *column, const struct scale *scale, double x,
                       bool upright)
{
    double top = height_of(scale, column->value), from = height_of(scale, column->from);
    if (column->from > 0)
        html_print(
            out,
            "<path class=\"stem\" d=\"M%.1f %.1fV%.1f\"/><circle class=\"hollow\" cx=\"%.1f\" "
            "cy=\"%.1f\" r=\"3\"/><circle class=\"full\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\"/>",
            x, from, top, x, from, x, top);
    else
        html_print(out, "<rect class=\"full\" x=\"%.1f\" y=\"%.1f\" width=\"9\" height=\"%.1f\"/>",
                   x - 4.5, top, TOP + PLOT - top);
    if (*column->mark)
        html_print(out,
                   upright
                       ? "<text class=\"mark middle\" transform=\"translate(%.1f %.1f)\">%s</text>"
                       : "<text class=\"mark\" transform=\"translate(%.1f %.1f) rotate(-90)\">%s"
                         "</text>",
                   upright ? x : x + 4, top - 9, column->mark);
    fputc('\n', out);
}

static struct scale scale_for(const struct chart *chart)
{
    double low = INFINITY, high = 0;
    for (size_t i = 0; i < chart->count; i++) {
        const struct column *column = &chart->column[i];
        low = fmin(low, column->from > 0 ? fmin(column->from, column->value) : column->value);
        high = fmax(high, column->value);
    }
    /* some room around, so that no dot lies on the edge */
    return chart->logarithmic ? scale_of(low / 1.1, high * 1.1, true) : scale_of(0, high, false);
}

void chart_write(FILE *out, const struct chart *chart)
{
    bool few = chart->count <= FEW;
    double step = few ? WIDE : NARROW;
    double width = LEFT + RIGHT + fmax(step * (double)chart->count, 220);
    struct scale scale = scale_for(chart);
    figure_begin(out,
                 &(struct figure){chart->title, chart->description, width, TOP + PLOT + BOTTOM});
    put_axes(out, chart, &scale, width);
    for (size_t i = 0; i < chart->count; i++) {
        double x = LEFT + step * ((double)i + 0.5);
        put_column(out, &chart->column[i], &scale, x, few);
        if (few || i % 5 == 0)
            html_print(out, "<text class=\"middle\" x=\"%.1f\" y=\"%u\">%s</text>\n", x,
                       TOP + PLOT + 18, chart->column[i].name);
    }
    figure_end(out);
}
