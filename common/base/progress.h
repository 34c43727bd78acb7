/* progress.h: a line on the terminal that says how far a long run is: bytes, rate, time left. */
#ifndef PROGRESS_H
#define PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress;

/* A line for `total` bytes; NULL (which all functions take) if not shown. The caller ends it. */
struct progress *progress_begin(bool shown, uint64_t total);
void progress_add(struct progress *progress, uint64_t bytes);
void progress_end(struct progress *progress);

/* "12.3 GB" into text (at least BYTES_TEXT bytes); powers of 1000, as disks count. */
enum { BYTES_TEXT = 16 };
char *bytes_text(double bytes, char *text);

/* "1h02m03s", "2m03s" or "3.2s" into text (at least TIME_TEXT bytes). */
enum { TIME_TEXT = 64 };
char *time_text(double seconds, char *text);

/* Seconds on a clock that only runs forward. */
double now(void);

#endif
