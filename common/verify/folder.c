#include "verify/folder.h"

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
#include "base/placeholder.h"
#include "base/text.h"
#include "stream/checkpoint.h"
#include "stream/index.h"
#include "stream/safetensors.h"

/* ---- shards ---- */

/* The text, which the caller frees, or NULL: what is wrong with a file before it is parsed. */
static char *unusable(const char *path)
{
    struct stat status;
    char head[PLACEHOLDER_HEAD];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &status)) {
        char *error = xstrdup(strerror(errno));
        if (fd >= 0)
            close(fd);
        return error;
    }
    ssize_t size = S_ISREG(status.st_mode) ? pread(fd, head, sizeof head, 0) : 0;
    const char *what = !S_ISREG(status.st_mode) ? "not a regular file"
                       : size < 0               ? strerror(errno)
                                                : placeholder(head, (size_t)size);
    close(fd);
    return what ? xstrdup(what) : NULL;
}

static void add_line(struct folder *folder, const struct toc *from, size_t line, uint64_t offset,
                     struct facts *facts)
{
    struct toc *toc = folder->toc;
    const struct tensor *tensor = &from->tensor[line];
    if (offset % dtype_size(tensor->dtype))
        facts_add(facts, FACT_ALIGNMENT, "%s: at byte %" PRIu64 " of %s, not aligned for %s",
                  tensor->name, offset, from->shard[tensor->shard], dtype_name(tensor->dtype));
    toc_copy(toc, from, line);
    folder->offset = xgrow(folder->offset, toc->capacity, sizeof *folder->offset);
    folder->offset[toc->count - 1] = offset;
}

static void read_shard(struct folder *folder, const char *name, struct facts *facts)
{
    char *path = xprintf("%s/%s", folder->path, name), *error = unusable(path);
    struct toc *toc = toc_new();
    uint64_t *offset = NULL;
    uint32_t shard = toc_shard(toc, name), own = toc_shard(folder->toc, name);
    size_t line;
    if (!error) {
        size_t source = sources_add(&folder->sources, name, path);
        folder->shard_source =
            xgrow(folder->shard_source, folder->toc->shards, sizeof *folder->shard_source);
        folder->shard_source[own] = source;
        int fd = sources_acquire(&folder->sources, source);
        error = safetensors_read(fd, folder->sources.file[source].size, toc, shard, &offset);
        sources_release(&folder->sources, source);
    }
    const char *twice = error ? NULL : toc_check_unique(toc, &line);
    if (twice)
        error = xprintf("tensor %s: %s", toc->tensor[line].name, twice);
    if (error)
        facts_add(facts, FACT_SHARD, "%s: %s", name, error);
    for (size_t i = 0; !error && i < toc->count; i++)
        add_line(folder, toc, i, offset[i], facts);
    free(error);
    free(offset);
    free(path);
    toc_free(toc);
}

static int is_shard(const struct dirent *entry)
{
    return ends_with(entry->d_name, ".safetensors") && shard_name_valid(entry->d_name);
}

/* All shards in the folder; `index` may be NULL. */
static void read_shards(struct folder *folder, const struct toc *index, struct facts *facts)
{
    struct dirent **entry;
    int count = scandir(folder->path, &entry, is_shard, alphasort);
    if (count < 0)
        die_errno("%s", folder->path);
    for (size_t i = 0; index && i < index->shards; i++)
        read_shard(folder, index->shard[i], facts);
    for (int i = 0; i < count; i++) {
        bool named = false;
        for (size_t j = 0; index && j < index->shards; j++)
            named |= !strcmp(index->shard[j], entry[i]->d_name);
        if (!index)
            read_shard(folder, entry[i]->d_name, facts);
        else if (!named)
            facts_add(facts, FACT_INDEX, "%s: a shard that the index does not name",
                      entry[i]->d_name);
        free(entry[i]);
    }
    free(entry);
    if (!count && !index)
        die("%s: no .safetensors file and no " CHECKPOINT_INDEX " in it; is it a checkpoint?",
            folder->path);
}

/* Keep the first of each name; the others are a fault of the shards. */
static void drop_repeated(struct folder *folder, struct facts *facts)
{
    struct toc *all = folder->toc, *once = toc_new();
    for (size_t i = 0; i < all->shards; i++)
        toc_shard(once, all->shard[i]);
    for (size_t i = 0; i < all->count; i++) {
        const struct tensor *tensor = &all->tensor[i];
        int64_t first = toc_find(all, tensor->name);
        if (first == (int64_t)i) {
            folder->offset[once->count] = folder->offset[i];
            toc_copy(once, all, i);
        } else {
            facts_add(facts, FACT_INDEX, "%s: is in two shards, %s and %s", tensor->name,
                      all->shard[all->tensor[first].shard], all->shard[tensor->shard]);
        }
    }
    toc_free(all);
    folder->toc = once;
}

/* ---- index ---- */

