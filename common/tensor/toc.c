#include "tensor/toc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "base/arena.h"
#include "base/die.h"
#include "base/json.h"
#include "base/names.h"
#include "base/number.h"
#include "base/text.h"

/* An open-addressing hash table; the number of slots is a power of two. */
struct slot {
    uint32_t line; /* + 1; 0: empty */
    uint32_t hash; /* of its name: a table's names have long beginnings in common */
};
struct toc_index {
    size_t slots;
    struct slot slot[];
};

struct toc *toc_new(void)
{
    struct toc *toc = xalloc(1, sizeof *toc);
    toc->arena = arena_new();
    toc->shard_names = names_new();
    return toc;
}

void toc_free(struct toc *toc)
{
    if (!toc)
        return;
    arena_free(toc->arena);
    names_free(toc->shard_names);
    free(toc->tensor);
    free(toc->shard);
    free(toc->index);
    free(toc);
}

uint32_t toc_shard(struct toc *toc, const char *name)
{
    if (toc->shards && !strcmp(toc->shard[toc->shards - 1], name)) /* as most lines */
        return (uint32_t)toc->shards - 1;
    size_t shard = names_add(toc->shard_names, name);
    if (shard == toc->shards) {
        if (!(toc->shards & (toc->shards - 1))) /* 0 or a power of two: full */
            toc->shard = xgrow(toc->shard, 2 * toc->shards + 1, sizeof *toc->shard);
        toc->shard[toc->shards++] = arena_copy(toc->arena, name, strlen(name));
    }
    return (uint32_t)shard;
}

bool tensor_size(enum dtype dtype, unsigned rank, const uint64_t *dim, uint64_t *size)
{
    *size = dtype_size(dtype);
    for (unsigned i = 0; i < rank; i++)
        if (!mul_fits(*size, dim[i], size))
            return false;
    if (dtype == DTYPE_F4) {
        if (!rank || dim[rank - 1] % 2)
            return false;
        *size /= 2;
    }
    return *size <= INT64_MAX;
}

bool tensor_name_valid(const char *name)
{
    if (!*name || starts_with(name, "files/"))
        return false;
    const char *component = name;
    for (const char *p = name;; p++) {
        if (*p == '/' || !*p) {
            size_t length = (size_t)(p - component);
            if (length == 0 || (length == 2 && component[0] == '.' && component[1] == '.') ||
                (length == 1 && component[0] == '.'))
                return false;
            component = p + 1;
        }
        if (!*p)
            break;
        if (*p <= ' ' || *p > '~')
            return false;
    }
    return name[0] != '.';
}

bool shard_name_valid(const char *name)
{
    return strlen(name) <= SHARD_NAME_MAX && tensor_name_valid(name) && !strpbrk(name, "/@");
}

const char *shard_name_of(const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    if (!shard_name_valid(name))
        die("%s: a shard's name must be printable ASCII without spaces and '@', and not start with "
            "'.'; rename or link it",
            printable(xstrdup(path)));
    return name;
}

static uint64_t hash_of(const char *name)
{
    return XXH3_64bits(name, strlen(name));
}

/* The slot of a name with that hash (in any shard, or only in `shard` if that is not negative), or
 * the empty slot where it belongs. */
static struct slot *slot_of(const struct toc *toc, struct toc_index *index, const char *name,
                            uint64_t hash, int64_t shard)
{
    for (size_t i = hash & (index->slots - 1);; i = (i + 1) & (index->slots - 1)) {
        struct slot *slot = &index->slot[i];
        if (!slot->line)
            return slot;
        const struct tensor *tensor = &toc->tensor[slot->line - 1];
        if (slot->hash == hash >> 32 && !strcmp(tensor->name, name) &&
            (shard < 0 || tensor->shard == (uint32_t)shard))
            return slot;
    }
}

/* Add a line to the index. False if one of that name, in `shard` if not negative, is there. */
static bool enter(const struct toc *toc, struct toc_index *index, size_t line, int64_t shard)
{
    const char *name = toc->tensor[line].name;
    uint64_t hash = hash_of(name);
    struct slot *slot = slot_of(toc, index, name, hash, shard);
    if (slot->line)
        return false;
    *slot = (struct slot){.line = (uint32_t)(line + 1), .hash = (uint32_t)(hash >> 32)};
    return true;
}

static struct toc_index *new_index(size_t lines)
{
    size_t slots = 64;
    while (slots < 2 * lines)
        slots *= 2;
    struct toc_index *index = xalloc(1, sizeof *index + slots * sizeof *index->slot);
    index->slots = slots;
    return index;
}

