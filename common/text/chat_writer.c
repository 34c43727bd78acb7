#include "text/chat_writer.h"

#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/json.h"
#include "text/python_json.h"

static const char *const role_name[ROLES] = {"system",    "developer", "user",
                                             "assistant", "tool",      "latest_reminder"};

void chat_fail(struct chat_writer *w, char *error)
{
    if (w->error)
        free(error);
    else
        w->error = error;
}

void chat_put(struct chat_writer *w, const char *text)
{
    fputs(text, w->out);
}

struct span span_of(const json_t *string)
{
    return (struct span){json_string_value(string), json_string_length(string)};
}

static size_t place(const struct chat_writer *w)
{
    return (size_t)ftello(w->out);
}

void chat_put_span(struct chat_writer *w, struct span span)
{
    size_t start = place(w);
    if (span.length)
        fwrite(span.text, 1, span.length, w->out);
    passage_plain(w->passage, start, place(w));
}

void chat_put_plain(struct chat_writer *w, const char *text)
{
    chat_put_span(w, (struct span){text, strlen(text)});
}

void chat_put_json(struct chat_writer *w, const json_t *value)
{
    size_t start = place(w);
    python_json_put(value, w->out);
    passage_plain(w->passage, start, place(w));
}

void chat_put_content(struct chat_writer *w, const json_t *content)
{
    if (json_is_string(content)) {
        chat_put_span(w, span_of(content));
        return;
    }
    size_t i;
    json_t *block;
    json_array_foreach((json_t *)content, i, block)
    {
        const json_t *text = json_object_get(block, "text");
        if (!json_is_string(text)) {
            chat_fail(w, xprintf("a content has a block without text"));
            return;
        }
        chat_put(w, i ? w->between : "");
        chat_put_span(w, span_of(text));
    }
    if (content && !json_is_null(content) && !json_is_array(content))
        chat_fail(w, xprintf("a content is not text"));
}

bool chat_role_of(const json_t *message, enum chat_role *role)
{
    const char *name = json_string_value(json_object_get(message, "role"));
    for (int i = 0; name && i < ROLES; i++)
        if (!strcmp(name, role_name[i])) {
            *role = (enum chat_role)i;
            return true;
        }
    return false;
}

bool chat_has(const json_t *message, const char *key)
{
    const json_t *value = json_object_get(message, key);
    return value && !json_is_null(value) && !json_is_false(value) &&
           !(json_is_array(value) && json_array_size(value) == 0) &&
           !(json_is_string(value) && json_string_length(value) == 0);
}

struct chat_answer chat_answer_of(const json_t *message)
{
    static const char think[] = CHAT_THINK, think_end[] = CHAT_THINK_END;
    size_t skip = sizeof think - 1;
    const json_t *content = json_object_get(message, "content");
    struct span reasoning = span_of(json_object_get(message, "reasoning_content"));
    struct span all = span_of(content), rest = {0};
    if (reasoning.length || all.length < skip || memcmp(all.text, think, skip) != 0)
        return (struct chat_answer){reasoning, content, rest};
    const char *end = memmem(all.text, all.length, think_end, sizeof think_end - 1);
    reasoning = (struct span){all.text + skip, all.length - skip};
    if (end) {
        reasoning.length = (size_t)(end - reasoning.text);
        rest.text = end + sizeof think_end - 1;
        rest.length = (size_t)(all.text + all.length - rest.text);
    }
    return (struct chat_answer){reasoning, NULL, rest};
}

json_t *chat_arguments(const json_t *arguments, bool twice)
{
    json_t *value = json_incref((json_t *)arguments);
    for (int i = 0; i < (twice ? 2 : 1) && json_is_string(value); i++) {
        json_t *inner = json_load_within(json_string_value(value), json_string_length(value),
                                         JSON_ALLOW_NUL | JSON_DECODE_ANY, JSON_MEMORY, NULL);
        json_decref(value);
        value = inner;
    }
    return value;
}
