/* elements.h: the elements of a stream's tensors, piece by piece: as stored, or matrices
 * dequantized with the scales that precede them. One thread cuts the pieces, in order; any thread
 * may load a piece.
 *
 *     while ((tensor = elements_next(elements)))
 *         while (elements_cut(elements, &piece)) {
 *             data = elements_load(elements, piece);
 *             ... elements_count(piece) elements at data, of elements_form(elements)->dtype ...
 *         }
 *     elements_piece_free(piece); */
#ifndef ELEMENTS_H
#define ELEMENTS_H

#include "stream/ts.h"

struct elements;

/* Read the elements of `in`, which must outlive the result. Without `dequantize`, tensors come as
 * stored; F4 as I8, two elements in one, as releases have it. With it, a matrix in FP8, MXFP4 or
 * NVFP4 comes as BF16 [rows, cols] instead of its scales and its weight (an input scale comes on
 * its own). A matrix without its scales, or with invalid ones, ends the process. elements_free()
 * frees the result. */
struct elements *elements_new(struct ts_in *in, bool dequantize);
void elements_free(struct elements *elements);

/* *form = what line `line` of the table comes as: its name (owned by the table) with the dtype,
 * shape and size of its elements. False if it is a scale that comes with its matrix. */
bool elements_form_of(const struct elements *elements, size_t line, struct tensor *form);

/* Advance to the next tensor: its line of the table, owned by the stream. NULL after the last one,
 * or if the stream brings no tensors, as with ts_next(). */
const struct tensor *elements_next(struct elements *elements);

/* The form of the current tensor; valid until elements_next(). */
const struct tensor *elements_form(const struct elements *elements);

/* Treat the current tensor as bytes, U8 [size]. Call it before its first cut. */
void elements_as_bytes(struct elements *elements);

/* A run of a tensor's elements. */
struct elements_piece;

/* Cut the next piece, of 2^18 elements or whole rows of about as many, off the current tensor;
 * false at its end. How a tensor is cut depends on its form alone, not on the format it is stored
 * in. *piece is NULL at first; the call allocates it, and reuses it afterwards. The caller frees it
 * with elements_piece_free(). */
bool elements_cut(struct elements *elements, struct elements_piece **piece);

/* The number of elements in the piece. */
size_t elements_count(const struct elements_piece *piece);

/* Load the elements of a piece, from any thread, once per cut. The piece owns the result, which is
 * valid until the piece is cut again. */
const void *elements_load(struct elements *elements, struct elements_piece *piece);

void elements_piece_free(struct elements_piece *piece); /* NULL is allowed */

/* out[i] = element i of data for i < count, converted as by dtype_value(); not for F4. */
void elements_widen(enum dtype dtype, const void *data, size_t count, double *out);

#endif
