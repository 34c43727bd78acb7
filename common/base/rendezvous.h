/* rendezvous.h: how the processes of one run connect: rank 0 listens, the others connect to it. */
#ifndef RENDEZVOUS_H
#define RENDEZVOUS_H

#include "base/launch.h"

/* Another process and the two connections to it, -1 until they are there: one for heartbeats (see
 * heartbeat.h, whose thread reads `life`), one for data. */
struct peer {
    unsigned rank;
    _Atomic int life;
    int data;
};

/* The processes that this one is connected to: for rank 0 all others, in the order of ranks; for
 * the others rank 0. */
struct rendezvous {
    struct peer *peer;
    unsigned peers;
};

/* Name the peers, none of them connected. rendezvous_close() closes the connections and frees the
 * peers. */
void rendezvous_begin(struct rendezvous *rendezvous, const struct launch *launch);
void rendezvous_close(struct rendezvous *rendezvous);

/* Connect. Ends the process if not all ranks have connected within `seconds`, or if rank 0's
 * machine takes connections for `silence` seconds that rank 0 does not answer. Connections
 * that do not prove within some seconds that they are of this run (proof.h) are closed, and their
 * number is said; none waits for another. Returns a peer whose connection broke meanwhile, or
 * NULL: all are connected. */
const struct peer *rendezvous_meet(struct rendezvous *rendezvous, const struct launch *launch,
                                   unsigned seconds, unsigned silence);

/* Seconds on a monotonic clock. */
double monotonic_seconds(void);

#endif
