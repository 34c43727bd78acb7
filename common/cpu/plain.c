#include "cpu/plain.h"

#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/vectors.h"
#include "cpu/cpu.h"

/* A sum is LANES partial ones, of every LANES-th column. SIDE rows of x and of w meet in registers;
 * GROUP rows of x and COLS columns of both are in the cache meanwhile. */
enum { LANES = 8, SIDE = 4, GROUP = 16, COLS = 256 };

struct mat plain_new(uint64_t rows, uint64_t cols)
{
    uint64_t count, stride = (cols + LANES - 1) / LANES * LANES;
    if (!mul_fits(rows, stride, &count))
        die("out of memory");
    float *at = xaligned((size_t)count, sizeof *at);
    memset(at, 0, (size_t)count * sizeof *at);
    return (struct mat){at, rows, cols, stride, DTYPE_F32};
}

/* A thread's rows of x. */
struct group {
    double *x;            /* [GROUP, COLS] */
    double (*sum)[LANES]; /* [GROUP, w.rows] */
};

/* Columns first … first + count - 1 of `rows` rows of x, and zeros up to a multiple of LANES. */
INLINE void widen(double *to, struct mat x, uint64_t row, uint64_t rows, uint64_t first,
                  uint64_t count)
{
    for (uint64_t i = 0; i < rows; i++, to += COLS) {
        const uint16_t *from = bf16_row(x, row + i) + first;
        for (uint64_t j = 0; j < count; j++)
            to[j] = (double)bf16_to_f32(from[j]);
        for (uint64_t j = count; j % LANES; j++)
            to[j] = 0;
    }
}

/* Add the products of `side` rows of x with as many of w; sums of a row of x are `step` apart. */
INLINE void multiply(double (*sum)[LANES], uint64_t step, const double *x, const float *w,
                     uint64_t stride, uint64_t cols, uint64_t side)
{
    double s[SIDE][SIDE][LANES];
    for (uint64_t i = 0; i < side; i++)
        for (uint64_t j = 0; j < side; j++)
            memcpy(s[i][j], sum[i * step + j], sizeof s[i][j]);
    for (uint64_t k = 0; k < cols; k += LANES) {
        double b[SIDE][LANES];
        for (uint64_t j = 0; j < side; j++)
            for (uint64_t l = 0; l < LANES; l++)
                b[j][l] = (double)w[j * stride + k + l];
        for (uint64_t l = 0; l < LANES; l++)
            for (uint64_t i = 0; i < side; i++)
                for (uint64_t j = 0; j < side; j++)
                    s[i][j][l] += x[i * COLS + k + l] * b[j][l];
    }
    for (uint64_t i = 0; i < side; i++)
        for (uint64_t j = 0; j < side; j++)
            memcpy(sum[i * step + j], s[i][j], sizeof s[i][j]);
}

/* Add the products of some columns of `rows` rows with all of w. */
INLINE void add_columns(const struct group *g, uint64_t rows, struct mat w, uint64_t first,
                        uint64_t cols)
{
    uint64_t n = w.rows, outs = n / SIDE * SIDE, ins = rows / SIDE * SIDE;
    for (uint64_t j = 0; j < outs; j += SIDE)
        for (uint64_t i = 0; i < ins; i += SIDE)
            multiply(g->sum + i * n + j, n, g->x + i * COLS, f32_row(w, j) + first, w.stride, cols,
                     SIDE);
    for (uint64_t i = 0; i < rows; i++)
        for (uint64_t j = i < ins ? outs : 0; j < n; j++)
            multiply(g->sum + i * n + j, n, g->x + i * COLS, f32_row(w, j) + first, w.stride, cols,
                     1);
}

VECTORS(void, multiply_group,
        (const struct group *g, struct mat y, struct mat x, struct mat w, uint64_t row,
         uint64_t rows),
        (g, y, x, w, row, rows))
{
    memset(g->sum, 0, (size_t)(rows * w.rows) * sizeof *g->sum);
    for (uint64_t first = 0; first < w.cols; first += COLS) {
        uint64_t cols = at_most(w.cols - first, COLS);
        widen(g->x, x, row, rows, first, cols);
        add_columns(g, rows, w, first, cols);
    }
    for (uint64_t i = 0; i < rows; i++)
        for (uint64_t j = 0; j < w.rows; j++) {
            double sum = 0;
            for (uint64_t k = 0; k < LANES; k++)
                sum += g->sum[i * w.rows + j][k];
            if (y.dtype == DTYPE_F32)
                f32_row(y, row + i)[j] = (float)sum;
            else
                bf16_row(y, row + i)[j] = bf16_from_f32((float)sum);
        }
}

struct product {
    struct mat y, x, w;
};

static void run_rows(void *context, unsigned thread, uint64_t first, uint64_t last)
{
    const struct product *p = context;
    struct group g = {xaligned((size_t)GROUP * COLS, sizeof(double)),
                      xaligned((size_t)(GROUP * p->w.rows), LANES * sizeof(double))};
    (void)thread;
    for (uint64_t i = first; i < last; i += GROUP)
        multiply_group(&g, p->y, p->x, p->w, i, at_most(last - i, GROUP));
    free(g.x);
    free(g.sum);
}

void plain_product(struct parallel *threads, struct mat y, struct mat x, struct mat w)
{
    parallel_for(threads, x.rows, GROUP, run_rows, &(struct product){y, x, w});
}
