/* chat.h: conversations as text, with the role tokens of the DeepSeek family.
 *
 * A conversation is an array of {"role", "content", …}, as in chat services' APIs. */
#ifndef CHAT_H
#define CHAT_H

#include <jansson.h>

#include "model/model.h"
#include "text/passage.h"

/* The style of a tokenizer's chat template, recognized by its role tokens: V3's, V3.1's or unknown.
 * NULL, no template, is unknown. */
enum chat_style chat_template_style(const char *template);

/* Write a conversation as text, without the token that begins it. The contents of messages, tools
 * and tool calls are plain in *passage. `tools` (may be NULL) belong to the first message. If any
 * assistant message has reasoning (reasoning_content, or a content that begins with <think>), the
 * thinking mode of V4 and V4.1 is used (in V4.1 with its default effort); then, without tools, only
 * messages after the last user message keep it.
 * Returns NULL, or an error text that the caller frees, and *passage is all 0. The caller frees
 * *passage with passage_free(). */
char *chat_text(enum chat_style style, const json_t *messages, const json_t *tools,
                struct passage *passage);

#endif
