/* buffer.h: memory that is reused and grows to the largest size requested. */
#ifndef BUFFER_H
#define BUFFER_H

#include <stddef.h>

/* All 0 before its first use. The caller frees `data` with free(). */
struct buffer {
    void *data;
    size_t room; /* bytes */
};

/* Make buffer->data hold at least `size` bytes, and return it. If it grows, its content is lost. */
void *buffer_room(struct buffer *buffer, size_t size);

#endif
