/* zero.h: bytes that are all 0, as where nothing was ever written. */
#ifndef ZERO_H
#define ZERO_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* True if there are bytes, and all of them are 0. */
static inline bool zeros_only(const void *data, size_t size)
{
    const char *byte = data;
    return size && !byte[0] && !memcmp(byte, byte + 1, size - 1);
}

#endif
