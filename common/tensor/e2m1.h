/* e2m1.h: FP4 E2M1, the elements of MXFP4 and NVFP4: sign in bit 3, magnitudes 0 .5 1 1.5 2 3 4 6
 * (OCP Microscaling Formats specification 1.0, 5.3.3). A byte holds two elements; the low nibble is
 * the even column. */
#ifndef E2M1_H
#define E2M1_H

#include <stdint.h>

#define E2M1_MAX 6.0f

/* The value of a nibble 0-15; nibble 8 is -0.0. */
static inline float e2m1_to_f32(unsigned nibble)
{
    static const float value[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                    -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
    return value[nibble & 15];
}

/* The nibble of a quotient w / scale, as in Model Optimizer's NVFP4QTensor._cast_fp4: rounded to
 * nearest, ties to the even code, saturating at 6. The sign bit is set iff q < 0, so -0.0 gives 0
 * and a tiny negative number gives 8. q must not be NaN. */
static inline unsigned e2m1_from_f32(float q)
{
    float a = q < 0 ? -q : q;
    /* ties at .25, 1.25, 2.5 and 5 round down to an even code, those at .75, 1.75 and 3.5 up */
    unsigned code = (a > 0.25f) + (a >= 0.75f) + (a > 1.25f) + (a >= 1.75f) + (a > 2.5f) +
                    (a >= 3.5f) + (a > 5.0f);
    return code | (q < 0 ? 8U : 0U);
}

#endif
