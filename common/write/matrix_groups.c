#include "write/matrix_groups.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "tensor/weight.h"

/* A module's path and last component; every number in the path becomes '*'. */
static const char *split(const char *module, char *path)
{
    const char *last = strrchr(module, '.');
    size_t size = 0, length = last ? (size_t)(last - module) : 0;
    for (size_t i = 0; i < length; i++) {
        size_t digits = strspn(module + i, "0123456789");
        bool begins = i == 0 || module[i - 1] == '.', ends = module[i + digits] == '.';
        if (digits && begins && ends) {
            path[size++] = '*';
            i += digits - 1;
        } else {
            path[size++] = module[i];
        }
    }
    path[size] = 0;
    return last ? last + 1 : module;
}

enum { NAMES_MAX = 40 };

static void add_matrix(struct matrix_group *group, const char *name)
{
    group->matrices++;
    if (names_find(group->names, name, strlen(name)) >= 0)
        return;
    size_t number = names_add(group->names, name);
    if (number > NAMES_MAX)
        return;
    char *list = number == NAMES_MAX ? xprintf("%s, …", group->list)
                                     : xprintf("%s%s%s", group->list, number ? ", " : "", name);
    free(group->list);
    group->list = list;
}

size_t matrix_groups(const struct toc *toc, struct matrix_group group[MATRIX_GROUPS_MAX])
{
    struct names *keys = names_new();
    size_t count = 0;
    for (size_t i = 0; i < toc->count; i++) {
        const struct tensor *tensor = &toc->tensor[i];
        char module[TENSOR_NAME_MAX + 1], path[TENSOR_NAME_MAX + 1];
        enum format format = format_of(tensor);
        if (tensor->context || format == FORMAT_COUNT)
            continue;
        const char *last = split(weight_module(tensor, module), path);
        const char *name = format == FORMAT_PLAIN ? dtype_name(tensor->dtype) : format_name(format);
        char *key = xprintf("%s %s", name, path);
        int64_t found = names_find(keys, key, strlen(key));
        if (found < 0 && count < MATRIX_GROUPS_MAX) {
            found = (int64_t)names_add(keys, key);
            group[count++] = (struct matrix_group){
                .path = xstrdup(path), .format = name, .names = names_new(), .list = xstrdup("")};
        } else if (found < 0) {
            found = MATRIX_GROUPS_MAX - 1;
        }
        free(key);
        add_matrix(&group[found], last);
    }
    names_free(keys);
    return count;
}

void matrix_groups_free(struct matrix_group *group, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(group[i].path);
        free(group[i].list);
        names_free(group[i].names);
    }
}
