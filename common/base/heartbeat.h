/* heartbeat.h: a thread that ends this process when a peer exits or stays silent too long.
 *
 * From when they are connected, processes regularly send a byte to say that they are alive. A peer
 * is lost if its connection closes before it said goodbye, or if it is silent too long; a lost peer
 * ends this process. Rank 0 first tells the others why it ends. */
#ifndef HEARTBEAT_H
#define HEARTBEAT_H

#include "base/rendezvous.h"

struct heartbeat;

/* Start the thread, which begins with each peer once it is connected. `silence`: seconds after
 * which a silent peer is lost. `rendezvous` must outlive the heartbeat; heartbeat_end() frees it.
 */
struct heartbeat *heartbeat_begin(const struct rendezvous *rendezvous, unsigned silence);

/* This process begins to read bytes of a tensor. If that takes longer than `silence`, the process
 * ends. NULL says that the read is done; the name must live until then. */
void heartbeat_reading(struct heartbeat *heartbeat, const char *tensor);

/* End this process, and the others with it, with this message. */
_Noreturn void heartbeat_give_up(struct heartbeat *heartbeat, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The connection to a peer broke. Give the thread time to end the process with the reason; if it
 * does not, end it here. */
_Noreturn void heartbeat_lost(struct heartbeat *heartbeat, unsigned rank);

/* Say goodbye to the peers, stop the thread and free the heartbeat. */
void heartbeat_end(struct heartbeat *heartbeat);

#endif
