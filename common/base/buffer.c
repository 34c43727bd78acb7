#include "base/buffer.h"

#include <stdlib.h>

#include "base/die.h"

void *buffer_room(struct buffer *buffer, size_t size)
{
    if (size > buffer->room) {
        free(buffer->data); /* not realloc(), which would copy it */
        buffer->data = xgrow(NULL, size, 1);
        buffer->room = size;
    }
    return buffer->data;
}
