#include "text/chat.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/json.h"
#include "text/python_json.h"

#define EOS "<｜end▁of▁sentence｜>"
#define USER "<｜User｜>"
#define ASSISTANT "<｜Assistant｜>"
#define SYSTEM_TOKEN "<｜System｜>"
#define DSML "｜DSML｜"

enum { MESSAGES_MAX = 4096 };

static const char think[] = "<think>", think_end[] = "</think>";

/* What V4's rules and V4.1's, which are the later ones, call the parts of a tool call. */
struct tags {
    const char *calls, *invoke, *parameter;
};
static const struct tags tags_v4 = {DSML "tool_calls", DSML "invoke", DSML "parameter"},
                         tags_v41 = {DSML " calls", DSML " invoke", DSML " parameter"};

/* The text before the schemas of tools, with the tags of calls (1), invoke (2), parameter (3). */
static const char tools_before[] =
    "## Tools\n\n"
    "You have access to a set of tools to help answer the user's question. You can invoke tools by "
    "writing a \"<%1$s>\" block like the following:\n\n"
    "<%1$s>\n"
    "<%2$s name=\"$TOOL_NAME\">\n"
    "<%3$s name=\"$PARAMETER_NAME\" string=\"true|false\">$PARAMETER_VALUE</%3$s>\n"
    "...\n"
    "</%2$s>\n"
    "<%2$s name=\"$TOOL_NAME2\">\n"
    "...\n"
    "</%2$s>\n"
    "</%1$s>\n\n"
    "String parameters should be specified as is and set `string=\"true\"`. For all other types "
    "(numbers, booleans, arrays, objects), pass the value in JSON format and set "
    "`string=\"false\"`.\n\n"
    "If thinking_mode is enabled (triggered by <think>), you MUST output your complete reasoning "
    "inside <think>...</think> BEFORE any tool calls or final response.\n\n"
    "Otherwise, output directly after </think> with tool calls or final response.\n\n"
    "### Available Tool Schemas\n\n";
static const char tools_after[] =
    "\n\nYou MUST strictly follow the above defined tool name and parameter schemas to invoke tool "
    "calls.\n";

/* V4.1's rules in thinking mode, with the default of its release. */
static const char effort[] = "Reasoning Effort: 75 (range 1-100, the higher the value, the more "
                             "thorough the reasoning)\n\n";

enum role { SYSTEM, DEVELOPER, USER_ROLE, ASSISTANT_ROLE, TOOL, REMINDER, ROLES };
static const char *const role_name[ROLES] = {"system",    "developer", "user",
                                             "assistant", "tool",      "latest_reminder"};

/* One turn: a message, or consecutive user messages and tool results. */
struct turn {
    enum role role;
    const json_t **message;
    size_t messages;
};

struct chat {
    FILE *out; /* to passage->text */
    struct passage *passage;
    char *error; /* the first one */
    struct turn *turn;
    size_t turns;
    size_t last_user; /* the last turn that asks; `turns` if there is none */
    const json_t *tools;
    const struct tags *tags;
    bool merge; /* merge consecutive user messages */
    bool v41;   /* V4.1's rules, not V4's */
    bool thinking, drop_thinking;
};

static void fail(struct chat *chat, char *error)
{
    if (chat->error)
        free(error);
    else
        chat->error = error;
}

/* Write text of the rules, in which role tokens are tokens. */
static void put(struct chat *chat, const char *text)
{
    fputs(text, chat->out);
}

/* A piece of a string, which may contain any character. */
struct span {
    const char *text;
    size_t length;
};

static struct span span_of(const json_t *string)
{
    return (struct span){json_string_value(string), json_string_length(string)};
}

static size_t place(const struct chat *chat)
{
    return (size_t)ftello(chat->out);
}

/* Write contents of a message: the spelling of a role token is plain text there. */
static void put_span(struct chat *chat, struct span span)
{
    size_t start = place(chat);
    if (span.length)
        fwrite(span.text, 1, span.length, chat->out);
    passage_plain(chat->passage, start, place(chat));
}

static void put_plain(struct chat *chat, const char *text)
{
    put_span(chat, (struct span){text, strlen(text)});
}

/* Write a value as one line of JSON, formatted as in the rules. */
static void put_json(struct chat *chat, const json_t *value)
{
    size_t start = place(chat);
    python_json_put(value, chat->out);
    passage_plain(chat->passage, start, place(chat));
}

