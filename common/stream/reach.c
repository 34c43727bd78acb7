#include "stream/reach.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/die.h"
#include "base/text.h"

/* True for a path below the folder of `length` bytes, without its last '/'. */
static bool is_below(const char *path, const char *folder, size_t length)
{
    while (length && folder[length - 1] == '/')
        length--;
    return !strncmp(path, folder, length) && path[length] == '/';
}

static bool is_allowed(const char *path)
{
    const char *list = getenv("SEEKPIPE_ALLOW");
    for (size_t length; list && *list; list += length + (list[length] == ':')) {
        length = strcspn(list, ":");
        if (*list == '/' && is_below(path, list, length))
            return true;
    }
    return false;
}

/* FOLDER is HUB/snapshots/REVISION, and the path below HUB/blobs. */
static bool is_blob(const char *path, const char *folder)
{
    static const char snapshots[] = "/snapshots";
    const char *revision = strrchr(folder, '/');
    size_t length = revision ? (size_t)(revision - folder) : 0, tail = sizeof snapshots - 1;
    if (length <= tail || strncmp(revision - tail, snapshots, tail) != 0)
        return false;
    char *blobs = xprintf("%.*s/blobs", (int)(length - tail), folder);
    bool is = is_below(path, blobs, strlen(blobs));
    free(blobs);
    return is;
}

static bool is_public(const char *path)
{
    struct stat status;
    char *part = xstrdup(path);
    bool may = !stat(part, &status) && status.st_mode & S_IROTH;
    for (char *slash; may && (slash = strrchr(part, '/')) && slash != part;) {
        *slash = 0;
        may = !stat(part, &status) && status.st_mode & S_IXOTH;
    }
    free(part);
    return may;
}

static bool is_of(const char *path, const char *folder, bool claimed)
{
    return (!claimed && is_below(path, folder, strlen(folder))) || is_blob(path, folder);
}

void reach_check(const char *path, const char *real, const char *folder, bool claimed)
{
    if (!ends_with(real, ".safetensors") && !(folder && is_of(real, folder, claimed)) &&
        !is_allowed(real) && !is_public(real))
        die("%s: leads to %s, which is private, no .safetensors file, and outside of the "
            "checkpoint's folder; if it belongs to it, give its folder's absolute path in "
            "$SEEKPIPE_ALLOW",
            path, real);
}

void reach_check_open(const char *path, int fd, const char *folder, bool claimed)
{
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    char *real = realpath(link, NULL);
    if (!real && access("/proc/self/fd", F_OK)) /* no /proc */
        real = realpath(path, NULL);
    if (!real)
        die_errno("%s", path);
    reach_check(path, real, folder, claimed);
    free(real);
}
