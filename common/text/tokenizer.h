/* tokenizer.h: text to token ids and back, as a checkpoint's tokenizer.json describes: added tokens
 * are found first, the pre-tokenizer splits the text between them, and each piece is byte-pair
 * encoded. The ids are those of Hugging Face's tokenizers without special tokens added. */
#ifndef TOKENIZER_H
#define TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "text/bpe.h"
#include "text/chat.h"
#include "text/passage.h"

struct tokenizer;

/* Build a tokenizer from the text of a tokenizer.json. Returns NULL, or an error text that the
 * caller frees. *out is set in either case; the caller frees it with tokenizer_free(). */
char *tokenizer_parse(struct tokenizer **out, const char *text, size_t length);

/* Apply the text of the tokenizer_config.json that belongs to it: the tokens that begin, end and
 * pad a text, and the chat template. Returns NULL, or an error text that the caller frees. */
char *tokenizer_configure(struct tokenizer *t, const char *text, size_t length);

/* Open both files: tokenizer.json in a folder, or that file itself, and tokenizer_config.json
 * beside it, if it exists. An error ends the process. The caller frees the result with
 * tokenizer_free(). */
struct tokenizer *tokenizer_open(const char *path);
void tokenizer_free(struct tokenizer *t);

/* Append the ids of a text in valid UTF-8 to *ids. Stops once *ids has at least `enough` (SIZE_MAX:
 * never): the first ids do not depend on the text after them. Returns NULL, or an error text that
 * the caller frees. */
char *tokenizer_encode(struct tokenizer *t, const char *text, size_t length, size_t enough,
                       struct ids *ids);

/* The same of a passage: where it is plain, no added token is found, or part of one. */
char *tokenizer_encode_passage(struct tokenizer *t, const struct passage *passage, size_t enough,
                               struct ids *ids);

/* The text of `count` ids; bytes that are no UTF-8 (a character cut in two) become U+FFFD. The
 * caller frees *text, which has a 0 behind. Returns how many ids were good: less than count if
 * there is no token of that id, and then no text. */
size_t tokenizer_decode(const struct tokenizer *t, const int32_t *id, size_t count, char **text,
                        size_t *length);

/* The id of an added token, or -1. */
int32_t tokenizer_added(const struct tokenizer *t, const char *content);

/* The ids of the tokens that begin, end and pad a text, or -1. Without a tokenizer_config.json,
 * those of DeepSeek's tokenizers. Without a padding token, the end token pads. */
int32_t tokenizer_bos(const struct tokenizer *t);
int32_t tokenizer_eos(const struct tokenizer *t);
int32_t tokenizer_pad(const struct tokenizer *t);

/* How it wants a conversation written: as the family of the config.json beside it has it. Where
 * there is none, or of an unknown family, V4's tokens tell V4; otherwise the chat template decides.
 */
enum chat_style tokenizer_chat_style(const struct tokenizer *t);

/* The chat template, owned by the tokenizer, or NULL. */
const char *tokenizer_chat_template(const struct tokenizer *t);

/* SHA-256 of the tokenizer.json in hexadecimal, owned by the tokenizer. */
const char *tokenizer_digest(const struct tokenizer *t);

#endif
