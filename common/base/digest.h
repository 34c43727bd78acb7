/* digest.h: SHA-256, through libcrypto. */
#ifndef DIGEST_H
#define DIGEST_H

#include <stddef.h>

struct digest;

/* Begin a digest; add bytes, any number of times; end it, which writes 64 hexadecimal digits and a
 * NUL to hex (DIGEST_TEXT bytes), frees the digest and returns hex. */
enum { DIGEST_TEXT = 65 };
struct digest *digest_new(void);
void digest_add(struct digest *digest, const void *data, size_t size);
char *digest_end(struct digest *digest, char *hex);

#endif