/* Add a new line to the index, if there is one; drop the index when it gets too full. */
static void index_line(struct toc *toc, size_t line)
{
    if (!toc->index)
        return;
    if (2 * (line + 1) > toc->index->slots) {
        free(toc->index);
        toc->index = NULL;
        return;
    }
    enter(toc, toc->index, line, -1);
}

static void reserve(struct toc *toc, size_t lines)
{
    toc->capacity = lines;
    toc->tensor = xgrow(toc->tensor, lines, sizeof *toc->tensor);
}

const char *toc_add(struct toc *toc, const struct tensor *line)
{
    size_t length = strlen(line->name);
    if (length > TENSOR_NAME_MAX)
        return "its name is longer than 1023 bytes";
    if (!tensor_name_valid(line->name))
        return "a tensor's name must be printable ASCII without spaces, must not start with '.', "
               "'/' or 'files/', and must have no empty, '.' or '..' component";
    if (line->rank > TENSOR_RANK_MAX)
        return "it has more than 8 dimensions";
    struct tensor copy = *line;
    if (!tensor_size(copy.dtype, copy.rank, copy.dim, &copy.size))
        return copy.dtype == DTYPE_F4 ? "its F4 rows are no whole bytes, or its size overflows"
                                      : "its size overflows";
    if (toc->count >= UINT32_MAX - 1)
        return "there are more than 2^32 tensors";
    if (toc->count == toc->capacity)
        reserve(toc, toc->capacity ? toc->capacity + toc->capacity / 2 : 256);
    copy.name = arena_copy(toc->arena, line->name, length);
    toc->tensor[toc->count++] = copy;
    index_line(toc, toc->count - 1);
    return NULL;
}

void toc_derive(struct toc *toc, const struct tensor *line, const char *name, enum dtype dtype,
                unsigned rank, const uint64_t *dim)
{
    struct tensor copy = *line;
    copy.name = name;
    copy.dtype = (uint8_t)dtype;
    copy.rank = (uint8_t)rank;
    memset(copy.dim, 0, sizeof copy.dim);
    for (unsigned i = 0; i < rank; i++)
        copy.dim[i] = dim[i];
    const char *error = toc_add(toc, &copy);
    if (error)
        die("%s: %s", name, error);
}

void toc_append(struct toc *toc, const char *shard, const char *name, enum dtype dtype,
                unsigned rank, const uint64_t *dim)
{
    toc_derive(toc, &(struct tensor){.shard = toc_shard(toc, shard)}, name, dtype, rank, dim);
}

void toc_copy(struct toc *toc, const struct toc *from, size_t line)
{
    struct tensor copy = from->tensor[line];
    copy.shard = toc_shard(toc, from->shard[copy.shard]);
    const char *error = toc_add(toc, &copy);
    if (error)
        die("%s: %s", copy.name, error);
}

const char *toc_check_unique(struct toc *toc, size_t *line)
{
    struct toc_index *index = new_index(toc->count);
    for (size_t i = 0; i < toc->count; i++)
        if (!enter(toc, index, i, toc->tensor[i].shard)) {
            *line = i;
            free(index);
            return "a tensor of that name is already in the same shard";
        }
    free(toc->index);
    toc->index = index; /* of lines with one name, it finds the first one first */
    return NULL;
}

int64_t toc_find(struct toc *toc, const char *name)
{
    if (!toc->index) {
        toc->index = new_index(toc->count);
        for (size_t i = 0; i < toc->count; i++)
            enter(toc, toc->index, i, -1);
    }
    return (int64_t)slot_of(toc, toc->index, name, hash_of(name), -1)->line - 1;
}

static bool same_line(const struct toc *a, size_t i, const struct toc *b, size_t j)
{
    const struct tensor *x = &a->tensor[i], *y = &b->tensor[j];
    return x->context == y->context && !strcmp(x->name, y->name) && tensor_same_form(x, y) &&
           !strcmp(a->shard[x->shard], b->shard[y->shard]);
}

uint32_t *toc_lines_in(const struct toc *part, const struct toc *whole)
{
    uint32_t *line = xalloc(part->count, sizeof *line);
    size_t at = 0;
    for (size_t i = 0; i < part->count; i++) {
        if (part->tensor[i].context)
            continue;
        while (at < whole->count && !same_line(whole, at, part, i))
            at++;
        if (at == whole->count) {
            free(line);
            return NULL;
        }
        line[i] = (uint32_t)at++;
    }
    return line;
}

uint64_t toc_bytes(const struct toc *toc, bool context)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < toc->count; i++)
        if (context || !toc->tensor[i].context)
            if (!add_fits(bytes, toc->tensor[i].size, &bytes))
                return UINT64_MAX;
    return bytes;
}

