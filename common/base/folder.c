#include "base/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/die.h"
#include "base/owner.h"

int folder_file(int fd, const char *path, const char *name)
{
    struct stat status;
    int file = openat(fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (file < 0 && errno == ENOENT)
        return -1;
    if (file < 0 && errno != ELOOP)
        die_errno("%s/%s", path, name);
    if (file < 0 || fstat(file, &status) || !S_ISREG(status.st_mode))
        die("%s/%s: is not a regular file; remove it, or choose another folder", path, name);
    if (!owner_is_self(file, fd))
        die("%s/%s: belongs to another user; remove it, or choose another folder", path, name);
    return file;
}

void folder_refuse_moved(int fd, const char *path)
{
    struct stat own, there;
    if (fstat(fd, &own))
        die_errno("%s", path);
    if (stat(path, &there) || own.st_dev != there.st_dev || own.st_ino != there.st_ino)
        die("%s: was moved or removed meanwhile; give the folder that it is now", path);
}

bool folder_matches(const char *name, const char *pattern)
{
    return !fnmatch(pattern, name, FNM_EXTMATCH);
}

/* The next name that matches, or NULL after the last. */
static const char *next(DIR *entries, const char *path, const char *pattern)
{
    struct dirent *entry;
    while (errno = 0, (entry = readdir(entries)))
        if (folder_matches(entry->d_name, pattern))
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
