/* rendezvous.h: how the processes of one run find each other: rank 0 listens, the others call it.
 */
#ifndef RENDEZVOUS_H
#define RENDEZVOUS_H

#include "base/launch.h"

/* Another process, and two connections with it: one that says that it lives (see heartbeat.h), one
 * for all else. */
struct peer {
    unsigned rank;
    int life, data;
};

/* Whom this process is connected with: rank 0 with all others, by rank; these with rank 0. */
struct rendezvous {
    struct peer *peer;
    unsigned peers;
};

/* Meet. Ends the process if not all have come after `seconds`. Anybody may call rank 0: who does
 * not say what a rank of this run would say is hung up on. */
void rendezvous_open(struct rendezvous *rendezvous, const struct launch *launch, unsigned seconds);
void rendezvous_close(struct rendezvous *rendezvous);

/* Seconds that have passed since some time in the past. */
double monotonic_seconds(void);

#endif
