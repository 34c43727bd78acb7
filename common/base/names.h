/* names.h: numbers for names, in the order in which they come: 0, 1, … However many there are, and
 * whoever chose them, a name is found in a few steps. */
#ifndef NAMES_H
#define NAMES_H

#include <stddef.h>
#include <stdint.h>

struct names;

struct names *names_new(void);
void names_free(struct names *names); /* NULL is no error */

/* The number of the name `text`, which is copied; a new one gets the next number. */
size_t names_add(struct names *names, const char *text);

/* The number of the name that is the first `length` bytes of text, or -1. */
int64_t names_find(const struct names *names, const char *text, size_t length);

#endif
