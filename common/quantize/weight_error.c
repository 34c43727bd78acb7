#include "quantize/weight_error.h"

#include <math.h>

#include "tensor/bf16.h"

static const double unit = 1e-9;

/* In parts, which a processor adds at the same time. */
void weight_sums_add(double sum[2], const uint16_t *before, const uint16_t *after, size_t cols)
{
    enum { PARTS = 8 };
    double changes[PARTS] = {0}, weights[PARTS] = {0};
    for (size_t i = 0; i + PARTS <= cols; i += PARTS)
        for (size_t j = 0; j < PARTS; j++) {
            double weight = bf16_to_f32(before[i + j]), change = weight - bf16_to_f32(after[i + j]);
            changes[j] += change * change;
            weights[j] += weight * weight;
        }
    for (size_t j = 0; j < PARTS; j++) {
        sum[0] += changes[j];
        sum[1] += weights[j];
    }
}

void weight_error_count(struct ts_out *out, const struct model *model, const struct place *place,
                        const double sum[2])
{
    char path[TENSOR_NAME_MAX + 1];
    double error = sum[1] > 0 ? sum[0] / sum[1] : 0;
    model_layer_path(model, place, path);
    if (!*path)
        return;
    ts_count(out, "weight_error_of", path, 1);
    /* no packing is worse than dropping all weights, which is 1; nothing counts 0 of a shard */
    if (error >= unit)
        ts_count(out, "weight_error", path, (uint64_t)llround(fmin(error, 1) / unit));
}

bool weight_error_find(struct weight_error *error, const json_t *counts, const char *path)
{
    double sum = 0;
    size_t i;
    json_t *stage;
    *error = (struct weight_error){0};
    json_array_foreach((json_t *)counts, i, stage)
    {
        json_t *matrices = json_object_get(json_object_get(stage, "weight_error_of"), path);
        error->matrices += (uint64_t)json_integer_value(matrices);
        sum += (double)json_integer_value(
            json_object_get(json_object_get(stage, "weight_error"), path));
    }
    if (error->matrices)
        error->relative = sqrt(sum * unit / (double)error->matrices);
    return error->matrices;
}
