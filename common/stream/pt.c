#include "stream/pt.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/die.h"
#include "base/readers.h"
#include "base/text.h"
#include "stream/pickle.h"

enum { PICKLE_MAX = 1 << 26, BYTEORDER_MAX = 16, ENTRIES_MAX = (1 << 20) + 64, BLOCK = 1 << 16 };

struct pt_entry {
    char *name; /* without the top folder */
    char *data;
    uint64_t size;
};

/* ---- the zip ---- */

static char *zip_error(struct archive *zip, const char *where)
{
    const char *text = archive_error_string(zip);
    if (!text)
        text = "not readable";
    return xprintf("%s: %.*s; wanted a whole zip file, as torch.save() writes it", where,
                   (int)strcspn(text, "\n"), text); /* some of libarchive's texts end in a newline
                                                     */
}

/* Stored or deflated: libarchive shows it only in the format's name. */
static bool packing_known(struct archive *zip)
{
    const char *name = archive_format_name(zip);
    return name && (strstr(name, "(uncompressed)") || strstr(name, "(deflation)"));
}

/* Read the bytes of the entry whose header was read, with room for one more: the end must be seen,
 * because there the CRC is checked. Memory grows with the bytes that arrive, not with the size
 * announced. */
static char *read_data(struct archive *zip, struct pt_entry *entry)
{
    uint64_t at = 0, room = 0;
    la_ssize_t got;
    do {
        if (at == room) {
            room = room ? 2 * room : BLOCK;
            if (room > entry->size)
                room = entry->size + 1;
            entry->data = xgrow(entry->data, (size_t)room, 1);
        }
        got = archive_read_data(zip, entry->data + at, (size_t)(room - at));
        at += got > 0 ? (uint64_t)got : 0;
    } while (got > 0 && at <= entry->size);
    if (got < 0)
        return zip_error(zip, entry->name);
    return at == entry->size ? NULL
                             : xprintf("%s: wanted %" PRIu64 " bytes, got %s", entry->name,
                                       entry->size, at > entry->size ? "more" : "less");
}

/* The name in "TOP/name" if it is printable; NULL if it is not of that form. TOP must be the same
 * in all entries; the first one sets *top. */
static const char *name_below(char **top, const char *path)
{
    const char *slash = path ? strchr(path, '/') : NULL;
    if (!slash || slash == path || !text_is_line(path))
        return NULL;
    size_t length = (size_t)(slash - path);
    if (!*top) {
        *top = xstrdup(path);
        (*top)[length] = 0;
    }
    return strlen(*top) == length && !strncmp(*top, path, length) ? slash + 1 : NULL;
}

/* Store the entry whose header was read: its name, and its bytes if needed. */
static char *read_entry(struct pt *pt, struct archive *zip, struct archive_entry *header,
                        char **top, uint64_t *storages_left)
{
    const char *name = name_below(top, archive_entry_pathname(header));
    if (!name)
        return xprintf("entry %zu of the zip: wanted a printable name in folder '%s'",
                       pt->entries + 1, *top ? *top : "archive");
    if (archive_entry_filetype(header) != AE_IFREG || !packing_known(zip))
        return xprintf("%s: wanted a stored or deflated file", name);
    if (pt->entries == ENTRIES_MAX)
        return xprintf("more than %d entries in the zip", ENTRIES_MAX);
    if (pt->entries % 1024 == 0)
        pt->entry = xgrow(pt->entry, pt->entries + 1024, sizeof *pt->entry);
    struct pt_entry *entry = &pt->entry[pt->entries++];
    *entry = (struct pt_entry){xstrdup(name), NULL, (uint64_t)archive_entry_size(header)};

    bool storage = starts_with(name, "data/"), pickle = !strcmp(name, "data.pkl");
    if (!storage && !pickle && strcmp(name, "byteorder") != 0)
        return NULL;
    uint64_t most = storage ? *storages_left : pickle ? PICKLE_MAX : BYTEORDER_MAX;
    if (entry->size > most)
        return xprintf("%s: wanted at most %" PRIu64 " bytes%s, got %" PRIu64, name, most,
                       storage ? " (1 GiB less the storages before it)" : "", entry->size);
    if (storage)
        *storages_left -= entry->size;
    return read_data(zip, entry);
}

static int by_name(const void *a, const void *b)
{
    const struct pt_entry *x = a, *y = b;
    return strcmp(x->name, y->name);
}

static char *sort_entries(struct pt *pt)
{
    if (pt->entries)
        qsort(pt->entry, pt->entries, sizeof *pt->entry, by_name);
    for (size_t i = 1; i < pt->entries; i++)
        if (!strcmp(pt->entry[i - 1].name, pt->entry[i].name))
            return xprintf("%s: occurs twice in the zip", pt->entry[i].name);
    return NULL;
}

static const struct pt_entry *find_entry(const struct pt *pt, const char *name)
{
    struct pt_entry key = {.name = (char *)name};
    return pt->entries ? bsearch(&key, pt->entry, pt->entries, sizeof key, by_name) : NULL;
}

