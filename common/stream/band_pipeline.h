/* band_pipeline.h: a stage's output, made by several threads: the stage's own goes on in the input,
 * others read what lies in files and convert it, and one writes, in order. So reading runs ahead of
 * converting, and both of writing, by a few bands. The output is the same for any number of
 * threads.
 *
 *     struct band_pipeline *flow = bands_begin(out, in, threads, ORDERED_POOL_SLACK);
 *     while ((tensor = ts_next(in)))
 *         bands_pass(flow);
 *     bands_end(flow);
 *
 * Between bands_begin() and bands_end() nobody else writes to `out`. */
#ifndef BAND_PIPELINE_H
#define BAND_PIPELINE_H

#include "base/ordered_pool.h"
#include "stream/ts.h"

struct band_pipeline;

/* A piece of a tensor's bytes on its way. */
struct band {
    /* What the stage fills in, beside raw; all of it is 0 before. */
    void (*convert)(struct band *band); /* raw to out, on any thread; or in raw, if out_size is 0;
                                         * NULL if raw is right as it is */
    void (*check)(struct band *band);   /* before it is written, in order; may end the process */
    void *of;                           /* what the band is of */
    uint64_t first, rows;               /* and which part of that */
    uint64_t found[2];                  /* what convert() has to tell check() */
    /* What bands_next() sets. The buffers belong to the flow. */
    void *raw, *out;
    size_t raw_size, out_size;
};

/* Start the threads: `threads` of them convert. `ahead` as in ordered_pool.h, in bands and whatever
 * else is given. */
struct band_pipeline *bands_begin(struct ts_out *out, struct ts_in *in, unsigned threads,
                                  unsigned ahead);

/* The next band, as soon as there is a free one, with buffers of these sizes: the first band of
 * the tensor `name`, or with NULL one that goes on. The caller fills it, then gives it. */
struct band *bands_next(struct band_pipeline *bands, const char *name, size_t raw_size,
                        size_t out_size);
void bands_submit(struct band_pipeline *bands);

/* Fill raw of a band that has convert() with bytes of the present (or a held) tensor, from byte
 * `offset` on. What came by reference is read later, on the thread that converts: several reads
 * at once keep a disk busier than one that runs ahead did when measured, with and without telling
 * the kernel by posix_fadvise(). What comes inline is read now, and must be read in order. */
void bands_read(struct band_pipeline *bands, uint64_t offset);
void bands_read_held(struct band_pipeline *bands, struct ts_held *held, uint64_t offset);

/* Emit the present (or a held) tensor unchanged as the line that is due, as ts_pass() does. */
void bands_pass(struct band_pipeline *bands);
void bands_pass_held(struct band_pipeline *bands, struct ts_held *held);

/* Emit a whole tensor from memory: its bytes are copied, for small ones; or they are complete when
 * all that was given before is written, and stay until this is, too. */
void bands_put(struct band_pipeline *bands, const char *name, const void *data, size_t size);
void bands_put_from(struct band_pipeline *bands, const char *name, const void *data, size_t size);

/* Call done(context) when all that was given before is written, on the thread that writes. */
void bands_after(struct band_pipeline *bands, void (*done)(void *context), void *context);

/* Wait until all is written, and end the threads. */
void bands_end(struct band_pipeline *bands);

#endif
