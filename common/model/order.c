/* Stream order. */
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/number.h"
#include "model/model.h"
#include "tensor/weight.h"

/* Order of a module's tensors: scales directly before their weight. */
static unsigned suffix_rank(const char *suffix)
{
    unsigned rank = 0;
    while (rank < WEIGHT_SUFFIXES && strcmp(weight_suffix[rank], suffix) != 0)
        rank++;
    return rank;
}

/* A tensor and everything its comparison needs, computed once. */
struct key {
    struct place place;
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
    return (struct key){.place = model_place(model, tensor->name),
                        .suffix = suffix_rank(dot ? dot : ""),
                        .module = dot ? (size_t)(dot - tensor->name) : strlen(tensor->name),
                        .name = tensor->name,
                        .shard = toc->shard[tensor->shard],
                        .line = line};
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
    int difference = place_compare(&a->place, &b->place);
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

static int compare_shards(const void *left, const void *right)
{
    const struct key *a = left, *b = right;
    int difference = natural_compare(a->shard, b->shard);
    return difference ? difference : compare_keys(a, b);
}

static bool same_module(const struct key *a, const struct key *b)
{
    return !place_compare(&a->place, &b->place) && !compare_modules(a, b);
}

/* Where names come twice, as in model-parallel ranks, each shard's tensors of a module stay
 * together: a weight's scales are those of its shard. */
static void separate_shards(struct key *key, size_t count)
{
    for (size_t i = 0, end; i < count; i = end) {
        bool twice = false;
        for (end = i + 1; end < count && same_module(&key[i], &key[end]); end++)
            twice |= !strcmp(key[end].name, key[end - 1].name);
        if (twice)
            qsort(key + i, end - i, sizeof *key, compare_shards);
    }
}

/* Let element i of an array become the one that was at line[i]. */
static void move(void *array, size_t size, const size_t *line, size_t count)
{
    char *moved = xalloc(count, size);
    for (size_t i = 0; i < count; i++)
        memcpy(moved + i * size, (char *)array + line[i] * size, size);
    if (count) /* otherwise there may be no array */
        memcpy(array, moved, count * size);
    free(moved);
}

void model_sort(const struct model *model, struct toc *toc, void *with, size_t size)
{
    struct key *key = xalloc(toc->count, sizeof *key);
    for (size_t i = 0; i < toc->count; i++)
        key[i] = key_of(model, toc, &toc->tensor[i], i);
    qsort(key, toc->count, sizeof *key, compare_keys);
    separate_shards(key, toc->count);
    size_t *line = xalloc(toc->count, sizeof *line);
    for (size_t i = 0; i < toc->count; i++)
        line[i] = key[i].line;
    free(key);
    move(toc->tensor, sizeof *toc->tensor, line, toc->count);
    if (with)
        move(with, size, line, toc->count);
    free(line);
    free(toc->index);
    toc->index = NULL;
}
