#include "forward/rope.h"

#include <math.h>
#include <stdlib.h>

#include "base/die.h"

void rope_read_scaling(struct rope *rope, const struct config *config)
{
    const struct config scaling = config_object(config, "rope_scaling");
    rope->factor = config_real(&scaling, "factor", 1);
    rope->beta_fast = config_real(&scaling, "beta_fast", 0);
    rope->beta_slow = config_real(&scaling, "beta_slow", 0);
    rope->original_length = config_count(&scaling, "original_max_position_embeddings", 0);
}

/* The dimension that rotates `turns` times over the original length. */
static double dimension_of(const struct rope *rope, double turns)
{
    double pi = 3.14159265358979323846;
    return (double)rope->dim * log((double)rope->original_length / (turns * 2 * pi)) /
           (2 * log(rope->theta));
}

/* Each pair's angle per position. */
static void frequencies(const struct rope *rope, float *frequency)
{
    bool stretched = rope->original_length > 0;
    double low = 0, high = 0;
    if (stretched) {
        low = fmax(floor(dimension_of(rope, rope->beta_fast)), 0);
        high = fmin(ceil(dimension_of(rope, rope->beta_slow)), (double)rope->dim - 1);
        if (low == high)
            high += 0.001;
    }
    for (uint64_t i = 0; i < rope->dim / 2; i++) {
        float f = 1 / powf((float)rope->theta, (float)(2 * i) / (float)rope->dim);
        if (stretched) {
            float ramp = ((float)i - (float)low) / (float)(high - low);
            float smooth = 1 - fminf(fmaxf(ramp, 0), 1);
            f = f / (float)rope->factor * (1 - smooth) + f * smooth;
        }
        frequency[i] = f;
    }
}

struct mat rope_table(struct device *d, const struct rope *rope, uint64_t length)
{
    uint64_t pairs = rope->dim / 2;
    float *frequency = xalloc((size_t)pairs, sizeof *frequency);
    float *table = xalloc((size_t)(length * rope->dim), sizeof *table);
    frequencies(rope, frequency);
    for (uint64_t t = 0; t < length; t++)
        for (uint64_t i = 0; i < pairs; i++) {
            float angle = (float)t * frequency[i];
            table[t * rope->dim + 2 * i] = cosf(angle);
            table[t * rope->dim + 2 * i + 1] = sinf(angle);
        }
    struct mat m = d->make(d, DTYPE_F32, length, rope->dim);
    d->write(d, m, table);
    free(frequency);
    free(table);
    return m;
}
