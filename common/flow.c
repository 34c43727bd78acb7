#include "flow.h"

#include <stdlib.h>
#include <string.h>

#include "die.h"
#include "inorder.h"

enum { PASS_BYTES = 1 << 20 };

/* What goes along the line: a band, a reference, or a call. */
struct piece {
    enum { BAND, REFERENCE, CALL } kind;
    struct band band;
    bool begins;
    char name[TENSOR_NAME_MAX + 1];
    size_t raw_room, out_room;
    const struct tensor *tensor; /* REFERENCE, or BAND whose raw is still to be read, else NULL */
    size_t source;
    uint64_t offset;
    const void *data;            /* BAND: the caller's bytes, if not the band's own */
    void (*done)(void *context); /* CALL */
    void *context;
};

struct flow {
    struct ts_out *out;
    struct ts_in *in;
    struct inorder *line;
    struct piece *piece; /* the one that is filled */
};

static void compute(void *context, void *item)
{
    struct flow *flow = context;
    struct piece *piece = item;
    if (piece->tensor)
        sources_read(ts_sources(flow->in), piece->source, piece->offset, piece->band.raw,
                     piece->band.raw_size, piece->tensor->name);
    piece->band.convert(&piece->band);
}

static void write_band(struct flow *flow, struct piece *piece)
{
    struct band *band = &piece->band;
    if (band->check)
        band->check(band);
    if (piece->begins)
        ts_begin(flow->out, piece->name);
    if (piece->data)
        ts_write(flow->out, piece->data, band->raw_size);
    else if (band->out_size)
        ts_write(flow->out, band->out, band->out_size);
    else
        ts_write(flow->out, band->raw, band->raw_size);
}

static void finish(void *context, void *item)
{
    struct flow *flow = context;
    struct piece *piece = item;
    switch (piece->kind) {
    case BAND:
        write_band(flow, piece);
        break;
    case REFERENCE:
        ts_pass_reference(flow->out, flow->in, piece->tensor, piece->source, piece->offset);
        break;
    case CALL:
        piece->done(piece->context);
        break;
    }
}

struct flow *flow_begin(struct ts_out *out, struct ts_in *in, unsigned threads, unsigned ahead)
{
    struct flow *flow = xalloc(1, sizeof *flow);
    flow->out = out;
    flow->in = in;
    flow->line = inorder_begin(threads, ahead, sizeof *flow->piece, compute, finish, flow);
    return flow;
}

static void *room_for(void *memory, size_t *room, size_t size)
{
    if (size <= *room)
        return memory;
    free(memory);
    *room = size;
    return xgrow(NULL, size, 1);
}

struct band *flow_band(struct flow *flow, const char *name, size_t raw_size, size_t out_size)
{
    struct piece *piece = flow->piece = inorder_piece(flow->line);
    piece->kind = BAND;
    piece->begins = name != NULL;
    piece->tensor = NULL;
    piece->data = NULL;
    if (name)
        memcpy(piece->name, name, strlen(name) + 1);
    void *raw = room_for(piece->band.raw, &piece->raw_room, raw_size);
    void *out = room_for(piece->band.out, &piece->out_room, out_size);
    piece->band = (struct band){.raw = raw, .out = out, .raw_size = raw_size, .out_size = out_size};
    return &piece->band;
}

void flow_give(struct flow *flow)
{
    inorder_give(flow->line, flow->piece->band.convert != NULL);
}

/* Raw is to be read from a file, at `offset` of what lies at `start` there. */
static void read_later(struct flow *flow, const struct tensor *tensor, size_t source,
                       uint64_t start, uint64_t offset)
{
    struct piece *piece = flow->piece;
    if (piece->band.raw_size > tensor->size || offset > tensor->size - piece->band.raw_size)
        die("%s: %s: read beyond its end", ts_name(flow->in), tensor->name);
    piece->tensor = tensor;
    piece->source = source;
    piece->offset = start + offset;
}

void flow_read(struct flow *flow, uint64_t offset)
{
    size_t source;
    uint64_t start;
    struct band *band = &flow->piece->band;
    if (ts_ref(flow->in, &source, &start))
        read_later(flow, ts_present(flow->in), source, start, offset);
    else
        ts_read(flow->in, band->raw, band->raw_size);
}

void flow_read_held(struct flow *flow, struct ts_held *held, uint64_t offset)
{
    size_t source;
    uint64_t start;
    struct band *band = &flow->piece->band;
    if (ts_held_ref(held, &source, &start))
        read_later(flow, ts_held_tensor(held), source, start, offset);
    else
        ts_held_read(held, offset, band->raw, band->raw_size);
}

static void pass_reference(struct flow *flow, const struct tensor *tensor, size_t source,
                           uint64_t offset)
{
    /* Nobody else is writing, and a turn of another thread costs more than a reference. */
    if (inorder_idle(flow->line)) {
        ts_pass_reference(flow->out, flow->in, tensor, source, offset);
        return;
    }
    struct piece *piece = inorder_piece(flow->line);
    piece->kind = REFERENCE;
    piece->tensor = tensor;
    piece->source = source;
    piece->offset = offset;
    inorder_give(flow->line, false);
}

/* Bytes that came inline go on inline; `held` is NULL for the present tensor. */
static void pass_bytes(struct flow *flow, const struct tensor *tensor, struct ts_held *held)
{
    uint64_t at = 0;
    do {
        size_t size = tensor->size - at < PASS_BYTES ? (size_t)(tensor->size - at) : PASS_BYTES;
        struct band *band = flow_band(flow, at ? NULL : tensor->name, size, 0);
        if (held)
            ts_held_read(held, at, band->raw, size);
        else
            ts_read(flow->in, band->raw, size);
        flow_give(flow);
        at += size;
    } while (at < tensor->size);
}

void flow_pass(struct flow *flow)
{
    size_t source;
    uint64_t offset;
    const struct tensor *tensor = ts_present(flow->in);
    if (ts_ref(flow->in, &source, &offset))
        pass_reference(flow, tensor, source, offset);
    else
        pass_bytes(flow, tensor, NULL);
}

void flow_pass_held(struct flow *flow, struct ts_held *held)
{
    size_t source;
    uint64_t offset;
    const struct tensor *tensor = ts_held_tensor(held);
    if (ts_held_ref(held, &source, &offset))
        pass_reference(flow, tensor, source, offset);
    else
        pass_bytes(flow, tensor, held);
}

void flow_put(struct flow *flow, const char *name, const void *data, size_t size)
{
    struct band *band = flow_band(flow, name, size, 0);
    memcpy(band->raw, data, size);
    flow_give(flow);
}

void flow_put_from(struct flow *flow, const char *name, const void *data, size_t size)
{
    struct band *band = flow_band(flow, name, 0, 0);
    flow->piece->data = data;
    band->raw_size = size;
    flow_give(flow);
}

void flow_after(struct flow *flow, void (*done)(void *context), void *context)
{
    struct piece *piece = inorder_piece(flow->line);
    piece->kind = CALL;
    piece->done = done;
    piece->context = context;
    inorder_give(flow->line, false);
}

static void release(void *item)
{
    struct piece *piece = item;
    free(piece->band.raw);
    free(piece->band.out);
}

void flow_end(struct flow *flow)
{
    inorder_end(flow->line, release);
    free(flow);
}
