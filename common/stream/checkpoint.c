#include "stream/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/die.h"
#include "base/json.h"
#include "base/number.h"
#include "base/placeholder.h"
#include "base/text.h"
#include "model/model.h"
#include "stream/index.h"
#include "stream/reach.h"
#include "stream/safetensors.h"
#include "stream/shard_name.h"
#include "stream/side_name.h"

static const char index_name[] = CHECKPOINT_INDEX;
enum { PAGE = 4096 };

static void leave_out(struct checkpoint *checkpoint, const char *name)
{
    if (!checkpoint->left_out++)
        checkpoint->left_out_first = xstrdup(name);
}

/* As many of `size` bytes as the file has at `offset`. */
static size_t read_some(int fd, const char *path, char *data, size_t size, off_t offset)
{
    ssize_t got;
    do
        got = pread(fd, data, size, offset);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        die_errno("%s", path);
    return (size_t)got;
}

/* End the process if the file is not what its name says. */
static void refuse_placeholder(int fd, const char *path)
{
    char head[PLACEHOLDER_HEAD];
    const char *what = placeholder(head, read_some(fd, path, head, sizeof head, 0));
    if (what)
        die("%s: %s", path, what);
}

/* End the process if a JSON file of `size` bytes begins with a bracket and does not end with the
 * other one. */
static void refuse_cut_json(int fd, const char *path, off_t size)
{
    char head[PLACEHOLDER_HEAD] = "", tail[PLACEHOLDER_HEAD];
    off_t at = size > PLACEHOLDER_HEAD ? size - PLACEHOLDER_HEAD : 0;
    read_some(fd, path, head, sizeof head - 1, 0);
    size_t end = read_some(fd, path, tail, sizeof tail, at);
    char first = head[strspn(head, " \t\r\n")];
    while (end && strchr(" \t\r\n", tail[end - 1]) && tail[end - 1])
        end--;
    char last = 0;
    if (end)
        last = tail[end - 1];
    if ((first == '{' && last != '}') || (first == '[' && last != ']'))
        die("%s: is cut off, or its end never arrived; download it again", path);
}

/* A link may lead out of a folder that was downloaded: see reach.h. */
static void check_reach(const struct checkpoint *checkpoint, const char *path)
{
    char *real = realpath(path, NULL);
    if (!real)
        die_errno("%s", path);
    reach_check(path, real, checkpoint->folder, false);
    free(real);
}

static void read_shard(struct checkpoint *checkpoint, const char *path)
{
    struct toc *toc = checkpoint->toc;
    size_t before = toc->count;
    const char *label = shard_name_of(path);
    check_reach(checkpoint, path);
    uint32_t shard = toc_shard(toc, label);
    size_t source = sources_add(&checkpoint->sources, label, path);
    checkpoint->shard_source =
        xgrow(checkpoint->shard_source, toc->shards, sizeof *checkpoint->shard_source);
    checkpoint->shard_source[shard] = source;
    struct source *file = &checkpoint->sources.file[source];
    int fd = sources_acquire(&checkpoint->sources, source);
    refuse_placeholder(fd, path);
    char *error = safetensors_read(fd, file->size, toc, shard, &checkpoint->offset);
    sources_release(&checkpoint->sources, source);
    if (error)
        die("%s: %s; the file is damaged: compare its checksum with the publisher's", path, error);

    /* the offset within a page at which most of its whole-page bytes begin */
    uint64_t best = 0, *bytes = xalloc(PAGE, sizeof *bytes);
    for (size_t i = before; i < toc->count; i++)
        if (toc->tensor[i].size % PAGE == 0) {
            uint32_t phase = checkpoint->offset[i] % PAGE;
            bytes[phase] += toc->tensor[i].size;
            if (bytes[phase] > best) {
                best = bytes[phase];
                file->phase = phase;
            }
        }
    free(bytes);
}

/* Open a regular file for reading (a FIFO would block); -1 if it does not exist. */
static int open_regular(const char *path)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 && errno == ENOENT)
        return -1;
    if (fd < 0 || fstat(fd, &status))
        die_errno("%s", path);
    if (!S_ISREG(status.st_mode))
        die("%s: not a regular file; is this a checkpoint?", path);
    if (ends_with(path, ".json")) {
        refuse_placeholder(fd, path);
        refuse_cut_json(fd, path, status.st_size);
    }
    return fd;
}