/* What the index says of tensors; of a shard that could not be read, nothing is known. */
static void compare_index(const struct folder *folder, struct toc *index, int64_t total_size,
                          struct facts *facts)
{
    struct toc *toc = folder->toc;
    bool all_read = !facts->of[FACT_SHARD].count;
    for (size_t i = 0; i < index->count; i++) {
        const struct tensor *named = &index->tensor[i];
        const char *wanted = index->shard[named->shard];
        int64_t line = toc_find(toc, named->name);
        const char *there = line < 0 ? NULL : toc->shard[toc->tensor[line].shard];
        if (there && strcmp(there, wanted) != 0)
            facts_add(facts, FACT_INDEX, "%s: the index names %s, but it is in %s", named->name,
                      wanted, there);
        else if (!there && all_read)
            facts_add(facts, FACT_INDEX, "%s: the index names %s, which has no such tensor",
                      named->name, wanted);
    }
    for (size_t i = 0; i < toc->count; i++)
        if (toc_find(index, toc->tensor[i].name) < 0)
            facts_add(facts, FACT_INDEX, "%s: in %s, but not in the index", toc->tensor[i].name,
                      toc->shard[toc->tensor[i].shard]);
    uint64_t bytes = toc_bytes(toc, true);
    if (total_size < 0)
        facts_add(facts, FACT_TOTAL_SIZE, "the index has no metadata.total_size");
    else if (all_read && (uint64_t)total_size != bytes)
        facts_add(facts, FACT_TOTAL_SIZE,
                  "the index says %" PRId64 " bytes, the tensors have %" PRIu64, total_size, bytes);
}

/* NULL if there is none, or none that can be read. */
static struct toc *read_index(const struct folder *folder, int64_t *total_size, struct facts *facts)
{
    char *path = xprintf("%s/" CHECKPOINT_INDEX, folder->path);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 && errno != ENOENT)
        die_errno("%s", path);
    struct toc *index = fd < 0 ? NULL : toc_new();
    char *error = fd < 0 ? NULL : index_read(fd, index, total_size);
    if (error) {
        facts_add(facts, FACT_INDEX, CHECKPOINT_INDEX ": %s", error);
        toc_free(index);
        index = NULL;
        free(error);
    }
    if (fd >= 0)
        close(fd);
    free(path);
    return index;
}

/* ---- configs ---- */

/* A JSON object from the folder; NULL, with the fact, if it cannot be read; NULL if there is no
 * such file. */
static json_t *read_json(const struct folder *folder, const char *name, enum fact fact,
                         struct facts *facts)
{
    char *path = xprintf("%s/%s", folder->path, name), *error = NULL;
    json_error_t where;
    json_t *value = NULL;
    if (folder_has(folder, name) && !(error = unusable(path))) {
        value = json_file_within(path, JSON_REJECT_DUPLICATES, &where);
        if (!json_is_object(value))
            error = value ? xstrdup("not a JSON object")
                          : xprintf("line %d: %s", where.line, where.text);
    }
    if (error) {
        facts_add(facts, fact, "%s: %s", name, error);
        json_decref(value);
        value = NULL;
    }
    free(error);
    free(path);
    return value;
}

/* ---- all of it ---- */

void folder_open(struct folder *folder, const char *path, struct facts *facts)
{
    struct stat status;
    int64_t total_size;
    *folder = (struct folder){.path = path, .toc = toc_new()};
    if (stat(path, &status))
        die_errno("%s", path);
    if (!S_ISDIR(status.st_mode))
        die("%s: not a folder; a checkpoint to verify is a folder, with its configs", path);
    if (folder_has(folder, CHECKPOINT_JOURNAL))
        die("%s: st-write did not finish this folder; run it again to the end", path);
    folder->config = read_json(folder, "config.json", FACT_CONFIG, facts);
    folder->hf_quant = read_json(folder, "hf_quant_config.json", FACT_HF_QUANT, facts);
    folder->model = model_open(json_string_value(json_object_get(folder->config, "model_type")),
                               folder->config);
    struct toc *index = read_index(folder, &total_size, facts);
    read_shards(folder, index, facts);
    drop_repeated(folder, facts);
    if (index)
        compare_index(folder, index, total_size, facts);
    else if (folder->toc->shards > 1)
        facts_add(facts, FACT_INDEX, "several shards, and no " CHECKPOINT_INDEX " that names them");
    toc_free(index);
    if (folder->toc->count)
        model_sort(folder->model, folder->toc, folder->offset, sizeof *folder->offset);
}

void folder_close(struct folder *folder)
{
    toc_free(folder->toc);
    free(folder->offset);
    free(folder->shard_source);
    sources_free(&folder->sources);
    json_decref(folder->config);
    json_decref(folder->hf_quant);
    model_close(folder->model);
    *folder = (struct folder){0};
}

struct evidence folder_evidence(const struct folder *folder, const struct facts *facts)
{
    return (struct evidence){
        .config = folder->config, .hf_quant = folder->hf_quant, .found = facts_found(facts)};
}

void folder_read(struct folder *folder, size_t line, uint64_t at, void *data, size_t size)
{
    const struct tensor *tensor = &folder->toc->tensor[line];
    sources_read(&folder->sources, folder->shard_source[tensor->shard], folder->offset[line] + at,
                 data, size, tensor->name);
}

bool folder_has(const struct folder *folder, const char *name)
{
    struct stat status;
    char *path = xprintf("%s/%s", folder->path, name);
    bool there = !stat(path, &status);
    free(path);
    return there;
}
