/* From a release to model-parallel ranks. */
#include <inttypes.h>
#include <stdlib.h>

#include "base/die.h"
#include "reshard/plan.h"
#include "stream/shard_name.h"
#include "tensor/fp4_to_fp8.h"
#include "tensor/mxfp4.h"

struct splitting {
    struct ts_in *in;
    const struct weights *weights;
    uint64_t ranks;
    enum experts experts;
    struct plan *plan;
};

/* A tensor of the release. */
struct whole {
    size_t line;
    const struct tensor *tensor;
    const struct weight *w; /* the matrix that it belongs to, or NULL */
    bool is_scale;          /* of that matrix */
    struct place place;
    char name[TENSOR_NAME_MAX + 1]; /* in the files of ranks */
};

/* Give a rank a tensor of that form, made of the last `count` sources. */
static void give(struct splitting *s, const struct whole *whole, uint64_t rank,
                 const struct tensor *form, struct made made)
{
    char *shard = shard_of_rank(rank, s->ranks);
    made.first = (uint32_t)s->plan->sources - made.count;
    plan_add(s->plan, shard, whole->name, form, &made);
    free(shard);
}

/* ---- routed experts ---- */

/* The format they shall have. */
static bool becomes_fp8(const struct splitting *s, const struct whole *whole)
{
    const struct weight *w = whole->w;
    enum format format = w ? w->format : FORMAT_PLAIN;
    bool wrong = (s->experts == EXPERTS_FP4 && format != FORMAT_MXFP4) ||
                 (s->experts == EXPERTS_FP8 && format == FORMAT_PLAIN);
    if (wrong)
        die("%s: %s: this expert is %s, of which --experts makes nothing else; leave it out",
            ts_name(s->in), whole->tensor->name,
            w && format != FORMAT_PLAIN ? format_name(format) : dtype_name(whole->tensor->dtype));
    return s->experts == EXPERTS_FP8 && format == FORMAT_MXFP4;
}

/* The form of an MXFP4 matrix or its scale in FP8. */
static struct tensor fp8_form(const struct splitting *s, const struct whole *whole)
{
    const struct weight *w = whole->w;
    struct tensor form = *whole->tensor;
    if (w->rows % FP4_TO_FP8_BLOCK || w->cols % FP4_TO_FP8_BLOCK)
        die("%s: %s: %" PRIu64 " by %" PRIu64
            " elements are no whole blocks of %d by %d, which FP8 "
            "needs",
            ts_name(s->in), whole->tensor->name, w->rows, w->cols, FP4_TO_FP8_BLOCK,
            FP4_TO_FP8_BLOCK);
    uint64_t block = whole->is_scale ? FP4_TO_FP8_BLOCK : 1;
    form.dtype = whole->is_scale ? DTYPE_F8_E8M0 : DTYPE_F8_E4M3;
    form.dim[0] = w->rows / block;
    form.dim[1] = w->cols / block;
    return form;
}

/* To the rank that has this expert. */
static void deal(struct splitting *s, const struct whole *whole)
{
    const struct weight *w = whole->w;
    struct tensor form = *whole->tensor;
    uint64_t rank = plan_rank(s->in, form.name, &whole->place, s->ranks);
    if (becomes_fp8(s, whole)) {
        form = fp8_form(s, whole);
        plan_source(s->plan, w->scale);
        if (!whole->is_scale)
            plan_source(s->plan, whole->line);
        give(s, whole, rank, &form,
             whole->is_scale ? (struct made){.how = MAKE_FP8_SCALE, .count = 1}
                             : (struct made){.how = MAKE_FP8, .count = 2});
        return;
    }
    if (w && w->format == FORMAT_MXFP4 && !whole->is_scale) {
        form.dtype = DTYPE_F4;
        form.dim[1] = w->cols;
    }
    plan_source(s->plan, whole->line);
    give(s, whole, rank, &form, (struct made){.how = MAKE_RANGE, .count = 1});
}

/* ---- other tensors ---- */

static void give_all(struct splitting *s, const struct whole *whole)
{
    plan_source(s->plan, whole->line);
    for (uint64_t rank = 0; rank < s->ranks; rank++)
        give(s, whole, rank, whole->tensor, (struct made){.how = MAKE_RANGE, .count = 1});
}

/* The form of a rank's part: of dimension `d`, the ranks-th part. */
static struct tensor part_form(const struct splitting *s, const struct whole *whole, unsigned d)
{
    static const char *const what[] = {"rows", "columns"};
    struct tensor form = *whole->tensor;
    if (form.rank <= d || form.dim[d] % s->ranks)
        die("%s: %s: its %" PRIu64 " %s cannot be divided by %" PRIu64 " ranks", ts_name(s->in),
            form.name, form.rank <= d ? 0 : form.dim[d], what[d], s->ranks);
    form.dim[d] /= s->ranks;
    form.size /= s->ranks;
    return form;
}

