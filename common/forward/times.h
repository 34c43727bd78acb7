/* times.h: where a run's time goes: reading weights, uploading them to the device, exchanging them
 * with other ranks, waiting for them, or computing. */
#ifndef TIMES_H
#define TIMES_H

#include "forward/device.h"
#include "forward/gather.h"
#include "forward/prefetch.h"

/* Seconds; all zeros at the beginning. */
struct times {
    double all, read, upload, wait; /* wait: for weights */
    double exchange;                /* see gather.h; 0 if ranks share no reading */
    double products;                /* of matrices; 0 if the device does not tell */
};

/* The times so far of a run that began at now() = begin; embedding: seconds spent on reading
 * embeddings; gather: as in prefetch.h, or NULL. */
struct times times_so_far(double begin, struct prefetch *prefetch, double embedding,
                          struct device *d, struct gather *gather);

/* Print the times since `from`, and return them. */
struct times times_tell(const char *what, struct times now, struct times from);

/* Print a whole run's times, which resource limited it, and the part that products had in it. */
void times_tell_bound(struct times all);

#endif
