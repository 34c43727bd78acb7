#include "base/progress.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/die.h"

struct progress {
    uint64_t total, done;
    double start, shown;
};

double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

char *bytes_text(double bytes, char *text)
{
    static const char *const unit[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    int i = 0;
    while (bytes >= 999.5 && i < 6) {
        bytes /= 1000;
        i++;
    }
    snprintf(text, BYTES_TEXT, i && bytes < 99.95 ? "%.1f %s" : "%.0f %s", bytes, unit[i]);
    return text;
}

char *time_text(double seconds, char *text)
{
    long whole = (long)(seconds + 0.5);
    if (seconds < 59.95)
        snprintf(text, TIME_TEXT, "%.1fs", seconds);
    else if (whole < 3600)
        snprintf(text, TIME_TEXT, "%ldm%02lds", whole / 60, whole % 60);
    else
        snprintf(text, TIME_TEXT, "%ldh%02ldm%02lds", whole / 3600, whole / 60 % 60, whole % 60);
    return text;
}

struct progress *progress_begin(bool shown, uint64_t total)
{
    if (!shown)
        return NULL;
    struct progress *progress = xalloc(1, sizeof *progress);
    *progress = (struct progress){.total = total, .start = now()};
    return progress;
}

static void show(struct progress *progress)
{
    double elapsed = progress->shown - progress->start;
    double rate = elapsed > 0 ? (double)progress->done / elapsed : 0;
    double left = rate > 0 ? (double)(progress->total - progress->done) / rate : 0;
    char done[BYTES_TEXT], total[BYTES_TEXT], per_second[BYTES_TEXT], eta[TIME_TEXT];
    fprintf(stderr, "\r%s: %s of %s (%.0f%%), %s/s, %s left\033[K", program_invocation_short_name,
            bytes_text((double)progress->done, done), bytes_text((double)progress->total, total),
            progress->total ? 100.0 * (double)progress->done / (double)progress->total : 100.0,
            bytes_text(rate, per_second), time_text(left, eta));
    fflush(stderr);
}

void progress_add(struct progress *progress, uint64_t bytes)
{
    if (!progress)
        return;
    progress->done += bytes;
    if (now() - progress->shown > 0.2) {
        progress->shown = now();
        show(progress);
    }
}

void progress_end(struct progress *progress)
{
    if (progress && progress->shown > 0)
        fputs("\r\033[K", stderr);
    free(progress);
}
