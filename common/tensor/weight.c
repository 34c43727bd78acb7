#include "tensor/weight.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "tensor/bf16.h"
#include "tensor/e4m3.h"
#include "tensor/e8m0.h"
#include "tensor/mxfp4.h"

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

/* The line of module + suffix among the few directly before `line`, or WEIGHT_NONE. */
static uint32_t before(const struct toc *toc, size_t line, const char *suffix)
{
    const char *name = toc->tensor[line].name;
    size_t module = (size_t)(strrchr(name, '.') - name);
    for (size_t i = line; i-- > 0 && line - i <= 4;) {
        const char *other = toc->tensor[i].name;
        if (strncmp(other, name, module) != 0 || other[module] != '.')
            break; /* another module's tensor is in between */
        if (!strcmp(other + module, suffix))
            return (uint32_t)i;
    }
    return WEIGHT_NONE;
}

static bool is_shape(const struct tensor *tensor, uint64_t rows, uint64_t cols)
{
    return tensor->rank == 2 && tensor->dim[0] == rows && tensor->dim[1] == cols;
}

_Noreturn static void die_scale(const char *stream, struct toc *toc, const struct tensor *tensor,
                                const char *suffix, const char *wanted)
{
    char module[TENSOR_NAME_MAX + 1], shape[TENSOR_SHAPE_TEXT];
    char *name = xprintf("%s%s", weight_module(tensor, module), suffix);
    int64_t line = toc_find(toc, name);
    if (line < 0)
        die("%s: %s: its scale %s (%s) is missing; the checkpoint is incomplete, or the stream was "
            "cut by st-grep",
            stream, tensor->name, name, wanted);
    const struct tensor *scale = &toc->tensor[line];
    die("%s: %s: its scale %s must be %s and come directly before it, but is %s %s on line %" PRId64
        " of the table",
        stream, tensor->name, name, wanted, dtype_name(scale->dtype), tensor_shape(scale, shape),
        line + 1);
}

static uint64_t blocks(uint64_t n, uint64_t block)
{
    return n / block + (n % block != 0);
}

static void describe_fp8(struct weight *w, struct toc *toc, const struct tensor *tensor,
                         const char *stream)
{
    w->format = FORMAT_FP8;
    w->scale = before(toc, w->line, ".scale");
    enum dtype dtype = DTYPE_F8_E8M0;
    if (w->scale == WEIGHT_NONE) {
        w->scale = before(toc, w->line, ".weight_scale_inv");
        dtype = w->scale == WEIGHT_NONE ? DTYPE_F8_E8M0 : DTYPE_F32;
    }
    uint64_t rows = blocks(w->rows, FP8_BLOCK), cols = blocks(w->cols, FP8_BLOCK);
    if (w->scale != WEIGHT_NONE && toc->tensor[w->scale].dtype == dtype &&
        is_shape(&toc->tensor[w->scale], rows, cols))
        return;
    char *wanted = xprintf("%s [%" PRIu64 ",%" PRIu64 "]", dtype_name(dtype), rows, cols);
    die_scale(stream, toc, tensor, dtype == DTYPE_F32 ? ".weight_scale_inv" : ".scale", wanted);
}

static void describe_fp4(struct weight *w, struct toc *toc, const struct tensor *tensor,
                         enum format format, const char *stream)
{
    bool nv = format == FORMAT_NVFP4;
    const char *suffix = nv ? ".weight_scale" : ".scale";
    enum dtype dtype = nv ? DTYPE_F8_E4M3 : DTYPE_F8_E8M0;
    uint64_t block = nv ? NVFP4_BLOCK : MXFP4_BLOCK;
    w->format = format;
    w->cols = 2 * tensor->dim[1];
    w->scale = before(toc, w->line, suffix);
    if (w->cols % block)
        die("%s: %s: %" PRIu64 " columns, which is no multiple of the block of %" PRIu64, stream,
            tensor->name, w->cols, block);
    if (w->scale == WEIGHT_NONE || toc->tensor[w->scale].dtype != dtype ||
        !is_shape(&toc->tensor[w->scale], w->rows, w->cols / block)) {
        char *wanted =
            xprintf("%s [%" PRIu64 ",%" PRIu64 "]", dtype_name(dtype), w->rows, w->cols / block);
        die_scale(stream, toc, tensor, suffix, wanted);
    }
    if (!nv)
        return;
    w->input_scale = before(toc, w->line, ".input_scale");
    w->scale_2 = before(toc, w->line, ".weight_scale_2");
    if (w->scale_2 == WEIGHT_NONE || toc->tensor[w->scale_2].dtype != DTYPE_F32 ||
        toc->tensor[w->scale_2].size != sizeof(float))
        die_scale(stream, toc, tensor, ".weight_scale_2", "F32 []");
}

/* True if the line is a matrix, described in *w. */
static bool describe(struct weight *w, struct toc *toc, size_t line, const char *stream)
{
    const struct tensor *tensor = &toc->tensor[line];
    enum format format = format_of(tensor);
    if (format == FORMAT_COUNT)
        return false;
    *w = (struct weight){.line = (uint32_t)line,
                         .scale = WEIGHT_NONE,
                         .scale_2 = WEIGHT_NONE,
                         .input_scale = WEIGHT_NONE,
                         .rows = tensor->dim[0],
                         .cols = tensor->dim[1]};
    if (format == FORMAT_FP8)
        describe_fp8(w, toc, tensor, stream);
    else if (format != FORMAT_PLAIN)
        describe_fp4(w, toc, tensor, format, stream);
    return true;
}

