/* bpe.h: byte-level byte-pair encoding, as the "model" of a tokenizer.json describes it: a piece of
 * text is its bytes' tokens, of which the pair with the best rank is merged, again and again. */
#ifndef BPE_H
#define BPE_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "base/ids.h"

/* Ids are below this. */
enum { BPE_IDS_MAX = 1 << 21 };

struct bpe;

/* From {"type": "BPE", "vocab": {token: id, …}, "merges": ["a b", …] or [["a", "b"], …], …}. Tokens
 * are written in the alphabet of byte-level tokenizers, a character a byte. NULL, or what is wrong
 * (the caller frees it); *out is the caller's, who frees it with bpe_free(). */
char *bpe_new(struct bpe **out, const json_t *model);
void bpe_free(struct bpe *bpe);

/* Append the ids of one piece of text. Time grows as n log n. */
void bpe_encode(struct bpe *bpe, const char *piece, size_t length, struct ids *ids);

/* The bytes that token `id` stands for, *length of them, valid as long as bpe; NULL if there is no
 * such token. One that is not written in the alphabet stands for itself. */
const char *bpe_bytes(const struct bpe *bpe, uint32_t id, size_t *length);

/* The highest id + 1. */
uint32_t bpe_size(const struct bpe *bpe);

#endif
