#include "base/run_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/text.h"

/* Seconds over which activity is judged, and after which a task that says nothing is gone. */
static const double JUDGED = 5, GONE = 10;

/* A busiest stage that is idle for more than this is not what bounds a run. */
static const double BUSY_LEAST = 0.3;

void run_state_begin(struct run_state *run, double now)
{
    *run = (struct run_state){.began = now};
}

void run_state_end(struct run_state *run)
{
    free(run->task);
}

static void take_name(char name[RUN_NAME], const json_t *value)
{
    const char *text = json_string_value(value);
    snprintf(name, RUN_NAME, "%s", text ? text : "");
    printable(name);
}

static double number_of(const json_t *line, const char *key)
{
    double number = json_number_value(json_object_get(line, key));
    return number >= 0 ? number : 0;
}

static uint64_t count_of(const json_t *line, const char *key)
{
    json_int_t count = json_integer_value(json_object_get(line, key));
    return count > 0 ? (uint64_t)count : 0;
}

/* ---- lines ---- */

static size_t find_step(const struct run_state *run, const char *name)
{
    size_t i = 0;
    while (i < run->steps && strcmp(run->step[i].name, name) != 0)
        i++;
    return i;
}

/* All steps, or all with better figures of their work, while one is under way. */
static void take_steps(struct run_state *run, const json_t *steps)
{
    struct run_step step[RUN_STEPS];
    size_t i, count = 0, present = SIZE_MAX;
    json_t *from;
    json_array_foreach(steps, i, from)
    {
        if (count == RUN_STEPS)
            break;
        struct run_step *to = &step[count++];
        *to = (struct run_step){.work = number_of(from, "work"),
                                .seconds = number_of(from, "seconds")};
        take_name(to->name, json_object_get(from, "step"));
        take_name(to->kind, json_object_get(from, "kind"));
        size_t old = find_step(run, to->name);
        if (old == run->steps)
            continue;
        to->began = run->step[old].began;
        to->ended = run->step[old].ended;
        present = old == run->now ? count - 1 : present;
    }
    memcpy(run->step, step, count * sizeof *step);
    run->steps = count;
    run->now = present < count ? present : count;
}

/* A step that was not announced comes last. */
static void begin_step(struct run_state *run, const json_t *value, double now)
{
    char name[RUN_NAME];
    take_name(name, value);
    if (run->now < run->steps)
        run->step[run->now].ended = now;
    size_t i = find_step(run, name);
    if (i == RUN_STEPS)
        return;
    if (i == run->steps) {
        run->step[run->steps++] = (struct run_step){0};
        memcpy(run->step[i].name, name, RUN_NAME);
    }
    run->now = i;
    run->step[i].began = now;
    run->step[i].ended = 0;
    run->tasks = 0;
    run->pasts = 0;
}

static struct run_task *task_of(struct run_state *run, int64_t number, double now)
{
    for (size_t i = 0; i < run->tasks; i++)
        if (run->task[i].number == number)
            return &run->task[i];
    if (run->tasks == RUN_TASKS)
        return NULL;
    if (!(run->tasks & (run->tasks + 1))) /* room for a power of two */
        run->task = xgrow(run->task, 2 * (run->tasks + 1), sizeof *run->task);
    struct run_task *task = &run->task[run->tasks++];
    *task = (struct run_task){.number = number, .seen = now, .old_seen = now};
    return task;
}

static void take_task(struct run_state *run, const json_t *line, double now)
{
    struct run_task *task = task_of(run, json_integer_value(json_object_get(line, "task")), now);
    if (!task)
        return;
    take_name(task->program, json_object_get(line, "program"));
    task->layer = count_of(line, "layer");
    task->layers = count_of(line, "layers");
    task->done = count_of(line, "done");
    task->total = count_of(line, "total");
    task->cpu = number_of(line, "cpu");
    task->disk = number_of(line, "disk");
    task->over = json_is_true(json_object_get(line, "over"));
    task->seen = now;
    double time = now - task->old_seen;
    if (time <= 0)
        return;
    task->busy = (task->cpu - task->old_cpu) / time;
    task->waits = (task->disk - task->old_disk) / time;
    if (time >= JUDGED) {
        task->old_seen = now;
        task->old_cpu = task->cpu;
        task->old_disk = task->disk;
    }
}

bool run_state_take(struct run_state *run, const json_t *line, double now)
{
    const json_t *steps = json_object_get(line, "steps"), *step = json_object_get(line, "step");
    if (json_is_array(steps))
        take_steps(run, steps);
    else if (json_is_string(step))
        begin_step(run, step, now);
    else if (json_is_integer(json_object_get(line, "task")))
        take_task(run, line, now);
    return json_is_string(step);
}

/* ---- views ---- */

