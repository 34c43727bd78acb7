/* tokenizer.json, tokenizer_config.json and a text, with NULs between them. */
#include "text/tokenizer.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "fuzz.h"

/* What is encoded can be decoded, whatever the tokenizer makes of it. */
static void encode(struct tokenizer *t, const char *raw, size_t size)
{
    char *text, *back;
    size_t length = utf8_repair(raw, size, &text), back_length;
    struct ids ids = {0};
    if (!fuzz_refused(tokenizer_encode(t, text, length, SIZE_MAX, &ids))) {
        size_t good = tokenizer_decode(t, ids.id, ids.count, &back, &back_length);
        fuzz_must(good == ids.count, "an id that is no token's");
        fuzz_must(utf8_valid(back, back_length) == back_length, "text that is no UTF-8");
        free(back);
    }
    free(ids.id);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *config, *text;
    size_t file_size = fuzz_cut(data, size, &config);
    size_t config_size = fuzz_cut(config, (size_t)(data + size - config), &text);
    struct tokenizer *t;
    if (!fuzz_refused(tokenizer_parse(&t, (const char *)data, file_size))) {
        fuzz_refused(tokenizer_configure(t, (const char *)config, config_size));
        encode(t, (const char *)text, (size_t)(data + size - text));
    }
    tokenizer_free(t);
    return 0;
}
