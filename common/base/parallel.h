/* parallel.h: loops whose iterations several threads share.
 *
 * Threads take pieces of a loop when they are free, so one that the system has descheduled holds up
 * at most the piece that it is in, and one that comes too late takes none. Those that wait spin for
 * some microseconds and then sleep: they leave the processor to others. Which thread does which
 * iteration is not determined, so results must not depend on it.
 *
 *     struct parallel *threads = parallel_new(parallel_processors());
 *     parallel_for(threads, rows, 16, scale_rows, &(struct scaling){x, factor});
 *     parallel_free(threads); */
#ifndef PARALLEL_H
#define PARALLEL_H

#include <stdint.h>

struct parallel;

/* The number of processors that this process may run on. */
unsigned parallel_processors(void);

/* For loops on `threads` threads (at least 1): the caller's and threads - 1 that are started here.
 * parallel_free() stops them. */
struct parallel *parallel_new(unsigned threads);
void parallel_free(struct parallel *p);

/* Iterations first … last - 1, on the thread with that number, below parallel_new()'s `threads`. A
 * thread is in one piece at a time. */
typedef void parallel_body(void *context, unsigned thread, uint64_t first, uint64_t last);

/* Run `body` for pieces of 0 … count - 1, of at least `grain` iterations each except for the last;
 * `grain` is as many as are worth another thread. Returns when all are done; what they wrote is
 * then visible to the caller. Loops of one `p` do not overlap or nest. */
void parallel_for(struct parallel *p, uint64_t count, uint64_t grain, parallel_body *body,
                  void *context);

#endif
