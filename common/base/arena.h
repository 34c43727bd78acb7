/* arena.h: memory for many small strings that are freed together. */
#ifndef ARENA_H
#define ARENA_H

#include <stddef.h>

struct arena *arena_new(void);
void arena_free(struct arena *arena);

/* A NUL-terminated copy of `length` bytes of text, owned by the arena. */
char *arena_copy(struct arena *arena, const char *text, size_t length);

#endif
