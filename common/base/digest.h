/* digest.h: SHA-256, through libcrypto; or XXH3-128 (https://xxhash.com), through libxxhash, which
 * runs at memory speed and detects accidental damage, not tampering. */
#ifndef DIGEST_H
#define DIGEST_H

#include <stddef.h>

struct digest;

enum digest_kind { DIGEST_SHA256, DIGEST_XXH128 };

/* Begin a digest, of SHA-256 or of some kind; add bytes, any number of times; end it, which writes
 * its hexadecimal digits, digest_digits() of them, and a NUL to hex (DIGEST_TEXT bytes), frees the
 * digest and returns hex. */
enum { DIGEST_TEXT = 65 };
struct digest *digest_new(void);
struct digest *digest_new_of(enum digest_kind kind);
void digest_add(struct digest *digest, const void *data, size_t size);
char *digest_end(struct digest *digest, char *hex);
size_t digest_digits(enum digest_kind kind);

#endif
