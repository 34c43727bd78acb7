/* samples.h: texts to tokenize, streamed from a file of JSON rows or plain text. */
#ifndef SAMPLES_H
#define SAMPLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "text/chat.h"

enum samples_format {
    SAMPLES_JSONL, /* rows are objects whose fields hold the sample: one per line, or one array */
    SAMPLES_TEXT,  /* one long sample in pieces of some MiB, split where a line begins */
};

/* The maximum length of a row, or of a run of lines that all begin with white space. */
enum { SAMPLE_MAX = 16 << 20 };

/* The text of one row, a JSON object. `field` names its source: a text, a conversation (an array of
 * messages, or as ShareGPT writes them, joined in `style`), or several texts, as in
 * "prompt+response", joined by newlines. NULL: the first that exists of text, article,
 * prompt+response, messages, conversations. A conversation's tools are the object's. Returns NULL,
 * or an error text that the caller frees. *passage is all 0 after an error, and if the field is
 * null. The caller frees it with passage_free(). */
char *sample_text(const char *row, size_t length, const char *field, enum chat_style style,
                  struct passage *passage);

struct samples;

/* Open a file (NULL: standard input), which gzip or zstd may have compressed. A byte order mark at
 * its beginning is skipped. Invalid content ends the process with the file's name, line and offset:
 * not UTF-8, not JSON, no such field. The caller closes it with samples_close(). */
struct samples *samples_open(const char *path, enum samples_format format, const char *field,
                             enum chat_style style);
void samples_close(struct samples *s);

/* The next text, in valid UTF-8, valid until the next call; false at the end. Empty lines of JSONL
 * are skipped, and so are rows whose text is null, which are counted. */
bool samples_next(struct samples *s, struct passage *passage);
uint64_t samples_nulls(const struct samples *s);

/* For messages: the file's name, the line of the current text, and the bytes of the file read so
 * far. */
const char *samples_name(const struct samples *s);
uint64_t samples_line(const struct samples *s);
uint64_t samples_bytes(const struct samples *s);

#endif
