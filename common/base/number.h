/* number.h: decimal numbers, as command lines, tables and names have them. */
#ifndef NUMBER_H
#define NUMBER_H

#include <stdbool.h>
#include <stdint.h>

/* The number that *text begins with, and *text moves behind its digits: nothing but digits, no
 * sign, no space. False, with *text as it was, if there is none or it is larger than max. */
bool number_parse(const char **text, uint64_t max, uint64_t *number);

/* strcmp that orders runs of digits by their number. */
int natural_compare(const char *a, const char *b);

#endif
