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

/* Pixels. */
enum { LEFT = 56, TOP = 34, RIGHT = 12, LEGEND = 40, LEGEND_WIDTH = 300, LEAST_WIDTH = 400 };

/* A map on the page. */
struct drawing {
    FILE *out;
    const struct maps *maps;
    const struct map *map;
    struct scale scale;
    double wide, high; /* of a cell */
};

/* Cold experts; but their weights are known. */
static bool is_marked(const struct drawing *d, size_t cell)
{
    return d->maps->cold[cell] && !(d->map->kind == MAP_WEIGHT && d->map->value[cell] > 0);
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

static void put_picture(const struct drawing *d)
{
    size_t cells = d->maps->rows * d->maps->experts;
    uint8_t *pixel = xalloc(cells, 1);
    for (size_t i = 0; i < cells; i++) {
        double value = d->map->value[i];
        pixel[i] = (uint8_t)(is_marked(d, i) ? PALETTE_MARK
                             : value > 0     ? palette_step(scale_part(&d->scale, value))
                                             : PALETTE_NONE);
    }
    html_print(d->out,
               "<image class=\"map\" x=\"%u\" y=\"%u\" width=\"%.0f\" height=\"%.0f\" "
               "preserveAspectRatio=\"none\" href=\"",
               LEFT, TOP, d->wide * d->maps->experts, d->high * (double)d->maps->rows);
    png_write(d->out, pixel, d->maps->experts, (uint32_t)d->maps->rows);
    fputs("\"/>\n", d->out);
    free(pixel);
}

/* Not by colour alone, where there is room. */
static void put_crosses(const struct drawing *d)
{
    for (size_t i = 0; d->wide > 12 && i < d->maps->rows * d->maps->experts; i++) {
        size_t row = i / d->maps->experts, expert = i % d->maps->experts;
        if (is_marked(d, i))
            html_print(d->out, "<path class=\"cross\" d=\"M%.1f %.1fl6 6m0-6l-6 6\"/>\n",
                       LEFT + d->wide * ((double)expert + 0.5) - 3,
                       TOP + d->high * ((double)row + 0.5) - 3);
    }
}

static void put_labels(const struct drawing *d)
{
    size_t every = d->maps->rows > 32 ? 10 : d->maps->rows > 16 ? 4 : 1;
    uint32_t step = 1;
    char text[LAYER_TEXT];
    while (d->wide * step < 22)
        step *= 2;
    html_print(d->out, "<text x=\"%u\" y=\"12\">expert</text><text x=\"0\" y=\"%u\">layer</text>\n",
               LEFT, TOP - 8);
    for (uint32_t expert = 0; expert < d->maps->experts; expert += step)
        html_print(d->out, "<text class=\"middle\" x=\"%.1f\" y=\"%u\">%u</text>\n",
                   LEFT + d->wide * (expert + 0.5), TOP - 8, expert);
    for (size_t row = 0; row < d->maps->rows; row++)
        if (row % every == 0 || d->maps->layer[row].section == SECTION_MTP)
            html_print(d->out, "<text class=\"end\" x=\"%u\" y=\"%.1f\">%s</text>\n", LEFT - 6,
                       TOP + d->high * ((double)row + 0.5) + 4,
                       layer_text(&d->maps->layer[row], text));
}

static void put_legend(const struct drawing *d, size_t number, double y)
{
    enum { STOPS = 8, LABEL = 34 };
    double tick[SCALE_TICKS], last = 0;
    size_t ticks = scale_ticks(&d->scale, tick);
    char text[NUMBER_TEXT];
    html_print(d->out, "<linearGradient id=\"scale%zu\">", number);
    for (unsigned i = 0; i <= STOPS; i++) {
        uint8_t rgb[3];
        palette_colour(palette_step((double)i / STOPS), rgb);
        html_print(d->out, "<stop offset=\"%.3f\" stop-color=\"#%02x%02x%02x\"/>",
                   (double)i / STOPS, rgb[0], rgb[1], rgb[2]);
    }
    html_print(d->out,
               "</linearGradient>\n<rect x=\"%u\" y=\"%.0f\" width=\"%u\" height=\"12\" "
               "fill=\"url(#scale%zu)\"/>\n",
               LEFT, y, LEGEND_WIDTH, number);
    for (size_t i = 0; i < ticks; i++) {
        double x = LEFT + LEGEND_WIDTH * scale_part(&d->scale, tick[i]);
        if (x - last < LABEL)
            continue;
        last = x;
        html_print(d->out,
                   "<path class=\"tick\" d=\"M%.1f %.0fv5\"/><text class=\"middle\" x=\"%.1f\" "
                   "y=\"%.0f\">%s</text>\n",
                   x, y + 12, x, y + 30, number_text(tick[i], text));
    }
}

/* Which cells are marked, as a sentence that the caller frees; empty if none is. */
static char *cold_text(const struct drawing *d)
{
    size_t count = 0;
    for (size_t i = 0; i < d->maps->rows * d->maps->experts; i++)
        count += is_marked(d, i);
    return count ? xprintf(" %zu experts that no token reached are magenta.", count) : xstrdup("");
}

/* Cells are as large as there is room, so that few experts are easy to see and 384 fit a screen. */
void heat_map_write(FILE *out, const struct maps *maps, size_t number)
{
    static const char *const what[] = {[MAP_INPUT] = "Largest inputs of ",
                                       [MAP_WEIGHT] = "Largest weights of ",
                                       [MAP_TOKENS] = "Tokens that reached each expert"};
    const struct map *map = &maps->map[number];
    struct drawing d = {.out = out, .maps = maps, .map = map, .scale = scale_for(maps, map)};
    d.wide = maps->experts <= 32 ? 21 : maps->experts <= 64 ? 13 : maps->experts <= 160 ? 5 : 2;
    d.high = maps->rows <= 16 ? 22 : maps->rows <= 32 ? 14 : 8;
    double legend = TOP + d.high * (double)maps->rows + 14;
    char *title = xprintf("%s%s", what[map->kind], map->matrices);
    char low[NUMBER_TEXT], high[NUMBER_TEXT];
    char *cold = cold_text(&d);
    char *description =
        xprintf("%zu layers from top to bottom, %" PRIu32 " experts from left to right; values "
                "from %s to %s, logarithmic.%s The table below has the numbers.",
                maps->rows, maps->experts, number_text(d.scale.low, low),
                number_text(d.scale.high, high), cold);
    figure_begin(out, &(struct figure){title, description,
                                       fmax(LEFT + RIGHT + d.wide * maps->experts, LEAST_WIDTH),
                                       legend + LEGEND});
    put_picture(&d);
    put_crosses(&d);
    put_labels(&d);
    put_legend(&d, number, legend);
    figure_end(out);
    free(title);
    free(cold);
    free(description);
}
