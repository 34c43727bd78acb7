#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/names.h"
#include "model/model.h"
#include "quantize/weight_error.h"
#include "report/chart.h"
#include "report/html.h"
#include "report/layers.h"
#include "report/sections.h"

/* The error of a layer's weights. */
struct layer_error {
    char *name;
    struct weight_error error;
};

/* The layers that have one, in the order of the model; the caller frees the names and the list. */
static struct layer_error *find_errors(const struct page *page, size_t *count)
{
    const struct model *model = ts_model(page->in);
    struct names *seen = names_new();
    struct layer_error *layer = NULL;
    *count = 0;
    for (size_t i = 0; i < page->toc->count; i++) {
        struct place place = model_place(model, page->toc->tensor[i].name);
        char path[TENSOR_NAME_MAX + 1], text[LAYER_TEXT];
        struct weight_error error;
        model_layer_path(model, &place, path);
        if (!*path || names_find(seen, path, strlen(path)) >= 0)
            continue;
        names_add(seen, path);
        if (!weight_error_find(&error, page->report->counts, path))
            continue;
        layer = xgrow(layer, *count + 1, sizeof *layer);
        layer[(*count)++] =
            (struct layer_error){.name = xstrdup(layer_text(&place, text)), .error = error};
    }
    names_free(seen);
    return layer;
}

static void put_table(const struct page *page, const struct layer_error *layer, size_t count)
{
    static const char details[] = "The errors as a table";
    table_begin(page, "Error of weights by layer", "layer|>matrices|>relative error|>SQNR, dB",
                details);
    for (size_t i = 0; i < count; i++) {
        double relative = layer[i].error.relative;
        fprintf(page->out,
                "<tr><th scope=\"row\">%s</th><td class=\"number\">%" PRIu64
                "</td><td class=\"number\">%.3f %%</td>",
                layer[i].name, layer[i].error.matrices, 100 * relative);
        if (relative > 0)
            fprintf(page->out, "<td class=\"number\">%.2f</td></tr>\n", -20 * log10(relative));
        else
            fputs("<td class=\"number\">no error</td></tr>\n", page->out);
    }
    table_end(page, details);
}

static void put_chart(const struct page *page, const struct layer_error *layer, size_t count)
{
    struct column *column = xalloc(count, sizeof *column);
    for (size_t i = 0; i < count; i++)
        column[i] = (struct column){.name = layer[i].name, .value = 100 * layer[i].error.relative};
    chart_write(page->out, &(struct chart){.title = "Error of weights by layer",
                                           .description = "A bar for each layer. The table below "
                                                          "has the numbers.",
                                           .unit = "relative error, %",
                                           .column = column,
                                           .count = count});
    free(column);
}

void section_weights(const struct page *page)
{
    size_t count;
    struct layer_error *layer = find_errors(page, &count);
    double largest = 0;
    for (size_t i = 0; i < count; i++)
        largest = fmax(largest, layer[i].error.relative);
    if (count) {
        section_begin(page, "weights", "How far weights moved",
                      "Root mean square of what quantization changed, beside that of the weights, "
                      "the mean of a layer’s matrices; by every 64th row.");
        if (largest > 0)
            put_chart(page, layer, count);
        else
            fputs("<p>All weights that became NVFP4 kept their values.</p>\n", page->out);
        if (largest > 0)
            put_table(page, layer, count);
        section_end(page);
    }
    for (size_t i = 0; i < count; i++)
        free(layer[i].name);
    free(layer);
}
