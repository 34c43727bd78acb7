/* The pickle machine. */
#include "stream/pickle.h"

#include <string.h>

#include "fuzz.h"

/* What pickle.h promises of texts; whether a tensor may have that name, toc_add() says. */
static bool printable(const char *text)
{
    for (const char *p = text; *p; p++)
        if (*p < ' ' || *p > '~')
            return false;
    return strlen(text) <= TENSOR_NAME_MAX;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pickle pickle;
    if (!fuzz_refused(pickle_parse(&pickle, data, size)))
        for (size_t i = 0; i < pickle.count; i++) {
            const struct pickle_tensor *tensor = &pickle.tensor[i];
            uint64_t bytes;
            fuzz_must(printable(tensor->name) && printable(tensor->storage),
                      "a name that should have been refused");
            fuzz_must(tensor_size(tensor->dtype, tensor->rank, tensor->dim, &bytes),
                      "a size that overflows");
        }
    pickle_free(&pickle);
    return 0;
}
