/* meet.h: how the processes of one run find each other: rank 0 listens, the others call it. */
#ifndef MEET_H
#define MEET_H

#include "launch.h"

/* Another process, and two connections with it: one that says that it lives (see watch.h), one for
 * all else. */
struct peer {
    unsigned rank;
    int life, data;
};

/* Whom this process is connected with: rank 0 with all others, by rank; these with rank 0. */
struct meeting {
    struct peer *peer;
    unsigned peers;
};

/* Meet. Ends the process if not all have come after `seconds`. Anybody may call rank 0: who does
 * not say what a rank of this run would say is hung up on. */
void meet(struct meeting *meeting, const struct launch *launch, unsigned seconds);
void meeting_end(struct meeting *meeting);

/* Seconds that have passed since some time in the past. */
double meet_clock(void);

#endif
