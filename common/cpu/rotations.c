/* The CPU as a device: rotations of heads, by angles and by Hadamard matrices. */

#include <math.h>
#include <stdlib.h>

#include "base/die.h"
#include "cpu/piece.h"

/* Pairs of the `cols` columns: a column and the one that is `apart` from it, pairs `step` apart.
 *
 * If one product is added and another subtracted, GCC 12's loop vectorizer fuses products and sums
 * on processors with FMA (-march=native), despite -ffp-contract=off. So both are added; the product
 * with -sine is that with sine, negated. */
INLINE void rotate_head(uint16_t *x, const float *angle, uint64_t cols, float direction,
                        uint64_t apart, uint64_t step)
{
    for (uint64_t j = 0; j < cols; j += 2, x += step) {
        float a = bf16_to_f32(x[0]), b = bf16_to_f32(x[apart]);
        float cosine = angle[j], sine = angle[j + 1] * direction, down = angle[j + 1] * -direction;
        x[0] = bf16_from_f32(a * cosine + b * down);
        x[apart] = bf16_from_f32(a * sine + b * cosine);
    }
}

struct rotate_args {
    struct mat x;
    uint64_t width;
    struct mat table, position;
    bool inverse;
};

PIECE(rotate_piece)
{
    const struct rotate_args o = *(const struct rotate_args *)args;
    for (uint64_t i = first; i < last; i++) {
        const float *angle = f32_row(o.table, (uint64_t)*i32_row(o.position, i));
        for (uint64_t end = o.width; end <= o.x.cols; end += o.width)
            rotate_head(bf16_row(o.x, i) + end - o.table.cols, angle, o.table.cols,
                        o.inverse ? -1 : 1, 1, 2);
    }
}

static void rotate(struct device *d, struct mat x, uint64_t width, struct mat table,
                   struct mat position, bool inverse)
{
    cpu_each_row(d, x.rows, x.cols, rotate_piece,
                 &(struct rotate_args){x, width, table, position, inverse});
}

struct rotate_halves_args {
    struct mat x;
    uint64_t width;
    struct mat table, position;
};

PIECE(rotate_halves_piece)
{
    const struct rotate_halves_args o = *(const struct rotate_halves_args *)args;
    for (uint64_t i = first; i < last; i++) {
        const float *angle = f32_row(o.table, (uint64_t)*i32_row(o.position, i));
        for (uint64_t first = 0; first < o.x.cols; first += o.width)
            rotate_head(bf16_row(o.x, i) + first, angle, o.table.cols, 1, o.table.cols / 2, 1);
    }
}

static void rotate_halves(struct device *d, struct mat x, uint64_t width, struct mat table,
                          struct mat position)
{
    cpu_each_row(d, x.rows, x.cols, rotate_halves_piece,
                 &(struct rotate_halves_args){x, width, table, position});
}

INLINE void hadamard_head(uint16_t *x, float *sum, uint64_t width)
{
    for (uint64_t j = 0; j < width; j++)
        sum[j] = bf16_to_f32(x[j]);
    for (uint64_t half = 1; half < width; half *= 2)
        for (uint64_t first = 0; first < width; first += 2 * half)
            for (uint64_t j = first; j < first + half; j++) {
                float a = sum[j], b = sum[j + half];
                sum[j] = a + b;
                sum[j + half] = a - b;
            }
    float scale = (float)(1 / sqrt((double)width));
    for (uint64_t j = 0; j < width; j++)
        x[j] = bf16_from_f32(sum[j] * scale);
}

struct hadamard_args {
    struct mat x;
    uint64_t width;
};

PIECE(hadamard_piece)
{
    const struct hadamard_args o = *(const struct hadamard_args *)args;
    float *sum = xalloc((size_t)o.width, sizeof *sum);
    for (uint64_t i = first; i < last; i++)
        for (uint64_t first = 0; first < o.x.cols; first += o.width)
            hadamard_head(bf16_row(o.x, i) + first, sum, o.width);
    free(sum);
}

static void hadamard(struct device *d, struct mat x, uint64_t width)
{
    cpu_each_row(d, x.rows, x.cols, hadamard_piece, &(struct hadamard_args){x, width});
}

void cpu_rotations(struct device *d)
{
    d->rotate = rotate;
    d->rotate_halves = rotate_halves;
    d->hadamard = hadamard;
}
