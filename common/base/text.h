/* text.h: small string functions. */
#ifndef TEXT_H
#define TEXT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

bool starts_with(const char *text, const char *prefix);
bool ends_with(const char *text, const char *suffix);

/* Text from outside goes to people through these, and JSON through json_print(): a terminal
 * obeys control characters, and shows what follows others in another order or not at all. */

/* True for a code point that a terminal shows as itself: no control character (C0, DEL, C1), line
 * or paragraph separator, override of the direction of text, or invisible mark. */
bool text_is_plain(uint32_t code);

/* Make text fit into one line of a message, in place: '?' for each character that is not plain, and
 * for each byte that is not of UTF-8. Returns text. */
char *printable(char *text);

/* Print a line, or a part of one, whose values may be from outside: all of it is made printable()
 * but a newline at its end. */
void text_print(FILE *out, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Print text of one line, printable(), as lines of at most TEXT_WIDTH columns where its words fit:
 * it goes on at column `column`, and further lines begin at `indent`. Ends with a newline. */
enum { TEXT_WIDTH = 80 };
void text_wrap(FILE *out, unsigned column, unsigned indent, const char *text);

/* Write text of any number of lines: as it is, but to a terminal with '?' as printable() has it;
 * newlines and tabs stay. */
void text_write(FILE *out, const char *text, size_t length);

/* True if printable() would not change the text. */
bool text_is_line(const char *text);

/* Write printable ASCII text as a JSON string: only quotes and backslashes need escaping. */
void text_put_quoted(const char *text, FILE *out);

/* The first `most` + 1 bytes of a file, or all if there are fewer, and a NUL; *size: how many. The
 * caller frees them, and refuses more than `most`. Ends the process if it cannot be read. */
char *text_of_file(const char *path, size_t most, size_t *size);

#endif
