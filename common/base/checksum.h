/* checksum.h: XXH3-64 (https://xxhash.com), through libxxhash: runs at memory speed and detects
 * accidental damage, not tampering. */
#ifndef CHECKSUM_H
#define CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

struct checksum;

/* Begin a checksum; add bytes, any number of times; end it, which returns the sum and frees it. */
struct checksum *checksum_new(void);
void checksum_add(struct checksum *checksum, const void *data, size_t size);
uint64_t checksum_end(struct checksum *checksum);

/* The checksum of `size` zero bytes, all of which are hashed. */
uint64_t checksum_of_zeros(uint64_t size);

#endif
