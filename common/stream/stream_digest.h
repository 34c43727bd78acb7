/* stream_digest.h: the digest in a stream's trailer, by which damage to inline bytes is found.
 *
 * The member `digest` of .end is the XXH3-64 (https://xxhash.com), in 16 hexadecimal digits, of all
 * entries in order: each one's name and a NUL, and its bytes; of a symbolic link its text and a
 * NUL. The last is .end itself, with zeros for these digits. tar has a checksum of its own for an
 * entry's header, but none for names over 100 bytes, and none for data.
 *
 * A trailer may lack it: a stream that tar(1) was used to make. */
#ifndef STREAM_DIGEST_H
#define STREAM_DIGEST_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/checksum.h"

/* Add an entry's name, and the text of a symbolic link (NULL: it is a regular file, whose bytes the
 * caller adds). */
void stream_digest_entry(struct checksum *sum, const char *name, const char *link);

/* The text of .end, which the caller frees: `end`, which gets the member. Ends the checksum. */
char *stream_digest_seal(struct checksum *sum, json_t *end);

/* True if `data`, the text of .end, of `size` bytes and followed by a NUL, has the right digest or
 * none; `end` is what it was parsed to. Changes the digits in `data`. Ends the checksum. */
bool stream_digest_holds(struct checksum *sum, const json_t *end, char *data, size_t size);

#endif
