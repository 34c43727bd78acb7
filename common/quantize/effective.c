#include "quantize/effective.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/names.h"
#include "tensor/nvfp4.h"

/* A product of all experts of a layer. */
struct product {
    struct place place; /* of one matrix of one of them */
    struct own {
        double amax;
        uint32_t expert;
    } * own;
    size_t count;
};

struct effective {
    const struct model *model;
    struct product *product;
    size_t count;
    struct names *keys; /* what tells products apart, in their order */
};

struct effective *effective_new(const struct model *model)
{
    struct effective *effective = xalloc(1, sizeof *effective);
    effective->model = model;
    effective->keys = names_new();
    return effective;
}

void effective_free(struct effective *effective)
{
    for (size_t i = 0; i < effective->count; i++)
        free(effective->product[i].own);
    names_free(effective->keys);
    free(effective->product);
    free(effective);
}

/* Matrices of a group are one product. */
static struct product *product_of(struct effective *effective, const struct place *place)
{
    char key[64];
    snprintf(key, sizeof key, "%u %" PRIu32 " %" PRIu32 " %c%" PRIu32, place->section, place->layer,
             place->part, place->group ? 'g' : 'm',
             place->group ? (uint32_t)place->group : place->matrix);
    size_t number = names_add(effective->keys, key);
    if (number == effective->count) {
        if (!(number & (number - 1))) /* it is full */
            effective->product =
                xgrow(effective->product, 2 * number + 1, sizeof *effective->product);
        effective->product[effective->count++] = (struct product){.place = *place};
    }
    return &effective->product[number];
}

void effective_add(struct effective *effective, const struct place *place, double amax)
{
    if (!place_is_routed(place))
        return;
    struct product *product = product_of(effective, place);
    if (!(product->count & (product->count - 1))) /* it is full */
        product->own = xgrow(product->own, 2 * product->count + 1, sizeof *product->own);
    product->own[product->count++] = (struct own){amax, place->expert};
}

/* The largest first, of equal ones the lowest expert. */
static int by_amax(const void *a, const void *b)
{
    const struct own *x = a, *y = b;
    if (x->amax != y->amax)
        return x->amax < y->amax ? 1 : -1;
    return (x->expert > y->expert) - (x->expert < y->expert);
}

static int by_place(const void *a, const void *b)
{
    return place_compare(&((const struct product *)a)->place, &((const struct product *)b)->place);
}

json_t *effective_scales(const struct effective *effective)
{
    json_t *all = json_array();
    if (effective->count)
        qsort(effective->product, effective->count, sizeof *effective->product, by_place);
    for (size_t i = 0; i < effective->count; i++) {
        const struct product *product = &effective->product[i];
        char path[TENSOR_NAME_MAX + 1];
        char *matrices = model_product_name(effective->model, &product->place);
        qsort(product->own, product->count, sizeof *product->own, by_amax);
        json_t *one =
            json_pack("{s:s, s:s, s:f, s:I, s:f}", "experts",
                      model_experts_path(effective->model, &product->place, path), "matrices",
                      matrices, "input_scale", (double)nvfp4_scale_2(product->own[0].amax),
                      "expert", (json_int_t)product->own[0].expert, "median",
                      (double)nvfp4_scale_2(product->own[product->count / 2].amax));
        free(matrices);
        if (!one)
            die("out of memory");
        json_array_append_new(all, one);
    }
    return all;
}
