/* chat_writer.h: what the rules of all releases share: reading messages, and writing their text.
 *
 * Text that the rules write may hold role tokens; in what messages say, their spelling is plain
 * text. */
#ifndef CHAT_WRITER_H
#define CHAT_WRITER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "text/passage.h"

#define CHAT_EOS "<｜end▁of▁sentence｜>"
#define CHAT_USER "<｜User｜>"
#define CHAT_ASSISTANT "<｜Assistant｜>"
#define CHAT_THINK "<think>"
#define CHAT_THINK_END "</think>"

struct chat_writer {
    FILE *out; /* to passage->text */
    struct passage *passage;
    const char *between; /* blocks of a content */
    char *error;         /* the first one, or NULL; owned */
};

/* Keep the first error; `error` is owned by the writer. */
void chat_fail(struct chat_writer *w, char *error);

/* Write text of the rules. */
void chat_put(struct chat_writer *w, const char *text);

/* A piece of a string, which may contain any character. */
struct span {
    const char *text;
    size_t length;
};
struct span span_of(const json_t *string);

/* Write what messages say: plain text; a value as one line of JSON; a content, which is a text,
 * nothing, or blocks {"type": "text", "text": …}. */
void chat_put_span(struct chat_writer *w, struct span span);
void chat_put_plain(struct chat_writer *w, const char *text);
void chat_put_json(struct chat_writer *w, const json_t *value);
void chat_put_content(struct chat_writer *w, const json_t *content);

/* ---- messages ---- */

enum chat_role {
    ROLE_SYSTEM,
    ROLE_DEVELOPER,
    ROLE_USER,
    ROLE_ASSISTANT,
    ROLE_TOOL,
    ROLE_REMINDER,
    ROLES
};

/* False for an unknown role. */
bool chat_role_of(const json_t *message, enum chat_role *role);

/* True if a member is there, and not null, false or empty. */
bool chat_has(const json_t *message, const char *key);

/* An assistant's message: its reasoning, and its answer, which is a content followed by the rest of
 * a text. A content that begins with <think> holds both. */
struct chat_answer {
    struct span reasoning;
    const json_t *content; /* or NULL */
    struct span rest;
};
struct chat_answer chat_answer_of(const json_t *message);

/* A call's arguments as JSON, which may come as the text of it; `twice`: also as that text in a
 * string of JSON. The caller owns the result, which is NULL if it is no JSON. */
json_t *chat_arguments(const json_t *arguments, bool twice);

#endif
