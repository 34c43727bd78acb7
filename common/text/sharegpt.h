/* sharegpt.h: conversations as ShareGPT's exports and training tools after it write them:
 * [{"from": "human", "value": …}, {"from": "gpt", "value": …}]. */
#ifndef SHAREGPT_H
#define SHAREGPT_H

#include <jansson.h>

/* The same conversation as messages (see chat.h), which the caller frees; other members of its
 * objects are dropped. "human" and "user" become user, "gpt" and "assistant" assistant, "system"
 * system; any other "from" remains as it is, so that chat_text() names it. A conversation whose
 * first object has no "from" is returned as it is. */
json_t *sharegpt_messages(json_t *conversation);

#endif
