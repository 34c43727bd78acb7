#include "write/parts.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/die.h"
#include "base/folder.h"
#include "base/names.h"
#include "base/number.h"
#include "base/output.h"
#include "base/owner.h"
#include "base/text.h"
#include "stream/checkpoint.h"
#include "stream/counts.h"
#include "write/copy.h"

static const char table_file[] = "part.ts", notes_file[] = "part.notes";
static const char shard_suffix[] = ".safetensors";
enum { PARTS_MAX = 999999999, DIGITS = 12 };

/* A part's folder, parsed from its name. */
struct part {
    uint64_t number, of; /* number 2 of 3 */
    char run[DIGITS + 1];
    bool complete;
    char *name;
};

/* All parts in a folder. */
struct list {
    struct part *part;
    size_t count;
};

/* ---- names ---- */

static bool skip(const char **text, const char *prefix)
{
    bool found = starts_with(*text, prefix);
    *text += found ? strlen(prefix) : 0;
    return found;
}

static bool parse_name(const char *name, struct part *part)
{
    const char *at = name;
    if (!skip(&at, "part-") || !number_parse(&at, PARTS_MAX, &part->number) || !skip(&at, "-of-") ||
        !number_parse(&at, PARTS_MAX, &part->of) || !skip(&at, "-") ||
        strspn(at, "0123456789abcdef") != DIGITS || !part->number || part->number > part->of)
        return false;
    memcpy(part->run, at, DIGITS);
    part->run[DIGITS] = 0;
    at += DIGITS;
    part->complete = !*at;
    return part->complete || !strcmp(at, ".partial");
}

static int by_number(const void *a, const void *b)
{
    const struct part *x = a, *y = b;
    return x->number != y->number ? (x->number > y->number) - (x->number < y->number)
                                  : x->complete - y->complete;
}

static void list_free(struct list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->part[i].name);
    free(list->part);
}

/* The parts in a folder, by number. */
static void list_parts(struct list *list, const char *partial)
{
    *list = (struct list){0};
    DIR *folder = opendir(partial);
    if (!folder && errno == ENOENT)
        return;
    if (!folder)
        die_errno("%s", partial);
    for (struct dirent *entry; errno = 0, (entry = readdir(folder));) {
        struct part part;
        if (!parse_name(entry->d_name, &part))
            continue;
        part.name = xstrdup(entry->d_name);
        list->part = xgrow(list->part, list->count + 1, sizeof *list->part);
        list->part[list->count++] = part;
    }
    if (errno)
        die_errno("%s", partial);
    closedir(folder);
    if (list->count)
        qsort(list->part, list->count, sizeof *list->part, by_number);
}

/* ---- one part ---- */

static bool parse_scope(const char *scope, struct part *part)
{
    return skip(&scope, "part ") && number_parse(&scope, PARTS_MAX, &part->number) &&
           skip(&scope, "/") && number_parse(&scope, PARTS_MAX, &part->of) &&
           (!*scope || skip(&scope, ", shards "));
}

static void check_journal(const char *partial)
{
    char *journal = xprintf("%s/" CHECKPOINT_JOURNAL, partial);
    if (!access(journal, F_OK))
        die("%s: belongs to a run in one piece, or is being joined (--join continues that); remove "
            "it (rm -r) to start again",
            partial);
    free(journal);
}

void parts_check(const char *partial, const char *scope, const char *identity)
{
    struct part own = {0};
    struct list list;
    bool is_part = parse_scope(scope, &own);
    list_parts(&list, partial);
    if (!list.count)
        check_journal(partial);
    for (size_t i = 0; i < list.count; i++) {
        if (identity && strncmp(list.part[i].run, identity, DIGITS) != 0)
            die("%s: holds %s, a part of a run with other input or options; remove it (rm -r) to "
                "start again",
                partial, list.part[i].name);
        if (is_part && list.part[i].of != own.of)
            die("%s: holds %s; run it in %" PRIu64 " parts, too (-j %" PRIu64 "), to continue, or "
                "remove it (rm -r) to start again",
                partial, list.part[i].name, list.part[i].of, list.part[i].of);
    }
    list_free(&list);
}

