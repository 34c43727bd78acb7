/* tokens.h: token ids of samples, as written by st-tokenize: `input_ids` I32 (or I64) [samples,
 * length], and `lengths` I32 (or I64) [samples] where rows are not full. */
#ifndef TOKENS_H
#define TOKENS_H

#include <jansson.h>
#include <stdint.h>

#include "base/digest.h"

struct tokens {
    uint64_t samples, length; /* of the matrix */
    uint64_t *start;          /* start of each sample in id[]; start[samples] is the total */
    int32_t *id;              /* of all samples, concatenated, without padding */
    char digest[DIGEST_TEXT]; /* SHA-256 of start[] and id[] */
    json_t *counts; /* {"samples", "tokens", "texts"} as loaded; texts are {"file", "samples"} each,
                     * from st-tokenize, or missing */
};

/* Read them from a stream or a .safetensors file: at most `most` samples, 0 for all. Ids must be
 * below `vocabulary` and samples at least `shortest` tokens long; otherwise the process ends.
 * tokens_free() frees the content. */
void tokens_load(struct tokens *tokens, const char *path, uint64_t vocabulary, uint64_t shortest,
                 uint64_t most);

/* Keep only `count` samples, starting at `first`. The digest stays that of all. */
void tokens_keep(struct tokens *tokens, uint64_t first, uint64_t count);

void tokens_free(struct tokens *tokens);

#endif