/* A small file's bytes, NUL-terminated, which the caller frees. Closes it. */
static char *read_small_file(int fd, const char *path, size_t *size)
{
    char *data = xalloc(SIDE_FILE_INLINE_MAX + 2, 1);
    *size = 0;
    for (size_t got;
         (got = json_fill_file(&fd, data + *size, SIDE_FILE_INLINE_MAX + 1 - *size)) > 0;)
        *size += got;
    if (*size > SIDE_FILE_INLINE_MAX)
        die("%s: more than %d bytes; is this a checkpoint?", path, SIDE_FILE_INLINE_MAX);
    close(fd);
    return xgrow(data, *size + 1, 1);
}

static void add_side_file(struct checkpoint *checkpoint, const char *name, const char *path)
{
    struct stat status;
    if (stat(path, &status))
        die_errno("%s", path);
    if (!S_ISREG(status.st_mode)) {
        warn("%s: neither a regular file nor a folder; left out", path);
        return;
    }
    if (!side_file_name_valid(name))
        die("%s: a side file's name must be composed UTF-8 (NFC) without control characters; "
            "rename it",
            printable(xstrdup(path)));
    int fd = open_regular(path);
    if (fd < 0 || fstat(fd, &status))
        die_errno("%s", path);
    reach_check_open(path, fd, checkpoint->folder, false);
    checkpoint->file = xgrow(checkpoint->file, checkpoint->files + 1, sizeof *checkpoint->file);
    struct side_file *file = &checkpoint->file[checkpoint->files++];
    *file = (struct side_file){
        .name = xstrdup(name), .size = (uint64_t)status.st_size, .mode = status.st_mode};
    if (file->size > SIDE_FILE_INLINE_MAX) {
        close(fd);
        file->source = sources_add(&checkpoint->sources, name, path);
        return;
    }
    size_t size;
    file->data = read_small_file(fd, path, &size);
    if (size != file->size)
        die("%s: changed while it was being read; try again when nothing writes to it", path);
}

static int by_name(const void *a, const void *b)
{
    return natural_compare(*(char *const *)a, *(char *const *)b);
}

/* The names in a folder, sorted; the caller frees each and the array. */
static char **list_folder(const char *path, size_t *count)
{
    DIR *folder = opendir(path);
    if (!folder)
        die_errno("%s", path);
    char **name = NULL;
    struct dirent *entry;
    *count = 0;
    while (errno = 0, (entry = readdir(folder))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        name = xgrow(name, *count + 1, sizeof *name);
        name[(*count)++] = xstrdup(entry->d_name);
    }
    if (errno)
        die_errno("%s", path);
    closedir(folder);
    if (*count)
        qsort(name, *count, sizeof *name, by_name);
    return name;
}

static bool is_shard(const struct checkpoint *checkpoint, const char *name)
{
    for (size_t i = 0; i < checkpoint->toc->shards; i++)
        if (!strcmp(checkpoint->toc->shard[i], name))
            return true;
    return false;
}

static void read_side_files(struct checkpoint *checkpoint, const char *folder, const char *prefix,
                            unsigned depth)
{
    size_t count;
    if (depth > SIDE_FILE_DEPTH_MAX)
        die("%s: folders nested deeper than %d", folder, SIDE_FILE_DEPTH_MAX);
    char **names = list_folder(folder, &count);
    for (size_t i = 0; i < count; i++) {
        char *path = xprintf("%s/%s", folder, names[i]), *name = xprintf("%s%s", prefix, names[i]);
        struct stat status;
        if (lstat(path, &status))
            die_errno("%s", path);
        if (ends_with(name, ".safetensors")) {
            if (!is_shard(checkpoint, name))
                warn("%s: not a shard of this checkpoint; left out", path);
        } else if (side_file_excluded(name)) {
            if (strcmp(name, index_name) != 0)
                leave_out(checkpoint, name);
        } else if (S_ISDIR(status.st_mode)) {
            char *inner = xprintf("%s/", name);
            read_side_files(checkpoint, path, inner, depth + 1);
            free(inner);
        } else {
            add_side_file(checkpoint, name, path);
        }
        free(path);
        free(name);
        free(names[i]);
    }
    free(names);
}

