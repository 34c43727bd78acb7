/* progress.h: how far a long run is: bytes, rate, time left.
 *
 * A thread shows it, so that it is up to date even while the program waits: as a line on a
 * terminal, redrawn in place; once a minute where standard error is none; to the pipeline script
 * that runs the program (status.h); and once, when the process gets SIGUSR1. */
#ifndef PROGRESS_H
#define PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress;

/* Where in the model a run is. */
struct progress_layer {
    uint64_t number, count; /* from 0; count is 0 outside of layers */
};

/* Find the layer of the `at`-th item of `context`. Called on another thread, until progress_end().
 */
typedef void progress_find(const void *context, uint64_t at, struct progress_layer *layer);

/* Begin, for `total` bytes. `shown`: on standard error, too. `find` may be NULL. NULL if no thread
 * can be started; the functions below accept NULL. progress_end() erases the line and frees it. */
struct progress *progress_begin(bool shown, uint64_t total, progress_find *find,
                                const void *context);

/* `bytes` more are done, and item `at` is next. */
void progress_add(struct progress *progress, uint64_t bytes, uint64_t at);
void progress_end(struct progress *progress);

/* From now on SIGUSR1 does not end the process, and waits for progress_begin(). To be called before
 * other threads start. */
void progress_hold_signal(void);

/* "12.3 GB" into text (at least BYTES_TEXT bytes), in powers of 1000; returns text. */
enum { BYTES_TEXT = 16 };
char *bytes_text(double bytes, char *text);

/* "1h02m03s", "2m03s" or "3.2s" into text (at least TIME_TEXT bytes); returns text. */
enum { TIME_TEXT = 64 };
char *time_text(double seconds, char *text);

/* Seconds on a monotonic clock. */
double now(void);

#endif
