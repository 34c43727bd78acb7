/* samples.h: texts to tokenize, out of a file of JSON rows or of plain text, read as it goes. */
#ifndef SAMPLES_H
#define SAMPLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "text/chat.h"

enum samples_format {
    SAMPLES_JSONL, /* objects, rows, whose fields are the sample: one a line, or all in one array */
    SAMPLES_TEXT,  /* one long sample, which comes in pieces of some MiB, cut where a line begins */
};

/* A row, or a run of lines that all begin with white space, may be this long. */
enum { SAMPLE_MAX = 16 << 20 };

/* The text of one JSON object. `field` names what holds it: a text, a conversation (an array of
 * messages, joined as `style` has it), or several texts, as in "prompt+response", joined by
 * newlines; NULL: the first that is there of text, article, prompt+response, messages. A
 * conversation's tools are the object's. The caller ends *passage with passage_free(); it is all 0
 * if the field is null. Returns NULL, or what is wrong (the caller frees it; then *passage is all
 * 0). */
char *sample_text(const char *row, size_t length, const char *field, enum chat_style style,
                  struct passage *passage);

struct samples;

/* Open a file (NULL: standard input), which may be packed by gzip or zstd; a byte order mark at its
 * beginning is passed over. What is wrong with it ends the process, with its name, line and offset:
 * no UTF-8, no JSON, no such field. The caller ends it with samples_close(). */
struct samples *samples_open(const char *path, enum samples_format format, const char *field,
                             enum chat_style style);
void samples_close(struct samples *s);

/* The next text, in valid UTF-8, valid until the next call; false at the end. Empty lines of JSONL
 * are passed over, and rows whose text is null, which are counted. */
bool samples_next(struct samples *s, struct passage *passage);
uint64_t samples_nulls(const struct samples *s);

/* For messages: the file's name; the line of the present text; bytes of the file read so far. */
const char *samples_name(const struct samples *s);
uint64_t samples_line(const struct samples *s);
uint64_t samples_bytes(const struct samples *s);

#endif
