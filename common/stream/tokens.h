/* tokens.h: token ids of samples, as st-tokenize writes them: `input_ids` I32 (or I64) [samples,
 * length], and `lengths` I32 (or I64) [samples] where rows are not full. */
#ifndef TOKENS_H
#define TOKENS_H

#include <stdint.h>

#include "base/digest.h"

struct tokens {
    uint64_t samples, length; /* of the matrix */
    uint64_t *start;          /* of each sample in id[]; start[samples] is the number of all */
    int32_t *id;              /* of all samples, one behind the other, without what fills rows up */
    char digest[DIGEST_TEXT]; /* of samples and ids */
};

/* Read them from a stream, or a .safetensors file. Ids must be below `vocabulary`, samples at least
 * `shortest` tokens long; else the process ends. At most `most` samples, 0 for all. */
void tokens_load(struct tokens *tokens, const char *path, uint64_t vocabulary, uint64_t shortest,
                 uint64_t most);

/* Keep `count` samples from `first` on, but the digest of all. */
void tokens_keep(struct tokens *tokens, uint64_t first, uint64_t count);

void tokens_free(struct tokens *tokens);

#endif
