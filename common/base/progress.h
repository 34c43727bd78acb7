/* progress.h: a line on the terminal that shows the progress of a long run: bytes, rate, time left.
 */
#ifndef PROGRESS_H
#define PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress;

/* Start a line for `total` bytes. Returns NULL, which all functions accept, if not shown.
 * progress_end() erases the line and frees it. */
struct progress *progress_begin(bool shown, uint64_t total);
void progress_add(struct progress *progress, uint64_t bytes);
void progress_end(struct progress *progress);

/* "12.3 GB" into text (at least BYTES_TEXT bytes), in powers of 1000; returns text. */
enum { BYTES_TEXT = 16 };
char *bytes_text(double bytes, char *text);

/* "1h02m03s", "2m03s" or "3.2s" into text (at least TIME_TEXT bytes); returns text. */
enum { TIME_TEXT = 64 };
char *time_text(double seconds, char *text);

/* Seconds on a monotonic clock. */
double now(void);

#endif
