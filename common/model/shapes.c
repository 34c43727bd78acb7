#include "model/shapes.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/number.h"
#include "model/family.h"
#include "tensor/weight.h"

enum { FACTORS = 4, KEY = 64 };

/* Config.json's keys whose product is a dimension: "head_dim*num_attention_heads". */
struct dimension {
    bool known;     /* config.json has them all */
    uint64_t value; /* 0: a value is not a number above 0, or the product is too large */
    char *values;   /* as they stand there: "128 * 4" */
};

static struct dimension dimension_of(const struct model *model, const char *keys)
{
    struct dimension d = {.known = keys != NULL, .value = 1, .values = xstrdup("")};
    while (keys && *keys) {
        char key[KEY];
        size_t length = strcspn(keys, "*");
        snprintf(key, sizeof key, "%.*s", (int)length, keys);
        keys += length + (keys[length] == '*');
        json_t *value = json_object_get(model->config, key);
        char *text = value ? json_dumps(value, JSON_ENCODE_ANY) : NULL;
        char *longer = xprintf("%s%s%.40s", d.values, *d.values ? " * " : "", text ? text : "");
        json_int_t number = json_integer_value(value);
        d.known &= value != NULL;
        if (number <= 0 || !mul_fits(d.value, (uint64_t)number, &d.value))
            d.value = 0;
        free(text);
        free(d.values);
        d.values = longer;
    }
    return d;
}

/* True if the pattern is the name; '#' in it is any number. */
static bool is_named(const char *name, const char *pattern)
{
    for (; *pattern; pattern++)
        if (*pattern == '#') {
            size_t digits = strspn(name, "0123456789");
            if (!digits)
                return false;
            name += digits;
        } else if (*name++ != *pattern) {
            return false;
        }
    return !*name;
}

/* The tensor's dimension is another one: what is to be said. NULL if it is not. */
static char *differs(const struct model *model, const struct tensor *tensor, const char *keys,
                     uint64_t is, const char *what)
{
    struct dimension d = dimension_of(model, keys);
    char *text = NULL;
    if (d.known && d.value != is) {
        char *names = xstrdup("");
        for (const char *at = keys; *at; at += *at == '*') {
            size_t length = strcspn(at, "*");
            char *longer = xprintf("%s%s%.*s", names, *names ? " * " : "", (int)length, at);
            free(names);
            names = longer;
            at += length;
        }
        text = xprintf("has %s of %" PRIu64 " %s, but config.json's %s is %s", tensor->name, is,
                       what, names, d.values);
        free(names);
    }
    free(d.values);
    return text;
}

static char *differs_from(const struct model *model, const struct tensor *tensor,
                          const struct shape_name *shape)
{
    enum format format = format_of(tensor);
    bool packed = format == FORMAT_MXFP4 || format == FORMAT_NVFP4; /* two columns a byte */
    bool matrix = tensor->rank > 1;
    /* Not config.json is wrong where a weight is none: others say that. */
    if (!tensor->rank || tensor->rank > 2 || (shape->cols && !matrix) ||
        (format == FORMAT_COUNT && matrix && tensor_has_suffix(tensor, ".weight")))
        return NULL;
    char *text = differs(model, tensor, shape->rows, tensor->dim[0], matrix ? "rows" : "elements");
    if (!text && matrix)
        text = differs(model, tensor, shape->cols, tensor->dim[1] * (packed ? 2 : 1), "columns");
    return text;
}

char *model_misshapen(const struct model *model, const struct toc *toc)
{
    const struct shape_name *shapes = model->family->shapes;
    char *text = NULL;
    for (size_t i = 0; shapes && i < toc->count && !text; i++)
        for (const struct shape_name *shape = shapes; shape->name && !text; shape++)
            if (is_named(toc->tensor[i].name, shape->name))
                text = differs_from(model, &toc->tensor[i], shape);
    return text;
}
