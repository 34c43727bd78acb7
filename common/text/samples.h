/* samples.h: texts to tokenize, streamed from a file of JSON lines or plain text. */
#ifndef SAMPLES_H
#define SAMPLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "text/chat.h"

enum samples_format {
    SAMPLES_JSONL, /* one object per line, whose fields hold the sample */
    SAMPLES_TEXT,  /* one long sample in pieces of some MiB, split where a line begins */
};

/* The maximum length of a line, or of a run of lines that all begin with white space. */
enum { SAMPLE_MAX = 16 << 20 };

/* The text of one JSON line, an object. `field` names its source: a text, a conversation (an array
 * of messages, joined in `style`), or several texts, as in "prompt+response", joined by newlines.
 * NULL: the first that exists of text, article, prompt+response, messages. A conversation's tools
 * are the object's. Returns NULL, or an error text that the caller frees, and *text is NULL. The
 * caller frees *text. */
char *sample_text(const char *line, size_t length, const char *field, enum chat_style style,
                  char **text, size_t *text_length);

struct samples;

/* Open a file (NULL: standard input). Invalid content ends the process with the file's name, line
 * and offset: not UTF-8, not JSON, no such field. The caller closes it with samples_close(). */
struct samples *samples_open(const char *path, enum samples_format format, const char *field,
                             enum chat_style style);
void samples_close(struct samples *s);

/* The next text, in valid UTF-8, valid until the next call; false at the end. Empty lines of JSONL
 * are skipped. */
bool samples_next(struct samples *s, const char **text, size_t *length);

/* For messages: the file's name, the line of the current text, and the bytes read so far. */
const char *samples_name(const struct samples *s);
uint64_t samples_line(const struct samples *s);
uint64_t samples_bytes(const struct samples *s);

#endif
