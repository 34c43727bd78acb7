/* The rules of V3, R1 and V3.1: what their chat templates write, quirks included, and, of a last
 * answer that was reasoned about, what the model read and wrote.
 *
 * Sources: chat_template in the releases' tokenizer_config.json; for V3.1's tools, which its
 * template leaves out, the model card. */
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "text/chat_rules.h"

#define CALLS_BEGIN "<｜tool▁calls▁begin｜>"
#define CALLS_END "<｜tool▁calls▁end｜>"
#define CALL_BEGIN "<｜tool▁call▁begin｜>"
#define CALL_END "<｜tool▁call▁end｜>"
#define RESULTS_BEGIN "<｜tool▁outputs▁begin｜>"
#define RESULTS_END "<｜tool▁outputs▁end｜>"
#define RESULT_BEGIN "<｜tool▁output▁begin｜>"
#define RESULT_END "<｜tool▁output▁end｜>"
#define SEPARATOR "<｜tool▁sep｜>"

/* How a style differs from R1's. */
struct rules {
    bool last_system;  /* of several system messages, only the last is written */
    bool keeps;        /* reasoning stays in the answers' contents: the model does not reason */
    bool calls_alone;  /* a message has calls only if its content is null; they do not end before
                          the conversation's second one */
    bool answers_turn; /* the assistant's token ends a user's turn, and stands in no other place */
    bool marks;        /* V3.1: </think> or <think> after the assistant's token; plain calls */
    bool after_system; /* calls may come first, after system messages only */
};

static const struct rules *rules_of(enum chat_style style)
{
    static const struct rules rules[] = {
        [CHAT_V25] = {.last_system = true, .keeps = true, .calls_alone = true},
        [CHAT_V3] = {.keeps = true, .calls_alone = true},
        [CHAT_V3_0324] = {.keeps = true, .answers_turn = true},
        [CHAT_R1_FIRST] = {.last_system = true, .calls_alone = true},
        [CHAT_R1] = {0},
        [CHAT_R1_0528] = {.answers_turn = true},
        [CHAT_V31] = {.marks = true},
        [CHAT_V31_TERMINUS] = {.marks = true, .after_system = true},
    };
    return &rules[style];
}

struct chat {
    struct chat_writer *w;
    const struct rules *rules;
    bool asked;       /* the message before is a user's */
    bool called;      /* a call came before, which opened the calls */
    bool results;     /* results have been opened */
    bool in_results;  /* they have not been closed */
    bool only_system; /* there are system messages, and no other was before */
};

/* ---- system messages, tools ---- */

static void put_systems(struct chat *chat, const json_t *messages)
{
    size_t i, last = SIZE_MAX;
    json_t *message;
    json_array_foreach((json_t *)messages, i, message)
    {
        enum chat_role role;
        if (!chat_role_of(message, &role) || role != ROLE_SYSTEM)
            continue;
        if (!chat->rules->last_system) {
            chat_put(chat->w, last == SIZE_MAX ? "" : "\n\n");
            chat_put_content(chat->w, json_object_get(message, "content"));
        }
        last = i;
    }
    if (chat->rules->last_system && last != SIZE_MAX)
        chat_put_content(chat->w, json_object_get(json_array_get(messages, last), "content"));
    chat->only_system = last != SIZE_MAX;
}

static void put_tools(struct chat_writer *w, const json_t *tools)
{
    static const char format[] =
        "\nIMPORTANT: ALWAYS adhere to this exact format for tool use:\n" CALLS_BEGIN CALL_BEGIN
        "tool_call_name" SEPARATOR "tool_call_arguments" CALL_END
        "{additional_tool_calls}" CALLS_END "\n\n"
        "Where:\n"
        "- `tool_call_name` must be an exact match to one of the available tools\n"
        "- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters "
        "Schema\n"
        "- For multiple tool calls, chain them directly without separators or spaces";
    size_t i;
    json_t *tool;
    chat_put(w, "\n\n## Tools\nYou have access to the following tools:\n");
    json_array_foreach((json_t *)tools, i, tool)
    {
        const json_t *function = json_object_get(tool, "function"),
                     *parameters = json_object_get(function, "parameters");
        if (!json_is_string(json_object_get(function, "name")))
            chat_fail(w, xprintf("tools[%zu] has no function with a name", i));
        chat_put(w, "\n### ");
        chat_put_span(w, span_of(json_object_get(function, "name")));
        chat_put(w, "\nDescription: ");
        chat_put_span(w, span_of(json_object_get(function, "description")));
        chat_put(w, "\n\nParameters: ");
        if (parameters)
            chat_put_json(w, parameters);
        else
            chat_put(w, "{}");
        chat_put(w, "\n");
    }
    chat_put(w, format);
}

