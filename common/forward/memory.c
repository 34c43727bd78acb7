#include "forward/memory.h"

#include <inttypes.h>

#include "base/die.h"

/* Bytes per token of a group: the experts' input and output, and, if hidden states are offloaded,
 * those of this group and the next. */
static uint64_t token_bytes(const struct network *n, const struct rows *rows)
{
    uint64_t hidden = rows->hidden.on_host ? 2 * network_columns(n) * sizeof(uint16_t) : 0;
    return n->dim * (sizeof(uint16_t) + sizeof(float)) + hidden;
}

/* How many samples go through the experts together if weights are resident: enough to outweigh the
 * work of preparing the weights, with no more memory than the weights take. If hidden states are
 * offloaded, groups use their room, too. Groups are of about the same size: a small one takes
 * nearly as much preparing as a large one. */
static uint64_t group_size(const struct forward *run, const struct rows *rows, uint64_t memory)
{
    uint64_t sample = (rows_count(rows) / rows->samples + 1) * token_bytes(run->network, rows);
    uint64_t room = run->device->room > memory ? run->device->room - memory : 0, most = memory / 4;
    if (rows->hidden.on_host)
        most = room > memory / 2 ? room : memory / 2;
    uint64_t fit = most / sample / run->batch;
    uint64_t groups = fit ? (rows->samples - 1) / (run->batch * fit) + 1 : rows->samples;
    uint64_t each = (rows->samples + groups - 1) / groups;
    return (each + run->batch - 1) / run->batch * run->batch;
}

static uint64_t memory_of(const struct forward *run, uint64_t largest, bool together)
{
    if (!run->memory)
        return together && run->device->memory < largest ? largest : run->device->memory;
    if (together && run->memory < largest)
        die("--mem is %" PRIu64 " bytes, but engines' arithmetic needs a layer's experts at once, "
            "to know the largest of their input scales: give at least %" PRIu64 ", or --arithmetic "
            "model",
            run->memory, largest);
    return run->memory;
}

/* Offloaded hidden states may be too many to go through the experts at once, so the layer must be
 * resident. */
void memory_plan(struct memory_plan *plan, const struct forward *run, struct rows *rows,
                 uint64_t largest, bool together)
{
    const struct network *n = run->network;
    struct device *d = run->device;
    uint64_t memory = memory_of(run, largest, together);
    uint64_t samples = rows->samples, count = rows_count(rows);
    uint64_t weights = at_most(toc_bytes(ts_toc(run->in), true), memory);
    uint64_t group = at_most(group_size(run, rows, memory), samples);
    bool stays = together || (group < samples && memory / 2 >= largest);
    uint64_t besides = weights + token_bytes(n, rows) * (stays ? count / samples * group : count);
    rows->hidden = d->make_offloaded(d, DTYPE_BF16, count, network_columns(n), besides);
    plan->group = group_size(run, rows, memory);
    plan->resident =
        together || (plan->group < samples && (memory / 2 >= largest || rows->hidden.on_host));
    if (plan->resident && memory < largest)
        die("%" PRIu64
            " tokens do not fit on the device at once, so that a layer's weights have to "
            "stay there: --mem is %" PRIu64 " bytes, give at least %" PRIu64 ", or fewer --samples",
            count, memory, largest);
    plan->ahead = plan->resident ? memory - largest : memory;
}