/* Read the shards that weight_map names, ordered by name. */
static void read_indexed_shards(struct checkpoint *checkpoint, const char *folder,
                                const struct toc *index)
{
    char **names = xalloc(index->shards, sizeof *names);
    for (size_t i = 0; i < index->shards; i++)
        names[i] = index->shard[i];
    qsort(names, index->shards, sizeof *names, by_name);
    for (size_t i = 0; i < index->shards; i++) {
        char *path = xprintf("%s/%s", folder, names[i]);
        if (access(path, R_OK))
            die_errno("%s: named by %s (is the download complete?)", path, index_name);
        read_shard(checkpoint, path);
        free(path);
    }
    free(names);
}

/* weight_map as a table of tensor and shard names; NULL if there is no index. */
static struct toc *read_index(const char *path)
{
    int fd = open_regular(path);
    if (fd < 0)
        return NULL;
    struct toc *index = toc_new();
    char *error = index_read(fd, index, NULL);
    if (error)
        die("%s: %s; the index is damaged: get it again, or remove it to read all shards", path,
            error);
    close(fd);
    return index;
}

/* Forget the tensors that the index does not name. The shards are those that it names, so that they
 * keep their numbers. */
static void drop_unindexed(struct checkpoint *checkpoint, struct toc *index)
{
    struct toc *all = checkpoint->toc, *named = toc_new();
    for (size_t i = 0; i < all->count; i++)
        if (toc_find(index, all->tensor[i].name) >= 0) {
            checkpoint->offset[named->count] = checkpoint->offset[i];
            toc_copy(named, all, i);
        }
    toc_free(all);
    checkpoint->toc = named;
}

/* The index and the shards must agree; what the index does not name is no part of the checkpoint.
 */
static void check_index(struct checkpoint *checkpoint, struct toc *index, const char *path)
{
    struct toc *toc = checkpoint->toc;
    size_t last = 0;
    for (size_t i = 0; i < index->count; i++) {
        const struct tensor *named = &index->tensor[i];
        int64_t line = toc_find(toc, named->name);
        const char *wanted = index->shard[named->shard];
        if (line < 0)
            die("%s: names tensor %s in %s, which has no such tensor; get both again from the same "
                "place",
                path, named->name, wanted);
        if (strcmp(toc->shard[toc->tensor[line].shard], wanted) != 0)
            die("%s: names tensor %s in %s, but it is in %s; get all again from the same place",
                path, named->name, wanted, toc->shard[toc->tensor[line].shard]);
    }
    for (size_t i = 0; i < toc->count; i++) {
        int64_t first = toc_find(toc, toc->tensor[i].name);
        if (first != (int64_t)i)
            die("%s: tensor %s is in two shards, %s and %s; get all again from the same place",
                path, toc->tensor[i].name, toc->shard[toc->tensor[first].shard],
                toc->shard[toc->tensor[i].shard]);
        if (toc_find(index, toc->tensor[i].name) < 0) {
            checkpoint->unindexed++;
            last = i;
        }
    }
    if (!checkpoint->unindexed)
        return;
    warn("%s: does not name %zu of the tensors that the shards hold, such as %s; left out", path,
         checkpoint->unindexed, toc->tensor[last].name);
    drop_unindexed(checkpoint, index);
}

/* Without an index, only the shards' names tell whether they are all. */
static void set_scope(struct checkpoint *checkpoint)
{
    char *missing = shard_missing(checkpoint->toc->shard, checkpoint->toc->shards);
    if (missing)
        checkpoint->scope = xprintf("without %s", missing);
    free(missing);
}

/* Without an index, the shards' names and their tensors must do. */
static void check_shards(const struct checkpoint *checkpoint, const char *folder)
{
    struct toc *toc = checkpoint->toc;
    char *missing = shard_missing(toc->shard, toc->shards);
    if (missing && !shard_is_rank(missing))
        die("%s: %s is missing, going by the names of the others, and there is no %s (is the "
            "download complete?)",
            folder, missing, index_name);
    free(missing);
    for (size_t i = 0; i < toc->count; i++) {
        const char *shard = toc->shard[toc->tensor[i].shard];
        int64_t first = toc_find(toc, toc->tensor[i].name);
        const char *other = toc->shard[toc->tensor[first].shard];
        if (first != (int64_t)i && !(shard_is_rank(shard) && shard_is_rank(other)))
            die("%s: tensor %s is in two files, %s and %s, and there is no %s to tell which "
                "counts; remove the files that do not belong",
                folder, toc->tensor[i].name, other, shard, index_name);
    }
}

