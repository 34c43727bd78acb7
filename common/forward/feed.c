#include "forward/feed.h"

#include <stdlib.h>
#include <string.h>

#include "base/die.h"
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

/* ---- skipping ---- */

/* The table's next line, or NULL. */
static const struct tensor *next_line(struct ts_in *in)
{
    const struct toc *toc = ts_toc(in);
    const struct tensor *present = ts_present(in);
    size_t line = present ? (size_t)(present - toc->tensor) + 1 : 0;
    return line < toc->count ? &toc->tensor[line] : NULL;
}

void feed_skip(const struct feed *feed, const bool *wanted, uint64_t layer)
{
    char *data = xalloc(FEED_DIGESTED, 1);
    for (const struct tensor *tensor; (tensor = next_line(feed->in));) {
        uint64_t number = network_layer(feed->network, feed->in, tensor->name);
        size_t line = (size_t)(tensor - ts_toc(feed->in)->tensor);
        if (wanted[line] || (number < LAYER_HEAD && number > layer))
            break;
        ts_next(feed->in);
        if (number == layer) {
            size_t size = feed_digested(feed->weights, line, tensor);
            ts_read(feed->in, data, size);
            feed_digest(feed->digest, tensor, data, size);
        }
    }
    free(data);
}

/* ---- taking ---- */

void feed_take(const struct feed *feed, struct held *held)
{
    *held = (struct held){.from.scales = &held->scales};
    for (;;) {
        struct prefetched arrived;
        const struct tensor *tensor = prefetch_take(feed->prefetch, &arrived);
        if (!tensor)
            die("%s: the weights end too early", ts_name(feed->in));
        uint32_t line = (uint32_t)(tensor - ts_toc(feed->in)->tensor);
        size_t digested = feed_digested(feed->weights, line, tensor);
        if (arrived.rows && digested) {
            arrived.head = xalloc(digested, 1);
            ts_held_read(arrived.rows, 0, arrived.head, digested);
        }
        const void *first = arrived.data ? arrived.data : arrived.head;
        if (feed->digest && (first || !digested))
            feed_digest(feed->digest, tensor, first, digested);
        free(arrived.head);
        const struct weight *w = weight_of(feed->weights, line);
        if (w && line != w->line) {
            if (line == w->input_scale)
                held->from.input_scale = (float)dtype_value(tensor->dtype, arrived.data, 0);
            if (arrived.rows) {
                held->from.row_scales = arrived.rows;
            } else if (arrived.bytes.at) { /* checked while it was read */
                held->scales.cols = tensor->dim[1];
                held->from.scale = arrived.bytes;
            } else {
                scales_keep(&held->scales, w, feed->in, line, arrived.data);
            }
            continue;
        }
        uint64_t rows = tensor->rank == 2 ? tensor->dim[0] : 1;
        uint64_t count = tensor->size / dtype_size(tensor->dtype);
        held->plain = (struct weight){.format = FORMAT_PLAIN,
                                      .line = line,
                                      .rows = rows,
                                      .cols = rows ? count / rows : 0,
                                      .module = tensor->name};
        held->from.weight = w ? w : &held->plain;
        held->from.tensor = tensor;
        held->from.raw = arrived.data;
        held->from.bytes = arrived.bytes;
        held->from.rows = arrived.rows;
        held->arrived = arrived;
        return;
    }
}

void held_free(const struct feed *feed, struct held *held)
{
    struct device *d = feed->network->device;
    scales_free(&held->scales);
    free(held->arrived.data);
    if (held->arrived.bytes.at)
        d->drop(d, held->arrived.bytes);
    if (held->from.scale.at)
        d->drop(d, held->from.scale);
    *held = (struct held){0};
}

/* True for a tensor of the layer that is not an expert's. */
static bool belongs(const struct feed *feed, const struct layer *layer, const char *name)
{
    const struct place place = model_place(ts_model(feed->in), name);
    return network_layer(feed->network, feed->in, name) == layer->number &&
           !place_is_routed(&place);
}

void feed_layer(const struct feed *feed, struct layer *layer, size_t first, size_t end)
{
    for (const char *name; *(name = feed_peek(feed)) && belongs(feed, layer, name);) {
        struct held held;
        feed_take(feed, &held);
        size_t piece = layer_find(layer, held.from.tensor->name);
        layer_load(layer, piece, feed->run, &held.from);
        held_free(feed, &held);
    }
    for (size_t i = first; i < end; i++)
        if (layer->piece[i].kind != PIECE_ABSENT && layer->piece[i].kind != PIECE_UNUSED &&
            !layer->piece[i].present)
            die("%s: %s%s does not come where it is needed; its order is not the model's",
                ts_name(feed->in), layer->prefix, layer->piece[i].name);
}

void feed_expert(const struct feed *feed, const struct layer *layer, uint64_t number,
                 struct held *held)
{
    for (unsigned i = 0; i < EXPERT_MATRICES; i++) {
        char *module = layer_expert_module(layer, number, i);
        char *name = xprintf("%s.weight", module);
        feed_take(feed, &held[i]);
        if (strcmp(held[i].from.tensor->name, name) != 0)
            die("%s: wanted tensor %s, got %s; its order is not the model's", ts_name(feed->in),
                name, held[i].from.tensor->name);
        free(name);
        free(module);
    }
}
