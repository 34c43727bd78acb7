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

enum { COLD_NAMED = 24 }; /* of a layer; of more, the number */

static void put_cold(const struct page *page, const struct maps *maps, size_t row)
{
    uint32_t named = 0, more = 0;
    fputs("<td>", page->out);
    for (uint32_t expert = 0; expert < maps->experts; expert++) {
        if (!maps->cold[row * maps->experts + expert])
            continue;
        if (named < COLD_NAMED)
            fprintf(page->out, "%s%" PRIu32, named++ ? ", " : "", expert);
        else
            more++;
    }
    if (more)
        fprintf(page->out, " and %" PRIu32 " more", more);
    fputs(named ? "</td>" : "none</td>", page->out);
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
    double *known = xalloc(maps->experts, sizeof *known), largest = 0;
    const double *value = map->value + row * maps->experts;
    uint32_t count = 0, best = 0;
    char text[NUMBER_TEXT];
    for (uint32_t expert = 0; expert < maps->experts; expert++) {
        if (isnan(value[expert]))
            continue;
        known[count++] = value[expert];
        if (value[expert] > largest) {
            largest = value[expert];
            best = expert;
        }
    }
    qsort(known, count, sizeof *known, by_value);
    if (count)
        fprintf(page->out, "<td class=\"number\">%s</td>", number_text(known[count / 2], text));
    else
        fputs("<td></td>", page->out);
    if (count)
        fprintf(page->out, "<td class=\"number\">%s (%" PRIu32 ")</td>", number_text(largest, text),
                best);
    else
        fputs("<td></td>", page->out);
    free(known);
}

static void put_map_table(const struct page *page, const struct maps *maps)
{
    char *columns = xstrdup("layer|never reached"), text[LAYER_TEXT];
    static const char details[] = "The maps as a table";
    for (size_t i = 0; i < maps->count; i++) {
        const struct map *map = &maps->map[i];
        static const char *const what[] = {"input", "weight", "tokens"};
        char *longer =
            xprintf("%s|>%s %s: median|>largest (expert)", columns, what[map->kind], map->matrices);
        free(columns);
        columns = longer;
    }
    table_begin(page, "Amaxes and tokens by layer", columns, details);
    for (size_t row = 0; row < maps->rows; row++) {
        fprintf(page->out, "<tr><th scope=\"row\">%s</th>", layer_text(&maps->layer[row], text));
        put_cold(page, maps, row);
        for (size_t i = 0; i < maps->count; i++)
            put_range(page, maps, &maps->map[i], row);
        fputs("</tr>\n", page->out);
    }
    table_end(page, details);
    free(columns);
}

static void put_maps(const struct page *page)
{
    const struct maps *maps = page->report->maps;
    if (!maps || !maps->count)
        return;
    fprintf(page->out,
            "<p>Each row is a layer, each column an expert. %zu of %zu experts were reached by no "
            "token; they are <span class=\"cold\">magenta</span>.</p>\n",
            maps->cold_count, maps->expert_count);
    fputs("<div class=\"figures\">\n", page->out);
    for (size_t i = 0; i < maps->count; i++) {
        char id[24];
        snprintf(id, sizeof id, "map%zu", i);
        heat_map_write(page->out, maps, &maps->map[i], id);
    }
    fputs("</div>\n", page->out);
    put_map_table(page, maps);
}

/* ---- what the model ran on ---- */

static void put_texts(const struct page *page, const struct calibration *c)
{
    size_t i;
    json_t *text;
    if (!c->tokens)
        return;
    fprintf(page->out, "<p>The model ran on %" PRId64 " samples, %" PRId64 " tokens", c->samples,
            c->tokens);
    json_array_foreach((json_t *)c->texts, i, text)
    {
        const char *file = json_string_value(json_object_get(text, "file"));
        fputs(i ? ", <code>" : ": <code>", page->out);
        html_text(page->out, file ? file : "");
        fprintf(page->out, "</code> (%" PRId64 ")",
                (int64_t)json_integer_value(json_object_get(text, "samples")));
    }
    fputs(".</p>\n", page->out);
}

