#include "base/arena.h"

#include <stdlib.h>
#include <string.h>

#include "base/die.h"

enum { CHUNK = 1 << 18 };

struct chunk {
    struct chunk *next;
    size_t used, size;
    char data[];
};

struct arena {
    struct chunk *chunk; /* the one being filled */
};

struct arena *arena_new(void)
{
    return xalloc(1, sizeof(struct arena));
}

void arena_free(struct arena *arena)
{
    if (!arena)
        return;
    while (arena->chunk) {
        struct chunk *next = arena->chunk->next;
        free(arena->chunk);
        arena->chunk = next;
    }
    free(arena);
}

char *arena_copy(struct arena *arena, const char *text, size_t length)
{
    struct chunk *chunk = arena->chunk;
    if (!chunk || chunk->size - chunk->used <= length) {
        size_t size = length + 1 > CHUNK ? length + 1 : CHUNK;
        chunk = xgrow(NULL, sizeof *chunk + size, 1);
        *chunk = (struct chunk){.next = arena->chunk, .size = size};
        arena->chunk = chunk;
    }
    char *copy = chunk->data + chunk->used;
    memcpy(copy, text, length);
    copy[length] = 0;
    chunk->used += length + 1;
    return copy;
}
