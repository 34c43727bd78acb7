/* gemm.h: matrix products in F32 accuracy on the CPU, through oneDNN (2.6 or 3.x). gemm.c is the
 * only file that knows its interface.
 *
 * A product is C = A · B, with A of m rows, for one shape that is made once and run often. It runs
 * on the calling thread alone, and a row of C has the same bits wherever the row stands in A, also
 * with oneDNN's AVX2 kernels, if m is GEMM_ROWS: callers split what they have into blocks of that
 * many rows (the last one filled up), spread blocks over threads, and so get the same bytes for
 * any number of threads and any order of rows. */
#ifndef GEMM_H
#define GEMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { GEMM_ROWS = 64 };

/* The columns of A that GEMM_F32_BLOCKS sums up in F32: as many as DeepSeek's kernel for FP8 does
 * before it adds to its second accumulator. */
enum { GEMM_BLOCK = 128 };

/* The elements of A and B, and how products are summed up; C is F32 always. */
enum gemm_type {
    GEMM_F32,        /* F32, in whatever order oneDNN does */
    GEMM_F32_BLOCKS, /* F32; sums of GEMM_BLOCK products, which are then summed in double */
    GEMM_BF16        /* BF16; the processor's own sums, in F32. Needs gemm_bf16() */
};

/* How B lies. */
enum gemm_right {
    GEMM_PLAIN,      /* [k, n] */
    GEMM_TRANSPOSED, /* [n, k] */
    GEMM_PACKED,     /* made of [n, k] by gemm_pack(), in the order that suits the processor */
};

/* All products of a process that share threads: oneDNN's engine, scratch memory per thread, and
 * the products made so far. */
struct gemms;
struct gemm;

/* For `threads` threads (at least 1). OpenMP's default is set to one thread, since oneDNN would
 * otherwise divide a product by it. The caller frees it, and with it the products. */
struct gemms *gemms_new(unsigned threads);
void gemms_free(struct gemms *gemms);

/* True if this processor multiplies BF16 by itself; else BF16 operands go through F32, whose
 * products of them are exact, too. */
bool gemm_bf16(void);

/* The product of that shape, made on its first use; not for two threads at a time. */
const struct gemm *gemm_get(struct gemms *gemms, enum gemm_type type, enum gemm_right right,
                            uint64_t m, uint64_t n, uint64_t k);

/* For GEMM_PACKED: bytes of a packed B, and packing one. `b` is [n, k] in the product's type. */
size_t gemm_packed_size(const struct gemm *gemm);
void gemm_pack(const struct gemm *gemm, unsigned thread, const void *b, void *packed);

/* c [m, n] = a [m, k] · b, all without gaps. `thread` is the calling thread's number, below
 * gemms_new()'s. */
void gemm_run(const struct gemm *gemm, unsigned thread, const void *a, const void *b, float *c);

/* Memory for operands, aligned as oneDNN likes it, with anything in it; free() frees it. Ends the
 * process if there is none. */
void *gemm_alloc(size_t count, size_t size);

#endif
