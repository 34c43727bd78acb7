#include "entries.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/die.h"
#include "base/text.h"
#include "stream/stream_digest.h"
#include "stream/tar_in.h"

static const char between[] = "\n%%\n", zeros[] = "0000000000000000";
enum { BETWEEN = sizeof between - 1, DIGITS = sizeof zeros - 1 };

enum { INPUT_MOST = 3072 };

static const uint8_t *input;
static size_t input_size;

struct tar_in {
    const char *name;
    int fd;
    const uint8_t *next, *data; /* the next entry, NULL after the last; and what is unread */
    size_t next_size, size;
    struct tar_entry entry;
    char *path;
    bool ahead;
    struct checksum *sum;  /* as in tar_in.c */
    struct checksum *seal; /* the same, for the digest that the input leaves out */
};

void entries_set(const uint8_t *data, size_t size)
{
    input = data;
    input_size = size;
}

const uint8_t *entries_cut(const uint8_t *data, size_t *size, const uint8_t **rest,
                           size_t *rest_size)
{
    const uint8_t *end = *size ? memmem(data, *size, between, BETWEEN) : NULL;
    *rest = end ? end + BETWEEN : NULL;
    *rest_size = end ? *size - (size_t)(*rest - data) : 0;
    *size = end ? (size_t)(end - data) : *size;
    return data;
}

/* Longer inputs have more of the same, and take longer. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    (void)seed;
    if (max_size > INPUT_MOST)
        max_size = INPUT_MOST;
    return LLVMFuzzerMutate(data, size < max_size ? size : max_size, max_size);
}

struct tar_in *tar_open(int fd, const char *name)
{
    struct tar_in *tar = xalloc(1, sizeof *tar);
    *tar = (struct tar_in){.name = name, .fd = fd, .next = input, .next_size = input_size};
    tar->sum = checksum_new();
    tar->seal = checksum_new();
    return tar;
}

void tar_close(struct tar_in *tar)
{
    if (!tar)
        return;
    close(tar->fd);
    if (tar->sum)
        checksum_end(tar->sum);
    if (tar->seal)
        checksum_end(tar->seal);
    free(tar->path);
    free(tar);
}

void tar_refuse(struct tar_in *tar, const char *name, const char *why)
{
    die("%s: entry %s: %s", tar->name, name ? name : "(no name)", why);
}

/* The entry's first line becomes its path and target. */
static void parse_name(struct tar_in *tar)
{
    const uint8_t *newline = tar->size ? memchr(tar->data, '\n', tar->size) : NULL;
    size_t length = newline ? (size_t)(newline - tar->data) : tar->size;
    free(tar->path);
    tar->path = xprintf("%.*s", (int)length, (const char *)tar->data);
    tar->data += length + (newline != NULL);
    tar->size -= length + (newline != NULL);
    char *tab = strchr(tar->path, '\t');
    if (tab)
        *tab++ = 0;
    if (!text_is_line(tar->path))
        tar_refuse(tar, NULL, "a control character in its name");
    tar->entry = (struct tar_entry){tar->path, tab, (int64_t)tar->size, 0644};
}

const struct tar_entry *tar_peek(struct tar_in *tar)
{
    if (tar->ahead)
        return &tar->entry;
    if (!tar->next)
        return NULL;
    tar->size = tar->next_size;
    tar->data = entries_cut(tar->next, &tar->size, &tar->next, &tar->next_size);
    parse_name(tar);
    tar->ahead = true;
    return &tar->entry;
}

void tar_use(struct tar_in *tar)
{
    if (tar->sum) {
        stream_digest_entry(tar->sum, tar->entry.path, tar->entry.target);
        stream_digest_entry(tar->seal, tar->entry.path, tar->entry.target);
    }
    tar->ahead = false;
}

static void take(struct tar_in *tar, size_t size)
{
    if (tar->sum) {
        checksum_add(tar->sum, tar->data, size);
        checksum_add(tar->seal, tar->data, size);
    }
    tar->data += size;
    tar->size -= size;
}

void tar_read(struct tar_in *tar, void *data, size_t size, const char *what)
{
    if (size > tar->size)
        tar_refuse(tar, what, "ends early");
    if (size)
        memcpy(data, tar->data, size);
    take(tar, size);
}

void tar_skip(struct tar_in *tar, const char *what)
{
    (void)what;
    take(tar, tar->size);
}

struct checksum *tar_take_checksum(struct tar_in *tar)
{
    struct checksum *sum = tar->sum;
    tar->sum = NULL;
    return sum;
}

/* As stream_digest_seal() has it, of a text that was written before. */
static void seal(struct tar_in *tar, char *end, size_t size)
{
    char digits[DIGITS + 1];
    char *at = strstr(end, zeros);
    stream_digest_entry(tar->seal, ".end", NULL);
    checksum_add(tar->seal, end, size);
    snprintf(digits, sizeof digits, "%016" PRIx64, checksum_end(tar->seal));
    tar->seal = NULL;
    if (at)
        memcpy(at, digits, DIGITS);
}

char *tar_read_file(struct tar_in *tar, const char *name, uint64_t max, size_t *size)
{
    const struct tar_entry *entry = tar_peek(tar);
    if (!entry || strcmp(entry->path, name) != 0 || entry->target)
        die("%s: wanted entry %s", tar->name, name);
    *size = tar->size;
    if (*size > max)
        tar_refuse(tar, name, "too many bytes");
    tar_use(tar);
    char *data = xalloc(*size + 1, 1);
    tar_read(tar, data, *size, name);
    if (!tar->sum && tar->seal)
        seal(tar, data, *size);
    return data;
}

void tar_prove_end(struct tar_in *tar)
{
    if (tar->next)
        die("%s: something follows .end", tar->name);
}
