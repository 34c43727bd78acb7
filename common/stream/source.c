#include "stream/source.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/die.h"
#include "base/json.h"
#include "base/mtime.h"
#include "base/names.h"
#include "base/number.h"
#include "base/text.h"
#include "base/utf8.h"
#include "stream/reach.h"

enum { MAX_OPEN = 16 }; /* more only if more are in use at once */

struct descriptor {
    int fd;         /* -1 if not open */
    unsigned users; /* number of acquisitions not yet released; open while not 0 */
    uint64_t used;  /* time of last use, for closing the oldest */
    bool opened;    /* ever opened */
    bool fresh;     /* used since the last check */
};

/* Numbers of files. */
struct list {
    size_t *file, count, room;
};

struct descriptors {
    struct names *labels;  /* their numbers index sources.file[] */
    pthread_mutex_t mutex; /* guards all below */
    struct descriptor *of; /* by file */
    uint64_t clock;
    struct list open, fresh; /* what is in these is not looked for among all */
};

static void list_add(struct list *list, size_t file)
{
    if (list->count == list->room) {
        list->room = 2 * list->room + MAX_OPEN;
        list->file = xgrow(list->file, list->room, sizeof *list->file);
    }
    list->file[list->count++] = file;
}

void sources_free(struct sources *sources)
{
    struct descriptors *descriptors = sources->descriptors;
    for (size_t i = 0; i < sources->count; i++) {
        if (descriptors->of[i].fd >= 0)
            close(descriptors->of[i].fd);
        free(sources->file[i].label);
        free(sources->file[i].path);
    }
    if (descriptors) {
        names_free(descriptors->labels);
        pthread_mutex_destroy(&descriptors->mutex);
        free(descriptors->of);
        free(descriptors->open.file);
        free(descriptors->fresh.file);
        free(descriptors);
    }
    free(sources->file);
    free(sources->folder);
    *sources = (struct sources){0};
}

static struct source *append(struct sources *sources, const char *label)
{
    if (!sources->descriptors) {
        sources->descriptors = xalloc(1, sizeof *sources->descriptors);
        sources->descriptors->labels = names_new();
        pthread_mutex_init(&sources->descriptors->mutex, NULL);
    }
    struct descriptors *descriptors = sources->descriptors;
    size_t i = sources->count;
    if (names_add(descriptors->labels, label) != i)
        die("%s: two files of that name; rename or link one of them", label);
    sources->file = xgrow(sources->file, i + 1, sizeof *sources->file);
    descriptors->of = xgrow(descriptors->of, i + 1, sizeof *descriptors->of);
    sources->file[i] = (struct source){.label = xstrdup(label)};
    descriptors->of[i] = (struct descriptor){.fd = -1};
    sources->count++;
    return &sources->file[i];
}

static bool label_valid(const char *label)
{
    /* it becomes part of a link's text and, for shards, a file name */
    size_t length = strlen(label);
    return length > 0 && length <= 255 && text_is_line(label) && !strchr(label, '@');
}

bool source_path_valid(const char *path)
{
    bool is_text = utf8_valid(path, strlen(path)) == strlen(path); /* else see sources_to_json() */
    return !is_text || text_is_line(path);
}

size_t sources_add(struct sources *sources, const char *label, const char *path)
{
    struct stat status;
    char *real = realpath(path, NULL);
    if (!real || stat(real, &status))
        die_errno("%s", path);
    if (!S_ISREG(status.st_mode))
        die("%s: not a regular file; is this a checkpoint?", path);
    if (!label_valid(label) || !source_path_valid(real))
        die("%s: a stream cannot refer to a file of this name (over 255 bytes, '@' or a control "
            "character in it); rename it",
            printable(real));
    struct source *file = append(sources, label);
    file->path = real;
    file->size = (uint64_t)status.st_size;
    file->mtime_ns = mtime_ns(&status);
    file->ctime_ns = ctime_ns(&status);
    return sources->count - 1;
}

