#include "base/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/die.h"
#include "base/owner.h"
#include "base/temporary.h"

char *output_folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return !slash          ? xstrdup(".")
           : slash == path ? xstrdup("/")
                           : xprintf("%.*s", (int)(slash - path), path);
}

/* True if files can be made in the folder, by making one: permissions alone do not tell, of root on
 * a filesystem that takes no file, for example. */
static bool takes_files(const char *folder)
{
    int fd = temporary_file(folder);
    return fd >= 0 && !close(fd);
}

/* Check that names can be added to the folder in which `path` lies; and that `old`, the file of
 * that name, can be replaced, unless it is NULL. */
static void check_folder_of(const char *path, const struct stat *old)
{
    char *folder = output_folder_of(path);
    struct stat status;
    uid_t user = geteuid();
    if (stat(folder, &status))
        die_errno("%s: its folder, %s", path, folder);
    if (!S_ISDIR(status.st_mode))
        die("%s: %s is not a folder", path, folder);
    if (!takes_files(folder))
        die_errno("%s: cannot write into its folder, %s", path, folder);
    if (old && status.st_mode & S_ISVTX && user && user != status.st_uid && user != old->st_uid)
        die("%s: belongs to another user, and only they may replace it in this folder; name "
            "another file",
            path);
    free(folder);
}

/* The file that is written, links resolved, which the caller frees; NULL if it is not a regular
 * one. Ends the process if it cannot be written. */
static char *check(const char *file)
{
    struct stat status;
    if (!*file)
        die_usage("an output has an empty name; name a file");
    owner_refuse_planted(file);
    bool exists = !stat(file, &status);
    if (exists && S_ISDIR(status.st_mode))
        die("%s: is a folder; name a file", file);
    if (exists && !S_ISREG(status.st_mode)) {
        if (faccessat(AT_FDCWD, file, W_OK, AT_EACCESS))
            die_errno("%s", file);
        return NULL;
    }
    if (!exists && !lstat(file, &status))
        die("%s: is a symbolic link to nothing; remove it, or name another file", file);
    char *path = exists ? realpath(file, NULL) : xstrdup(file);
    if (!path)
        die_errno("%s", file);
    check_folder_of(path, exists ? &status : NULL);
    return path;
}

void output_check(const char *file)
{
    free(check(file));
}

void output_check_folder(const char *folder)
{
    struct stat status;
    owner_refuse_planted(folder);
    if (stat(folder, &status)) {
        if (errno != ENOENT)
            die_errno("%s", folder);
        if (!lstat(folder, &status))
            die("%s: is a symbolic link to nothing; remove it, or name another folder", folder);
        check_folder_of(folder, NULL);
    } else if (!S_ISDIR(status.st_mode)) {
        die("%s: exists and is not a folder; choose another name", folder);
    } else if (!takes_files(folder)) {
        die_errno("%s: cannot write into it", folder);
    }
}

bool output_is_in(const char *file, const char *folder)
{
    struct stat own, parent;
    char *above = output_folder_of(file);
    bool is = !stat(folder, &own) && !stat(above, &parent) && own.st_dev == parent.st_dev &&
              own.st_ino == parent.st_ino;
    free(above);
    return is;
}

bool output_is_same(const char *a, const char *b)
{
    struct stat of_a, of_b;
    bool a_exists = !stat(a, &of_a), b_exists = !stat(b, &of_b);
    if (a_exists || b_exists)
        return a_exists && b_exists && S_ISREG(of_a.st_mode) && of_a.st_dev == of_b.st_dev &&
               of_a.st_ino == of_b.st_ino;
    char *folder_a = output_folder_of(a), *folder_b = output_folder_of(b);
    const char *slash_a = strrchr(a, '/'), *slash_b = strrchr(b, '/');
    bool same = !stat(folder_a, &of_a) && !stat(folder_b, &of_b) && of_a.st_dev == of_b.st_dev &&
                of_a.st_ino == of_b.st_ino &&
                !strcmp(slash_a ? slash_a + 1 : a, slash_b ? slash_b + 1 : b);
    free(folder_a);
    free(folder_b);
    return same;
}

