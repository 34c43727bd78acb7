#include "stream/safetensors.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/die.h"
#include "base/json.h"
#include "base/number.h"
#include "base/text.h"

enum { PAGE = 4096 };

/* The header's bytes, read by the JSON walker. */
struct header_reader {
    int fd;
    uint64_t at, end;
    int error;
};

static size_t fill_from_header(void *context, char *data, size_t room)
{
    struct header_reader *reader = context;
    if (room > reader->end - reader->at)
        room = (size_t)(reader->end - reader->at);
    ssize_t got;
    do
        got = pread(reader->fd, data, room, (off_t)reader->at);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        reader->error = errno;
    if (got <= 0)
        return 0;
    reader->at += (uint64_t)got;
    return (size_t)got;
}

static void read_offsets(struct json_walk *walk, uint64_t *begin, uint64_t *end)
{
    bool two = json_walk_array(walk) && json_walk_item(walk) && json_walk_number(walk, begin) &&
               json_walk_item(walk) && json_walk_number(walk, end) && !json_walk_item(walk);
    if (!two)
        json_walk_fail(walk, "data_offsets needs two numbers");
    else if (*end < *begin)
        json_walk_fail(walk, "data_offsets run backwards");
}

static void read_shape(struct json_walk *walk, struct tensor *tensor)
{
    tensor->rank = 0;
    for (json_walk_array(walk); json_walk_item(walk);) {
        if (tensor->rank == TENSOR_RANK_MAX) {
            json_walk_fail(walk, "a tensor of more than %d dimensions", TENSOR_RANK_MAX);
            return;
        }
        json_walk_number(walk, &tensor->dim[tensor->rank++]);
    }
}

static void read_dtype(struct json_walk *walk, struct tensor *tensor)
{
    enum dtype dtype;
    const char *text = json_walk_string(walk);
    if (text && !dtype_parse(text, &dtype))
        json_walk_fail(walk, "unknown dtype '%.32s'", text);
    else if (text)
        tensor->dtype = (uint8_t)dtype;
}

/* The object {dtype, shape, data_offsets} of one tensor. */
static bool read_tensor(struct json_walk *walk, struct tensor *tensor, uint64_t *begin)
{
    enum { DTYPE = 1, SHAPE = 2, OFFSETS = 4, ALL = 7 };
    unsigned seen = 0, now = 0;
    uint64_t end = 0;
    const char *key;
    if (!json_walk_object(walk))
        return false;
    while (json_walk_key(walk, &key)) {
        now = !strcmp(key, "dtype")          ? DTYPE
              : !strcmp(key, "shape")        ? SHAPE
              : !strcmp(key, "data_offsets") ? OFFSETS
                                             : 0;
        if (!now)
            json_walk_fail(walk, "unknown field '%.32s' of a tensor", key);
        else if (seen & now)
            json_walk_fail(walk, "field '%.32s' occurs twice", key);
        else if (now == DTYPE)
            read_dtype(walk, tensor);
        else if (now == SHAPE)
            read_shape(walk, tensor);
        else
            read_offsets(walk, begin, &end);
        seen |= now;
    }
    uint64_t size;
    if (json_walk_error(walk))
        return false;
    if (seen != ALL)
        json_walk_fail(walk, "dtype, shape or data_offsets is missing");
    else if (!tensor_size(tensor->dtype, tensor->rank, tensor->dim, &size))
        json_walk_fail(walk, tensor->dtype == DTYPE_F4
                                 ? "its F4 rows are no whole bytes, or its size overflows"
                                 : "its size overflows");
    else if (size != end - *begin)
        json_walk_fail(walk, "dtype and shape make %" PRIu64 " bytes, data_offsets %" PRIu64, size,
                       end - *begin);
    return !json_walk_error(walk);
}

static void read_metadata(struct json_walk *walk)
{
    const char *key;
    for (json_walk_object(walk); json_walk_key(walk, &key);)
        json_walk_string(walk);
}

/* A line of the table and the offset of its data. */
struct placed {
    struct tensor tensor;
    uint64_t offset;
};

static int by_offset(const void *a, const void *b)
{
    const struct placed *x = a, *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    /* empty tensors share the next tensor's offset */
    return x->tensor.size != y->tensor.size ? (x->tensor.size < y->tensor.size ? -1 : 1)
                                            : strcmp(x->tensor.name, y->tensor.name);
}

