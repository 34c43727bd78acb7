#include "write/output_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/die.h"
#include "base/folder.h"
#include "base/lock.h"
#include "base/owner.h"
#include "base/temporary.h"
#include "stream/checkpoint.h"
#include "write/copy.h"
#include "write/foreign.h"
#include "write/movable.h"
#include "write/remove_tree.h"

static const char journal_name[] = CHECKPOINT_JOURNAL;
enum { WALK_FILES = 16 };

/* True if `path` is the folder of `length` bytes, or inside it. */
static bool is_below(const char *path, const char *folder, size_t length)
{
    return !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

/* Check that the output stays away from `folder`, of `length` bytes, which holds input. */
static void check_folder(const struct output_dir *output, const char *folder, size_t length)
{
    size_t own = strlen(output->path);
    char *name = xprintf("%.*s", (int)length, folder);
    if (is_below(name, output->path, own))
        die("%s: is or holds the source's folder, %s; choose another folder", output->path, name);
    if (length > 0 && is_below(output->path, folder, length))
        die("%s: is inside the source's folder, %s; choose another folder", output->path, name);
    free(name);
}

static void check_sources(const struct output_dir *output, const char *source,
                          const struct sources *sources)
{
    if (source)
        check_folder(output, source, strlen(source));
    for (size_t i = 0; i < sources->count; i++) {
        /* a stream's path may lead through links, as after st-read --root */
        char *path = realpath(sources->file[i].path, NULL);
        if (!path)
            die_errno("%s: the stream refers to this file (st-read --root OLD=NEW re-points it)",
                      sources->file[i].path);
        check_folder(output, path, (size_t)(strrchr(path, '/') - path));
        free(path);
    }
}

static bool is_one_of(const char *name, const char *const *names)
{
    while (*names && strcmp(name, *names) != 0)
        names++;
    return *names;
}

/* The number of entries in a folder but those of these names. */
static size_t count_but(const char *path, const char *const *names)
{
    DIR *folder = opendir(path);
    if (!folder)
        die_errno("%s", path);
    size_t entries = 0;
    for (struct dirent *entry; errno = 0, (entry = readdir(folder));)
        entries += !is_one_of(entry->d_name, names);
    if (errno)
        die_errno("%s", path);
    closedir(folder);
    return entries;
}

static size_t count_entries(const char *path)
{
    static const char *const dots[] = {".", "..", NULL};
    return count_but(path, dots);
}

/* The number of DST's entries that are not ours, or no one's (output_dir.h). */
static size_t count_present(const struct output_dir *output)
{
    static const char *const none[] = {".", "..", CHECKPOINT_PARTIAL, "lost+found", ".calib", NULL};
    return output->inside ? count_but(output->path, none) : count_entries(output->path);
}

/* True if the folder holds an entry that matches the fnmatch(3) pattern. */
static bool holds(const char *path, const char *pattern)
{
    DIR *folder = opendir(path);
    if (!folder)
        die_errno("%s", path);
    bool found = false;
    for (struct dirent *entry; errno = 0, !found && (entry = readdir(folder));)
        found = !fnmatch(pattern, entry->d_name, 0);
    if (errno)
        die_errno("%s", path);
    closedir(folder);
    return found;
}

static bool holds_checkpoint(const struct output_dir *output)
{
    return holds(output->path, "*.safetensors");
}

static bool can_write(const char *folder)
{
    return !faccessat(AT_FDCWD, folder, W_OK | X_OK, AT_EACCESS);
}

/* Check that the content of DST may be replaced: a typing error must not cost a user other files.
 */
static void check_present(const struct output_dir *output)
{
    if (!count_present(output) || output_dir_in_place(output))
        return;
    if (output->inside)
        die("%s: is not empty, and --overwrite cannot replace it (it is a mount point, or its "
            "parent is not writable); choose another folder, or remove its files",
            output->path);
    if (!output->overwrite)
        die("%s: is not empty; choose another folder, or --overwrite it", output->path);
    if (!holds_checkpoint(output))
        die("%s: not a checkpoint (no .safetensors file in it); --overwrite replaces nothing else: "
            "choose another folder, or remove it yourself",
            output->path);
    if (!can_write(output->path))
        die_errno("%s: --overwrite could not remove what is in it; choose another folder",
                  output->path);
}

/* True if the filesystem begins at `path`. A bind mount has its parent's device number. */
static bool is_mount_point(const char *path, const char *parent)
{
    struct statx own, above;
    if (statx(AT_FDCWD, path, 0, STATX_BASIC_STATS, &own) ||
        statx(AT_FDCWD, parent, 0, STATX_BASIC_STATS, &above))
        die_errno("%s", path);
    return own.stx_attributes & own.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT ||
           own.stx_dev_major != above.stx_dev_major || own.stx_dev_minor != above.stx_dev_minor;
}

/* True if another user's folder may not be replaced in `parent`, as in /tmp. */
static bool is_sticky_for(const char *parent, const char *path)
{
    struct stat above, own;
    if (stat(parent, &above) || stat(path, &own))
        die_errno("%s", path);
    return (above.st_mode & S_ISVTX) && geteuid() && above.st_uid != geteuid() &&
           own.st_uid != geteuid();
}

/* True if an existing folder must be worked in: it cannot be replaced, or a run is at work in it.
 */
static bool is_fixed(const char *path, const char *parent)
{
    char *partial = xprintf("%s/" CHECKPOINT_PARTIAL, path);
    struct stat status;
    bool begun = !lstat(partial, &status) && S_ISDIR(status.st_mode) && count_entries(partial);
    free(partial);
    return begun || is_mount_point(path, parent) || !can_write(parent) ||
           is_sticky_for(parent, path);
}

/* Check that the folder can be made, and gets its name in the end. */
static void check_writable(const struct output_dir *output)
{
    if (can_write(output->parent))
        return;
    if (output->inside)
        die_errno("%s: cannot write into it", output->path);
    die_errno("%s: cannot write into %s; make an empty folder of that name that you can write "
              "into, or choose another",
              output->path, output->parent);
}

/* Check that DST.partial can take its name from a DST that is there. */
static void check_movable(const struct output_dir *output)
{
    if (output->inside || access(output->path, F_OK))
        return;
    int error = folder_resists(output->path, output->parent);
    if (error)
        die("%s: cannot be renamed (%s), so that nothing can take its place; choose another "
            "folder, "
            "or move its files away and remove it",
            output->path, strerror(error));
}

void output_dir_name(struct output_dir *output, const char *path)
{
    owner_refuse_planted(path);
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    char *clean = xprintf("%.*s", (int)length, path);
    struct stat status;
    bool exists = !lstat(clean, &status);
    if (!exists && errno != ENOENT)
        die_errno("%s", clean);
    if (exists && S_ISLNK(status.st_mode)) {
        /* the link stays; its target is replaced */
        char *real = realpath(clean, NULL);
        if (!real && errno == ENOENT)
            die("%s: is a symbolic link to nothing; remove it, or name another folder", clean);
        if (!real || stat(real, &status))
            die_errno("%s", clean);
        free(clean);
        clean = real;
    }
    char *slash = strrchr(clean, '/');
    const char *base = slash ? slash + 1 : clean;
    if (!*base || !strcmp(base, ".") || !strcmp(base, ".."))
        die_usage("%s: name the folder itself, not '.', '..' or '/'", path);
    char *above =
        slash ? xprintf("%.*s", (int)(slash == clean ? 1 : slash - clean), clean) : xstrdup(".");
    *output = (struct output_dir){.parent = realpath(above, NULL),
                                  .folder = -1,
                                  .journal.fd = -1,
                                  .opened = names_new(),
                                  .old = -1};
    if (!output->parent)
        die_errno("%s: the folder to write into", above);
    output->path = xprintf("%s/%s", strcmp(output->parent, "/") ? output->parent : "", base);
    if (!source_path_valid(output->path))
        die("%s: a control character in its path: no program here could read what is in it; choose "
            "another folder",
            output->path);
    free(above);
    free(clean);
    if (exists && !S_ISDIR(status.st_mode))
        die("%s: exists and is not a folder; choose another name", output->path);
    output->inside = exists && is_fixed(output->path, output->parent);
    if (output->inside) {
        free(output->parent);
        output->parent = xstrdup(output->path);
    }
    output->partial =
        xprintf(output->inside ? "%s/" CHECKPOINT_PARTIAL : "%s.partial", output->path);
}

/* Where an old checkpoint waits while names cannot be exchanged; the caller frees it. */
static char *replaced_path(const struct output_dir *output)
{
    return xprintf("%s.replaced", output->path);
}

static void note_old(struct output_dir *output)
{
    if (output->old >= 0)
        close(output->old);
    output->old = open(output->path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (output->old < 0 && errno != ENOENT)
        die_errno("%s", output->path);
}

void output_dir_check(struct output_dir *output, bool overwrite, const char *source,
                      const struct sources *sources)
{
    signal(SIGXFSZ, SIG_IGN); /* report a file size limit like other errors: EFBIG */
    output->overwrite = overwrite;
    note_old(output);
    check_sources(output, source, sources);
    if (!access(output->path, F_OK))
        check_present(output);
    check_writable(output);
    check_movable(output);
    char *replaced = replaced_path(output);
    if (overwrite && !access(replaced, F_OK) && !access(output->path, F_OK) &&
        !output_dir_in_place(output))
        die("%s: is in the way of --overwrite; move or remove it", replaced);
    free(replaced);
}

/* True if the open folder is the one of that name. */
static bool is_at(int folder, const char *path)
{
    struct stat opened, named;
    return !fstat(folder, &opened) && !lstat(path, &named) && opened.st_ino == named.st_ino &&
           opened.st_dev == named.st_dev;
}

/* Open and lock a folder that st-write made; -1 if it does not exist. */
static int lock(const char *path)
{
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (folder < 0 && errno == ENOENT)
        return -1;
    if (folder < 0)
        die_errno("%s", path);
    if (!lock_folder(folder, path))
        die("%s: another st-write is at work in it", path);
    /* the other run may have finished and renamed it between our open and our lock */
    if (!is_at(folder, path))
        die("%s: another st-write was at work in it; run this again", path);
    return folder;
}

/* The same, of a folder that this user made: whoever made it could have written anything in it. */
static int lock_own(const char *path)
{
    int folder = lock(path);
    if (folder < 0)
        return -1;
    owner_refuse_other(folder, path);
    return folder;
}

static void sync_folder(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        die_errno("%s", path);
    folder_sync(fd, path);
    if (close(fd))
        die_errno("%s: syncing it to disk", path);
}

/* ---- the end of a run, also of one that was killed there ---- */

/* Remove the folder; its journal, which marks it, goes last. */
static bool remove_folder(const char *path, int folder)
{
    return remove_content(folder, journal_name) && !unlinkat(folder, journal_name, 0) &&
           !rmdir(path);
}

/* The note that identifies a folder, and how: as the one to be replaced, or as the new one. The
 * caller frees it. */
static char *folder_note(const char *word, const struct stat *status)
{
    return xprintf("%s\t%ju\t%ju\n", word, (uintmax_t)status->st_dev, (uintmax_t)status->st_ino);
}

/* True if `path` is the folder that the journal's note with that word identifies. */
static bool is_noted(const char *path, const char *word, const struct journal *journal)
{
    struct stat status;
    const char *found = journal_find(journal, word);
    if (!found || lstat(path, &status))
        return false;
    char *own = folder_note(word, &status);
    bool same = !strncmp(found - strlen(word), own, strlen(own));
    free(own);
    return same;
}

/* If DST.partial is marked as the old checkpoint, remove it, unless the new one is not there. True
 * if it was replaced by the run of `identity` and `toc`. */
static bool remove_replaced(const struct output_dir *output, const char *identity,
                            const struct toc *toc)
{
    struct journal journal;
    int folder = lock(output->partial);
    if (folder < 0)
        return false;
    bool replaced = journal_read(&journal, folder, output->partial) == JOURNAL_WHOLE &&
                    journal_find(&journal, "replaced") && owner_is_self(journal.fd, folder);
    bool ours = replaced && journal_is_of(&journal, identity, toc);
    if (replaced && !is_noted(output->path, "replaced", &journal))
        die("%s: holds the old checkpoint, but the new one that took its place is not at %s any "
            "more; nothing was removed: move the new one back, or remove the old one (rm -r)",
            output->partial, output->path);
    journal_close(&journal);
    bool removed = !replaced || remove_folder(output->partial, folder);
    if (!removed && errno == EXDEV)
        die("%s: the new checkpoint is in place, but something is mounted in the old one, moved "
            "here; unmount it, and run the same command again",
            output->partial);
    if (!removed)
        die_errno("%s: the new checkpoint is in place, but the old one, moved here, could not be "
                  "removed; remove it (rm -r)",
                  output->partial);
    journal_free(&journal);
    close(folder);
    return ours;
}

/* Mark the old checkpoint, now at DST.partial, as replaced by the run that DST's journal is of. */
static void mark_replaced(const struct output_dir *output, const struct journal *journal)
{
    struct journal mark;
    struct stat status;
    int folder = lock(output->partial);
    if (stat(output->path, &status))
        die_errno("%s", output->path);
    if (folder >= 0 && !is_noted(output->partial, "replaces", journal))
        die("%s: was renamed or replaced; the new checkpoint is in place, and nothing was removed",
            output->partial);
    if (folder < 0 || (unlinkat(folder, journal_name, 0) && errno != ENOENT))
        die_errno("%s", output->partial);
    journal_begin(&mark, folder, output->partial, journal->identity, journal->toc);
    char *note = folder_note("replaced", &status);
    journal_note(&mark, note);
    free(note);
    journal_free(&mark);
    close(folder);
}

/* The last step: DST, complete and in place, becomes a checkpoint when its journal is removed. */
static void remove_journal(const struct output_dir *output, int folder)
{
    if (unlinkat(folder, journal_name, 0))
        die_errno("%s/%s", output->path, journal_name);
    folder_sync(folder, output->path);
}

/* Without an exchange: the old checkpoint was moved to DST.replaced. Put the new one in place,
 * unless it is, and let the old one follow to where an exchange would have put it. */
static void end_renames(const struct output_dir *output, const char *replaced, bool in_place)
{
    if (!in_place && rename(output->partial, output->path))
        die_errno("%s: renaming %s to it", output->path, output->partial);
    sync_folder(output->parent);
    if (rename(replaced, output->partial))
        die_errno("%s: renaming %s to it", output->partial, replaced);
    sync_folder(output->parent);
}

/* The same after a kill between these renames. */
static void settle_renames(struct output_dir *output)
{
    struct journal journal;
    char *replaced = replaced_path(output);
    bool in_place = !access(output->path, F_OK);
    int folder = access(replaced, F_OK) ? -1 : lock(in_place ? output->path : output->partial);
    if (folder >= 0) {
        if (journal_read(&journal, folder, output->partial) == JOURNAL_WHOLE &&
            owner_is_self(journal.fd, folder) && journal_find(&journal, "whole") &&
            is_noted(replaced, "replaces", &journal)) {
            end_renames(output, replaced, in_place);
            note_old(output);
        }
        journal_free(&journal);
        close(folder);
    }
    free(replaced);
}

/* True if DST is what this run wrote. Some network filesystems give a renamed folder another inode:
 * then, one of this user that has a journal. */
static bool is_renamed(const struct output_dir *output)
{
    if (is_at(output->folder, output->path))
        return true;
    int folder = open(output->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    bool own = folder >= 0 && owner_is_self(folder, folder) &&
               !faccessat(folder, journal_name, F_OK, AT_SYMLINK_NOFOLLOW);
    if (folder >= 0)
        close(folder);
    return own;
}

/* What was renamed to DST must be what this run wrote. Otherwise, rename it back. */
static void check_renamed(const struct output_dir *output, unsigned how)
{
    if (is_renamed(output))
        return;
    if (renameat2(AT_FDCWD, output->path, AT_FDCWD, output->partial, how) && errno != ENOENT)
        warn("%s: is not what this run wrote; remove it", output->path);
    die("%s: was renamed or replaced, and is not put in place; move back what this run wrote, and "
        "run the same command again",
        output->partial);
}

/* Exchange DST.partial with the old checkpoint at DST. */
static void exchange(const struct output_dir *output)
{
    if (!renameat2(AT_FDCWD, output->partial, AT_FDCWD, output->path, RENAME_EXCHANGE)) {
        check_renamed(output, RENAME_EXCHANGE);
        return;
    }
    if (errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP)
        die_errno("%s: exchanging it with %s", output->path, output->partial);
    char *replaced = replaced_path(output);
    if (rename(output->path, replaced))
        die_errno("%s: the new checkpoint is complete in %s, but this one could not be moved to "
                  "%s; move it away, and run the same command again",
                  output->path, output->partial, replaced);
    end_renames(output, replaced, false);
    check_renamed(output, RENAME_EXCHANGE);
    free(replaced);
}

static void move_entry(const struct output_dir *output, const char *name)
{
    char *from = xprintf("%s/%s", output->partial, name);
    char *to = xprintf("%s/%s", output->path, name);
    if (rename(from, to))
        die_errno("%s: moving it to %s", from, to);
    free(from);
    free(to);
}

/* Move up what was built inside DST, unless a killed run has: what others recognize a checkpoint by
 * goes last. */
static void move_up(const struct output_dir *output, int folder)
{
    static const char *const last[] = {"config.json", CHECKPOINT_INDEX, NULL};
    static const char *const stay[] = {
        ".", "..", CHECKPOINT_JOURNAL, "config.json", CHECKPOINT_INDEX, NULL};
    DIR *entries = opendir(output->partial);
    if (!entries)
        die_errno("%s", output->partial);
    for (struct dirent *entry; errno = 0, (entry = readdir(entries));)
        if (!is_one_of(entry->d_name, stay))
            move_entry(output, entry->d_name);
    if (errno)
        die_errno("%s", output->partial);
    closedir(entries);
    for (size_t i = 0; last[i]; i++)
        if (!faccessat(folder, last[i], F_OK, AT_SYMLINK_NOFOLLOW)) {
            sync_folder(output->path);
            move_entry(output, last[i]);
        }
    sync_folder(output->path);
    if (unlinkat(folder, journal_name, 0) || rmdir(output->partial))
        die_errno("%s: the checkpoint is complete in %s, but this folder could not be removed",
                  output->partial, output->path);
    sync_folder(output->path);
}

/* End the process if the journal in DST/.partial, beside files that were moved up, is not that of a
 * run with `identity` and `toc` that only had to move up the rest. */
static void check_inside(const struct output_dir *output, enum journal_state state,
                         const struct journal *journal, const char *identity, const struct toc *toc)
{
    if (state != JOURNAL_WHOLE || !journal_find(journal, "whole"))
        die("%s: holds other files beside an unfinished run of st-write; move them away",
            output->path);
    if (!journal_is_of(journal, identity, toc))
        die("%s: was left by a run with other input or options; remove the files in %s to start "
            "again",
            output->partial, output->path);
}

/* The same of the journal in DST, which only had to be removed. */
static void check_in_place(const struct output_dir *output, enum journal_state state,
                           const struct journal *journal, const char *identity,
                           const struct toc *toc)
{
    bool whole = state == JOURNAL_WHOLE && journal_find(journal, "whole");
    if (state == JOURNAL_WHOLE && !whole)
        die("%s: holds the result of an unfinished run of st-write; move it back to %s to continue",
            output->path, output->partial);
    if (state != JOURNAL_NONE && !(whole && journal_is_of(journal, identity, toc)) &&
        !output->overwrite)
        die("%s: is not empty; choose another folder, or --overwrite it", output->path);
}

/* As settle(), inside DST. */
static bool settle_inside(const struct output_dir *output, const char *identity,
                          const struct toc *toc)
{
    struct journal journal;
    int folder = output_dir_in_place(output) ? lock_own(output->partial) : -1;
    if (folder < 0)
        return false;
    enum journal_state state = journal_read(&journal, folder, output->partial);
    check_inside(output, state, &journal, identity, toc);
    journal_close(&journal);
    move_up(output, folder);
    journal_free(&journal);
    close(folder);
    return true;
}

/* The first half of output_dir_was_done(): the journal in DST. */
static bool settle(const struct output_dir *output, const char *identity, const struct toc *toc)
{
    struct journal journal;
    int folder = output_dir_in_place(output) ? lock_own(output->path) : -1;
    if (folder < 0)
        return false;
    enum journal_state state = journal_read(&journal, folder, output->path);
    bool whole = state == JOURNAL_WHOLE && journal_find(&journal, "whole");
    bool ours = whole && journal_is_of(&journal, identity, toc);
    check_in_place(output, state, &journal, identity, toc);
    if (whole && is_noted(output->partial, "replaces", &journal))
        mark_replaced(output, &journal);
    journal_close(&journal);
    if (whole)
        remove_journal(output, folder);
    journal_free(&journal);
    close(folder);
    return ours;
}

bool output_dir_was_done(struct output_dir *output, const char *identity, const struct toc *toc)
{
    if (output->inside)
        return settle_inside(output, identity, toc);
    settle_renames(output);
    bool done = settle(output, identity, toc);
    return remove_replaced(output, identity, toc) || done;
}

bool output_dir_in_place(const struct output_dir *output)
{
    if (output->inside)
        return count_present(output) && !access(output->partial, F_OK) &&
               holds(output->partial, journal_name);
    return !access(output->path, F_OK) && holds(output->path, journal_name);
}

/* Read the journal in the folder `path`, if it is of this user, without a lock, and without
 * changing it. The caller frees it. */
static enum journal_state peek(const char *path, struct journal *journal)
{
    enum journal_state state = JOURNAL_NONE;
    struct stat status;
    char *name = xprintf("%s/" CHECKPOINT_JOURNAL, path);
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd = -1;
    if (folder >= 0)
        fd = openat(folder, CHECKPOINT_JOURNAL,
                    O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    *journal = (struct journal){.fd = -1};
    if (fd >= 0 && !fstat(fd, &status) && S_ISREG(status.st_mode) && owner_is_self(fd, folder)) {
        char *text = xalloc((size_t)status.st_size + 1, 1);
        read_at(fd, 0, text, (size_t)status.st_size, name);
        state = journal_parse(journal, text, (size_t)status.st_size);
    }
    if (fd >= 0)
        close(fd);
    if (folder >= 0)
        close(folder);
    free(name);
    return state;
}

/* True if the journal in `path` is of the run with `identity`, and has one of two notes. */
static bool has_note(const char *path, const char *identity, const char *note, const char *other)
{
    struct journal journal;
    bool found = peek(path, &journal) == JOURNAL_WHOLE && journal_is_of(&journal, identity, NULL) &&
                 (journal_find(&journal, note) || journal_find(&journal, other));
    journal_free(&journal);
    return found;
}

bool output_dir_was_replaced(const struct output_dir *output)
{
    return !output->inside && has_note(output->partial, NULL, "replaced", "replaced");
}

void output_dir_plan(struct output_dir *output, const char *identity, const struct toc *toc)
{
    struct journal journal;
    enum journal_state state = peek(output->inside ? output->partial : output->path, &journal);
    if (!output->inside)
        check_in_place(output, state, &journal, identity, toc);
    else if (output_dir_in_place(output))
        check_inside(output, state, &journal, identity, toc);
    bool exchanged = state == JOURNAL_WHOLE && is_noted(output->partial, "replaces", &journal);
    journal_free(&journal);
    if (!exchanged && !output_dir_was_replaced(output))
        output_dir_resume(output, identity, toc);
}

bool output_dir_is_joined(const struct output_dir *output, const char *identity)
{
    return has_note(output->path, identity, "joined", "whole") ||
           has_note(output->partial, identity, "joined", "replaced");
}

enum output_dir_state output_dir_state(const struct output_dir *output)
{
    if (!access(output->path, F_OK) && count_present(output))
        return output_dir_in_place(output) ? OUTPUT_DIR_PARTIAL
               : holds_checkpoint(output)  ? OUTPUT_DIR_COMPLETE
                                           : OUTPUT_DIR_OTHER;
    return access(output->partial, F_OK) ? OUTPUT_DIR_ABSENT : OUTPUT_DIR_PARTIAL;
}

bool output_dir_can_share(const struct output_dir *output, int fd)
{
    int probe = temporary_file(output->parent);
    if (probe < 0)
        return false;
    bool can = can_clone(fd, probe);
    close(probe);
    return can;
}

bool output_dir_resume(struct output_dir *output, const char *identity, const struct toc *toc)
{
    output->folder = lock_own(output->partial);
    if (output->folder < 0)
        return false;
    enum journal_state state = journal_read(&output->journal, output->folder, output->partial);
    if (state == JOURNAL_WHOLE) {
        if (!journal_is_of(&output->journal, identity, toc))
            die(journal_find(&output->journal, "whole")
                    ? "%s: is a complete checkpoint, of a run with other input or options that "
                      "died before its last step; the same command as then finishes it, or move or "
                      "remove it"
                    : "%s: was left by a run with other input or options; remove it (rm -r) to "
                      "start again",
                output->partial);
        return true;
    }
    journal_free(&output->journal);
    bool others = count_entries(output->partial) > (state != JOURNAL_NONE);
    if (state == JOURNAL_FOREIGN || (state == JOURNAL_NONE && others))
        die("%s: is in the way: st-write did not make it; move or remove it", output->partial);
    if (others)
        die("%s: its journal is damaged; remove the folder (rm -r) to start again",
            output->partial);
    return false;
}

bool output_dir_adopt(struct output_dir *output)
{
    output->folder = lock_own(output->partial);
    if (output->folder < 0)
        die_errno("%s: st-write --part writes parts there", output->partial);
    enum journal_state state = journal_read(&output->journal, output->folder, output->partial);
    if (state == JOURNAL_WHOLE)
        return true;
    if (state == JOURNAL_FOREIGN)
        die("%s: is in the way: st-write did not make it; move or remove it", output->partial);
    journal_free(&output->journal);
    return false;
}

void output_dir_begin(struct output_dir *output, const char *identity, const struct toc *toc)
{
    if (output->folder < 0) {
        if (mkdir(output->partial, 0777))
            die_errno("%s", output->partial);
        output->folder = lock_own(output->partial);
    }
    if (output->folder < 0)
        die_errno("%s", output->partial);
    journal_begin(&output->journal, output->folder, output->partial, identity, toc);
}

static void make_folders(struct output_dir *output, const char *name)
{
    for (const char *slash = strchr(name, '/'); slash; slash = strchr(slash + 1, '/')) {
        char *folder = xprintf("%.*s", (int)(slash - name), name);
        struct stat status;
        if (mkdirat(output->folder, folder, 0777) && errno != EEXIST)
            die_errno("%s/%s", output->partial, folder);
        /* never follow a link out of the folder */
        if (fstatat(output->folder, folder, &status, AT_SYMLINK_NOFOLLOW) ||
            !S_ISDIR(status.st_mode))
            die("%s/%s: not a folder, but %s belongs in it", output->partial, folder, name);
        free(folder);
    }
}

int output_dir_open(struct output_dir *output, const char *name, bool truncate)
{
    make_folders(output, name);
    names_add(output->opened, name);
    int fd = openat(output->folder, name,
                    O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | (truncate ? O_TRUNC : 0), 0666);
    if (fd < 0)
        die_errno("%s/%s", output->partial, name);
    return fd;
}

void output_dir_refuse_foreign(const struct output_dir *output, bool (*is_known)(const char *name))
{
    struct names *own = output->opened;
    names_add(own, journal_name);
    char *name = foreign_file(output->partial, own, is_known);
    if (name)
        die("%s/%s: st-write did not write it; move it away, and run the same command again",
            output->partial, name);
}

void output_dir_close(int fd, const char *name, bool sync)
{
    if (sync && fsync(fd))
        die_errno("%s: syncing it to disk", name);
    if (close(fd))
        die_errno("%s: closing it", name);
}

void output_dir_put(struct output_dir *output, const char *name, const char *data, uint64_t size)
{
    int fd = output_dir_open(output, name, true);
    char *what = xprintf("%s/%s", output->partial, name);
    write_at(fd, 0, data, size, what);
    free(what);
    output_dir_close(fd, name, true);
}

bool output_dir_stat(const struct output_dir *output, const char *name, struct stat *status)
{
    if (output->folder >= 0)
        return !fstatat(output->folder, name, status, AT_SYMLINK_NOFOLLOW);
    char *path = xprintf("%s/%s", output->partial, name);
    bool found = !lstat(path, status);
    free(path);
    return found;
}

uint64_t output_dir_holds(const struct output_dir *output, const char *name)
{
    enum { BLOCK = 512 }; /* of st_blocks */
    struct stat status;
    return output_dir_stat(output, name, &status) ? (uint64_t)status.st_blocks * BLOCK : 0;
}

uint64_t output_dir_free_bytes(const struct output_dir *output)
{
    struct statvfs status;
    if (statvfs(output->parent, &status))
        die_errno("%s", output->parent);
    return (uint64_t)status.f_bavail * status.f_frsize;
}

static int sync_entry(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status;
    (void)walk;
    if (type == FTW_D || type == FTW_DP)
        sync_folder(path);
    return 0;
}

/* Check that DST.partial is what this run wrote, and DST what it may replace: who can write in
 * their folder can rename both. */
static void check_names(const struct output_dir *output)
{
    struct stat status;
    if (!is_at(output->folder, output->partial))
        die("%s: was renamed or replaced, and is not put in place; move back what this run wrote, "
            "and run the same command again",
            output->partial);
    if (output->overwrite && !lstat(output->path, &status) && !is_at(output->old, output->path))
        die("%s: is not what was there when this run began; move it away, and run the same command "
            "again",
            output->path);
    /* Once more: when it was checked, another run may have been in its last step, or hours ago. */
    if (output->overwrite && !lstat(output->path, &status) && !output->inside)
        check_present(output);
}

void output_dir_finish(struct output_dir *output)
{
    if (nftw(output->partial, sync_entry, WALK_FILES, FTW_PHYS | FTW_DEPTH))
        die_errno("%s", output->partial);
    struct stat status;
    bool present = !lstat(output->path, &status), replace = output->overwrite && present;
    check_names(output);
    if (output->inside && count_present(output))
        die("%s: holds other files by now; move them away, and run the same command again",
            output->path);
    if (replace && !output->inside) {
        char *note = folder_note("replaces", &status);
        journal_note(&output->journal, note);
        free(note);
    }
    journal_note(&output->journal, "whole\n");
    journal_close(&output->journal);
    if (output->inside)
        move_up(output, output->folder);
    else if (replace)
        exchange(output);
    else if (rename(output->partial, output->path))
        die_errno("%s: renaming %s to it", output->path, output->partial);
    if (!output->inside)
        check_renamed(output, RENAME_NOREPLACE);
    sync_folder(output->parent);
    close(output->folder);
    output->folder = -1;
    /* the remaining steps, as after a kill at this point */
    if (!output_dir_was_done(output, NULL, NULL) && !output->inside)
        die("%s: was renamed when only its journal was left to remove; move it back, and run the "
            "same command again",
            output->path);
}

void output_dir_free(struct output_dir *output)
{
    if (output->folder >= 0)
        close(output->folder);
    if (output->old >= 0)
        close(output->old);
    journal_free(&output->journal);
    names_free(output->opened);
    free(output->path);
    free(output->partial);
    free(output->parent);
}
