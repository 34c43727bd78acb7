#include "stream/band_pipeline.h"

#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/die.h"
#include "base/ordered_pool.h"
#include "stream/scales.h"

enum { PASS_BYTES = 1 << 20 };

/* A submission: a band, a reference, earlier stages' counts, or a call. */
struct piece {
    enum { BAND, REFERENCE, COUNTS, CALL } kind;
    struct band band;
    bool begins;
    char name[TENSOR_NAME_MAX + 1];
    struct buffer raw, out;      /* the band's */
    const struct tensor *tensor; /* REFERENCE, or BAND whose raw is to be read; else NULL */
    size_t source;
    uint64_t offset;
    const void *data;            /* BAND: the caller's bytes to write instead; or NULL */
    json_t *counts;              /* COUNTS */
    void (*done)(void *context); /* CALL */
    void *context;
};

struct band_pipeline {
    struct ts_out *out;
    struct ts_in *in;
    struct ordered_pool *pool;
    struct piece *piece; /* the one being filled */
};

static void compute(void *context, void *item)
{
    struct band_pipeline *bands = context;
    struct piece *piece = item;
    if (piece->tensor)
        sources_read(ts_sources(bands->in), piece->source, piece->offset, piece->band.raw,
                     piece->band.raw_size, piece->tensor->name);
    piece->band.convert(&piece->band);
}

static void write_band(struct band_pipeline *bands, struct piece *piece)
{
    struct band *band = &piece->band;
    if (piece->begins)
        ts_begin(bands->out, piece->name);
    if (band->check)
        band->check(band);
    if (piece->data)
        ts_write(bands->out, piece->data, band->raw_size);
    else if (band->out_size)
        ts_write(bands->out, band->out, band->out_size);
    else
        ts_write(bands->out, band->raw, band->raw_size);
}

static void finish(void *context, void *item)
{
    struct band_pipeline *bands = context;
    struct piece *piece = item;
    switch (piece->kind) {
    case BAND:
        write_band(bands, piece);
        break;
    case REFERENCE:
        ts_pass_reference(bands->out, bands->in, piece->tensor, piece->source, piece->offset);
        break;
    case COUNTS:
        ts_pass_counts(bands->out, piece->counts);
        break;
    case CALL:
        piece->done(piece->context);
        break;
    }
}

struct band_pipeline *bands_begin(struct ts_out *out, struct ts_in *in, unsigned threads,
                                  unsigned slack)
{
    struct band_pipeline *bands = xalloc(1, sizeof *bands);
    bands->out = out;
    bands->in = in;
    bands->pool = ordered_pool_begin(threads, slack, sizeof *bands->piece, compute, finish, bands);
    return bands;
}

/* Before the next line: what earlier stages counted up to here. */
static void pass_counts(struct band_pipeline *bands)
{
    json_t *counts = ts_take_counts(bands->in);
    if (!counts)
        return;
    struct piece *piece = ordered_pool_piece(bands->pool);
    piece->kind = COUNTS;
    piece->counts = counts;
    ordered_pool_submit(bands->pool, false);
}

struct band *bands_next(struct band_pipeline *bands, const char *name, size_t raw_size,
                        size_t out_size)
{
    if (name)
        pass_counts(bands);
    struct piece *piece = bands->piece = ordered_pool_piece(bands->pool);
    piece->kind = BAND;
    piece->begins = name != NULL;
    piece->tensor = NULL;
    piece->data = NULL;
    if (name)
        memcpy(piece->name, name, strlen(name) + 1);
    piece->band = (struct band){.raw = buffer_room(&piece->raw, raw_size),
                                .out = buffer_room(&piece->out, out_size),
                                .raw_size = raw_size,
                                .out_size = out_size};
    return &piece->band;
}

void bands_submit(struct band_pipeline *bands)
{
    ordered_pool_submit(bands->pool, bands->piece->band.convert != NULL);
}

/* Have raw read from a file later, at `offset` of the bytes that begin at `start` there. */
static void read_later(struct band_pipeline *bands, const struct tensor *tensor, size_t source,
                       uint64_t start, uint64_t offset)
{
    struct piece *piece = bands->piece;
    if (piece->band.raw_size > tensor->size || offset > tensor->size - piece->band.raw_size)
        die("%s: %s: read beyond its end", ts_name(bands->in), tensor->name);
    piece->tensor = tensor;
    piece->source = source;
    piece->offset = start + offset;
}

