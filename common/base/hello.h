/* hello.h: the messages by which rank 0, and a process that connects to it, know each other for
 * ranks of one run (proof.h), apart from the sockets that carry them:
 *
 *     the other    a hello: which rank of how many it is, and which of its two connections this is
 *     rank 0       an answer: a proof of what both have seen
 *     the other    its own proof of that */
#ifndef HELLO_H
#define HELLO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/proof.h"

/* Of the two connections of a rank. */
enum channel { CHANNEL_LIFE, CHANNEL_DATA };

/* As they are sent: numbers in network byte order, no padding. */
struct hello {
    char magic[8];
    uint32_t count, rank, channel;
    unsigned char nonce[PROOF_NONCE];
};
struct answer {
    unsigned char nonce[PROOF_NONCE], proof[PROOF_SIZE];
};

/* What both have seen when they prove it: the hello, and rank 0's random bytes. */
struct seen {
    struct hello hello;
    unsigned char nonce[PROOF_NONCE];
};

/* ---- rank 0 ---- */

/* What one that connected has sent so far: all zeros before. */
struct heard {
    struct seen seen;
    unsigned char proof[PROOF_SIZE];
    size_t size; /* bytes of hello and proof */
};

/* Where its next bytes go, and in *room how many it may send until it is answered; 0 after all. */
void *hello_room(struct heard *heard, size_t *room);

/* `size` bytes, at most that many, have come there. */
enum hello_state {
    HELLO_PART,     /* more are to come */
    HELLO_WHOLE,    /* the hello is there: hello_answer() */
    HELLO_ALL,      /* and so is the proof: hello_is_proven() */
    HELLO_STRANGER, /* it is no hello */
};
enum hello_state hello_take(struct heard *heard, size_t size);

void hello_answer(struct heard *heard, struct answer *answer);
bool hello_is_proven(const struct heard *heard);

/* True if a hello is that of a rank from 1 on of a run of `count`: *rank, and in *channel which of
 * its connections. */
bool hello_is_of(const struct hello *hello, unsigned count, unsigned *rank, enum channel *channel);

/* ---- the others ---- */

/* A hello with random bytes of its own. */
void hello_make(struct hello *hello, unsigned count, unsigned rank, enum channel channel);

/* True if an answer to it proves that it is rank 0's; `proof` is then what to send. */
bool hello_is_answered(const struct hello *hello, const struct answer *answer,
                       unsigned char proof[PROOF_SIZE]);

#endif
