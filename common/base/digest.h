/* digest.h: SHA-256, through libcrypto. */
#ifndef DIGEST_H
#define DIGEST_H

#include <stddef.h>

struct digest;

/* Begin a digest; add bytes, any number of times; end it: 64 hexadecimal digits and a 0 into hex
 * (DIGEST_TEXT bytes), returns hex. Ending frees it. */
enum { DIGEST_TEXT = 65 };
struct digest *digest_new(void);
void digest_add(struct digest *digest, const void *data, size_t size);
char *digest_end(struct digest *digest, char *hex);

#endif
