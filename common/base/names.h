/* names.h: numbers the names it is given: 0, 1, … in the order they are added. Lookup takes
 * logarithmic time, whatever the names. */
#ifndef NAMES_H
#define NAMES_H

#include <stddef.h>
#include <stdint.h>

struct names;

struct names *names_new(void);
void names_free(struct names *names); /* NULL is allowed */

/* The number of `text`. A new name is copied and gets the next number. */
size_t names_add(struct names *names, const char *text);

/* The number of the name that equals the first `length` bytes of text, or -1. */
int64_t names_find(const struct names *names, const char *text, size_t length);

#endif
