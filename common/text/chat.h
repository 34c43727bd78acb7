/* chat.h: conversations as text, with the role tokens of the DeepSeek family.
 *
 * A conversation is an array of {"role", "content", …}, as in chat services' APIs. */
#ifndef CHAT_H
#define CHAT_H

#include <jansson.h>

#include "model/model.h"
#include "text/passage.h"

/* The style that a tokenizer's chat template (NULL: it has none) amounts to, told by the role
 * tokens in it: V3's, V3.1's, or unknown. */
enum chat_style chat_template_style(const char *template);

/* A conversation as text, without the token that begins it; what messages and tools say is plain in
 * it. `tools` (may be NULL) belong to its first message. With reasoning in any assistant's message
 * (reasoning_content, or a content that begins with <think>), V4's thinking mode is used: without
 * tools, only what follows the last user's message keeps it. Returns NULL, or what is wrong (the
 * caller frees it; then *passage is all 0). The caller ends *passage with passage_free(). */
char *chat_text(enum chat_style style, const json_t *messages, const json_t *tools,
                struct passage *passage);

#endif
