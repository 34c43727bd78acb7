#include "text/chat_template.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"

/* Strings in the templates, without white space. */
static const char *const known[] = {
    "",
    "system",
    "user",
    "assistant",
    "tool",
    "role",
    "content",
    "tool_calls",
    "function",
    "name",
    "arguments",
    "type",
    "prefix",
    "```json",
    "```",
    "<think>",
    "</think>",
    "<｜User｜>",
    "<｜Assistant｜>",
    "<｜Assistant｜><think>",
    "<｜Assistant｜></think>",
    "<｜end▁of▁sentence｜>",
    "<｜Assistant｜><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>",
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁calls▁end｜><｜end▁of▁sentence｜>",
    "<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>",
    "<｜tool▁output▁begin｜>",
    "<｜tool▁output▁end｜>",
    "<｜tool▁outputs▁end｜>",
};

/* What the templates differ in. */
enum {
    JOINS_SYSTEMS = 1,
    ANSWERS_TURN = 2, /* the assistant's token ends a user's turn */
    CALLS_ALONE = 4,  /* a message has calls if it has no content */
    DROPS = 8,        /* reasoning, to the last </think> */
    MARKS = 16,       /* an answer with </think>, and drops to the first */
    AFTER_SYSTEM = 32,
    FENCES = 64, /* arguments */
};

/* A part of a template without white space, and what it means. */
static const struct {
    const char *text;
    unsigned feature;
} parts[] = {
    {"ns.is_first_sp", JOINS_SYSTEMS},
    {"'<｜User｜>'+message['content']+'<｜Assistant｜>'", ANSWERS_TURN},
    {"'<｜User｜>'+content+'<｜Assistant｜>'", ANSWERS_TURN},
    {"message['role']=='assistant'andmessage['content']isnone", CALLS_ALONE},
    {".split('</think>')[-1]", DROPS},
    {".split('</think>',1)[1]", MARKS},
    {"ns.is_only_sys", AFTER_SYSTEM},
    {"'```json'", FENCES},
};

static const struct {
    enum chat_style style;
    unsigned features;
} styles[] = {
    {CHAT_V25, CALLS_ALONE | FENCES},
    {CHAT_V3, JOINS_SYSTEMS | CALLS_ALONE | FENCES},
    {CHAT_V3_0324, JOINS_SYSTEMS | ANSWERS_TURN | FENCES},
    {CHAT_R1_FIRST, CALLS_ALONE | DROPS | FENCES},
    {CHAT_R1, JOINS_SYSTEMS | DROPS | FENCES},
    {CHAT_R1_0528, JOINS_SYSTEMS | ANSWERS_TURN | DROPS | FENCES},
    {CHAT_V31, JOINS_SYSTEMS | MARKS},
    {CHAT_V31_TERMINUS, JOINS_SYSTEMS | MARKS | AFTER_SYSTEM},
};

/* The text without white space, also escaped in strings, and with all quotes single; the caller
 * frees it. */
static char *plain_form(const char *template)
{
    char *plain = xalloc(strlen(template) + 1, 1), *end = plain;
    for (const char *at = template; *at; at++) {
        if (at[0] == '\\' && at[1] == 'n')
            at++;
        else if (!isspace((unsigned char)*at))
            *end++ = (char)(*at == '"' ? '\'' : *at);
    }
    return plain;
}

static bool is_known(const char *text, size_t length)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i]) == length && !memcmp(known[i], text, length))
            return true;
    return false;
}

/* True if there are no other strings in it, and no text outside of statements and expressions. */
static bool has_only_known(const char *plain)
{
    static const char open[] = "{", close[] = "}";
    for (const char *at = plain; *at;) {
        if (at[0] != open[0] || (at[1] != '%' && at[1] != open[0]))
            return false;
        const char last = (char)(at[1] == '%' ? '%' : close[0]);
        for (at += 2; *at && !(at[0] == last && at[1] == close[0]); at++) {
            if (*at != '\'')
                continue;
            size_t length = strcspn(++at, "'");
            if (!at[length] || !is_known(at, length))
                return false;
            at += length;
        }
        if (!*at)
            return false;
        at += 2;
    }
    return true;
}

enum chat_style chat_template_style(const char *template)
{
    unsigned features = 0;
    enum chat_style style = CHAT_UNKNOWN;
    if (!template || !strstr(template, "<｜User｜>"))
        return CHAT_UNKNOWN;
    char *plain = plain_form(template);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strstr(plain, parts[i].text))
            features |= parts[i].feature;
    for (size_t i = 0; i < sizeof styles / sizeof *styles; i++)
        if (styles[i].features == features && has_only_known(plain))
            style = styles[i].style;
    free(plain);
    return style;
}
