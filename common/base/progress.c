#include "base/progress.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "base/activity.h"
#include "base/die.h"
#include "base/status.h"

enum { LINE = 256 };

/* Seconds between two looks, and between two lines where standard error is no terminal. */
static const double PERIOD = 0.25, PLAIN_PERIOD = 60;

struct progress {
    uint64_t total;
    atomic_uint_fast64_t done, at;
    atomic_bool over;
    progress_find *find;
    const void *context;
    double start;
    pthread_t thread;
    /* The thread's own: */
    bool shown, terminal, drawn;
    int status;         /* status_open() */
    double last, plain; /* when it told the script, and when it printed a plain line */
    struct activity activity;
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
    const double most = 3.6e9; /* a million hours: of figures that came from outside */
    long whole = (long)((seconds < most ? seconds : most) + 0.5);
    if (seconds < 59.95)
        snprintf(text, TIME_TEXT, "%.1fs", seconds);
    else if (whole < 3600)
        snprintf(text, TIME_TEXT, "%ldm%02lds", whole / 60, whole % 60);
    else
        snprintf(text, TIME_TEXT, "%ldh%02ldm%02lds", whole / 3600, whole / 60 % 60, whole % 60);
    return text;
}

/* ---- the thread ---- */

static struct progress_layer layer_of(const struct progress *progress)
{
    struct progress_layer layer = {0};
    if (progress->find)
        progress->find(progress->context, atomic_load(&progress->at), &layer);
    return layer;
}

/* "layer 3 of 61, 12 GB of 865 GB (1%), 1.2 GB/s, 12m03s left" */
static void describe(const struct progress *progress, char line[LINE])
{
    uint64_t so_far = atomic_load(&progress->done);
    struct progress_layer layer = layer_of(progress);
    double elapsed = now() - progress->start, total = (double)progress->total;
    double rate = elapsed > 0 ? (double)so_far / elapsed : 0;
    double left = rate > 0 ? (total - (double)so_far) / rate : 0;
    char done[BYTES_TEXT], all[BYTES_TEXT], per_second[BYTES_TEXT], eta[TIME_TEXT], where[64] = "";
    if (layer.count)
        snprintf(where, sizeof where, "layer %" PRIu64 " of %" PRIu64 ", ", layer.number + 1,
                 layer.count);
    snprintf(line, LINE, "%s: %s%s of %s (%.0f%%), %s/s, %s left", program_invocation_short_name,
             where, bytes_text((double)so_far, done), bytes_text(total, all),
             total > 0 ? 100 * (double)so_far / total : 100, bytes_text(rate, per_second),
             time_text(left, eta));
}

/* In place, cut where the terminal ends: a line that wraps could not be erased. */
static void draw(struct progress *progress)
{
    char line[LINE];
    struct winsize size;
    describe(progress, line);
    if (!ioctl(STDERR_FILENO, TIOCGWINSZ, &size) && size.ws_col > 1 && strlen(line) >= size.ws_col)
        line[size.ws_col - 1] = 0;
    say_line("\r%s\033[K\r", line);
    progress->drawn = true;
}

static void print_plain(struct progress *progress)
{
    char line[LINE];
    describe(progress, line);
    say_line("%s%s\n", progress->drawn ? "\r\033[K" : status_eraser(), line);
    progress->drawn = false;
    progress->plain = now();
}

static void tell_script(const struct progress *progress, bool over)
{
    char line[STATUS_LINE];
    struct progress_layer layer = layer_of(progress);
    snprintf(line, sizeof line,
             "{\"program\":\"%s\",\"task\":%d,\"layer\":%" PRIu64 ",\"layers\":%" PRIu64
             ",\"done\":%" PRIuFAST64 ",\"total\":%" PRIu64
             ",\"cpu\":%.2f,\"disk\":%.2f,\"over\":%s}",
             program_invocation_short_name, gettid(), layer.number + 1, layer.count,
             atomic_load(&progress->done), progress->total, progress->activity.cpu,
             progress->activity.disk, over ? "true" : "false");
    status_send(progress->status, line);
}

/* Every PERIOD, at its end, and when a signal came. */
static void look(struct progress *progress, bool asked)
{
    double time = now();
    bool over = atomic_load(&progress->over);
    if (progress->status >= 0 && (over || time - progress->last >= 0.9 * PERIOD)) {
        activity_sample(&progress->activity, time - progress->last);
        tell_script(progress, over);
        progress->last = time;
    }
    bool due = progress->shown && !progress->terminal && time - progress->plain >= PLAIN_PERIOD;
    if (due || (asked && !over))
        print_plain(progress);
    else if (progress->shown && progress->terminal && !over)
        draw(progress);
}

static void *watch(void *of)
{
    struct progress *progress = of;
    const struct timespec period = {.tv_nsec = (long)(1e9 * PERIOD)};
    sigset_t asking;
    sigemptyset(&asking);
    sigaddset(&asking, SIGUSR1);
    bool asked = false;
    do {
        look(progress, asked);
        asked = sigtimedwait(&asking, NULL, &period) == SIGUSR1;
    } while (!atomic_load(&progress->over));
    look(progress, false);
    if (progress->drawn)
        fputs("\r\033[K", stderr);
    return NULL;
}

/* ---- the program's side ---- */

void progress_hold_signal(void)
{
    sigset_t held;
    sigemptyset(&held);
    sigaddset(&held, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &held, NULL);
}

struct progress *progress_begin(bool shown, uint64_t total, progress_find *find,
                                const void *context)
{
    struct progress *progress = xalloc(1, sizeof *progress);
    *progress = (struct progress){.total = total,
                                  .find = find,
                                  .context = context,
                                  .start = now(),
                                  .shown = shown,
                                  .terminal = isatty(STDERR_FILENO),
                                  .status = status_open()};
    progress->shown &= progress->status < 0; /* the script shows it */
    progress->last = progress->start;
    progress->plain = -PLAIN_PERIOD;
    progress_hold_signal();
    if (!pthread_create(&progress->thread, NULL, watch, progress))
        return progress;
    if (progress->status >= 0)
        close(progress->status);
    free(progress);
    return NULL;
}

void progress_add(struct progress *progress, uint64_t bytes, uint64_t at)
{
    if (!progress)
        return;
    atomic_fetch_add_explicit(&progress->done, bytes, memory_order_relaxed);
    atomic_store_explicit(&progress->at, at, memory_order_relaxed);
}

void progress_end(struct progress *progress)
{
    if (!progress)
        return;
    atomic_store(&progress->over, true);
    pthread_kill(progress->thread, SIGUSR1); /* it waits for that one */
    pthread_join(progress->thread, NULL);
    if (progress->status >= 0)
        close(progress->status);
    free(progress);
}
