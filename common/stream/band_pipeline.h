/* band_pipeline.h: a stage's output, made by several threads. The stage's own thread proceeds
 * through the input, others read bytes from files and convert them, and one writes, in order. So
 * reading runs a few bands ahead of converting, and converting ahead of writing. The output is the
 * same for any number of threads.
 *
 *     struct band_pipeline *bands = bands_begin(out, in, threads, ORDERED_POOL_SLACK);
 *     while ((tensor = ts_next(in)))
 *         bands_pass(bands);
 *     bands_end(bands);
 *
 * Between bands_begin() and bands_end() nothing else may write to `out`. What earlier stages
 * counted passes along. */
#ifndef BAND_PIPELINE_H
#define BAND_PIPELINE_H

#include "base/ordered_pool.h"
#include "stream/ts.h"
#include "tensor/weight.h"

struct band_pipeline;

/* A piece of a tensor's bytes in the pipeline. */
struct band {
    /* The stage fills these in, and raw; they start as 0. */
    void (*convert)(struct band *band); /* raw to out, on any thread; or within raw, if out_size is
                                         * 0; NULL to write raw unchanged */
    void (*check)(struct band *band);   /* called in order, before it is written and after its
                                         * tensor has begun: it may ts_count(), or end the process */
    void *of;                           /* the stage's data about the tensor */
    uint64_t first, rows;               /* the rows of the tensor that the band holds */
    uint64_t found[2];                  /* results of convert() for check() */
    double sum[2];                      /* the same; check() may add them up, in order */
    /* bands_next() sets these. The pipeline owns the buffers. */
    void *raw, *out;
    size_t raw_size, out_size;
};

/* Start the threads: `threads` of them convert. `slack` as in ordered_pool.h, counted in bands and
 * other submissions. bands_end() frees the pipeline. */
struct band_pipeline *bands_begin(struct ts_out *out, struct ts_in *in, unsigned threads,
                                  unsigned slack);

/* The next free band, with buffers of these sizes; waits until there is one. With `name` it is the
 * first band of that tensor, with NULL it continues one. The caller fills it, then submits it. */
struct band *bands_next(struct band_pipeline *bands, const char *name, size_t raw_size,
                        size_t out_size);
void bands_submit(struct band_pipeline *bands);

/* Fill raw of a band that has convert() with bytes of the current (or a held) tensor, starting at
 * byte `offset`. Bytes by reference are read later, on the thread that converts: in measurements,
 * several reads at once kept a disk busier than one that ran ahead, with and without
 * posix_fadvise(). Inline bytes are read now, and must be read in order. */
void bands_read(struct band_pipeline *bands, uint64_t offset);
void bands_read_held(struct band_pipeline *bands, struct ts_held *held, uint64_t offset);

/* Write the current (or a held) tensor unchanged as the next line of the output, as ts_pass() does.
 */
void bands_pass(struct band_pipeline *bands);
void bands_pass_held(struct band_pipeline *bands, struct ts_held *held);

/* The same for the current tensor, which belongs to matrix `w` (NULL: to none). A stage converts
 * some matrices; the scales of those that pass it are checked here (scales.h). */
void bands_pass_checked(struct band_pipeline *bands, const struct weight *w);

/* The same for the bytes of a held tensor from `offset` on, as many as the next line, `line`, has.
 * The line must live until bands_end(). */
void bands_pass_part(struct band_pipeline *bands, const struct tensor *line, struct ts_held *held,
                     uint64_t offset);

/* Write a tensor without elements. */
void bands_put_empty(struct band_pipeline *bands, const char *name);

/* Write a whole tensor from memory. bands_put() copies its bytes and is for small tensors. For
 * bands_put_from(), they must be complete by the time all earlier submissions are written, and stay
 * valid until this one is. */
void bands_put(struct band_pipeline *bands, const char *name, const void *data, size_t size);
void bands_put_from(struct band_pipeline *bands, const char *name, const void *data, size_t size);

/* Call done(context) on the writing thread, after all earlier submissions are written; it may
 * ts_count(). */
void bands_after(struct band_pipeline *bands, void (*done)(void *context), void *context);

/* Wait until all is written, stop the threads and free the pipeline. */
void bands_end(struct band_pipeline *bands);

#endif
