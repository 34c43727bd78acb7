/* Headers of safetensors files: what is read is consistent, and written again it reads the same. */
#include "stream/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "fuzz.h"

enum { FILE_FD = 10 };

/* The input as a file's beginning, its data being holes. */
static struct toc *read_file(const void *data, size_t size, uint64_t file_size, uint64_t **offset)
{
    struct toc *toc = toc_new();
    *offset = NULL;
    fuzz_file(FILE_FD, data, size);
    if (!fuzz_refused(safetensors_read(FILE_FD, file_size, toc, toc_shard(toc, "s"), offset)))
        return toc;
    toc_free(toc);
    free(*offset);
    return NULL;
}

/* Lay the tensors out as st-write does, and read that. */
static void write_again(const struct toc *toc, uint32_t phase)
{
    uint32_t *line = xalloc(toc->count, sizeof *line);
    uint64_t *offset = xalloc(toc->count, sizeof *offset), *again, header_size;
    char *header;
    for (size_t i = 0; i < toc->count; i++)
        line[i] = (uint32_t)i;
    uint64_t size = safetensors_layout(toc, line, toc->count, phase, offset, &header, &header_size);
    struct toc *copy = read_file(header, (size_t)header_size, size, &again);
    fuzz_must(copy && copy->count == toc->count, "what was written cannot be read");
    for (size_t i = 0; i < toc->count; i++) {
        int64_t j = toc_find(copy, toc->tensor[i].name);
        fuzz_must(j >= 0 && tensor_same_form(&toc->tensor[i], &copy->tensor[j]) &&
                      offset[i] == again[j],
                  "a tensor changed by writing and reading");
    }
    toc_free(copy);
    free(again);
    free(header);
    free(line);
    free(offset);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* The first four bytes say how long the file's data are. */
    uint32_t bytes;
    uint64_t *offset;
    size_t line;
    if (size < sizeof bytes)
        return 0;
    memcpy(&bytes, data, sizeof bytes);
    data += sizeof bytes;
    size -= sizeof bytes;
    uint64_t file_size = size + bytes;
    struct toc *toc = read_file(data, size, file_size, &offset);
    if (!toc)
        return 0;
    for (size_t i = 0; i < toc->count; i++)
        fuzz_must(tensor_name_valid(toc->tensor[i].name) && offset[i] <= file_size &&
                      toc->tensor[i].size <= file_size - offset[i],
                  "a tensor outside of the file, or badly called");
    if (toc->count && !toc_check_unique(toc, &line))
        write_again(toc, size % 4096);
    toc_free(toc);
    free(offset);
    return 0;
}
