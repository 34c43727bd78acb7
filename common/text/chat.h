/* chat.h: conversations as one text, with the role tokens of the DeepSeek family.
 *
 * A conversation is an array of {"role", "content", …}, as chat services have it. */
#ifndef CHAT_H
#define CHAT_H

#include <jansson.h>
#include <stddef.h>

#include "model/model.h"

/* The style that a tokenizer's chat template amounts to, told by the role tokens in it. Without a
 * template (NULL) it is V4's: its release has rules instead of a template. */
enum chat_style chat_style(const char *template);

/* A conversation as text, without the token that begins it. `tools` (may be NULL) belong to its
 * first message. With reasoning in any assistant's message (reasoning_content, or a content that
 * begins with <think>), V4's thinking mode is used: without tools, only what follows the last
 * user's message keeps it. The caller frees *text, which has a 0 behind and may hold others.
 * Returns NULL, or what is wrong (the caller frees it; then *text is NULL). */
char *chat_text(enum chat_style style, const json_t *messages, const json_t *tools, char **text,
                size_t *length);

#endif
