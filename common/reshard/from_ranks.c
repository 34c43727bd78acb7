/* From model-parallel ranks to a release's layout. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/names.h"
#include "reshard/plan.h"
#include "stream/shard_name.h"
#include "stream/whole.h"

static const uint64_t shard_max = 4ULL << 30;

/* A tensor in a rank's file. */
struct part {
    size_t name; /* number of its name in the release */
    uint64_t rank;
    size_t line;
};

struct joining {
    struct ts_in *in;
    uint64_t ranks;
    struct part *part; /* of each line, sorted by name and rank */
    struct plan *plan;
};

/* ---- the files ---- */

static uint64_t count_ranks(struct ts_in *in)
{
    const struct toc *toc = ts_toc(in);
    uint64_t ranks = 0, of, rank;
    for (size_t i = 0; i < toc->shards; i++, ranks = of) {
        if (!shard_rank(toc->shard[i], &rank, &of))
            die("%s: %s is not the file of a model-parallel rank, as model0-mp2.safetensors is",
                ts_name(in), toc->shard[i]);
        if (i && of != ranks)
            die("%s: %s and %s are of different numbers of ranks; take those of one", ts_name(in),
                toc->shard[0], toc->shard[i]);
    }
    char *missing = shard_missing(toc->shard, toc->shards);
    if (missing)
        die("%s: %s is missing; all ranks are needed", ts_name(in), missing);
    if (!ranks)
        die("%s: holds no tensor; is it the right stream?", ts_name(in));
    return ranks;
}

static const char *file_of(const struct joining *j, const struct part *part)
{
    const struct toc *toc = ts_toc(j->in);
    return toc->shard[toc->tensor[part->line].shard];
}

/* ---- a tensor ---- */

/* A routed expert is in one file, that of its rank. */
static void check_expert(const struct joining *j, const struct part *part, size_t count,
                         const struct place *place)
{
    const char *name = ts_toc(j->in)->tensor[part->line].name;
    uint64_t rank = plan_rank(j->in, name, place, j->ranks);
    for (size_t i = 0; i < count; i++)
        if (part[i].rank != rank) {
            char *right = shard_of_rank(rank, j->ranks);
            die("%s: %s is in %s, but belongs in %s; are the files of one run?", ts_name(j->in),
                name, file_of(j, &part[i]), right);
        }
}

/* Any other tensor is in all files, in the same form. */
static void check_parts(const struct joining *j, const struct part *part, size_t count)
{
    const struct tensor *tensor = ts_toc(j->in)->tensor, *first = &tensor[part->line];
    for (size_t rank = 0; rank < j->ranks; rank++)
        if (rank >= count || part[rank].rank != rank) {
            char *file = shard_of_rank(rank, j->ranks);
            die("%s: %s is in %s, but not in %s; are the files of one run?", ts_name(j->in),
                first->name, file_of(j, part), file);
        }
    for (size_t i = 1; i < count; i++) {
        const struct tensor *other = &tensor[part[i].line];
        char form[TENSOR_SHAPE_TEXT], other_form[TENSOR_SHAPE_TEXT];
        if (!tensor_same_form(first, other))
            die("%s: %s is %s %s in %s, but %s %s in %s; are the files of one run?", ts_name(j->in),
                first->name, dtype_name(first->dtype), tensor_shape(first, form), file_of(j, part),
                dtype_name(other->dtype), tensor_shape(other, other_form), file_of(j, &part[i]));
    }
}

/* The form of all parts together, in dimension `d`. */
static struct tensor joined_form(const struct joining *j, const struct part *part, unsigned d)
{
    struct tensor form = ts_toc(j->in)->tensor[part->line];
    if (form.rank <= d || !mul_fits(form.dim[d], j->ranks, &form.dim[d]))
        die("%s: %s has %u dimensions, of which ranks cannot each have a part", ts_name(j->in),
            form.name, form.rank);
    return form;
}

/* Set how the tensor is made and its form, from its parts. */
static void join(struct joining *j, const char *name, const struct part *part, size_t count)
{
    static const char shard[] = "model.safetensors"; /* until their number is known */
    struct tensor form = ts_toc(j->in)->tensor[part->line];
    struct place place = model_place(ts_model(j->in), name);
    struct made made = {.first = (uint32_t)j->plan->sources, .count = (uint32_t)count};
    bool routed = place_is_routed(&place);
    if (place.share == SHARE_UNKNOWN || place.share == SHARE_NOTHING)
        die("%s: %s: DeepSeek's inference code for this model has no such tensor", ts_name(j->in),
            form.name);
    if (routed)
        check_expert(j, part, count, &place);
    else
        check_parts(j, part, count);
    if (count == 1) {
        made.how = MAKE_RANGE;
    } else if (place.share == SHARE_ALL) {
        made.how = MAKE_COPY;
    } else {
        unsigned d = place.share == SHARE_COLS;
        made.how = d ? MAKE_SIDE : MAKE_STACK;
        form = joined_form(j, part, d);
    }
    if (form.dtype == DTYPE_F4) { /* as releases have it */
        form.dtype = DTYPE_I8;
        form.dim[form.rank - 1] /= 2;
    }
    for (size_t i = 0; i < count; i++)
        plan_source(j->plan, part[i].line);
    plan_add(j->plan, shard, name, &form, &made);
}

