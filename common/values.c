#include "values.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "bf16.h"
#include "die.h"
#include "weight.h"

/* The scales of a matrix, which go with the last piece of it. */
struct shared_scales {
    struct scales scales;
    atomic_uint users;
};

struct values {
    struct ts_in *in;
    bool dequantize;
    struct weights weights;       /* with dequantize */
    struct shared_scales *scales; /* of the matrix that comes next, or is present; or NULL */
    struct tensor form;           /* of the present tensor */
    const struct weight *matrix;
    uint64_t cut; /* elements of it */
};

/* ---- scales ---- */

static void release(struct shared_scales *scales)
{
    if (!scales || atomic_fetch_sub(&scales->users, 1) > 1)
        return;
    scales_free(&scales->scales);
    free(scales);
}

static void take_scale(struct values *values, const struct weight *w)
{
    if (!values->scales) {
        values->scales = xalloc(1, sizeof *values->scales);
        atomic_init(&values->scales->users, 1);
    }
    scales_take(&values->scales->scales, w, values->in);
}

/* ---- tensors ---- */

struct values *values_new(struct ts_in *in, bool dequantize)
{
    struct values *values = xalloc(1, sizeof *values);
    values->in = in;
    values->dequantize = dequantize;
    if (dequantize)
        weights_find(&values->weights, ts_toc(in), ts_name(in));
    return values;
}

void values_free(struct values *values)
{
    release(values->scales);
    weights_free(&values->weights);
    free(values);
}

/* The quantized matrix that a line belongs to, or NULL if it stands for itself. */
static const struct weight *matrix_of(const struct values *values, size_t line)
{
    const struct weight *w = values->dequantize ? weight_of(&values->weights, line) : NULL;
    return w && w->format != FORMAT_PLAIN && line != w->input_scale ? w : NULL;
}

bool values_form_of(const struct values *values, size_t line, struct tensor *form)
{
    const struct weight *w = matrix_of(values, line);
    *form = ts_toc(values->in)->tensor[line];
    if (!w)
        return true;
    if (line != w->line)
        return false;
    form->dtype = DTYPE_BF16;
    form->dim[0] = w->rows;
    form->dim[1] = w->cols;
    if (!tensor_size(DTYPE_BF16, form->rank, form->dim, &form->size))
        die("%s: %s: its size as BF16 overflows", ts_name(values->in), form->name);
    return true;
}

const struct tensor *values_next(struct values *values)
{
    if (values->matrix) {
        release(values->scales);
        values->scales = NULL;
    }
    values->matrix = NULL;
    values->cut = 0;
    for (const struct tensor *tensor; (tensor = ts_next(values->in));) {
        size_t line = (size_t)(tensor - ts_toc(values->in)->tensor);
        const struct weight *w = matrix_of(values, line);
        if (!values_form_of(values, line, &values->form)) {
            take_scale(values, w);
            continue;
        }
        values->matrix = w;
        return tensor;
    }
    return NULL;
}

const struct tensor *values_form(const struct values *values)
{
    return &values->form;
}

void values_as_bytes(struct values *values)
{
    struct tensor *form = &values->form;
    form->dtype = DTYPE_U8;
    form->rank = 1;
    form->dim[0] = form->size;
}

/* ---- pieces ---- */

static void *room_for(void *memory, size_t *room, size_t size)
{
    if (size <= *room)
        return memory;
    free(memory);
    *room = size;
    return xgrow(NULL, size, 1);
}

/* Elements of a piece: some PIECE, in whole rows where these may be a matrix's. */
static uint64_t piece_elements(const struct tensor *form)
{
    enum { PIECE = 1 << 18 };
    uint64_t cols = form->rank == 2 ? form->dim[1] : 0;
    if (cols == 0 || cols > WEIGHT_COLS_MAX)
        return PIECE;
    return cols > PIECE ? cols : PIECE / cols * cols;
}

bool values_cut(struct values *values, struct values_piece *piece)
{
    const struct tensor *form = &values->form;
    const struct weight *w = values->matrix;
    uint64_t elements = form->size / dtype_size(form->dtype), place;
    if (values->cut == elements)
        return false;
    piece->count = (size_t)at_most(elements - values->cut, piece_elements(form));
    piece->tensor = ts_present(values->in);
    piece->matrix = w;
    if (w) {
        uint64_t row_bytes = weight_row_bytes(w, piece->tensor);
        weight_band(w, piece->tensor); /* rows that are too long end here */
        piece->first = values->cut / w->cols;
        piece->rows = piece->count / w->cols;
        piece->raw_size = (size_t)(piece->rows * row_bytes);
        piece->scales = values->scales;
        atomic_fetch_add(&piece->scales->users, 1);
        place = piece->first * row_bytes;
    } else {
        piece->raw_size = piece->count * dtype_size(form->dtype);
        place = values->cut * dtype_size(form->dtype);
    }
    piece->raw = room_for(piece->raw, &piece->raw_room, piece->raw_size);
    piece->by_reference = ts_ref(values->in, &piece->source, &piece->offset);
    piece->offset += place;
    if (!piece->by_reference)
        ts_read(values->in, piece->raw, piece->raw_size);
    values->cut += piece->count;
    return true;
}

void values_load(struct values *values, struct values_piece *piece)
{
    const struct weight *w = piece->matrix;
    if (piece->by_reference)
        sources_read(ts_sources(values->in), piece->source, piece->offset, piece->raw,
                     piece->raw_size, piece->tensor->name);
    piece->data = piece->raw;
    if (!w)
        return;
    piece->dequantized =
        room_for(piece->dequantized, &piece->rows_room, piece->count * sizeof *piece->dequantized);
    weight_rows(w, piece->tensor, &piece->scales->scales, piece->first, piece->rows, piece->raw,
                piece->dequantized);
    piece->data = piece->dequantized;
    release(piece->scales);
}

void values_piece_free(struct values_piece *piece)
{
    free(piece->raw);
    free(piece->dequantized);
}

/* ---- numbers ---- */

void values_widen(enum dtype dtype, const void *data, size_t count, double *out)
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