char *parts_folder(const char *partial, const char *scope, const char *identity)
{
    struct part own;
    if (!parse_scope(scope, &own))
        return NULL;
    if (mkdir(partial, 0777) && errno != EEXIST)
        die_errno("%s", partial);
    int whole = open(partial, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (whole < 0)
        die_errno("%s", partial);
    owner_refuse_other(whole, partial);
    close(whole);
    char *folder = xprintf("%s/part-%" PRIu64 "-of-%" PRIu64 "-%.*s", partial, own.number, own.of,
                           DIGITS, identity);
    if (access(folder, F_OK)) /* a complete part may be being joined */
        check_journal(partial);
    parts_check(partial, scope, identity);
    return folder;
}

char *parts_present(const char *partial, uint64_t number, uint64_t of, bool *complete)
{
    struct list list;
    char *folder = NULL;
    list_parts(&list, partial);
    for (size_t i = 0; i < list.count && !folder; i++) {
        const struct part *part = &list.part[i];
        if (part->number != number || part->of != of)
            continue;
        folder = xprintf("%s/part-%" PRIu64 "-of-%" PRIu64 "-%s", partial, number, of, part->run);
        *complete = part->complete;
    }
    list_free(&list);
    return folder;
}

uint64_t parts_begun(const char *partial)
{
    struct list list;
    list_parts(&list, partial);
    uint64_t of = list.count ? list.part[0].of : 0;
    list_free(&list);
    return of;
}

bool parts_own(const char *name)
{
    struct part part;
    return parse_name(name, &part) || !strcmp(name, table_file) || !strcmp(name, notes_file);
}

static void write_notes(const char *folder, const char *notes)
{
    struct output out;
    char *path = xprintf("%s/%s", folder, notes_file);
    output_open(&out, path);
    write_at(out.fd, 0, notes, strlen(notes), path);
    output_finish(&out);
    free(path);
}

char *parts_notes(const char *folder)
{
    char *path = xprintf("%s/%s", folder, notes_file);
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &status))
        die_errno("%s", path);
    if (!S_ISREG(status.st_mode))
        die("%s: not a regular file; remove its folder, and run that part again", path);
    char *notes = xalloc((size_t)status.st_size + 1, 1);
    read_at(fd, 0, notes, (size_t)status.st_size, path);
    close(fd);
    free(path);
    return notes;
}

void parts_leave(const char *folder, const struct stage *stage, struct ts_in *in,
                 const struct toc *toc, const char *notes, const char *identity, uint64_t finished)
{
    write_notes(folder, notes);
    char *path = xprintf("%s/%s", folder, table_file);
    struct stage file = {.output = path, .entry = stage->entry, .plan = true};
    json_object_set_new(ts_header(in), "identity", json_string(identity));
    json_object_set_new(ts_header(in), "finished", json_integer((json_int_t)finished));
    ts_finish(ts_create(&file, in, toc), in, NULL);
    free(path);
}

static uint64_t bytes_in(const char *path)
{
    enum { BLOCK = 512 }; /* of st_blocks */
    struct stat status;
    uint64_t bytes = 0;
    DIR *folder = opendir(path);
    if (!folder)
        return 0; /* it may be complete by now and have another name */
    for (struct dirent *entry; (entry = readdir(folder));)
        if (!fstatat(dirfd(folder), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) &&
            S_ISREG(status.st_mode))
            bytes += (uint64_t)status.st_blocks * BLOCK;
    closedir(folder);
    return bytes;
}

uint64_t parts_left_over(const char *partial)
{
    struct list list;
    uint64_t bytes = 0;
    list_parts(&list, partial);
    for (size_t i = 0; i < list.count; i++) {
        char *path = xprintf("%s/%s", partial, list.part[i].name);
        bytes += bytes_in(path);
        free(path);
    }
    list_free(&list);
    return bytes;
}

/* ---- all parts ---- */

/* Check that all parts are there, once each, and of one run. */
static void check_parts(const struct list *list, const char *partial)
{
    if (!list->count)
        die("%s: holds no parts; st-write --part writes them", partial);
    const struct part *first = list->part;
    for (size_t i = 0; i < list->count; i++) {
        const struct part *part = &list->part[i];
        if (part->of != first->of || strcmp(part->run, first->run) != 0)
            die("%s: %s and %s do not belong together; remove those that are not wanted", partial,
                first->name, part->name);
    }
    for (uint64_t number = 1; number <= first->of; number++) {
        const struct part *part = number <= list->count ? &list->part[number - 1] : NULL;
        if (!part || part->number != number)
            die("%s: part %" PRIu64 " of %" PRIu64 " is missing; run it", partial, number,
                first->of);
        if (!part->complete)
            die("%s: part %" PRIu64 " of %" PRIu64 " is not complete; if it is no longer running, "
                "run it again",
                partial, number, first->of);
    }
}

/* Texts and arrays are the first part's: they are the same in all, but for the first of what was
 * counted. */
static void gather_counts(struct parts *parts, struct ts_in *in)
{
    const json_t *counts = ts_end_counts(in);
    if (!parts->counts)
        parts->counts = json_deep_copy(counts);
    else
        for (size_t i = 0; i < json_array_size(counts); i++)
            if (!counts_add(json_array_get(parts->counts, i), json_array_get(counts, i)))
                die("%s: its counts and those of other parts do not add up; remove its folder, and "
                    "run it again",
                    ts_name(in));
}

static void gather_table(struct parts *parts, struct ts_in *in)
{
    const struct toc *toc = ts_toc(in);
    for (size_t i = 0; i < toc->count; i++)
        if (!toc->tensor[i].context)
            toc_copy(parts->toc, toc, i);
}

