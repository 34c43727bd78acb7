/* linear.h: one linear layer: its weight on the device, and products with it. They record the
 * largest magnitudes of weight, input and output. */
#ifndef LINEAR_H
#define LINEAR_H

#include "forward/forward.h"
#include "forward/inputs.h"
#include "model/weights.h"

/* A tensor with its scales, as the checkpoint stores them. */
struct raw_weight {
    const struct tensor *tensor;
    const struct weight *weight;
    const struct scales *scales;
    float input_scale; /* NVFP4; else 0 */
    const void *raw;   /* its bytes in memory; NULL if they are on the device: */
    struct mat bytes;
    struct mat scale;                  /* scales->raw on the device */
    struct ts_held *rows, *row_scales; /* instead, of PIECE_ROWS: to be read by number */
};

/* The columns of `seen`. SEEN_UNWEIGHTED: the input without the router's weight, by linear_mlp().
 */
enum seen { SEEN_WEIGHT, SEEN_INPUT, SEEN_UNWEIGHTED, SEEN_OUTPUT, SEEN };

/* Which magnitudes a product records itself. The others are recorded by operations before and after
 * it, which read the same memory anyway: those of device.h with `seen`. */
enum sees { SEES_NEITHER, SEES_INPUT, SEES_OUTPUT, SEES_BOTH = SEES_INPUT | SEES_OUTPUT };

/* A weight in use; all zeros where there is none. */
struct linear {
    struct operand **operand;    /* `groups` of them: rows of the weight, each for its own input
                                    columns */
    struct operand **transposed; /* the same of each group's first rows, see struct cut; or NULL */
    uint64_t groups;
    uint64_t outputs; /* columns of the output */
    enum activation activation;
    float scale_2;
    const char *module;          /* its name */
    struct mat seen;             /* [1, SEEN] F32 */
    uint64_t rows;               /* of input so far */
    const struct inputs *inputs; /* to record what they say; NULL: only amaxes */
};

/* How a weight becomes operands: `groups` (at least 1) of equally many rows; each group's first
 * `transposed` rows, if any, are an operand of their own, transposed. */
struct cut {
    uint64_t groups, transposed;
};

/* How a run's product with a weight quantizes its input; `expert`: the weight is an expert's. */
enum activation linear_activation(const struct forward *run, const struct weight *weight,
                                  bool expert);

/* Put a weight on the device. `seen` remains the caller's. An NVFP4 activation without an
 * input_scale ends the process. The caller frees it with linear_drop(). */
void linear_load(struct device *d, struct linear *linear, const struct raw_weight *from,
                 enum activation activation, struct cut cut, struct mat seen);
void linear_drop(struct device *d, struct linear *linear);

/* The magnitude so far, [1, 1] F32. */
struct mat linear_seen(const struct linear *linear, enum seen what);

/* y [rows, outputs] = x · weightᵀ, with x first quantized as linear->activation says; each group
 * reads its columns of x and writes its columns of y. x BF16, y BF16 or F32. */
void linear_apply(struct device *d, struct linear *linear, struct mat y, struct mat x,
                  enum sees sees);

/* Record magnitudes of an input x and an output y, as linear_apply() does: for products with the
 * operands themselves. */
void linear_observe(struct device *d, struct linear *linear, struct mat y, struct mat x);

/* y = down(silu(gate(x)) · up(x)), an expert's MLP; how and weight as for device.h's swiglu().
 * With a weight, which is the router's, down also records its input without it. With
 * SEES_NEITHER, others record x, as gate's input, before, and y, as down's output, after it; else
 * sees is SEES_BOTH. BF16. */
void linear_mlp(struct device *d, struct linear *gate, struct linear *up, struct linear *down,
                struct swiglu how, struct mat y, struct mat x, struct mat weight, enum sees sees);

#endif
