#include "quantize/effective.h"

#include <stdlib.h>
#include <string.h>

#include "base/die.h"
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
};

struct effective *effective_new(const struct model *model)
{
    struct effective *effective = xalloc(1, sizeof *effective);
    effective->model = model;
    return effective;
}

void effective_free(struct effective *effective)
{
    for (size_t i = 0; i < effective->count; i++)
        free(effective->product[i].own);
    free(effective->product);
    free(effective);
}

/* Matrices of a group are one product. */
static bool is_of(const struct product *product, const struct place *place)
{
    struct place like = *place;
    if (place->group && place->group == product->place.group)
        like.matrix = product->place.matrix;
    return place_are_peers(&like, &product->place);
}

static struct product *product_of(struct effective *effective, const struct place *place)
{
    for (size_t i = effective->count; i-- > 0;) /* most often the last ones */
        if (is_of(&effective->product[i], place))
            return &effective->product[i];
    effective->product =
        xgrow(effective->product, effective->count + 1, sizeof *effective->product);
    struct product *product = &effective->product[effective->count++];
    *product = (struct product){.place = *place};
    return product;
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

/* "w1+w3"; the caller frees it. */
static char *matrices_of(const struct model *model, const struct place *place)
{
    char *names = NULL;
    struct place member;
    for (unsigned i = 0; model_group_member(model, place, i, &member); i++) {
        const char *name = model_matrix_name(model, &member);
        char *longer = names ? xprintf("%s+%s", names, name) : xstrdup(name);
        free(names);
        names = longer;
    }
    return names ? names : xstrdup(model_matrix_name(model, place));
}

json_t *effective_scales(const struct effective *effective)
{
    json_t *all = json_array();
    qsort(effective->product, effective->count, sizeof *effective->product, by_place);
    for (size_t i = 0; i < effective->count; i++) {
        const struct product *product = &effective->product[i];
        char path[TENSOR_NAME_MAX + 1];
        char *matrices = matrices_of(effective->model, &product->place);
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
