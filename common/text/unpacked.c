#include "text/unpacked.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/die.h"
#include "base/readers.h"

enum { BLOCK = 1 << 20 };

struct unpacked {
    const char *name;
    int fd;
    struct archive *archive;
    size_t ahead, taken; /* of begin[]: bytes read, and bytes returned */
    char begin[8];
};

static _Noreturn void refuse(const struct unpacked *u)
{
    const char *why = archive_error_string(u->archive);
    if (archive_errno(u->archive) == EISDIR)
        die("%s: Is a directory", u->name);
    die("%s: %s; is the file whole?", u->name, why ? why : "cannot be read");
}

/* Fewer than `room` bytes only at the end. */
static size_t read_on(struct unpacked *u, char *data, size_t room)
{
    size_t got = 0;
    while (got < room) {
        la_ssize_t some = archive_read_data(u->archive, data + got, room - got);
        if (some < 0)
            refuse(u);
        if (!some)
            break;
        got += (size_t)some;
    }
    return got;
}

/* Refuse formats that are often mistaken for text, by their first bytes. */
static void check_begin(const struct unpacked *u)
{
    static const struct {
        const char *magic, *what;
    } other[] = {
        {"ARROW1", "an Arrow file"},
        {"BZh91AY&", "packed by bzip2"},
        {"\xfd"
         "7zXZ",
         "packed by xz"},
        {"PK\x03\x04", "a zip"},
    };
    /* Whoever chose the file's name does not choose what the shell runs. */
    const char *file = strpbrk(u->name, "'\"\\$`!<") ? "FILE.parquet" : u->name;
    if (u->ahead >= 4 && !memcmp(u->begin, "PAR1", 4))
        die("%s: a Parquet file; make JSON lines of it: duckdb -jsonlines -c \"SELECT * FROM "
            "'%s'\" >text.jsonl",
            u->name, file);
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        size_t length = strlen(other[i].magic);
        if (u->ahead >= length && !memcmp(u->begin, other[i].magic, length))
            die("%s: %s; wanted JSON lines or plain text, as it is or packed by gzip or zstd",
                u->name, other[i].what);
    }
}

struct unpacked *unpacked_open(const char *path)
{
    struct unpacked *u = xalloc(1, sizeof *u);
    *u = (struct unpacked){.name = path ? path : "<stdin>",
                           .fd = path ? open(path, O_RDONLY | O_CLOEXEC) : STDIN_FILENO};
    if (u->fd < 0)
        die_errno("%s", u->name);
    readers_limit_to(u->fd);
    u->archive = archive_read_new();
    if (!u->archive || archive_read_support_filter_gzip(u->archive) != ARCHIVE_OK ||
        archive_read_support_filter_zstd(u->archive) != ARCHIVE_OK ||
        archive_read_support_format_raw(u->archive) != ARCHIVE_OK ||
        archive_read_support_format_empty(u->archive) != ARCHIVE_OK)
        die("libarchive reads no gzip and zstd here: %s",
            u->archive ? archive_error_string(u->archive) : "out of memory");
    struct archive_entry *entry;
    if (archive_read_open_fd(u->archive, u->fd, BLOCK) != ARCHIVE_OK)
        refuse(u);
    int found = archive_read_next_header(u->archive, &entry);
    if (found != ARCHIVE_OK && found != ARCHIVE_EOF)
        refuse(u);
    u->ahead = found == ARCHIVE_EOF ? 0 : read_on(u, u->begin, sizeof u->begin);
    check_begin(u);
    return u;
}

void unpacked_close(struct unpacked *u)
{
    archive_read_free(u->archive);
    if (u->fd != STDIN_FILENO)
        close(u->fd);
    free(u);
}

size_t unpacked_read(struct unpacked *u, char *data, size_t room)
{
    size_t first = u->ahead - u->taken < room ? u->ahead - u->taken : room;
    memcpy(data, u->begin + u->taken, first);
    u->taken += first;
    /* after a short beginning, the file ends */
    return u->ahead < sizeof u->begin ? first : first + read_on(u, data + first, room - first);
}

const char *unpacked_name(const struct unpacked *u)
{
    return u->name;
}

uint64_t unpacked_bytes(const struct unpacked *u)
{
    la_int64_t bytes = archive_filter_bytes(u->archive, -1);
    return bytes > 0 ? (uint64_t)bytes : 0;
}
