/* chat_rules.h: the rules of each release, for chat.c. All write a conversation, an array of
 * objects of which each has a known role, as far as there is no error; `tools` is NULL or has
 * members. */
#ifndef CHAT_RULES_H
#define CHAT_RULES_H

#include "model/model.h"
#include "text/chat_writer.h"

/* The chat templates of V3, R1 and V3.1, each of which has a style. */
void chat_put_v3(struct chat_writer *w, enum chat_style style, const json_t *messages,
                 const json_t *tools);

void chat_put_v32(struct chat_writer *w, const json_t *messages, const json_t *tools);

/* V4 and, if `v41`, V4.1. */
void chat_put_v4(struct chat_writer *w, bool v41, const json_t *messages, const json_t *tools);

#endif
