#include "write/run_record.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checksum.h"
#include "base/die.h"
#include "base/json.h"
#include "base/mtime.h"
#include "base/text.h"
#include "write/copy.h"

enum { SAMPLES = 4, SAMPLE_BYTES = 4096, SUM_TEXT = 17 };

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

/* The history without stages that only selected tensors (tensor-stream(5)), without other options;
 * the caller owns it. */
static json_t *working_stages(struct ts_in *in)
{
    json_t *stages = json_deep_copy(json_object_get(ts_header(in), "history"));
    for (size_t i = json_array_size(stages); i-- > 0;) {
        json_t *stage = json_array_get(stages, i);
        if (json_is_true(json_object_get(stage, "selects")) &&
            !json_array_size(json_object_get(stage, "options")))
            json_array_remove(stages, i);
    }
    return stages;
}

const char *run_identity(struct ts_in *in, char *hex)
{
    json_t *stages = working_stages(in), *stage;
    size_t i;
    bool known = true;
    json_array_foreach(stages, i, stage)
    {
        const json_t *amax = json_object_get(stage, "amax");
        known &= !json_is_null(amax);
        if (amax) /* how the same amaxes were made does not matter */
            json_object_del(stage, "calibration");
    }
    json_t *files = sources_to_json(ts_sources(in)), *file;
    const char *label;
    json_object_foreach(files, label, file) json_object_del(file, "ctime_ns"); /* touched.h */
    json_t *identity = json_pack("[o, o]", files, stages);
    if (!identity)
        die("out of memory");
    struct digest *digest = digest_new();
    char *text = json_text(identity, false, true);
    digest_add(digest, text, strlen(text));
    json_decref(identity);
    free(text);
    digest_end(digest, hex);
    return known ? hex : NULL;
}

/* ---- the record of a stream ---- */

static void add_source(json_t *sources, const char *file, uint64_t bytes, const char *sample)
{
    if (json_array_append_new(sources, json_pack("{s:s, s:I, s:s*}", "file", file, "bytes",
                                                 (json_int_t)bytes, "sample", sample)))
        die("out of memory");
}

/* NULL if a source is not there, or not to be read. Other errors must not make a record that says
 * less than that of an equal run. */
static const char *no_sample(const struct source *file)
{
    if (errno != ENOENT && errno != ENOTDIR && errno != EACCES)
        die_errno("%s", file->path);
    return NULL;
}

/* A checksum of pages from the file's start to its end, as text; NULL if it is no longer the file
 * that the stream was made of. */
static const char *sample_file(const struct source *file, char *text)
{
    struct stat status;
    if (stat(file->path, &status))
        return no_sample(file);
    if (!S_ISREG(status.st_mode) || (uint64_t)status.st_size != file->size ||
        mtime_ns(&status) != file->mtime_ns)
        return NULL;
    int fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return no_sample(file);
    struct checksum *checksum = checksum_new();
    char page[SAMPLE_BYTES];
    size_t size = (size_t)at_most(file->size, SAMPLE_BYTES);
    for (unsigned i = 0; i < SAMPLES; i++) {
        read_at(fd, (file->size - size) / (SAMPLES - 1) * i, page, size, file->path);
        checksum_add(checksum, page, size);
    }
    close(fd);
    snprintf(text, SUM_TEXT, "%016" PRIx64, checksum_end(checksum));
    return text;
}

static json_t *sources_of(struct ts_in *in)
{
    json_t *sources = json_array();
    const struct sources *files = ts_sources(in);
    char text[SUM_TEXT];
    for (size_t i = 0; i < files->count; i++)
        add_source(sources, files->file[i].label, files->file[i].size,
                   sample_file(&files->file[i], text));
    for (size_t i = 0; i < ts_files(in); i++) {
        uint64_t size, offset;
        size_t source;
        const char *name = ts_file(in, i, &size);
        if (ts_file_ref(in, i, &source, &offset))
            continue; /* among the files */
        char *data = ts_file_read(in, i);
        struct checksum *checksum = checksum_new();
        checksum_add(checksum, data, (size_t)size);
        snprintf(text, sizeof text, "%016" PRIx64, checksum_end(checksum));
        add_source(sources, name, size, text);
        free(data);
    }
    return sources;
}

json_t *run_record_of(struct ts_in *in, const struct stage *stage)
{
    json_t *stages = working_stages(in);
    const char *own = text_of(stage->entry, "program");
    for (size_t i = json_array_size(stages); i-- > 0;) /* a part's stream has been through it */
        if (!strcmp(text_of(json_array_get(stages, i), "program"), own))
            json_array_remove(stages, i);
    json_array_append_new(stages, json_deep_copy(stage->entry));
    json_t *record = json_pack("{s:o, s:o}", "stages", stages, "sources", sources_of(in));
    if (!record)
        die("out of memory");
    return record;
}

/* ---- of a checkpoint ---- */

json_t *run_record_read(const char *folder)
{
    char *path = xprintf("%s/" RUN_RECORD, folder);
    struct stat status;
    json_t *record = NULL;
    if (!stat(path, &status) && S_ISREG(status.st_mode)) /* a FIFO would be waited for */
        record = json_file_within(path, 0, NULL);
    free(path);
    if (json_is_array(json_object_get(record, "stages")) &&
        json_is_array(json_object_get(record, "sources")))
        return record;
    json_decref(record);
    return NULL;
}

/* ---- differences ---- */

/* The programs of the stages, as a pipeline; or a stage's options. The caller frees it. */
static char *joined(const json_t *array, const char *separator, const char *key)
{
    char *all = xstrdup("");
    size_t i;
    json_t *entry;
    json_array_foreach((json_t *)array, i, entry)
    {
        const char *text = key ? text_of(entry, key) : json_string_value(entry);
        char *longer = xprintf("%s%s%s", all, i ? separator : "", text ? text : "");
        free(all);
        all = longer;
    }
    return printable(all);
}