static char *read_zip(struct pt *pt, int fd)
{
    struct archive *zip = archive_read_new();
    /* the seeking reader starts from the directory at the end, which a truncated file lacks */
    if (!zip || archive_read_support_format_zip_seekable(zip) != ARCHIVE_OK)
        die("out of memory");
    char *top = NULL, *error = NULL;
    uint64_t storages_left = PT_MAX;
    struct archive_entry *header;
    int result = archive_read_open_fd(zip, fd, BLOCK);
    while (result == ARCHIVE_OK && !error &&
           (result = archive_read_next_header(zip, &header)) == ARCHIVE_OK)
        error = read_entry(pt, zip, header, &top, &storages_left);
    if (!error && result != ARCHIVE_EOF)
        error = zip_error(zip, "the zip");
    archive_read_free(zip);
    free(top);
    return error ? error : sort_entries(pt);
}

/* ---- the tensors ---- */

static char *check_byteorder(const struct pt *pt)
{
    const struct pt_entry *entry = find_entry(pt, "byteorder");
    if (!entry || (entry->size == 6 && !memcmp(entry->data, "little", 6)))
        return NULL; /* PyTorch before 2.1 wrote no such entry */
    return xprintf("byteorder: wanted 'little'; save the file on a little-endian machine");
}

static bool contiguous(const struct pickle_tensor *tensor)
{
    uint64_t next = 1; /* cannot overflow: the tensor's size fits */
    for (size_t i = tensor->rank; i-- > 0; next *= tensor->dim[i])
        if (tensor->dim[i] != 1 && tensor->stride[i] != next)
            return false;
    return true;
}

/* *data = where the tensor's `size` bytes are. NULL, or an error text. */
static char *place(const struct pt *pt, const struct pickle_tensor *tensor, uint64_t size,
                   const char **data)
{
    char *name = xprintf("data/%s", tensor->storage);
    const struct pt_entry *entry = find_entry(pt, name);
    free(name);
    uint64_t unit = dtype_size(tensor->dtype), bytes, begin, end;
    if (!entry)
        return xprintf("its storage data/%s is missing", tensor->storage);
    if (!mul_fits(tensor->elements, unit, &bytes) || bytes != entry->size)
        return xprintf("wanted a storage data/%s of %" PRIu64 " %s, got %" PRIu64 " bytes",
                       tensor->storage, tensor->elements, dtype_name(tensor->dtype), entry->size);
    if (!mul_fits(tensor->offset, unit, &begin) || !add_fits(begin, size, &end) || end > bytes)
        return xprintf("%" PRIu64 " bytes from element %" PRIu64 " on are outside its storage "
                       "data/%s of %" PRIu64 " bytes",
                       size, tensor->offset, tensor->storage, bytes);
    if (size && !contiguous(tensor))
        return xprintf("not contiguous; save its .contiguous() copy instead");
    *data = entry->data + begin;
    return NULL;
}

static char *add_tensor(struct pt *pt, const struct pickle_tensor *tensor, struct toc *toc,
                        uint32_t shard, uint64_t *left)
{
    struct tensor line = {
        .name = tensor->name, .shard = shard, .rank = tensor->rank, .dtype = tensor->dtype};
    memcpy(line.dim, tensor->dim, sizeof line.dim);
    const char *error = toc_add(toc, &line);
    if (error)
        return xprintf("%s", error);
    uint64_t size = toc->tensor[toc->count - 1].size;
    if (size > *left)
        return xprintf("%" PRIu64 " bytes, wanted at most %" PRIu64 " (1 GiB less the tensors "
                       "before it)",
                       size, *left);
    *left -= size;
    return place(pt, tensor, size, &pt->data[pt->tensors++]);
}

static char *read_tensors(struct pt *pt, struct toc *toc, uint32_t shard)
{
    const struct pt_entry *entry = find_entry(pt, "data.pkl");
    if (!entry)
        return xprintf("data.pkl is missing; wanted a file that torch.save() wrote");
    struct pickle pickle;
    char *error = pickle_parse(&pickle, entry->data, (size_t)entry->size);
    pt->data = xalloc(pickle.count, sizeof *pt->data);
    uint64_t left = PT_MAX;
    for (size_t i = 0; i < pickle.count && !error; i++) {
        char *wrong = add_tensor(pt, &pickle.tensor[i], toc, shard, &left);
        if (wrong)
            error = xprintf("%s: %s", pickle.tensor[i].name, wrong);
        free(wrong);
    }
    pickle_free(&pickle);
    return error;
}

/* ---- the file ---- */

char *pt_read(struct pt *pt, const char *path, struct toc *toc, uint32_t shard)
{
    *pt = (struct pt){0};
    struct stat status;
    if (!setlocale(LC_CTYPE, "C.UTF-8")) /* libarchive needs it for names in UTF-8 */
        die("the locale C.UTF-8 is missing on this system");
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return xprintf("%s", strerror(errno));
    char *error = NULL;
    if (fstat(fd, &status))
        error = xprintf("%s", strerror(errno));
    else if (!S_ISREG(status.st_mode))
        error = xprintf("not a regular file");
    else if (status.st_size > PT_MAX)
        error = xprintf("%" PRIi64 " bytes, wanted at most 1 GiB", (int64_t)status.st_size);
    readers_limit_to(fd);
    if (!error)
        error = read_zip(pt, fd);
    if (!error)
        error = check_byteorder(pt);
    if (!error)
        error = read_tensors(pt, toc, shard);
    close(fd);
    return error;
}

void pt_free(struct pt *pt)
{
    for (size_t i = 0; i < pt->entries; i++) {
        free(pt->entry[i].name);
        free(pt->entry[i].data);
    }
    free(pt->entry);
    free(pt->data);
    *pt = (struct pt){0};
}
