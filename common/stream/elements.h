/* elements.h: the numbers of a stream's tensors, piece by piece: elements as they lie, or matrices
 * dequantized with the scales that come before them. One thread cuts the pieces, in order; any
 * other loads one, and has its elements.
 *
 *     while ((tensor = elements_next(values)))
 *         while (elements_cut(values, &piece)) {
 *             data = elements_load(values, piece);
 *             ... elements_count(piece) of them at data, of elements_form(values)'s dtype ...
 *         }
 *     elements_piece_free(piece);
 */
#ifndef ELEMENTS_H
#define ELEMENTS_H

#include "stream/ts.h"

struct elements;

/* The values of `in`, which must outlive them. Without `dequantize`, tensors come as they lie. With
 * it, a matrix in FP8, MXFP4 or NVFP4 comes as BF16 [rows, cols] in place of its scales and its
 * weight (an input scale comes on its own); one without its scales ends the process. The caller
 * frees it with elements_free(). */
struct elements *elements_new(struct ts_in *in, bool dequantize);
void elements_free(struct elements *elements);

/* What line `line` of the table comes as: its name with the dtype, shape and size of its values;
 * false if it is a scale that comes with its matrix. */
bool elements_form_of(const struct elements *elements, size_t line, struct tensor *form);

/* The next tensor: its line of the table; NULL after the last one (or if no tensors come, as
 * ts_next()). */
const struct tensor *elements_next(struct elements *elements);

/* The form of the present tensor. */
const struct tensor *elements_form(const struct elements *elements);

/* The present tensor, of which nothing was cut yet, comes as its bytes: U8 [size]. */
void elements_as_bytes(struct elements *elements);

/* Some of a tensor's elements. */
struct elements_piece;

/* Cut the present tensor's next elements off, 2^18 or a row of them; false at its end. How a tensor
 * is cut depends on its form alone, not on the format that it lies in. *piece is NULL before its
 * first use, which makes it; it is kept from one use to the next, and freed by
 * elements_piece_free(). */
bool elements_cut(struct elements *elements, struct elements_piece **piece);

/* How many were cut. */
size_t elements_count(const struct elements_piece *piece);

/* Load what was cut, from any thread; once. The piece owns what is returned, which is valid until
 * it is cut again. */
const void *elements_load(struct elements *elements, struct elements_piece *piece);

void elements_piece_free(struct elements_piece *piece); /* NULL is no error */

/* out[i] = element i of data, i < count, as dtype_value() has it. */
void elements_widen(enum dtype dtype, const void *data, size_t count, double *out);

#endif
