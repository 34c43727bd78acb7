#include "text/chat_dsml.h"

#include "base/die.h"

static void put_parameter(struct chat_writer *w, const struct dsml_tags *tags, const char *name,
                          const json_t *value)
{
    bool string = json_is_string(value);
    fprintf(w->out, "<%s name=\"", tags->parameter);
    chat_put_plain(w, name);
    fprintf(w->out, "\" string=\"%s\">", string ? "true" : "false");
    if (string)
        chat_put_span(w, span_of(value));
    else
        chat_put_json(w, value);
    fprintf(w->out, "</%s>", tags->parameter);
}

static void put_call(struct chat_writer *w, const struct dsml_tags *tags, const json_t *call)
{
    const json_t *function = json_object_get(call, "function"),
                 *arguments = json_object_get(function, "arguments");
    const char *name = json_string_value(json_object_get(function, "name"));
    json_t *parsed = chat_arguments(arguments, tags->arguments_twice);
    if (!name || !arguments) {
        chat_fail(w, xprintf("a tool call has no function with name and arguments"));
        name = "";
    }
    fprintf(w->out, "<%s name=\"", tags->invoke);
    chat_put_plain(w, name);
    chat_put(w, "\">\n");
    if (json_is_object(parsed)) {
        const char *key;
        json_t *value;
        const char *between = "";
        json_object_foreach(parsed, key, value)
        {
            chat_put(w, between);
            put_parameter(w, tags, key, value);
            between = "\n";
        }
    } else if (arguments) {
        put_parameter(w, tags, "arguments", arguments); /* not JSON: unchanged */
    }
    fprintf(w->out, "\n</%s>", tags->invoke);
    json_decref(parsed);
}

void dsml_put_calls(struct chat_writer *w, const struct dsml_tags *tags, const json_t *calls)
{
    size_t i;
    json_t *call;
    fprintf(w->out, "\n\n<%s>\n", tags->calls);
    json_array_foreach((json_t *)calls, i, call)
    {
        chat_put(w, i ? "\n" : "");
        put_call(w, tags, call);
    }
    fprintf(w->out, "\n</%s>", tags->calls);
}

void dsml_put_schemas(struct chat_writer *w, const json_t *tools)
{
    size_t i;
    json_t *tool;
    json_array_foreach((json_t *)tools, i, tool)
    {
        const json_t *function = json_object_get(tool, "function");
        if (!function)
            chat_fail(w, xprintf("tools[%zu] has no function", i));
        else
            chat_put_json(w, function);
        chat_put(w, i + 1 < json_array_size(tools) ? "\n" : "");
    }
}
