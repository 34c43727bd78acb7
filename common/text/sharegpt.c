#include "text/sharegpt.h"

#include <string.h>

#include "base/die.h"

static json_t *role_of(json_t *from)
{
    static const char *const names[][2] = {{"human", "user"}, {"gpt", "assistant"}};
    const char *name = json_string_value(from);
    for (size_t i = 0; name && i < sizeof names / sizeof *names; i++)
        if (!strcmp(name, names[i][0]))
            return json_string(names[i][1]);
    return from ? json_incref(from) : json_null();
}

json_t *sharegpt_messages(json_t *conversation)
{
    size_t i;
    json_t *turn, *messages;
    if (!json_object_get(json_array_get(conversation, 0), "from"))
        return json_incref(conversation);
    messages = json_array();
    if (!messages)
        die("out of memory");
    json_array_foreach(conversation, i, turn)
    {
        json_t *message = json_object(), *value = json_object_get(turn, "value");
        value = value ? value : json_false(); /* null would be an empty text */
        if (json_object_set_new(message, "role", role_of(json_object_get(turn, "from"))) ||
            json_object_set(message, "content", value) || json_array_append_new(messages, message))
            die("out of memory");
    }
    return messages;
}