char *sources_from_json(struct sources *sources, const json_t *files)
{
    const char *label;
    json_t *entry;
    if (!json_is_object(files))
        return xprintf("'files' is not an object");
    json_object_foreach((json_t *)files, label, entry)
    {
        const char *path;
        json_int_t size, mtime, ctime = 0, phase = 0;
        if (json_unpack(entry, "{s:s, s:I, s:I, s?I, s?I}", "path", &path, "size", &size,
                        "mtime_ns", &mtime, "ctime_ns", &ctime, "phase", &phase) ||
            path[0] != '/' || !text_is_line(path) || size < 0 || phase < 0 || phase >= 4096 ||
            !label_valid(label)) {
            char *error =
                xprintf("'files' entry '%.80s' needs an absolute path, size and mtime_ns", label);
            return printable(error);
        }
        struct source *file = append(sources, label);
        file->path = xstrdup(path);
        file->size = (uint64_t)size;
        file->mtime_ns = mtime;
        file->ctime_ns = ctime;
        file->phase = (uint32_t)phase;
    }
    return NULL;
}

json_t *sources_to_json(const struct sources *sources)
{
    json_t *files = json_object();
    for (size_t i = 0; i < sources->count; i++) {
        const struct source *file = &sources->file[i];
        json_t *entry =
            json_pack("{s:s, s:I, s:I, s:I, s:i}", "path", file->path, "size",
                      (json_int_t)file->size, "mtime_ns", (json_int_t)file->mtime_ns, "ctime_ns",
                      (json_int_t)file->ctime_ns, "phase", (int)file->phase);
        if (!entry)
            die("%s: its path is not UTF-8, which a stream needs; move or link it", file->path);
        json_object_set_new(files, file->label, entry);
    }
    return files;
}

int64_t sources_find(const struct sources *sources, const char *label, size_t length)
{
    return sources->count ? names_find(sources->descriptors->labels, label, length) : -1;
}

bool sources_parse(const struct sources *sources, const char *text, uint64_t size, size_t *source,
                   uint64_t *offset)
{
    const char *at = strrchr(text, '@');
    uint64_t length, last;
    if (!at)
        return false;
    const char *p = at + 1;
    if (!number_parse(&p, UINT64_MAX, offset) || *p++ != '+' ||
        !number_parse(&p, UINT64_MAX, &length) || *p)
        return false;
    int64_t i = sources_find(sources, text, (size_t)(at - text));
    *source = (size_t)i;
    return i >= 0 && length == size && add_fits(*offset, length, &last) &&
           last <= sources->file[i].size;
}

static void check_unchanged(const struct source *file, const struct stat *status)
{
    if (!S_ISREG(status->st_mode))
        die("%s: not a regular file; a reference may only point into one", file->path);
    if ((uint64_t)status->st_size != file->size)
        die("%s: changed since the stream was made: size is %jd, was %" PRIu64
            "; run the pipeline again from st-read",
            file->path, (intmax_t)status->st_size, file->size);
    if (mtime_ns(status) != file->mtime_ns)
        die("%s: changed since the stream was made (modification time differs); run the pipeline "
            "again from st-read",
            file->path);
    if (file->ctime_ns && ctime_ns(status) != file->ctime_ns)
        die("%s: was replaced, linked or given other permissions since the stream was made; run "
            "the pipeline again from st-read",
            file->path);
}

/* Call the next three with the mutex held. */

static void close_oldest(struct sources *sources)
{
    struct list *open = &sources->descriptors->open;
    struct descriptor *of = sources->descriptors->of;
    size_t oldest = SIZE_MAX;
    for (size_t i = 0; i < open->count; i++) {
        const struct descriptor *this = &of[open->file[i]];
        if (!this->users && (oldest == SIZE_MAX || this->used < of[open->file[oldest]].used))
            oldest = i;
    }
    if (oldest == SIZE_MAX)
        return;
    close(of[open->file[oldest]].fd);
    of[open->file[oldest]].fd = -1;
    open->file[oldest] = open->file[--open->count];
}

