/* Tables of tensor streams: what is read and written again is the same text. */
#include "tensor/toc.h"

#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *copy = malloc(size ? size : 1), *text;
    fuzz_must(copy, "out of memory");
    if (size)
        memcpy(copy, data, size);
    struct toc *toc = toc_new();
    if (!fuzz_refused(toc_parse(toc, copy, size))) {
        size_t length = toc_format(toc, &text);
        fuzz_must(length == size && !memcmp(text, data, size), "not the same when written again");
        free(text);
        for (size_t i = 0; i < toc->count; i++)
            fuzz_must(tensor_name_valid(toc->tensor[i].name) &&
                          shard_name_valid(toc->shard[toc->tensor[i].shard]),
                      "a name that should have been refused");
    }
    toc_free(toc);
    free(copy);
    return 0;
}
