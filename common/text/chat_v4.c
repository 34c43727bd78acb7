/* V4's rules and V4.1's, which are the later ones. Source: the encoding folders of their releases.
 */
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "text/chat_dsml.h"
#include "text/chat_rules.h"

#define SYSTEM_TOKEN "<｜System｜>"

static const struct dsml_tags tags_v4 = {DSML "tool_calls", DSML "invoke", DSML "parameter", false},
                              tags_v41 = {DSML " calls", DSML " invoke", DSML " parameter", true};

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

/* One turn: a message, or consecutive user messages and tool results. */
struct turn {
    enum chat_role role;
    const json_t **message;
    size_t messages;
};

struct chat {
    struct chat_writer *w;
    struct turn *turn;
    size_t turns;
    size_t last_user; /* the last turn that asks; `turns` if there is none */
    const json_t *tools;
    const struct dsml_tags *tags;
    bool v41; /* V4.1's rules, not V4's */
    bool thinking, drop_thinking;
};

/* ---- messages to turns ---- */

/* A tool result joins the user turn before it. So does a user message, unless the turn is a task.
 */
static bool joins(const struct turn *last, enum chat_role role)
{
    return last->role == ROLE_USER &&
           (role == ROLE_TOOL || (role == ROLE_USER && !chat_has(last->message[0], "task")));
}

static void read_turns(struct chat *chat, const json_t *messages)
{
    size_t i;
    json_t *message;
    chat->turn = xalloc(json_array_size(messages), sizeof *chat->turn);
    json_array_foreach((json_t *)messages, i, message)
    {
        enum chat_role role = ROLE_USER;
        chat_role_of(message, &role);
        struct turn *turn = chat->turns ? &chat->turn[chat->turns - 1] : NULL;
        if (!turn || !joins(turn, role)) {
            turn = &chat->turn[chat->turns++];
            turn->role = role == ROLE_TOOL ? ROLE_USER : role;
        }
        turn->message = xgrow(turn->message, turn->messages + 1, sizeof *turn->message);
        turn->message[turn->messages++] = message;
    }
}

static bool is_result(const json_t *message)
{
    enum chat_role role;
    return chat_role_of(message, &role) && role == ROLE_TOOL;
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
    enum chat_role role = chat->turn[i].role;
    return role == ROLE_USER || role == ROLE_DEVELOPER ||
           (role == ROLE_SYSTEM && chat->v41 && i > 0);
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
        if (chat->turn[i].role == ROLE_DEVELOPER && i < chat->last_user)
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
        if (turn->role == ROLE_USER && calls)
            sort_results(turn, calls);
        tools |= turn->role != ROLE_USER && chat_has(turn->message[0], "tools");
        if (turn->role != ROLE_ASSISTANT)
            continue;
        if (chat_has(turn->message[0], "tool_calls"))
            calls = json_object_get(turn->message[0], "tool_calls");
        chat->thinking |= chat_answer_of(turn->message[0]).reasoning.length > 0;
    }
    chat->drop_thinking = !tools;
    find_last_user(chat);
    if (chat->thinking && chat->drop_thinking)
        forget_developers(chat);
}

/* ---- turns to text ---- */

static void put_tools(struct chat *chat, const json_t *tools)
{
    chat_put(chat->w, "\n\n");
    fprintf(chat->w->out, tools_before, chat->tags->calls, chat->tags->invoke,
            chat->tags->parameter);
    dsml_put_schemas(chat->w, tools);
    chat_put(chat->w, tools_after);
}

static void put_instructions(struct chat *chat, const json_t *message, const json_t *tools)
{
    if (chat_has(message, "tools"))
        tools = json_object_get(message, "tools");
    if (tools)
        put_tools(chat, tools);
    if (chat_has(message, "response_format")) {
        chat_put(chat->w,
                 "\n\n## Response Format:\n\nYou MUST strictly adhere to the following schema to "
                 "reply:\n");
        chat_put_json(chat->w, json_object_get(message, "response_format"));
    }
}

static void put_user(struct chat *chat, const struct turn *turn)
{
    chat_put(chat->w, CHAT_USER);
    for (size_t i = 0; i < turn->messages; i++) {
        bool result = is_result(turn->message[i]);
        chat_put(chat->w, i ? "\n\n" : "");
        chat_put(chat->w, result ? "<tool_result>" : "");
        chat_put_content(chat->w, json_object_get(turn->message[i], "content"));
        chat_put(chat->w, result ? "</tool_result>" : "");
    }
}