char *tensor_shape(const struct tensor *tensor, char *text)
{
    char *p = text;
    *p++ = '[';
    for (unsigned i = 0; i < tensor->rank; i++) {
        if (i)
            *p++ = ',';
        p = number_put(p, tensor->dim[i]);
    }
    *p++ = ']';
    *p = 0;
    return text;
}

bool tensor_same_form(const struct tensor *a, const struct tensor *b)
{
    return a->dtype == b->dtype && a->rank == b->rank &&
           !memcmp(a->dim, b->dim, a->rank * sizeof *a->dim);
}

/* Writes a field and the character that ends it; returns the end. */
static char *put_field(char *p, const char *field, char end)
{
    p = stpcpy(p, field);
    *p++ = end;
    return p;
}

size_t toc_format(const struct toc *toc, char **text)
{
    size_t room = 1;
    for (size_t i = 0; i < toc->count; i++)
        room += strlen(toc->tensor[i].name) + strlen(toc->shard[toc->tensor[i].shard]) +
                TENSOR_SHAPE_TEXT + 32;
    char *out = xgrow(NULL, room, 1), *p = out, shape[TENSOR_SHAPE_TEXT];
    for (size_t i = 0; i < toc->count; i++) {
        const struct tensor *tensor = &toc->tensor[i];
        p = put_field(p, tensor->name, '\t');
        p = put_field(p, dtype_name(tensor->dtype), '\t');
        p = put_field(p, tensor_shape(tensor, shape), '\t');
        p = put_field(p, toc->shard[tensor->shard], '\t');
        p = put_field(p, tensor->context ? "context" : "data", '\n');
    }
    *text = out;
    return (size_t)(p - out);
}

/* A dimension without leading zeros; *p moves past it. */
static bool parse_dim(const char **p, uint64_t *dim)
{
    const char *start = *p;
    return number_parse(p, UINT64_MAX, dim) && (*start != '0' || *p == start + 1);
}

static bool parse_shape(const char *text, struct tensor *tensor)
{
    if (*text++ != '[')
        return false;
    tensor->rank = 0;
    if (!strcmp(text, "]"))
        return true;
    for (;;) {
        if (tensor->rank == TENSOR_RANK_MAX || !parse_dim(&text, &tensor->dim[tensor->rank++]))
            return false;
        if (!strcmp(text, "]"))
            return true;
        if (*text++ != ',')
            return false;
    }
}

static const char *parse_line(struct toc *toc, char *line)
{
    char *field[5];
    for (int i = 0; i < 5; i++) {
        field[i] = line;
        if (i < 4) {
            line = strchr(line, '\t');
            if (!line)
                return "a line needs five fields: name, dtype, shape, shard, use";
            *line++ = 0;
        }
    }
    struct tensor tensor = {.name = field[0], .context = !strcmp(field[4], "context")};
    enum dtype dtype;
    if (!dtype_parse(field[1], &dtype))
        return "unknown dtype";
    tensor.dtype = (uint8_t)dtype;
    if (!parse_shape(field[2], &tensor))
        return "malformed shape";
    if (!shard_name_valid(field[3]))
        return "a shard must be a plain file name";
    if (!tensor.context && strcmp(field[4], "data") != 0)
        return "use must be 'data' or 'context'";
    tensor.shard = toc_shard(toc, field[3]);
    return toc_add(toc, &tensor);
}

static size_t count_lines(const char *text, size_t length)
{
    const char *end = text + length;
    size_t lines = 0;
    while ((text = memchr(text, '\n', (size_t)(end - text)))) {
        lines++;
        text++;
    }
    return lines;
}

char *toc_parse(struct toc *toc, char *text, size_t length)
{
    char *end = text + length;
    reserve(toc, toc->count + count_lines(text, length)); /* growing step by step fragments memory
                                                           */
    for (size_t number = 1; text < end; number++) {
        char *newline = memchr(text, '\n', (size_t)(end - text));
        if (!newline)
            return xprintf("line %zu: the last line has no newline", number);
        *newline = 0;
        if (strlen(text) != (size_t)(newline - text))
            return xprintf("line %zu: it holds a NUL byte", number);
        const char *error = parse_line(toc, text);
        if (error)
            return xprintf("line %zu (%.80s): %s", number, printable(text), error);
        text = newline + 1;
    }
    size_t line;
    const char *error = toc_check_unique(toc, &line);
    return error ? xprintf("line %zu (%.80s): %s", line + 1, toc->tensor[line].name, error) : NULL;
}
