/* times.h: where a run's time goes: to reading weights, to getting them to the device, to waiting
 * for them, or to computing. */
#ifndef TIMES_H
#define TIMES_H

#include "forward/device.h"
#include "forward/prefetch.h"

/* Seconds; all zeros at the beginning. */
struct times {
    double all, read, upload, wait; /* wait: for weights */
};

/* Those of a run that began at that now(), so far; embedding: what of them went to reading
 * embeddings. */
struct times times_so_far(double begin, struct prefetch *prefetch, double embedding,
                          struct device *d);

/* Warn of those after `from`, and return them. */
struct times times_tell(const char *what, struct times now, struct times from);

/* Warn of a whole run's, and of what more of would have made it faster. */
void times_tell_bound(struct times all);

#endif
