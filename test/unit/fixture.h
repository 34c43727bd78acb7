/* fixture.h: where a small checkpoint and its golden results lie. */
#ifndef FIXTURE_H
#define FIXTURE_H

#include <unistd.h>

#include "base/die.h"

/* The folder of a fixture ("v4-nano"): test/data/NAME, or, for one that is too large to come with
 * the sources, ../shared/fixtures/NAME. NULL if there is none. The caller frees it. */
static inline char *fixture_folder(const char *name)
{
    static const char *const places[] = {"test/data", "../shared/fixtures"};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        char *folder = xprintf("%s/%s", places[i], name);
        if (!access(folder, R_OK))
            return folder;
        free(folder);
    }
    return NULL;
}

/* The path of a file in it, which must be there. The caller frees it. */
static inline char *fixture_path(const char *name, const char *file)
{
    char *folder = fixture_folder(name);
    if (!folder)
        die("fixture %s is not here", name);
    char *path = xprintf("%s/%s", folder, file);
    free(folder);
    return path;
}

#endif
