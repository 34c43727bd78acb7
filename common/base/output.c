#include "base/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/die.h"

void output_open(struct output *out, const char *file)
{
    struct stat status;
    *out = (struct output){.name = file ? file : "standard output", .fd = STDOUT_FILENO};
    if (!file)
        return;
    bool exists = !stat(file, &status);
    if (exists && S_ISDIR(status.st_mode))
        die("%s: is a folder; name a file", file);
    if (exists && !S_ISREG(status.st_mode)) {
        out->fd = open(file, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    } else {
        if (!exists && !lstat(file, &status))
            die("%s: is a symbolic link to nothing; remove it, or name another file", file);
        out->path = exists ? realpath(file, NULL) : xstrdup(file);
        if (!out->path)
            die_errno("%s", file);
        out->partial = xprintf("%s.partial", out->path);
        out->fd = open(out->partial, O_WRONLY | O_CLOEXEC | O_CREAT | O_TRUNC | O_NOFOLLOW, 0666);
    }
    if (out->fd < 0)
        die_errno("%s", out->partial ? out->partial : file);
}

void output_finish(struct output *out)
{
    if (out->partial && fsync(out->fd) && errno != EINVAL) /* some filesystems cannot */
        die_errno("%s", out->partial);
    if (out->fd != STDOUT_FILENO && close(out->fd))
        die_errno("%s", out->name);
    if (out->partial && rename(out->partial, out->path))
        die_errno("%s", out->name);
    free(out->partial);
    free(out->path);
}
