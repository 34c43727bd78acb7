#include "base/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/die.h"

/* The folder that a path lies in, which the caller frees. */
static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return !slash          ? xstrdup(".")
           : slash == path ? xstrdup("/")
                           : xprintf("%.*s", (int)(slash - path), path);
}

/* Check that names can be added to the folder in which `path` lies. */
static void check_folder_of(const char *path)
{
    char *folder = folder_of(path);
    struct stat status;
    if (stat(folder, &status))
        die_errno("%s: its folder, %s", path, folder);
    if (!S_ISDIR(status.st_mode))
        die("%s: %s is not a folder", path, folder);
    if (faccessat(AT_FDCWD, folder, W_OK | X_OK, AT_EACCESS))
        die_errno("%s: cannot write into its folder, %s", path, folder);
    free(folder);
}

/* The file that is written, links resolved, which the caller frees; NULL if it is not a regular
 * one. Ends the process if it cannot be written. */
static char *check(const char *file)
{
    struct stat status;
    bool exists = !stat(file, &status);
    if (exists && S_ISDIR(status.st_mode))
        die("%s: is a folder; name a file", file);
    if (exists && !S_ISREG(status.st_mode))
        return NULL;
    if (!exists && !lstat(file, &status))
        die("%s: is a symbolic link to nothing; remove it, or name another file", file);
    char *path = exists ? realpath(file, NULL) : xstrdup(file);
    if (!path)
        die_errno("%s", file);
    check_folder_of(path);
    char *partial = xprintf("%s.partial", path);
    if (!lstat(partial, &status) && !S_ISREG(status.st_mode))
        die("%s: is in the way, and not a regular file; move it, or name another file", partial);
    free(partial);
    return path;
}

void output_check(const char *file)
{
    free(check(file));
}

void output_check_folder(const char *folder)
{
    struct stat status;
    if (stat(folder, &status)) {
        if (errno != ENOENT)
            die_errno("%s", folder);
        if (!lstat(folder, &status))
            die("%s: is a symbolic link to nothing; remove it, or name another folder", folder);
        check_folder_of(folder);
    } else if (!S_ISDIR(status.st_mode)) {
        die("%s: exists and is not a folder", folder);
    } else if (faccessat(AT_FDCWD, folder, W_OK | X_OK, AT_EACCESS)) {
        die_errno("%s: cannot write into it", folder);
    }
}

bool output_is_same(const char *a, const char *b)
{
    struct stat of_a, of_b;
    bool a_exists = !stat(a, &of_a), b_exists = !stat(b, &of_b);
    if (a_exists || b_exists)
        return a_exists && b_exists && S_ISREG(of_a.st_mode) && of_a.st_dev == of_b.st_dev &&
               of_a.st_ino == of_b.st_ino;
    char *folder_a = folder_of(a), *folder_b = folder_of(b);
    const char *slash_a = strrchr(a, '/'), *slash_b = strrchr(b, '/');
    bool same = !stat(folder_a, &of_a) && !stat(folder_b, &of_b) && of_a.st_dev == of_b.st_dev &&
                of_a.st_ino == of_b.st_ino &&
                !strcmp(slash_a ? slash_a + 1 : a, slash_b ? slash_b + 1 : b);
    free(folder_a);
    free(folder_b);
    return same;
}

void output_open(struct output *out, const char *file)
{
    *out = (struct output){.name = file ? file : "standard output", .fd = STDOUT_FILENO};
    if (!file)
        return;
    out->path = check(file);
    if (out->path) {
        out->partial = xprintf("%s.partial", out->path);
        out->fd = open(out->partial, O_WRONLY | O_CLOEXEC | O_CREAT | O_TRUNC | O_NOFOLLOW, 0666);
    } else {
        out->fd = open(file, O_WRONLY | O_CLOEXEC | O_NOCTTY);
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
