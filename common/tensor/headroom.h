/* headroom.h: the amax of a linear's input with room above what a calibration saw, from a histogram
 * of the largest magnitudes of its blocks of 16.
 *
 * An input scale only has to keep the blocks' own scales, which are E4M3, in range: 28672 lies
 * between the least and the greatest normal one. So the amax need not be the largest magnitude; if
 * a block that is among the smallest is put near the lower end, the rest of the range is left for
 * inputs that are larger than all that were seen.
 *
 * Source: Model Optimizer, calib/nvfp4_act_headroom.py, and its recipe nvfp4_act_headroom. */
#ifndef HEADROOM_H
#define HEADROOM_H

#include <stdint.h>

/* Buckets of equal size in log2 of a magnitude, over 2^-40 to 2^40; the first and the last have
 * what lies beyond. Zeros are in none. */
enum { HEADROOM_BUCKETS = 512, HEADROOM_LEAST = -40 };

/* A bucket is 5 of the 32 steps of an octave. By a BF16 mantissa m, the steps up to 1 + m / 128: */
enum { HEADROOM_PER_OCTAVE = 32, HEADROOM_PER_BUCKET = 5 };
#define HEADROOM_STEPS                                                                             \
    0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6, 7, 7, 7, 7, 8, 8, 8, 9, 9, 9,   \
        10, 10, 10, 10, 11, 11, 11, 12, 12, 12, 12, 13, 13, 13, 13, 14, 14, 14, 14, 15, 15, 15,    \
        15, 16, 16, 16, 17, 17, 17, 17, 17, 18, 18, 18, 18, 19, 19, 19, 19, 20, 20, 20, 20, 21,    \
        21, 21, 21, 21, 22, 22, 22, 22, 23, 23, 23, 23, 23, 24, 24, 24, 24, 25, 25, 25, 25, 25,    \
        26, 26, 26, 26, 26, 27, 27, 27, 27, 27, 28, 28, 28, 28, 28, 29, 29, 29, 29, 29, 29, 30,    \
        30, 30, 30, 30, 31, 31, 31, 31, 31

/* The bucket of a BF16 magnitude above 0. */
static inline unsigned headroom_bucket(unsigned magnitude)
{
    static const uint8_t steps[128] = {HEADROOM_STEPS};
    int octave = (int)(magnitude >> 7) - 127 - HEADROOM_LEAST;
    int bucket = (octave * HEADROOM_PER_OCTAVE + steps[magnitude & 127]) / HEADROOM_PER_BUCKET;
    if (octave < 0)
        return 0;
    return bucket < HEADROOM_BUCKETS ? (unsigned)bucket : HEADROOM_BUCKETS - 1;
}

/* max(16384 * a, b), with a and b the blocks' 1st and 99.99th percentiles, for a without those
 * below b / 10^6; each is the middle of its bucket, in log2. `largest`, the largest magnitude of
 * all, where the histogram is empty. */
float headroom_amax(const int64_t *count, float largest);

#endif
