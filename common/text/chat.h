/* chat.h: conversations as text, by the rules of DeepSeek's releases.
 *
 * A conversation is an array of {"role", "content", …}, as in chat services' APIs. */
#ifndef CHAT_H
#define CHAT_H

#include <jansson.h>

#include "model/model.h"
#include "text/passage.h"

/* Write a conversation as text, without the token that begins it. The contents of messages, tools
 * and tool calls are plain in *passage. `tools` (may be NULL) belong to the first message.
 *
 * Reasoning is an assistant message's reasoning_content, or a content that begins with <think>. If
 * there is any, the thinking mode of V3.2, V4 and V4.1 is used (in V4.1 with its default effort);
 * then only messages after the last user message keep it, in V4 and V4.1 with tools all. In R1 and
 * V3.1, the last message keeps it if it answers a user's.
 * Returns NULL, or an error text that the caller frees, and *passage is all 0. The caller frees
 * *passage with passage_free(). */
char *chat_text(enum chat_style style, const json_t *messages, const json_t *tools,
                struct passage *passage);

#endif
