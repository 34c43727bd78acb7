#include "model/weights.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/die.h"
#include "tensor/mxfp4.h"

/* The line of module + suffix among the few directly before `line`, or WEIGHT_NONE. Where a name
 * comes twice (in model-parallel ranks), it is the one of the same shard; and what lies before
 * another weight of the module is that one's. */
static uint32_t before(const struct toc *toc, size_t line, const char *suffix)
{
    const char *name = toc->tensor[line].name;
    size_t module = (size_t)(strrchr(name, '.') - name);
    uint32_t found = WEIGHT_NONE;
    for (size_t i = line; i-- > 0 && line - i <= 4;) {
        const char *other = toc->tensor[i].name;
        if (strncmp(other, name, module) != 0 || other[module] != '.' || !strcmp(other, name))
            break; /* another module's tensor comes between, or this one of another rank */
        if (!strcmp(other + module, suffix) &&
            (found == WEIGHT_NONE || toc->tensor[i].shard == toc->tensor[line].shard))
            found = (uint32_t)i;
    }
    return found;
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

/* Set w's block size to the one whose grid of scales has the shape of `scale`. False if there is
 * none. */
static bool find_block(const struct model *model, struct weight *w, const struct tensor *scale)
{
    struct fp8_block block;
    for (unsigned i = 0; model_fp8_block(model, i, &block); i++)
        if (is_shape(scale, blocks(w->rows, block.rows), blocks(w->cols, block.cols))) {
            w->block_rows = block.rows;
            w->block_cols = block.cols;
            return true;
        }
    return false;
}

enum fp8_scale { FP8_SCALE, FP8_SCALE_INV, FP8_TENSOR_SCALE, FP8_SCALES };

/* True if the scale has the dtype and shape its name requires. Sets w's block size. */
static bool fits(const struct model *model, struct weight *w, const struct tensor *scale,
                 enum fp8_scale which)
{
    if (which == FP8_TENSOR_SCALE) {
        w->per_tensor = true;
        w->block_rows = w->rows ? w->rows : 1;
        w->block_cols = w->cols ? w->cols : 1;
        return scale->dtype == DTYPE_F32 && scale->size == sizeof(float);
    }
    bool e8m0 = which == FP8_SCALE && scale->dtype == DTYPE_F8_E8M0;
    return (e8m0 || scale->dtype == DTYPE_F32) && find_block(model, w, scale);
}

/* The one that a family's checkpoints have. */
static enum fp8_scale usual_scale(const struct model *model, const char *const *suffix)
{
    return strcmp(suffix[FP8_SCALE_INV] + 1, model_scale_name(model)) ? FP8_SCALE : FP8_SCALE_INV;
}

static void describe_fp8(struct weight *w, const struct model *model, struct toc *toc,
                         const struct tensor *tensor, const char *stream)
{
    static const char *const suffix[FP8_SCALES] = {".scale", ".weight_scale_inv", ".weight_scale"};
    enum fp8_scale which = FP8_SCALE;
    while (which < FP8_SCALES && w->scale == WEIGHT_NONE)
        w->scale = before(toc, w->line, suffix[which++]);
    which = w->scale == WEIGHT_NONE ? usual_scale(model, suffix) : which - 1;
    if (w->scale != WEIGHT_NONE && fits(model, w, &toc->tensor[w->scale], which)) {
        if (w->per_tensor)
            w->input_scale = before(toc, w->line, ".input_scale");
        return;
    }
    struct fp8_block block;
    (void)model_fp8_block(model, 0, &block);
    enum dtype dtype = which == FP8_SCALE ? DTYPE_F8_E8M0 : DTYPE_F32;
    char *wanted = which == FP8_TENSOR_SCALE
                       ? xstrdup("F32 []")
                       : xprintf("%s [%" PRIu64 ",%" PRIu64 "]", dtype_name(dtype),
                                 blocks(w->rows, block.rows), blocks(w->cols, block.cols));
    die_scale(stream, toc, tensor, suffix[which], wanted);
}

static void describe_fp4(struct weight *w, struct toc *toc, const struct tensor *tensor,
                         enum format format, const char *stream)
{
    bool nv = format == FORMAT_NVFP4;
    const char *suffix = nv ? ".weight_scale" : ".scale";
    enum dtype dtype = nv ? DTYPE_F8_E4M3 : DTYPE_F8_E8M0;
    uint64_t block = nv ? NVFP4_BLOCK : MXFP4_BLOCK;
    w->cols = tensor->dtype == DTYPE_F4 ? tensor->dim[1] : 2 * tensor->dim[1];
    w->scale = before(toc, w->line, suffix);
    if (w->cols % block)
        die("%s: %s: %" PRIu64 " columns, which is not a multiple of the block of %" PRIu64, stream,
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

/* True if the line is a matrix; then *w describes it, except for its module and place. */
static bool describe(struct weight *w, const struct model *model, struct toc *toc, size_t line,
                     const char *stream)
{
    const struct tensor *tensor = &toc->tensor[line];
    enum format format = format_of(tensor);
    if (format == FORMAT_COUNT)
        return false;
    *w = (struct weight){.format = format,
                         .line = (uint32_t)line,
                         .scale = WEIGHT_NONE,
                         .scale_2 = WEIGHT_NONE,
                         .input_scale = WEIGHT_NONE,
                         .rows = tensor->dim[0],
                         .cols = tensor->dim[1]};
    if (format == FORMAT_FP8)
        describe_fp8(w, model, toc, tensor, stream);
    else if (format != FORMAT_PLAIN)
        describe_fp4(w, toc, tensor, format, stream);
    return true;
}

void weights_find(struct weights *weights, const struct model *model, struct toc *toc,
                  const char *stream)
{
    size_t capacity = 0;
    *weights = (struct weights){.of_line = xgrow(NULL, toc->count, sizeof *weights->of_line),
                                .arena = arena_new()};
    for (size_t i = 0; i < toc->count; i++)
        weights->of_line[i] = WEIGHT_NONE;
    for (size_t i = 0; i < toc->count; i++) {
        struct weight w;
        if (!describe(&w, model, toc, i, stream))
            continue;
        char module[TENSOR_NAME_MAX + 1];
        weight_module(&toc->tensor[i], module);
        w.module = arena_copy(weights->arena, module, strlen(module));
        w.place = model_place(model, module);
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
    arena_free(weights->arena);
    *weights = (struct weights){0};
}

const struct weight *weight_of(const struct weights *weights, size_t line)
{
    uint32_t i = weights->of_line[line];
    return i == WEIGHT_NONE ? NULL : &weights->weight[i];
}