void weights_find(struct weights *weights, struct toc *toc, const char *stream)
{
    size_t capacity = 0;
    *weights = (struct weights){.of_line = xgrow(NULL, toc->count, sizeof *weights->of_line)};
    for (size_t i = 0; i < toc->count; i++)
        weights->of_line[i] = WEIGHT_NONE;
    for (size_t i = 0; i < toc->count; i++) {
        struct weight w;
        if (!describe(&w, toc, i, stream))
            continue;
        if (weights->count == capacity) {
            capacity = capacity ? 2 * capacity : 256;
            weights->weight = xgrow(weights->weight, capacity, sizeof w);
        }
        const uint32_t lines[] = {w.line, w.scale, w.scale_2, w.input_scale};
        for (size_t j = 0; j < sizeof lines / sizeof *lines; j++)
            if (lines[j] != WEIGHT_NONE)
                weights->of_line[lines[j]] = (uint32_t)weights->count;
        weights->weight[weights->count++] = w;
    }
}

void weights_free(struct weights *weights)
{
    free(weights->weight);
    free(weights->of_line);
    *weights = (struct weights){0};
}

const struct weight *weight_of(const struct weights *weights, size_t line)
{
    uint32_t i = weights->of_line[line];
    return i == WEIGHT_NONE ? NULL : &weights->weight[i];
}

enum format format_of(const struct tensor *tensor)
{
    if (tensor->rank != 2 || !tensor_has_suffix(tensor, ".weight"))
        return FORMAT_COUNT;
    switch (tensor->dtype) {
    case DTYPE_F8_E4M3:
        return FORMAT_FP8;
    case DTYPE_I8:
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

/* What a summary calls a line's format. */
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

/* ---- scales ---- */

static void refuse(struct ts_in *in, const struct tensor *tensor, uint64_t i, const char *what)
{
    die("%s: %s: element %" PRIu64 " (byte %" PRIu64 " of the tensor) is %s; the checkpoint is "
        "damaged: compare its checksum with the publisher's",
        ts_name(in), tensor->name, i, i * dtype_size(tensor->dtype), what);
}

void scales_check(const struct weight *w, struct ts_in *in, uint32_t line, uint64_t at,
                  const void *raw, size_t size)
{
    const struct tensor *tensor = &ts_toc(in)->tensor[line];
    const uint8_t *code = raw;
    if (line != w->scale)
        return;
    if (tensor->dtype == DTYPE_F8_E8M0) {
        const uint8_t *nan = memchr(code, E8M0_NAN, size);
        if (nan)
            refuse(in, tensor, at + (uint64_t)(nan - code), "the E8M0 code 255, NaN");
    } else if (w->format == FORMAT_NVFP4) {
        for (size_t i = 0; i < size; i++)
            if (code[i] % 128 == 127)
                refuse(in, tensor, at + i, "an E4M3 NaN");
    }
}

static void keep_block_scale(struct scales *scales, const struct weight *w, struct ts_in *in,
                             const struct tensor *tensor, void *raw)
{
    size_t n = (size_t)(tensor->size / dtype_size(tensor->dtype));
    scales->raw = raw;
    scales->cols = tensor->dim[1];
    scales_check(w, in, w->scale, 0, raw, (size_t)tensor->size);
    if (w->format == FORMAT_FP8) {
        scales->fp8 = xalloc(n, sizeof *scales->fp8);
        for (size_t i = 0; i < n; i++) {
            scales->fp8[i] = (float)dtype_value(tensor->dtype, raw, i);
            if (!isfinite(scales->fp8[i]))
                refuse(in, tensor, i, "not finite");
        }
    }
}

void scales_keep(struct scales *scales, const struct weight *w, struct ts_in *in, uint32_t line,
                 void *raw)
{
    const struct tensor *tensor = &ts_toc(in)->tensor[line];
    if (line == w->scale) {
        keep_block_scale(scales, w, in, tensor, raw);
        return;
    }
    if (line == w->scale_2) {
        memcpy(&scales->scale_2, raw, sizeof scales->scale_2);
        if (!isfinite(scales->scale_2))
            refuse(in, tensor, 0, "not finite");
    }
    free(raw);
}

bool scales_take(struct scales *scales, const struct weight *w, struct ts_in *in)
{
    uint32_t line = (uint32_t)(ts_present(in) - ts_toc(in)->tensor);
    if (line != w->scale && line != w->scale_2 && line != w->input_scale)
        return false;
    scales_keep(scales, w, in, line, ts_read_all(in));
    return true;
}

void scales_free(struct scales *scales)
{
    free(scales->raw);
    free(scales->fp8);
    *scales = (struct scales){0};
}

/* ---- rows ---- */

uint64_t weight_row_bytes(const struct weight *w, const struct tensor *tensor)
{
    return w->rows ? tensor->size / w->rows : 0;
}

uint64_t weight_band(const struct weight *w, const struct tensor *tensor)
{
    uint64_t row = w->cols * sizeof(uint16_t);
    if (w->cols > WEIGHT_COLS_MAX)
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
        uint64_t scale = w->format == FORMAT_FP8 ? i / FP8_BLOCK * scales->cols : i * scales->cols;
        switch (w->format) {
        case FORMAT_PLAIN:
            plain_row(tensor->dtype, in, w->cols, out);
            break;
        case FORMAT_FP8:
            nan +=
                codec->fp8_dequant_row(out, codes, scales->fp8 + scale, (size_t)w->cols, FP8_BLOCK);
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
