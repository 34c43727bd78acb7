#include "quantize/weight_error.h"

#include <math.h>

#include "tensor/bf16.h"

static const double unit = 1e-9;

/* In four sums, which a processor adds at the same time. */
void weight_sums_add(struct weight_sums *sums, const uint16_t *before, const uint16_t *after,
                     size_t cols)
{
    enum { LANES = 4 };
    double changes[LANES] = {0}, weights[LANES] = {0};
    for (size_t i = 0; i < cols; i++) {
        double weight = bf16_to_f32(before[i]), change = weight - bf16_to_f32(after[i]);
        changes[i % LANES] += change * change;
        weights[i % LANES] += weight * weight;
    }
    for (unsigned i = 0; i < LANES; i++) {
        sums->changes += changes[i];
        sums->weights += weights[i];
    }
}

void weight_error_count(struct ts_out *out, const struct model *model, const struct place *place,
                        const struct weight_sums *sums)
{
    char path[TENSOR_NAME_MAX + 1];
    double error = sums->weights > 0 ? sums->changes / sums->weights : 0;
    model_layer_path(model, place, path);
    if (!*path)
        return;
    ts_count(out, "weight_error_of", path, 1);
    /* no packing of finite weights is worse than dropping them all, which is 1 */
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
