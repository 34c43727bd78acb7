/* st-status: show where a pipeline stands, from the lines that its stages write. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "base/args.h"
#include "base/die.h"
#include "base/json.h"
#include "base/progress.h"
#include "base/run_log.h"
#include "base/run_state.h"
#include "base/run_text.h"
#include "base/status.h"
#include "base/text.h"

static const struct program program = {
    .about = "Show where a pipeline stands: which step of how many, layer, bytes, rate, time left, "
             "and what bounds it. Reads the lines that the stages of v4-experts and the like write "
             "while they work, from standard input, until one says that the run ends. On a "
             "terminal it is a block that is redrawn in place, elsewhere a line each minute.",
    .operands = {""},
    .examples = {"echo '{\"step\":\"weights\"}' | st-status --name mine --status-fd 1"},
    .max_operands = 0,
};

enum { LINE_MAX_READ = 64 << 10, TICK_MS = 250, SLOW_READER_MS = 200, JSON_MOST = 1 << 20 };

/* Seconds between lines for scripts. */
static const double JSON_PERIOD = 1;

struct options {
    const char *color, *command, *log, *name;
    uint64_t every, status_fd;
};

struct show {
    const struct options *o;
    char *name; /* of the run, printable */
    bool quiet, color, drawn, ended;
    struct run_state run;
    int log, status; /* descriptors, or -1 */
    double plain, told;
    char *line; /* what was read of a line: LINE_MAX_READ bytes */
    size_t length;
    bool skips; /* the rest of a line that is too long */
};

/* ---- signals: they interrupt poll() ---- */

static volatile sig_atomic_t asked, ended;

static void note_asked(int signal)
{
    (void)signal;
    asked = 1;
}

static void note_end(int signal)
{
    (void)signal;
    ended = 1;
}

static void note_resize(int signal)
{
    (void)signal; /* the next block is of the new size */
}

static void take_signals(void)
{
    sigset_t held;
    const struct {
        int number;
        void (*handler)(int);
    } each[] = {{SIGUSR1, note_asked}, {SIGTERM, note_end}, {SIGINT, note_end},
                {SIGHUP, note_end},    {SIGQUIT, note_end}, {SIGWINCH, note_resize}};
    for (size_t i = 0; i < sizeof each / sizeof *each; i++) {
        struct sigaction action = {.sa_handler = each[i].handler};
        sigaction(each[i].number, &action, NULL);
    }
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&held);
    sigaddset(&held, SIGUSR1);
    sigprocmask(SIG_UNBLOCK, &held, NULL);
}

/* ---- the terminal: the cursor rests at the beginning of the block ---- */

static bool wants_color(const char *when)
{
    const char *none = getenv("NO_COLOR");
    if (strcmp(when, "auto") != 0)
        return !strcmp(when, "always");
    return isatty(STDERR_FILENO) && !(none && *none);
}

static void erase(struct show *show)
{
    if (show->drawn && fputs("\r\033[J", stderr) < 0)
        errno = 0; /* nobody sees it */
    show->drawn = false;
}

static void draw(struct show *show, const struct run_view *view)
{
    char block[RUN_BLOCK][RUN_LINE];
    struct winsize size;
    unsigned columns = 80, rows = 24;
    if (!ioctl(STDERR_FILENO, TIOCGWINSZ, &size) && size.ws_col > 1 && size.ws_row > 0) {
        columns = size.ws_col;
        rows = size.ws_row;
    }
    unsigned count = run_text_block(view, show->name, columns - 1, show->color, block);
    if (count >= rows) /* what scrolls away cannot be erased */
        count = rows > 1 ? rows - 1 : 1;
    char text[RUN_BLOCK * (RUN_LINE + 2) + 64] = "\r\033[J", up[16] = "";
    size_t length = strlen(text);
    for (unsigned i = 0; i < count; i++)
        length +=
            (size_t)snprintf(text + length, sizeof text - length, "%s%s", i ? "\n" : "", block[i]);
    if (count > 1)
        snprintf(up, sizeof up, "\033[%uA", count - 1);
    fprintf(stderr, "%s\r%s", text, up); /* one write: messages do not mix with it */
    show->drawn = true;
}

