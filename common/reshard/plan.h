/* plan.h: the table of a checkpoint for model-parallel ranks, made from the release's, or the other
 * way round, and how each of its lines is made of the input's.
 *
 * The files of ranks are those of the inference/convert.py in DeepSeek's releases. The model's
 * family says how they name a tensor, and what each rank has of it (enum share). */
#ifndef RESHARD_PLAN_H
#define RESHARD_PLAN_H

#include "model/weights.h"
#include "stream/ts.h"

enum making {
    MAKE_RANGE,     /* consecutive bytes of a tensor: all of them, or those of some rows */
    MAKE_COLS,      /* some columns of a tensor */
    MAKE_STACK,     /* tensors below each other */
    MAKE_SIDE,      /* tensors side by side */
    MAKE_COPY,      /* one of several tensors, which must be equal */
    MAKE_BF16,      /* some rows of an FP8 matrix, dequantized */
    MAKE_FP8,       /* an MXFP4 matrix in FP8 (fp4_to_fp8.h) … */
    MAKE_FP8_SCALE, /* … and its scale */
};

/* How a line is made. */
struct made {
    enum making how;
    uint32_t first, count; /* of the lines in plan->from: tensors, or a scale and its weight */
    uint64_t offset;       /* RANGE: the first byte; COLS: the first byte in a row; BF16: the first
                            * row */
};

struct plan {
    struct toc *toc;
    struct made *made; /* of each line of toc */
    size_t room;       /* in made */
    uint32_t *from;    /* lines of the input's table */
    size_t sources;    /* in from */
    size_t left_out;   /* lines of the input that no rank has */
};

/* What routed experts in MXFP4 become: by default they stay, and their dtype is called F4. */
enum experts { EXPERTS_ANY, EXPERTS_FP4, EXPERTS_FP8 };

/* The plan from a release to `ranks` ranks; `weights` are the release's. The process ends
 * if the model does not divide among that many ranks, if its experts cannot be in that format, or
 * if the family does not say what ranks have of a tensor. plan_free() frees the result. */
struct plan *plan_to_ranks(struct ts_in *in, const struct weights *weights, uint64_t ranks,
                           enum experts experts);

/* The plan back. Its shards have up to 4 GiB, but for modules that are larger. Files that are not
 * all those of one number of ranks, and tensors that do not fit together or are missing, end the
 * process. plan_free() frees the result. */
struct plan *plan_from_ranks(struct ts_in *in);

void plan_free(struct plan *plan);

/* ---- for these two ---- */

struct plan *plan_new(void);

/* Append `line` of the input to plan->from. */
void plan_source(struct plan *plan, size_t line);

/* Append a line of that shard and name, with the dtype, shape and use of `form`, and how it is
 * made.
 */
void plan_add(struct plan *plan, const char *shard, const char *name, const struct tensor *form,
              const struct made *made);

/* The rank that has the routed expert at `place`, of which `name` is a tensor. */
uint64_t plan_rank(const struct ts_in *in, const char *name, const struct place *place,
                   uint64_t ranks);

/* Sort the lines into stream order. A name twice in a shard ends the process; `stream` is the
 * input's name for that. */
void plan_sort(struct plan *plan, const struct model *model, const char *stream);

#endif
