/* Opening a stream, or a checkpoint on disk as one, and reading everything before the tensors. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/die.h"
#include "base/hub.h"
#include "base/json.h"
#include "base/names.h"
#include "base/progress.h"
#include "base/readers.h"
#include "base/text.h"
#include "stream/side_name.h"
#include "stream/ts_in.h"
#include "stream/zero_tail.h"
#include "tensor/weight.h"

static const uint64_t toc_max = 1 << 30;

void ts_in_reference(struct ts_in *in, const char *name, const char *text, uint64_t size,
                     size_t *source, uint64_t *offset)
{
    bool side = starts_with(name, "files/");
    if (side && size <= SIDE_FILE_INLINE_MAX) /* see reach.h */
        tar_refuse(in->tar, name, "a side file of up to 1 MiB by reference; not made by st-read");
    if (sources_parse(&in->checkpoint.sources, text, size, source, offset)) {
        in->checkpoint.sources.file[*source].claimed |= !side;
        return;
    }
    char *shown = printable(xprintf("%.400s", text));
    tar_refuse(in->tar, name,
               xprintf("its reference, %s, is not LABEL@OFFSET+%" PRIu64
                       " inside a file that .stream lists; make the stream again",
                       shown, size));
}

/* In a pipeline that was called by name, the user gave the source, and does not know what is read
 * from where. */
static void name_source(struct ts_in *in)
{
    const char *source = json_string_value(json_object_get(in->header, "source"));
    if (!source || strcmp(in->opened, "<stdin>") != 0 || !getenv("SEEKPIPE_PIPELINE"))
        return;
    free(in->name);
    in->name = printable(xstrdup(source));
}

static void read_header(struct ts_in *in)
{
    size_t size;
    char *data = tar_read_file(in->tar, ".stream", TS_JSON_MAX, &size);
    char *what = xprintf("%s: .stream", in->name);
    in->header = json_object_from(data, size, what);
    free(data);
    const char *format = NULL, *scope = NULL;
    json_int_t version = 0; /* an int would take 2^32 + 1 for 1 */
    json_t *files = NULL, *history = NULL, *quant = NULL;
    if (json_unpack(in->header, "{s:s, s:I, s:s, s:o, s:o, s:o}", "format", &format, "version",
                    &version, "scope", &scope, "files", &files, "quant", &quant, "history",
                    &history) ||
        strcmp(format, "tensor-stream") != 0 || !json_is_array(history) || !json_is_object(quant))
        die("%s: malformed; not a tensor stream (st-read makes one)", what);
    if (version != 1)
        die("%s: version %" JSON_INTEGER_FORMAT "; this program reads version 1", what, version);
    char *error = sources_from_json(&in->checkpoint.sources, files);
    if (error)
        die("%s: %s; the stream is damaged, make it again", what, error);
    free(what);
    const char *source = json_string_value(json_object_get(in->header, "source"));
    in->checkpoint.sources.folder = source ? xstrdup(source) : NULL;
    name_source(in);
}

static void read_toc(struct ts_in *in)
{
    size_t size;
    char *data = tar_read_file(in->tar, ".toc", toc_max, &size);
    char *error = toc_parse(in->checkpoint.toc, data, size);
    if (error)
        die("%s: .toc: %s; the stream is damaged, make it again", in->name, error);
    free(data);
}

static void read_side_files(struct ts_in *in)
{
    struct checkpoint *checkpoint = &in->checkpoint;
    struct names *names = names_new();
    uint64_t total = 0;
    for (const struct tar_entry *entry; (entry = tar_peek(in->tar));) {
        const char *path = entry->path;
        if (!starts_with(path, "files/"))
            break;
        struct side_file file = {.name = xstrdup(path + 6), .mode = entry->mode};
        if (!side_file_name_valid(file.name) || side_file_excluded(file.name))
            tar_refuse(in->tar, path, "not a valid name of a side file; not made by st-read");
        if (names_add(names, file.name) != checkpoint->files)
            tar_refuse(in->tar, path, "occurs twice; not made by st-read");
        if (entry->target) {
            const char *text = entry->target;
            const char *plus = text ? strrchr(text, '+') : NULL;
            file.size = plus ? strtoull(plus + 1, NULL, 10) : 0;
            ts_in_reference(in, path, text, file.size, &file.source, &file.offset);
            tar_use(in->tar);
        } else {
            size_t size;
            char *name = xstrdup(path);
            file.data = tar_read_file(in->tar, name, SIDE_FILES_MAX - total, &size);
            free(name);
            file.size = size;
            total += size;
        }
        checkpoint->file = xgrow(checkpoint->file, checkpoint->files + 1, sizeof file);
        checkpoint->file[checkpoint->files++] = file;
    }
    names_free(names);
}

/* ---- opening ---- */

