#include "base/folded_name.h"

#include <string.h>
#include <utf8proc.h>

#include "base/die.h"

/* Remove dots and spaces that end a component, unless it has nothing else. */
static void strip_ends(char *path)
{
    char *to = path;
    for (const char *from = path; *from;) {
        size_t length = strcspn(from, "/"), kept = length;
        while (kept > 1 && strchr(". ", from[kept - 1]))
            kept--;
        memmove(to, from, kept);
        to += kept;
        from += length;
        if (*from)
            *to++ = *from++;
    }
    *to = 0;
}

char *folded_name(const char *path)
{
    utf8proc_uint8_t *mapped = NULL;
    utf8proc_ssize_t length =
        utf8proc_map((const utf8proc_uint8_t *)path, 0, &mapped,
                     UTF8PROC_NULLTERM | UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT |
                         UTF8PROC_CASEFOLD | UTF8PROC_IGNORE);
    char *folded = length < 0 ? xstrdup(path) : (char *)mapped; /* its memory is free()'s */
    strip_ends(folded);
    return folded;
}
