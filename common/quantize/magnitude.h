/* magnitude.h: the amax of a weight itself, where no calibration has it. */
#ifndef MAGNITUDE_H
#define MAGNITUDE_H

#include "stream/ts.h"
#include "tensor/codec.h"
#include "tensor/weight.h"

/* The largest magnitude in matrix `w` as BF16; `held` has its bytes. NaN and infinite elements
 * count as larger than all others. */
float magnitude_largest(const struct codec *codec, const struct weight *w, struct ts_held *held,
                        const struct scales *scales);

#endif
