/* utf8.h: text in UTF-8, as Unicode defines it: shortest forms, no surrogates, up to U+10FFFF. */
#ifndef UTF8_H
#define UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The bytes of the character at the start of `text`, of which `left` > 0 bytes are there. *valid
 * says whether it is one; if not, the bytes that a reader takes for one broken character (1 to 3:
 * as much as begins a character). */
size_t utf8_step(const char *text, size_t left, bool *valid);

/* How many bytes at the start of text are valid: `length` if all are. */
size_t utf8_valid(const char *text, size_t length);

/* The code point at the start of valid text. */
uint32_t utf8_decode(const char *text);

/* Code point to bytes: writes 1 to 4, returns how many. */
size_t utf8_put(uint32_t code, char *out);

/* A copy with every broken character replaced by U+FFFD. The caller frees *out, which has a 0
 * behind. Returns its length. */
size_t utf8_repair(const char *text, size_t length, char **out);

#endif
