/* html.h: text in a page of HTML. Everything from outside goes through these. */
#ifndef HTML_H
#define HTML_H

#include <stddef.h>
#include <stdio.h>

/* Write text as the content of an element, or of an attribute in double quotes: markup is escaped;
 * newlines and tabs stay; U+FFFD stands for each other character that is not plain (text.h), and
 * for each sequence that is not UTF-8. */
void html_write(FILE *out, const char *text, size_t length);
void html_text(FILE *out, const char *text);

/* The same of all that the format gives. */
void html_print(FILE *out, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
