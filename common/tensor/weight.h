/* weight.h: a matrix of a checkpoint, in whatever format it lies, and its rows as BF16.
 *
 *   format  X.weight                 its scales, which come directly before it
 *   PLAIN   BF16, F16 or F32         none
 *   FP8     F8_E4M3 [rows, cols]     a scale for each block (see model_fp8_block()): X.scale
 * F8_E8M0 or F32, or X.weight_scale_inv F32, all of them [ceil(rows/block), ceil(cols/block)]; or
 * one scale for the whole tensor: X.weight_scale F32 [] MXFP4   I8 [rows, cols/2]        X.scale
 * F8_E8M0 [rows, cols/32] NVFP4   U8 [rows, cols/2]        X.weight_scale F8_E4M3 [rows, cols/16],
 * X.weight_scale_2 F32
 *                                    [], X.input_scale F32 [] (not needed to dequantize)
 *
 * model/weights.h finds them in a table. */
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

/* "FP8" and the like. */
const char *format_name(enum format format);

enum { WEIGHT_COLS_MAX = 8 << 20, WEIGHT_NONE = UINT32_MAX };

/* A matrix. Line numbers are of the table it was found in; WEIGHT_NONE where there is none. */
struct weight {
    enum format format;
    uint32_t line;                   /* X.weight */
    uint32_t scale;                  /* X.scale, X.weight_scale_inv or X.weight_scale */
    uint32_t scale_2;                /* X.weight_scale_2 */
    uint32_t input_scale;            /* X.input_scale */
    uint64_t rows, cols;             /* elements, not bytes */
    uint64_t block_rows, block_cols; /* FP8: elements under one scale */
    const char *module;              /* X */
    struct place place;
};

/* What a plan and a summary say of a table: {"tensors": n, "bytes": b, "formats": {"MXFP4": bytes,
 * "FP8": …, "scales": …, "BF16": …}} of all lines that are data; by name and dtype alone, so that a
 * table that is not in order can be described too. The caller owns it. */
json_t *formats_totals(const struct toc *toc);

/* What X's tensors are called after the name of their module, in the stream's order: the scales
 * (".input_scale" first), then ".weight". */
enum { WEIGHT_SUFFIXES = 6 };
extern const char *const weight_suffix[WEIGHT_SUFFIXES];

/* True if the tensor's name ends, from its last dot on, in `suffix` (".scale"). */
bool tensor_has_suffix(const struct tensor *tensor, const char *suffix);

/* The format of X.weight by name and dtype alone, or FORMAT_COUNT if the line is no matrix: for
 * descriptions, where weights_find() would be too strict. */
enum format format_of(const struct tensor *tensor);

/* The module of "X.weight" or any of its scales, X, into `module` (TENSOR_NAME_MAX + 1 bytes);
 * returns module. */
char *weight_module(const struct tensor *tensor, char *module);

/* The scales of one matrix, in memory; stream/scales.h reads them. */
struct scales {
    void *raw;     /* X.scale as it lies */
    float *fp8;    /* FP8: X.scale as F32 */
    float scale_2; /* NVFP4 */
    uint64_t cols; /* of raw and fp8 */
};
void scales_free(struct scales *scales);

/* Rows first … first + rows - 1 as BF16: raw holds their bytes as they lie, out gets rows * cols
 * values. PLAIN: BF16 is copied, F32 and F16 rounded. Returns the number of NaN codes among FP8
 * elements. */
size_t weight_rows(const struct weight *w, const struct tensor *tensor, const struct scales *scales,
                   uint64_t first, uint64_t rows, const void *raw, uint16_t *out);

/* The same by a codec of one's choice. */
size_t weight_rows_by(const struct codec *codec, const struct weight *w,
                      const struct tensor *tensor, const struct scales *scales, uint64_t first,
                      uint64_t rows, const void *raw, uint16_t *out);

/* Bytes of one row as it lies. */
uint64_t weight_row_bytes(const struct weight *w, const struct tensor *tensor);

/* How many rows make a band of some 2 MiB of BF16: at least 1. Ends the process if a row has
 * more than WEIGHT_COLS_MAX elements. */
uint64_t weight_band(const struct weight *w, const struct tensor *tensor);

#endif