/* Read all shards that lie in the folder. */
static void read_all_shards(struct checkpoint *checkpoint, const char *folder)
{
    size_t count;
    char **names = list_folder(folder, &count);
    for (size_t i = 0; i < count; i++) {
        char *path = xprintf("%s/%s", folder, names[i]);
        if (ends_with(names[i], ".safetensors"))
            read_shard(checkpoint, path);
        free(path);
        free(names[i]);
    }
    free(names);
    check_shards(checkpoint, folder);
    set_scope(checkpoint);
}

static void refuse_unfinished(const char *folder, const char *name)
{
    char *journal = xprintf("%s/%s", folder, name);
    struct stat status;
    if (!lstat(journal, &status))
        die("%s: is there because st-write did not finish this folder; run it again to the end",
            journal);
    free(journal);
}

static void read_folder(struct checkpoint *checkpoint, const char *folder)
{
    char *index_path = xprintf("%s/%s", folder, index_name);
    refuse_unfinished(folder, CHECKPOINT_JOURNAL);
    refuse_unfinished(folder, CHECKPOINT_PARTIAL "/" CHECKPOINT_JOURNAL);
    struct toc *index = read_index(index_path);
    if (index) {
        read_indexed_shards(checkpoint, folder, index);
        check_index(checkpoint, index, index_path);
        toc_free(index);
    } else {
        read_all_shards(checkpoint, folder);
    }
    free(index_path);
    if (!checkpoint->toc->shards)
        die("%s: no .safetensors file and no %s in it; is it a checkpoint? (pt-read reads dumps)",
            folder, index_name);
    read_side_files(checkpoint, folder, "", 0);
}

/* Open the model with the config.json in `folder`, if there is one. */
static void open_model(struct checkpoint *checkpoint, const char *folder)
{
    char *path = xprintf("%s/config.json", folder);
    size_t size;
    int fd = open_regular(path);
    char *data = fd < 0 ? NULL : read_small_file(fd, path, &size);
    json_t *config = data ? json_object_from(data, size, path) : NULL;
    const char *type = json_string_value(json_object_get(config, "model_type"));
    checkpoint->model_type = type ? xstrdup(type) : NULL;
    checkpoint->model = model_open(type, config);
    json_decref(config);
    free(data);
    free(path);
}

void checkpoint_open(struct checkpoint *checkpoint, char **path, size_t count)
{
    struct stat status;
    *checkpoint = (struct checkpoint){.toc = toc_new()};
    if (stat(path[0], &status))
        die_errno("%s", path[0]);
    if (S_ISDIR(status.st_mode)) {
        if (count > 1)
            die_usage("%s: a folder must be the only operand", path[0]);
        checkpoint->folder = realpath(path[0], NULL);
        if (!checkpoint->folder)
            die_errno("%s", path[0]);
        checkpoint->sources.folder = xstrdup(checkpoint->folder);
        open_model(checkpoint, path[0]);
        read_folder(checkpoint, path[0]);
    } else {
        const char *slash = strrchr(path[0], '/');
        char *folder = slash ? xprintf("%.*s", (int)(slash - path[0]), path[0]) : xstrdup(".");
        open_model(checkpoint, folder);
        free(folder);
        for (size_t i = 0; i < count; i++)
            read_shard(checkpoint, path[i]);
        set_scope(checkpoint);
    }
    size_t line;
    const char *error = toc_check_unique(checkpoint->toc, &line);
    if (error) {
        const struct tensor *tensor = &checkpoint->toc->tensor[line];
        die("%s: tensor %s: %s; the file is damaged: compare its checksum with the publisher's",
            checkpoint->sources.file[checkpoint->shard_source[tensor->shard]].path, tensor->name,
            error);
    }
    if (checkpoint->toc->count) /* a file may hold no tensor */
        model_sort(checkpoint->model, checkpoint->toc, checkpoint->offset,
                   sizeof *checkpoint->offset);
}

void checkpoint_free(struct checkpoint *checkpoint)
{
    toc_free(checkpoint->toc);
    sources_free(&checkpoint->sources);
    for (size_t i = 0; i < checkpoint->files; i++) {
        free(checkpoint->file[i].name);
        free(checkpoint->file[i].data);
    }
    free(checkpoint->file);
    free(checkpoint->offset);
    free(checkpoint->shard_source);
    free(checkpoint->folder);
    free(checkpoint->scope);
    free(checkpoint->model_type);
    free(checkpoint->left_out_first);
    model_close(checkpoint->model);
    *checkpoint = (struct checkpoint){0};
}
