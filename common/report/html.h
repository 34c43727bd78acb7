/* html.h: a page of HTML, in which everything from outside is text. */
#ifndef HTML_H
#define HTML_H

#include <stddef.h>
#include <stdio.h>

/* Write text as the content of an element, or of an attribute in double quotes: markup is escaped;
 * newlines and tabs stay; U+FFFD stands for each other character that is not plain (text.h), and
 * for each sequence that is not UTF-8. */
void html_text(FILE *out, const char *text, size_t length);

/* Write markup as printf() does; what a %s stands for is written as html_text() does. Takes %s, %c,
 * %u, %x, %zu, %f and %g, without '*'. */
void html_print(FILE *out, const char *markup, ...) __attribute__((format(printf, 2, 3)));

#endif
