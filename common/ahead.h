/* ahead.h: tensors read ahead, by threads of their own, while the program computes: into memory, or
 * right onto the device. What comes by reference is read in several pieces at a time. */
#ifndef AHEAD_H
#define AHEAD_H

#include "device.h"
#include "gather.h"
#include "ts.h"

struct ahead;

/* What to read, and how. The arrays are by line of the table and must live until ahead_end(). */
struct ahead_plan {
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
 * copy of its first bytes in memory to be freed, at most AHEAD_HEAD of them; NULL where they are
 * unseen, or other ranks had read them. */
enum { AHEAD_HEAD = 4096 };
struct arrived {
    void *data;
    struct mat bytes;
    void *head;
};

/* Read on in `in` from where it is. Until ahead_end(), nobody else reads from it. Progress is shown
 * if the stream's was to be: of what was taken, of all that is wanted. */
struct ahead *ahead_begin(struct ts_in *in, const struct ahead_plan *plan);

/* The next tensor's line of the table, and its bytes; NULL after the last one. ahead_peek() is the
 * line that ahead_take() will give next, without taking it. */
const struct tensor *ahead_peek(struct ahead *ahead);
const struct tensor *ahead_take(struct ahead *ahead, struct arrived *to);

/* Seconds so far in which something was being read, and in which somebody waited for it in the
 * above. */
struct ahead_time {
    double reading, waiting;
};
struct ahead_time ahead_time(struct ahead *ahead);

/* Stop, wait for the threads, and free what was not taken. `in` may be read on, or closed. */
void ahead_end(struct ahead *ahead);

#endif
