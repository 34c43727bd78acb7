/* plain.h: products of BF16 activations with F32 matrices, which are few and small, summed in
 * double and rounded once: this is closest to every order of F32 sums. */
#ifndef CPU_PLAIN_H
#define CPU_PLAIN_H

#include "base/parallel.h"
#include "forward/device.h"

/* A matrix for plain_product(), whose elements the caller fills in: F32 [rows, cols]; the rest of
 * its rows is zeros. The caller frees its memory with free(). */
struct mat plain_new(uint64_t rows, uint64_t cols);

/* y = x · wᵀ: y F32 or BF16 [n, w.rows], x BF16 [n, w.cols]. A row's bits depend on nothing else.
 */
void plain_product(struct parallel *threads, struct mat y, struct mat x, struct mat w);

#endif
