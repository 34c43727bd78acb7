#include "base/run_text.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/progress.h"

/* A line that grows, and is cut at RUN_LINE. */
__attribute__((format(printf, 2, 3))) static void add(char line[RUN_LINE], const char *format, ...)
{
    size_t length = strlen(line);
    va_list args;
    va_start(args, format);
    vsnprintf(line + length, RUN_LINE - length, format, args);
    va_end(args);
}

static double percent(const struct run_view *view)
{
    return view->total ? 100.0 * (double)view->done / (double)view->total : 0;
}

static void add_step(char line[RUN_LINE], const struct run_view *view)
{
    if (!view->step)
        add(line, "beginning");
    else
        add(line, "step %zu of %zu, %s", view->number, view->count, view->step);
    if (view->layers)
        add(line, ", layer %" PRIu64 " of %" PRIu64, view->layer, view->layers);
}

static void add_bytes(char line[RUN_LINE], const struct run_view *view)
{
    char done[BYTES_TEXT], total[BYTES_TEXT], rate[BYTES_TEXT];
    add(line, "%s of %s (%.0f%%)", bytes_text((double)view->done, done),
        bytes_text((double)view->total, total), percent(view));
    if (view->rate > 0)
        add(line, ", %s/s", bytes_text(view->rate, rate));
}

static void add_left(char line[RUN_LINE], const struct run_view *view)
{
    char time[TIME_TEXT];
    if (view->left >= 0)
        add(line, "%s left in this step", time_text(view->left, time));
    if (view->left_all > 0)
        add(line, "%sabout %s in all", view->left >= 0 ? ", " : "",
            time_text(view->left_all, time));
}

static void add_bound(char line[RUN_LINE], const struct run_view *view)
{
    add(line,
        view->bound_by_disk ? "bound by the disk: %s waits for it %.0f%% of the time"
                            : "bound by %s, which computes %.0f%% of the time",
        view->bound, 100 * view->bound_share);
}

void run_text_line(const struct run_view *view, char line[RUN_LINE])
{
    *line = 0;
    add_step(line, view);
    if (view->total) {
        add(line, ": ");
        add_bytes(line, view);
    }
    if (view->left >= 0 || view->left_all > 0) {
        add(line, ", ");
        add_left(line, view);
    }
    if (view->bound) {
        add(line, ", ");
        add_bound(line, view);
    }
}

/* Cut to the width; all text is ASCII but for names, which are cut between characters. */
static void cut(char *line, unsigned columns)
{
    unsigned column = 0;
    for (; *line; line++)
        if (((unsigned char)*line & 0xc0) != 0x80 && column++ == columns) {
            *line = 0;
            break;
        }
}

static void put_bar(char line[RUN_LINE], const struct run_view *view, unsigned width, bool color)
{
    unsigned full = (unsigned)(percent(view) / 100 * width);
    add(line, "%s", color ? "\033[32m" : "");
    for (unsigned i = 0; i < width; i++)
        add(line, "%s", i < full ? "#" : color ? "\033[2m-\033[22m" : "-");
    add(line, "%s", color ? "\033[0m" : "");
}

/* The bytes, after a bar if there is room for one. */
static void put_bytes(char line[RUN_LINE], const struct run_view *view, unsigned columns,
                      bool color)
{
    enum { BAR_LEAST = 8, BAR_MOST = 30 };
    char bytes[RUN_LINE] = "";
    add_bytes(bytes, view);
    cut(bytes, columns);
    size_t used = strlen(bytes) + 1;
    unsigned room = columns > used ? columns - (unsigned)used : 0;
    if (room >= BAR_LEAST) {
        put_bar(line, view, room < BAR_MOST ? room : BAR_MOST, color);
        add(line, " ");
    }
    add(line, "%s", bytes);
}

unsigned run_text_block(const struct run_view *view, const char *title, unsigned columns,
                        bool color, char block[RUN_BLOCK][RUN_LINE])
{
    unsigned count = 0;
    char head[RUN_LINE] = "", time[TIME_TEXT];
    add(head, "%s: ", title);
    add_step(head, view);
    if (view->step)
        add(head, ", %s so far", time_text(view->elapsed, time));
    cut(head, columns);
    snprintf(block[count++], RUN_LINE, color ? "\033[1m%.400s\033[0m" : "%.400s", head);
    for (unsigned i = 1; i < RUN_BLOCK; i++)
        *block[i] = 0;
    if (view->total)
        put_bytes(block[count++], view, columns, color);
    if (view->left >= 0 || view->left_all > 0) {
        add_left(block[count], view);
        cut(block[count++], columns);
    }
    if (view->bound) {
        add_bound(block[count], view);
        cut(block[count++], columns);
    }
    return count;
}

static void set_time(json_t *to, const char *key, double value)
{
    if (value >= 0)
        json_object_set_new(to, key, json_real(value));
}

json_t *run_text_json(const struct run_view *view)
{
    json_t *to = json_object();
    if (view->step) {
        json_object_set_new(to, "step", json_string(view->step));
        json_object_set_new(to, "number", json_integer((json_int_t)view->number));
        json_object_set_new(to, "steps", json_integer((json_int_t)view->count));
        set_time(to, "seconds", view->elapsed);
    }
    if (view->layers) {
        json_object_set_new(to, "layer", json_integer((json_int_t)view->layer));
        json_object_set_new(to, "layers", json_integer((json_int_t)view->layers));
    }
    if (view->total) {
        json_object_set_new(to, "program", json_string(view->program));
        json_object_set_new(to, "done", json_integer((json_int_t)view->done));
        json_object_set_new(to, "total", json_integer((json_int_t)view->total));
    }
    set_time(to, "rate", view->rate);
    set_time(to, "left", view->left);
    set_time(to, "left_all", view->left_all);
    if (view->bound) {
        json_object_set_new(to, "bound", json_string(view->bound));
        json_object_set_new(to, "bound_by",
                            json_string(view->bound_by_disk ? "disk" : "processor"));
        set_time(to, "bound_share", view->bound_share);
    }
    return to;
}
