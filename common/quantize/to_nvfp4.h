/* to_nvfp4.h: what nvfp4-cast and nvfp4-pack share: which matrices become NVFP4, which of them go
 * together, what the table then looks like, and the loop around one group.
 *
 * A group is a matrix, or the members of a fused product (gate and up), which share weight_scale_2
 * and input_scale; the model's family says which (see place.h). Its lines follow each other in the
 * stream; they are held until the last of them has come, then the group is written. In a part of a
 * checkpoint, a member may be `context`: it counts for what is shared, and passes. */
#ifndef TO_NVFP4_H
#define TO_NVFP4_H

#include "model/weights.h"
#include "quantize/amax.h"
#include "quantize/recipe.h"
#include "stream/band_pipeline.h"
#include "tensor/weight.h"

/* One matrix of a group while it is written. */
struct member {
    const struct weight *w;
    const struct tensor *tensor; /* X.weight in the incoming table */
    struct ts_held *held;        /* its bytes */
    struct ts_held *held_scale;  /* those of its scale, or NULL */
    struct scales scales;
};

struct group {
    size_t first, last; /* lines */
    unsigned members;
    float input_amax; /* the larger one */
    struct member member[GROUP_MAX];
};

/* Options that both programs have. A plan can do without amaxes. */
struct to_nvfp4_options {
    const char *recipe, *amax, *cpu;
    uint64_t threads;
    unsigned ahead; /* not an option of the user's: bands on their way beyond ORDERED_POOL_SLACK */
};

/* These options after the program's own, --recipe with its default; the caller frees the result. */
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
    uint32_t *leader; /* by matrix: the first one of its group; WEIGHT_NONE if it is in none */
    bool quiet;
    uint64_t packed;   /* matrices so far */
    uint64_t *experts; /* by class (see model.h): routed experts so far */
    struct place last; /* of the expert that was counted last */
};

/* Read table and amaxes, and make the plan: matrices to which the recipe gives NVFP4 and whose
 * format `convertible` (indexed by enum format) allows become that. A missing input amax or member
 * of a group ends the process. Creates the output stream; its history tells the recipe
 * and the amaxes by their digests. */
void to_nvfp4_begin(struct to_nvfp4 *job, const struct stage *stage,
                    const struct to_nvfp4_options *options, const bool *convertible);

/* Run all tensors through: groups go to `convert`, which must give the bands of each member in
 * order: one that is context with to_nvfp4_pass(), the others with to_nvfp4_scales(), weight_scale
 * and weight; everything else passes. What is held of a group lives until convert() returns, the
 * rest of it until all that it gave is written; when the function returns, that is all. */
typedef void to_nvfp4_convert(struct to_nvfp4 *job, struct group *group, void *context);
void to_nvfp4_run(struct to_nvfp4 *job, to_nvfp4_convert *convert, void *context);

/* Emit a member that is context as it came. */
void to_nvfp4_pass(struct to_nvfp4 *job, const struct member *member);

/* Emit X.input_scale and X.weight_scale_2 of a member, and count it. */
void to_nvfp4_scales(struct to_nvfp4 *job, const struct group *group, const struct member *member,
                     float scale_2);

/* Emit X.weight_scale or X.weight ("weight_scale", "weight") in bands, all of which are as `like`
 * is (convert, check and of), of `most` rows at most. A row has raw_row bytes of the weight as it
 * lies (0: convert() needs none), and out_row bytes to write. */
void to_nvfp4_bands(struct to_nvfp4 *job, const struct member *member, const char *which,
                    const struct band *like, uint64_t most, uint64_t raw_row, uint64_t out_row);

/* Emit X.weight_scale or X.weight from memory, as bands_put_from() does. */
void to_nvfp4_put_from(struct to_nvfp4 *job, const struct member *member, const char *which,
                       const void *data, size_t size);

/* Finish the streams and free everything. Takes over `counts` (an object of the stage's own). */
void to_nvfp4_finish(struct to_nvfp4 *job, json_t *counts);

#endif
