#include "tensor/weight.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "tensor/bf16.h"
#include "tensor/fp8.h"
#include "tensor/split.h"

enum { BAND_BYTES = 2 << 20 };

const char *const weight_suffix[WEIGHT_SUFFIXES] = {
    ".input_scale", ".weight_scale_2", ".weight_scale", ".weight_scale_inv", ".scale", ".weight"};

const char *format_name(enum format format)
{
    static const char *const name[FORMAT_COUNT] = {"plain", "FP8", "MXFP4", "NVFP4"};
    return name[format];
}

char *weight_module(const struct tensor *tensor, char *module)
{
    const char *dot = strrchr(tensor->name, '.');
    size_t length = dot ? (size_t)(dot - tensor->name) : strlen(tensor->name);
    memcpy(module, tensor->name, length);
    module[length] = 0;
    return module;
}

bool tensor_has_suffix(const struct tensor *tensor, const char *suffix)
{
    const char *dot = strrchr(tensor->name, '.');
    return dot && !strcmp(dot, suffix);
}

enum format format_of(const struct tensor *tensor)
{
    if (tensor->rank != 2 || !tensor_has_suffix(tensor, ".weight"))
        return FORMAT_COUNT;
    switch (tensor->dtype) {
    case DTYPE_F8_E4M3:
        return FORMAT_FP8;
    case DTYPE_I8:
    case DTYPE_F4:
        return FORMAT_MXFP4;
    case DTYPE_U8:
        return FORMAT_NVFP4;
    case DTYPE_BF16:
    case DTYPE_F16:
    case DTYPE_F32:
        return FORMAT_PLAIN;
    default:
        return FORMAT_COUNT;
    }
}

/* The name of a line's format in a summary. */
static const char *kind_of(const struct tensor *tensor)
{
    for (size_t i = 0; i + 1 < WEIGHT_SUFFIXES; i++) /* all but ".weight" */
        if (tensor_has_suffix(tensor, weight_suffix[i]))
            return "scales";
    enum format format = format_of(tensor);
    if (format != FORMAT_PLAIN && format != FORMAT_COUNT)
        return format_name(format);
    return dtype_name(tensor->dtype);
}

json_t *formats_totals(const struct toc *toc)
{
    size_t tensors = 0;
    json_t *formats = json_object();
    for (size_t i = 0; i < toc->count; i++) {
        const struct tensor *tensor = &toc->tensor[i];
        if (tensor->context)
            continue;
        const char *kind = kind_of(tensor);
        json_t *bytes = json_object_get(formats, kind);
        json_object_set_new(formats, kind,
                            json_integer(json_integer_value(bytes) + (json_int_t)tensor->size));
        tensors++;
    }
    json_t *totals = json_pack("{s:I, s:I, s:o}", "tensors", (json_int_t)tensors, "bytes",
                               (json_int_t)toc_bytes(toc, false), "formats", formats);
    if (!totals)
        die("out of memory");
    return totals;
}

void scales_set(struct scales *scales, const struct weight *w, const struct tensor *scale,
                void *raw)
{
    size_t n = (size_t)(scale->size / dtype_size(scale->dtype));
    scales->raw = raw;
    scales->cols = scale->rank == 2 ? scale->dim[1] : 1;
    if (w->format != FORMAT_FP8)
        return;
    if (scale->dtype == DTYPE_F32) {
        scales->fp8 = raw;
        return;
    }
    scales->fp8 = xalloc(n, sizeof *scales->fp8);
    for (size_t i = 0; i < n; i++)
        scales->fp8[i] = (float)dtype_value(scale->dtype, raw, i);
}

void scales_free(struct scales *scales)
{
    if ((void *)scales->fp8 != scales->raw)
        free(scales->fp8);
    free(scales->raw);
    *scales = (struct scales){0};
}

/* ---- rows ---- */

uint64_t weight_filled_rows(const struct weight *w)
{
    return w->cols ? w->rows : 0;
}

uint64_t weight_row_bytes(const struct weight *w, const struct tensor *tensor)
{
    return w->rows ? tensor->size / w->rows : 0;
}

uint64_t weight_band(const struct weight *w, const struct tensor *tensor)
{
    uint64_t row = w->cols * sizeof(uint16_t);
    if (w->rows && w->cols > WEIGHT_COLS_MAX)
        die("%s: rows of %" PRIu64 " elements are too long", tensor->name, w->cols);
    return row >= BAND_BYTES || row == 0 ? 1 : BAND_BYTES / row;
}

static void plain_row(enum dtype dtype, const char *raw, uint64_t cols, uint16_t *out)
{
    if (dtype == DTYPE_BF16)
        memcpy(out, raw, (size_t)cols * sizeof *out);
    else
        for (size_t j = 0; j < cols; j++)
            out[j] = bf16_from_f32((float)dtype_value(dtype, raw, j));
}

size_t weight_rows(const struct weight *w, const struct tensor *tensor, const struct scales *scales,
                   uint64_t first, uint64_t rows, const void *raw, uint16_t *out)
{
    return weight_rows_by(codec_best(), w, tensor, scales, first, rows, raw, out);
}

size_t weight_rows_by(const struct codec *codec, const struct weight *w,
                      const struct tensor *tensor, const struct scales *scales, uint64_t first,
                      uint64_t rows, const void *raw, uint16_t *out)
{
    const char *in = raw;
    const uint8_t *block = scales->raw; /* NULL for PLAIN */
    uint64_t row_bytes = weight_row_bytes(w, tensor);
    size_t nan = 0;
    for (uint64_t i = first; i < first + rows; i++, in += row_bytes, out += w->cols) {
        const uint8_t *codes = (const uint8_t *)in;
        uint64_t scale = (w->format == FORMAT_FP8 ? i / w->block_rows : i) * scales->cols;
        switch (w->format) {
        case FORMAT_PLAIN:
            plain_row(tensor->dtype, in, w->cols, out);
            break;
        case FORMAT_FP8:
            nan += codec->fp8_dequant_row(out, codes, scales->fp8 + scale, (size_t)w->cols,
                                          (size_t)w->block_cols);
            break;
        case FORMAT_MXFP4:
            codec->mxfp4_unpack_row(out, codes, block + scale, (size_t)w->cols);
            break;
        case FORMAT_NVFP4:
            codec->nvfp4_unpack_row(out, codes, block + scale, (size_t)w->cols, scales->scale_2);
            break;
        case FORMAT_COUNT:
            break;
        }
    }
    return nan;
}

void weight_split_row(const struct weight *w, const struct tensor *tensor,
                      const struct scales *scales, uint64_t row, const void *raw, uint16_t *out)
{
    size_t cols = (size_t)w->cols;
    if (w->format == FORMAT_FP8) {
        fp8_split_row(out, raw, scales->fp8 + row / w->block_rows * scales->cols, cols,
                      (size_t)w->block_cols);
        return;
    }
    weight_rows(w, tensor, scales, row, 1, raw, out);
    for (size_t j = 0; j < cols; j++)
        split_right(out + j, cols, (struct split){.high = out[j]});
}
