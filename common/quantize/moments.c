#include "quantize/moments.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/die.h"
#include "base/digest.h"
#include "base/json.h"
#include "base/text.h"
#include "tensor/nvfp4.h"

static const char suffix[] = "input_moments", extension[] = ".ts";

/* The file of a module's layer; the caller frees the path. */
static char *file_of(const char *folder, const struct model *model, const char *module)
{
    char path[TENSOR_NAME_MAX + 1];
    const struct place place = model_place(model, module);
    model_layer_path(model, &place, path);
    return xprintf("%s/%s%s", folder, *path ? path : "others", extension);
}

/* ---- writing ---- */

struct moments_writer {
    const char *folder;
    const struct model *model;
    const struct stage *stage;
    char *file;      /* of the layer so far; NULL: there is nothing to write */
    struct toc *toc; /* its table, ... */
    float **moments; /* and their values */
    size_t capacity;
};

struct moments_writer *moments_writer_new(const char *folder, const struct model *model,
                                          const struct stage *stage)
{
    struct moments_writer *writer = xalloc(1, sizeof *writer);
    *writer = (struct moments_writer){.folder = folder, .model = model, .stage = stage};
    if (mkdir(folder, 0777) && errno != EEXIST)
        die_errno("%s", folder);
    return writer;
}

void moments_writer_free(struct moments_writer *writer)
{
    if (writer)
        free(writer->moments);
    free(writer);
}

void moments_add(struct moments_writer *writer, const char *module, const float *moments,
                 uint64_t cols)
{
    char *file = file_of(writer->folder, writer->model, module);
    if (writer->file && strcmp(writer->file, file) != 0)
        moments_flush(writer);
    if (writer->file) {
        free(file);
    } else {
        writer->file = file;
        writer->toc = toc_new();
    }
    size_t index = writer->toc->count, count = (size_t)cols * NVFP4_BLOCK;
    if (index == writer->capacity) {
        writer->capacity = 2 * index + 16;
        writer->moments = xgrow(writer->moments, writer->capacity, sizeof *writer->moments);
    }
    char *name = xprintf("%s.%s", module, suffix);
    toc_append(writer->toc, "moments.safetensors", name, DTYPE_F32, 3,
               (const uint64_t[]){cols / NVFP4_BLOCK, NVFP4_BLOCK, NVFP4_BLOCK});
    free(name);
    writer->moments[index] = xgrow(NULL, count, sizeof **writer->moments);
    memcpy(writer->moments[index], moments, count * sizeof **writer->moments);
}

void moments_flush(struct moments_writer *writer)
{
    struct toc *toc = writer->toc;
    if (!writer->file)
        return;
    struct stage file = {.output = writer->file, .entry = writer->stage->entry};
    model_sort(writer->model, toc, writer->moments, sizeof *writer->moments);
    struct ts_out *out = ts_create(&file, NULL, toc);
    for (size_t i = 0; i < toc->count; i++) {
        ts_put(out, toc->tensor[i].name, writer->moments[i], (size_t)toc->tensor[i].size);
        free(writer->moments[i]);
    }
    ts_finish(out, NULL, NULL);
    toc_free(toc);
    free(writer->file);
    writer->file = NULL;
}

/* ---- reading ---- */

struct moments {
    char *folder;
    const struct model *model;
    char *file;       /* the one that is open, or was last found missing; NULL at first */
    struct ts_in *in; /* NULL: there is no such file */
    char digest[DIGEST_TEXT];
};

static int is_stream(const struct dirent *entry)
{
    return entry->d_name[0] != '.' && ends_with(entry->d_name, extension);
}

static void digest_histories(struct moments *moments, struct dirent **entry, int count)
{
    struct digest *digest = digest_new();
    for (int i = 0; i < count; i++) {
        char *path = xprintf("%s/%s", moments->folder, entry[i]->d_name);
        struct ts_in *in = ts_open(path, NULL);
        char *text = json_text(json_object_get(ts_header(in), "history"), false, true);
        digest_add(digest, entry[i]->d_name, strlen(entry[i]->d_name) + 1);
        digest_add(digest, text, strlen(text) + 1);
        free(text);
        free(path);
        ts_close(in);
    }
    digest_end(digest, moments->digest);
}

