/* The CPU as a device: copies and sums of rows, and activations. */

#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "cpu/piece.h"
#include "tensor/activation.h"

/* ---- copies and sums ---- */

struct copy_args {
    struct mat y, x;
};

PIECE(copy_piece)
{
    const struct copy_args o = *(const struct copy_args *)args;
    for (uint64_t i = first; i < last; i++) {
        if (o.x.dtype == o.y.dtype)
            memcpy(mat_rows(o.y, i, 1).at, mat_rows(o.x, i, 1).at,
                   (size_t)o.y.cols * dtype_size(o.y.dtype));
        else if (o.y.dtype == DTYPE_BF16)
            for (uint64_t j = 0; j < o.y.cols; j++)
                bf16_row(o.y, i)[j] = bf16_from_f32(f32_row(o.x, i)[j]);
        else
            for (uint64_t j = 0; j < o.y.cols; j++)
                f32_row(o.y, i)[j] = bf16_to_f32(bf16_row(o.x, i)[j]);
    }
}

static void copy(struct device *d, struct mat y, struct mat x)
{
    cpu_each_row(d, y.rows, y.cols, copy_piece, &(struct copy_args){y, x});
}

struct gather_args {
    struct mat y, x, index;
};

static void gather_piece(const void *args, uint64_t first, uint64_t last)
{
    const struct gather_args o = *(const struct gather_args *)args;
    for (uint64_t i = first; i < last; i++)
        memcpy(bf16_row(o.y, i), bf16_row(o.x, (uint64_t)*i32_row(o.index, i)),
               (size_t)o.y.cols * sizeof(uint16_t));
}

static void gather(struct device *d, struct mat y, struct mat x, struct mat index, struct mat seen)
{
    cpu_each_row(d, y.rows, y.cols, gather_piece, &(struct gather_args){y, x, index});
    cpu_see(d, seen, y);
}

struct scatter_add_args {
    struct mat y, x, index, weight;
};

PIECE(scatter_add_piece)
{
    const struct scatter_add_args o = *(const struct scatter_add_args *)args;
    for (uint64_t i = first; i < last; i++) {
        float *to = f32_row(o.y, (uint64_t)*i32_row(o.index, i));
        const uint16_t *from = bf16_row(o.x, i);
        float factor = o.weight.rows ? *f32_row(o.weight, i) : 1;
        for (uint64_t j = 0; j < o.x.cols; j++)
            to[j] += bf16_to_f32(from[j]) * factor;
    }
}

static void scatter_add(struct device *d, struct mat y, struct mat x, struct mat index,
                        struct mat weight, struct mat seen)
{
    cpu_see(d, seen, x);
    cpu_each_row(d, x.rows, x.cols, scatter_add_piece,
                 &(struct scatter_add_args){y, x, index, weight});
}

struct scale_args {
    struct mat x;
    float factor;
};

PIECE(scale_piece)
{
    const struct scale_args o = *(const struct scale_args *)args;
    for (uint64_t i = first; i < last; i++)
        for (uint64_t j = 0; j < o.x.cols; j++)
            bf16_row(o.x, i)[j] = bf16_from_f32(bf16_to_f32(bf16_row(o.x, i)[j]) * o.factor);
}

static void scale(struct device *d, struct mat x, float factor)
{
    cpu_each_row(d, x.rows, x.cols, scale_piece, &(struct scale_args){x, factor});
}

struct scale_rows_args {
    struct mat x, factor;
};

PIECE(scale_rows_piece)
{
    const struct scale_rows_args o = *(const struct scale_rows_args *)args;
    for (uint64_t i = first; i < last; i++)
        for (uint64_t j = 0; j < o.x.cols; j++)
            bf16_row(o.x, i)[j] =
                bf16_from_f32(bf16_to_f32(bf16_row(o.x, i)[j]) * *f32_row(o.factor, i));
}

static void scale_rows(struct device *d, struct mat x, struct mat factor)
{
    cpu_each_row(d, x.rows, x.cols, scale_rows_piece, &(struct scale_rows_args){x, factor});
}

struct add_args {
    struct mat y, x;
};

PIECE(add_piece)
{
    const struct add_args o = *(const struct add_args *)args;
    for (uint64_t i = first; i < last; i++) {
        uint16_t *to = bf16_row(o.y, i);
        const uint16_t *from = bf16_row(o.x, i);
        for (uint64_t j = 0; j < o.y.cols; j++)
            to[j] = bf16_from_f32(bf16_to_f32(to[j]) + bf16_to_f32(from[j]));
    }
}

static void add(struct device *d, struct mat y, struct mat x)
{
    cpu_each_row(d, y.rows, y.cols, add_piece, &(struct add_args){y, x});
}

/* ---- activations ---- */

struct quantize_args {
    struct mat y, x;
    enum activation how;
    float scale_2;
};

static void quantize_piece(const void *args, uint64_t first, uint64_t last)
{
    const struct quantize_args o = *(const struct quantize_args *)args;
    uint8_t *room = xalloc((size_t)o.x.cols, 1);
    for (uint64_t i = first; i < last; i++) {
        uint16_t *to = bf16_row(o.y, i);
        const uint16_t *from = bf16_row(o.x, i);
        switch (o.how) {
        case ACTIVATION_BF16:
            memmove(to, from, (size_t)o.x.cols * sizeof *to);
            break;
        case ACTIVATION_FP8:
            activation_fp8_row(to, from, (size_t)o.x.cols, 128);
            break;
        case ACTIVATION_FP8_32:
            activation_fp8_row(to, from, (size_t)o.x.cols, 32);
            break;
        case ACTIVATION_FP8_V3:
        case ACTIVATION_FP8_V32:
            activation_fp8_split_row(to, from, (size_t)o.x.cols, o.how == ACTIVATION_FP8_V3);
            break;
        case ACTIVATION_FP8_V32_ROUNDED:
            activation_fp8_real_row(to, from, (size_t)o.x.cols);
            break;
        case ACTIVATION_FP4:
            activation_fp4_row(to, from, (size_t)o.x.cols);
            break;
        case ACTIVATION_NVFP4:
            activation_nvfp4_row(to, from, (size_t)o.x.cols, o.scale_2, room);
            break;
        }
    }
    free(room);
}

static void quantize(struct device *d, struct mat y, struct mat x, enum activation how,
                     float scale_2, struct mat seen)
{
    cpu_see(d, seen, x);
    cpu_each_row(d, x.rows, x.cols, quantize_piece, &(struct quantize_args){y, x, how, scale_2});
}

struct encode_args {
    struct mat y, x, factor;
    bool power;
};

static void encode_piece(const void *args, uint64_t first, uint64_t last)
{
    const struct encode_args o = *(const struct encode_args *)args;
    for (uint64_t i = first; i < last; i++)
        *f32_row(o.factor, i) *= activation_fp8_encode_row(bf16_row(o.y, i), bf16_row(o.x, i),
                                                           (size_t)o.x.cols, o.power);
}

static void encode(struct device *d, struct mat y, struct mat x, struct mat factor, bool power)
{
    cpu_each_row(d, x.rows, x.cols, encode_piece, &(struct encode_args){y, x, factor, power});
}

void cpu_rows(struct device *d)
{
    d->copy = copy;
    d->gather = gather;
    d->scatter_add = scatter_add;
    d->scale = scale;
    d->scale_rows = scale_rows;
    d->add = add;
    d->quantize = quantize;
    d->encode = encode;
}