static bool has(const json_t *message, const char *key)
{
    const json_t *value = json_object_get(message, key);
    return value && !json_is_null(value) && !json_is_false(value) &&
           !(json_is_array(value) && json_array_size(value) == 0) &&
           !(json_is_string(value) && json_string_length(value) == 0);
}

/* Write a content: text, nothing, or blocks {"type": "text", "text": …} joined by empty lines. */
static void put_content(struct chat *chat, const json_t *content)
{
    if (json_is_string(content)) {
        put_span(chat, span_of(content));
        return;
    }
    size_t i;
    json_t *block;
    json_array_foreach((json_t *)content, i, block)
    {
        const json_t *text = json_object_get(block, "text");
        if (!json_is_string(text)) {
            fail(chat, xprintf("a content has a block without text"));
            return;
        }
        put(chat, i ? "\n\n" : "");
        put_span(chat, span_of(text));
    }
    if (content && !json_is_null(content) && !json_is_array(content))
        fail(chat, xprintf("a content is not text"));
}

/* Split an assistant's message into reasoning and answer. A content that begins with <think> holds
 * both. */
static void split_answer(const json_t *message, struct span *reasoning, const json_t **content,
                         struct span *rest)
{
    const json_t *text = *content = json_object_get(message, "content");
    *rest = (struct span){0};
    *reasoning = span_of(json_object_get(message, "reasoning_content"));
    struct span all = span_of(text);
    size_t skip = sizeof think - 1;
    if (reasoning->length || all.length < skip || memcmp(all.text, think, skip) != 0)
        return;
    const char *end = memmem(all.text, all.length, think_end, sizeof think_end - 1);
    *content = NULL;
    *reasoning = (struct span){all.text + skip, all.length - skip};
    if (end) {
        reasoning->length = (size_t)(end - reasoning->text);
        rest->text = end + sizeof think_end - 1;
        rest->length = (size_t)(all.text + all.length - rest->text);
    }
}

/* ---- messages to turns ---- */

static bool role_of(const json_t *message, enum role *role)
{
    const char *name = json_string_value(json_object_get(message, "role"));
    for (int i = 0; name && i < ROLES; i++)
        if (!strcmp(name, role_name[i])) {
            *role = (enum role)i;
            return true;
        }
    return false;
}

/* A tool result joins the user turn before it. So does a user message, unless the turn is a task.
 */
static bool joins(const struct turn *last, enum role role)
{
    return last->role == USER_ROLE &&
           (role == TOOL || (role == USER_ROLE && !has(last->message[0], "task")));
}

static void read_turns(struct chat *chat, const json_t *messages)
{
    size_t i;
    json_t *message;
    size_t count = json_array_size(messages);
    if (count == 0 || count > MESSAGES_MAX)
        fail(chat, xprintf("wanted 1 to %d messages with role and content", MESSAGES_MAX));
    chat->turn = xalloc(count, sizeof *chat->turn);
    json_array_foreach((json_t *)messages, i, message)
    {
        enum role role;
        if (!role_of(message, &role)) {
            const char *name = json_string_value(json_object_get(message, "role"));
            fail(chat, xprintf("messages[%zu]: unknown role '%.40s'", i, name ? name : ""));
            return;
        }
        struct turn *turn = chat->turns ? &chat->turn[chat->turns - 1] : NULL;
        if (!turn || !chat->merge || !joins(turn, role)) {
            turn = &chat->turn[chat->turns++];
            turn->role = role == TOOL ? USER_ROLE : role;
        }
        turn->message = xgrow(turn->message, turn->messages + 1, sizeof *turn->message);
        turn->message[turn->messages++] = message;
    }
}

static bool is_result(const json_t *message)
{
    enum role role;
    return role_of(message, &role) && role == TOOL;
}

/* The index of a tool result's call among the preceding calls; 0 if it has none. */
static size_t call_order(const json_t *calls, const json_t *result)
{
    const char *wanted = json_string_value(json_object_get(result, "tool_call_id"));
    for (size_t i = json_array_size(calls); wanted && i-- > 0;) {
        const json_t *call = json_array_get(calls, i);
        const char *id = json_string_value(json_object_get(call, "id"));
        if (!id)
            id = json_string_value(json_object_get(json_object_get(call, "function"), "id"));
        if (id && !strcmp(id, wanted))
            return i;
    }
    return 0;
}

struct result {
    const json_t *message;
    size_t order, place;
};

static int by_order(const void *a, const void *b)
{
    const struct result *x = a, *y = b;
    if (x->order != y->order)
        return x->order < y->order ? -1 : 1;
    return x->place < y->place ? -1 : 1;
}

