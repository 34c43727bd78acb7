/* number.h: decimal numbers in command lines, tables and names. */
#ifndef NUMBER_H
#define NUMBER_H

#include <stdbool.h>
#include <stdint.h>

/* Parse the digits at *text and move *text past them: no sign, no spaces. Returns false, with *text
 * unchanged, if there are no digits or the number is larger than max. */
bool number_parse(const char **text, uint64_t max, uint64_t *number);

/* Write the digits of a number at p, at most NUMBER_TEXT - 1 and no NUL; returns their end.
 * printf() takes ten times as long, which shows with 300,000 tensors. */
enum { NUMBER_TEXT = 21 };
char *number_put(char *p, uint64_t number);

/* As strcmp(), but runs of digits are compared as numbers. */
int natural_compare(const char *a, const char *b);

#endif
