#include "write/unquantized.h"

#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "tensor/weight.h"

struct list {
    char **name;
    size_t count, capacity;
};

static void add(struct list *list, const char *name)
{
    if (list->count == list->capacity) {
        list->capacity = list->capacity ? 2 * list->capacity : 256;
        list->name = xgrow(list->name, list->capacity, sizeof *list->name);
    }
    list->name[list->count++] = xstrdup(name);
}

static void free_list(struct list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->name[i]);
    free(list->name);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* True if a name of the sorted list begins with the first `length` characters of `text`, and then
 * has `next` (0: anything). */
static bool any_begins(const struct list *list, const char *text, size_t length, char next)
{
    char prefix[TENSOR_NAME_MAX + 2];
    memcpy(prefix, text, length);
    prefix[length] = next;
    prefix[length + (next != 0)] = 0;
    length += next != 0;
    size_t low = 0, high = list->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(list->name[middle], prefix) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < list->count && !strncmp(list->name[low], prefix, length);
}

/* Modules come in stream order: those with the same pattern follow each other. */
static bool added_last(const struct list *list, const char *name)
{
    return list->count && !strcmp(list->name[list->count - 1], name);
}

/* Add the shortest pattern that covers `module`, and nothing quantized; and for each pattern, the
 * first module that it covers. */
static void cover(struct list *patterns, struct list *modules, const struct list *quantized,
                  const char *module)
{
    char pattern[TENSOR_NAME_MAX + 3];
    for (const char *dot = strchr(module, '.'); dot; dot = strchr(dot + 1, '.')) {
        size_t length = (size_t)(dot - module);
        bool alone = !any_begins(quantized, module, length, 0);
        if (!alone && any_begins(quantized, module, length, '.'))
            continue;
        memcpy(pattern, module, length);
        strcpy(pattern + length, alone ? "*" : ".*");
        if (added_last(patterns, pattern))
            return;
        add(patterns, pattern);
        add(modules, module);
        return;
    }
    add(patterns, module);
    add(modules, module);
}

/* ---- in the order of dumps ---- */

struct sorted {
    char dumped[TENSOR_NAME_MAX + 1]; /* the first module of the pattern, as dumps call it */
    const char *pattern;
};

static int by_dumped(const void *a, const void *b)
{
    const struct sorted *x = a, *y = b;
    int difference = strcmp(x->dumped, y->dumped);
    return difference ? difference : strcmp(x->pattern, y->pattern);
}

static json_t *in_order(const struct model *model, const struct list *patterns,
                        const struct list *modules)
{
    struct sorted *sorted = xalloc(patterns->count, sizeof *sorted);
    json_t *array = json_array();
    for (size_t i = 0; i < patterns->count; i++) {
        sorted[i].pattern = patterns->name[i];
        model_to_dump(model, modules->name[i], sorted[i].dumped);
    }
    qsort(sorted, patterns->count, sizeof *sorted, by_dumped);
    for (size_t i = 0; i < patterns->count; i++)
        json_array_append_new(array, json_string(sorted[i].pattern));
    free(sorted);
    return array;
}

/* ---- the table ---- */

static void find_quantized(struct list *quantized, const struct toc *toc)
{
    for (size_t i = 0; i < toc->count; i++) {
        char module[TENSOR_NAME_MAX + 1];
        enum format format = format_of(&toc->tensor[i]);
        if (format != FORMAT_COUNT && format != FORMAT_PLAIN)
            add(quantized, weight_module(&toc->tensor[i], module));
    }
    if (quantized->count)
        qsort(quantized->name, quantized->count, sizeof *quantized->name, by_text);
}

/* The path of a place's layer, into `path`, which has room for a '*' more. True if it is one of MTP
 * in which nothing is quantized. */
static bool is_plain_draft(const struct list *quantized, const struct model *model,
                           const struct place *place, char *path)
{
    model_layer_path(model, place, path);
    return place->section == SECTION_MTP && !any_begins(quantized, path, strlen(path), '.');
}

static void find_drafts(struct list *drafts, const struct list *quantized,
                        const struct model *model, const struct toc *toc)
{
    for (size_t i = 0; i < toc->count; i++) {
        char path[TENSOR_NAME_MAX + 3];
        struct place place = model_place(model, toc->tensor[i].name);
        if (is_plain_draft(quantized, model, &place, path) &&
            !added_last(drafts, strcat(path, "*")))
            add(drafts, path);
    }
}

json_t *unquantized_modules(const struct model *model, const struct toc *toc)
{
    struct list quantized = {0}, patterns = {0}, modules = {0}, drafts = {0};
    find_quantized(&quantized, toc);
    for (size_t i = 0; i < toc->count; i++) {
        char module[TENSOR_NAME_MAX + 1], path[TENSOR_NAME_MAX + 3];
        struct place place = model_place(model, toc->tensor[i].name);
        bool covered = is_plain_draft(&quantized, model, &place, path);
        if (!covered && place.section != SECTION_EMBED &&
            format_of(&toc->tensor[i]) == FORMAT_PLAIN)
            cover(&patterns, &modules, &quantized, weight_module(&toc->tensor[i], module));
    }
    find_drafts(&drafts, &quantized, model, toc);
    json_t *array = in_order(model, &patterns, &modules);
    for (size_t i = 0; i < drafts.count; i++)
        json_array_append_new(array, json_string(drafts.name[i]));
    free_list(&quantized);
    free_list(&patterns);
    free_list(&modules);
    free_list(&drafts);
    return array;
}