static int open_unchanged(const struct source *file, const char *folder)
{
    struct stat status;
    if (stat(file->path, &status))
        die_errno("%s: the stream refers to this file (st-read --root OLD=NEW re-points a stream)",
                  file->path);
    check_unchanged(file, &status); /* merely opening some devices has effects */
    /* O_NONBLOCK: a FIFO that replaced the file must not block us */
    int fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &status))
        die_errno("%s", file->path);
    check_unchanged(file, &status);
    reach_check_open(file->path, fd, folder, file->claimed);
    return fd;
}

static int use(struct sources *sources, size_t i)
{
    struct descriptors *descriptors = sources->descriptors;
    struct descriptor *descriptor = &descriptors->of[i];
    descriptor->used = ++descriptors->clock;
    if (descriptor->fd < 0) {
        if (descriptors->open.count >= MAX_OPEN)
            close_oldest(sources);
        descriptor->fd = open_unchanged(&sources->file[i], sources->folder);
        descriptor->opened = true;
        list_add(&descriptors->open, i);
    }
    if (!descriptor->fresh)
        list_add(&descriptors->fresh, i);
    descriptor->fresh = true;
    descriptor->users++;
    return descriptor->fd;
}

int sources_acquire(struct sources *sources, size_t i)
{
    pthread_mutex_lock(&sources->descriptors->mutex);
    int fd = use(sources, i);
    pthread_mutex_unlock(&sources->descriptors->mutex);
    return fd;
}

void sources_release(struct sources *sources, size_t i)
{
    pthread_mutex_lock(&sources->descriptors->mutex);
    sources->descriptors->of[i].users--;
    pthread_mutex_unlock(&sources->descriptors->mutex);
}

void sources_verify(struct sources *sources, size_t i)
{
    sources_acquire(sources, i);
    sources_release(sources, i);
}

int sources_dup(struct sources *sources, size_t i)
{
    int fd = fcntl(sources_acquire(sources, i), F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        die_errno("%s", sources->file[i].path);
    sources_release(sources, i);
    return fd;
}

void source_read(int fd, const char *path, uint64_t offset, void *data, size_t length,
                 const char *what)
{
    for (size_t done = 0; done < length;) {
        ssize_t got = pread(fd, (char *)data + done, length - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            die_errno("%s: %s: offset %" PRIu64, path, what, offset + done);
        if (got == 0)
            die("%s: %s: file ends at offset %" PRIu64 ", wanted %zu bytes more: it changed "
                "meanwhile; run the pipeline again from st-read",
                path, what, offset + done, length - done);
        done += (size_t)got;
    }
}

void sources_read(struct sources *sources, size_t i, uint64_t offset, void *data, size_t length,
                  const char *what)
{
    int fd = sources_acquire(sources, i);
    source_read(fd, sources->file[i].path, offset, data, length, what);
    sources_release(sources, i);
}

/* By path, not descriptor: a file replaced by another has changed, too. */
static void check_path(const struct source *file)
{
    struct stat status;
    if (stat(file->path, &status))
        die_errno("%s", file->path);
    check_unchanged(file, &status);
}

void sources_check_fresh(struct sources *sources)
{
    struct descriptors *descriptors = sources->descriptors;
    if (!descriptors)
        return;
    pthread_mutex_lock(&descriptors->mutex);
    struct list fresh = descriptors->fresh;
    descriptors->fresh = (struct list){0};
    for (size_t i = 0; i < fresh.count; i++) {
        struct descriptor *of = &descriptors->of[fresh.file[i]];
        of->fresh = of->users; /* what is being read is looked at the next time, too */
        if (of->fresh)
            list_add(&descriptors->fresh, fresh.file[i]);
    }
    pthread_mutex_unlock(&descriptors->mutex);
    for (size_t i = 0; i < fresh.count; i++)
        check_path(&sources->file[fresh.file[i]]);
    free(fresh.file);
}

void sources_check(struct sources *sources)
{
    for (size_t i = 0; i < sources->count; i++) {
        pthread_mutex_lock(&sources->descriptors->mutex);
        bool opened = sources->descriptors->of[i].opened;
        pthread_mutex_unlock(&sources->descriptors->mutex);
        if (opened)
            check_path(&sources->file[i]);
    }
}