/* Sort the lines from `first` on by offset, and check that they fill `data_size` bytes without
 * holes or overlaps. NULL, or an error text. */
static char *order_by_offset(struct toc *toc, size_t first, uint64_t *offset, uint64_t data_start,
                             uint64_t data_size)
{
    size_t count = toc->count - first;
    struct placed *placed = xalloc(count, sizeof *placed);
    for (size_t i = 0; i < count; i++)
        placed[i] = (struct placed){toc->tensor[first + i], offset[first + i]};
    qsort(placed, count, sizeof *placed, by_offset);
    char *error = NULL;
    uint64_t at = 0;
    for (size_t i = 0; i < count && !error; i++) {
        if (placed[i].offset != at)
            error = xprintf("tensor %s: begins at %" PRIu64 " of the data, but the one before ends "
                            "at %" PRIu64 " (%s)",
                            placed[i].tensor.name, placed[i].offset, at,
                            placed[i].offset < at ? "overlap" : "hole");
        at += placed[i].tensor.size;
        toc->tensor[first + i] = placed[i].tensor;
        offset[first + i] = data_start + placed[i].offset;
    }
    if (!error && at != data_size)
        error = xprintf("the tensors end at %" PRIu64 " of the data, the file at %" PRIu64, at,
                        data_size);
    free(placed);
    return error;
}

/* Read the first 8 bytes, the length of the header that follows, and check it. NULL, or an error
 * text. */
static char *read_length(struct header_reader *reader, uint64_t file_size, uint64_t *length)
{
    unsigned char raw[8] = {0};
    size_t there = 0;
    reader->end = sizeof raw;
    for (size_t got; (got = fill_from_header(reader, (char *)raw + there, 8 - there)) > 0;)
        there += got;
    if (there != 8)
        return reader->error ? xprintf("%s", strerror(reader->error))
                             : xprintf("shorter than the 8 bytes of a safetensors header");
    for (int i = 8; i-- > 0;)
        *length = *length << 8 | raw[i];
    if (*length > SAFETENSORS_HEADER_MAX)
        return xprintf("its header claims %" PRIu64 " bytes, more than the 100 MB allowed; is it "
                       "a safetensors file?",
                       *length);
    if (file_size < 8 || *length > file_size - 8)
        return xprintf("its header claims %" PRIu64 " bytes, but the file has %" PRIu64
                       " (truncated?)",
                       *length, file_size);
    char first = 0;
    if (*length == 0 || pread(reader->fd, &first, 1, 8) != 1 || first != '{')
        return xprintf("its header does not begin with '{'");
    reader->end = 8 + *length;
    return NULL;
}

/* Append tensor `key` to the table; its entry in *offset is the start of its data, relative to all
 * data. NULL, or an error text. */
static char *add_tensor(struct json_walk *walk, const char *key, struct toc *toc, uint32_t shard,
                        uint64_t **offset)
{
    char name[TENSOR_NAME_MAX + 1];
    if (strlen(key) > TENSOR_NAME_MAX) {
        json_walk_fail(walk, "a tensor's name is longer than %d bytes", TENSOR_NAME_MAX);
        return xstrdup(json_walk_error(walk));
    }
    strcpy(name, key);
    struct tensor tensor = {.name = name, .shard = shard};
    uint64_t begin = 0;
    const char *error = read_tensor(walk, &tensor, &begin) ? toc_add(toc, &tensor) : NULL;
    if (error)
        json_walk_fail(walk, "%s", error);
    if (json_walk_error(walk))
        return xprintf("tensor %.100s: %s", printable(name), json_walk_error(walk));
    *offset = xgrow(*offset, toc->capacity, sizeof **offset);
    (*offset)[toc->count - 1] = begin;
    return NULL;
}

/* Read the header's JSON. NULL, or an error text. */
static char *read_tensors(struct json_walk *walk, struct toc *toc, uint32_t shard,
                          uint64_t **offset)
{
    const char *key;
    bool metadata = false;
    for (json_walk_object(walk); json_walk_key(walk, &key);) {
        if (!strcmp(key, "__metadata__")) {
            if (metadata)
                json_walk_fail(walk, "__metadata__ occurs twice");
            metadata = true;
            read_metadata(walk);
            continue;
        }
        char *error = add_tensor(walk, key, toc, shard, offset);
        if (error)
            return error;
    }
    json_walk_end(walk);
    return NULL;
}

