/* The writing half of ts.h. */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/die.h"
#include "base/json.h"
#include "base/names.h"
#include "base/output.h"
#include "base/readers.h"
#include "stream/checkpoint.h"
#include "stream/counts.h"
#include "stream/stream_digest.h"
#include "stream/ts.h"

/* Output is written in blocks, except for pieces that are large themselves. */
enum { BLOCK = 1 << 20, LARGE = 1 << 16, PUBLIC = 0644 };

/* Direct output, see ts_direct(): all of it in such blocks, which lie at such addresses. */
enum { DIRECT_BLOCK = 8 << 20, DIRECT_ALIGNMENT = 1 << 12 };

struct ts_out {
    const struct stage *stage;
    const struct toc *toc;
    struct archive *archive;
    struct archive_entry *entry; /* one record, reused */
    struct output to;
    char *block; /* `room` bytes, of which `held` are not written yet */
    size_t room, held;
    bool direct;
    size_t next;          /* the next line to write */
    uint64_t left;        /* bytes of the current tensor still to be written */
    uint64_t bytes;       /* payload, inline and by reference */
    struct checksum *sum; /* of what was written (stream_digest.h) */
    char *index;          /* of the stage, as counts.h has it */
    json_t *counts;       /* this stage's; NULL if it has none */
    json_t *fresh;        /* those of them that no entry has yet, of the shard of the last line */
};

static void check(struct ts_out *out, la_ssize_t result)
{
    if (result >= 0)
        return;
    const char *reason = archive_error_string(out->archive);
    errno = archive_errno(out->archive);
    die("%s: offset %" PRId64 ": %s: %s; what was written is incomplete", out->to.name,
        archive_filter_bytes(out->archive, -1), reason ? reason : "writing", strerror(errno));
}

/* ---- to the file or pipe ---- */

static bool set_direct(struct ts_out *out, bool direct)
{
    int flags = fcntl(out->to.fd, F_GETFL);
    out->direct = direct;
    return flags >= 0 && !fcntl(out->to.fd, F_SETFL, direct ? flags | O_DIRECT : flags & ~O_DIRECT);
}

static bool write_all(struct ts_out *out, const char *data, size_t size)
{
    while (size) {
        ssize_t put = write(out->to.fd, data, size);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0 && errno == EINVAL && out->direct && set_direct(out, false))
            continue; /* a filesystem that allows it, but not so */
        if (put < 0) {
            archive_set_error(out->archive, errno, "Write error");
            return false;
        }
        data += put;
        size -= (size_t)put;
    }
    return true;
}

static bool flush(struct ts_out *out)
{
    size_t size = out->held;
    out->held = 0;
    if (out->direct && size % DIRECT_ALIGNMENT && !set_direct(out, false)) /* the end of the file */
        die_errno("%s", out->to.name);
    return write_all(out, out->block, size);
}

/* Through the block alone. */
static bool write_blocks(struct ts_out *out, const char *data, size_t size)
{
    while (size) {
        size_t part = size < out->room - out->held ? size : out->room - out->held;
        memcpy(out->block + out->held, data, part);
        out->held += part;
        data += part;
        size -= part;
        if (out->held == out->room && !flush(out))
            return false;
    }
    return true;
}

/* libarchive's write callback. Its own buffer would copy every tensor once more. ts_finish() writes
 * what is held at the end, because libarchive does not report that a close callback failed. */
static la_ssize_t write_bytes(struct archive *archive, void *context, const void *data, size_t size)
{
    struct ts_out *out = context;
    (void)archive;
    if (out->room == DIRECT_BLOCK)
        return write_blocks(out, data, size) ? (la_ssize_t)size : -1;
    if ((size >= LARGE || size > BLOCK - out->held) && !flush(out))
        return -1;
    if (size >= LARGE)
        return write_all(out, data, size) ? (la_ssize_t)size : -1;
    memcpy(out->block + out->held, data, size);
    out->held += size;
    return (la_ssize_t)size;
}

/* ---- entries ---- */

static void begin_entry(struct ts_out *out, const char *path, uint64_t size, unsigned mode)
{
    if (out->sum)
        stream_digest_entry(out->sum, path, NULL);
    archive_entry_clear(out->entry);
    archive_entry_set_pathname(out->entry, path);
    archive_entry_set_filetype(out->entry, AE_IFREG);
    archive_entry_set_perm(out->entry, mode);
    archive_entry_set_size(out->entry, (la_int64_t)size);
    archive_entry_set_mtime(out->entry, 0, 0);
    check(out, archive_write_header(out->archive, out->entry));
}

