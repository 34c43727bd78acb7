#include "write/remove_tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool remove_entry(int folder, const char *name, dev_t device);

/* As remove_content(), of a folder on the filesystem `device`. Closes it. */
static bool remove_all(int folder, const char *keep, dev_t device)
{
    DIR *entries = fdopendir(folder);
    if (!entries) {
        close(folder);
        return false;
    }
    bool removed = true;
    struct dirent *entry;
    while (removed && (errno = 0, (entry = readdir(entries)))) {
        const char *name = entry->d_name;
        if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && (!keep || strcmp(name, keep) != 0))
            removed = remove_entry(dirfd(entries), name, device);
    }
    int error = errno;
    closedir(entries);
    errno = error;
    return removed && !error;
}

/* True if something is mounted on the open folder: another filesystem than `device`, or another
 * folder of it. */
static bool is_mounted(int folder, dev_t device)
{
    struct stat status;
    struct statx more;
    return fstat(folder, &status) || status.st_dev != device ||
           (!statx(folder, "", AT_EMPTY_PATH, 0, &more) &&
            more.stx_attributes & more.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT);
}

static bool remove_folder(int folder, const char *name, dev_t device)
{
    int inner = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (inner < 0)
        return false;
    if (is_mounted(inner, device)) {
        close(inner);
        errno = EXDEV;
        return false;
    }
    return remove_all(inner, NULL, device) && !unlinkat(folder, name, AT_REMOVEDIR);
}

static bool remove_entry(int folder, const char *name, dev_t device)
{
    if (!unlinkat(folder, name, 0))
        return true;
    return (errno == EISDIR || errno == EPERM) && remove_folder(folder, name, device);
}

bool remove_content(int folder, const char *keep)
{
    struct stat status;
    int again = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (again < 0)
        return false;
    if (fstat(again, &status)) {
        close(again);
        return false;
    }
    return remove_all(again, keep, status.st_dev);
}
