/* The GPU as a device: products. BF16 weights go through cuBLASLt. F32 weights, which have few
 * rows, go through a kernel of our own.
 *
 * Rows must not depend on each other, so a weight's shape has one algorithm for any number of rows:
 * the best one for ROWS rows that does not split sums. */
#include "tiles.cuh"

#include <stdlib.h>

enum { ROWS = 8192, WORKSPACE = 32 << 20 };

static void check(cublasStatus_t status, const char *what)
{
    if (status != CUBLAS_STATUS_SUCCESS)
        die("cuBLASLt: %s: %s", what, cublasLtGetStatusString(status));
}

/* ---- through cuBLASLt ---- */

/* A product of one shape: y = x · wᵀ is, by columns, yᵀ = w · xᵀ. */
struct plan {
    uint64_t n, k, x_stride, y_stride;
    enum dtype y_dtype;
    uint32_t x_align, y_align;
    cublasLtMatmulDesc_t how;
    cublasLtMatrixLayout_t w, x, y;
    cublasLtMatmulAlgo_t algorithm;
};

struct products {
    cublasLtHandle_t blas;
    char *workspace; /* WORKSPACE bytes for each stream */
    struct plan **plan;
    size_t count;
};

/* The largest power of two, up to 16, that divides an address. */
static uint32_t alignment(const void *at)
{
    uint32_t bits = (uint32_t)(uintptr_t)at & 15;
    return bits ? bits & -bits : 16;
}

static cublasLtMatrixLayout_t layout(cudaDataType_t type, uint64_t rows, uint64_t cols,
                                     uint64_t stride)
{
    cublasLtMatrixLayout_t m;
    check(cublasLtMatrixLayoutCreate(&m, type, rows, cols, (int64_t)stride), "layout");
    return m;
}

static void set_rows(cublasLtMatrixLayout_t m, uint64_t rows)
{
    check(cublasLtMatrixLayoutSetAttribute(m, CUBLASLT_MATRIX_LAYOUT_COLS, &rows, sizeof rows),
          "layout");
}

static void find_algorithm(const struct products *p, struct plan *plan)
{
    cublasLtMatmulPreference_t wish;
    cublasLtMatmulHeuristicResult_t found;
    uint64_t room = WORKSPACE;
    uint32_t none = CUBLASLT_REDUCTION_SCHEME_NONE;
    int count = 0;
    check(cublasLtMatmulPreferenceCreate(&wish), "preference");
    struct {
        cublasLtMatmulPreferenceAttributes_t what;
        const void *value;
        size_t size;
    } const want[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room, sizeof room},
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &none, sizeof none},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &plan->x_align, sizeof plan->x_align},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &plan->y_align, sizeof plan->y_align},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &plan->y_align, sizeof plan->y_align},
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        check(cublasLtMatmulPreferenceSetAttribute(wish, want[i].what, want[i].value, want[i].size),
              "preference");
    check(cublasLtMatmulAlgoGetHeuristic(p->blas, plan->how, plan->w, plan->x, plan->y, plan->y,
                                         wish, 1, &found, &count),
          "choice of an algorithm");
    if (!count)
        die("cuBLASLt has no product of %d x %d x %d", ROWS, (int)plan->n, (int)plan->k);
    plan->algorithm = found.algo;
    check(cublasLtMatmulPreferenceDestroy(wish), "preference");
}

static struct plan *plan_new(const struct gpu *gpu, const struct plan *like)
{
    struct plan *plan = (struct plan *)xalloc(1, sizeof *plan);
    *plan = *like;
    cudaDataType_t y_type = plan->y_dtype == DTYPE_F32 ? CUDA_R_32F : CUDA_R_16BF;
    cublasOperation_t transposed = CUBLAS_OP_T;
    check(cublasLtMatmulDescCreate(&plan->how, CUBLAS_COMPUTE_32F, CUDA_R_32F), "product");
    check(cublasLtMatmulDescSetAttribute(plan->how, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                         sizeof transposed),
          "product");
    if (gpu->shares)
        check(cublasLtMatmulDescSetAttribute(plan->how, CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET,
                                             &gpu->processors, sizeof gpu->processors),
              "product");
    plan->w = layout(CUDA_R_16BF, plan->k, plan->n, plan->k);
    plan->x = layout(CUDA_R_16BF, plan->k, ROWS, plan->x_stride);
    plan->y = layout(y_type, plan->n, ROWS, plan->y_stride);
    find_algorithm(gpu->products, plan);
    return plan;
}

static void plan_free(struct plan *plan)
{
    check(cublasLtMatrixLayoutDestroy(plan->w), "layout");
    check(cublasLtMatrixLayoutDestroy(plan->x), "layout");
    check(cublasLtMatrixLayoutDestroy(plan->y), "layout");
    check(cublasLtMatmulDescDestroy(plan->how), "product");
    free(plan);
}

