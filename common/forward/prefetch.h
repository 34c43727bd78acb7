/* prefetch.h: threads read tensors ahead, into memory or directly onto the device, while the
 * program computes. A tensor given by reference is read in several pieces at a time. */
#ifndef PREFETCH_H
#define PREFETCH_H

#include "forward/device.h"
#include "forward/gather.h"
#include "stream/ts.h"

struct prefetch;

/* What to read, and how. The arrays are by line of the table and must live until prefetch_end(). */
struct prefetch_plan {
    const bool *wanted;
    const bool *on_device; /* those wanted as bytes on the device; or NULL */
    const bool *unseen;    /* those of them whose bytes only the device needs; or NULL */
    const bool *by_rows;   /* those of which rows are read later, not all bytes now; or NULL */
    struct device *device; /* for those on the device */
    /* Called with the bytes of the others on the device as they are read, from several threads; or
     * NULL. */
    void (*look)(void *context, uint32_t line, uint64_t at, const void *bytes, size_t size);
    void *context;
    uint64_t budget;       /* bytes that may wait to be taken; one tensor always may, and one
                              gather->batch where ranks share the reading */
    struct ranks *ranks;   /* watched for failures while reads wait; or NULL */
    struct gather *gather; /* if set, this rank reads only its pieces of the large tensors that are
                              given by reference and go to the device; or NULL */
};

/* A tensor's rows to read later, which remain the prefetch's, until prefetch_end(). Or its bytes,
 * owned by the caller: `data`, or on the device `bytes`, a matrix of U8, with
 * `head`, a copy of at most PREFETCH_HEAD first bytes (NULL if unseen). The caller frees data and
 * head. */
enum { PREFETCH_HEAD = 4096 };
struct prefetched {
    struct ts_held *rows;
    void *data;
    struct mat bytes;
    void *head;
};

/* Read on from the current position of `in`. Until prefetch_end(), nobody else may read from it. If
 * the stream shows progress, it becomes that of the tensors taken out of those wanted. */
struct prefetch *prefetch_begin(struct ts_in *in, const struct prefetch_plan *plan);

/* prefetch_take() gives the next tensor's line of the table and its bytes; NULL after the last one.
 * prefetch_peek() gives the same line without taking the tensor. */
const struct tensor *prefetch_peek(struct prefetch *prefetch);
const struct tensor *prefetch_take(struct prefetch *prefetch, struct prefetched *to);

/* Seconds so far spent reading, and spent waiting in the two functions above. */
struct prefetch_time {
    double reading, waiting;
};
struct prefetch_time prefetch_time(struct prefetch *prefetch);

/* Stop, wait for the threads, and free what was not taken. `in` may be read further, or closed. */
void prefetch_end(struct prefetch *prefetch);

#endif
