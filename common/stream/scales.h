/* scales.h: the scales of a matrix as they come out of a stream, checked. */
#ifndef SCALES_H
#define SCALES_H

#include "stream/ts.h"
#include "tensor/weight.h"

/* If the present tensor is a scale of matrix `w`: read it, check it (an E8M0 or F32 NaN, an
 * infinite F32 and an NVFP4 NaN end the process, naming tensor and offset), keep it, return true.
 * The caller frees them with scales_free(). */
bool scales_take(struct scales *scales, const struct weight *w, struct ts_in *in);

/* As above from bytes already in memory, which it takes over: `line` of the table of `in`. */
void scales_keep(struct scales *scales, const struct weight *w, struct ts_in *in, uint32_t line,
                 void *raw);

/* The check alone, for a scale that is not kept here, if it is a byte per block (MXFP4, NVFP4): of
 * its bytes from `at` on. */
void scales_check(const struct weight *w, struct ts_in *in, uint32_t line, uint64_t at,
                  const void *raw, size_t size);

#endif
