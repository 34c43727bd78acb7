#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "report/chart.h"
#include "report/heat_map.h"
#include "report/html.h"
#include "report/layers.h"
#include "report/scale.h"
#include "report/sections.h"
#include "write/calibration.h"

/* ---- maps ---- */

static void put_cold(const struct page *page, const struct maps *maps, size_t row)
{
    enum { NAMED = 24 }; /* of a layer; of more, the number */
    unsigned cold = 0;
    fputs("<td>", page->out);
    for (uint32_t expert = 0; expert < maps->experts; expert++)
        if (maps->cold[row * maps->experts + expert] && cold++ < NAMED)
            html_print(page->out, "%s%u", cold > 1 ? ", " : "", expert);
    if (cold > NAMED)
        html_print(page->out, " and %u more", cold - NAMED);
    fputs(cold ? "</td>" : "none</td>", page->out);
}

static int by_value(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* The median of a row, and the largest with its expert. */
static void put_range(const struct page *page, const struct maps *maps, const struct map *map,
                      size_t row)
{
    double *known = xalloc(maps->experts, sizeof *known);
    const double *value = map->value + row * maps->experts;
    uint32_t count = 0, best = 0;
    char median[NUMBER_TEXT], largest[NUMBER_TEXT];
    for (uint32_t expert = 0; expert < maps->experts; expert++) {
        if (isnan(value[expert]))
            continue;
        known[count++] = value[expert];
        if (isnan(value[best]) || value[expert] > value[best])
            best = expert;
    }
    qsort(known, count, sizeof *known, by_value);
    if (count)
        html_print(page->out, "<td class=\"number\">%s</td><td class=\"number\">%s (%u)</td>",
                   number_text(known[count / 2], median), number_text(value[best], largest), best);
    else
        fputs("<td></td><td></td>", page->out);
    free(known);
}

static void put_map_table(const struct page *page, const struct maps *maps)
{
    static const char *const what[] = {"input", "weight", "tokens"};
    char *columns = xstrdup("layer|never reached"), text[LAYER_TEXT];
    for (size_t i = 0; i < maps->count; i++) {
        char *longer = xprintf("%s|>%s %s: median|>largest (expert)", columns,
                               what[maps->map[i].kind], maps->map[i].matrices);
        free(columns);
        columns = longer;
    }
    table_begin(page, "amaxes and tokens by layer", columns, true);
    for (size_t row = 0; row < maps->rows; row++) {
        html_print(page->out, "<tr><th scope=\"row\">%s</th>", layer_text(&maps->layer[row], text));
        put_cold(page, maps, row);
        for (size_t i = 0; i < maps->count; i++)
            put_range(page, maps, &maps->map[i], row);
        fputs("</tr>\n", page->out);
    }
    table_end(page, true);
    free(columns);
}

static void put_maps(const struct page *page)
{
    const struct maps *maps = page->report->maps;
    if (!maps || !maps->count)
        return;
    html_print(page->out,
               "<p>Each row is a layer, each column an expert. No token reached %zu of %zu "
               "experts; they are <span class=\"cold\">magenta</span>, except where the map shows "
               "weights.</p>\n<div class=\"figures\">\n",
               maps->cold_count, maps->expert_count);
    for (size_t i = 0; i < maps->count; i++)
        heat_map_write(page->out, maps, i);
    fputs("</div>\n", page->out);
    put_map_table(page, maps);
}

void section_calibration(const struct page *page)
{
    struct calibration c;
    char *line[CALIBRATION_LINES];
    size_t i;
    json_t *text;
    if (!calibration_find(&c, page->report->counts) && !page->report->maps)
        return;
    section_begin(page, "calibration", "Calibration",
                  "How large the inputs of each expert get decides the scales under which they are "
                  "rounded to 4 bits (input_scale).");
    if (c.tokens)
        html_print(page->out, "<p>The model ran on %zu samples, %zu tokens", (size_t)c.samples,
                   (size_t)c.tokens);
    json_array_foreach((json_t *)c.texts, i, text)
        html_print(page->out, "%s<code>%s</code> (%.0f)", i ? ", " : ": ",
                   member_text(text, "file"), member_number(text, "samples"));
    fputs(c.tokens ? ".</p>\n<ul>\n" : "<ul>\n", page->out);
    size_t count = calibration_lines(&c, line);
    for (i = 0; i < count; i++) {
        html_print(page->out, "<li>%s</li>\n", line[i]);
        free(line[i]);
    }
    fputs("</ul>\n", page->out);
    put_maps(page);
    section_end(page);
}

/* ---- input scales in engines ---- */

/* The layer of "layers.3.ffn.experts", as a number. */
static const char *layer_of(const struct page *page, const json_t *scale, char text[LAYER_TEXT])
{
    char *name = xprintf("%s.0.tokens", member_text(scale, "experts"));
    struct place place = model_place(ts_model(page->in), name);
    free(name);
    return place.section == SECTION_UNKNOWN ? member_text(scale, "experts")
                                            : layer_text(&place, text);
}

/* A figure of one product's scales. */
static void put_scales_of(const struct page *page, const json_t *scales, const char *matrices)
{
    size_t i, count = 0;
    json_t *scale;
    char text[LAYER_TEXT];
    struct column *column = xalloc(json_array_size(scales), sizeof *column);
    json_array_foreach((json_t *)scales, i, scale)
    {
        if (strcmp(member_text(scale, "matrices"), matrices) != 0)
            continue;
        struct column *own = &column[count++];
        own->value = member_number(scale, "input_scale");
        own->from = member_number(scale, "median");
        snprintf(own->name, COLUMN_TEXT, "%s", layer_of(page, scale, text));
        snprintf(own->mark, COLUMN_TEXT, "%.0f", member_number(scale, "expert"));
    }
    char *title = xprintf("Input scale of %s in each layer", matrices);
    chart_write(page->out,
                &(struct chart){.title = title,
                                .description = "For each layer, a hollow dot is the scale of the "
                                               "median expert, a full one that of the expert with "
                                               "the largest, whose number is above it. The table "
                                               "below has the numbers.",
                                .unit = "input scale (logarithmic)",
                                .logarithmic = true,
                                .column = column,
                                .count = count});
    free(column);
    free(title);
}

static void put_scale_table(const struct page *page, const json_t *scales)
{
    size_t i;
    json_t *scale;
    char text[LAYER_TEXT];
    table_begin(page, "input scales in engines",
                "layer|product|>input scale|>set by expert|>median expert’s|>ratio", true);
    json_array_foreach((json_t *)scales, i, scale)
    {
        double own = member_number(scale, "input_scale"), median = member_number(scale, "median");
        html_print(page->out,
                   "<tr><th scope=\"row\">%s</th><td><code>%s</code></td><td "
                   "class=\"number\">%.3g</td><td class=\"number\">%.0f</td><td "
                   "class=\"number\">%.3g</td><td class=\"number\">%.2f</td></tr>\n",
                   layer_of(page, scale, text), member_text(scale, "matrices"), own,
                   member_number(scale, "expert"), median, median > 0 ? own / median : 1);
    }
    table_end(page, true);
}

void section_scales(const struct page *page)
{
    enum { PRODUCTS_MAX = 4 };
    struct calibration c;
    const char *drawn[PRODUCTS_MAX];
    size_t i, products = 0;
    json_t *scale;
    if (!calibration_find(&c, page->report->counts) || !json_array_size(c.scales))
        return;
    section_begin(page, "scales", "Which expert sets each layer’s scale",
                  "Engines quantize the inputs of all experts of a layer under one scale, the "
                  "largest: the full dot, with the number of the expert that sets it. The further "
                  "it is above the median expert’s, the hollow dot, the coarser it is for most of "
                  "them.");
    fputs("<div class=\"figures\">\n", page->out);
    json_array_foreach((json_t *)c.scales, i, scale)
    {
        const char *matrices = member_text(scale, "matrices");
        bool again = products == PRODUCTS_MAX;
        for (size_t j = 0; j < products; j++)
            again |= !strcmp(drawn[j], matrices);
        if (again)
            continue;
        drawn[products++] = matrices;
        put_scales_of(page, c.scales, matrices);
    }
    fputs("</div>\n", page->out);
    put_scale_table(page, c.scales);
    section_end(page);
}