/* A block of elements with a common scale must not be torn. */
static void check_blocks(const struct splitting *s, const struct whole *whole, unsigned d,
                         const struct tensor *form)
{
    const struct weight *w = whole->w;
    if (s->ranks == 1 || !w || w->format != FORMAT_FP8 || whole->is_scale)
        return;
    uint64_t block = d ? w->block_cols : w->block_rows;
    if (form->dim[d] % block)
        die("%s: %s: a rank's %" PRIu64 " %s of it are no whole blocks of %" PRIu64
            ", which have a scale each",
            ts_name(s->in), form->name, form->dim[d], d ? "columns" : "rows", block);
}

static void give_rows(struct splitting *s, const struct whole *whole)
{
    struct tensor form = part_form(s, whole, 0);
    check_blocks(s, whole, 0, &form);
    plan_source(s->plan, whole->line);
    for (uint64_t rank = 0; rank < s->ranks; rank++)
        give(s, whole, rank, &form,
             (struct made){.how = MAKE_RANGE, .count = 1, .offset = rank * form.size});
}

static void give_cols(struct splitting *s, const struct whole *whole)
{
    if (s->ranks == 1) { /* all columns are consecutive */
        give_all(s, whole);
        return;
    }
    struct tensor form = part_form(s, whole, 1);
    check_blocks(s, whole, 1, &form);
    uint64_t row_bytes = form.dim[0] ? form.size / form.dim[0] : 0;
    plan_source(s->plan, whole->line);
    for (uint64_t rank = 0; rank < s->ranks; rank++)
        give(s, whole, rank, &form,
             (struct made){.how = MAKE_COLS, .count = 1, .offset = rank * row_bytes});
}

/* FP8 loses its scale. */
static void give_rows_bf16(struct splitting *s, const struct whole *whole)
{
    if (!whole->w || whole->w->format != FORMAT_FP8) {
        give_rows(s, whole);
        return;
    }
    struct tensor form = part_form(s, whole, 0);
    if (whole->is_scale)
        return;
    form.dtype = DTYPE_BF16;
    plan_source(s->plan, whole->w->scale);
    plan_source(s->plan, whole->line);
    for (uint64_t rank = 0; rank < s->ranks; rank++)
        give(s, whole, rank, &form,
             (struct made){.how = MAKE_BF16, .count = 2, .offset = rank * form.dim[0]});
}

/* ---- all ---- */

static void share(struct splitting *s, const struct whole *whole)
{
    if (place_is_routed(&whole->place) && whole->place.share != SHARE_NOTHING) {
        deal(s, whole);
        return;
    }
    switch ((enum share)whole->place.share) {
    case SHARE_ALL:
        give_all(s, whole);
        break;
    case SHARE_ROWS:
        give_rows(s, whole);
        break;
    case SHARE_ROWS_BF16:
        give_rows_bf16(s, whole);
        break;
    case SHARE_COLS:
        give_cols(s, whole);
        break;
    case SHARE_NOTHING:
        s->plan->left_out++;
        break;
    case SHARE_UNKNOWN:
        break;
    }
}

static void split(struct splitting *s, size_t line)
{
    const struct tensor *tensor = &ts_toc(s->in)->tensor[line];
    struct whole whole = {.line = line,
                          .tensor = tensor,
                          .w = weight_of(s->weights, line),
                          .place = model_place(ts_model(s->in), tensor->name)};
    whole.is_scale = whole.w && line != whole.w->line;
    if (whole.place.share == SHARE_UNKNOWN ||
        !model_to_ranks(ts_model(s->in), tensor->name, whole.name))
        die("%s: %s: it is not known what model-parallel ranks have of this tensor; DeepSeek's "
            "inference code for this model may",
            ts_name(s->in), tensor->name);
    if (whole.w && whole.w->format == FORMAT_NVFP4)
        die("%s: %s: is NVFP4, which DeepSeek's inference code does not read; take the checkpoint "
            "that it was made from",
            ts_name(s->in), tensor->name);
    share(s, &whole);
}

struct plan *plan_to_ranks(struct ts_in *in, const struct weights *weights, uint64_t ranks,
                           enum experts experts)
{
    const struct toc *toc = ts_toc(in);
    struct splitting s = {
        .in = in, .weights = weights, .ranks = ranks, .experts = experts, .plan = plan_new()};
    for (size_t i = 0; i < toc->shards; i++)
        if (shard_is_rank(toc->shard[i]))
            die("%s: %s is a rank's file already; join them first (-r)", ts_name(in),
                toc->shard[i]);
    char *reason = model_ranks_refuse(ts_model(in), ranks);
    if (reason)
        die("%s: %s", ts_name(in), reason);
    for (size_t i = 0; i < toc->count; i++)
        split(&s, i);
    plan_sort(s.plan, ts_model(in), ts_name(in));
    return s.plan;
}