static int by_name_and_rank(const void *left, const void *right)
{
    const struct part *a = left, *b = right;
    return a->name != b->name   ? (a->name > b->name) - (a->name < b->name)
           : a->rank != b->rank ? (a->rank > b->rank) - (a->rank < b->rank)
                                : (a->line > b->line) - (a->line < b->line);
}

/* ---- all ---- */

static void find_parts(struct joining *j)
{
    const struct toc *toc = ts_toc(j->in);
    struct names *names = names_new();
    j->part = xalloc(toc->count, sizeof *j->part);
    for (size_t i = 0; i < toc->count; i++) {
        char name[TENSOR_NAME_MAX + 1];
        uint64_t rank, ranks;
        if (!model_from_ranks(ts_model(j->in), toc->tensor[i].name, name))
            die("%s: %s: DeepSeek's inference code for this model has no such tensor",
                ts_name(j->in), toc->tensor[i].name);
        shard_rank(toc->shard[toc->tensor[i].shard], &rank, &ranks);
        j->part[i] = (struct part){names_add(names, name), rank, i};
    }
    names_free(names);
    qsort(j->part, toc->count, sizeof *j->part, by_name_and_rank);
}

static void join_all(struct joining *j)
{
    const struct toc *toc = ts_toc(j->in);
    for (size_t i = 0, end; i < toc->count; i = end) {
        char name[TENSOR_NAME_MAX + 1];
        for (end = i + 1; end < toc->count && j->part[end].name == j->part[i].name; end++)
            if (j->part[end].rank == j->part[end - 1].rank)
                die("%s: %s and %s in %s are one tensor of this model; is it of another?",
                    ts_name(j->in), toc->tensor[j->part[end - 1].line].name,
                    toc->tensor[j->part[end].line].name, file_of(j, &j->part[end]));
        (void)model_from_ranks(ts_model(j->in), toc->tensor[j->part[i].line].name, name);
        join(j, name, &j->part[i], end - i);
    }
}

/* The shard of each line, from 1, and so their number: a new one where a module would not fit. */
static uint64_t cut_into_shards(const struct toc *toc, uint64_t *shard)
{
    uint64_t number = 1, bytes = 0;
    for (size_t i = 0, end; i < toc->count; i = end) {
        char module[TENSOR_NAME_MAX + 1], other[TENSOR_NAME_MAX + 1];
        uint64_t size = 0;
        weight_module(&toc->tensor[i], module);
        for (end = i; end < toc->count; end++) {
            if (strcmp(weight_module(&toc->tensor[end], other), module) != 0)
                break;
            if (!add_fits(size, toc->tensor[end].size, &size))
                die("%s: its size overflows", module);
        }
        if (bytes && (size > shard_max || bytes > shard_max - size)) {
            number++;
            bytes = 0;
        }
        bytes += size;
        for (size_t line = i; line < end; line++)
            shard[line] = number;
    }
    return number;
}

static void name_shards(struct plan *plan)
{
    struct toc *unnamed = plan->toc, *toc = toc_new();
    uint64_t *shard = xalloc(unnamed->count, sizeof *shard);
    uint64_t shards = cut_into_shards(unnamed, shard);
    for (size_t i = 0; i < unnamed->count; i++) {
        struct tensor line = unnamed->tensor[i];
        char *name = shard_of_release(shard[i], shards);
        line.shard = toc_shard(toc, name);
        toc_derive(toc, &line, line.name, line.dtype, line.rank, line.dim);
        free(name);
    }
    free(shard);
    toc_free(unnamed);
    plan->toc = toc;
}

struct plan *plan_from_ranks(struct ts_in *in)
{
    struct joining j = {.in = in, .ranks = count_ranks(in), .plan = plan_new()};
    char *reason = model_ranks_refuse(ts_model(in), j.ranks);
    if (reason)
        die("%s: %s", ts_name(in), reason);
    find_parts(&j);
    join_all(&j);
    free(j.part);
    plan_sort(j.plan, ts_model(in), ts_name(in));
    name_shards(j.plan);
    whole_check_table(in, j.plan->toc);
    return j.plan;
}
