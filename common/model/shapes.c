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

/* A shape that names are compared with, again and again. */
struct wanted {
    const char *pattern;
    const char *tail; /* of the pattern, after its last number, which tells most names apart */
    size_t tail_length;
    const char *keys[2]; /* of the rows, or elements, and of the columns */
    struct dimension dim[2];
};

static struct wanted wanted_of(const struct model *model, const struct shape_name *shape)
{
    const char *number = strrchr(shape->name, '#');
    struct wanted wanted = {.pattern = shape->name,
                            .tail = number ? number + 1 : shape->name,
                            .keys = {shape->rows, shape->cols}};
    wanted.tail_length = strlen(wanted.tail);
    for (int i = 0; i < 2; i++)
        wanted.dim[i] = dimension_of(model, wanted.keys[i]);
    return wanted;
}

/* True if the pattern is the name, of `length` bytes; '#' in it is any number. */
static bool is_named(const char *name, size_t length, const struct wanted *wanted)
{
    const char *pattern = wanted->pattern;
    if (length < wanted->tail_length ||
        memcmp(name + length - wanted->tail_length, wanted->tail, wanted->tail_length) != 0)
        return false;
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
static char *differs(const struct tensor *tensor, const struct wanted *wanted, int i, uint64_t is,
                     const char *what)
{
    const struct dimension *d = &wanted->dim[i];
    if (!d->known || d->value == is)
        return NULL;
    char *names = xstrdup("");
    for (const char *at = wanted->keys[i]; *at; at += *at == '*') {
        size_t length = strcspn(at, "*");
        char *longer = xprintf("%s%s%.*s", names, *names ? " * " : "", (int)length, at);
        free(names);
        names = longer;
        at += length;
    }
    char *text = xprintf("has %s of %" PRIu64 " %s, but config.json's %s is %s", tensor->name, is,
                         what, names, d->values);
    free(names);
    return text;
}

static char *differs_from(const struct tensor *tensor, const struct wanted *wanted)
{
    enum format format = format_of(tensor);
    bool packed = format == FORMAT_MXFP4 || format == FORMAT_NVFP4; /* two columns a byte */
    bool matrix = tensor->rank > 1;
    /* Not config.json is wrong where a weight is none: others say that. */
    if (!tensor->rank || tensor->rank > 2 || (wanted->keys[1] && !matrix) ||
        (format == FORMAT_COUNT && matrix && tensor_has_suffix(tensor, ".weight")))
        return NULL;
    char *text = differs(tensor, wanted, 0, tensor->dim[0], matrix ? "rows" : "elements");
    if (!text && matrix)
        text = differs(tensor, wanted, 1, tensor->dim[1] * (packed ? 2 : 1), "columns");
    return text;
}

char *model_misshapen(const struct model *model, const struct toc *toc)
{
    const struct shape_name *shapes = model->family->shapes;
    size_t count = 0;
    while (shapes && shapes[count].name)
        count++;
    struct wanted *wanted = xalloc(count, sizeof *wanted);
    for (size_t k = 0; k < count; k++)
        wanted[k] = wanted_of(model, &shapes[k]);
    char *text = NULL;
    for (size_t i = 0; i < toc->count && count && !text; i++) {
        const struct tensor *tensor = &toc->tensor[i];
        size_t length = strlen(tensor->name);
        for (size_t k = 0; k < count && !text; k++)
            if (is_named(tensor->name, length, &wanted[k]))
                text = differs_from(tensor, &wanted[k]);
    }
    for (size_t k = 0; k < count; k++)
        for (int i = 0; i < 2; i++)
            free(wanted[k].dim[i].values);
    free(wanted);
    return text;
}
