/* The reading half of ts.h. A stream and a checkpoint on disk give the same: a table, side files,
 * and per tensor either a reference or bytes that come along. */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/die.h"
#include "base/json.h"
#include "base/names.h"
#include "base/progress.h"
#include "stream/checkpoint.h"
#include "stream/ts.h"
#include "tensor/weight.h"

enum {
    BUFFER = 1 << 20,
    TAR_BLOCK = 512,
    JSON_MAX = 64 << 20,    /* .stream and .end */
    HOLD_MEMORY = 64 << 20, /* inline tensors held in memory; beyond, they spool */
};
static const uint64_t toc_max = 1 << 30, read_all_max = 1 << 30;

/* The tar stream below the entries. */
struct tar {
    struct archive *archive;
    struct archive_entry *entry; /* read ahead, not yet used; NULL if none */
    int fd;
    char *buffer;
    uint64_t bytes;   /* read so far */
    uint64_t nonzero; /* offset behind the last byte that is not 0 */
    bool ended;       /* a read gave 0 bytes */
    bool last;        /* the archive's end was seen; libarchive may not be asked again */
};

struct ts_held {
    struct ts_in *in;
    const struct tensor *tensor;
    size_t source; /* a reference, if data == NULL and fd < 0 */
    uint64_t offset;
    char *data;
    int fd;
};

struct ts_in {
    char *name;
    const struct stage *stage;
    struct checkpoint checkpoint; /* table, side files, sources; for a stream filled from it */
    json_t *header;
    struct tar *tar; /* NULL: a checkpoint on disk */
    struct progress *progress;
    json_t *end;
    bool plan_only;
    size_t next; /* the line that comes next */

    const struct tensor *tensor; /* the present one */
    bool by_reference;
    size_t source;
    uint64_t offset; /* where its bytes lie in the source */
    uint64_t done;   /* bytes of it that were read */
    size_t held_memory;
};

/* ---- the tar stream ---- */

static la_ssize_t read_block(struct archive *archive, void *context, const void **block)
{
    struct tar *tar = context;
    ssize_t got;
    do
        got = read(tar->fd, tar->buffer, BUFFER);
    while (got < 0 && errno == EINTR);
    if (got < 0) {
        archive_set_error(archive, errno, "%s", strerror(errno));
        return -1;
    }
    /* Zeros behind the end are padding; everything else there is an error. Looked for from the
     * back, this costs a look at one byte in a block of tensor data. */
    ssize_t i = got;
    while (i > 0 && !tar->buffer[i - 1])
        i--;
    if (i > 0)
        tar->nonzero = tar->bytes + (uint64_t)i;
    tar->bytes += (uint64_t)got;
    tar->ended = got == 0;
    *block = tar->buffer;
    return got;
}

static const char *tar_error(struct tar *tar)
{
    const char *text = archive_error_string(tar->archive);
    return text ? text : "malformed tar";
}

/* End the process over the entry `name`, whose header was read last: where it lies, and why. */
_Noreturn static void refuse_entry(struct ts_in *in, const char *name, const char *why)
{
    char *shown = printable(xstrdup(name ? name : "(no name)"));
    die("%s: offset %" PRId64 ": entry %s: %s", in->name,
        archive_read_header_position(in->tar->archive), shown, why);
}

