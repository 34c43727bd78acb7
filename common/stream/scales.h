/* scales.h: reads the scales of a matrix from a stream, and checks them. */
#ifndef SCALES_H
#define SCALES_H

#include "stream/ts.h"
#include "tensor/weight.h"

/* If the current tensor is a scale of matrix `w`: read it, check it, store it, return true. The
 * caller frees the scales with scales_free(). */
bool scales_take(struct scales *scales, const struct weight *w, struct ts_in *in);

/* The same for bytes already in memory, which it takes over: `line` of the table of `in`. */
void scales_keep(struct scales *scales, const struct weight *w, struct ts_in *in, uint32_t line,
                 void *raw);

/* Only check a scale of `w`: `size` bytes, whole elements, starting at byte `at` of line `line`. A
 * NaN (E8M0, E4M3 or F32), and an F32 that is infinite or negative, end the process with tensor and
 * offset. The weight itself is not looked at. */
void scales_check(const struct weight *w, struct ts_in *in, uint32_t line, uint64_t at,
                  const void *raw, size_t size);

/* If the current tensor is a scale of `w`: check it, and hold it for the caller, who passes it on
 * unchanged, and releases it. NULL if it is the weight. */
struct ts_held *scales_hold(const struct weight *w, struct ts_in *in);

#endif
