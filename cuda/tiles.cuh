/* tiles.cuh: products of BF16 tiles in shared memory by matrix instructions, for kernels that do
 * them themselves. A warp computes; lane 4 r + c / 2 of it has rows r and r + 8, columns c and c +
 * 1 of a result [16, 8]. Source: the PTX manual, mma.m16n8k16 and ldmatrix. */
#ifndef TILES_CUH
#define TILES_CUH

#include "gpu.cuh"

/* Rows of `width` columns in shared memory. Groups of eight columns are permuted within a row, so
 * that reading a column of eight rows uses all banks. */
static __device__ inline uint16_t *tile_at(uint16_t *tile, unsigned width, unsigned row,
                                           unsigned col)
{
    return tile + row * width + ((col / EIGHT ^ (row & 7)) * EIGHT);
}

/* Load four 8 x 8 matrices; 8 lanes each give the addresses of a matrix's rows. */
static __device__ inline void load_matrices(uint32_t *m, const uint16_t *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(shared_address(row)));
}

static __device__ inline void load_transposed(uint32_t *m, const uint16_t *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(shared_address(row)));
}

/* c [16, 8] += a [16, 16] · b [16, 8]. */
static __device__ inline void multiply(float *c, const uint32_t *a, const uint32_t *b)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#endif