static void write_data(struct ts_out *out, const void *data, size_t size)
{
    if (out->sum)
        checksum_add(out->sum, data, size);
    for (size_t done = 0; done < size;) {
        la_ssize_t put = archive_write_data(out->archive, (const char *)data + done, size - done);
        check(out, put);
        if (put == 0)
            die("%s: internal: more bytes than the entry was announced with", out->to.name);
        done += (size_t)put;
    }
}

static void write_entry(struct ts_out *out, const char *path, const void *data, size_t size)
{
    begin_entry(out, path, size, PUBLIC);
    write_data(out, data, size);
}

static void write_reference(struct ts_out *out, const char *path, const struct source *file,
                            uint64_t offset, uint64_t size)
{
    char text[256 + 48];
    snprintf(text, sizeof text, "%s@%" PRIu64 "+%" PRIu64, file->label, offset, size);
    stream_digest_entry(out->sum, path, text);
    archive_entry_clear(out->entry);
    archive_entry_set_pathname(out->entry, path);
    archive_entry_set_filetype(out->entry, AE_IFLNK);
    archive_entry_set_perm(out->entry, 0777);
    archive_entry_set_symlink(out->entry, text);
    archive_entry_set_mtime(out->entry, 0, 0);
    check(out, archive_write_header(out->archive, out->entry));
}

static void write_header(struct ts_out *out, struct ts_in *in)
{
    json_t *header = in ? json_deep_copy(ts_header(in))
                        : json_pack("{s:s, s:i, s:s, s:{}, s:{}, s:[]}", "format", "tensor-stream",
                                    "version", 1, "scope", "all", "files", "quant", "history");
    json_t *history = json_object_get(header, "history");
    out->index = xprintf("%zu", counts_stages(history));
    json_array_append(history, out->stage->entry);
    if (in)
        json_object_set_new(header, "files", sources_to_json(ts_sources(in)));
    if (readers() == READERS_ALL)
        json_object_del(header, "mode");
    else
        json_object_set_new(header, "mode", json_sprintf("%04o", 0600 | readers()));
    char *text = json_text(header, true, false);
    if (strlen(text) > TS_JSON_MAX)
        die("%s: its header (files, history) would be over %d MiB; use fewer shards", out->to.name,
            TS_JSON_MAX >> 20);
    write_entry(out, ".stream", text, strlen(text));
    free(text);
    json_decref(header);
}

static void write_toc(struct ts_out *out)
{
    char *text;
    size_t size = toc_format(out->toc, &text);
    write_entry(out, ".toc", text, size);
    free(text);
}

static void write_side_files(struct ts_out *out, struct ts_in *in)
{
    uint64_t inline_bytes = 0;
    for (size_t i = 0; in && i < ts_files(in); i++) {
        size_t source;
        uint64_t size, offset;
        char *path = xprintf("files/%s", ts_file(in, i, &size));
        if (ts_file_ref(in, i, &source, &offset) && !out->stage->embed) {
            write_reference(out, path, &ts_sources(in)->file[source], offset, size);
        } else {
            inline_bytes += size;
            if (size > SIDE_FILES_MAX || inline_bytes > SIDE_FILES_MAX)
                die("%s: side files of more than %d MiB together cannot travel inside a stream; "
                    "copy them separately, or leave out --inline",
                    path, SIDE_FILES_MAX >> 20);
            char *data = ts_file_read(in, i);
            begin_entry(out, path, size, ts_file_mode(in, i));
            write_data(out, data, (size_t)size);
            free(data);
        }
        free(path);
    }
}

/* with --inline, the size is known before the first byte */
static void check_space(const struct ts_out *out)
{
    struct statvfs status;
    uint64_t bytes = toc_bytes(out->toc, true), available;
    if (!out->to.path || !out->stage->embed || out->stage->plan || fstatvfs(out->to.fd, &status))
        return;
    if (mul_fits(status.f_bavail, status.f_frsize, &available) && available < bytes)
        die("%s: %" PRIu64 " bytes are needed, %" PRIu64 " are free; make room, or choose another "
            "disk",
            out->to.name, bytes, available);
}

