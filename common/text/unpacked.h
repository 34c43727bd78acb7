/* unpacked.h: a file's bytes, decompressed if gzip or zstd compressed it. Its content decides that,
 * not its name. */
#ifndef UNPACKED_H
#define UNPACKED_H

#include <stddef.h>
#include <stdint.h>

struct unpacked;

/* Open a file (NULL: standard input). The caller closes it with unpacked_close(). Read errors,
 * damaged data and known formats other than text (Parquet and others) end the process, here or in
 * unpacked_read(), with the file's name and what to do. */
struct unpacked *unpacked_open(const char *path);
void unpacked_close(struct unpacked *u);

/* Read up to `room` bytes to `data`; returns how many, fewer than `room` only at the end. */
size_t unpacked_read(struct unpacked *u, char *data, size_t room);

/* For messages: the file's name, and the bytes read of the file itself so far. */
const char *unpacked_name(const struct unpacked *u);
uint64_t unpacked_bytes(const struct unpacked *u);

#endif