struct moments *moments_open(const char *folder, const struct model *model)
{
    struct moments *moments = xalloc(1, sizeof *moments);
    struct dirent **entry;
    *moments = (struct moments){.folder = xstrdup(folder), .model = model};
    int count = scandir(folder, &entry, is_stream, alphasort);
    if (count < 0)
        die_errno("%s", folder);
    if (!count)
        die("%s: holds no moments of inputs; amax-calib --moments makes them", folder);
    digest_histories(moments, entry, count);
    for (int i = 0; i < count; i++)
        free(entry[i]);
    free(entry);
    return moments;
}

static void close_file(struct moments *moments)
{
    if (moments->in)
        ts_close(moments->in);
    moments->in = NULL;
    free(moments->file);
    moments->file = NULL;
}

void moments_close(struct moments *moments)
{
    if (!moments)
        return;
    close_file(moments);
    free(moments->folder);
    free(moments);
}

/* Open the file of that path, which is taken over, unless it is the one before. */
static void switch_to(struct moments *moments, char *file)
{
    if (moments->file && !strcmp(moments->file, file)) {
        free(file);
        return;
    }
    close_file(moments);
    moments->file = file;
    if (!access(file, F_OK))
        moments->in = ts_open(file, NULL);
    else if (errno != ENOENT)
        die_errno("%s", file);
}

/* Make the line the current tensor; from the beginning again if it has passed. */
static void advance_to(struct moments *moments, int64_t line)
{
    const struct tensor *present = ts_present(moments->in);
    if (present && present - ts_toc(moments->in)->tensor >= line) {
        char *file = xstrdup(moments->file);
        close_file(moments);
        switch_to(moments, file);
    }
    do {
        if (!ts_next(moments->in))
            die("%s: only a plan, without values; calibrate again", moments->file);
    } while (ts_present(moments->in) != &ts_toc(moments->in)->tensor[line]);
}

static void check_values(struct moments *moments, const float *value)
{
    const struct tensor *tensor = ts_present(moments->in);
    size_t count = (size_t)tensor->size / sizeof *value;
    for (size_t i = 0; i < count; i++) {
        bool diagonal = i / NVFP4_BLOCK % NVFP4_BLOCK == i % NVFP4_BLOCK;
        if (!isfinite(value[i]) || (diagonal && value[i] < 0))
            die("%s: %s: element %zu is %g, which no moment is; calibrate again", moments->file,
                tensor->name, i, (double)value[i]);
    }
}

float *moments_read(struct moments *moments, const char *module, uint64_t cols)
{
    switch_to(moments, file_of(moments->folder, moments->model, module));
    if (!moments->in)
        return NULL;
    char *name = xprintf("%s.%s", module, suffix), shape[TENSOR_SHAPE_TEXT];
    int64_t line = toc_find(ts_toc(moments->in), name);
    free(name);
    if (line < 0)
        return NULL;
    const struct tensor *tensor = &ts_toc(moments->in)->tensor[line];
    if (tensor->dtype != DTYPE_F32 || tensor->rank != 3 || tensor->dim[1] != NVFP4_BLOCK ||
        tensor->dim[2] != NVFP4_BLOCK || tensor->dim[0] != cols / NVFP4_BLOCK)
        die("%s: %s: wanted F32 [%" PRIu64 ",16,16], got %s %s; are they of this checkpoint?",
            moments->file, tensor->name, cols / NVFP4_BLOCK, dtype_name(tensor->dtype),
            tensor_shape(tensor, shape));
    advance_to(moments, line);
    float *value = ts_read_all(moments->in);
    check_values(moments, value);
    return value;
}

const char *moments_digest(const struct moments *moments)
{
    return moments->digest;
}
