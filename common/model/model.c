#include "model/model.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/number.h"
#include "tensor/weight.h"

const struct model *model_of(const char *type)
{
    static const struct model *const families[] = {&model_deepseek_v4};
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (type && !strcmp(families[i]->type, type))
            return families[i];
    return &model_generic;
}

int natural_compare(const char *a, const char *b)
{
    while (*a && *b) {
        if (isdigit((unsigned char)*a) && isdigit((unsigned char)*b)) {
            const char *x = a + strspn(a, "0"), *y = b + strspn(b, "0");
            size_t m = strspn(x, "0123456789"), n = strspn(y, "0123456789");
            if (m != n)
                return m < n ? -1 : 1;
            int difference = strncmp(x, y, m);
            if (difference)
                return difference;
            a = x + m;
            b = y + n;
        } else if (*a != *b) {
            return (unsigned char)*a < (unsigned char)*b ? -1 : 1;
        } else {
            a++;
            b++;
        }
    }
    return *a ? 1 : *b ? -1 : 0;
}

bool name_number(const char **name, const char *prefix, uint32_t *number)
{
    size_t length = strlen(prefix);
    if (strncmp(*name, prefix, length) != 0)
        return false;
    const char *p = *name + length;
    uint64_t value;
    if (!number_parse(&p, 999999999, &value) || *p != '.')
        return false;
    *number = (uint32_t)value;
    *name = p + 1;
    return true;
}

/* A module's own tensors: scales directly before their weight. */
static unsigned suffix_rank(const char *suffix)
{
    unsigned rank = 0;
    while (rank < WEIGHT_SUFFIXES && strcmp(weight_suffix[rank], suffix) != 0)
        rank++;
    return rank;
}

/* A tensor with all that its comparison needs, computed once. */
struct key {
    struct model_order order;
    unsigned suffix;
    size_t module; /* length of the name before its last dot */
    const char *name;
    const char *shard;
    size_t line;
};

static struct key key_of(const struct model *model, const struct toc *toc,
                         const struct tensor *tensor, size_t line)
{
    const char *dot = strrchr(tensor->name, '.');
    return (struct key){.order = model->order(tensor->name),
                        .suffix = suffix_rank(dot ? dot : ""),
                        .module = dot ? (size_t)(dot - tensor->name) : strlen(tensor->name),
                        .name = tensor->name,
                        .shard = toc->shard[tensor->shard],
                        .line = line};
}

static int compare_numbers(const struct model_order *a, const struct model_order *b)
{
    const uint32_t x[] = {a->section, a->layer, a->part, a->expert, a->matrix};
    const uint32_t y[] = {b->section, b->layer, b->part, b->expert, b->matrix};
    for (size_t i = 0; i < sizeof x / sizeof *x; i++)
        if (x[i] != y[i])
            return x[i] < y[i] ? -1 : 1;
    return 0;
}

static int compare_modules(const struct key *a, const struct key *b)
{
    char x[TENSOR_NAME_MAX + 1], y[TENSOR_NAME_MAX + 1];
    if (a->module == b->module && !memcmp(a->name, b->name, a->module))
        return 0;
    memcpy(x, a->name, a->module);
    memcpy(y, b->name, b->module);
    x[a->module] = y[b->module] = 0;
    int difference = natural_compare(x, y);
    return difference ? difference : strcmp(x, y);
}

static int compare_keys(const void *left, const void *right)
{
    const struct key *a = left, *b = right;
    int difference = compare_numbers(&a->order, &b->order);
    if (!difference)
        difference = compare_modules(a, b);
    if (!difference && a->suffix != b->suffix)
        difference = a->suffix < b->suffix ? -1 : 1;
    if (!difference)
        difference = natural_compare(a->name, b->name);
    if (!difference)
        difference = strcmp(a->name, b->name);
    return difference ? difference : natural_compare(a->shard, b->shard);
}

int model_compare(const struct model *model, const struct toc *toc, const struct tensor *a,
                  const struct tensor *b)
{
    struct key x = key_of(model, toc, a, 0), y = key_of(model, toc, b, 0);
    return compare_keys(&x, &y);
}

void model_sort(const struct model *model, struct toc *toc, void *with, size_t size)
{
    struct key *key = xalloc(toc->count, sizeof *key);
    for (size_t i = 0; i < toc->count; i++)
        key[i] = key_of(model, toc, &toc->tensor[i], i);
    qsort(key, toc->count, sizeof *key, compare_keys);
    struct tensor *tensor = xalloc(toc->count, sizeof *tensor);
    char *moved = xalloc(toc->count, size ? size : 1);
    for (size_t i = 0; i < toc->count; i++) {
        tensor[i] = toc->tensor[key[i].line];
        if (with)
            memcpy(moved + i * size, (char *)with + key[i].line * size, size);
    }
    memcpy(toc->tensor, tensor, toc->count * sizeof *tensor);
    if (with)
        memcpy(with, moved, toc->count * size);
    free(key);
    free(tensor);
    free(moved);
    free(toc->index);
    toc->index = NULL;
}
