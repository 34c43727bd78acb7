/* bpe.h: byte-level byte-pair encoding, as described by the "model" of a tokenizer.json. A piece of
 * text starts as the tokens of its bytes; then the adjacent pair with the best rank is merged,
 * repeatedly. */
#ifndef BPE_H
#define BPE_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "base/ids.h"

/* All ids are below this. */
enum { BPE_IDS_MAX = 1 << 21 };

struct bpe;

/* Build from {"type": "BPE", "vocab": {token: id, …}, "merges": ["a b", …] or [["a", "b"], …], …}.
 * Tokens are written in the alphabet of byte-level tokenizers, one character per byte. Returns
 * NULL, or an error text that the caller frees. *out is set in either case; the caller frees it
 * with bpe_free(). */
char *bpe_new(struct bpe **out, const json_t *model);
void bpe_free(struct bpe *bpe);

/* Append the ids of one non-empty piece of text. Takes O(n log n) time. */
void bpe_encode(struct bpe *bpe, const char *piece, size_t length, struct ids *ids);

/* The bytes of token `id`, *length of them, owned by bpe; NULL if there is no such token. A token
 * that is not written in the alphabet stands for itself. */
const char *bpe_bytes(const struct bpe *bpe, uint32_t id, size_t *length);

/* The alphabet's character for a byte: printable bytes of Latin-1 are themselves, the others are
 * numbered from U+0100 on. */
uint32_t bpe_letter(unsigned char byte);

/* The highest id + 1. */
uint32_t bpe_size(const struct bpe *bpe);

#endif
