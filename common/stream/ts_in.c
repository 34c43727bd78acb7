/* Reading an open stream. Streams and checkpoints on disk look the same: a table, side files, and
 * for each tensor either a reference or inline bytes. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/json.h"
#include "base/names.h"
#include "base/progress.h"
#include "stream/counts.h"
#include "stream/stream_digest.h"
#include "stream/ts_in.h"

static const uint64_t read_all_max = 1 << 30;

const char *ts_name(const struct ts_in *in)
{
    return in->name;
}

struct toc *ts_toc(struct ts_in *in)
{
    return in->checkpoint.toc;
}

json_t *ts_header(struct ts_in *in)
{
    return in->header;
}

bool ts_is_whole(const struct ts_in *in)
{
    const char *scope = json_string_value(json_object_get(in->header, "scope"));
    return scope && !strcmp(scope, "all");
}

bool ts_is_of_shards(const struct ts_in *in)
{
    const char *scope = json_string_value(json_object_get(in->header, "scope"));
    return scope && strstr(scope, "shards ");
}

const struct model *ts_model(const struct ts_in *in)
{
    return in->checkpoint.model;
}

struct sources *ts_sources(struct ts_in *in)
{
    return &in->checkpoint.sources;
}

size_t ts_files(const struct ts_in *in)
{
    return in->checkpoint.files;
}

const char *ts_file(const struct ts_in *in, size_t i, uint64_t *size)
{
    *size = in->checkpoint.file[i].size;
    return in->checkpoint.file[i].name;
}

bool ts_file_ref(const struct ts_in *in, size_t i, size_t *source, uint64_t *offset)
{
    const struct side_file *file = &in->checkpoint.file[i];
    *source = file->source;
    *offset = file->offset;
    return !file->data;
}

int64_t ts_file_find(const struct ts_in *in, const char *name)
{
    for (size_t i = 0; i < in->checkpoint.files; i++)
        if (!strcmp(in->checkpoint.file[i].name, name))
            return (int64_t)i;
    return -1;
}

void ts_file_part(struct ts_in *in, size_t i, uint64_t offset, void *data, size_t size)
{
    const struct side_file *file = &in->checkpoint.file[i];
    if (offset > file->size || size > file->size - offset)
        die("%s: side file %s: read beyond its end", in->name, file->name);
    if (file->data)
        memcpy(data, file->data + offset, size);
    else
        sources_read(&in->checkpoint.sources, file->source, file->offset + offset, data, size,
                     file->name);
}

char *ts_file_read(struct ts_in *in, size_t i)
{
    const struct side_file *file = &in->checkpoint.file[i];
    if (file->size > SIDE_FILES_MAX)
        die("%s: side file %s has %" PRIu64 " bytes, too many to read at once", in->name,
            file->name, file->size);
    char *data = xgrow(NULL, (size_t)file->size + 1, 1);
    ts_file_part(in, i, 0, data, (size_t)file->size);
    data[file->size] = 0;
    return data;
}

json_t *ts_file_json(struct ts_in *in, const char *name)
{
    int64_t i = ts_file_find(in, name);
    if (i < 0)
        return NULL;
    char *what = xprintf("%s: %s", in->name, name);
    if (in->checkpoint.file[i].size > JSON_FILE_MAX)
        die("%s: more than 1 MiB; is this a checkpoint?", what);
    char *data = ts_file_read(in, (size_t)i);
    json_t *value = json_object_from(data, (size_t)in->checkpoint.file[i].size, what);
    free(what);
    free(data);
    return value;
}

unsigned ts_file_mode(const struct ts_in *in, size_t i)
{
    return (in->checkpoint.file[i].mode & 0044) | 0600;
}

json_t *ts_folders(struct ts_in *in)
{
    const struct sources *sources = &in->checkpoint.sources;
    json_t *folders = json_array();
    struct names *names = names_new();
    for (size_t i = 0; i < sources->count; i++) {
        const char *path = sources->file[i].path, *slash = strrchr(path, '/');
        char *folder = xprintf("%.*s", slash > path ? (int)(slash - path) : 1, path);
        if (names_add(names, folder) == json_array_size(folders))
            json_array_append_new(folders, json_string(folder));
        free(folder);
    }
    names_free(names);
    return folders;
}

/* ---- tensors ---- */

