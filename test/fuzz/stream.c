/* Tensor streams: the tar, its .stream, .toc, side files, tensors and .end. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz.h"
#include "stream/ts.h"
#include "write/config.h"

/* The stream, and the file that the references of the corpus point into. */
enum { STREAM_FD = 10, SOURCE_FD = 11, SOURCE_SIZE = 4096, BLOCK = 512 };

/* ---- input ---- */

/* A tar header's fields. */
enum { SIZE_AT = 124, SIZE_LENGTH = 12, SUM_AT = 148, SUM_LENGTH = 8, TYPE_AT = 156 };

/* No changed input would have the right checksums, and hardly one the right sizes. So changes
 * happen to an entry: its header or its data, and header and padding are put right. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

static void set_octal(uint8_t *field, size_t length, uint64_t value)
{
    field[length - 1] = 0;
    for (size_t i = length - 1; i-- > 0; value >>= 3)
        field[i] = (uint8_t)('0' + (value & 7));
}

static void set_sum(uint8_t *header)
{
    unsigned sum = 0;
    memset(header + SUM_AT, ' ', SUM_LENGTH);
    for (size_t i = 0; i < BLOCK; i++)
        sum += header[i];
    set_octal(header + SUM_AT, SUM_LENGTH - 1, sum);
}

/* The bytes of data behind a header, as far as they are there. */
static size_t data_size(const uint8_t *header, size_t left)
{
    size_t size = 0;
    for (size_t i = 0; i < SIZE_LENGTH - 1 && size <= left; i++) {
        uint8_t c = header[SIZE_AT + i];
        if (c >= '0' && c <= '7')
            size = size << 3 | (c - '0');
    }
    return size < left - BLOCK ? size : left - BLOCK;
}

static size_t whole_blocks(size_t size)
{
    return (size + BLOCK - 1) / BLOCK * BLOCK;
}

/* The entry that begins at `at` gets other data. */
static size_t change_data(uint8_t *data, size_t size, size_t max_size, size_t at)
{
    size_t old = data_size(data + at, size - at), end = at + BLOCK + whole_blocks(old);
    if (end > size)
        end = size;
    size_t rest = size - end, room = max_size - at - BLOCK - rest;
    if (room < BLOCK)
        return size;
    uint8_t *bytes = malloc(room), *behind = malloc(rest + 1);
    fuzz_must(bytes && behind, "out of memory");
    if (old > room)
        old = room;
    memcpy(bytes, data + at + BLOCK, old);
    memcpy(behind, data + end, rest);
    size_t new = LLVMFuzzerMutate(bytes, old, room - room % BLOCK);
    memset(data + at + BLOCK, 0, whole_blocks(new));
    memcpy(data + at + BLOCK, bytes, new);
    memcpy(data + at + BLOCK + whole_blocks(new), behind, rest);
    set_octal(data + at + SIZE_AT, SIZE_LENGTH, new);
    set_sum(data + at);
    free(bytes);
    free(behind);
    return at + BLOCK + whole_blocks(new) + rest;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    size_t at = 0, entries = seed / 8 % 16;
    if (seed % 8 == 0 || size < BLOCK)
        return LLVMFuzzerMutate(data, size, max_size);
    /* Some entry, the last one if there are not so many. */
    for (size_t next; entries > 0; entries--, at = next) {
        next = at + BLOCK + whole_blocks(data_size(data + at, size - at));
        if (next + BLOCK > size || !data[next])
            break;
    }
    if (seed % 8 > 2)
        return change_data(data, size, max_size, at);
    LLVMFuzzerMutate(data + at, BLOCK, BLOCK);
    set_sum(data + at);
    return size;
}

/* ---- reading ---- */

static void read_stream(void *context)
{
    char buffer[4096];
    struct ts_in *in = ts_open(context, NULL);
    for (const struct tensor *tensor; (tensor = ts_next(in));)
        for (uint64_t left = tensor->size; left;) {
            size_t size = left < sizeof buffer ? (size_t)left : sizeof buffer;
            ts_read(in, buffer, size);
            left -= size;
        }
    struct configs configs;
    configs_derive(&configs, in, ts_toc(in));
    configs_free(&configs);
    ts_close(in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct timespec times[] = {{1, 0}, {1, 0}};
    static const char source[SOURCE_SIZE];
    static bool made;
    if (!made)
        fuzz_file(SOURCE_FD, source, sizeof source);
    made = true;
    fuzz_must(futimens(SOURCE_FD, times) == 0, "no time of change");
    fuzz_file(STREAM_FD, data, size);
    fuzz_survives(read_stream, "/proc/self/fd/10");
    return 0;
}
