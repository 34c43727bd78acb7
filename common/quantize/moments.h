/* moments.h: second moments of linears' inputs, which amax-calib records and nvfp4-pack reads: a
 * folder with a tensor stream for each layer, DIR/layers.3.ts, so that a run holds one layer at a
 * time, and one that was killed keeps the layers that it finished.
 *
 *     MODULE.input_moments   F32 [cols / 16, 16, 16]   the mean of x xᵀ over all inputs x, for each
 *                                                      16 columns
 *
 * in the model's order, for the first module of each group (see place.h): the others have the same
 * input. A module that no input reached has none. */
#ifndef MOMENTS_H
#define MOMENTS_H

#include "stream/ts.h"

/* ---- writing ---- */

struct moments_writer;

/* Into `folder`, which is created if it does not exist. `stage` is whose history the files get; it
 * and the model must outlive the writer. moments_writer_free() accepts NULL. */
struct moments_writer *moments_writer_new(const char *folder, const struct model *model,
                                          const struct stage *stage);
void moments_writer_free(struct moments_writer *writer);

/* Add a module's moments, [cols, 16]. If the one before was of another layer, that one's file is
 * written. */
void moments_add(struct moments_writer *writer, const char *module, const float *moments,
                 uint64_t cols);

/* Write the file of the last layer, in place of an older one, and sync it. */
void moments_flush(struct moments_writer *writer);

/* ---- reading ---- */

struct moments;

/* A folder without such files ends the process. moments_close() frees it and accepts NULL. */
struct moments *moments_open(const char *folder, const struct model *model);
void moments_close(struct moments *moments);

/* The moments of a module with inputs of `cols` columns, finite and with none below 0 on the
 * diagonal, which the caller frees; NULL if there are none. Another shape, and invalid numbers, end
 * the process. Quick in the model's order. */
float *moments_read(struct moments *moments, const char *module, uint64_t cols);

/* With which programs, options and tokens they were made, as a SHA-256 in hexadecimal. */
const char *moments_digest(const struct moments *moments);

#endif