static void skip_rest(struct ts_in *in)
{
    if (in->tar && in->tensor && !in->by_reference)
        tar_skip(in->tar, in->tensor->name);
    in->tensor = NULL;
}

/* What earlier stages counted in a shard. */
static void add_shard_counts(struct ts_in *in, const char *shard, const json_t *stages)
{
    size_t end = counts_stages(json_object_get(in->header, "history"));
    if (names_find(in->checkpoint.toc->shard_names, shard, strlen(shard)) < 0 ||
        !counts_valid(stages, end) || !counts_add(in->counted, stages) ||
        !counts_valid(in->counted, end))
        die("%s: .counts: malformed, or not of this stream; make the stream again", in->name);
}

/* Read the entries .counts that come next. */
static void read_counts(struct ts_in *in)
{
    const char *shard;
    json_t *stages;
    for (const struct tar_entry *entry;
         (entry = tar_peek(in->tar)) && !strcmp(entry->path, ".counts");) {
        size_t size;
        char *data = tar_read_file(in->tar, ".counts", TS_JSON_MAX, &size);
        char *what = xprintf("%s: .counts", in->name);
        json_t *counts = json_object_from(data, size, what);
        json_object_foreach(counts, shard, stages) add_shard_counts(in, shard, stages);
        if (!in->counts)
            in->counts = json_object();
        counts_add(in->counts, counts); /* less than the sum over all shards */
        json_decref(counts);
        free(what);
        free(data);
    }
}

static void read_end(struct ts_in *in)
{
    size_t size;
    if (!tar_peek(in->tar))
        die_cut(in->opened,
                "%s: the stream ends without .end; it is truncated, or an earlier stage failed: "
                "make it again",
                in->name);
    struct checksum *sum = tar_take_checksum(in->tar);
    char *data = tar_read_file(in->tar, ".end", TS_JSON_MAX, &size);
    char *what = xprintf("%s: .end", in->name);
    in->end = json_object_from(data, size, what);
    json_int_t tensors = -1, bytes = -1;
    int plan = 0;
    json_t *counts = NULL, *digest = NULL;
    struct toc *toc = in->checkpoint.toc;
    if (json_unpack(in->end, "{s:I, s:I, s:b, s:o, s?o!}", "tensors", &tensors, "bytes", &bytes,
                    "plan", &plan, "counts", &counts, "digest", &digest) ||
        !json_is_array(counts) || tensors != (json_int_t)(plan ? 0 : toc->count) ||
        bytes != (json_int_t)(plan ? 0 : toc_bytes(toc, true)) ||
        in->next != (plan ? 0 : toc->count) || data[size - 1] != '\n' ||
        !counts_within(in->counted, counts, json_object_get(in->header, "history")))
        die("%s: malformed, or its counts do not match the table; make the stream again", what);
    if (!stream_digest_holds(sum, in->end, data, size))
        die("%s: the stream's digest is another: it was damaged on its way or on disk, or changed; "
            "make it again",
            what);
    in->plan_only |= plan;
    free(what);
    free(data);
    tar_prove_end(in->tar);
}

/* Read the next entry as line `next` of the table. False for a plan-only stream, which has none. */
static bool next_from_tar(struct ts_in *in, const struct tensor *tensor)
{
    read_counts(in);
    const struct tar_entry *entry = tar_peek(in->tar);
    const char *path = entry ? entry->path : NULL;
    if (path && !strcmp(path, ".end") && in->next == 0)
        return false;
    if (!path)
        die_cut(in->opened,
                "%s: wanted tensor %s, got the end; the stream is truncated, or an earlier stage "
                "failed: make it again",
                in->name, tensor->name);
    if (strcmp(path, tensor->name) != 0)
        tar_refuse(in->tar, path,
                   xprintf("wanted tensor %s; the stream does not match its table, make it again",
                           tensor->name));
    in->by_reference = entry->target;
    if (in->by_reference)
        ts_in_reference(in, tensor->name, entry->target, tensor->size, &in->source, &in->offset);
    else if (entry->size != (int64_t)tensor->size)
        tar_refuse(in->tar, path,
                   xprintf("wanted %" PRIu64 " bytes, got %" PRId64
                           "; the stream does not match its table, make it again",
                           tensor->size, entry->size));
    tar_use(in->tar);
    return true;
}