static bool is_checkpoint(const char *path)
{
    struct stat status;
    if (stat(path, &status))
        die_errno("%s", path);
    return S_ISDIR(status.st_mode) || ends_with(path, ".safetensors");
}

/* The header's `input`: what the reports of later stages say of this checkpoint. The caller owns
 * it. */
static json_t *describe_input(const struct checkpoint *checkpoint)
{
    json_t *input = formats_totals(checkpoint->toc);
    if (checkpoint->unindexed)
        json_object_set_new(input, "unindexed", json_integer((json_int_t)checkpoint->unindexed));
    if (!checkpoint->left_out)
        return input;
    char *first = printable(xstrdup(checkpoint->left_out_first));
    json_object_set_new(input, "left_out", json_integer((json_int_t)checkpoint->left_out));
    json_object_set_new(input, "left_out_first", json_string(first));
    free(first);
    return input;
}

static void open_checkpoint(struct ts_in *in, char **path, size_t count)
{
    checkpoint_open(&in->checkpoint, path, count);
    struct checkpoint *checkpoint = &in->checkpoint;
    in->header = json_pack("{s:s, s:i, s:s*, s:s, s:s*, s:o, s:o, s:{}, s:[]}", "format",
                           "tensor-stream", "version", 1, "model_type", checkpoint->model_type,
                           "scope", checkpoint->scope ? checkpoint->scope : "all", "source",
                           checkpoint->folder, "files", sources_to_json(&checkpoint->sources),
                           "input", describe_input(checkpoint), "quant", "history");
    if (!in->header)
        die("%s: its path is not UTF-8, which a stream needs; move or link it", in->name);
}

static void open_model(struct ts_in *in)
{
    json_t *config = ts_file_json(in, "config.json");
    const char *type = json_string_value(json_object_get(in->header, "model_type"));
    in->checkpoint.model = model_open(type, config);
    json_decref(config);
}

/* What is made of the stream is for those who may read all of it: the file that it came in, those
 * that it refers to, and, as earlier stages noted, those that it was made of. */
static void limit_readers(const struct ts_in *in)
{
    const struct checkpoint *checkpoint = &in->checkpoint;
    const char *mode = json_string_value(json_object_get(in->header, "mode"));
    struct stat status;
    if (mode)
        readers_limit((unsigned)strtoul(mode, NULL, 8));
    for (size_t i = 0; i < checkpoint->sources.count; i++)
        if (!stat(checkpoint->sources.file[i].path, &status))
            readers_limit(status.st_mode);
    for (size_t i = 0; i < checkpoint->files; i++)
        if (checkpoint->file[i].data)
            readers_limit(checkpoint->file[i].mode);
}

static struct ts_in *new_in(const char *name, const struct stage *stage)
{
    struct ts_in *in = xalloc(1, sizeof *in);
    in->stage = stage;
    in->opened = xstrdup(name);
    in->name = xstrdup(name);
    in->plan_only = stage && stage->plan;
    in->counted = json_object();
    return in;
}

static void open_stream(struct ts_in *in, int fd)
{
    in->checkpoint.toc = toc_new();
    readers_limit_to(fd);
    in->tar = tar_open(fd, in->opened);
    read_header(in);
    read_toc(in);
    read_side_files(in);
    open_model(in);
}

/* Whatever was opened. */
static struct ts_in *ready(struct ts_in *in)
{
    limit_readers(in);
    ts_in_progress(in, toc_bytes(in->checkpoint.toc, true));
    return in;
}

static struct ts_in *open_any(char **path, size_t count, const struct stage *stage)
{
    if (count == 1 && !strcmp(path[0], "-"))
        count = 0;
    struct ts_in *in = new_in(count ? path[0] : "<stdin>", stage);
    char *folder = count == 1 ? hub_folder(path[0]) : NULL;
    if (folder)
        path = &folder;
    if (count && is_checkpoint(path[0])) {
        open_checkpoint(in, path, count);
        if (!stage || !stage->allow_zeros)
            zero_tail_refuse(&in->checkpoint);
    } else {
        if (count > 1)
            die_usage(
                "%s: only one stream at a time; several operands must all be .safetensors files",
                path[0]);
        int fd = count ? open(path[0], O_RDONLY | O_CLOEXEC) : STDIN_FILENO;
        if (fd < 0)
            die_errno("%s", path[0]);
        if (isatty(fd))
            die_usage(
                "standard input is a terminal; give a tensor stream, or a checkpoint's folder");
        open_stream(in, fd);
    }
    free(folder);
    return ready(in);
}

struct ts_in *ts_open(const char *path, const struct stage *stage)
{
    return open_any((char **)&path, path != NULL, stage);
}

struct ts_in *ts_open_fd(int fd, const char *name)
{
    struct ts_in *in = new_in(name, NULL);
    open_stream(in, fd);
    return ready(in);
}

struct ts_in *ts_open_all(char **path, size_t count, const struct stage *stage)
{
    return open_any(path, count, stage);
}