/* ---- calls and results ---- */

/* Arguments are the text of their JSON; an object is written as such a text. */
static void put_call(struct chat *chat, const json_t *call)
{
    struct chat_writer *w = chat->w;
    const json_t *function = json_object_get(call, "function"),
                 *name = json_object_get(function, "name"),
                 *arguments = json_object_get(function, "arguments");
    const char *type = json_string_value(json_object_get(call, "type"));
    bool plain = chat->rules->marks;
    if (!json_is_string(name) || !arguments) {
        chat_fail(w, xprintf("a tool call has no function with name and arguments"));
        return;
    }
    chat_put(w, CALL_BEGIN);
    chat_put_plain(w, plain ? "" : type ? type : "function");
    chat_put(w, plain ? "" : SEPARATOR);
    chat_put_span(w, span_of(name));
    chat_put(w, plain ? SEPARATOR : "\n```json\n");
    if (json_is_string(arguments))
        chat_put_span(w, span_of(arguments));
    else
        chat_put_json(w, arguments);
    chat_put(w, plain ? CALL_END : "\n```" CALL_END);
}

/* What follows the last </think>, or in V3.1 the first; all of a text without it. */
static struct span without_reasoning(const struct rules *rules, struct span text)
{
    static const char end[] = CHAT_THINK_END;
    while (!rules->keeps) {
        const char *found =
            text.length ? memmem(text.text, text.length, end, sizeof end - 1) : NULL;
        if (!found)
            break;
        text.length -= (size_t)(found - text.text) + sizeof end - 1;
        text.text = found + sizeof end - 1;
        if (rules->marks)
            break;
    }
    return text;
}

/* A content, or what its reasoning leaves of it. */
static void put_text(struct chat *chat, const json_t *content, bool whole)
{
    if (json_is_string(content) && !whole)
        chat_put_span(chat->w, without_reasoning(chat->rules, span_of(content)));
    else
        chat_put_content(chat->w, content);
}

static void put_calls(struct chat *chat, const json_t *message)
{
    struct chat_writer *w = chat->w;
    const struct rules *r = chat->rules;
    bool renewed = r->answers_turn || r->marks;
    size_t i;
    json_t *call;
    if (r->answers_turn && chat->in_results)
        chat_put(w, RESULTS_END);
    if (r->marks && (chat->asked || (r->after_system && chat->only_system)))
        chat_put(w, CHAT_ASSISTANT CHAT_THINK_END);
    if (renewed)
        chat->called = chat->results = false;
    json_array_foreach(json_object_get(message, "tool_calls"), i, call)
    {
        if (chat->called) {
            chat_put(w, r->marks ? "" : "\n");
        } else {
            chat_put(w, renewed ? "" : CHAT_ASSISTANT);
            put_text(chat, json_object_get(message, "content"), !r->answers_turn);
            chat_put(w, CALLS_BEGIN);
        }
        put_call(chat, call);
        chat_put(w, chat->called && r->calls_alone ? CALLS_END CHAT_EOS : "");
        chat->called = true;
    }
    chat_put(w, r->calls_alone ? "" : CALLS_END CHAT_EOS);
    chat->in_results = false;
}

static void put_result(struct chat *chat, const json_t *message)
{
    struct chat_writer *w = chat->w;
    if (!chat->rules->marks)
        chat_put(w, chat->results ? "\n" : RESULTS_BEGIN);
    chat_put(w, RESULT_BEGIN);
    chat_put_content(w, json_object_get(message, "content"));
    chat_put(w, RESULT_END);
    chat->results = chat->in_results = true;
}

