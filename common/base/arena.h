/* arena.h: memory for many small strings that live and die together. */
#ifndef ARENA_H
#define ARENA_H

#include <stddef.h>

struct arena *arena_new(void);
void arena_free(struct arena *arena);

/* A copy of length bytes of text with a 0 behind, valid until arena_free(). */
char *arena_copy(struct arena *arena, const char *text, size_t length);

#endif
