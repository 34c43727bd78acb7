/* message.h: what the two connections between ranks carry once they know each other (hello.h): on
 * one, messages, each its size as 8 bytes and then its bytes; on the other, signs of life. */
#ifndef MESSAGE_H
#define MESSAGE_H

#include <stdbool.h>
#include <stddef.h>

/* Send one; false if the connection broke. */
bool message_send(int fd, const void *data, size_t size);

/* Receive one of `size` bytes. OTHER: it has another size, and is not read. */
enum message { MESSAGE_WHOLE, MESSAGE_OTHER, MESSAGE_LOST };
enum message message_receive(int fd, void *data, size_t size);

/* Receive one of any size, which the caller frees; NULL if the connection broke. Memory grows with
 * the bytes that arrive. */
void *message_receive_any(int fd, size_t *size);

/* The bytes of the other connection. After BYTE_END comes the reason as text, up to the end. */
enum { BYTE_LIVES = 'l', BYTE_DONE = 'd', BYTE_END = 'e', REASON_MOST = 512 };

/* What a peer has said there: all zeros before. */
struct signs {
    bool done, ending;        /* it said goodbye; it ends the run */
    char reason[REASON_MOST]; /* why, with a NUL */
    size_t length;
};

void signs_take(struct signs *signs, const char *bytes, size_t count);

#endif
