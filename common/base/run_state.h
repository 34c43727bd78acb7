/* run_state.h: where a whole pipeline stands, from the lines that its stages and its script write
 * (status.h). Lines may be lost, or of anything: what is not understood is ignored.
 *
 * A stage writes {"program", "task", "layer", "layers", "done", "total", "cpu", "disk", "over"},
 * of each of its tasks: bytes, and seconds of processors and of waiting for disks (activity.h). The
 * script writes {"steps": [{"step", "kind", "work", "seconds"}, ...]}, all that are to come, and
 * {"step": NAME} when one begins. Steps of one `kind` take as long for each unit of `work`;
 * `seconds` is what one takes if nothing is measured yet. One without a kind takes no time to speak
 * of. Times are of a monotonic clock. */
#ifndef RUN_STATE_H
#define RUN_STATE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* More are ignored. */
enum { RUN_STEPS = 32, RUN_TASKS = 4096, RUN_NAME = 64, RUN_WINDOW = 60 };

struct run_step {
    char name[RUN_NAME], kind[RUN_NAME];
    double work, seconds;
    double began, ended; /* 0: not yet */
};

struct run_task {
    char program[RUN_NAME];
    int64_t number;
    uint64_t layer, layers, done, total;
    double cpu, disk, seen;             /* at the time of the last line */
    double old_cpu, old_disk, old_seen; /* some seconds ago */
    double busy, waits;                 /* shares of the time between: processors, disks */
    bool over;
};

struct run_state {
    double began;
    struct run_step step[RUN_STEPS];
    size_t steps, now; /* now: of the step that was begun last; `steps` if none was */
    struct run_task *task;
    size_t tasks;
    struct {
        double time, done;
    } past[RUN_WINDOW]; /* one a second, the newest at (pasts - 1) % RUN_WINDOW */
    size_t pasts;
};

/* All that a person or script wants to know. */
struct run_view {
    const char *step; /* NULL: none has begun */
    size_t number, count;
    double elapsed;      /* in the step */
    const char *program; /* whose bytes these are, the one that is furthest behind; or NULL */
    uint64_t layer, layers, done, total;
    double rate, left, left_all; /* bytes a second, and seconds; below 0: not known */
    const char *bound;           /* the program that is busiest, or NULL */
    bool bound_by_disk;          /* it waits for a disk, and does not compute */
    double bound_share;          /* of the time, from 0 to 1 */
};

void run_state_begin(struct run_state *run, double now);
void run_state_end(struct run_state *run);

/* Take a line that was parsed. True if a step began. */
bool run_state_take(struct run_state *run, const json_t *line, double now);

/* The strings live until the next line is taken. */
struct run_view run_state_view(struct run_state *run, double now);

#endif
