/* scale_search.h: NVFP4 block scales that are chosen by the error they cause, where
 * nvfp4_scales_row() takes them from the largest magnitude of a block. Only the scales differ:
 * nvfp4_nibbles_row() makes the codes under them, and any engine reads the result.
 *
 * Sources: Model Optimizer, calib/mse.py (NVFP4MSECalibrator), its recipe nvfp4_four_over_six, and
 * arXiv:2512.02010 (four over six).
 *
 * Errors are computed in integers of 16 bits: every version of a search makes the same choices. Of
 * two scales whose errors differ by less than about 1e-4, either may be chosen; the error of a
 * whole matrix is then within 1e-6 of the least. Pure functions over rows as in nvfp4.h; a block
 * that holds NaN or an infinity gives NVFP4_NOT_FINITE, one of zeros 1. A subnormal scale_2, which
 * has no precision to search for, gives the scales of nvfp4_scales_row(). */
#ifndef SCALE_SEARCH_H
#define SCALE_SEARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum scale_search { SEARCH_MAX, SEARCH_MSE, SEARCH_FOUR_OVER_SIX, SEARCH_HESSIAN };

/* The search called "max", "mse", "4over6" or "hessian"; the last is in hessian_search.h. */
enum scale_search scale_search_named(const char *name);

/* scale_2 of a weight for a search: amax / (6 * 448), or amax / (6 * 256) for four over six, which
 * leaves the block scales room for 1.5 times as much. */
float scale_search_scale_2(enum scale_search search, float amax);

/* Of all 126 positive E4M3 values, per block the one with the least squared error. */
void nvfp4_scales_mse_row(uint8_t *scale, const uint16_t *w, size_t cols, float scale_2);

/* Per block, of two scales the one with the lesser squared error: the one under which the largest
 * magnitude is coded as 6, as in nvfp4_scales_row(), or 1.5 times that, under which it is coded as
 * 4. */
void nvfp4_scales_four_over_six_row(uint8_t *scale, const uint16_t *w, size_t cols, float scale_2);

/* ---- for the versions ---- */

/* False for a scale_2 > 0 that is subnormal. */
static inline bool scale_search_possible(float scale_2)
{
    return scale_2 >= 0x1p-126f;
}

/* Magnitudes of a block become integers: 65535 for the largest, in proportion to it for the others,
 * rounded up. One smaller than this stands in for the largest if that is smaller yet. */
#define SEARCH_AMAX_LEAST 0x1p-100f

/* Divided by a block scale they become integers again, of which 2^bits are a quarter, rounded down.
 * FINE_BITS are enough up to 8 times the scale; COARSE_BITS up to SEARCH_QUARTERS quarters of it,
 * with errors whose squares fit in 32 bits. */
enum { FINE_BITS = 11, COARSE_BITS = 8, SEARCH_QUARTERS = 63 };

/* By the block's amax, in units of scale_2, and by 4 / scale, this gives the multiplier for that:
 * the integer is the upper half of a product of 16 by 16 bits. */
#define SEARCH_FACTOR(bits) ((float)(0x1p16 / 65535 * (1 << (bits))))

/* The nearest E2M1 value in quarters, by the whole number of quarters: below 16, and below 32. From
 * 20 on it is 24. Halfway between two values, either has the same error. */
#define SEARCH_NEAREST_16 0, 2, 2, 4, 4, 6, 6, 8, 8, 8, 12, 12, 12, 12, 16, 16
#define SEARCH_NEAREST_32 16, 16, 16, 16, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24
#define SEARCH_NEAREST_64 SEARCH_MORE_24, SEARCH_MORE_24
#define SEARCH_MORE_24 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24

#endif