/* Read the next entry ahead; NULL at the end of the archive. */
static struct archive_entry *peek_entry(struct ts_in *in)
{
    struct tar *tar = in->tar;
    if (tar->entry || tar->last)
        return tar->entry;
    struct archive_entry *entry;
    int code = archive_read_next_header(tar->archive, &entry);
    tar->last = code == ARCHIVE_EOF;
    if (tar->last)
        return NULL;
    if (code != ARCHIVE_OK)
        die("%s: offset %" PRId64 ": %s; the stream is cut or damaged, make it anew", in->name,
            archive_read_header_position(tar->archive), tar_error(tar));
    const char *path = archive_entry_pathname(entry);
    mode_t type = archive_entry_filetype(entry);
    if (!path || archive_entry_hardlink(entry) || archive_entry_sparse_reset(entry) > 0 ||
        (type != AE_IFREG && type != AE_IFLNK))
        refuse_entry(in, path,
                     "neither a plain regular file nor a symbolic link; not a tensor stream");
    for (const char *p = path; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            refuse_entry(in, path, "a control character in its name; not a tensor stream");
    return tar->entry = entry;
}

static void entry_used(struct ts_in *in)
{
    in->tar->entry = NULL;
}

/* Exactly `size` bytes of the present entry's data. */
static void read_entry(struct ts_in *in, void *data, size_t size, const char *what)
{
    for (size_t done = 0; done < size;) {
        la_ssize_t got = archive_read_data(in->tar->archive, (char *)data + done, size - done);
        if (got < 0)
            refuse_entry(
                in, what,
                xprintf("%s; the stream is cut or damaged, make it anew", tar_error(in->tar)));
        if (got == 0)
            refuse_entry(
                in, what,
                xprintf("ends %zu bytes early; the stream is cut, make it anew", size - done));
        done += (size_t)got;
    }
}

/* The whole data of the regular entry that is expected next under `name`, with a 0 behind. */
static char *read_named_entry(struct ts_in *in, const char *name, uint64_t max, size_t *size)
{
    struct archive_entry *entry = peek_entry(in);
    const char *found = entry ? archive_entry_pathname(entry) : "the end";
    if (!entry || strcmp(found, name) != 0 || archive_entry_filetype(entry) != AE_IFREG)
        die("%s: wanted entry %s, a regular file, got %s%s", in->name, name, found,
            strcmp(name, ".stream") ? "; the stream is cut or out of order"
                                    : "; not a tensor stream (st-read makes one)");
    int64_t bytes = archive_entry_size(entry);
    if (bytes < 0 || (uint64_t)bytes > max)
        refuse_entry(in, name,
                     xprintf("%" PRId64 " bytes, more than the %" PRIu64 " allowed; not a tensor "
                             "stream, or damaged",
                             bytes, max));
    /* Memory grows with what comes, not with what is announced. */
    char *data = xgrow(NULL, 1, 1);
    for (*size = 0; *size < (size_t)bytes;) {
        size_t piece = (size_t)bytes - *size, most = *size < BUFFER ? BUFFER : *size;
        if (piece > most)
            piece = most;
        data = xgrow(data, *size + piece + 1, 1);
        read_entry(in, data + *size, piece, name);
        *size += piece;
    }
    data[*size] = 0;
    entry_used(in);
    return data;
}

/* A link's text, LABEL@OFFSET+LENGTH: where `size` bytes lie. */
static void parse_reference(struct ts_in *in, const char *name, const char *text, uint64_t size,
                            size_t *source, uint64_t *offset)
{
    const char *at = text ? strrchr(text, '@') : NULL;
    char *end;
    uint64_t length, last;
    int64_t index = -1;
    if (at && at[1] >= '0' && at[1] <= '9') {
        errno = 0;
        *offset = strtoull(at + 1, &end, 10);
        index = sources_find(&in->checkpoint.sources, text, (size_t)(at - text));
        if (!errno && *end == '+' && end[1] >= '0' && end[1] <= '9') {
            length = strtoull(end + 1, &end, 10);
            if (!errno && !*end && index >= 0 && length == size &&
                add_fits(*offset, length, &last) &&
                last <= in->checkpoint.sources.file[index].size) {
                *source = (size_t)index;
                return;
            }
        }
    }
    char *shown = printable(xprintf("%.400s", text ? text : ""));
    refuse_entry(in, name,
                 xprintf("its reference, %s, is not LABEL@OFFSET+%" PRIu64
                         " inside a file that .stream lists; make the stream anew",
                         shown, size));
}

static void read_header(struct ts_in *in)
{
    size_t size;
    char *data = read_named_entry(in, ".stream", JSON_MAX, &size);
    char *what = xprintf("%s: .stream", in->name);
    in->header = json_object_from(data, size, what);
    free(data);
    const char *format = NULL, *scope = NULL;
    int version = 0;
    json_t *files = NULL, *history = NULL, *quant = NULL;
    if (json_unpack(in->header, "{s:s, s:i, s:s, s:o, s:o, s:o}", "format", &format, "version",
                    &version, "scope", &scope, "files", &files, "quant", &quant, "history",
                    &history) ||
        strcmp(format, "tensor-stream") != 0 || !json_is_array(history) || !json_is_object(quant))
        die("%s: malformed; not a tensor stream (st-read makes one)", what);
    if (version != 1)
        die("%s: version %d; this program reads version 1", what, version);
    char *error = sources_from_json(&in->checkpoint.sources, files);
    if (error)
        die("%s: %s; the stream is damaged, make it anew", what, error);
    free(what);
}

static void read_toc(struct ts_in *in)
{
    size_t size;
    char *data = read_named_entry(in, ".toc", toc_max, &size);
    char *error = toc_parse(in->checkpoint.toc, data, size);
    if (error)
        die("%s: .toc: %s; the stream is damaged, make it anew", in->name, error);
    free(data);
}

static void read_side_files(struct ts_in *in)
{
    struct checkpoint *checkpoint = &in->checkpoint;
    struct names *names = names_new();
    uint64_t total = 0;
    for (struct archive_entry *entry; (entry = peek_entry(in));) {
        const char *path = archive_entry_pathname(entry);
        if (strncmp(path, "files/", 6) != 0)
            break;
        struct side_file file = {.name = xstrdup(path + 6)};
        if (!side_file_name_valid(file.name) || side_file_excluded(file.name))
            refuse_entry(in, path, "no side file may be called so; not made by st-read");
        if (names_add(names, file.name) != checkpoint->files)
            refuse_entry(in, path, "comes twice; not made by st-read");
        if (archive_entry_filetype(entry) == AE_IFLNK) {
            const char *text = archive_entry_symlink(entry);
            const char *plus = text ? strrchr(text, '+') : NULL;
            file.size = plus ? strtoull(plus + 1, NULL, 10) : 0;
            parse_reference(in, path, text, file.size, &file.source, &file.offset);
            entry_used(in);
        } else {
            size_t size;
            char *name = xstrdup(path);
            file.data = read_named_entry(in, name, SIDE_FILES_MAX - total, &size);
            free(name);
            file.size = size;
            total += size;
        }
        checkpoint->file = xgrow(checkpoint->file, checkpoint->files + 1, sizeof file);
        checkpoint->file[checkpoint->files++] = file;
    }
    names_free(names);
}

static void open_tar(struct ts_in *in, int fd)
{
    struct tar *tar = xalloc(1, sizeof *tar);
    in->tar = tar;
    tar->fd = fd;
    tar->buffer = xgrow(NULL, BUFFER, 1);
    fcntl(fd, F_SETPIPE_SZ, BUFFER); /* fewer, larger turns; refused for what is no pipe */
    if (!setlocale(LC_CTYPE, "C.UTF-8"))
        die("the locale C.UTF-8 is missing on this system");
    tar->archive = archive_read_new();
    if (!tar->archive || archive_read_support_format_tar(tar->archive) != ARCHIVE_OK)
        die("out of memory");
    bool opened = archive_read_open(tar->archive, tar, NULL, read_block, NULL) == ARCHIVE_OK;
    if (!opened && !tar->bytes && tar->ended)
        die("%s: is empty; the stage before failed, or nothing was written to it", in->name);
    if (!opened)
        die("%s: %s; not a tensor stream (st-read makes one, of dumps pt-read), or a compressed "
            "one: decompress it first",
            in->name, tar_error(tar));
    read_header(in);
    read_toc(in);
    read_side_files(in);
    json_t *config = ts_file_json(in, "config.json");
    const char *type = json_string_value(json_object_get(in->header, "model_type"));
    in->checkpoint.model = model_open(type, config);
    json_decref(config);
}

/* ---- opening ---- */

static bool is_checkpoint(const char *path)
{
    struct stat status;
    size_t length = strlen(path);
    if (stat(path, &status))
        die_errno("%s", path);
    return S_ISDIR(status.st_mode) || (length > 12 && !strcmp(path + length - 12, ".safetensors"));
}

static void open_checkpoint(struct ts_in *in, char **path, size_t count)
{
    checkpoint_open(&in->checkpoint, path, count);
    struct checkpoint *checkpoint = &in->checkpoint;
    in->header =
        json_pack("{s:s, s:i, s:s*, s:s, s:s*, s:o, s:o, s:{}, s:[]}", "format", "tensor-stream",
                  "version", 1, "model_type", checkpoint->model_type, "scope", "all", "source",
                  checkpoint->folder, "files", sources_to_json(&checkpoint->sources), "input",
                  formats_totals(checkpoint->toc), "quant", "history");
    if (!in->header)
        die("%s: its path is not UTF-8, which a stream needs; move or link it", in->name);
}

static struct ts_in *open_any(char **path, size_t count, const struct stage *stage)
{
    struct ts_in *in = xalloc(1, sizeof *in);
    in->stage = stage;
    if (count == 1 && !strcmp(path[0], "-"))
        count = 0;
    in->name = xstrdup(count ? path[0] : "<stdin>");
    in->plan_only = stage && stage->plan;
    if (count && is_checkpoint(path[0])) {
        open_checkpoint(in, path, count);
    } else {
        if (count > 1)
            die_usage("%s: one stream at a time; several operands must all be .safetensors files",
                      path[0]);
        in->checkpoint.toc = toc_new();
        int fd = count ? open(path[0], O_RDONLY | O_CLOEXEC) : STDIN_FILENO;
        if (fd < 0)
            die_errno("%s", path[0]);
        if (isatty(fd))
            die_usage(
                "standard input is a terminal; give a tensor stream, or a checkpoint's folder");
        open_tar(in, fd);
    }
    bool last = stage && stage->progress;
    in->progress = progress_begin(last && !in->plan_only, toc_bytes(in->checkpoint.toc, true));
    return in;
}

struct ts_in *ts_open(const char *path, const struct stage *stage)
{
    return open_any((char **)&path, path != NULL, stage);
}

struct ts_in *ts_open_all(char **path, size_t count, const struct stage *stage)
{
    return open_any(path, count, stage);
}

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

char *ts_file_read(struct ts_in *in, size_t i)
{
    const struct side_file *file = &in->checkpoint.file[i];
    if (file->size > SIDE_FILES_MAX)
        die("%s: side file %s has %" PRIu64 " bytes, too many to read at once", in->name,
            file->name, file->size);
    char *data = xgrow(NULL, (size_t)file->size + 1, 1);
    if (file->data)
        memcpy(data, file->data, (size_t)file->size);
    else
        sources_read(&in->checkpoint.sources, file->source, file->offset, data, (size_t)file->size,
                     file->name);
    data[file->size] = 0;
    return data;
}

json_t *ts_file_json(struct ts_in *in, const char *name)
{
    for (size_t i = 0; i < in->checkpoint.files; i++)
        if (!strcmp(in->checkpoint.file[i].name, name)) {
            char *data = ts_file_read(in, i);
            char *what = xprintf("%s: %s", in->name, name);
            json_t *value = json_object_from(data, (size_t)in->checkpoint.file[i].size, what);
            free(what);
            free(data);
            return value;
        }
    return NULL;
}

/* ---- tensors ---- */

static void skip_rest(struct ts_in *in)
{
    if (in->tar && in->tensor && !in->by_reference &&
        archive_read_data_skip(in->tar->archive) != ARCHIVE_OK)
        refuse_entry(in, in->tensor->name,
                     xprintf("%s; the stream is cut or damaged, make it anew", tar_error(in->tar)));
    in->tensor = NULL;
}

/* Everything up to the end of file must be zeros behind the .end entry, whose header is at
 * `position`. */
static void prove_end(struct ts_in *in, int64_t position, size_t size)
{
    struct tar *tar = in->tar;
    struct archive_entry *extra;
    if (archive_read_next_header(tar->archive, &extra) != ARCHIVE_EOF)
        die("%s: something follows .end at offset %" PRId64
            "; one stream a file, and nothing behind it",
            in->name, archive_read_header_position(tar->archive));
    const void *block;
    la_ssize_t got;
    while ((got = read_block(tar->archive, tar, &block)) > 0)
        continue;
    if (got < 0)
        die("%s: %s", in->name, tar_error(tar));
    if (tar->nonzero != (uint64_t)position + TAR_BLOCK + size)
        die("%s: something follows the end of the stream at offset %" PRIu64
            "; one stream a file, no second archive behind it",
            in->name, (uint64_t)position + TAR_BLOCK + size);
}

static void read_end(struct ts_in *in)
{
    size_t size;
    struct archive_entry *entry = peek_entry(in);
    if (!entry)
        die("%s: the stream ends without .end; it is cut, or the stage before failed: make it anew",
            in->name);
    int64_t position = archive_read_header_position(in->tar->archive);
    char *data = read_named_entry(in, ".end", JSON_MAX, &size);
    char *what = xprintf("%s: .end", in->name);
    in->end = json_object_from(data, size, what);
    json_int_t tensors = -1, bytes = -1;
    int plan = 0;
    json_t *counts = NULL;
    struct toc *toc = in->checkpoint.toc;
    if (json_unpack(in->end, "{s:I, s:I, s:b, s:o}", "tensors", &tensors, "bytes", &bytes, "plan",
                    &plan, "counts", &counts) ||
        !json_is_array(counts) || tensors != (json_int_t)(plan ? 0 : toc->count) ||
        bytes != (json_int_t)(plan ? 0 : toc_bytes(toc, true)) ||
        in->next != (plan ? 0 : toc->count) || data[size - 1] != '\n')
        die("%s: malformed, or its counts do not fit the table; make the stream anew", what);
    in->plan_only |= plan;
    free(what);
    free(data);
    prove_end(in, position, size);
}

/* The next entry as line `next` of the table. False for a plan-only stream, which has none. */
static bool next_from_tar(struct ts_in *in, const struct tensor *tensor)
{
    struct archive_entry *entry = peek_entry(in);
    const char *path = entry ? archive_entry_pathname(entry) : NULL;
    if (path && !strcmp(path, ".end") && in->next == 0)
        return false;
    if (!path)
        die("%s: wanted tensor %s, got the end; it is cut, or the stage before failed: make it "
            "anew",
            in->name, tensor->name);
    if (strcmp(path, tensor->name) != 0)
        refuse_entry(in, path,
                     xprintf("wanted tensor %s; the stream is not as its table says, make it anew",
                             tensor->name));
    in->by_reference = archive_entry_filetype(entry) == AE_IFLNK;
    if (in->by_reference)
        parse_reference(in, tensor->name, archive_entry_symlink(entry), tensor->size, &in->source,
                        &in->offset);
    else if (archive_entry_size(entry) != (int64_t)tensor->size)
        refuse_entry(in, path,
                     xprintf("wanted %" PRIu64 " bytes, got %" PRId64
                             "; the stream is not as its table says, make it anew",
                             tensor->size, archive_entry_size(entry)));
    entry_used(in);
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
        progress_add(in->progress, in->tensor->size);
    skip_rest(in);
    if (in->next == toc->count) {
        if (in->tar && !in->end)
            read_end(in);
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
        read_entry(in, data, size, in->tensor->name);
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

/* ---- held tensors ---- */

static int spool(struct ts_in *in)
{
    const char *folder = getenv("TMPDIR");
    folder = folder && *folder ? folder : "/tmp";
    int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0)
        die_errno("%s: %s: cannot spool to $TMPDIR, %s", in->name, in->tensor->name, folder);
    char *buffer = xgrow(NULL, BUFFER, 1);
    for (uint64_t left = in->tensor->size; left;) {
        size_t size = left < BUFFER ? (size_t)left : BUFFER;
        ts_read(in, buffer, size);
        for (size_t done = 0; done < size;) {
            ssize_t put = write(fd, buffer + done, size - done);
            if (put < 0 && errno != EINTR)
                die_errno("%s: %s: spooling to $TMPDIR, %s", in->name, in->tensor->name, folder);
            done += put > 0 ? (size_t)put : 0;
        }
        left -= size;
    }
    free(buffer);
    return fd;
}

struct ts_held *ts_hold(struct ts_in *in)
{
    struct ts_held *held = xalloc(1, sizeof *held);
    *held = (struct ts_held){.in = in, .tensor = in->tensor, .fd = -1};
    if (in->by_reference) {
        held->source = in->source;
        held->offset = in->offset;
    } else if (in->tensor->size <= HOLD_MEMORY - in->held_memory) {
        held->data = ts_read_all(in);
        in->held_memory += (size_t)in->tensor->size;
    } else {
        held->fd = spool(in);
    }
    return held;
}

const struct tensor *ts_held_tensor(const struct ts_held *held)
{
    return held->tensor;
}

void ts_held_read(struct ts_held *held, uint64_t offset, void *data, size_t size)
{
    if (offset > held->tensor->size || size > held->tensor->size - offset)
        die("%s: %s: read beyond its end", held->in->name, held->tensor->name);
    if (held->data) {
        memcpy(data, held->data + offset, size);
    } else if (held->fd < 0) {
        sources_read(&held->in->checkpoint.sources, held->source, held->offset + offset, data, size,
                     held->tensor->name);
    } else {
        for (size_t done = 0; done < size;) {
            ssize_t got = pread(held->fd, (char *)data + done, size - done, (off_t)(offset + done));
            if (got == 0 || (got < 0 && errno != EINTR))
                die_errno("%s: %s: reading back from $TMPDIR", held->in->name, held->tensor->name);
            done += got > 0 ? (size_t)got : 0;
        }
    }
}

bool ts_held_ref(const struct ts_held *held, size_t *source, uint64_t *offset)
{
    *source = held->source;
    *offset = held->offset;
    return !held->data && held->fd < 0;
}

void ts_release(struct ts_held *held)
{
    if (!held)
        return;
    if (held->data)
        held->in->held_memory -= (size_t)held->tensor->size;
    if (held->fd >= 0)
        close(held->fd);
    free(held->data);
    free(held);
}

/* ---- the end ---- */

const json_t *ts_end_counts(const struct ts_in *in)
{
    return in->end ? json_object_get(in->end, "counts") : NULL;
}

struct progress *ts_take_progress(struct ts_in *in, uint64_t total)
{
    bool shown = in->progress;
    progress_end(in->progress);
    in->progress = NULL;
    return progress_begin(shown, total);
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
    if (in->tar) {
        archive_read_free(in->tar->archive);
        if (in->tar->fd != STDIN_FILENO)
            close(in->tar->fd);
        free(in->tar->buffer);
        free(in->tar);
    }
    checkpoint_free(&in->checkpoint);
    json_decref(in->header);
    json_decref(in->end);
    free(in->name);
    free(in);
}
