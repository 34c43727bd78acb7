/* proof.h: how the processes of a run know each other, before they trust what comes.
 *
 * With $SEEKPIPE_RANKS_SECRET, the same text for all of them, each side proves to the other that it
 * knows it: by an HMAC-SHA256 of both sides' random numbers and of what the connecting one says of
 * itself. The secret itself is never sent. Without it, on one machine, each side looks whose the
 * other's socket is: this user's, or nobody of this run's. Between machines, there is always a
 * secret: rank 0 makes one if it was given none. What is sent later is neither hidden nor
 * protected. */
#ifndef PROOF_H
#define PROOF_H

#include <stdbool.h>
#include <stddef.h>

enum { PROOF_NONCE = 16, PROOF_SIZE = 32, PROOF_SECRET_TEXT = 2 * PROOF_NONCE + 1 };

/* True if $SEEKPIPE_RANKS_SECRET is set, and not empty. */
bool proof_has_secret(void);

/* Make a secret, set $SEEKPIPE_RANKS_SECRET of this process to it, and write it to `text`, as
 * hexadecimal digits. Call it before other threads start. */
void proof_new_secret(char text[PROOF_SECRET_TEXT]);

/* Random bytes. */
void proof_nonce(unsigned char nonce[PROOF_NONCE]);

/* What proves that `side` ('0': rank 0; '1': another) knows the secret, of `size` bytes that both
 * sides have. */
void proof_make(char side, const void *of, size_t size, unsigned char proof[PROOF_SIZE]);

/* Compare two in a time that does not depend on what they are. */
bool proof_equal(const unsigned char a[PROOF_SIZE], const unsigned char b[PROOF_SIZE]);

/* True if the other end of a TCP connection over 127.0.0.1 is a socket of this user's. */
bool proof_same_user(int fd);

#endif