static void print_line(struct show *show, const struct run_view *view)
{
    char line[RUN_LINE];
    run_text_line(view, line);
    erase(show);
    text_print(stderr, "%s: %s\n", show->name, line);
}

/* ---- scripts ---- */

/* A reader that is too slow loses lines; the run does not wait for it. Takes `event` over. */
static void tell(struct show *show, const char *kind, json_t *event)
{
    char stamp[32];
    struct tm tm;
    time_t clock = time(NULL);
    struct pollfd ready = {.fd = show->status, .events = POLLOUT};
    if (show->status < 0 || !event || poll(&ready, 1, SLOW_READER_MS) != 1 ||
        !(ready.revents & POLLOUT)) {
        json_decref(event);
        return;
    }
    if (gmtime_r(&clock, &tm) && strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%SZ", &tm))
        json_object_set_new(event, "time", json_string(stamp));
    json_object_set_new(event, "event", json_string(kind));
    char *text = json_dumps(event, JSON_COMPACT);
    char *line = text ? xprintf("%s\n", text) : NULL;
    if (line && write(show->status, line, strlen(line)) < 0 && errno == EPIPE)
        show->status = -1; /* nobody reads any more */
    free(line);
    free(text);
    json_decref(event);
}

/* ---- lines ---- */

static void begin_log(struct show *show)
{
    const char *reason;
    if (!show->o->log || show->log >= 0)
        return;
    show->log = run_log_open(show->o->log, &reason);
    if (show->log < 0) {
        erase(show);
        warn("%s: %s; this run has no log", show->o->log, reason);
        return;
    }
    char *text = show->o->command ? xprintf("begins: %s", show->o->command) : xstrdup("begins");
    run_log_add(show->log, show->name, text);
    free(text);
}

static void take_message(struct show *show, const json_t *line)
{
    const char *message = json_string_value(json_object_get(line, "message"));
    const char *who = json_string_value(json_object_get(line, "program"));
    if (!message)
        return;
    run_log_add(show->log, who ? who : show->name, message);
    tell(show, "message",
         json_pack("{s:s, s:s}", "program", who ? who : show->name, "message", message));
}

static void take_step(struct show *show)
{
    char text[RUN_LINE];
    const struct run_view view = run_state_view(&show->run, now());
    run_text_line(&view, text);
    run_log_add(show->log, show->name, text);
    tell(show, "step", run_text_json(&view));
    show->plain = show->told = now();
}

static void take_line(struct show *show)
{
    json_t *line = json_load_within(show->line, show->length, 0, JSON_MOST, NULL);
    if (json_is_true(json_object_get(line, "log")))
        begin_log(show);
    if (run_state_take(&show->run, line, now()))
        take_step(show);
    take_message(show, line);
    asked = asked || json_is_true(json_object_get(line, "show"));
    show->ended |= json_is_true(json_object_get(line, "end"));
    json_decref(line);
}

static void take_bytes(struct show *show, const char *data, size_t size)
{
    for (size_t i = 0; i < size && !show->ended; i++) {
        if (data[i] == '\n') {
            if (!show->skips)
                take_line(show);
            show->skips = false;
            show->length = 0;
        } else if (show->length == LINE_MAX_READ)
            show->skips = true;
        else
            show->line[show->length++] = data[i];
    }
}

/* Wait for lines until the next tick. */
static void read_lines(struct show *show)
{
    char data[4096];
    struct pollfd ready = {.fd = STDIN_FILENO, .events = POLLIN};
    if (poll(&ready, 1, TICK_MS) <= 0)
        return;
    ssize_t got = read(STDIN_FILENO, data, sizeof data);
    if (got > 0)
        take_bytes(show, data, (size_t)got);
    show->ended |= !got || (got < 0 && errno != EINTR && errno != EAGAIN);
}

/* ---- all of it ---- */

static void tick(struct show *show)
{
    double time = now();
    const struct run_view view = run_state_view(&show->run, time);
    bool drawn = !show->quiet && status_draws();
    if (!drawn)
        erase(show);
    if (asked)
        print_line(show, &view);
    asked = 0;
    if (time - show->plain >= (double)show->o->every) {
        char text[RUN_LINE];
        run_text_line(&view, text);
        run_log_add(show->log, show->name, text);
        if (!drawn && !show->quiet)
            print_line(show, &view);
        show->plain = time;
    }
    if (time - show->told >= JSON_PERIOD) {
        tell(show, "state", run_text_json(&view));
        show->told = time;
    }
    if (drawn)
        draw(show, &view);
}

static void finish(struct show *show)
{
    char took[TIME_TEXT], text[TIME_TEXT + 32];
    double seconds = now() - show->run.began;
    erase(show);
    snprintf(text, sizeof text, "%s after %s", show->ended ? "ends" : "was ended",
             time_text(seconds, took));
    run_log_add(show->log, show->name, text);
    tell(show, "end", json_pack("{s:f, s:b}", "seconds", seconds, "interrupted", !show->ended));
    run_state_end(&show->run);
    free(show->line);
    free(show->name);
}

static void take_options(struct options *o, struct stage *stage, int argc, char **argv)
{
    const struct arg own[] = {
        {.name = "color",
         .kind = ARG_CHOICE,
         .to = &o->color,
         .value = "when",
         .choices = "auto|always|never",
         .help = "color in the block: auto (default), on a terminal unless NO_COLOR is set",
         .silent = true},
        {.name = "command",
         .kind = ARG_TEXT,
         .to = &o->command,
         .value = "text",
         .help = "the command line that the log says has begun",
         .silent = true},
        {.name = "every",
         .kind = ARG_NUMBER,
         .to = &o->every,
         .value = "N",
         .help = "seconds between two lines, in the log and where no block is drawn (default: 60)",
         .silent = true},
        {.name = "log",
         .kind = ARG_TEXT,
         .to = &o->log,
         .value = "file",
         .help = "add what happens to this file",
         .silent = true},
        {.name = "name",
         .kind = ARG_TEXT,
         .to = &o->name,
         .value = "text",
         .help = "what to call the run",
         .silent = true},
        {.name = "status-fd",
         .kind = ARG_NUMBER,
         .to = &o->status_fd,
         .value = "N",
         .help = "write lines of JSON for a script to this descriptor",
         .silent = true},
        {.name = "plan", .in = NO_FORM},
        {.name = "output", .in = NO_FORM},
        {.name = "progress", .in = NO_FORM},
        {.name = "quiet", .help = "draw and print nothing, unless asked (SIGUSR1)"},
        {.name = "verbose", .in = NO_FORM},
        {0},
    };
    stage_begin(stage, &program, own, argc, argv);
}

static bool takes_writes(uint64_t fd)
{
    int flags = fd <= INT32_MAX ? fcntl((int)fd, F_GETFL) : -1;
    return flags >= 0 && (flags & O_ACCMODE) != O_RDONLY;
}

int main(int argc, char **argv)
{
    struct options o = {.color = "auto", .name = "run", .every = 60};
    struct stage stage;
    take_options(&o, &stage, argc, argv);
    if (stage.operands)
        die_usage("it has no operands; it reads standard input");
    if (o.status_fd && !takes_writes(o.status_fd))
        die_usage("--status-fd: descriptor %" PRIu64 " is not open for writing", o.status_fd);
    struct show show = {.o = &o,
                        .name = printable(xstrdup(o.name)),
                        .quiet = stage.quiet,
                        .color = wants_color(o.color),
                        .log = -1,
                        .status = o.status_fd ? (int)o.status_fd : -1,
                        .line = xalloc(LINE_MAX_READ, 1)};
    take_signals();
    run_state_begin(&show.run, now());
    show.plain = show.told = now();
    setvbuf(stderr, NULL, _IOFBF, 16 << 10);
    while (!show.ended && !ended) {
        read_lines(&show);
        tick(&show);
        fflush(stderr);
    }
    finish(&show);
    fflush(stderr);
    return 0;
}
