/* assemble.h: writes the tensors of a plan (plan.h) while those it is made of arrive.
 *
 * A tensor that is consecutive bytes of one that came by reference goes out by reference, too. All
 * others are made in bands of rows, so that memory does not grow with their size. A tensor that
 * arrives is kept until all that is made of it is written (ts_hold()). */
#ifndef RESHARD_ASSEMBLE_H
#define RESHARD_ASSEMBLE_H

#include "reshard/plan.h"
#include "tensor/codec.h"

struct assembly {
    struct ts_in *in;
    struct ts_out *out; /* made with plan->toc */
    const struct plan *plan;
    const struct weights *weights; /* of the input; for BF16 and FP8 only, else NULL */
    const struct codec *codec;
    unsigned threads;
};

/* What was counted. */
struct assembled {
    uint64_t dequantized, nan; /* matrices to BF16, and the FP8 NaN in them */
    uint64_t blocks, lossy;    /* MXFP4 blocks cast to FP8, and those that lost something */
};

/* Read the whole input, and write all lines of the plan. Copies that differ end the process. */
struct assembled assemble(const struct assembly *assembly);

#endif
