/* V3.2's rules. Source: encoding/encoding_dsv32.py of its release, which has no chat template, and
 * the conversations beside it. */
#include "base/die.h"
#include "text/chat_dsml.h"
#include "text/chat_rules.h"

static const struct dsml_tags tags = {DSML "function_calls", DSML "invoke", DSML "parameter",
                                      false};

static const char tools_before[] =
    "\n\n## Tools\n\n"
    "You have access to a set of tools you can use to answer the user's question.\n"
    "You can invoke functions by writing a \"<" DSML "function_calls>\" block like the following "
    "as part of your reply to the user:\n"
    "<" DSML "function_calls>\n"
    "<" DSML "invoke name=\"$FUNCTION_NAME\">\n"
    "<" DSML "parameter name=\"$PARAMETER_NAME\" string=\"true|false\">$PARAMETER_VALUE</" DSML
    "parameter>\n"
    "...\n"
    "</" DSML "invoke>\n"
    "<" DSML "invoke name=\"$FUNCTION_NAME2\">\n"
    "...\n"
    "</" DSML "invoke>\n"
    "</" DSML "function_calls>\n\n"
    "String and scalar parameters should be specified as is without any escaping or quotes, while "
    "lists and objects should use JSON format. The \"string\" attribute should be set to \"true\" "
    "for string type parameters and \"false\" for other types (numbers, booleans, arrays, "
    "objects).\n\n"
    "If the thinking_mode is enabled, then after function results you should strongly consider "
    "outputting a thinking block. Here is an example:\n\n"
    "<" DSML "function_calls>\n"
    "...\n"
    "</" DSML "function_calls>\n\n"
    "<function_results>\n"
    "...\n"
    "</function_results>\n\n"
    "<think>...thinking about results</think>\n\n"
    "Here are the functions available in JSONSchema format:\n"
    "<functions>\n";
static const char tools_after[] = "\n</functions>\n";

struct chat {
    struct chat_writer *w;
    const json_t *messages;
    bool thinking;    /* some message has reasoning */
    size_t last_user; /* the last message of a user or developer; SIZE_MAX if there is none */
    size_t assistant; /* before the current results; SIZE_MAX if there is none */
};

static enum chat_role role_at(const struct chat *chat, size_t i)
{
    enum chat_role role = ROLE_USER;
    chat_role_of(json_array_get(chat->messages, i), &role);
    return role;
}

static void survey(struct chat *chat)
{
    chat->last_user = SIZE_MAX;
    for (size_t i = 0; i < json_array_size(chat->messages); i++) {
        enum chat_role role = role_at(chat, i);
        if (role == ROLE_USER || role == ROLE_DEVELOPER)
            chat->last_user = i;
        if (role == ROLE_ASSISTANT)
            chat->thinking |=
                chat_answer_of(json_array_get(chat->messages, i)).reasoning.length > 0;
    }
}

/* True for message `i` if what follows it is thought about, or it was: since the last question. */
static bool thinks(const struct chat *chat, size_t i)
{
    return chat->thinking && (chat->last_user == SIZE_MAX || i >= chat->last_user);
}

static void put_tools(struct chat_writer *w, const json_t *tools)
{
    chat_put(w, tools_before);
    dsml_put_schemas(w, tools);
    chat_put(w, tools_after);
}

/* A message's own tools, or the conversation's, and the form of its answer. */
static void put_instructions(struct chat_writer *w, const json_t *message, const json_t *tools)
{
    if (chat_has(message, "tools"))
        tools = json_object_get(message, "tools");
    if (tools)
        put_tools(w, tools);
    if (chat_has(message, "response_format")) {
        chat_put(w, "\n\n## Response Format:\n\nYou MUST strictly adhere to the following schema "
                    "to reply:\n");
        chat_put_json(w, json_object_get(message, "response_format"));
    }
}

static void put_question(const struct chat *chat, size_t i, const json_t *tools)
{
    struct chat_writer *w = chat->w;
    const json_t *message = json_array_get(chat->messages, i);
    chat_put(w, CHAT_USER);
    if (role_at(chat, i) == ROLE_DEVELOPER) {
        put_instructions(w, message, tools);
        chat_put(w, "\n\n# The user's message is: ");
    }
    chat_put_content(w, json_object_get(message, "content"));
    chat_put(w, CHAT_ASSISTANT);
    chat_put(w, thinks(chat, i) ? CHAT_THINK : CHAT_THINK_END);
}

/* A tool's results come in the order of the calls, one for each. */
static void put_result(const struct chat *chat, size_t i)
{
    struct chat_writer *w = chat->w;
    const json_t *calls =
        json_object_get(json_array_get(chat->messages, chat->assistant), "tool_calls");
    size_t order = i - chat->assistant, count = json_array_size(calls);
    if (chat->assistant == SIZE_MAX || order > count) {
        chat_fail(w, xprintf("messages[%zu]: a tool's result without a call before it", i));
        return;
    }
    chat_put(w, order == 1 ? "\n\n<function_results>" : "");
    chat_put(w, "\n<result>");
    chat_put_content(w, json_object_get(json_array_get(chat->messages, i), "content"));
    chat_put(w, "</result>");
    if (order == count) {
        chat_put(w, "\n</function_results>\n\n");
        chat_put(w, thinks(chat, i) ? CHAT_THINK : CHAT_THINK_END);
    }
}

static void put_answer(const struct chat *chat, size_t i)
{
    struct chat_writer *w = chat->w;
    const json_t *message = json_array_get(chat->messages, i);
    const struct chat_answer answer = chat_answer_of(message);
    if (thinks(chat, i)) {
        chat_put_span(w, answer.reasoning);
        chat_put(w, CHAT_THINK_END);
    }
    chat_put_content(w, answer.content);
    chat_put_span(w, answer.rest);
    if (chat_has(message, "tool_calls"))
        dsml_put_calls(w, &tags, json_object_get(message, "tool_calls"));
    chat_put(w, CHAT_EOS);
}

static void put_message(struct chat *chat, size_t i, const json_t *tools)
{
    const json_t *message = json_array_get(chat->messages, i);
    enum chat_role role = role_at(chat, i);
    switch (role) {
    case ROLE_SYSTEM:
        chat_put_content(chat->w, json_object_get(message, "content"));
        put_instructions(chat->w, message, tools);
        break;
    case ROLE_DEVELOPER:
        if (chat->thinking && i < chat->last_user)
            break; /* thinking mode drops those before the last question */
        /* fall through */
    case ROLE_USER:
        put_question(chat, i, tools);
        break;
    case ROLE_ASSISTANT:
        put_answer(chat, i);
        break;
    case ROLE_TOOL:
        put_result(chat, i);
        break;
    default:
        chat_fail(chat->w, xprintf("messages[%zu]: V3.2's rules have no reminders", i));
    }
    if (role != ROLE_TOOL)
        chat->assistant = role == ROLE_ASSISTANT ? i : SIZE_MAX;
}

void chat_put_v32(struct chat_writer *w, const json_t *messages, const json_t *tools)
{
    struct chat chat = {.w = w, .messages = messages, .assistant = SIZE_MAX};
    enum chat_role first = role_at(&chat, 0);
    survey(&chat);
    if (tools && first != ROLE_SYSTEM && first != ROLE_DEVELOPER) {
        put_tools(w, tools); /* as if in an empty system message */
        tools = NULL;
    }
    for (size_t i = 0; i < json_array_size(messages); i++)
        put_message(&chat, i, i == 0 ? tools : NULL);
}
