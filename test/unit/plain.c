/* Products with F32 matrices, beside the same sums written plainly. */
#include "cpu/plain.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/die.h"
#include "tensor/bf16.h"

enum { LANES = 8 };

/* Of magnitudes from 2^-8 to 2^8, so that sums in another order have other bits. */
static float number(uint64_t i)
{
    uint32_t x = (uint32_t)(i * 2654435761U + 12345);
    return ((float)(x >> 8) / 0x1p23F - 1) * (float)(1 << (x & 15)) / 256;
}

static float by_hand(const uint16_t *x, const float *w, uint64_t cols)
{
    double lane[LANES] = {0}, sum = 0;
    for (uint64_t i = 0; i < cols; i++)
        lane[i % LANES] += (double)bf16_to_f32(x[i]) * (double)w[i];
    for (uint64_t i = 0; i < LANES; i++)
        sum += lane[i];
    return (float)sum;
}

static void expect_product(uint64_t rows, uint64_t outs, uint64_t cols, unsigned threads)
{
    struct parallel *p = parallel_new(threads);
    struct mat w = plain_new(outs, cols);
    uint16_t *x = xalloc((size_t)(rows * cols), sizeof *x);
    float *y = xalloc((size_t)(rows * outs), sizeof *y);
    for (uint64_t i = 0; i < rows * cols; i++)
        x[i] = bf16_from_f32(number(i));
    for (uint64_t i = 0; i < outs; i++)
        for (uint64_t j = 0; j < cols; j++)
            ((float *)w.at)[i * w.stride + j] = number(i * cols + j + 7);
    plain_product(p, (struct mat){y, rows, outs, outs, DTYPE_F32},
                  (struct mat){x, rows, cols, cols, DTYPE_BF16}, w);
    for (uint64_t i = 0; i < rows; i++)
        for (uint64_t j = 0; j < outs; j++) {
            float wanted = by_hand(x + i * cols, (float *)w.at + j * w.stride, cols);
            if (wanted != y[i * outs + j])
                fail_msg("row %zu, output %zu of %zu x %zu x %zu: wanted %a, got %a", (size_t)i,
                         (size_t)j, (size_t)rows, (size_t)outs, (size_t)cols, (double)wanted,
                         (double)y[i * outs + j]);
        }
    parallel_free(p);
    free(w.at);
    free(x);
    free(y);
}

static void all_edges(void **state)
{
    (void)state;
    const uint64_t rows[] = {0, 1, 3, 4, 16, 17, 39}, outs[] = {1, 3, 4, 24, 27};
    const uint64_t cols[] = {1, 7, 8, 130, 512, 513, 1600};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (size_t j = 0; j < sizeof outs / sizeof *outs; j++)
            for (size_t k = 0; k < sizeof cols / sizeof *cols; k++)
                expect_product(rows[i], outs[j], cols[k], 1 + (unsigned)(i + k) % 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_edges)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
