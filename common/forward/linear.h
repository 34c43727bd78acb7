/* linear.h: one linear layer: how its weight gets onto the device, and products with it. What goes
 * through is observed: the largest magnitudes of weight, input and output. */
#ifndef LINEAR_H
#define LINEAR_H

#include "forward/forward.h"
#include "model/weights.h"

/* A tensor with all that belongs to it, as it lies in the checkpoint. */
struct raw_weight {
    const struct tensor *tensor;
    const struct weight *weight;
    const struct scales *scales;
    float input_scale; /* NVFP4; else 0 */
    const void *raw;   /* its bytes in memory, or else on the device: */
    struct mat bytes;
    struct mat scale; /* the same for its scales->raw */
};

/* The columns of `seen`. */
enum { SEEN_WEIGHT, SEEN_INPUT, SEEN_OUTPUT, SEEN };

/* A weight in use; all zeros where there is none. */
struct linear {
    struct operand **operand; /* `groups` of them: rows of the weight, each for its own columns */
    uint64_t groups;
    uint64_t outputs; /* columns of what comes out */
    enum activation activation;
    float scale_2;
    const char *module; /* its name: the table's, or the matrix's */
    struct mat seen;    /* [1, SEEN] F32 */
    uint64_t rows;      /* that went through */
};

/* What a product with a weight of that format asks of its input; `expert`: it is of an expert. */
enum activation linear_activation(enum arithmetic arithmetic, enum format format, bool expert);

/* Onto the device, cut into `groups`, at least 1, of as many rows each. `seen` stays the caller's.
 * An NVFP4 activation without an input_scale ends the process. Ended with linear_drop(). */
void linear_load(struct device *d, struct linear *linear, const struct raw_weight *from,
                 enum activation activation, uint64_t groups, struct mat seen);
void linear_drop(struct device *d, struct linear *linear);

/* y [rows, outputs] = x · weightᵀ, after quantization of x if it asks for that; with groups, each
 * takes its columns of x, and gives its columns of y. x BF16, y BF16 or F32. */
void linear_apply(struct device *d, struct linear *linear, struct mat y, struct mat x);

/* y = down(silu(gate(x)) · up(x)), as an expert has it; limit and weight as for device.h's
 * swiglu(). BF16. */
void linear_mlp(struct device *d, struct linear *gate, struct linear *up, struct linear *down,
                float limit, struct mat y, struct mat x, struct mat weight);

#endif