char *safetensors_read(int fd, uint64_t file_size, struct toc *toc, uint32_t shard,
                       uint64_t **offset)
{
    struct header_reader reader = {.fd = fd};
    uint64_t length = 0;
    char *error = read_length(&reader, file_size, &length);
    if (error)
        return error;
    struct json_walk *walk = json_walk_new(fill_from_header, &reader);
    size_t before = toc->count;
    error = read_tensors(walk, toc, shard, offset);
    if (!error && reader.error)
        json_walk_fail(walk, "%s", strerror(reader.error));
    if (!error && json_walk_error(walk))
        error = xstrdup(json_walk_error(walk));
    json_walk_free(walk);
    return error ? error
                 : order_by_offset(toc, before, *offset, 8 + length, file_size - 8 - length);
}

static bool whole_pages(const struct tensor *tensor)
{
    return tensor->size % PAGE == 0;
}

/* Order in the layout: whole pages, then by descending alignment. */
static unsigned place_of(const struct tensor *tensor)
{
    return whole_pages(tensor) ? 0 : 16 - dtype_size(tensor->dtype);
}

/* Write a tensor's entry of the header; its data go from `begin` to `end`. */
static void put_tensor(const struct tensor *tensor, uint64_t begin, uint64_t end, FILE *out)
{
    char form[TENSOR_SHAPE_TEXT + 2 * NUMBER_TEXT + 64];
    char *p = stpcpy(form, ":{\"dtype\":\"");
    p = stpcpy(stpcpy(p, dtype_name(tensor->dtype)), "\",\"shape\":");
    p = stpcpy(strchr(tensor_shape(tensor, p), 0), ",\"data_offsets\":[");
    p = number_put(p, begin);
    *p++ = ',';
    p = stpcpy(number_put(p, end), "]}");
    fputc(',', out);
    text_put_quoted(tensor->name, out);
    fwrite(form, 1, (size_t)(p - form), out);
}

uint64_t safetensors_layout(const struct toc *toc, const uint32_t *line, size_t count,
                            uint32_t phase, uint64_t *offset, char **header, uint64_t *header_size)
{
    static const unsigned places[] = {0, 16 - 8, 16 - 4, 16 - 2, 16 - 1};
    char *text;
    size_t length;
    unsigned alignment = 1;
    uint64_t at = 0, end;
    FILE *out = open_memstream(&text, &length);
    if (!out)
        die_errno("out of memory");
    fwrite("\0\0\0\0\0\0\0", 1, 8, out); /* replaced by the header's length at the end */
    fputs("{\"__metadata__\":{\"format\":\"pt\"}", out);
    for (size_t p = 0; p < sizeof places / sizeof *places; p++)
        for (size_t i = 0; i < count; i++) {
            const struct tensor *tensor = &toc->tensor[line[i]];
            if (place_of(tensor) != places[p])
                continue;
            if (dtype_size(tensor->dtype) > alignment)
                alignment = dtype_size(tensor->dtype);
            offset[i] = at;
            end = at + tensor->size; /* fits: both are below 2^63 */
            if (end > INT64_MAX - SAFETENSORS_HEADER_MAX)
                die("%s: shard %s: its size overflows", tensor->name, toc->shard[tensor->shard]);
            put_tensor(tensor, at, end, out);
            at = end;
        }
    fputc('}', out);
    uint64_t used = (uint64_t)ftell(out);
    if (phase % alignment)
        phase = 0;
    uint64_t start = used - used % PAGE + phase;
    if (start < used)
        start += PAGE;
    fprintf(out, "%*s", (int)(start - used), "");
    if (fclose(out) || length != start)
        die("out of memory for the header of a shard");
    if (start - 8 > SAFETENSORS_HEADER_MAX)
        die("%s: the header of this shard would be over 100 MB, the limit of safetensors; use more "
            "shards",
            toc->shard[toc->tensor[line[0]].shard]);
    for (int i = 0; i < 8; i++)
        text[i] = (char)((start - 8) >> 8 * i & 0xff);
    for (size_t i = 0; i < count; i++)
        offset[i] += start;
    *header = text;
    *header_size = start;
    return start + at;
}
