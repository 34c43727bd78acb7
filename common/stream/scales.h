/* scales.h: reads the scales of a matrix from a stream, and checks them. */
#ifndef SCALES_H
#define SCALES_H

#include "stream/ts.h"
#include "tensor/weight.h"

/* If the current tensor is a scale of matrix `w`: read it, check it, store it, return true. An E8M0
 * or F32 NaN, an infinite F32 and an NVFP4 NaN end the process with tensor and offset. The caller
 * frees the scales with scales_free(). */
bool scales_take(struct scales *scales, const struct weight *w, struct ts_in *in);

/* The same for bytes already in memory, which it takes over: `line` of the table of `in`. */
void scales_keep(struct scales *scales, const struct weight *w, struct ts_in *in, uint32_t line,
                 void *raw);

/* Only check a block scale of one byte per block (MXFP4, NVFP4): `size` bytes, starting at byte
 * `at` of the scale. */
void scales_check(const struct weight *w, struct ts_in *in, uint32_t line, uint64_t at,
                  const void *raw, size_t size);

#endif