void bands_read(struct band_pipeline *bands, uint64_t offset)
{
    size_t source;
    uint64_t start;
    struct band *band = &bands->piece->band;
    if (ts_ref(bands->in, &source, &start))
        read_later(bands, ts_present(bands->in), source, start, offset);
    else
        ts_read(bands->in, band->raw, band->raw_size);
}

void bands_read_held(struct band_pipeline *bands, struct ts_held *held, uint64_t offset)
{
    size_t source;
    uint64_t start;
    struct band *band = &bands->piece->band;
    if (ts_held_ref(held, &source, &start))
        read_later(bands, ts_held_tensor(held), source, start, offset);
    else
        ts_held_read(held, offset, band->raw, band->raw_size);
}

static void pass_reference(struct band_pipeline *bands, const struct tensor *tensor, size_t source,
                           uint64_t offset)
{
    pass_counts(bands);
    /* no other thread writes now, and waking one costs more than writing a reference */
    if (ordered_pool_idle(bands->pool)) {
        ts_pass_reference(bands->out, bands->in, tensor, source, offset);
        return;
    }
    struct piece *piece = ordered_pool_piece(bands->pool);
    piece->kind = REFERENCE;
    piece->tensor = tensor;
    piece->source = source;
    piece->offset = offset;
    ordered_pool_submit(bands->pool, false);
}

/* Inline bytes stay inline; `held`, from whose byte `offset` on they come, is NULL for the current
 * tensor. */
static void pass_bytes(struct band_pipeline *bands, const struct tensor *line, struct ts_held *held,
                       uint64_t offset)
{
    uint64_t at = 0;
    do {
        size_t size = (size_t)at_most(line->size - at, PASS_BYTES);
        struct band *band = bands_next(bands, at ? NULL : line->name, size, 0);
        if (held)
            ts_held_read(held, offset + at, band->raw, size);
        else
            ts_read(bands->in, band->raw, size);
        bands_submit(bands);
        at += size;
    } while (at < line->size);
}

void bands_pass(struct band_pipeline *bands)
{
    size_t source;
    uint64_t offset;
    const struct tensor *tensor = ts_present(bands->in);
    if (ts_ref(bands->in, &source, &offset))
        pass_reference(bands, tensor, source, offset);
    else
        pass_bytes(bands, tensor, NULL, 0);
}

void bands_pass_held(struct band_pipeline *bands, struct ts_held *held)
{
    bands_pass_part(bands, ts_held_tensor(held), held, 0);
}

void bands_pass_part(struct band_pipeline *bands, const struct tensor *line, struct ts_held *held,
                     uint64_t offset)
{
    size_t source;
    uint64_t start;
    if (ts_held_ref(held, &source, &start))
        pass_reference(bands, line, source, start + offset);
    else
        pass_bytes(bands, line, held, offset);
}

void bands_pass_checked(struct band_pipeline *bands, const struct weight *w)
{
    struct ts_held *scale = w ? scales_hold(w, bands->in) : NULL;
    if (!scale) {
        bands_pass(bands);
        return;
    }
    bands_pass_held(bands, scale);
    ts_release(scale);
}

void bands_put(struct band_pipeline *bands, const char *name, const void *data, size_t size)
{
    struct band *band = bands_next(bands, name, size, 0);
    memcpy(band->raw, data, size);
    bands_submit(bands);
}

void bands_put_empty(struct band_pipeline *bands, const char *name)
{
    (void)bands_next(bands, name, 0, 0);
    bands_submit(bands);
}

void bands_put_from(struct band_pipeline *bands, const char *name, const void *data, size_t size)
{
    struct band *band = bands_next(bands, name, 0, 0);
    bands->piece->data = data;
    band->raw_size = size;
    bands_submit(bands);
}

void bands_after(struct band_pipeline *bands, void (*done)(void *context), void *context)
{
    struct piece *piece = ordered_pool_piece(bands->pool);
    piece->kind = CALL;
    piece->done = done;
    piece->context = context;
    ordered_pool_submit(bands->pool, false);
}

static void release(void *item)
{
    struct piece *piece = item;
    free(piece->raw.data);
    free(piece->out.data);
}

void bands_end(struct band_pipeline *bands)
{
    ordered_pool_end(bands->pool, release);
    free(bands);
}
