#include "base/die.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/status.h"
#include "base/text.h"

static int failed = EXIT_FAILED;

/* Where nobody reads, a write sends SIGPIPE to this thread: it is blocked and taken. */
void say_line(const char *format, ...)
{
    sigset_t pipe, before, waiting;
    va_list args;
    va_start(args, format);
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    sigpending(&waiting);
    pthread_sigmask(SIG_BLOCK, &pipe, &before);
    if (vfprintf(stderr, format, args) < 0 && errno == EPIPE && !sigismember(&waiting, SIGPIPE))
        sigtimedwait(&pipe, NULL, &(struct timespec){0});
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    va_end(args);
}

void die_with(int status)
{
    failed = status;
}

static void say(const char *format, va_list args, const char *tail)
{
    /* one buffer, one write: the lines of a pipeline's stages do not mix */
    char *message;
    if (vasprintf(&message, format, args) < 0)
        message = NULL;
    /* the message may hold text from outside: no second line, no escape sequences */
    if (message)
        printable(message);
    fflush(stdout);
    char *line = NULL;
    if (asprintf(&line, "%s%s%s", message ? message : format, tail ? ": " : "", tail ? tail : "") <
        0)
        line = NULL;
    say_line("%s%s: %s\n", status_eraser(), program_invocation_short_name, line ? line : format);
    if (line)
        status_say(line);
    free(line);
    free(message);
}

/* A second thread that gets here waits until the process is gone: two threads must not call exit().
 */
static void be_first(void)
{
    flockfile(stderr);
}

/* exit() runs the exit handlers of libraries, which crash while another thread still uses the
 * library (oneDNN). So only the main thread calls it. */
_Noreturn static void leave(int status)
{
    if (gettid() == getpid())
        exit(status);
    _exit(status);
}

_Noreturn void die(const char *format, ...)
{
    va_list args;
    be_first();
    va_start(args, format);
    say(format, args, NULL);
    va_end(args);
    leave(failed);
}

_Noreturn void die_cut(const char *input, const char *format, ...)
{
    va_list args;
    be_first();
    va_start(args, format);
    if (strcmp(input, "<stdin>") != 0 || !getenv("SEEKPIPE_PIPELINE"))
        say(format, args, NULL);
    va_end(args);
    leave(failed);
}

_Noreturn void die_errno(const char *format, ...)
{
    const char *reason = strerror(errno);
    va_list args;
    be_first();
    va_start(args, format);
    say(format, args, reason);
    va_end(args);
    leave(failed);
}

_Noreturn void die_usage(const char *format, ...)
{
    va_list args;
    be_first();
    va_start(args, format);
    say(format, args, NULL);
    va_end(args);
    say_line("Try '%s --help'.\n", program_invocation_short_name);
    leave(EXIT_USAGE);
}

void warn(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(format, args, NULL);
    va_end(args);
}

void *xalloc(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);
    if (!memory)
        die("out of memory (%zu times %zu bytes)", count, size);
    return memory;
}

void *xaligned(size_t count, size_t size)
{
    uint64_t bytes;
    void *memory = NULL;
    if (mul_fits(count, size, &bytes) && bytes <= SIZE_MAX - XALIGN)
        memory = aligned_alloc(XALIGN, (size_t)(bytes + XALIGN) / XALIGN * XALIGN);
    if (!memory)
        die("out of memory (%zu times %zu bytes)", count, size);
    return memory;
}

void *xgrow(void *old, size_t count, size_t size)
{
    void *memory = reallocarray(old, count ? count : 1, size);
    if (!memory)
        die("out of memory (%zu times %zu bytes)", count, size);
    return memory;
}

char *xstrdup(const char *text)
{
    char *copy = strdup(text);
    if (!copy)
        die("out of memory");
    return copy;
}

char *xvprintf(const char *format, va_list args)
{
    char *text;
    if (vasprintf(&text, format, args) < 0)
        die("out of memory");
    return text;
}

char *xprintf(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *text = xvprintf(format, args);
    va_end(args);
    return text;
}