/* Sort results into the order of their calls; texts between them keep their positions. */
static void sort_results(struct turn *turn, const json_t *calls)
{
    struct result *result = xalloc(turn->messages, sizeof *result);
    size_t count = 0;
    for (size_t i = 0; i < turn->messages; i++)
        if (is_result(turn->message[i])) {
            result[count] =
                (struct result){turn->message[i], call_order(calls, turn->message[i]), i};
            count++;
        }
    qsort(result, count, sizeof *result, by_order);
    for (size_t i = 0, k = 0; i < turn->messages; i++)
        if (is_result(turn->message[i]))
            turn->message[i] = result[k++].message;
    free(result);
}

/* True for a turn that an assistant's answers. In V4.1, a system's after the beginning does, too.
 */
static bool asks(const struct chat *chat, size_t i)
{
    enum role role = chat->turn[i].role;
    return role == USER_ROLE || role == DEVELOPER || (role == SYSTEM && chat->v41 && i > 0);
}

static void find_last_user(struct chat *chat)
{
    chat->last_user = chat->turns;
    for (size_t i = 0; i < chat->turns; i++)
        if (asks(chat, i))
            chat->last_user = i;
}

/* Thinking mode drops developer messages before the last user message. */
static void forget_developers(struct chat *chat)
{
    size_t kept = 0;
    for (size_t i = 0; i < chat->turns; i++) {
        if (chat->turn[i].role == DEVELOPER && i < chat->last_user)
            free(chat->turn[i].message);
        else
            chat->turn[kept++] = chat->turn[i];
    }
    chat->turns = kept;
    find_last_user(chat);
}

/* Determine what depends on all turns. */
static void survey(struct chat *chat)
{
    const json_t *calls = NULL;
    bool tools = chat->tools != NULL;
    for (size_t i = 0; i < chat->turns; i++) {
        struct turn *turn = &chat->turn[i];
        const json_t *content;
        struct span reasoning, rest;
        if (turn->role == USER_ROLE && calls)
            sort_results(turn, calls);
        tools |= turn->role != USER_ROLE && has(turn->message[0], "tools");
        if (turn->role != ASSISTANT_ROLE)
            continue;
        if (has(turn->message[0], "tool_calls"))
            calls = json_object_get(turn->message[0], "tool_calls");
        split_answer(turn->message[0], &reasoning, &content, &rest);
        chat->thinking |= reasoning.length > 0;
    }
    chat->drop_thinking = !tools;
    find_last_user(chat);
    if (chat->thinking && chat->drop_thinking)
        forget_developers(chat);
}

/* ---- the rules of V4 and V4.1 ---- */

static void put_tools(struct chat *chat, const json_t *tools)
{
    size_t i;
    json_t *tool;
    put(chat, "\n\n");
    fprintf(chat->out, tools_before, chat->tags->calls, chat->tags->invoke, chat->tags->parameter);
    json_array_foreach((json_t *)tools, i, tool)
    {
        const json_t *function = json_object_get(tool, "function");
        if (!function)
            fail(chat, xprintf("tools[%zu] has no function", i));
        else
            put_json(chat, function);
        put(chat, i + 1 < json_array_size(tools) ? "\n" : "");
    }
    put(chat, tools_after);
}

static void put_instructions(struct chat *chat, const json_t *message, const json_t *tools)
{
    if (has(message, "tools"))
        tools = json_object_get(message, "tools");
    if (tools)
        put_tools(chat, tools);
    if (has(message, "response_format")) {
        put(chat, "\n\n## Response Format:\n\nYou MUST strictly adhere to the following schema to "
                  "reply:\n");
        put_json(chat, json_object_get(message, "response_format"));
    }
}

static void put_user(struct chat *chat, const struct turn *turn)
{
    put(chat, USER);
    for (size_t i = 0; i < turn->messages; i++) {
        bool result = is_result(turn->message[i]);
        put(chat, i ? "\n\n" : "");
        put(chat, result ? "<tool_result>" : "");
        put_content(chat, json_object_get(turn->message[i], "content"));
        put(chat, result ? "</tool_result>" : "");
    }
}

static void put_parameter(struct chat *chat, const char *name, const json_t *value)
{
    bool string = json_is_string(value);
    fprintf(chat->out, "<%s name=\"", chat->tags->parameter);
    put_plain(chat, name);
    fprintf(chat->out, "\" string=\"%s\">", string ? "true" : "false");
    if (string)
        put_span(chat, span_of(value));
    else
        put_json(chat, value);
    fprintf(chat->out, "</%s>", chat->tags->parameter);
}

