/* expert_layer.h: the routed experts of one layer, by the forward pass, from a file of their own.
 */
#ifndef EXPERT_LAYER_H
#define EXPERT_LAYER_H

#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "forward/experts.h"

/* Borrowed. */
struct expert_layer {
    const char *path; /* safetensors: NAME NUMBER.MATRIX.weight, and scales, of all experts */
    struct expert_pieces pieces; /* what NAME and MATRIX are */
    uint64_t dim, rows;
    const uint16_t *x;     /* [rows, dim] BF16 */
    const int32_t *expert; /* [rows, pieces.used], and their weights */
    const float *weight;
};

/* y: [rows, dim] F32. seen: [experts * EXPERT_MATRICES, SEEN] F32; may be NULL. */
static inline void expert_layer_run(const struct expert_layer *l, struct device *device,
                                    enum arithmetic arithmetic, float *y, float *seen)
{
    char prefix[] = "";
    struct network network = {.device = device, .dim = l->dim};
    struct layer layer = {.network = &network, .prefix = prefix, .experts = l->pieces};
    struct ts_in *in = ts_open(l->path, NULL);
    struct weights weights;
    weights_find(&weights, ts_model(in), ts_toc(in), l->path);
    bool *wanted = xalloc(ts_toc(in)->count, sizeof *wanted);
    memset(wanted, true, ts_toc(in)->count);
    const struct prefetch_plan plan = {.wanted = wanted, .device = device, .budget = 64 << 20};
    const struct forward run = {.network = &network, .arithmetic = arithmetic};
    const struct feed feed = {.in = in,
                              .network = &network,
                              .weights = &weights,
                              .run = &run,
                              .prefetch = prefetch_begin(in, &plan)};
    float *zero = xalloc((size_t)(l->rows * l->dim), sizeof *zero);
    struct experts experts;
    struct group group;
    experts_begin(&experts, &layer, &feed, true);
    group_begin(&group, &layer, l->rows, false);
    device->write(device, group.x, l->x);
    device->write(device, group.y, zero);
    device->write(device, group.weight, l->weight);
    device->write(device, group.expert, l->expert);
    experts_run(&experts, &group);
    device->read(device, y, group.y);
    if (seen)
        device->read(device, seen, experts.seen);
    group_end(&group, device);
    experts_end(&experts);
    prefetch_end(feed.prefetch);
    weights_free(&weights);
    ts_close(in);
    free(zero);
    free(wanted);
}

#endif
