#include "base/owner.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/die.h"

bool owner_is_self(int fd, int folder)
{
    struct stat status, made;
    int probe = openat(folder, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
    bool known = probe >= 0 && !fstat(probe, &made);
    if (probe >= 0)
        close(probe);
    return !fstat(fd, &status) && status.st_uid == (known ? made.st_uid : geteuid());
}

void owner_refuse_other(int folder, const char *path)
{
    if (!owner_is_self(folder, folder))
        die("%s: belongs to another user, whose run is not continued; move or remove it, or choose "
            "another folder",
            path);
}

/* True if the entry at `path`, which ends in a name, is such a link or FIFO; on the way to what is
 * to be written, or the `last` one. */
static bool is_planted(const char *path, bool last)
{
    struct stat entry, above;
    if (lstat(path, &entry) || S_ISDIR(entry.st_mode) || S_ISREG(entry.st_mode) ||
        entry.st_uid == geteuid())
        return false;
    if (last)
        return entry.st_uid;
    const char *slash = strrchr(path, '/');
    char *folder = slash ? xprintf("%.*s/.", (int)(slash - path), path) : xstrdup(".");
    bool sticky = !stat(folder, &above) && above.st_mode & S_ISVTX;
    free(folder);
    return sticky && above.st_mode & S_IWOTH && entry.st_uid != above.st_uid;
}

void owner_refuse_planted(const char *path)
{
    char *part = xstrdup(path);
    for (char *end = part; *end;) {
        end += strspn(end, "/");
        end += strcspn(end, "/");
        bool last = !end[strspn(end, "/")];
        char next = *end;
        *end = 0;
        if (is_planted(part, last))
            die("%s: %s is a link, device or FIFO of another user, who would choose what is "
                "written; remove it, or choose another name",
                path, last ? "it" : part);
        *end = next;
    }
    free(part);
}
