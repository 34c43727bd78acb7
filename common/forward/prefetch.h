/* prefetch.h: tensors read ahead, by threads of their own, while the program computes: into memory,
 * or right onto the device. What comes by reference is read in several pieces at a time. */
#ifndef PREFETCH_H
#define PREFETCH_H

#include "forward/device.h"
#include "forward/gather.h"
#include "stream/ts.h"

struct prefetch;

/* What to read, and how. The arrays are by line of the table and must live until prefetch_end(). */
struct prefetch_plan {
    const bool *wanted;
    const bool *on_device; /* of those wanted, which are to come as bytes on the device; or NULL */
    const bool *unseen;    /* of these, whose bytes only the device has to see; or NULL */
    struct device *device; /* for them */
    /* Called with the bytes of others on the device as they come, from several threads; or NULL. */
    void (*look)(void *context, uint32_t line, uint64_t at, const void *bytes, size_t size);
    void *context;
    uint64_t budget;       /* bytes that may wait to be taken; but one tensor always may */
    struct ranks *ranks;   /* see to it that reads do not hang; or NULL */
    struct gather *gather; /* with it, only this rank's piece is read of large tensors that come by
                              reference and go to the device; or NULL */
};

/* A tensor's bytes, which are the caller's then: in memory to be freed, or a matrix of U8 with a
 * copy of its first bytes in memory to be freed, at most PREFETCH_HEAD of them; NULL where they are
 * unseen, or other ranks had read them. */
enum { PREFETCH_HEAD = 4096 };
struct prefetched {
    void *data;
    struct mat bytes;
    void *head;
};

/* Read on in `in` from where it is. Until prefetch_end(), nobody else reads from it. Progress is
 * shown if the stream's was to be: of what was taken, of all that is wanted. */
struct prefetch *prefetch_begin(struct ts_in *in, const struct prefetch_plan *plan);

/* The next tensor's line of the table, and its bytes; NULL after the last one. prefetch_peek() is
 * the line that prefetch_take() will give next, without taking it. */
const struct tensor *prefetch_peek(struct prefetch *prefetch);
const struct tensor *prefetch_take(struct prefetch *prefetch, struct prefetched *to);

/* Seconds so far in which something was being read, and in which somebody waited for it in the
 * above. */
struct prefetch_time {
    double reading, waiting;
};
struct prefetch_time prefetch_time(struct prefetch *prefetch);

/* Stop, wait for the threads, and free what was not taken. `in` may be read on, or closed. */
void prefetch_end(struct prefetch *prefetch);

#endif