/* A call's arguments, which may come as the text of their JSON; V4.1's rules also accept that text
 * as a JSON string. The caller owns the result, which is NULL if it is not JSON. */
static json_t *parsed_arguments(const struct chat *chat, const json_t *arguments)
{
    json_t *value = json_incref((json_t *)arguments);
    for (int i = 0; i < (chat->v41 ? 2 : 1) && json_is_string(value); i++) {
        json_t *inner = json_load_within(json_string_value(value), json_string_length(value),
                                         JSON_ALLOW_NUL | JSON_DECODE_ANY, JSON_MEMORY, NULL);
        json_decref(value);
        value = inner;
    }
    return value;
}

static void put_call(struct chat *chat, const json_t *call)
{
    const json_t *function = json_object_get(call, "function"),
                 *arguments = json_object_get(function, "arguments");
    const char *name = json_string_value(json_object_get(function, "name"));
    json_t *parsed = parsed_arguments(chat, arguments);
    if (!name || !arguments) {
        fail(chat, xprintf("a tool call has no function with name and arguments"));
        name = "";
    }
    fprintf(chat->out, "<%s name=\"", chat->tags->invoke);
    put_plain(chat, name);
    put(chat, "\">\n");
    if (json_is_object(parsed)) {
        const char *key;
        json_t *value;
        const char *between = "";
        json_object_foreach(parsed, key, value)
        {
            put(chat, between);
            put_parameter(chat, key, value);
            between = "\n";
        }
    } else if (arguments) {
        put_parameter(chat, "arguments", arguments); /* not JSON: unchanged */
    }
    fprintf(chat->out, "\n</%s>", chat->tags->invoke);
    json_decref(parsed);
}

static void put_calls(struct chat *chat, const json_t *calls)
{
    size_t i;
    json_t *call;
    fprintf(chat->out, "\n\n<%s>\n", chat->tags->calls);
    json_array_foreach((json_t *)calls, i, call)
    {
        put(chat, i ? "\n" : "");
        put_call(chat, call);
    }
    fprintf(chat->out, "\n</%s>", chat->tags->calls);
}

static void put_assistant(struct chat *chat, size_t i)
{
    const json_t *message = chat->turn[i].message[0], *content;
    struct span reasoning, rest;
    split_answer(message, &reasoning, &content, &rest);
    bool task_output = i > 0 && has(chat->turn[i - 1].message[0], "task");
    bool kept = !chat->drop_thinking || chat->last_user == chat->turns || i > chat->last_user;
    if (chat->thinking && !task_output && kept) {
        put_span(chat, reasoning);
        put(chat, think_end);
    }
    put_content(chat, content);
    put_span(chat, rest);
    if (has(message, "tool_calls"))
        put_calls(chat, json_object_get(message, "tool_calls"));
    put(chat, has(message, "wo_eos") ? "" : EOS);
}

/* Write what follows a turn if the next one is an assistant's or it is the last. */
static void put_transition(struct chat *chat, size_t i)
{
    static const char *const tasks[] = {"action", "query", "authority",
                                        "domain", "title", "read_url"};
    const struct turn *turn = &chat->turn[i];
    const char *task = json_string_value(json_object_get(turn->message[0], "task"));
    bool asked = asks(chat, i);
    bool thinks = chat->thinking && (!chat->drop_thinking || i >= chat->last_user);
    if (i + 1 < chat->turns && chat->turn[i + 1].role != ASSISTANT_ROLE &&
        chat->turn[i + 1].role != REMINDER)
        return;
    if (!task) {
        put(chat, asked ? ASSISTANT : "");
        put(chat, !asked ? "" : thinks ? think : think_end);
        return;
    }
    bool known = false;
    for (size_t k = 0; k < sizeof tasks / sizeof *tasks; k++)
        known |= !strcmp(task, tasks[k]);
    if (!known)
        fail(chat, xprintf("unknown task '%.40s'", task));
    if (!strcmp(task, "action")) {
        put(chat, ASSISTANT);
        put(chat, chat->thinking ? think : think_end);
    }
    fprintf(chat->out, "<｜%s｜>", task);
}

/* V4.1: a token begins each system message, and the conversation where it begins with the effort.
 */
static void put_system_token(struct chat *chat, bool first, bool system)
{
    bool says_effort = first && chat->thinking;
    if (!chat->v41)
        return;
    put(chat, says_effort || system ? SYSTEM_TOKEN : "");
    put(chat, says_effort ? effort : "");
}

