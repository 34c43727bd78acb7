#include "reshard/plan.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/die.h"

struct plan *plan_new(void)
{
    struct plan *plan = xalloc(1, sizeof *plan);
    plan->toc = toc_new();
    return plan;
}

void plan_free(struct plan *plan)
{
    toc_free(plan->toc);
    free(plan->made);
    free(plan->from);
    free(plan);
}

void plan_source(struct plan *plan, size_t line)
{
    if (!(plan->sources & (plan->sources - 1))) /* 0 or a power of two: full */
        plan->from = xgrow(plan->from, 2 * plan->sources + 1, sizeof *plan->from);
    plan->from[plan->sources++] = (uint32_t)line;
}

void plan_add(struct plan *plan, const char *shard, const char *name, const struct tensor *form,
              const struct made *made)
{
    struct toc *toc = plan->toc;
    struct tensor line = *form;
    line.shard = toc_shard(toc, shard);
    toc_derive(toc, &line, name, line.dtype, line.rank, line.dim);
    if (toc->count > plan->room) {
        plan->room = toc->capacity;
        plan->made = xgrow(plan->made, plan->room, sizeof *plan->made);
    }
    plan->made[toc->count - 1] = *made;
}

uint64_t plan_rank(const struct ts_in *in, const char *name, const struct place *place,
                   uint64_t ranks)
{
    uint32_t experts = model_experts(ts_model(in), place);
    if (!experts)
        die("%s: %s: how many experts are there? config.json is missing, or does not say it",
            ts_name(in), name);
    if (place->expert >= experts)
        die("%s: %s: config.json counts %" PRIu32 " experts in this layer", ts_name(in), name,
            experts);
    if (experts % ranks)
        die("%s: %s: %" PRIu32 " experts in this layer are not divisible by %" PRIu64 " ranks",
            ts_name(in), name, experts, ranks);
    return place->expert / (experts / ranks);
}

void plan_sort(struct plan *plan, const struct model *model, const char *stream)
{
    size_t line;
    const char *error = toc_check_unique(plan->toc, &line);
    if (error)
        die("%s: %s: two of its tensors get this name; is it of this model?", stream,
            plan->toc->tensor[line].name);
    model_sort(model, plan->toc, plan->made, sizeof *plan->made);
}
