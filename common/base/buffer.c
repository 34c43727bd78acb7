#include "base/buffer.h"

#include <stdlib.h>

#include "base/die.h"

void *buffer_room(struct buffer *buffer, size_t size)
{
    if (!buffer->data || size > buffer->room) { /* never NULL, which memcpy() may not take */
        free(buffer->data); /* not realloc(), which would copy it */
        buffer->data = xgrow(NULL, size, 1);
        buffer->room = size;
    }
    return buffer->data;
}
