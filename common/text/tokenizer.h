/* tokenizer.h: text to token ids and back, as a checkpoint's tokenizer.json describes: added tokens
 * are found first, the pre-tokenizer splits the text between them, and each piece is byte-pair
 * encoded. The ids are those of Hugging Face's tokenizers without special tokens added. */
#ifndef TOKENIZER_H
#define TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "model/model.h"
#include "text/bpe.h"
#include "text/passage.h"

struct tokenizer;

/* Build a tokenizer from the text of a tokenizer.json. Returns NULL, or an error text that the
 * caller frees. *out is set in either case; the caller frees it with tokenizer_free(). */
char *tokenizer_parse(struct tokenizer **out, const char *text, size_t length);

/* Apply the text of the tokenizer_config.json that belongs to it: the tokens that begin, end and
 * pad a text, and the chat template. Returns NULL, or an error text that the caller frees. */
char *tokenizer_configure(struct tokenizer *t, const char *text, size_t length);

/* Open both files: tokenizer.json in a folder or snapshot (hub.h), or that file itself, and
 * tokenizer_config.json beside it, if it exists; a chat_template.jinja there replaces its chat
 * template. An error ends the process. The caller frees the result with tokenizer_free(). */
struct tokenizer *tokenizer_open(const char *given);
void tokenizer_free(struct tokenizer *t);

/* Append the ids of a text in valid UTF-8 to *ids. Stops once *ids has at least `enough` (SIZE_MAX:
 * never): the first ids do not depend on the text after them. Returns NULL, or an error text that
 * the caller frees. */
char *tokenizer_encode(struct tokenizer *t, const char *text, size_t length, size_t enough,
                       struct ids *ids);

/* The same for a passage. No added token matches in its plain stretches, or overlaps one. */
char *tokenizer_encode_passage(struct tokenizer *t, const struct passage *passage, size_t enough,
                               struct ids *ids);

/* The bytes of a token, *length of them, owned by the tokenizer; NULL if no token has this id. */
const char *tokenizer_token(const struct tokenizer *t, int32_t id, size_t *length);

/* The text of `count` ids. Ill-formed bytes (a split character) become U+FFFD. Returns the number
 * of valid ids: less than count if some id has no token, and then *text is not set. Otherwise the
 * caller frees *text, *length bytes and a final NUL. */
size_t tokenizer_decode(const struct tokenizer *t, const int32_t *id, size_t count, char **text,
                        size_t *length);

/* The id of an added token, or -1. */
int32_t tokenizer_added(const struct tokenizer *t, const char *content);

/* The ids of the tokens that begin, end and pad a text, or -1. Without a tokenizer_config.json,
 * those of DeepSeek's tokenizers. Without a padding token, the end token pads. */
int32_t tokenizer_bos(const struct tokenizer *t);
int32_t tokenizer_eos(const struct tokenizer *t);
int32_t tokenizer_pad(const struct tokenizer *t);

/* The style of conversations: that of the family of the config.json beside it. Without a known
 * family, V4's or V4.1's if their own tokens are there. Otherwise that of the chat template or,
 * without one, the model's of that config.json. */
enum chat_style tokenizer_chat_style(const struct tokenizer *t);

/* The chat template, owned by the tokenizer, or NULL. */
const char *tokenizer_chat_template(const struct tokenizer *t);

/* SHA-256 of the tokenizer.json in hexadecimal, owned by the tokenizer. */
const char *tokenizer_digest(const struct tokenizer *t);

#endif
