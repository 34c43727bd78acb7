#include "base/message.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/die.h"

enum { PIECE = 1 << 16 };

static bool send_all(int fd, const void *data, size_t size)
{
    for (const char *p = data; size;) {
        ssize_t sent = send(fd, p, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return false;
        p += sent;
        size -= (size_t)sent;
    }
    return true;
}

static bool receive_all(int fd, void *data, size_t size)
{
    for (char *p = data; size;) {
        ssize_t got = recv(fd, p, size, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        p += got;
        size -= (size_t)got;
    }
    return true;
}

bool message_send(int fd, const void *data, size_t size)
{
    uint64_t announced = size;
    return send_all(fd, &announced, sizeof announced) && send_all(fd, data, size);
}

enum message message_receive(int fd, void *data, size_t size)
{
    uint64_t announced;
    if (!receive_all(fd, &announced, sizeof announced))
        return MESSAGE_LOST;
    if (announced != size)
        return MESSAGE_OTHER;
    return receive_all(fd, data, size) ? MESSAGE_WHOLE : MESSAGE_LOST;
}

void *message_receive_any(int fd, size_t *size)
{
    uint64_t announced;
    if (!receive_all(fd, &announced, sizeof announced))
        return NULL;
    char *data = xgrow(NULL, 1, 1);
    for (*size = 0; *size < announced;) {
        size_t most = *size < PIECE ? PIECE : *size;
        size_t piece = announced - *size < most ? (size_t)(announced - *size) : most;
        data = xgrow(data, *size + piece, 1);
        if (!receive_all(fd, data + *size, piece)) {
            free(data);
            return NULL;
        }
        *size += piece;
    }
    return data;
}

void signs_take(struct signs *signs, const char *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (signs->ending && signs->length < sizeof signs->reason - 1)
            signs->reason[signs->length++] = bytes[i];
        signs->done |= !signs->ending && bytes[i] == BYTE_DONE;
        signs->ending |= bytes[i] == BYTE_END;
    }
}
