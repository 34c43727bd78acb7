#include "stream/elements.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "base/buffer.h"
#include "base/die.h"
#include "model/weights.h"
#include "stream/scales.h"
#include "tensor/bf16.h"
#include "tensor/weight.h"

/* The scales of a matrix, freed with its last piece. */
struct shared_scales {
    struct scales scales;
    atomic_uint users;
};

struct elements {
    struct ts_in *in;
    bool dequantize;
    struct weights weights;       /* with dequantize */
    struct shared_scales *scales; /* of the next or current matrix; or NULL */
    struct tensor form;           /* of the current tensor */
    const struct weight *matrix;
    uint64_t cut; /* elements cut so far */
};

struct elements_piece {
    size_t count;
    const struct tensor *tensor;
    const struct weight *matrix; /* or NULL */
    struct shared_scales *scales;
    uint64_t first, rows; /* of the matrix */
    bool by_reference;
    size_t source;
    uint64_t offset;
    size_t raw_size;
    struct buffer raw, dequantized;
};

/* ---- scales ---- */

static void release(struct shared_scales *scales)
{
    if (!scales || atomic_fetch_sub(&scales->users, 1) > 1)
        return;
    scales_free(&scales->scales);
    free(scales);
}

static void read_scale(struct elements *elements, const struct weight *w)
{
    if (!elements->scales) {
        elements->scales = xalloc(1, sizeof *elements->scales);
        atomic_init(&elements->scales->users, 1);
    }
    scales_take(&elements->scales->scales, w, elements->in);
}

/* ---- tensors ---- */

struct elements *elements_new(struct ts_in *in, bool dequantize)
{
    struct elements *elements = xalloc(1, sizeof *elements);
    elements->in = in;
    elements->dequantize = dequantize;
    if (dequantize)
        weights_find(&elements->weights, ts_model(in), ts_toc(in), ts_name(in));
    return elements;
}

void elements_free(struct elements *elements)
{
    release(elements->scales);
    weights_free(&elements->weights);
    free(elements);
}

/* The quantized matrix that a line belongs to, or NULL if the line comes as stored. */
static const struct weight *matrix_of(const struct elements *elements, size_t line)
{
    const struct weight *w = elements->dequantize ? weight_of(&elements->weights, line) : NULL;
    return w && w->format != FORMAT_PLAIN && line != w->input_scale ? w : NULL;
}

bool elements_form_of(const struct elements *elements, size_t line, struct tensor *form)
{
    const struct weight *w = matrix_of(elements, line);
    *form = ts_toc(elements->in)->tensor[line];
    if (!w) {
        if (form->dtype == DTYPE_F4) {
            form->dtype = DTYPE_I8;
            form->dim[form->rank - 1] /= 2;
        }
        return true;
    }
    if (line != w->line)
        return false;
    form->dtype = DTYPE_BF16;
    form->dim[0] = w->rows;
    form->dim[1] = w->cols;
    if (!tensor_size(DTYPE_BF16, form->rank, form->dim, &form->size))
        die("%s: %s: its size as BF16 overflows", ts_name(elements->in), form->name);
    return true;
}

const struct tensor *elements_next(struct elements *elements)
{
    if (elements->matrix) {
        release(elements->scales);
        elements->scales = NULL;
    }
    elements->matrix = NULL;
    elements->cut = 0;
    for (const struct tensor *tensor; (tensor = ts_next(elements->in));) {
        size_t line = (size_t)(tensor - ts_toc(elements->in)->tensor);
        const struct weight *w = matrix_of(elements, line);
        if (!elements_form_of(elements, line, &elements->form)) {
            read_scale(elements, w);
            continue;
        }
        elements->matrix = w;
        return tensor;
    }
    return NULL;
}

const struct tensor *elements_form(const struct elements *elements)
{
    return &elements->form;
}

void elements_as_bytes(struct elements *elements)
{
    struct tensor *form = &elements->form;
    form->dtype = DTYPE_U8;
    form->rank = 1;
    form->dim[0] = form->size;
}

