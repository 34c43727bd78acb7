#include "write/input_scales.h"

#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/text.h"

/* Up to LAYERS_FEW layers are all printed; of more, the LAYERS_SHOWN most uneven ones. */
enum { LAYERS_FEW = 8, LAYERS_SHOWN = 5 };

/* Consecutive entries of one layer's experts. */
struct layer_scales {
    size_t first, count;
    double ratio; /* the largest to the median's */
};

static const char *text_of(const json_t *scales, size_t i, const char *key)
{
    const char *text = json_string_value(json_object_get(json_array_get(scales, i), key));
    return text ? text : "";
}

static double number_of(const json_t *scales, size_t i, const char *key)
{
    return json_number_value(json_object_get(json_array_get(scales, i), key));
}

static double ratio_of(const json_t *scales, size_t i)
{
    double median = number_of(scales, i, "median");
    return median > 0 ? number_of(scales, i, "input_scale") / median : 1;
}

/* The caller frees the list. */
static struct layer_scales *group_layers(const json_t *scales, size_t *layers)
{
    size_t count = json_array_size(scales);
    struct layer_scales *list = xalloc(count, sizeof *list);
    *layers = 0;
    for (size_t i = 0; i < count; i++) {
        const char *experts = text_of(scales, i, "experts");
        if (!i || strcmp(experts, text_of(scales, i - 1, "experts")) != 0)
            list[(*layers)++].first = i;
        struct layer_scales *layer = &list[*layers - 1];
        layer->count++;
        if (ratio_of(scales, i) > layer->ratio)
            layer->ratio = ratio_of(scales, i);
    }
    return list;
}

static int by_ratio(const void *a, const void *b)
{
    const struct layer_scales *x = a, *y = b;
    if (x->ratio != y->ratio)
        return x->ratio < y->ratio ? 1 : -1;
    return (x->first > y->first) - (x->first < y->first);
}

static int by_first(const void *a, const void *b)
{
    const struct layer_scales *x = a, *y = b;
    return (x->first > y->first) - (x->first < y->first);
}

/* A row for each of its matrices that have scales of their own. */
static void print_layer(FILE *out, const json_t *scales, const struct layer_scales *layer)
{
    for (size_t i = layer->first; i < layer->first + layer->count; i++)
        text_print(out, "  %-28s %-17s %-9.3g expert %-3.0f %.2f x\n",
                   i == layer->first ? text_of(scales, i, "experts") : "",
                   text_of(scales, i, "matrices"), number_of(scales, i, "input_scale"),
                   number_of(scales, i, "expert"), ratio_of(scales, i));
}

void input_scales_print(FILE *out, const json_t *scales, bool all)
{
    size_t layers;
    struct layer_scales *list = group_layers(scales, &layers);
    size_t shown = all || layers <= LAYERS_FEW ? layers : LAYERS_SHOWN;
    if (shown)
        text_print(out, "input scales in engines: a layer's largest, its expert, its ratio to the "
                        "median\n");
    if (shown < layers) {
        qsort(list, layers, sizeof *list, by_ratio);
        qsort(list, shown, sizeof *list, by_first);
    }
    for (size_t i = 0; i < shown; i++)
        print_layer(out, scales, &list[i]);
    if (shown < layers)
        text_print(out, "  and %zu layers whose experts are nearer to each other; -v shows all\n",
                   layers - shown);
    free(list);
}
