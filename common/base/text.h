/* text.h: what many ask of a string. */
#ifndef TEXT_H
#define TEXT_H

#include <stdbool.h>
#include <stdio.h>

bool starts_with(const char *text, const char *prefix);
bool ends_with(const char *text, const char *suffix);

/* True for text without control characters, which keeps to one line of a message. */
bool text_is_line(const char *text);

/* Write text of printable ASCII as a JSON string: only quotes and backslashes need an escape. */
void text_put_quoted(const char *text, FILE *out);

#endif