static struct plan *plan_of(struct gpu *gpu, struct mat y, struct mat x)
{
    struct products *p = gpu->products;
    struct plan like = {};
    like.n = y.cols;
    like.k = x.cols;
    like.x_stride = x.stride;
    like.y_stride = y.stride;
    like.y_dtype = y.dtype;
    like.x_align = alignment(x.at);
    like.y_align = alignment(y.at);
    for (size_t i = 0; i < p->count; i++) {
        struct plan *plan = p->plan[i];
        if (plan->n == like.n && plan->k == like.k && plan->x_stride == like.x_stride &&
            plan->y_stride == like.y_stride && plan->y_dtype == like.y_dtype &&
            plan->x_align == like.x_align && plan->y_align == like.y_align)
            return plan;
    }
    p->plan = (struct plan **)xgrow(p->plan, p->count + 1, sizeof *p->plan);
    return p->plan[p->count++] = plan_new(gpu, &like);
}

static void blas_product(struct gpu *gpu, struct mat y, struct mat x, const struct operand *w)
{
    struct products *p = gpu->products;
    struct plan *plan = plan_of(gpu, y, x);
    const float one = 1, zero = 0;
    set_rows(plan->x, x.rows);
    set_rows(plan->y, y.rows);
    check(cublasLtMatmul(p->blas, plan->how, &one, w->at, plan->w, x.at, plan->x, &zero, y.at,
                         plan->y, y.at, plan->y, &plan->algorithm,
                         p->workspace + (size_t)gpu->stream_number * WORKSPACE, WORKSPACE,
                         gpu->stream),
          "product");
}

/* ---- F32 weights ---- */

/* A thread block computes F32_ROWS rows of x, 16 for each warp, times F32_COLS rows of w, which
 * come as three BF16 matrices (operand.h), over F32_CHUNK columns. Products of BF16 are exact in
 * F32, and those of 16 columns are summed by matrix instructions, whose rounding is a little
 * coarser than F32's; so these sums are added up in F32, in the order of the columns. */
enum {
    F32_ROWS = 64,
    F32_COLS = 24,
    F32_THREADS = F32_ROWS / 16 * WARP,
    F32_CHUNK = 4096,
    F32_STEP = OPERAND_STEP,              /* columns in shared memory at a time */
    F32_EIGHTS = F32_STEP / EIGHT,        /* of a row of these */
    F32_LINES = F32_COLS * OPERAND_PARTS, /* rows of w's tile: all parts of its rows */
    F32_GROUPS = F32_LINES / 8,
    F32_OWN = F32_ROWS * F32_EIGHTS / F32_THREADS /* eights of x that a thread copies */
};

struct f32_room {
    uint16_t x[2][F32_ROWS * F32_STEP];
    uint16_t w[2][(F32_LINES + 8) * F32_STEP]; /* matrices are loaded two at a time */
};

/* Begin to copy a tile of w; rows beyond the last are that again. */
static __device__ void fetch_w(uint16_t *tile, const struct operand &w, uint64_t first, uint64_t k)
{
    const uint16_t *from = (const uint16_t *)w.at;
    for (unsigned i = threadIdx.x; i < F32_LINES * F32_EIGHTS; i += F32_THREADS) {
        unsigned line = i / F32_EIGHTS, col = i % F32_EIGHTS * EIGHT;
        uint64_t row = line / F32_COLS * w.rows + min(first + line % F32_COLS, w.rows - 1);
        copy_async(tile_at(tile, F32_STEP, line, col), from + row * w.stride + k + col, true);
    }
    copy_commit();
}

/* A thread's part of a tile of x, on its way through registers, since rows of x need not be
 * aligned. */
static __device__ void fetch_x(struct eight own[F32_OWN], const struct mat &x, uint64_t first,
                               uint64_t k)
{
#pragma unroll
    for (unsigned i = 0; i < F32_OWN; i++) {
        unsigned at = threadIdx.x + i * F32_THREADS;
        uint64_t row = min(first + at / F32_EIGHTS, x.rows - 1), col = k + at % F32_EIGHTS * EIGHT;
        own[i] = load_codes(bf16_row(x, row) + col, col < x.cols ? x.cols - col : 0);
    }
}

static __device__ void put_x(uint16_t *tile, const struct eight own[F32_OWN])
{
#pragma unroll
    for (unsigned i = 0; i < F32_OWN; i++) {
        unsigned at = threadIdx.x + i * F32_THREADS;
        store_codes(tile_at(tile, F32_STEP, at / F32_EIGHTS, at % F32_EIGHTS * EIGHT), own[i],
                    EIGHT);
    }
}

/* sum [16, F32_COLS] of a warp += its rows of x's tile times w's. */
static __device__ void multiply_tiles(float sum[F32_COLS / 8][4], uint16_t *x, uint16_t *w)
{
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
#pragma unroll
    for (unsigned k = 0; k < F32_STEP; k += 16) {
        uint32_t a[4], b[(F32_GROUPS + 1) / 2][4];
        load_matrices(a, tile_at(x, F32_STEP, warp * 16 + lane % 16, k + lane / 16 * 8));
#pragma unroll
        for (unsigned g = 0; g < F32_GROUPS; g += 2)
            load_matrices(b[g / 2], tile_at(w, F32_STEP, g * 8 + lane % 8 + lane / 16 * 8,
                                            k + lane / 8 % 2 * 8));
#pragma unroll
        for (unsigned n = 0; n < F32_COLS / 8; n++) {
            float own[4] = {};
#pragma unroll
            for (unsigned part = OPERAND_PARTS; part-- > 0;) { /* the lowest first */
                unsigned g = part * F32_COLS / 8 + n;
                multiply(own, a, b[g / 2] + g % 2 * 2);
            }
#pragma unroll
            for (unsigned i = 0; i < 4; i++)
                sum[n][i] += own[i];
        }
    }
}

