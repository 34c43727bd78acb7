/* inputs.h: what a run records of a linear's inputs besides their largest magnitude. */
#ifndef INPUTS_H
#define INPUTS_H

#include "forward/device.h"

/* Kinds, to be added up. */
enum {
    INPUTS_MOMENTS = 1, /* second moments per block of columns: device.h, add_moments() */
    INPUTS_AMAXES = 2,  /* how large blocks are: device.h, count_amaxes() */
};

/* Of one linear. Matrices of a kind that is not recorded have no rows. */
struct inputs {
    struct mat moments; /* [cols, DEVICE_BLOCK] F32 */
    struct mat amaxes;  /* [2, HEADROOM_BUCKETS] I64: of the input, and of it without the router's
                           weight */
};

/* Begin to record `kinds` of an input of `cols` columns, with nothing so far. inputs_end() frees
 * it, and accepts zeros. */
void inputs_begin(struct inputs *inputs, struct device *d, unsigned kinds, uint64_t cols);
void inputs_end(struct inputs *inputs, struct device *d);

/* Record rows of input; those without the router's weight count only for the second amaxes. NULL
 * records nothing. */
void inputs_record(const struct inputs *inputs, struct device *d, struct mat x);
void inputs_record_unweighted(const struct inputs *inputs, struct device *d, struct mat x);

#endif
