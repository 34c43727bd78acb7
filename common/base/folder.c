#include "base/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/die.h"

/* The next name that matches, or NULL after the last. */
static const char *next(DIR *entries, const char *path, const char *pattern)
{
    struct dirent *entry;
    while (errno = 0, (entry = readdir(entries)))
        if (!fnmatch(pattern, entry->d_name, 0))
            return entry->d_name;
    if (errno)
        die_errno("%s", path);
    return NULL;
}

static DIR *open_entries(int fd, const char *path)
{
    int own = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = own < 0 ? NULL : fdopendir(own);
    if (!entries)
        die_errno("%s", path);
    return entries;
}

uint64_t folder_bytes(int fd, const char *path, const char *pattern)
{
    DIR *entries = open_entries(fd, path);
    struct stat status;
    uint64_t bytes = 0;
    for (const char *name; (name = next(entries, path, pattern));)
        if (!fstatat(fd, name, &status, AT_SYMLINK_NOFOLLOW))
            bytes += (uint64_t)status.st_blocks * S_BLKSIZE;
    closedir(entries);
    return bytes;
}

void folder_remove(int fd, const char *path, const char *pattern)
{
    DIR *entries = open_entries(fd, path);
    for (const char *name; (name = next(entries, path, pattern));)
        if (unlinkat(fd, name, 0) && errno != ENOENT)
            die_errno("%s/%s: is no longer needed; remove it yourself", path, name);
    closedir(entries);
}

void folder_sync(int fd, const char *path)
{
    if (fsync(fd) && errno != EINVAL) /* some filesystems cannot */
        die_errno("%s: syncing it to disk", path);
}
