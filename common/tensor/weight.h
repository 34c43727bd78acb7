/* weight.h: a matrix of a checkpoint, in any format, and its rows as BF16.
 *
 *   format  X.weight              its scales, which come directly before it
 *   PLAIN   BF16, F16 or F32      none
 *   FP8     F8_E4M3 [rows,cols]   X.scale F8_E8M0 or F32, or X.weight_scale_inv F32, one per block
 *                                 (see model_fp8_block()): [ceil(rows/block),ceil(cols/block)];
 *                                 or one per tensor: X.weight_scale F32 [], and then perhaps
 *                                 X.input_scale F32 [] (not needed to dequantize)
 *   MXFP4   I8 [rows,cols/2]      X.scale F8_E8M0 [rows,cols/32]
 *           or F4 [rows,cols]
 *   NVFP4   U8 [rows,cols/2]      X.weight_scale F8_E4M3 [rows,cols/16], X.weight_scale_2 F32 [],
 *                                 X.input_scale F32 [] (not needed to dequantize)
 *
 * model/weights.h finds the matrices of a table. */
#ifndef WEIGHT_H
#define WEIGHT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tensor/codec.h"
#include "tensor/place.h"
#include "tensor/toc.h"

enum format { FORMAT_PLAIN, FORMAT_FP8, FORMAT_MXFP4, FORMAT_NVFP4, FORMAT_COUNT };

/* "FP8" and so on; static. */
const char *format_name(enum format format);

enum { WEIGHT_COLS_MAX = 8 << 20, WEIGHT_NONE = UINT32_MAX };

/* A matrix. Line numbers refer to the table it was found in; WEIGHT_NONE where there is none. */
struct weight {
    enum format format;
    uint32_t line;                   /* X.weight */
    uint32_t scale;                  /* X.scale, X.weight_scale_inv or X.weight_scale */
    uint32_t scale_2;                /* X.weight_scale_2 */
    uint32_t input_scale;            /* X.input_scale */
    uint64_t rows, cols;             /* elements, not bytes */
    uint64_t block_rows, block_cols; /* FP8: elements that share a scale */
    bool per_tensor;                 /* FP8: all do */
    const char *module;              /* X */
    struct place place;
};

/* The totals of a table for plans and summaries: {"tensors": n, "bytes": b, "formats": {"MXFP4":
 * bytes, "FP8": …, "scales": …, "BF16": …}} over all data lines. Uses name and dtype alone, so that
 * it works on a table that is not in order. The caller owns the result. */
json_t *formats_totals(const struct toc *toc);

/* The suffixes of X's tensors after the module's name, in stream order: the scales (".input_scale"
 * first), then ".weight". */
enum { WEIGHT_SUFFIXES = 6 };
extern const char *const weight_suffix[WEIGHT_SUFFIXES];

/* True if `suffix` (".scale") is the last component of the tensor's name. */
bool tensor_has_suffix(const struct tensor *tensor, const char *suffix);

/* The format of X.weight by name and dtype alone, or FORMAT_COUNT if the line is not a matrix: for
 * descriptions, where weights_find() would be too strict. */
enum format format_of(const struct tensor *tensor);

/* Write X, the module of "X.weight" or of any of its scales, to `module` (TENSOR_NAME_MAX + 1
 * bytes); returns module. */
char *weight_module(const struct tensor *tensor, char *module);

/* The scales of one matrix in memory; stream/scales.h reads them, scales_free() frees them. */
struct scales {
    void *raw;     /* X.scale as stored */
    float *fp8;    /* FP8: X.scale as F32; raw itself if it is stored so */
    float scale_2; /* NVFP4 */
    uint64_t cols; /* of raw and fp8 */
};

/* Take over X.scale's bytes, from malloc(), of the tensor `scale`. */
void scales_set(struct scales *scales, const struct weight *w, const struct tensor *scale,
                void *raw);
void scales_free(struct scales *scales);

/* Rows first … first + rows - 1 as BF16. raw: their bytes as stored; out: rows * cols values.
 * PLAIN: BF16 is copied, F32 and F16 are rounded. Returns the number of NaN codes among FP8
 * elements. */
size_t weight_rows(const struct weight *w, const struct tensor *tensor, const struct scales *scales,
                   uint64_t first, uint64_t rows, const void *raw, uint16_t *out);

/* The same with the given codec. */
size_t weight_rows_by(const struct codec *codec, const struct weight *w,
                      const struct tensor *tensor, const struct scales *scales, uint64_t first,
                      uint64_t rows, const void *raw, uint16_t *out);

/* Row `row`, split, as the right side of a product (see split.h): out [SPLIT * cols]. FP8's values
 * are not rounded before; those of other formats are weight_rows()'s. raw: the row's bytes. */
void weight_split_row(const struct weight *w, const struct tensor *tensor,
                      const struct scales *scales, uint64_t row, const void *raw, uint16_t *out);

/* The rows that hold elements: all, or none of a matrix without columns. Such a matrix may claim
 * 2^40 rows in a header of some bytes, so what visits rows visits these. */
uint64_t weight_filled_rows(const struct weight *w);

/* Bytes of one row as stored. */
uint64_t weight_row_bytes(const struct weight *w, const struct tensor *tensor);

/* The number of rows of a band of about 2 MiB of BF16, at least 1. Ends the process if a row has
 * more than WEIGHT_COLS_MAX elements, if there is one. */
uint64_t weight_band(const struct weight *w, const struct tensor *tensor);

#endif