/* A name beside `path` that no file has, by trying; `make` makes the file, and returns false if
 * there is one. The caller frees it. */
static char *unused_name(const char *path, bool (*make)(const char *name, int *fd), int *fd)
{
    for (unsigned i = 1;; i++) {
        char *name = xprintf("%s.%u.partial", path, i);
        if (make(name, fd))
            return name;
        free(name);
    }
}

static bool make_named(const char *name, int *fd)
{
    *fd = open(name, O_WRONLY | O_CLOEXEC | O_CREAT | O_EXCL | O_NOFOLLOW, 0666);
    if (*fd < 0 && errno != EEXIST)
        die_errno("%s", name);
    return *fd >= 0;
}

/* Give the file without a name one. */
static bool link_to(const char *name, int *fd)
{
    char own[sizeof "/proc/self/fd/" + 3 * sizeof *fd];
    snprintf(own, sizeof own, "/proc/self/fd/%d", *fd);
    if (!linkat(AT_FDCWD, own, AT_FDCWD, name, AT_SYMLINK_FOLLOW))
        return true;
    if (errno != EEXIST)
        die_errno("%s: giving the complete file this name", name);
    return false;
}

/* Take standard output over: what libraries print there goes to standard error from now on. */
static int take_standard_output(void)
{
    int own = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    if (own < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
        die_errno("standard output");
    return own;
}

void output_open(struct output *out, const char *file)
{
    struct stat old, new;
    *out = (struct output){.name = file ? file : "standard output"};
    if (!file) {
        out->fd = take_standard_output();
        return;
    }
    out->path = check(file);
    if (!out->path) {
        out->fd = open(file, O_WRONLY | O_CLOEXEC | O_NOCTTY);
        if (out->fd < 0)
            die_errno("%s", file);
        return;
    }
    char *folder = output_folder_of(out->path);
    out->fd = open(folder, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666);
    free(folder);
    if (out->fd < 0)
        out->temporary = unused_name(out->path, make_named, &out->fd);
    if (!stat(out->path, &old) &&
        (fstat(out->fd, &new) || fchmod(out->fd, old.st_mode & new.st_mode & 0777)))
        die_errno("%s: giving the new file the permissions of the old one", out->path);
}

/* True if `name` is the file that is being written. Some network filesystems give a renamed file
 * another inode: then, one of this owner and size that has no other name. */
static bool is_own(const struct output *out, const char *name)
{
    struct stat own, named;
    if (fstat(out->fd, &own) || lstat(name, &named))
        return false;
    return (own.st_dev == named.st_dev && own.st_ino == named.st_ino) ||
           (S_ISREG(named.st_mode) && own.st_uid == named.st_uid && own.st_size == named.st_size &&
            named.st_nlink == 1);
}

/* Give the file its final name in place of its temporary one. */
static void rename_temporary(const struct output *out)
{
    if (!is_own(out, out->temporary))
        die("%s: another user renamed or replaced it; run this again in a folder of your own",
            out->temporary);
    if (rename(out->temporary, out->path)) {
        int error = errno;
        unlink(out->temporary);
        errno = error;
        die_errno("%s", out->name);
    }
    if (!is_own(out, out->path))
        die("%s: is not what was written, another user replaced it; run this again in a folder of "
            "your own",
            out->name);
}

void output_finish(struct output *out)
{
    if (out->path) {
        if (fsync(out->fd) && errno != EINVAL) /* some filesystems cannot */
            die_errno("%s: syncing it to disk", out->name);
        if (!out->temporary && !link_to(out->path, &out->fd))
            out->temporary = unused_name(out->path, link_to, &out->fd);
        if (out->temporary)
            rename_temporary(out);
    }
    if (close(out->fd))
        die_errno("%s", out->name);
    free(out->temporary);
    free(out->path);
}
