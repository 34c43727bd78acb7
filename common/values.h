/* values.h: the numbers of a stream's tensors, piece by piece: elements as they lie, or matrices
 * dequantized with the scales that come before them. One thread cuts the pieces, in order; any
 * other loads one, and has its elements.
 *
 *     while ((tensor = values_next(values)))
 *         while (values_cut(values, &piece)) {
 *             values_load(values, &piece);
 *             ... piece.count elements at piece.data, of values_form(values)'s dtype ...
 *         }
 *     values_piece_free(&piece);
 */
#ifndef VALUES_H
#define VALUES_H

#include "ts.h"

struct values;

/* The values of `in`, which must outlive them. Without `dequantize`, tensors come as they lie. With
 * it, a matrix in FP8, MXFP4 or NVFP4 comes as BF16 [rows, cols] in place of its scales and its
 * weight (an input scale comes on its own); one without its scales ends the process. The caller
 * frees it with values_free(). */
struct values *values_new(struct ts_in *in, bool dequantize);
void values_free(struct values *values);

/* What line `line` of the table comes as: its name with the dtype, shape and size of its values;
 * false if it is a scale that comes with its matrix. */
bool values_form_of(const struct values *values, size_t line, struct tensor *form);

/* The next tensor: its line of the table; NULL after the last one (or if no tensors come, as
 * ts_next()). */
const struct tensor *values_next(struct values *values);

/* The form of the present tensor. */
const struct tensor *values_form(const struct values *values);

/* The present tensor, of which nothing was cut yet, comes as its bytes: U8 [size]. */
void values_as_bytes(struct values *values);

/* Some of a tensor's elements. All of it is 0 before it is first used; its buffers are kept from
 * one use to the next, and freed by values_piece_free(). */
struct values_piece {
    const void *data; /* from values_load() on */
    size_t count;
    /* What follows is not for the caller. */
    const struct tensor *tensor;
    const struct weight *matrix; /* or NULL */
    struct shared_scales *scales;
    uint64_t first, rows; /* of the matrix */
    bool by_reference;
    size_t source;
    uint64_t offset;
    size_t raw_size, raw_room, rows_room;
    char *raw;
    uint16_t *dequantized;
};

/* Cut the present tensor's next elements off, 2^18 or a row of them; false at its end. How a tensor
 * is cut depends on its form alone, not on the format that it lies in. */
bool values_cut(struct values *values, struct values_piece *piece);

/* Load what was cut, from any thread; once. */
void values_load(struct values *values, struct values_piece *piece);

void values_piece_free(struct values_piece *piece);

/* out[i] = element i of data, i < count, as dtype_value() has it. */
void values_widen(enum dtype dtype, const void *data, size_t count, double *out);

#endif
