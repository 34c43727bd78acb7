#include "report/heat_map.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "base/die.h"
#include "report/chart.h"
#include "report/html.h"
#include "report/layers.h"
#include "report/palette.h"
#include "report/png.h"
#include "report/scale.h"

enum { LEFT = 56, TOP = 34, RIGHT = 12, LEGEND = 40, LEGEND_WIDTH = 300, LEAST_WIDTH = 400 };

/* A map on the page. */
struct drawing {
    const struct maps *maps;
    const struct map *map;
    struct scale scale;
    double wide, high; /* of a cell */
};

char *heat_map_title(const struct map *map)
{
    static const char *const what[] = {[MAP_INPUT] = "Largest inputs of ",
                                       [MAP_WEIGHT] = "Largest weights of ",
                                       [MAP_TOKENS] = "Tokens that reached each expert"};
    return xprintf("%s%s", what[map->kind], map->matrices);
}

static struct scale scale_for(const struct maps *maps, const struct map *map)
{
    double low = INFINITY, high = 0;
    for (size_t i = 0; i < maps->rows * maps->experts; i++) {
        if (map->value[i] > 0)
            low = fmin(low, map->value[i]);
        high = fmax(high, map->value[i]);
    }
    return scale_of(isfinite(low) ? low : 0, high, true);
}

/* Cells are as large as there is room, so that few experts are easy to see and 384 fit a screen. */
static struct drawing drawing_of(const struct maps *maps, const struct map *map)
{
    struct drawing d = {.maps = maps, .map = map, .scale = scale_for(maps, map)};
    d.wide = maps->experts <= 32 ? 22 : maps->experts <= 64 ? 13 : maps->experts <= 160 ? 5 : 2;
    d.high = maps->rows <= 16 ? 22 : maps->rows <= 32 ? 14 : 8;
    return d;
}

static void put_picture(FILE *out, const struct drawing *d)
{
    size_t cells = d->maps->rows * d->maps->experts;
    uint8_t *pixel = xalloc(cells, 1);
    for (size_t i = 0; i < cells; i++)
        pixel[i] =
            (uint8_t)(d->maps->cold[i]       ? PALETTE_MARK
                      : d->map->value[i] > 0 ? palette_step(scale_part(&d->scale, d->map->value[i]))
                                             : PALETTE_NONE);
    fprintf(out,
            "<image class=\"map\" x=\"%d\" y=\"%d\" width=\"%.0f\" height=\"%.0f\" "
            "preserveAspectRatio=\"none\" href=\"",
            LEFT, TOP, d->wide * d->maps->experts, d->high * (double)d->maps->rows);
    png_write(out, pixel, d->maps->experts, (uint32_t)d->maps->rows);
    fputs("\"/>\n", out);
    free(pixel);
}

/* Not by colour alone. */
static void put_crosses(FILE *out, const struct drawing *d)
{
    if (d->wide < 12)
        return;
    for (size_t row = 0; row < d->maps->rows; row++)
        for (uint32_t expert = 0; expert < d->maps->experts; expert++) {
            double x = LEFT + d->wide * (expert + 0.5), y = TOP + d->high * ((double)row + 0.5);
            if (d->maps->cold[row * d->maps->experts + expert])
                fprintf(out, "<path class=\"cross\" d=\"M%.1f %.1fl6 6m0-6l-6 6\"/>\n", x - 3,
                        y - 3);
        }
}

static void put_labels(FILE *out, const struct drawing *d)
{
    static const uint32_t steps[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512};
    size_t every = d->maps->rows > 32 ? 10 : d->maps->rows > 16 ? 4 : 1;
    size_t step = 0;
    char text[LAYER_TEXT];
    while (d->wide * steps[step] < 22)
        step++;
    fprintf(out, "<text x=\"%d\" y=\"12\">expert</text><text x=\"0\" y=\"%d\">layer</text>\n", LEFT,
            TOP - 8);
    for (uint32_t expert = 0; expert < d->maps->experts; expert += steps[step])
        fprintf(out, "<text class=\"middle\" x=\"%.1f\" y=\"%d\">%" PRIu32 "</text>\n",
                LEFT + d->wide * (expert + 0.5), TOP - 8, expert);
    for (size_t row = 0; row < d->maps->rows; row++)
        if (row % every == 0 || d->maps->layer[row].section == SECTION_MTP)
            fprintf(out, "<text class=\"end\" x=\"%d\" y=\"%.1f\">%s</text>\n", LEFT - 6,
                    TOP + d->high * ((double)row + 0.5) + 4,
                    layer_text(&d->maps->layer[row], text));
}

static void put_legend(FILE *out, const struct drawing *d, const char *id, double y)
{
    double tick[SCALE_TICKS], last = 0;
    size_t ticks = scale_ticks(&d->scale, tick);
    char text[NUMBER_TEXT];
    fprintf(out, "<linearGradient id=\"%s-g\">", id);
    for (unsigned i = 0; i <= 8; i++) {
        uint8_t rgb[3];
        palette_colour(palette_step(i / 8.0), rgb);
        fprintf(out, "<stop offset=\"%.3f\" stop-color=\"#%02x%02x%02x\"/>", i / 8.0, rgb[0],
                rgb[1], rgb[2]);
    }
    fprintf(out,
            "</linearGradient>\n<rect x=\"%d\" y=\"%.0f\" width=\"%d\" height=\"12\" "
            "fill=\"url(#%s-g)\"/>\n",
            LEFT, y, LEGEND_WIDTH, id);
    for (size_t i = 0; i < ticks; i++) {
        double x = LEFT + LEGEND_WIDTH * scale_part(&d->scale, tick[i]);
        if (x - last < 34) /* no room for its label */
            continue;
        last = x;
        fprintf(out,
                "<path class=\"tick\" d=\"M%.1f %.0fv5\"/><text class=\"middle\" x=\"%.1f\" "
                "y=\"%.0f\">%s</text>\n",
                x, y + 12, x, y + 30, number_text(tick[i], text));
    }
}

void heat_map_write(FILE *out, const struct maps *maps, const struct map *map, const char *id)
{
    struct drawing d = drawing_of(maps, map);
    double width = fmax(LEFT + RIGHT + d.wide * maps->experts, LEAST_WIDTH);
    double legend = TOP + d.high * (double)maps->rows + 14;
    char *title = heat_map_title(map), low[NUMBER_TEXT], high[NUMBER_TEXT];
    char *description = xprintf("%zu layers from top to bottom, %" PRIu32 " experts from left to "
                                "right; values from %s to %s, logarithmic. %zu experts that no "
                                "token reached are magenta. The table below has the numbers.",
                                maps->rows, maps->experts, number_text(d.scale.low, low),
                                number_text(d.scale.high, high), maps->cold_count);
    figure_begin(out, &(struct figure){title, description, width, legend + LEGEND});
    put_picture(out, &d);
    put_crosses(out, &d);
    put_labels(out, &d);
    put_legend(out, &d, id, legend);
    figure_end(out);
    free(title);
    free(description);
}
