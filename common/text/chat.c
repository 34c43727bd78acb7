#include "text/chat.h"

#include <stdlib.h>

#include "base/die.h"
#include "text/chat_rules.h"

enum { MESSAGES_MAX = 4096 };

/* An error text that the caller frees, or NULL. */
static char *check_messages(const json_t *messages)
{
    size_t i, count = json_array_size(messages);
    json_t *message;
    if (count == 0 || count > MESSAGES_MAX)
        return xprintf("wanted 1 to %d messages with role and content", MESSAGES_MAX);
    json_array_foreach((json_t *)messages, i, message)
    {
        enum chat_role role;
        const char *name = json_string_value(json_object_get(message, "role"));
        if (!chat_role_of(message, &role))
            return xprintf("messages[%zu]: unknown role '%.40s'", i, name ? name : "");
    }
    return NULL;
}

static void put_chat(struct chat_writer *w, enum chat_style style, const json_t *messages,
                     const json_t *tools)
{
    switch (style) {
    case CHAT_V4:
    case CHAT_V41:
        chat_put_v4(w, style == CHAT_V41, messages, tools);
        break;
    case CHAT_V32:
        chat_put_v32(w, messages, tools);
        break;
    default:
        chat_put_v3(w, style, messages, tools);
    }
}

char *chat_text(enum chat_style style, const json_t *messages, const json_t *tools,
                struct passage *passage)
{
    *passage = (struct passage){0};
    if (style == CHAT_UNKNOWN)
        return xprintf("the format of messages is unknown: config.json's model_type, the "
                       "tokenizer's tokens and its chat template are not of a DeepSeek release "
                       "known here; convert messages to text first, for example with transformers' "
                       "apply_chat_template");
    char *error = check_messages(messages);
    if (error)
        return error;
    struct chat_writer w = {.passage = passage, .between = "\n\n"};
    w.out = open_memstream(&passage->text, &passage->length);
    if (!w.out)
        die("out of memory");
    put_chat(&w, style, messages, json_array_size(tools) ? tools : NULL);
    if (fclose(w.out))
        die("out of memory");
    if (w.error)
        passage_free(passage);
    return w.error;
}
