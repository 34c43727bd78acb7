/* buffer.h: memory that is used again and again, and grows to the largest size that was wanted. */
#ifndef BUFFER_H
#define BUFFER_H

#include <stddef.h>

/* All 0 before its first use. The caller frees data with free() in the end. */
struct buffer {
    void *data;
    size_t room; /* bytes */
};

/* Room for `size` bytes, at buffer->data; what was in it is lost if it moves. */
void *buffer_room(struct buffer *buffer, size_t size);

#endif
