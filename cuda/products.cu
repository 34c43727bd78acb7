/* The GPU as a device: products. BF16 weights go through cuBLASLt. F32 weights, which are few and
 * small, go through a kernel of our own.
 *
 * Rows must not depend on each other, so a weight's shape has one algorithm for any number of rows:
 * the best one for ROWS rows that does not split sums. */
#include "gpu.cuh"

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

static struct plan *plan_new(const struct products *p, const struct plan *like)
{
    struct plan *plan = (struct plan *)xalloc(1, sizeof *plan);
    *plan = *like;
    cudaDataType_t y_type = plan->y_dtype == DTYPE_F32 ? CUDA_R_32F : CUDA_R_16BF;
    cublasOperation_t transposed = CUBLAS_OP_T;
    check(cublasLtMatmulDescCreate(&plan->how, CUBLAS_COMPUTE_32F, CUDA_R_32F), "product");
    check(cublasLtMatmulDescSetAttribute(plan->how, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                         sizeof transposed),
          "product");
    plan->w = layout(CUDA_R_16BF, plan->k, plan->n, plan->k);
    plan->x = layout(CUDA_R_16BF, plan->k, ROWS, plan->x_stride);
    plan->y = layout(y_type, plan->n, ROWS, plan->y_stride);
    find_algorithm(p, plan);
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

static struct plan *plan_of(struct products *p, struct mat y, struct mat x)
{
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
    return p->plan[p->count++] = plan_new(p, &like);
}

static void blas_product(struct gpu *gpu, struct mat y, struct mat x, const struct operand *w)
{
    struct products *p = gpu->products;
    struct plan *plan = plan_of(p, y, x);
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

enum { F32_ROWS = 8, F32_COLS = 12, F32_THREADS = 256, FOUR = 4 };

/* Four columns of x; 0 beyond the `left` ones. */
static __device__ void load4(float *x, const uint16_t *from, uint64_t left)
{
    uint16_t code[FOUR] = {};
    if (left >= FOUR && ((uintptr_t)from & 7) == 0) {
        uint2 all = *(const uint2 *)from;
        memcpy(code, &all, sizeof code);
    } else {
        for (unsigned i = 0; i < FOUR && i < left; i++)
            code[i] = from[i];
    }
    for (unsigned i = 0; i < FOUR; i++)
        x[i] = bf16_to_f32(code[i]);
}

/* Each thread's columns of w, four of each of F32_COLS rows: one buffer is filled while the other
 * is multiplied. */
struct f32_room {
    float4 w[2][F32_COLS][F32_THREADS];
};

static __device__ void fetch_w(float4 (*to)[F32_THREADS], const float *w, uint64_t stride,
                               uint64_t col, uint64_t rows, uint64_t k)
{
    if (k < stride)
        for (unsigned j = 0; j < F32_COLS; j++)
            copy_async(&to[j][threadIdx.x], w + min(col + j, rows - 1) * stride + k, true);
    copy_commit();
}

/* F32_ROWS rows of x times F32_COLS rows of w, which are padded with zeros to `stride` elements, a
 * multiple of four. Each thread takes every F32_THREADS-th four columns; then the threads' sums are
 * added. */
static __global__ void __launch_bounds__(F32_THREADS)
    f32_product(struct mat y, struct mat x, const float *w, uint64_t stride)
{
    extern __shared__ __align__(16) char memory[];
    struct f32_room *room = (struct f32_room *)memory;
    __shared__ float part[F32_THREADS / WARP][F32_ROWS * F32_COLS];
    uint64_t row = (uint64_t)blockIdx.x * F32_ROWS, col = (uint64_t)blockIdx.y * F32_COLS;
    float sum[F32_ROWS][F32_COLS] = {};
    unsigned turn = 0;
    fetch_w(room->w[0], w, stride, col, y.cols, threadIdx.x * FOUR);
    for (uint64_t k = threadIdx.x * FOUR; k < x.cols; k += F32_THREADS * FOUR, turn ^= 1) {
        fetch_w(room->w[turn ^ 1], w, stride, col, y.cols, k + F32_THREADS * FOUR);
        float a[F32_ROWS][FOUR];
#pragma unroll
        for (unsigned i = 0; i < F32_ROWS; i++)
            load4(a[i], bf16_row(x, min(row + i, x.rows - 1)) + k, x.cols - k);
        copy_wait_for_last_but_one();
#pragma unroll
        for (unsigned j = 0; j < F32_COLS; j++) {
            float4 b = room->w[turn][j][threadIdx.x];
#pragma unroll
            for (unsigned i = 0; i < F32_ROWS; i++) {
                sum[i][j] = fmaf(a[i][0], b.x, sum[i][j]);
                sum[i][j] = fmaf(a[i][1], b.y, sum[i][j]);
                sum[i][j] = fmaf(a[i][2], b.z, sum[i][j]);
                sum[i][j] = fmaf(a[i][3], b.w, sum[i][j]);
            }
        }
    }
#pragma unroll
    for (unsigned i = 0; i < F32_ROWS; i++)
#pragma unroll
        for (unsigned j = 0; j < F32_COLS; j++) {
            float all = warp_sum(sum[i][j]);
            if (threadIdx.x % WARP == 0)
                part[threadIdx.x / WARP][i * F32_COLS + j] = all;
        }
    __syncthreads();
    uint64_t i = threadIdx.x / F32_COLS, j = threadIdx.x % F32_COLS;
    if (i >= F32_ROWS || row + i >= y.rows || col + j >= y.cols)
        return;
    float all = 0;
    for (unsigned warp = 0; warp < F32_THREADS / WARP; warp++)
        all += part[warp][threadIdx.x];
    if (y.dtype == DTYPE_F32)
        f32_row(y, row + i)[col + j] = all;
    else
        bf16_row(y, row + i)[col + j] = bf16_from_f32(all);
}

static void plain_product(struct gpu *gpu, struct mat y, struct mat x, const struct operand *w)
{
    dim3 blocks((unsigned)((y.rows + F32_ROWS - 1) / F32_ROWS),
                (unsigned)((y.cols + F32_COLS - 1) / F32_COLS));
    size_t room = sizeof(struct f32_room);
    gpu_allow_shared((const void *)f32_product, room);
    f32_product<<<blocks, F32_THREADS, room, gpu->stream>>>(y, x, (const float *)w->at, w->stride);
    gpu_check(cudaGetLastError(), "F32 product");
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