/* part [chunks, rows of x, rows of w]. */
static __global__ void __launch_bounds__(F32_THREADS)
    f32_chunk(float *part, struct mat x, struct operand w)
{
    extern __shared__ __align__(16) char memory[];
    struct f32_room *room = (struct f32_room *)memory;
    uint64_t row = (uint64_t)blockIdx.x * F32_ROWS, col = (uint64_t)blockIdx.y * F32_COLS;
    uint64_t first = (uint64_t)blockIdx.z * F32_CHUNK, end = min(first + F32_CHUNK, w.stride);
    float sum[F32_COLS / 8][4] = {};
    struct eight own[F32_OWN];
    unsigned turn = 0;
    fetch_x(own, x, row, first);
    fetch_w(room->w[0], w, col, first);
    for (uint64_t k = first; k < end; k += F32_STEP, turn ^= 1) {
        put_x(room->x[turn], own);
        copy_wait();
        __syncthreads(); /* the tiles are complete, and the other ones may be overwritten */
        if (k + F32_STEP < end) {
            fetch_x(own, x, row, k + F32_STEP);
            fetch_w(room->w[turn ^ 1], w, col, k + F32_STEP);
        }
        multiply_tiles(sum, room->x[turn], room->w[turn]);
    }
    unsigned lane = threadIdx.x % WARP;
    row += threadIdx.x / WARP * 16 + lane / 4;
    for (unsigned n = 0; n < F32_COLS / 8; n++)
        for (unsigned i = 0; i < 4; i++) {
            uint64_t r = row + i / 2 * 8, c = col + n * 8 + lane % 4 * 2 + i % 2;
            if (r < x.rows && c < w.rows)
                part[(blockIdx.z * x.rows + r) * w.rows + c] = sum[n][i];
        }
}

/* y = the sum of its parts, a thread for each element. */
static __global__ void f32_sum(struct mat y, const float *part, unsigned chunks)
{
    uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    float sum = 0;
    if (i >= y.rows * y.cols)
        return;
    for (unsigned chunk = 0; chunk < chunks; chunk++)
        sum += part[chunk * y.rows * y.cols + i];
    if (y.dtype == DTYPE_F32)
        f32_row(y, i / y.cols)[i % y.cols] = sum;
    else
        bf16_row(y, i / y.cols)[i % y.cols] = bf16_from_f32(sum);
}

static void plain_product(struct gpu *gpu, struct mat y, struct mat x, const struct operand *w)
{
    unsigned chunks = (unsigned)((w->stride + F32_CHUNK - 1) / F32_CHUNK);
    dim3 blocks((unsigned)((y.rows + F32_ROWS - 1) / F32_ROWS),
                (unsigned)((y.cols + F32_COLS - 1) / F32_COLS), chunks);
    size_t room = sizeof(struct f32_room);
    float *part = (float *)gpu_alloc(gpu, chunks * y.rows * y.cols, sizeof *part);
    gpu_allow_shared((const void *)f32_chunk, room);
    f32_chunk<<<blocks, F32_THREADS, room, gpu->stream>>>(part, x, *w);
    gpu_check(cudaGetLastError(), "F32 product");
    EACH_ROW(gpu, f32_sum, (y.rows * y.cols + THREADS_MOST - 1) / THREADS_MOST, THREADS_MOST, y,
             part, chunks);
    gpu_free(gpu, part);
}

/* ---- both ---- */

static void product(struct device *d, struct mat y, struct mat x, const struct operand *w)
{
    struct gpu *gpu = gpu_of(d);
    if (x.cols != w->cols || y.cols != w->rows || y.rows != x.rows)
        die("internal: a product of wrong shapes");
    if (!y.rows || !y.cols)
        return;
    (w->dtype == DTYPE_BF16 ? blas_product : plain_product)(gpu, y, x, w);
}

void gpu_products(struct device *d)
{
    struct products *p = (struct products *)xalloc(1, sizeof *p);
    check(cublasLtCreate(&p->blas), "start");
    p->workspace = (char *)gpu_alloc(gpu_of(d), 1 + DEVICE_STREAMS, WORKSPACE);
    gpu_of(d)->products = p;
    d->product = product;
}

void gpu_products_end(struct gpu *gpu)
{
    struct products *p = gpu->products;
    for (size_t i = 0; i < p->count; i++)
        plan_free(p->plan[i]);
    free(p->plan);
    gpu_free(gpu, p->workspace);
    check(cublasLtDestroy(p->blas), "end");
    free(p);
}
