#include "write/foreign.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/die.h"
#include "base/text.h"

static bool is_kept_open(const char *name)
{
    return starts_with(name, ".nfs") || starts_with(name, ".fuse_hidden");
}

/* The same below the folder `name` of `path`, in names that begin with `name`: "" or "FOLDER/". */
static char *search(const char *path, const char *name, const struct names *names,
                    bool (*is_known)(const char *name))
{
    char *folder = xprintf("%s/%s", path, name), *found = NULL;
    DIR *entries = opendir(folder);
    if (!entries)
        die_errno("%s", folder);
    for (struct dirent *entry; errno = 0, !found && (entry = readdir(entries));) {
        const char *own = entry->d_name;
        struct stat status;
        if (!strcmp(own, ".") || !strcmp(own, "..") || is_kept_open(own) ||
            (is_known && is_known(own)))
            continue;
        if (fstatat(dirfd(entries), own, &status, AT_SYMLINK_NOFOLLOW))
            die_errno("%s%s", folder, own);
        char *inner = xprintf("%s%s%s", name, own, S_ISDIR(status.st_mode) ? "/" : "");
        if (S_ISDIR(status.st_mode))
            found = search(path, inner, names, NULL);
        else if (names_find(names, inner, strlen(inner)) < 0)
            found = xstrdup(inner);
        free(inner);
    }
    if (errno)
        die_errno("%s", folder);
    closedir(entries);
    free(folder);
    return found;
}

char *foreign_file(const char *path, const struct names *names, bool (*is_known)(const char *name))
{
    return search(path, "", names, is_known);
}
