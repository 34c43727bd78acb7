/* sharegpt.h: conversations as ShareGPT's exports and training tools after it write them:
 * [{"from": "human", "value": …}, {"from": "gpt", "value": …}]. */
#ifndef SHAREGPT_H
#define SHAREGPT_H

#include <jansson.h>

/* The same conversation as messages (see chat.h), which the caller frees; other members of its
 * objects are dropped. "human" and "user" become user, "gpt" and "assistant" assistant, "system"
 * system. chat_text() refuses the rest: any other "from", which remains as it is, and an object
 * without "value", whose content is no text. A conversation whose first object has no "from" is
 * returned as it is. */
json_t *sharegpt_messages(json_t *conversation);

#endif