/* Check that the folder of a part holds nothing but what st-write wrote there. */
static void check_files(struct ts_in *in, const char *folder)
{
    const struct toc *toc = ts_toc(in);
    DIR *entries = opendir(folder);
    if (!entries)
        die_errno("%s", folder);
    for (struct dirent *entry; errno = 0, (entry = readdir(entries));) {
        static const char *const own[] = {".", "..", table_file, notes_file, CHECKPOINT_JOURNAL};
        const char *name = entry->d_name;
        bool known = names_find(toc->shard_names, name, strlen(name)) >= 0;
        for (size_t i = 0; i < sizeof own / sizeof *own; i++)
            known |= !strcmp(name, own[i]);
        if (!known)
            die("%s/%s: st-write did not write it; move it away", folder, name);
    }
    if (errno)
        die_errno("%s", folder);
    closedir(entries);
}

/* A FIFO would be waited for. */
static void check_regular(const char *path)
{
    struct stat status;
    if (lstat(path, &status))
        die_errno("%s", path);
    if (!S_ISREG(status.st_mode))
        die("%s: not a regular file; remove its folder, and run that part again", path);
}

static void gather_notes(struct parts *parts, const char *folder)
{
    char *more = parts_notes(folder);
    char *all = xprintf("%s%s", parts->notes ? parts->notes : "", more);
    free(parts->notes);
    free(more);
    parts->notes = all;
}

static void gather_part(struct parts *parts, struct ts_in *in)
{
    const char *identity = json_string_value(json_object_get(ts_header(in), "identity"));
    if (!identity || strlen(identity) != DIGEST_TEXT - 1)
        die("%s: has no identity; st-write --part did not write it", ts_name(in));
    if (!parts->in)
        memcpy(parts->identity, identity, DIGEST_TEXT);
    if (strcmp(parts->identity, identity) != 0)
        die("%s: does not belong to the other parts; remove its folder, and run it again",
            ts_name(in));
    gather_table(parts, in);
    while (ts_next(in))
        continue;
    gather_counts(parts, in);
    parts->finished += (uint64_t)json_integer_value(json_object_get(ts_header(in), "finished"));
}

void parts_gather(struct parts *parts, const char *partial)
{
    struct list list;
    size_t line;
    list_parts(&list, partial);
    check_parts(&list, partial);
    *parts = (struct parts){.toc = toc_new()};
    for (size_t i = 0; i < list.count; i++) {
        char *folder = xprintf("%s/%s", partial, list.part[i].name);
        char *path = xprintf("%s/%s", folder, table_file);
        gather_notes(parts, folder);
        check_regular(path);
        struct ts_in *in = ts_open(path, NULL);
        gather_part(parts, in);
        check_files(in, folder);
        free(folder);
        if (!parts->in)
            parts->in = in;
        else
            ts_close(in);
        free(path);
    }
    list_free(&list);
    const char *error = toc_check_unique(parts->toc, &line);
    if (error)
        die("%s: tensor %s of two parts: %s; remove them, and run them again", partial,
            parts->toc->tensor[line].name, error);
    model_sort(ts_model(parts->in), parts->toc, NULL, 0);
}

void parts_free(struct parts *parts)
{
    ts_close(parts->in);
    toc_free(parts->toc);
    json_decref(parts->counts);
    free(parts->notes);
}

int parts_open(const char *partial, const char *shard, char **folder)
{
    struct list list;
    int fd = -1;
    list_parts(&list, partial);
    for (size_t i = 0; i <= list.count && fd < 0; i++) { /* the last time, where all are moved to */
        *folder = i < list.count ? xprintf("%s/%s", partial, list.part[i].name) : xstrdup(partial);
        char *path = xprintf("%s/%s", *folder, shard);
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd < 0 && errno != ENOENT)
            die_errno("%s", path);
        free(path);
        if (fd < 0)
            free(*folder);
    }
    list_free(&list);
    return fd;
}

/* Move a part's shards up and remove its folder with its table, and with the journal that a run
 * killed in its last step may have left. */
static void move_part(const char *partial, const char *name)
{
    static const char *const own[] = {table_file, notes_file, CHECKPOINT_JOURNAL};
    char *folder = xprintf("%s/%s", partial, name);
    DIR *entries = opendir(folder);
    if (!entries)
        die_errno("%s", folder);
    for (struct dirent *entry; errno = 0, (entry = readdir(entries));) {
        if (!ends_with(entry->d_name, shard_suffix))
            continue;
        char *from = xprintf("%s/%s", folder, entry->d_name);
        char *to = xprintf("%s/%s", partial, entry->d_name);
        if (rename(from, to))
            die_errno("%s: moving it to %s", from, to);
        free(from);
        free(to);
    }
    if (errno)
        die_errno("%s", folder);
    folder_sync(dirfd(entries), folder);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (unlinkat(dirfd(entries), own[i], 0) && errno != ENOENT)
            die_errno("%s/%s", folder, own[i]);
    closedir(entries);
    if (rmdir(folder))
        die_errno("%s", folder);
    free(folder);
}

void parts_move_up(const char *partial)
{
    struct list list;
    list_parts(&list, partial);
    for (size_t i = 0; i < list.count; i++)
        move_part(partial, list.part[i].name);
    list_free(&list);
}