/* ---- pieces ---- */

/* The number of elements of a piece: about PIECE, in whole rows where the tensor may be a matrix.
 */
static uint64_t piece_elements(const struct tensor *form)
{
    enum { PIECE = 1 << 19 };
    uint64_t cols = form->rank == 2 ? form->dim[1] : 0;
    if (cols == 0 || cols > WEIGHT_COLS_MAX)
        return PIECE;
    return cols > PIECE ? cols : PIECE / cols * cols;
}

/* Set the piece's rows in its matrix; returns the bytes before them. */
static uint64_t cut_rows(struct elements *elements, struct elements_piece *piece)
{
    const struct weight *w = elements->matrix;
    uint64_t row_bytes = weight_row_bytes(w, piece->tensor);
    weight_band(w, piece->tensor); /* ends the process for rows that are too long */
    piece->first = elements->cut / w->cols;
    piece->rows = piece->count / w->cols;
    piece->raw_size = (size_t)(piece->rows * row_bytes);
    piece->scales = elements->scales;
    atomic_fetch_add(&piece->scales->users, 1);
    return piece->first * row_bytes;
}

bool elements_cut(struct elements *elements, struct elements_piece **place)
{
    const struct tensor *form = &elements->form;
    uint64_t count = form->size / dtype_size(form->dtype), start;
    if (elements->cut == count)
        return false;
    if (!*place)
        *place = xalloc(1, sizeof **place);
    struct elements_piece *piece = *place;
    piece->count = (size_t)at_most(count - elements->cut, piece_elements(form));
    piece->tensor = ts_present(elements->in);
    piece->matrix = elements->matrix;
    if (piece->matrix) {
        start = cut_rows(elements, piece);
    } else {
        piece->raw_size = piece->count * dtype_size(form->dtype);
        start = elements->cut * dtype_size(form->dtype);
    }
    buffer_room(&piece->raw, piece->raw_size);
    piece->by_reference = ts_ref(elements->in, &piece->source, &piece->offset);
    piece->offset += start;
    if (!piece->by_reference)
        ts_read(elements->in, piece->raw.data, piece->raw_size);
    elements->cut += piece->count;
    return true;
}

size_t elements_count(const struct elements_piece *piece)
{
    return piece->count;
}

const void *elements_load(struct elements *elements, struct elements_piece *piece)
{
    const struct weight *w = piece->matrix;
    if (piece->by_reference)
        sources_read(ts_sources(elements->in), piece->source, piece->offset, piece->raw.data,
                     piece->raw_size, piece->tensor->name);
    if (!w)
        return piece->raw.data;
    uint16_t *rows = buffer_room(&piece->dequantized, piece->count * sizeof *rows);
    weight_rows(w, piece->tensor, &piece->scales->scales, piece->first, piece->rows,
                piece->raw.data, rows);
    release(piece->scales);
    return rows;
}

void elements_piece_free(struct elements_piece *piece)
{
    if (!piece)
        return;
    free(piece->raw.data);
    free(piece->dequantized.data);
    free(piece);
}

/* ---- numbers ---- */

void elements_widen(enum dtype dtype, const void *data, size_t count, double *out)
{
    if (dtype == DTYPE_BF16) {
        const uint16_t *bits = data;
        for (size_t i = 0; i < count; i++)
            out[i] = bf16_to_f32(bits[i]);
    } else if (dtype == DTYPE_F32) {
        for (size_t i = 0; i < count; i++) {
            float value;
            memcpy(&value, (const char *)data + i * sizeof value, sizeof value);
            out[i] = value;
        }
    } else if (dtype_size(dtype) == 1 && count > 256) {
        double value[256];
        for (unsigned code = 0; code < 256; code++)
            value[code] = dtype_value(dtype, &(uint8_t){(uint8_t)code}, 0);
        for (size_t i = 0; i < count; i++)
            out[i] = value[((const uint8_t *)data)[i]];
    } else {
        for (size_t i = 0; i < count; i++)
            out[i] = dtype_value(dtype, data, i);
    }
}