static void put_assistant(struct chat *chat, size_t i)
{
    const json_t *message = chat->turn[i].message[0];
    const struct chat_answer answer = chat_answer_of(message);
    bool task_output = i > 0 && chat_has(chat->turn[i - 1].message[0], "task");
    bool kept = !chat->drop_thinking || chat->last_user == chat->turns || i > chat->last_user;
    if (chat->thinking && !task_output && kept) {
        chat_put_span(chat->w, answer.reasoning);
        chat_put(chat->w, CHAT_THINK_END);
    }
    chat_put_content(chat->w, answer.content);
    chat_put_span(chat->w, answer.rest);
    if (chat_has(message, "tool_calls"))
        dsml_put_calls(chat->w, chat->tags, json_object_get(message, "tool_calls"));
    chat_put(chat->w, chat_has(message, "wo_eos") ? "" : CHAT_EOS);
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
    if (i + 1 < chat->turns && chat->turn[i + 1].role != ROLE_ASSISTANT &&
        chat->turn[i + 1].role != ROLE_REMINDER)
        return;
    if (!task) {
        chat_put(chat->w, asked ? CHAT_ASSISTANT : "");
        chat_put(chat->w, !asked ? "" : thinks ? CHAT_THINK : CHAT_THINK_END);
        return;
    }
    bool known = false;
    for (size_t k = 0; k < sizeof tasks / sizeof *tasks; k++)
        known |= !strcmp(task, tasks[k]);
    if (!known)
        chat_fail(chat->w, xprintf("unknown task '%.40s'", task));
    if (!strcmp(task, "action")) {
        chat_put(chat->w, CHAT_ASSISTANT);
        chat_put(chat->w, chat->thinking ? CHAT_THINK : CHAT_THINK_END);
    }
    fprintf(chat->w->out, "<｜%s｜>", task);
}

/* V4.1: a token begins each system message, and the conversation where it begins with the effort.
 */
static void put_system_token(struct chat *chat, bool first, bool system)
{
    bool says_effort = first && chat->thinking;
    if (!chat->v41)
        return;
    chat_put(chat->w, says_effort || system ? SYSTEM_TOKEN : "");
    chat_put(chat->w, says_effort ? effort : "");
}

/* True if no first message can hold the tools, which then stand as if in an empty system message.
 */
static bool needs_system(const struct chat *chat)
{
    return chat->tools && chat->turn[0].role != ROLE_SYSTEM && chat->turn[0].role != ROLE_DEVELOPER;
}

static void put_turn(struct chat *chat, size_t i)
{
    const struct turn *turn = &chat->turn[i];
    const json_t *message = turn->message[0];
    const json_t *tools = i == 0 ? chat->tools : NULL;
    put_system_token(chat, i == 0 && !needs_system(chat), turn->role == ROLE_SYSTEM);
    switch (turn->role) {
    case ROLE_SYSTEM:
    case ROLE_DEVELOPER:
        chat_put(chat->w, turn->role == ROLE_DEVELOPER ? CHAT_USER : "");
        chat_put_content(chat->w, json_object_get(message, "content"));
        put_instructions(chat, message, tools);
        break;
    case ROLE_REMINDER:
        chat_put(chat->w, "<｜latest_reminder｜>");
        chat_put_content(chat->w, json_object_get(message, "content"));
        break;
    case ROLE_ASSISTANT:
        put_assistant(chat, i);
        break;
    default:
        put_user(chat, turn);
    }
    put_transition(chat, i);
}

void chat_put_v4(struct chat_writer *w, bool v41, const json_t *messages, const json_t *tools)
{
    struct chat chat = {.w = w, .tools = tools, .tags = v41 ? &tags_v41 : &tags_v4, .v41 = v41};
    read_turns(&chat, messages);
    survey(&chat);
    if (needs_system(&chat)) {
        put_system_token(&chat, true, true);
        put_tools(&chat, chat.tools);
    }
    for (size_t i = 0; i < chat.turns; i++)
        put_turn(&chat, i);
    for (size_t i = 0; i < chat.turns; i++)
        free(chat.turn[i].message);
    free(chat.turn);
}
