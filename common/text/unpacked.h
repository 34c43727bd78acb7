/* unpacked.h: a file of text as its bytes, whether it lies there as it is or packed by gzip or
 * zstd; its contents tell which, not its name. */
#ifndef UNPACKED_H
#define UNPACKED_H

#include <stddef.h>
#include <stdint.h>

struct unpacked;

/* Open a file (NULL: standard input), which the caller ends with unpacked_close(). What cannot be
 * read, is damaged, or holds no text but a table of another kind (Parquet and the like) ends the
 * process, here or while it is read, with the file's name and what to do. */
struct unpacked *unpacked_open(const char *path);
void unpacked_close(struct unpacked *u);

/* The next `room` bytes to `data`; fewer only at the end of the file. Returns how many. */
size_t unpacked_read(struct unpacked *u, char *data, size_t room);

/* For messages: the file's name; how many bytes of the file itself were read so far. */
const char *unpacked_name(const struct unpacked *u);
uint64_t unpacked_bytes(const struct unpacked *u);

#endif
