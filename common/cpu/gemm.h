/* gemm.h: matrix products with F32 accuracy on the CPU, through oneDNN (2.6 or 3.x). Only gemm.c
 * calls oneDNN.
 *
 * A product is C = A · B for one shape; it is made once and run often. It runs on the calling
 * thread alone. If A has GEMM_ROWS rows, a row of C has the same bits wherever the row stands in A,
 * even with oneDNN's AVX2 kernels. So callers split their rows into blocks of GEMM_ROWS (padding
 * the last one) and spread blocks over threads, and get the same bytes for any number of threads
 * and any order of rows. */
#ifndef GEMM_H
#define GEMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { GEMM_ROWS = 64 };

/* The columns of A that GEMM_F32_BLOCKS sums in F32: as many as DeepSeek's FP8 kernel sums before
 * it adds to its second accumulator. */
enum { GEMM_BLOCK = 128 };

/* The elements of A and B, and how products are summed; C is always F32. */
enum gemm_type {
    GEMM_F32,        /* F32, summed in oneDNN's order */
    GEMM_F32_BLOCKS, /* F32; sums of GEMM_BLOCK products, which are then summed in double */
    GEMM_BF16        /* BF16, summed in F32 by the processor. Needs gemm_bf16() */
};

/* Layout of B. */
enum gemm_right {
    GEMM_PLAIN,      /* [k, n] */
    GEMM_TRANSPOSED, /* [n, k] */
    GEMM_PACKED,     /* made from [n, k] by gemm_pack(), in the processor's preferred order */
};

/* The products that share threads: oneDNN's engine, scratch memory per thread, and the products
 * made so far. */
struct gemms;
struct gemm;

/* For `threads` threads (at least 1). OpenMP's setting of the threads that make and run products
 * becomes one thread, since oneDNN would otherwise split a product. The caller frees it with
 * gemms_free(), which also frees the products. */
struct gemms *gemms_new(unsigned threads);
void gemms_free(struct gemms *gemms);

/* True if this processor has BF16 products. Without them, BF16 operands are converted to F32, in
 * which their products are exact, too. */
bool gemm_bf16(void);

/* The product of that shape, made on first use. Not thread-safe. */
const struct gemm *gemm_get(struct gemms *gemms, enum gemm_type type, enum gemm_right right,
                            uint64_t m, uint64_t n, uint64_t k);

/* For GEMM_PACKED: bytes of a packed B, and packing one. `b` is [n, k] in the product's type. */
size_t gemm_packed_size(const struct gemm *gemm);
void gemm_pack(const struct gemm *gemm, unsigned thread, const void *b, void *packed);

/* c [m, n] = a [m, k] · b, all contiguous. `thread` is the calling thread's number, below
 * gemms_new()'s `threads`. */
void gemm_run(const struct gemm *gemm, unsigned thread, const void *a, const void *b, float *c);

/* Seconds so far in gemm_run(), of all threads together. Not while any of them runs one. */
double gemms_seconds(const struct gemms *gemms);

#endif
