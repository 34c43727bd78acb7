/* placeholder.h: what downloads and clones leave in place of a file. */
#ifndef PLACEHOLDER_H
#define PLACEHOLDER_H

#include <stddef.h>

/* How many bytes of a file are enough to tell. */
enum { PLACEHOLDER_HEAD = 256 };

/* What a file is instead of itself, judged by its first `size` bytes (all of them, or
 * PLACEHOLDER_HEAD or more), and what to do: "is a Git LFS pointer…". Nothing, zeros, a pointer, a
 * page, a server's answer. NULL if it is none of these. */
const char *placeholder(const char *head, size_t size);

#endif