static char *differing_options(const char *program, const json_t *was, const json_t *is)
{
    char *before = joined(was, " ", NULL), *now = joined(is, " ", NULL);
    char *text = xprintf("%s had %s%s, and has %s%s here", program, *before ? "" : "no options",
                         before, *now ? "" : "none", now);
    free(before);
    free(now);
    return text;
}

/* A value as people write it, or "none"; the caller frees it. */
static char *value_of(const json_t *value)
{
    return json_is_string(value)   ? xstrdup(json_string_value(value))
           : json_is_number(value) ? xprintf("%.9g", json_number_value(value))
                                   : xstrdup("none");
}

/* What an entry says in words or numbers: how the two differ, or NULL. */
static char *differing_values(const char *program, const json_t *was, const json_t *is)
{
    static const char *const keys[][2] = {
        {"drafts", "--drafts"}, {"input_scale", "--input-scale"}, {"kv_cache", "KV cache format"}};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const json_t *before = json_object_get(was, keys[i][0]),
                     *now = json_object_get(is, keys[i][0]);
        if ((before || now) && !json_equal(before, now)) {
            char *had = value_of(before), *has = value_of(now);
            char *text =
                before ? xprintf("%s had %s %s, and has %s here", program, keys[i][1], had, has)
                       : xprintf("%s had no %s, and has %s here", program, keys[i][1], has);
            free(had);
            free(has);
            return printable(text);
        }
    }
    return NULL;
}

/* What an entry says of a calibration, which a plan may lack. */
static bool is_of_calibration(const char *key)
{
    return !strcmp(key, "amax") || !strcmp(key, "calibration") || !strcmp(key, "moments");
}

/* True if both have the same amaxes: then it does not matter how they were made. */
static bool same_amaxes(const json_t *was, const json_t *is)
{
    const json_t *before = json_object_get(was, "amax");
    return before && json_equal(before, json_object_get(is, "amax"));
}

/* The digests: of amaxes, a recipe. */
static char *differing_digests(const char *program, const json_t *was, const json_t *is, bool plan)
{
    const char *key;
    json_t *value;
    json_t *all = json_deep_copy(was);
    json_object_update_missing(all, (json_t *)is);
    char *text = differing_values(program, was, is);
    if (same_amaxes(was, is))
        json_object_del(all, "calibration");
    json_object_foreach(all, key, value)
    {
        const json_t *before = json_object_get(was, key), *now = json_object_get(is, key);
        bool unknown = plan && (!now || json_is_null(now)) && is_of_calibration(key);
        if (text || unknown || json_equal(before, now))
            continue;
        text = printable(xprintf("%s had another %s", program, key));
    }
    json_decref(all);
    return text;
}

static char *differing_stages(const json_t *was, const json_t *are, bool plan)
{
    char *before = joined(was, " | ", "program"), *now = joined(are, " | ", "program");
    char *text = strcmp(before, now) != 0
                     ? xprintf("it is the result of %s, and this is %s", before, now)
                     : NULL;
    for (size_t i = 0; !text && i < json_array_size(are); i++) {
        const json_t *old = json_array_get(was, i), *new = json_array_get(are, i);
        const char *program = text_of(new, "program");
        const json_t *had = json_object_get(old, "options"), *has = json_object_get(new, "options");
        if (strcmp(text_of(old, "version"), text_of(new, "version")) != 0)
            text = printable(xprintf("%s was version %s, and is %s here", program,
                                     text_of(old, "version"), text_of(new, "version")));
        else if (!json_equal(had, has))
            text = differing_options(program, had, has);
        else
            text = differing_digests(program, old, new, plan);
    }
    free(before);
    free(now);
    return text;
}

/* The first source of each file, by its name; the caller frees it. */
static json_t *by_file(const json_t *sources)
{
    json_t *files = json_object(), *source;
    size_t i;
    json_array_foreach((json_t *)sources, i, source)
    {
        const char *file = text_of(source, "file");
        if (!json_object_get(files, file) && json_object_set(files, file, source))
            die("out of memory");
    }
    return files;
}

static char *differing_source(const char *file, const json_t *was, const json_t *is)
{
    if (!is)
        return xprintf("its source had %s, this one has not", file);
    if (!was)
        return xprintf("its source had no %s, this one has", file);
    bool sampled = *text_of(was, "sample") && *text_of(is, "sample");
    if (!json_equal(json_object_get(was, "bytes"), json_object_get(is, "bytes")) ||
        (sampled && strcmp(text_of(was, "sample"), text_of(is, "sample")) != 0))
        return xprintf("its source had another %s", file);
    return NULL;
}

static char *differing_sources(const json_t *were, const json_t *are)
{
    json_t *before = by_file(were), *now = by_file(are), *source;
    const char *file;
    char *text = NULL;
    json_object_foreach(before, file, source)
    {
        if (!text && !json_object_get(now, file))
            text = differing_source(file, source, NULL);
    }
    json_object_foreach(now, file, source)
    {
        if (!text)
            text = differing_source(file, json_object_get(before, file), source);
    }
    json_decref(before);
    json_decref(now);
    return text;
}

char *run_record_difference(const json_t *record, const json_t *stream, bool plan)
{
    char *text =
        differing_sources(json_object_get(record, "sources"), json_object_get(stream, "sources"));
    return text ? text
                : differing_stages(json_object_get(record, "stages"),
                                   json_object_get(stream, "stages"), plan);
}