/* Add the bytes of all tasks of the i-th task's program: those of --jobs are one. */
static void sum_program(const struct run_state *run, size_t i, struct run_view *view)
{
    const char *program = run->task[i].program;
    view->program = program;
    for (size_t j = 0; j < run->tasks; j++) {
        const struct run_task *task = &run->task[j];
        if (strcmp(task->program, program) != 0)
            continue;
        view->done += task->done;
        view->total += task->over ? task->done : task->total; /* it may have ended before all */
        if (task->layers && (!view->layers || task->layer < view->layer)) {
            view->layer = task->layer;
            view->layers = task->layers;
        }
    }
}

/* True if an earlier task is of the same program. */
static bool is_summed(const struct run_state *run, size_t i)
{
    size_t j = 0;
    while (j < i && strcmp(run->task[j].program, run->task[i].program) != 0)
        j++;
    return j < i;
}

/* Of each program whose bytes pass, the one that is furthest behind: what others have read ahead
 * is not done. */
static void find_bytes(const struct run_state *run, struct run_view *view)
{
    double least = 2;
    for (size_t i = 0; i < run->tasks; i++) {
        struct run_view one = {0};
        if (is_summed(run, i))
            continue;
        sum_program(run, i, &one);
        double part = one.total ? (double)one.done / (double)one.total : 1;
        if (part > least || (part == least && view->total > one.total))
            continue;
        least = part;
        view->program = one.program;
        view->done = one.done;
        view->total = one.total;
        view->layer = one.layer;
        view->layers = one.layers;
    }
}

static void find_bound(const struct run_state *run, struct run_view *view, double now)
{
    double most = BUSY_LEAST;
    for (size_t i = 0; i < run->tasks; i++) {
        const struct run_task *task = &run->task[i];
        double busy = task->busy < 1 ? task->busy : 1;
        double share = task->waits > busy ? task->waits : busy;
        if (task->over || now - task->seen > GONE || share <= most)
            continue;
        most = share;
        view->bound = task->program;
        view->bound_by_disk = task->waits > busy;
        view->bound_share = share < 1 ? share : 1;
    }
}

/* Remember one number a second; the rate is that of the last minute. */
static void find_rate(struct run_state *run, struct run_view *view, double now)
{
    const struct run_step *step = run->now < run->steps ? &run->step[run->now] : NULL;
    size_t newest = (run->pasts + RUN_WINDOW - 1) % RUN_WINDOW;
    if (!run->pasts || now - run->past[newest].time >= 1) {
        run->past[run->pasts % RUN_WINDOW].time = now;
        run->past[run->pasts % RUN_WINDOW].done = (double)view->done;
        run->pasts++;
    }
    size_t oldest = run->pasts > RUN_WINDOW ? run->pasts % RUN_WINDOW : 0;
    double time = now - run->past[oldest].time;
    double bytes = (double)view->done - run->past[oldest].done;
    if (run->pasts <= RUN_WINDOW &&
        step) { /* all of the step, in which nothing was done at first */
        time = now - step->began;
        bytes = (double)view->done;
    }
    view->rate = time > 0 && bytes > 0 ? bytes / time : -1;
    view->left = view->rate > 0 ? (double)(view->total - view->done) / view->rate : -1;
}

/* Units of work a second in steps of that kind; 0 if none was measured. */
static double speed_of(const struct run_state *run, const char *kind, const struct run_view *view,
                       double now)
{
    double work = 0, time = 0;
    for (size_t i = 0; i < run->steps; i++) {
        const struct run_step *step = &run->step[i];
        if (!step->began || strcmp(step->kind, kind) != 0)
            continue;
        bool present = i == run->now && !step->ended;
        double part = !present ? 1 : view->total ? (double)view->done / (double)view->total : 0;
        work += step->work * part;
        time += part > 0 ? (present ? now : step->ended) - step->began : 0;
    }
    return time > 0 ? work / time : 0;
}

static double left_in_all(const struct run_state *run, const struct run_view *view, double now)
{
    if (run->now == run->steps)
        return -1;
    double left = view->left;
    if (left < 0 && *run->step[run->now].kind)
        return -1;
    left = left > 0 ? left : 0;
    for (size_t i = run->now + 1; i < run->steps; i++) {
        const struct run_step *step = &run->step[i];
        double speed = speed_of(run, step->kind, view, now);
        if (!*step->kind)
            continue;
        if (speed <= 0 && step->seconds <= 0)
            return -1;
        left += speed > 0 ? step->work / speed : step->seconds;
    }
    return left;
}

struct run_view run_state_view(struct run_state *run, double now)
{
    struct run_view view = {.rate = -1, .left = -1, .left_all = -1, .count = run->steps};
    if (run->now < run->steps) {
        view.step = run->step[run->now].name;
        view.number = run->now + 1;
        view.elapsed = now - run->step[run->now].began;
    }
    find_bytes(run, &view);
    if (view.done > view.total)
        view.done = view.total;
    find_rate(run, &view, now);
    find_bound(run, &view, now);
    view.left_all = left_in_all(run, &view, now);
    return view;
}
