/* samples.h: texts to tokenize, out of a file of JSON lines or of plain text, read as it goes. */
#ifndef SAMPLES_H
#define SAMPLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "text/chat.h"

enum samples_format {
    SAMPLES_JSONL, /* an object a line; its fields are the sample */
    SAMPLES_TEXT,  /* one long sample, which comes in pieces of some MiB, cut where a line begins */
};

/* A line, or a run of lines that all begin with white space, may be this long. */
enum { SAMPLE_MAX = 16 << 20 };

/* The text of one JSON line, an object. `field` names what holds it: a text, a conversation (an
 * array of messages, joined as `style` has it), or several texts, as in "prompt+response", joined
 * by newlines; NULL: the first that is there of text, article, prompt+response, messages. A
 * conversation's tools are the object's. The caller frees *text. Returns NULL, or what is wrong
 * (the caller frees it; then *text is NULL). */
char *sample_text(const char *line, size_t length, const char *field, enum chat_style style,
                  char **text, size_t *text_length);

struct samples;

/* Open a file (NULL: standard input). What is wrong with it ends the process, with its name, line
 * and offset: no UTF-8, no JSON, no such field. The caller ends it with samples_close(). */
struct samples *samples_open(const char *path, enum samples_format format, const char *field,
                             enum chat_style style);
void samples_close(struct samples *s);

/* The next text, in valid UTF-8, valid until the next call; false at the end. Empty lines of JSONL
 * are passed over. */
bool samples_next(struct samples *s, const char **text, size_t *length);

/* For messages: the file's name; the line of the present text; bytes read so far. */
const char *samples_name(const struct samples *s);
uint64_t samples_line(const struct samples *s);
uint64_t samples_bytes(const struct samples *s);

#endif
