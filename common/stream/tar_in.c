#include "stream/tar_in.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <locale.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/die.h"
#include "base/json.h"
#include "base/text.h"
#include "stream/stream_digest.h"

enum { BUFFER = 1 << 20, PIECE = 1 << 16, TAR_BLOCK = 512 };

struct tar_in {
    const char *name;
    struct archive *archive;
    struct tar_entry entry;
    bool ahead;           /* entry was read but not used yet */
    struct checksum *sum; /* of what was used and read so far; NULL once it was taken */
    int fd;
    char *buffer;
    uint64_t bytes;   /* read so far */
    uint64_t nonzero; /* offset after the last byte that is not 0 */
    bool ended;       /* a read gave 0 bytes */
    bool last;        /* the archive's end was seen; libarchive must not be called again */
};

static la_ssize_t read_block(struct archive *archive, void *context, const void **block)
{
    struct tar_in *tar = context;
    ssize_t got;
    do
        got = read(tar->fd, tar->buffer, BUFFER);
    while (got < 0 && errno == EINTR);
    if (got < 0) {
        archive_set_error(archive, errno, "%s", strerror(errno));
        return -1;
    }
    /* Zeros after the end are padding; anything else there is an error. Searching from the back
     * costs one byte's check per block of tensor data. */
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

static const char *tar_error(struct tar_in *tar)
{
    const char *text = archive_error_string(tar->archive);
    return text ? text : "malformed tar";
}

void tar_refuse(struct tar_in *tar, const char *name, const char *why)
{
    char *shown = printable(xstrdup(name ? name : "(no name)"));
    die("%s: offset %" PRId64 ": entry %s: %s", tar->name,
        archive_read_header_position(tar->archive), shown, why);
}

struct tar_in *tar_open(int fd, const char *name)
{
    struct tar_in *tar = xalloc(1, sizeof *tar);
    tar->name = name;
    tar->fd = fd;
    tar->buffer = xgrow(NULL, BUFFER, 1);
    tar->sum = checksum_new();
    fcntl(fd, F_SETPIPE_SZ, BUFFER); /* fewer, larger reads; fails on anything but a pipe */
    if (!setlocale(LC_CTYPE, "C.UTF-8"))
        die("the locale C.UTF-8 is missing on this system");
    tar->archive = archive_read_new();
    if (!tar->archive || archive_read_support_format_tar(tar->archive) != ARCHIVE_OK)
        die("out of memory");
    bool opened = archive_read_open(tar->archive, tar, NULL, read_block, NULL) == ARCHIVE_OK;
    if (!opened && !tar->bytes && tar->ended)
        die_cut(name, "%s: is empty; the stage before failed, or nothing was written to it", name);
    if (!opened)
        die("%s: %s; not a tensor stream (st-read makes one, pt-read makes one from dumps), or a "
            "compressed one: decompress it first",
            name, tar_error(tar));
    return tar;
}

void tar_close(struct tar_in *tar)
{
    if (!tar)
        return;
    archive_read_free(tar->archive);
    if (tar->fd != STDIN_FILENO)
        close(tar->fd);
    if (tar->sum)
        checksum_end(tar->sum);
    free(tar->buffer);
    free(tar);
}

static void check_entry(struct tar_in *tar, struct archive_entry *entry)
{
    const char *path = archive_entry_pathname(entry);
    mode_t type = archive_entry_filetype(entry);
    if (!path || archive_entry_hardlink(entry) || archive_entry_sparse_reset(entry) > 0 ||
        (type != AE_IFREG && type != AE_IFLNK))
        tar_refuse(tar, path,
                   "neither a plain regular file nor a symbolic link; not a tensor stream");
    if (!text_is_line(path))
        tar_refuse(tar, path, "a control character in its name; not a tensor stream");
}

const struct tar_entry *tar_peek(struct tar_in *tar)
{
    if (tar->ahead)
        return &tar->entry;
    if (tar->last)
        return NULL;
    struct archive_entry *entry;
    int code = archive_read_next_header(tar->archive, &entry);
    tar->last = code == ARCHIVE_EOF;
    if (tar->last)
        return NULL;
    if (code != ARCHIVE_OK && tar->ended)
        die_cut(tar->name,
                "%s: is cut off at offset %" PRIu64
                "; an earlier stage failed, or the file is not whole: make it "
                "again",
                tar->name, tar->bytes);
    if (code != ARCHIVE_OK)
        die("%s: offset %" PRId64 ": %s; the stream is truncated or damaged, make it again",
            tar->name, archive_read_header_position(tar->archive), tar_error(tar));
    check_entry(tar, entry);
    tar->ahead = true;
    bool link = archive_entry_filetype(entry) == AE_IFLNK;
    const char *target = link ? archive_entry_symlink(entry) : NULL;
    tar->entry = (struct tar_entry){archive_entry_pathname(entry), link && !target ? "" : target,
                                    archive_entry_size(entry), archive_entry_perm(entry)};
    return &tar->entry;
}

void tar_use(struct tar_in *tar)
{
    if (tar->sum)
        stream_digest_entry(tar->sum, tar->entry.path, tar->entry.target);
    tar->ahead = false;
}

struct checksum *tar_take_checksum(struct tar_in *tar)
{
    struct checksum *sum = tar->sum;
    tar->sum = NULL;
    return sum;
}

/* Read up to `size` bytes of the entry; 0 at its end. */
static size_t read_piece(struct tar_in *tar, void *data, size_t size, const char *what)
{
    la_ssize_t got = archive_read_data(tar->archive, data, size);
    if (got < 0)
        tar_refuse(
            tar, what,
            xprintf("%s; the stream is truncated or damaged, make it again", tar_error(tar)));
    if (tar->sum)
        checksum_add(tar->sum, data, (size_t)got);
    return (size_t)got;
}

void tar_read(struct tar_in *tar, void *data, size_t size, const char *what)
{
    for (size_t done = 0; done < size;) {
        size_t got = read_piece(tar, (char *)data + done, size - done, what);
        if (got == 0)
            tar_refuse(tar, what,
                       xprintf("ends %zu bytes early; the stream is truncated, make it again",
                               size - done));
        done += got;
    }
}

void tar_skip(struct tar_in *tar, const char *what)
{
    char piece[PIECE];
    while (read_piece(tar, piece, sizeof piece, what))
        continue;
}

char *tar_read_file(struct tar_in *tar, const char *name, uint64_t max, size_t *size)
{
    const struct tar_entry *entry = tar_peek(tar);
    const char *found = entry ? entry->path : "the end";
    if (!entry || strcmp(found, name) != 0 || entry->target)
        die("%s: wanted entry %s, a regular file, got %s%s", tar->name, name, found,
            strcmp(name, ".stream") ? "; the stream is truncated or out of order"
                                    : "; not a tensor stream (st-read makes one)");
    int64_t bytes = entry->size;
    if (bytes < 0 || (uint64_t)bytes > max)
        tar_refuse(tar, name,
                   xprintf("%" PRId64 " bytes, more than the %" PRIu64 " allowed; not a tensor "
                           "stream, or damaged",
                           bytes, max));
    tar_use(tar);
    /* memory grows with the bytes that arrive, not with the size announced */
    char *data = xgrow(NULL, 1, 1);
    for (*size = 0; *size < (size_t)bytes;) {
        size_t piece = (size_t)bytes - *size, most = *size < BUFFER ? BUFFER : *size;
        if (piece > most)
            piece = most;
        data = xgrow(data, *size + piece + 1, 1);
        tar_read(tar, data + *size, piece, name);
        *size += piece;
    }
    data[*size] = 0;
    return data;
}

void tar_prove_end(struct tar_in *tar)
{
    struct archive_entry *extra;
    uint64_t end = (uint64_t)archive_read_header_position(tar->archive) + TAR_BLOCK +
                   (uint64_t)tar->entry.size;
    if (archive_read_next_header(tar->archive, &extra) != ARCHIVE_EOF)
        die("%s: something follows .end at offset %" PRId64
            "; a file holds one stream and nothing after it",
            tar->name, archive_read_header_position(tar->archive));
    const void *block;
    la_ssize_t got;
    while ((got = read_block(tar->archive, tar, &block)) > 0)
        continue;
    if (got < 0)
        die("%s: %s", tar->name, tar_error(tar));
    if (tar->nonzero != end)
        die("%s: something follows the end of the stream at offset %" PRIu64
            "; a file holds one stream, and no second archive after it",
            tar->name, end);
}
