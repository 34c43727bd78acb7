#include "forward/greedy.h"

#include "forward/needed.h"

/* All of the text as one sample; `start` is {0, ids->count}, and lives as long. */
static struct tokens tokens_of(const struct ids *ids, uint64_t *start)
{
    return (struct tokens){.samples = 1, .length = ids->count, .start = start, .id = ids->id};
}

/* The token after the last one, from its logits. */
struct step {
    struct device *device;
    uint64_t last;
    int32_t next;
};

static void take_logits(void *context, unsigned mtp, uint64_t first, struct mat logits,
                        const int32_t *target)
{
    struct step *step = context;
    struct device *d = step->device;
    (void)mtp;
    (void)target;
    if (step->last < first || step->last - first >= logits.rows)
        return;
    struct mat value = d->make(d, DTYPE_F32, 1, 1), number = d->make(d, DTYPE_I32, 1, 1);
    d->best(d, value, number, mat_rows(logits, step->last - first, 1));
    d->read(d, &step->next, number);
    d->drop(d, value);
    d->drop(d, number);
}

void greedy_check(const struct forward *run, const struct ids *ids)
{
    uint64_t start[] = {0, ids->count};
    const struct tokens tokens = tokens_of(ids, start);
    struct forward plan = *run;
    plan.tokens = &tokens;
    plan.head = true;
    forward_check(&plan);
    needed_check(&plan);
}

static int32_t next_of(const char *path, const struct forward *how, const struct stage *stage,
                       const struct ids *ids)
{
    uint64_t start[] = {0, ids->count};
    const struct tokens tokens = tokens_of(ids, start);
    struct step step = {.device = how->device, .last = ids->count - 1};
    struct forward run = *how;
    run.in = ts_open(path, stage);
    run.tokens = &tokens;
    run.head = true;
    run.context = &step;
    run.logits = take_logits;
    forward_run(&run);
    ts_close(run.in);
    return step.next;
}

void greedy_continue(const struct greedy *greedy, const struct forward *run,
                     const struct stage *stage, struct ids *ids)
{
    for (uint64_t i = 0; i < greedy->count; i++) {
        int32_t next = next_of(greedy->path, run, stage, ids);
        if (next == greedy->end)
            break;
        ids_add(ids, next);
        greedy->added(greedy->context, ids);
    }
}
