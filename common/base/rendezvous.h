/* rendezvous.h: how the processes of one run connect: rank 0 listens, the others connect to it. */
#ifndef RENDEZVOUS_H
#define RENDEZVOUS_H

#include "base/launch.h"

/* Another process and the two connections to it: one for heartbeats (see heartbeat.h), one for
 * data. */
struct peer {
    unsigned rank;
    int life, data;
};

/* The processes that this one is connected to: for rank 0 all others, in the order of ranks; for
 * the others rank 0. */
struct rendezvous {
    struct peer *peer;
    unsigned peers;
};

/* Connect. Ends the process if not all ranks have connected within `seconds`. Connections
 * that do not prove within some seconds that they are of this run (proof.h) are closed, and their
 * number is said; none waits for another. rendezvous_close() closes the connections and
 * frees the peers. */
void rendezvous_open(struct rendezvous *rendezvous, const struct launch *launch, unsigned seconds);
void rendezvous_close(struct rendezvous *rendezvous);

/* Seconds on a monotonic clock. */
double monotonic_seconds(void);

#endif
