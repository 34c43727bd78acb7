/* tokenizer.h: text to token ids and back, as a checkpoint's own tokenizer.json says: added tokens
 * are found first, what lies between them is cut by the pre-tokenizer, each piece is byte-pair
 * encoded. Gives the ids that Hugging Face's tokenizers gives without special tokens added. */
#ifndef TOKENIZER_H
#define TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "text/bpe.h"
#include "text/chat.h"

struct tokenizer;

/* A tokenizer from the text of a tokenizer.json. NULL, or what is wrong with it, or unknown (the
 * caller frees it); *out is the caller's in either case, who frees it with
 * tokenizer_free(). */
char *tokenizer_parse(struct tokenizer **out, const char *text, size_t length);

/* The same from the text of a tokenizer_config.json that belongs to it: the tokens for the
 * beginning, the end and the padding of a text, and the chat template. */
char *tokenizer_configure(struct tokenizer *t, const char *text, size_t length);

/* Both from files: tokenizer.json in a folder, or that file itself; tokenizer_config.json beside
 * it, if there is one. Ends the process on errors. The caller frees it. */
struct tokenizer *tokenizer_open(const char *path);
void tokenizer_free(struct tokenizer *t);

/* Append the ids of a text in valid UTF-8 to *ids. Stops when that has at least `enough`
 * (SIZE_MAX: never): the first ones are the same whatever follows. NULL, or what went wrong (the
 * caller frees it). */
char *tokenizer_encode(struct tokenizer *t, const char *text, size_t length, size_t enough,
                       struct ids *ids);

/* The text of `count` ids; bytes that are no UTF-8 (a character cut in two) become U+FFFD. The
 * caller frees *text, which has a 0 behind. Returns how many ids were good: less than count if
 * there is no token of that id, and then no text. */
size_t tokenizer_decode(const struct tokenizer *t, const int32_t *id, size_t count, char **text,
                        size_t *length);

/* The id of an added token, or -1. */
int32_t tokenizer_added(const struct tokenizer *t, const char *content);

/* The tokens that begin, end and pad a text, or -1. Without a tokenizer_config.json, those of
 * DeepSeek's tokenizers. What ends also pads, where nothing else does. */
int32_t tokenizer_bos(const struct tokenizer *t);
int32_t tokenizer_eos(const struct tokenizer *t);
int32_t tokenizer_pad(const struct tokenizer *t);

/* How it wants a conversation written: as the family of the config.json beside it has it; otherwise
 * as the chat template amounts to. */
enum chat_style tokenizer_chat_style(const struct tokenizer *t);

/* The chat template, or NULL. */
const char *tokenizer_chat_template(const struct tokenizer *t);

/* SHA-256 of the tokenizer.json, in hexadecimal. */
const char *tokenizer_digest(const struct tokenizer *t);

#endif
