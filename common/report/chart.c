#include "report/chart.h"

#include <math.h>
#include <string.h>

#include "report/html.h"
#include "report/scale.h"

void figure_begin(FILE *out, const struct figure *figure)
{
    fputs("<figure>\n<figcaption>", out);
    html_text(out, figure->title);
    fputs("</figcaption>\n<div class=\"scroll\" role=\"group\" tabindex=\"0\" aria-label=\"", out);
    html_text(out, figure->title);
    fprintf(
        out,
        "\">\n<svg role=\"img\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\">\n<title>",
        figure->width, figure->height, figure->width, figure->height);
    html_text(out, figure->title);
    fputs("</title>\n<desc>", out);
    html_text(out, figure->description);
    fputs("</desc>\n", out);
}

void figure_end(FILE *out)
{
    fputs("</svg>\n</div>\n</figure>\n", out);
}

enum { LEFT = 64, RIGHT = 16, TOP = 52, PLOT = 180, BOTTOM = 44, WIDE = 34, NARROW = 12, FEW = 20 };

static double height_of(const struct scale *scale, double value)
{
    return TOP + PLOT * (1 - scale_part(scale, value));
}

static void put_axis(FILE *out, const struct chart *chart, const struct scale *scale, double width)
{
    double tick[SCALE_TICKS];
    char text[NUMBER_TEXT];
    size_t ticks = scale_ticks(scale, tick);
    for (size_t i = 0; i < ticks; i++) {
        double y = height_of(scale, tick[i]);
        fprintf(out,
                "<path class=\"grid\" d=\"M%d %.1fH%.0f\"/><text class=\"end\" x=\"%d\" "
                "y=\"%.1f\">%s</text>\n",
                LEFT, y, width - RIGHT, LEFT - 6, y + 4, number_text(tick[i], text));
    }
    fprintf(out, "<text x=\"4\" y=\"14\">");
    html_text(out, chart->unit);
    fprintf(out, "</text><text x=\"%d\" y=\"%d\">layer</text>\n", LEFT, TOP + PLOT + BOTTOM - 6);
}

static void put_column(FILE *out, const struct column *column, const struct scale *scale, double x,
                       bool upright)
{
    double top = height_of(scale, column->value), bottom = TOP + PLOT;
    if (column->from > 0)
        fprintf(out,
                "<path class=\"stem\" d=\"M%.1f %.1fV%.1f\"/><circle class=\"hollow\" cx=\"%.1f\" "
                "cy=\"%.1f\" r=\"3\"/><circle class=\"full\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\"/>",
                x, height_of(scale, column->from), top, x, height_of(scale, column->from), x, top);
    else
        fprintf(out, "<rect class=\"full\" x=\"%.1f\" y=\"%.1f\" width=\"9\" height=\"%.1f\"/>",
                x - 4.5, top, bottom - top);
    if (column->mark) {
        if (upright)
            fprintf(out, "<text class=\"mark middle\" x=\"%.1f\" y=\"%.1f\">", x, top - 9);
        else
            fprintf(out, "<text class=\"mark\" transform=\"translate(%.1f %.1f) rotate(-90)\">",
                    x + 4, top - 8);
        html_text(out, column->mark);
        fputs("</text>", out);
    }
    fputc('\n', out);
}

static struct scale scale_for(const struct chart *chart)
{
    double low = INFINITY, high = 0;
    for (size_t i = 0; i < chart->count; i++) {
        const struct column *column = &chart->column[i];
        double least = column->from > 0 ? fmin(column->from, column->value) : column->value;
        if (least > 0)
            low = fmin(low, least);
        high = fmax(high, column->value);
    }
    /* some room around, so that no dot lies on the edge */
    return chart->logarithmic ? scale_of(low / 1.1, high * 1.1, true) : scale_of(0, high, false);
}

void chart_write(FILE *out, const struct chart *chart)
{
    double step = chart->count <= FEW ? WIDE : NARROW;
    double width = LEFT + RIGHT + fmax(step * (double)chart->count, 220);
    struct scale scale = scale_for(chart);
    size_t every = chart->count <= FEW ? 1 : 5;
    figure_begin(out,
                 &(struct figure){chart->title, chart->description, width, TOP + PLOT + BOTTOM});
    put_axis(out, chart, &scale, width);
    for (size_t i = 0; i < chart->count; i++) {
        double x = LEFT + step * ((double)i + 0.5);
        put_column(out, &chart->column[i], &scale, x, chart->count <= FEW);
        if (i % every == 0) {
            fprintf(out, "<text class=\"middle\" x=\"%.1f\" y=\"%d\">", x, TOP + PLOT + 18);
            html_text(out, chart->column[i].name);
            fputs("</text>\n", out);
        }
    }
    figure_end(out);
}