/* A reference into the file that is written would be one into nothing. */
static void check_sources(const struct ts_out *out, struct ts_in *in)
{
    for (size_t i = 0; in && i < ts_sources(in)->count; i++)
        if (output_is_same(out->stage->output, ts_sources(in)->file[i].path))
            die("%s: is a file of the source; name another file", out->stage->output);
}

static void open_output(struct ts_out *out, struct ts_in *in)
{
    signal(SIGXFSZ, SIG_IGN); /* report a file size limit like other errors: EFBIG */
    if (out->stage->output)
        check_sources(out, in);
    output_open(&out->to, out->stage->output);
    if (isatty(out->to.fd))
        die_usage("%s is a terminal, and a tensor stream is binary; redirect it, pipe it into "
                  "st-ls, or use -o FILE",
                  out->to.name);
    check_space(out);
    fcntl(out->to.fd, F_SETPIPE_SZ, BLOCK);
}

struct ts_out *ts_create(const struct stage *stage, struct ts_in *in, const struct toc *toc)
{
    struct ts_out *out = xalloc(1, sizeof *out);
    out->stage = stage;
    out->toc = toc;
    out->sum = checksum_new();
    open_output(out, in);
    if (!setlocale(LC_CTYPE, "C.UTF-8"))
        die("the locale C.UTF-8 is missing on this system");
    out->archive = archive_write_new();
    out->entry = archive_entry_new();
    if (!out->archive || !out->entry)
        die("out of memory");
    check(out, archive_write_set_format_pax_restricted(out->archive));
    check(out, archive_write_set_bytes_per_block(out->archive, 0));
    check(out, archive_write_set_bytes_in_last_block(out->archive, 1));
    out->block = xgrow(NULL, BLOCK, 1);
    out->room = BLOCK;
    check(out, archive_write_open(out->archive, out, NULL, write_bytes, NULL));
    write_header(out, in);
    write_toc(out);
    write_side_files(out, in);
    return out;
}

void ts_direct(struct ts_out *out)
{
    if (lseek(out->to.fd, 0, SEEK_CUR) || !set_direct(out, true))
        return;
    char *block = aligned_alloc(DIRECT_ALIGNMENT, DIRECT_BLOCK);
    if (!block)
        die("out of memory");
    memcpy(block, out->block, out->held);
    free(out->block);
    out->block = block;
    out->room = DIRECT_BLOCK;
}

const struct tensor *ts_due(const struct ts_out *out)
{
    return out->next < out->toc->count ? &out->toc->tensor[out->next] : NULL;
}

/* ---- counts ---- */

/* `more` is taken over. */
static void add_counts(json_t **sum, json_t *more)
{
    if (!*sum)
        *sum = json_object();
    if (!counts_add(*sum, more))
        die("internal: counts do not add up");
    json_decref(more);
}

void ts_count(struct ts_out *out, const char *of, const char *key, uint64_t n)
{
    json_t *count = json_pack("{s:I}", key, (json_int_t)n);
    if (of)
        count = json_pack("{s:o}", of, count);
    if (n)
        add_counts(&out->fresh, json_incref(count));
    add_counts(&out->counts, count);
}

void ts_count_first(struct ts_out *out, const char *key, const char *text)
{
    json_t *first = json_pack("{s:s}", key, text);
    add_counts(&out->fresh, json_incref(first));
    add_counts(&out->counts, first);
}

uint64_t ts_counted(const struct ts_out *out, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(out->counts, key));
}

void ts_pass_counts(struct ts_out *out, json_t *counts)
{
    const char *shard;
    void *next;
    json_t *stages;
    json_object_foreach_safe(counts, next, shard, stages)
    {
        if (names_find(out->toc->shard_names, shard, strlen(shard)) < 0)
            json_object_del(counts, shard);
    }
    if (json_object_size(counts)) {
        char *text = json_text(counts, false, false);
        write_entry(out, ".counts", text, strlen(text));
        free(text);
    }
    json_decref(counts);
}

/* What was counted since the last entry, as one of the last line's shard. */
static void write_counts(struct ts_out *out)
{
    if (!out->fresh)
        return;
    const char *shard = out->toc->shard[out->toc->tensor[out->next - 1].shard];
    ts_pass_counts(out, json_pack("{s:{s:o}}", shard, out->index, out->fresh));
    out->fresh = NULL;
}

/* ---- tensors ---- */

