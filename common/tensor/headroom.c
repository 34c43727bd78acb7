#include "tensor/headroom.h"

#include <math.h>

/* The first bucket from `from` on up to which there are `percent` of all from there on; the counts
 * are not all 0. */
static int percentile(const int64_t *count, int from, double percent)
{
    double all = 0, below = 0;
    for (int i = from; i < HEADROOM_BUCKETS; i++)
        all += (double)count[i];
    for (int i = from; i < HEADROOM_BUCKETS; i++) {
        below += (double)count[i];
        if (below > 0 && below >= all * percent / 100)
            return i;
    }
    return HEADROOM_BUCKETS - 1;
}

static double middle_log2(int bucket)
{
    return HEADROOM_LEAST + (bucket + 0.5) * HEADROOM_PER_BUCKET / HEADROOM_PER_OCTAVE;
}

/* The bucket of 10^6 times less than the middle of another. */
static int far_below(int bucket)
{
    double steps = (middle_log2(bucket) - log2(1e6) - HEADROOM_LEAST) * HEADROOM_PER_OCTAVE;
    return steps < 0 ? 0 : (int)(steps / HEADROOM_PER_BUCKET);
}

float headroom_amax(const int64_t *count, float largest)
{
    const double percent_low = 1, percent_high = 99.99, rho = 16384;
    int64_t any = 0;
    for (int i = 0; i < HEADROOM_BUCKETS; i++)
        any |= count[i];
    if (!any)
        return largest;
    int high = percentile(count, 0, percent_high);
    int low = percentile(count, far_below(high), percent_low);
    return (float)fmax(rho * exp2(middle_log2(low)), exp2(middle_log2(high)));
}
