/* to_nvfp4.h: what nvfp4-cast and nvfp4-pack share: which matrices become NVFP4, how they are
 * grouped, the outgoing table, and the loop around one group.
 *
 * A group is one matrix, or the members of a fused product (gate and up), which share
 * weight_scale_2 and input_scale; the model's family defines it (see place.h). Its lines are
 * consecutive in the stream. They are held until the last one has arrived; then the group is
 * written. In a part of a checkpoint, a member may be `context`: it contributes to the shared
 * scales, and passes unchanged. */
#ifndef TO_NVFP4_H
#define TO_NVFP4_H

#include "model/weights.h"
#include "quantize/amax.h"
#include "quantize/recipe.h"
#include "stream/band_pipeline.h"
#include "tensor/weight.h"

/* A matrix of a group while the group is written. */
struct member {
    const struct weight *w;
    const struct tensor *tensor; /* X.weight in the incoming table */
    struct ts_held *held;        /* its bytes */
    struct ts_held *held_scale;  /* its scale's bytes, or NULL */
    struct scales scales;
};

struct group {
    size_t first, last; /* lines */
    unsigned members;
    double input_amax; /* the largest of its members */
    struct member member[GROUP_MAX];
};

struct to_nvfp4;

/* The options of both programs. A plan works without amaxes. */
struct to_nvfp4_options {
    const char *recipe, *drafts, *kv, *amax, *cpu;
    uint64_t threads;
    /* Not command-line options: bands in the pipeline beyond ORDERED_POOL_SLACK; and what else a
     * program needs of the recipe before the output begins, or adds to stage->entry; or NULL. */
    unsigned ahead;
    void (*prepare)(struct to_nvfp4 *job, const struct stage *stage, void *context);
    void *context; /* of prepare() */
};

/* The program's own options followed by these, with --recipe's default set; the caller frees the
 * table. */
struct arg *to_nvfp4_args(struct to_nvfp4_options *o, const struct arg *own);

struct to_nvfp4 {
    struct ts_in *in;
    struct ts_out *out;
    struct band_pipeline *bands; /* to out */
    const struct codec *codec;
    struct toc *toc; /* outgoing */
    struct weights weights;
    struct amaxes *amaxes; /* NULL: a plan without them */
    struct recipe *recipe;
    bool *selected;   /* by matrix: becomes NVFP4 */
    uint32_t *leader; /* by matrix: the first matrix of its group; WEIGHT_NONE if it is in none */
    bool quiet;
};

/* Read the table and the amaxes, and make the plan: a matrix becomes NVFP4 if the recipe says so
 * and `convertible` (indexed by enum format) allows its format. A missing input amax or member of a
 * group ends the process, and so does what convertible.h refuses. Creates the output stream; its
 * history identifies recipe and amaxes by their digests. to_nvfp4_finish() frees everything. */
void to_nvfp4_begin(struct to_nvfp4 *job, const struct stage *stage,
                    const struct to_nvfp4_options *options, const bool *convertible);

/* Process all tensors. Each group goes to `convert`, which must write its members in order: one
 * that is context with to_nvfp4_pass(); the others with to_nvfp4_scales(), then weight_scale and
 * weight, and have to_nvfp4_count() called when it is written. Everything else passes. A group's
 * held bytes live until convert() returns, the rest of the group until everything convert()
 * submitted is written. When to_nvfp4_run() returns, everything is. */
typedef void to_nvfp4_convert(struct to_nvfp4 *job, struct group *group, void *context);
void to_nvfp4_run(struct to_nvfp4 *job, to_nvfp4_convert *convert, void *context);

/* Write a context member unchanged. */
void to_nvfp4_pass(struct to_nvfp4 *job, const struct member *member);

/* Count a member, on the writing thread (bands_after()). */
void to_nvfp4_count(const struct to_nvfp4 *job, const struct member *member);

/* Write X.input_scale and X.weight_scale_2 of a member. */
void to_nvfp4_scales(struct to_nvfp4 *job, const struct group *group, const struct member *member,
                     float scale_2);

/* Write X.weight_scale or X.weight (`which` is "weight_scale" or "weight") in bands of at most
 * `most` rows, with the convert, check and of of `like`. A row has raw_row bytes of the stored
 * weight (0: convert() needs none) and out_row bytes to write. */
void to_nvfp4_bands(struct to_nvfp4 *job, const struct member *member, const char *which,
                    const struct band *like, uint64_t most, uint64_t raw_row, uint64_t out_row);

/* Write X.weight_scale or X.weight from memory, as bands_put_from() does. */
void to_nvfp4_put_from(struct to_nvfp4 *job, const struct member *member, const char *which,
                       const void *data, size_t size);

/* Finish the streams and free everything. */
void to_nvfp4_finish(struct to_nvfp4 *job);

#endif