static void next_from_checkpoint(struct ts_in *in, const struct tensor *tensor)
{
    in->by_reference = true;
    in->source = in->checkpoint.shard_source[tensor->shard];
    in->offset = in->checkpoint.offset[in->next];
}

static const struct tensor *next_tensor(struct ts_in *in)
{
    struct toc *toc = in->checkpoint.toc;
    if (in->tensor)
        progress_add(in->progress, in->tensor->size, in->next);
    skip_rest(in);
    if (in->next == toc->count) {
        if (in->tar && !in->end) {
            read_counts(in);
            read_end(in);
        }
        return NULL;
    }
    const struct tensor *tensor = &toc->tensor[in->next];
    if (!in->tar)
        next_from_checkpoint(in, tensor);
    else if (!next_from_tar(in, tensor)) {
        read_end(in);
        in->next = toc->count;
        return NULL;
    }
    in->next++;
    in->done = 0;
    return in->tensor = tensor;
}

const struct tensor *ts_next(struct ts_in *in)
{
    const struct tensor *tensor = next_tensor(in);
    while (tensor && in->plan_only)
        tensor = next_tensor(in);
    return tensor;
}

const struct tensor *ts_present(const struct ts_in *in)
{
    return in->tensor;
}

void ts_read(struct ts_in *in, void *data, size_t size)
{
    if (size > in->tensor->size - in->done)
        die("%s: %s: read beyond its end", in->name, in->tensor->name);
    if (in->by_reference)
        sources_read(&in->checkpoint.sources, in->source, in->offset + in->done, data, size,
                     in->tensor->name);
    else
        tar_read(in->tar, data, size, in->tensor->name);
    in->done += size;
}

void *ts_read_all(struct ts_in *in)
{
    if (in->tensor->size > read_all_max)
        die("%s: %s: %" PRIu64 " bytes are too many to read at once", in->name, in->tensor->name,
            in->tensor->size);
    void *data = xgrow(NULL, (size_t)in->tensor->size, 1);
    ts_read(in, data, (size_t)in->tensor->size);
    return data;
}

bool ts_ref(const struct ts_in *in, size_t *source, uint64_t *offset)
{
    *source = in->source;
    *offset = in->offset;
    return in->by_reference;
}

/* ---- the end ---- */

const json_t *ts_end_counts(const struct ts_in *in)
{
    return in->end ? json_object_get(in->end, "counts") : NULL;
}

bool ts_sealed(const struct ts_in *in)
{
    return json_object_get(in->end, "digest");
}

json_t *ts_take_counts(struct ts_in *in)
{
    json_t *counts = in->counts;
    in->counts = NULL;
    return counts;
}

bool ts_recount(struct ts_in *in, const json_t *part, const json_t *whole)
{
    json_t *end = json_object_get(in->end, "counts");
    return counts_replace(end, json_object_get(in->header, "history"), part, whole);
}

/* progress_find() of a stream. */
static void find_layer(const void *context, uint64_t at, struct progress_layer *layer)
{
    const struct ts_in *in = context;
    const struct toc *toc = in->checkpoint.toc;
    if (at >= toc->count)
        return;
    const struct place place = model_place(in->checkpoint.model, toc->tensor[at].name);
    const json_t *layers = json_object_get(model_config(in->checkpoint.model), "num_hidden_layers");
    if (place.section != SECTION_LAYERS || json_integer_value(layers) <= (json_int_t)place.layer)
        return;
    *layer = (struct progress_layer){place.layer, (uint64_t)json_integer_value(layers)};
}

void ts_in_progress(struct ts_in *in, uint64_t total)
{
    if (in->stage && !in->plan_only)
        in->progress = progress_begin(in->stage->progress, total, find_layer, in);
}

struct progress *ts_take_progress(struct ts_in *in, uint64_t total)
{
    progress_end(in->progress);
    ts_in_progress(in, total);
    struct progress *progress = in->progress;
    in->progress = NULL;
    return progress;
}

bool ts_plan_only(const struct ts_in *in)
{
    return in->plan_only;
}

void ts_close(struct ts_in *in)
{
    while (next_tensor(in))
        continue;
    progress_end(in->progress);
    sources_check(&in->checkpoint.sources);
    tar_close(in->tar);
    checkpoint_free(&in->checkpoint);
    json_decref(in->header);
    json_decref(in->end);
    json_decref(in->counts);
    json_decref(in->counted);
    free(in->name);
    free(in->opened);
    free(in);
}