void section_calibration(const struct page *page)
{
    struct calibration c;
    char *line[CALIBRATION_LINES];
    bool known = calibration_find(&c, page->report->counts);
    if (!known && !page->report->maps)
        return;
    section_begin(page, "calibration", "Calibration",
                  "How large the inputs of each expert get decides the scales under which they are "
                  "rounded to 4 bits (<code>input_scale</code>).");
    put_texts(page, &c);
    size_t count = calibration_lines(&c, line);
    fputs(count ? "<ul>\n" : "", page->out);
    for (size_t i = 0; i < count; i++) {
        fputs("<li>", page->out);
        html_text(page->out, line[i]);
        fputs("</li>\n", page->out);
        free(line[i]);
    }
    fputs(count ? "</ul>\n" : "", page->out);
    put_maps(page);
    section_end(page);
}

/* ---- input scales in engines ---- */

static double number_of(const json_t *object, const char *key)
{
    double number = json_number_value(json_object_get(object, key));
    return isfinite(number) ? number : 0;
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

/* The layer of "layers.3.ffn.experts", as a number; the caller frees it. */
static char *layer_of(const struct page *page, const json_t *scale)
{
    char text[LAYER_TEXT];
    char *name = xprintf("%s.0.tokens", text_of(scale, "experts"));
    struct place place = model_place(ts_model(page->in), name);
    free(name);
    return xstrdup(place.section == SECTION_UNKNOWN ? text_of(scale, "experts")
                                                    : layer_text(&place, text));
}

/* A figure of one product's scales. */
static void put_scales_of(const struct page *page, const json_t *scales, const char *matrices)
{
    size_t i, count = 0;
    json_t *scale;
    struct column *column = xalloc(json_array_size(scales), sizeof *column);
    char **mark = xalloc(json_array_size(scales), sizeof *mark);
    json_array_foreach((json_t *)scales, i, scale)
    {
        if (strcmp(text_of(scale, "matrices"), matrices) != 0)
            continue;
        mark[count] = xprintf("%.0f", number_of(scale, "expert"));
        column[count] = (struct column){.name = layer_of(page, scale),
                                        .value = number_of(scale, "input_scale"),
                                        .from = number_of(scale, "median"),
                                        .mark = mark[count]};
        count++;
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
    for (i = 0; i < count; i++) {
        free(column[i].name);
        free(mark[i]);
    }
    free(column);
    free(mark);
    free(title);
}

static void put_scale_table(const struct page *page, const json_t *scales)
{
    static const char details[] = "The scales as a table";
    size_t i;
    json_t *scale;
    table_begin(page, "Input scales in engines",
                "layer|product|>input scale|>set by expert|>median expert’s|>ratio", details);
    json_array_foreach((json_t *)scales, i, scale)
    {
        double own = number_of(scale, "input_scale"), median = number_of(scale, "median");
        char *layer = layer_of(page, scale);
        fputs("<tr><th scope=\"row\">", page->out);
        html_text(page->out, layer);
        fputs("</th><td><code>", page->out);
        html_text(page->out, text_of(scale, "matrices"));
        fprintf(page->out,
                "</code></td><td class=\"number\">%.3g</td><td class=\"number\">%.0f</td>"
                "<td class=\"number\">%.3g</td><td class=\"number\">%.2f</td></tr>\n",
                own, number_of(scale, "expert"), median, median > 0 ? own / median : 1);
        free(layer);
    }
    table_end(page, details);
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
                  "largest: the full dot, with the number of the expert that sets it. The "
                  "further it is above the median expert’s, the hollow dot, the coarser it is for "
                  "most of them.");
    fputs("<div class=\"figures\">\n", page->out);
    json_array_foreach((json_t *)c.scales, i, scale)
    {
        const char *matrices = text_of(scale, "matrices");
        bool again = false;
        for (size_t j = 0; j < products; j++)
            again |= !strcmp(drawn[j], matrices);
        if (again || products == PRODUCTS_MAX)
            continue;
        drawn[products++] = matrices;
        put_scales_of(page, c.scales, matrices);
    }
    fputs("</div>\n", page->out);
    put_scale_table(page, c.scales);
    section_end(page);
}
