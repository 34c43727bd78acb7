/* chat.h: conversations as text, with the role tokens of the DeepSeek family.
 *
 * A conversation is an array of {"role", "content", …}, as in chat services' APIs. */
#ifndef CHAT_H
#define CHAT_H

#include <jansson.h>
#include <stddef.h>

#include "model/model.h"

/* The style of a tokenizer's chat template, recognized by its role tokens. NULL, no template, means
 * V4's: its release has rules instead of a template. */
enum chat_style chat_style(const char *template);

/* Write a conversation as text, without the token that begins it. `tools` (may be NULL) belong to
 * its first message. If any assistant message has reasoning (reasoning_content, or a content that
 * begins with <think>), V4's thinking mode is used; then, without tools, only messages after the
 * last user message keep it. Returns NULL, or an error text that the caller frees, and *text is
 * NULL. The caller frees *text, *length bytes and a final NUL; it may contain other NULs. */
char *chat_text(enum chat_style style, const json_t *messages, const json_t *tools, char **text,
                size_t *length);

#endif
