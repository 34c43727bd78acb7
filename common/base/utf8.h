/* utf8.h: text in UTF-8, as Unicode defines it: shortest forms, no surrogates, up to U+10FFFF. */
#ifndef UTF8_H
#define UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The length in bytes of the character at the start of `text`, of which `left` > 0 bytes remain.
 * *valid says whether it is valid. If not, the length is that of the ill-formed sequence to skip (1
 * to 3 bytes: the longest beginning of a character). */
size_t utf8_step(const char *text, size_t left, bool *valid);

/* The number of bytes before the first invalid one: `length` if all are valid. */
size_t utf8_valid(const char *text, size_t length);

/* The code point at the start of valid text. */
uint32_t utf8_decode(const char *text);

/* Encode a code point: writes 1 to 4 bytes and returns how many. */
size_t utf8_put(uint32_t code, char *out);

/* A NUL-terminated copy with every ill-formed sequence replaced by U+FFFD, in *out; the caller
 * frees it. Returns its length. */
size_t utf8_repair(const char *text, size_t length, char **out);

#endif
