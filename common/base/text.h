/* text.h: small string functions. */
#ifndef TEXT_H
#define TEXT_H

#include <stdbool.h>
#include <stdio.h>

bool starts_with(const char *text, const char *prefix);
bool ends_with(const char *text, const char *suffix);

/* True for text without control characters, which fits on one line of a message. */
bool text_is_line(const char *text);

/* Write printable ASCII text as a JSON string: only quotes and backslashes need escaping. */
void text_put_quoted(const char *text, FILE *out);

#endif
