#include "base/names.h"

#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"

struct name {
    const char *text;
    size_t length;
    size_t number;
};

/* A balanced tree of struct name. */
struct names {
    void *root;
    size_t count;
};

struct names *names_new(void)
{
    return xalloc(1, sizeof(struct names));
}

static void free_name(void *name)
{
    free((char *)((struct name *)name)->text);
    free(name);
}

void names_free(struct names *names)
{
    if (names)
        tdestroy(names->root, free_name);
    free(names);
}

static int compare(const void *left, const void *right)
{
    const struct name *a = left, *b = right;
    int difference = memcmp(a->text, b->text, a->length < b->length ? a->length : b->length);
    return difference ? difference : (a->length > b->length) - (a->length < b->length);
}

int64_t names_find(const struct names *names, const char *text, size_t length)
{
    const struct name wanted = {.text = text, .length = length};
    struct name *const *found = names ? tfind(&wanted, &names->root, compare) : NULL;
    return found ? (int64_t)(*found)->number : -1;
}

size_t names_add(struct names *names, const char *text)
{
    int64_t number = names_find(names, text, strlen(text));
    if (number >= 0)
        return (size_t)number;
    struct name *name = xalloc(1, sizeof *name);
    *name = (struct name){xstrdup(text), strlen(text), names->count};
    if (!tsearch(name, &names->root, compare))
        die("out of memory");
    return names->count++;
}
