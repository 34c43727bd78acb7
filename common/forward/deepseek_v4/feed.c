#include "forward/deepseek_v4/feed.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/text.h"
#include "stream/scales.h"

const char *feed_peek(const struct feed *feed)
{
    const struct tensor *tensor = prefetch_peek(feed->prefetch);
    return tensor ? tensor->name : "";
}

size_t feed_digested(const struct weights *weights, size_t line, const struct tensor *tensor)
{
    const struct weight *w = weight_of(weights, line);
    if (w && w->line == line)
        return 0;
    return tensor->size < FEED_DIGESTED ? (size_t)tensor->size : FEED_DIGESTED;
}

void feed_digest(struct digest *digest, const struct tensor *tensor, const void *data, size_t size)
{
    char shape[TENSOR_SHAPE_TEXT];
    char *line =
        xprintf("%s %s %s\n", tensor->name, dtype_name(tensor->dtype), tensor_shape(tensor, shape));
    digest_add(digest, line, strlen(line));
    digest_add(digest, data, size);
    free(line);
}

void feed_take(const struct feed *feed, struct held *held)
{
    *held = (struct held){.from.scales = &held->scales};
    for (;;) {
        struct prefetched arrived;
        const struct tensor *tensor = prefetch_take(feed->prefetch, &arrived);
        if (!tensor)
            die("%s: the weights end too early", ts_name(feed->in));
        uint32_t line = (uint32_t)(tensor - ts_toc(feed->in)->tensor);
        const void *first = arrived.data ? arrived.data : arrived.head;
        size_t digested = feed_digested(feed->weights, line, tensor);
        if (feed->digest && (first || !digested))
            feed_digest(feed->digest, tensor, first, digested);
        free(arrived.head);
        const struct weight *w = weight_of(feed->weights, line);
        if (w && line != w->line) {
            if (line == w->input_scale)
                held->from.input_scale = (float)dtype_value(tensor->dtype, arrived.data, 0);
            if (arrived.bytes.at) { /* checked on its way */
                held->scales.cols = tensor->dim[1];
                held->from.scale = arrived.bytes;
            } else {
                scales_keep(&held->scales, w, feed->in, line, arrived.data);
            }
            continue;
        }
        uint64_t rows = tensor->rank == 2 ? tensor->dim[0] : 1;
        uint64_t count = tensor->size / dtype_size(tensor->dtype);
        held->plain = (struct weight){
            .format = FORMAT_PLAIN, .line = line, .rows = rows, .cols = rows ? count / rows : 0};
        held->from.weight = w ? w : &held->plain;
        held->from.tensor = tensor;
        held->from.raw = arrived.data;
        held->from.bytes = arrived.bytes;
        held->arrived = arrived;
        return;
    }
}

void held_free(const struct feed *feed, struct held *held)
{
    scales_free(&held->scales);
    free(held->arrived.data);
    if (held->arrived.bytes.at)
        feed->device->drop(feed->device, held->arrived.bytes);
    if (held->from.scale.at)
        feed->device->drop(feed->device, held->from.scale);
    *held = (struct held){0};
}

void feed_layer(const struct feed *feed, const struct v4 *v4, struct v4_layer *layer,
                enum v4_slot first, enum v4_slot last)
{
    char *experts = xprintf("%sffn.experts.", layer->prefix);
    for (const char *name; *(name = feed_peek(feed));) {
        bool beyond = !*layer->prefix && starts_with(name, "mtp."); /* behind the head */
        if (beyond || starts_with(name, experts) || !starts_with(name, layer->prefix))
            break;
        struct held held;
        feed_take(feed, &held);
        enum v4_slot slot = v4_slot_of(layer, held.from.tensor->name + strlen(layer->prefix));
        if (slot == V4_SLOTS)
            die("%s: %s: the forward pass does not know this tensor, so its results would be wrong",
                ts_name(feed->in), held.from.tensor->name);
        v4_load(v4, layer, slot, &held.from);
        held_free(feed, &held);
    }
    free(experts);
    for (unsigned i = first; i <= last; i++)
        if (layer->piece[i].kind != V4_ABSENT && !layer->present[i])
            die("%s: %s%s does not come where it is needed; its order is not the model's",
                ts_name(feed->in), layer->prefix, layer->piece[i].name);
}

void feed_expert(const struct feed *feed, const struct v4_layer *layer, uint64_t number,
                 struct held *held)
{
    static const char *const matrix[V4_EXPERT_MATRICES] = {"w1", "w3", "w2"};
    for (unsigned i = 0; i < V4_EXPERT_MATRICES; i++) {
        char *name =
            xprintf("%sffn.experts.%" PRIu64 ".%s.weight", layer->prefix, number, matrix[i]);
        feed_take(feed, &held[i]);
        if (strcmp(held[i].from.tensor->name, name) != 0)
            die("%s: wanted tensor %s, got %s; its order is not the model's", ts_name(feed->in),
                name, held[i].from.tensor->name);
        free(name);
    }
}
