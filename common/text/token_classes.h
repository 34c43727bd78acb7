/* token_classes.h: tokens that are the same but for case, accents, width and the white space around
 * them, as DeepSeek-V4.1's Engram takes them. Source: its inference/engram.py,
 * build_compressed_token_map(), with normalizers of Hugging Face's tokenizers. */
#ifndef TOKEN_CLASSES_H
#define TOKEN_CLASSES_H

#include "text/tokenizer.h"

/* class[id] for the ids below `size`: classes are numbered in the order of their first ids; an id
 * without a token has -1. Returns the number of classes. Characters that DeepSeek's tokenizers do
 * not have are taken as they are. */
uint64_t token_classes(const struct tokenizer *t, int32_t *class, uint64_t size);

#endif