/* Advance to the next line, which must be `name` unless that is NULL. */
static const struct tensor *begin_line(struct ts_out *out, const char *name)
{
    const struct tensor *due = ts_due(out);
    if (out->left || !due || (name && strcmp(due->name, name) != 0))
        die("internal: wanted to write %s, but the plan has %s with %" PRIu64 " bytes to come",
            name ? name : "a tensor", due ? due->name : "nothing", out->left);
    if (out->next && due->shard != out->toc->tensor[out->next - 1].shard)
        write_counts(out);
    out->next++;
    out->bytes += due->size;
    return due;
}

static void pass_bytes(struct ts_out *out, const struct tensor *due, struct ts_in *in)
{
    begin_entry(out, due->name, due->size, PUBLIC);
    char *buffer = xgrow(NULL, BLOCK, 1);
    for (uint64_t left = due->size; left;) {
        size_t size = left < BLOCK ? (size_t)left : BLOCK;
        ts_read(in, buffer, size);
        write_data(out, buffer, size);
        left -= size;
    }
    free(buffer);
}

static const struct tensor *begin_line_like(struct ts_out *out, const struct tensor *tensor)
{
    const struct tensor *due = begin_line(out, NULL);
    if (due->size != tensor->size)
        die("internal: %s passes as %s, whose size differs", tensor->name, due->name);
    return due;
}

void ts_pass_reference(struct ts_out *out, struct ts_in *in, const struct tensor *tensor,
                       size_t source, uint64_t offset)
{
    const struct tensor *due = begin_line_like(out, tensor);
    write_reference(out, due->name, &ts_sources(in)->file[source], offset, due->size);
}

void ts_pass(struct ts_out *out, struct ts_in *in)
{
    size_t source;
    uint64_t offset;
    const struct tensor *tensor = ts_present(in);
    ts_pass_counts(out, ts_take_counts(in));
    if (ts_ref(in, &source, &offset) && !out->stage->embed)
        ts_pass_reference(out, in, tensor, source, offset);
    else
        pass_bytes(out, begin_line_like(out, tensor), in);
}

void ts_begin(struct ts_out *out, const char *name)
{
    const struct tensor *due = begin_line(out, name);
    begin_entry(out, due->name, due->size, PUBLIC);
    out->left = due->size;
}

void ts_write(struct ts_out *out, const void *data, size_t size)
{
    if (size > out->left)
        die("internal: more bytes for %s than planned", out->toc->tensor[out->next - 1].name);
    write_data(out, data, size);
    out->left -= size;
}

void ts_put(struct ts_out *out, const char *name, const void *data, size_t size)
{
    ts_begin(out, name);
    ts_write(out, data, size);
}

/* Write .end: totals, and the counts of each stage. */
static void write_end(struct ts_out *out, bool plan, const json_t *before)
{
    json_t *all = before ? json_deep_copy(before) : json_array();
    if (out->counts) {
        json_object_set(out->counts, "program", json_object_get(out->stage->entry, "program"));
        json_array_append(all, out->counts);
    }
    json_t *end = json_pack("{s:I, s:I, s:b, s:o}", "tensors", (json_int_t)out->next, "bytes",
                            (json_int_t)out->bytes, "plan", (int)plan, "counts", all);
    if (!end)
        die("out of memory");
    char *text = stream_digest_seal(out->sum, end);
    out->sum = NULL;
    write_entry(out, ".end", text, strlen(text));
    free(text);
    json_decref(end);
}

void ts_finish(struct ts_out *out, struct ts_in *in, json_t *counts)
{
    bool plan = out->stage->plan || (in && ts_plan_only(in));
    if (out->left || (plan ? out->next > 0 : out->next != out->toc->count))
        die("internal: %zu of %zu planned tensors were written", out->next, out->toc->count);
    if (counts)
        add_counts(&out->counts, counts);
    write_counts(out);
    while (in && ts_next(in))
        continue;
    if (in)
        ts_pass_counts(out, ts_take_counts(in));
    json_t *before = in ? json_deep_copy(ts_end_counts(in)) : NULL;
    if (in)
        ts_close(in); /* finds changed sources before .end makes the stream valid */
    write_end(out, plan, before);
    json_decref(before);
    json_decref(out->counts);
    free(out->index);
    check(out, archive_write_close(out->archive));
    check(out, flush(out) ? ARCHIVE_OK : ARCHIVE_FATAL);
    archive_write_free(out->archive);
    archive_entry_free(out->entry);
    output_finish(&out->to);
    free(out->block);
    free(out);
}
