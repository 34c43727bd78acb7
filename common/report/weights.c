#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/names.h"
#include "quantize/weight_error.h"
#include "report/chart.h"
#include "report/html.h"
#include "report/layers.h"
#include "report/sections.h"

/* The errors of layers, in the order of the model. */
struct errors {
    struct weight_error *error;
    struct column *column;
    size_t count;
    double largest;
};

static void add_layer(const struct page *page, struct errors *errors, const struct place *place,
                      const char *path)
{
    struct weight_error error;
    char text[LAYER_TEXT];
    if (!weight_error_find(&error, page->report->counts, path))
        return;
    size_t i = errors->count++;
    errors->error = xgrow(errors->error, errors->count, sizeof *errors->error);
    errors->column = xgrow(errors->column, errors->count, sizeof *errors->column);
    errors->error[i] = error;
    errors->column[i] = (struct column){.value = 100 * error.relative};
    snprintf(errors->column[i].name, COLUMN_TEXT, "%s", layer_text(place, text));
    errors->largest = fmax(errors->largest, error.relative);
}

static void find_errors(const struct page *page, struct errors *errors)
{
    const struct model *model = ts_model(page->in);
    struct names *seen = names_new();
    for (size_t i = 0; i < page->toc->count; i++) {
        struct place place = model_place(model, page->toc->tensor[i].name);
        char path[TENSOR_NAME_MAX + 1];
        model_layer_path(model, &place, path);
        if (!*path || names_find(seen, path, strlen(path)) >= 0)
            continue;
        names_add(seen, path);
        add_layer(page, errors, &place, path);
    }
    names_free(seen);
}

static void put_errors(const struct page *page, const struct errors *errors)
{
    chart_write(page->out, &(struct chart){.title = "Error of weights by layer",
                                           .description = "A bar for each layer. The table below "
                                                          "has the numbers.",
                                           .unit = "relative error, %",
                                           .column = errors->column,
                                           .count = errors->count});
    table_begin(page, "error of weights by layer", "layer|>matrices|>relative error|>SQNR", true);
    for (size_t i = 0; i < errors->count; i++) {
        double relative = errors->error[i].relative;
        html_print(page->out,
                   relative > 0
                       ? "<tr><th scope=\"row\">%s</th><td class=\"number\">%zu</td><td "
                         "class=\"number\">%.3f %%</td><td class=\"number\">%.2f dB</td></tr>\n"
                       : "<tr><th scope=\"row\">%s</th><td class=\"number\">%zu</td><td "
                         "class=\"number\">none</td></tr>\n",
                   errors->column[i].name, (size_t)errors->error[i].matrices, 100 * relative,
                   -20 * log10(relative));
    }
    table_end(page, true);
}

void section_weights(const struct page *page)
{
    struct errors errors = {0};
    find_errors(page, &errors);
    if (errors.count)
        section_begin(
            page, "weights", "How far weights moved",
            "Root mean square of the quantization error, relative to that of the weights; "
            "the mean of a layer’s matrices, from every 64th row.");
    if (errors.count && errors.largest > 0)
        put_errors(page, &errors);
    else if (errors.count)
        fputs("<p>All weights that became NVFP4 kept their values.</p>\n", page->out);
    if (errors.count)
        section_end(page);
    free(errors.error);
    free(errors.column);
}
