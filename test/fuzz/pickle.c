/* The pickle machine. */
#include "pickle.h"

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pickle pickle;
    if (!fuzz_refused(pickle_parse(&pickle, data, size)))
        for (size_t i = 0; i < pickle.count; i++) {
            const struct pickle_tensor *tensor = &pickle.tensor[i];
            uint64_t bytes;
            fuzz_must(tensor_name_valid(tensor->name), "a name that should have been refused");
            fuzz_must(tensor_size(tensor->dtype, tensor->rank, tensor->dim, &bytes),
                      "a size that overflows");
        }
    pickle_free(&pickle);
    return 0;
}
