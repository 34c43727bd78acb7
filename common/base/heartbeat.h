/* heartbeat.h: a thread that sees to it that no process of a run waits for one that is gone.
 *
 * Connected processes say every now and then that they live: a byte. One whose connection ends
 * before it said good-bye, or that is silent for too long, is lost, and that ends this process.
 * What rank 0 ends for, it tells the others first. */
#ifndef HEARTBEAT_H
#define HEARTBEAT_H

#include "base/rendezvous.h"

struct heartbeat;

/* Begin; `silence` is how many seconds are too long. The meeting must last as long. */
struct heartbeat *heartbeat_begin(const struct rendezvous *rendezvous, unsigned silence);

/* This process begins to read some bytes of a tensor, which counts as lost, too, if it takes as
 * long as a silence; the name must live until NULL tells that it is done. */
void heartbeat_reading(struct heartbeat *heartbeat, const char *tensor);

/* End this process, and the others with it, for what the text says. */
_Noreturn void heartbeat_give_up(struct heartbeat *heartbeat, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The connection with a peer broke: leave it to the thread to say why, which ends the process. */
_Noreturn void heartbeat_lost(struct heartbeat *heartbeat, unsigned rank);

/* Say good-bye, and end. */
void heartbeat_end(struct heartbeat *heartbeat);

#endif