/* ---- questions and answers ---- */

static void put_question(struct chat *chat, const json_t *message)
{
    chat_put(chat->w, CHAT_USER);
    chat_put_content(chat->w, json_object_get(message, "content"));
    chat->in_results = false;
    if (chat->rules->marks || chat->rules->answers_turn)
        chat->called = false;
    if (chat->rules->answers_turn)
        chat_put(chat->w, CHAT_ASSISTANT);
}

/* The last answer with its reasoning, as the model wrote it: the template's prompt for a reasoned
 * answer comes first, which in R1 ends with a newline. */
static void put_reasoned(struct chat *chat, const struct chat_answer *answer)
{
    struct chat_writer *w = chat->w;
    struct span reasoning = answer->reasoning;
    bool newline = !chat->rules->marks && (!reasoning.length || reasoning.text[0] != '\n');
    chat_put(w, chat->rules->answers_turn ? CHAT_THINK : CHAT_ASSISTANT CHAT_THINK);
    chat_put(w, newline ? "\n" : "");
    chat_put_span(w, reasoning);
    chat_put(w, CHAT_THINK_END);
    chat_put_content(w, answer->content);
    chat_put_span(w, answer->rest);
    chat_put(w, CHAT_EOS);
}

/* An answer as the template writes it, without its reasoning. */
static void put_answer(struct chat *chat, const json_t *message)
{
    struct chat_writer *w = chat->w;
    const struct rules *r = chat->rules;
    bool whole = chat->in_results && !r->answers_turn;
    if (chat->in_results)
        chat_put(w, r->marks ? "" : RESULTS_END);
    else if (!r->answers_turn && !r->marks)
        chat_put(w, CHAT_ASSISTANT);
    if (r->marks && chat->asked)
        chat_put(w, CHAT_ASSISTANT CHAT_THINK_END);
    put_text(chat, json_object_get(message, "content"), whole);
    chat_put(w, CHAT_EOS);
    chat->in_results = false;
}

static void put_assistant(struct chat *chat, const json_t *message, bool last)
{
    const struct rules *r = chat->rules;
    const struct chat_answer answer = chat_answer_of(message);
    const json_t *content = json_object_get(message, "content");
    bool calls =
        r->calls_alone ? !content || json_is_null(content) : chat_has(message, "tool_calls");
    if (calls)
        put_calls(chat, message);
    else if (last && chat->asked && !r->keeps && answer.reasoning.length)
        put_reasoned(chat, &answer);
    else
        put_answer(chat, message);
}

void chat_put_v3(struct chat_writer *w, enum chat_style style, const json_t *messages,
                 const json_t *tools)
{
    struct chat chat = {.w = w, .rules = rules_of(style)};
    size_t i;
    json_t *message;
    w->between = "\n"; /* as vLLM joins blocks for templates that take texts */
    put_systems(&chat, messages);
    if (tools && chat.rules->marks)
        put_tools(w, tools);
    else if (tools)
        chat_fail(w, xprintf("the templates of V3 and R1 write no tools; describe them in the "
                             "system message, and leave 'tools' out"));
    json_array_foreach((json_t *)messages, i, message)
    {
        enum chat_role role = ROLE_SYSTEM;
        chat_role_of(message, &role);
        if (role == ROLE_SYSTEM)
            continue;
        if (role == ROLE_USER)
            put_question(&chat, message);
        else if (role == ROLE_ASSISTANT)
            put_assistant(&chat, message, i + 1 == json_array_size(messages));
        else if (role == ROLE_TOOL)
            put_result(&chat, message);
        else
            chat_fail(w, xprintf("messages[%zu]: only V3.2's and V4's releases have developers and "
                                 "reminders",
                                 i));
        chat.asked = role == ROLE_USER;
        chat.only_system = false;
    }
    chat_put(w, chat.in_results && !chat.rules->marks ? RESULTS_END : "");
}