/* True if no first message can hold the tools, which then stand as if in an empty system message.
 */
static bool needs_system(const struct chat *chat)
{
    return chat->tools && chat->turn[0].role != SYSTEM && chat->turn[0].role != DEVELOPER;
}

static void put_turn_v4(struct chat *chat, size_t i)
{
    const struct turn *turn = &chat->turn[i];
    const json_t *message = turn->message[0];
    const json_t *tools = i == 0 ? chat->tools : NULL;
    put_system_token(chat, i == 0 && !needs_system(chat), turn->role == SYSTEM);
    switch (turn->role) {
    case SYSTEM:
    case DEVELOPER:
        put(chat, turn->role == DEVELOPER ? USER : "");
        put_content(chat, json_object_get(message, "content"));
        put_instructions(chat, message, tools);
        break;
    case REMINDER:
        put(chat, "<｜latest_reminder｜>");
        put_content(chat, json_object_get(message, "content"));
        break;
    case ASSISTANT_ROLE:
        put_assistant(chat, i);
        break;
    default:
        put_user(chat, turn);
    }
    put_transition(chat, i);
}

static void put_v4(struct chat *chat)
{
    survey(chat);
    if (needs_system(chat)) {
        put_system_token(chat, true, true);
        put_tools(chat, chat->tools);
    }
    for (size_t i = 0; i < chat->turns; i++)
        put_turn_v4(chat, i);
}

/* ---- V3's rules ---- */

static const char no_tools[] =
    "only V4's and V4.1's tokenizers support developers, reminders and tools";

static void put_v3(struct chat *chat, bool think_mark)
{
    if (chat->tools)
        fail(chat, xprintf("%s", no_tools));
    const char *between = "";
    for (size_t i = 0; i < chat->turns; i++) {
        const struct turn *turn = &chat->turn[i];
        if (turn->role != SYSTEM)
            continue;
        put(chat, between);
        put_content(chat, json_object_get(turn->message[0], "content"));
        between = "\n\n";
    }
    for (size_t i = 0; i < chat->turns; i++) {
        const struct turn *turn = &chat->turn[i];
        const json_t *message = turn->message[0], *content;
        struct span reasoning, rest;
        if (turn->role == SYSTEM)
            continue;
        if (turn->role == DEVELOPER || turn->role == REMINDER || is_result(message) ||
            has(message, "tool_calls")) {
            fail(chat, xprintf("%s", no_tools));
            return;
        }
        if (turn->role == USER_ROLE) {
            put_user(chat, turn);
            continue;
        }
        split_answer(message, &reasoning, &content, &rest);
        put(chat, ASSISTANT);
        put(chat, think_mark ? think_end : "");
        put_content(chat, content);
        put_span(chat, rest);
        put(chat, EOS);
    }
}

enum chat_style chat_template_style(const char *template)
{
    if (!template || !strstr(template, USER) || !strstr(template, ASSISTANT))
        return CHAT_UNKNOWN;
    /* it prints the mark, not just searches for it */
    bool marks = strstr(template, "</think>'}}") || strstr(template, "</think>' }}");
    return marks ? CHAT_V31 : CHAT_V3;
}

static void put_chat(struct chat *chat, enum chat_style style, const json_t *messages)
{
    read_turns(chat, messages);
    if (chat->error)
        return;
    if (chat->tags)
        put_v4(chat);
    else
        put_v3(chat, style == CHAT_V31);
}

char *chat_text(enum chat_style style, const json_t *messages, const json_t *tools,
                struct passage *passage)
{
    bool v41 = style == CHAT_V41, rules = v41 || style == CHAT_V4;
    struct chat chat = {.passage = passage,
                        .tools = json_array_size(tools) ? tools : NULL,
                        .tags = v41     ? &tags_v41
                                : rules ? &tags_v4
                                        : NULL,
                        .merge = rules,
                        .v41 = v41};
    *passage = (struct passage){0};
    if (style == CHAT_UNKNOWN)
        return xprintf(
            "the format of messages is unknown: config.json's model_type, the tokenizer's "
            "tokens and its chat template are not of the DeepSeek family; convert "
            "messages to text first");
    chat.out = open_memstream(&passage->text, &passage->length);
    if (!chat.out)
        die("out of memory");
    put_chat(&chat, style, messages);
    if (fclose(chat.out))
        die("out of memory");
    for (size_t i = 0; i < chat.turns; i++)
        free(chat.turn[i].message);
    free(chat.turn);
    if (chat.error)
        passage_free(passage);
    return chat.error;
}
