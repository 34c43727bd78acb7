/* The GPU as a device: weights. They are uploaded packed and dequantized here, eight columns per
 * thread, by the formulas of common/tensor/{fp8,mxfp4,nvfp4}.h. */
#include "gpu.cuh"

#include <stdlib.h>

/* A matrix as stored: rows of `stride` bytes, and its scales. */
struct packed {
    const uint8_t *raw, *scale; /* scale: a byte per 32 (MXFP4) or 16 (NVFP4) columns */
    const float *fp8;           /* FP8: per block of block_rows x block_cols elements */
    uint32_t block_rows, block_cols;
    uint64_t cols, stride, scale_cols;
    uint64_t first; /* the number of the first row, for FP8's blocks */
    float scale_2;
};

/* Eight bytes, or the `left` ones. */
static __device__ uint64_t load_bytes(const uint8_t *from, uint64_t left)
{
    uint64_t bytes = 0;
    if (left >= 8 && ((uintptr_t)from & 7) == 0)
        return *(const uint64_t *)from;
    for (unsigned i = 0; i < 8 && i < left; i++)
        bytes |= (uint64_t)from[i] << 8 * i;
    return bytes;
}

static __device__ struct eight fp8_eight(const struct packed &p, uint64_t i, uint64_t j)
{
    const float *scale = p.fp8 + (uint32_t)(p.first + i) / p.block_rows * p.scale_cols;
    uint64_t codes = load_bytes(p.raw + i * p.stride + j, p.cols - j);
    struct eight out;
    float s = scale[(uint32_t)j / p.block_cols];
#pragma unroll
    for (unsigned k = 0; k < EIGHT; k++) {
        uint32_t code = (uint32_t)(codes >> 8 * k) & 0xff;
        uint16_t nan = (uint16_t)((code & 0x80) << 8 | 0x7fc0); /* products lose a NaN's sign */
        uint16_t value = bf16_from_f32(e4m3_to_f32((uint8_t)code) * s);
        put_code(out, k, (code & 0x7f) == 0x7f ? nan : value);
    }
    return out;
}

static __device__ uint32_t load_nibbles(const struct packed &p, uint64_t i, uint64_t j)
{
    return *(const uint32_t *)(p.raw + i * p.stride + j / 2);
}

/* a · b of two BF16 values each. */
static __device__ uint32_t multiply_pairs(uint32_t a, uint32_t b)
{
    uint32_t c;
    asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(c) : "r"(a), "r"(b));
    return c;
}

/* Four nibbles at a time are looked up as BF16 in two tables of eight bytes: the upper and the
 * lower bytes of 0, .5, 1, 1.5, 2, 3, 4, 6. The product with the scale, a power of two that BF16
 * represents, is the only step that rounds. */
static __device__ struct eight mxfp4_eight(const struct packed &p, uint64_t i, uint64_t j)
{
    uint32_t nibbles = load_nibbles(p, i, j), scale = p.scale[i * p.scale_cols + j / 32];
    struct eight out;
    scale = scale ? scale << 7 : 0x40;
    scale |= scale << 16;
#pragma unroll
    for (unsigned half = 0; half < 2; half++, nibbles >>= 16) {
        uint32_t low = __byte_perm(0xc0800000, 0xc0804000, nibbles & 0x7777);
        uint32_t high = __byte_perm(0x3f3f3f00, 0x40404040, nibbles & 0x7777);
        uint32_t first = (nibbles & 0x8) << 12 | (nibbles & 0x80) << 24; /* signs */
        uint32_t second = (nibbles & 0x800) << 4 | (nibbles & 0x8000) << 16;
        out.pair[2 * half] = multiply_pairs(__byte_perm(low, high, 0x5140) | first, scale);
        out.pair[2 * half + 1] = multiply_pairs(__byte_perm(low, high, 0x7362) | second, scale);
    }
    return out;
}

/* Nibble 8 gives +0, as the reference does. */
static __device__ struct eight nvfp4_eight(const struct packed &p, uint64_t i, uint64_t j)
{
    uint32_t nibbles = load_nibbles(p, i, j);
    float s = e4m3_to_f32(p.scale[i * p.scale_cols + j / 16]) * p.scale_2;
    struct eight out;
#pragma unroll
    for (unsigned k = 0; k < EIGHT; k++) {
        unsigned nibble = nibbles >> 4 * k & 15;
        put_code(out, k, bf16_from_f32(e2m1_to_f32(nibble == 8 ? 0 : nibble) * s));
    }
    return out;
}

static __device__ struct eight f16_eight(const struct packed &p, uint64_t i, uint64_t j)
{
    struct eight half = load_codes((const uint16_t *)(p.raw + i * p.stride) + j, p.cols - j), out;
#pragma unroll
    for (unsigned k = 0; k < EIGHT; k++) {
        float value;
        asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(code_of(half, k)));
        put_code(out, k, bf16_from_f32(value));
    }
    return out;
}

static __device__ struct eight bf16_eight(const struct packed &p, uint64_t i, uint64_t j)
{
    return load_codes((const uint16_t *)(p.raw + i * p.stride) + j, p.cols - j);
}

/* One kernel per format: all rows, and the largest magnitude. */
#define DEQUANTIZE(name)                                                                           \
    static __global__ void name(uint16_t *out, struct packed p, uint32_t *amax)                    \
    {                                                                                              \
        uint64_t i = blockIdx.x;                                                                   \
        uint32_t most = 0;                                                                         \
        EACH_EIGHT(j, p.cols)                                                                      \
        {                                                                                          \
            struct eight x = name##_eight(p, i, j);                                                \
            store_codes(out + i * p.cols + j, x, p.cols - j);                                      \
            most = most_of(most, x);                                                               \
        }                                                                                          \
        keep_most(amax, larger_of(most));                                                          \
    }
DEQUANTIZE(fp8)
DEQUANTIZE(mxfp4)
DEQUANTIZE(nvfp4)
DEQUANTIZE(f16)
DEQUANTIZE(bf16)

static void dequantize(struct gpu *gpu, struct operand *w, enum format format, enum dtype dtype,
                       const struct packed &p, uint32_t *amax)
{
    uint16_t *out = (uint16_t *)w->at;
    unsigned threads = threads_for(p.cols);
    if (format == FORMAT_FP8)
        EACH_ROW(gpu, fp8, w->rows, threads, out, p, amax);
    else if (format == FORMAT_MXFP4)
        EACH_ROW(gpu, mxfp4, w->rows, threads, out, p, amax);
    else if (format == FORMAT_NVFP4)
        EACH_ROW(gpu, nvfp4, w->rows, threads, out, p, amax);
    else if (dtype == DTYPE_F16)
        EACH_ROW(gpu, f16, w->rows, threads, out, p, amax);
    else
        EACH_ROW(gpu, bf16, w->rows, threads, out, p, amax);
}

/* out [cols, rows] = the transpose. */
static __global__ void transpose_row(uint16_t *out, const uint16_t *in, uint64_t rows,
                                     uint64_t cols)
{
    uint64_t col = blockIdx.x;
    for (uint64_t i = threadIdx.x; i < rows; i += blockDim.x)
        out[col * rows + i] = in[i * cols + col];
}

/* Transpose an operand in place. */
static void transpose(struct gpu *gpu, struct operand *w)
{
    struct operand old = *w;
    w->rows = old.cols;
    w->cols = w->stride = old.rows;
    w->at = gpu_alloc(gpu, w->rows * w->cols, sizeof(uint16_t));
    EACH_ROW(gpu, transpose_row, w->rows, THREADS_MOST, (uint16_t *)w->at, (const uint16_t *)old.at,
             old.rows, old.cols);
    gpu_free(gpu, old.at);
}

/* FP8's values, not rounded, or the rounded ones of other formats, split. */
static __global__ void split_row(uint16_t *out, const uint16_t *rounded, struct packed p)
{
    uint64_t i = blockIdx.x;
    const float *scale =
        p.fp8 ? p.fp8 + (uint32_t)(p.first + i) / p.block_rows * p.scale_cols : NULL;
    for (uint64_t j = threadIdx.x; j < p.cols; j += blockDim.x) {
        float value = bf16_to_f32(rounded[i * p.cols + j]);
        if (p.fp8)
            value = e4m3_to_f32(p.raw[i * p.stride + j]) * scale[(uint32_t)j / p.block_cols];
        split_right(out + i * p.cols * SPLIT + j, p.cols, split_of(value));
    }
}

/* Split an operand in place. */
static void split(struct gpu *gpu, struct operand *w, const struct packed &p)
{
    uint16_t *out = (uint16_t *)gpu_alloc(gpu, w->rows * w->cols, SPLIT * sizeof *out);
    EACH_ROW(gpu, split_row, w->rows, THREADS_MOST, out, (const uint16_t *)w->at, p);
    gpu_free(gpu, w->at);
    w->at = out;
    w->cols = w->stride = SPLIT * p.cols;
}

/* A row of the three parts of an F32 matrix [rows, cols], or of its transpose; `step` elements from
 * one column to the next. */
static __global__ void part_row(uint16_t *out, struct operand w, const float *from,
                                uint64_t row_step, uint64_t col_step)
{
    uint64_t i = blockIdx.x, part = w.rows * w.stride;
    for (uint64_t j = threadIdx.x; j < w.stride; j += blockDim.x) {
        float value = j < w.cols ? from[i * row_step + j * col_step] : 0;
        struct split s = split_of(value);
        uint16_t *to = out + i * w.stride + j;
        to[0] = s.high;
        to[part] = s.middle;
        to[2 * part] = s.low;
    }
}

/* F32 stays F32, in three parts; `from`, of the matrix at `raw`, has the rows that `w` has so
 * far. */
static void take_f32(struct device *d, struct operand *w, const void *raw, void *from,
                     bool transposed, struct mat amax)
{
    struct gpu *gpu = gpu_of(d);
    struct mat m = {from, w->rows, w->cols, w->cols, DTYPE_F32};
    w->dtype = DTYPE_F32;
    w->rows = transposed ? m.cols : m.rows;
    w->cols = transposed ? m.rows : m.cols;
    w->stride = (w->cols + OPERAND_STEP - 1) / OPERAND_STEP * OPERAND_STEP;
    w->at = gpu_alloc(gpu, OPERAND_PARTS * w->rows * w->stride, sizeof(uint16_t));
    gpu_wait_uploads(gpu, raw, NULL);
    d->max_abs(d, amax, m);
    EACH_ROW(gpu, part_row, w->rows, THREADS_MOST, (uint16_t *)w->at, *w, (const float *)from,
             transposed ? 1 : m.cols, transposed ? m.cols : 1);
}

static struct operand *operand(struct device *d, const struct weight *weight,
                               const struct tensor *tensor, const struct scales *scales,
                               struct mat scale, struct mat raw, struct operand_part part,
                               struct mat amax)
{
    struct gpu *gpu = gpu_of(d);
    uint64_t first = part.first, rows = part.rows;
    struct operand *w = (struct operand *)xalloc(1, sizeof *w);
    *w = (struct operand){rows, weight->cols, DTYPE_BF16, weight->cols, NULL};
    uint64_t stride = weight_row_bytes(weight, tensor);
    const uint8_t *from = (const uint8_t *)raw.at + first * stride;
    gpu_check(cudaMemsetAsync(amax.at, 0, sizeof(float), gpu->stream), "amax");
    if (tensor->dtype == DTYPE_F32) {
        take_f32(d, w, raw.at, (void *)from, part.transposed, amax);
        return w;
    }
    struct packed p = {};
    p.cols = w->cols;
    p.stride = stride;
    p.first = first;
    p.scale_cols = scales->cols;
    p.scale_2 = scales->scale_2;
    p.raw = from;
    p.scale = (const uint8_t *)scale.at + first * scales->cols;
    float *fp8 = NULL;
    if (weight->format == FORMAT_FP8) {
        uint64_t blocks =
            (weight->rows + weight->block_rows - 1) / weight->block_rows * scales->cols;
        if (weight->block_cols % EIGHT && weight->block_cols != weight->cols)
            die("%s: has blocks of %lu columns; a GPU needs a multiple of %d", tensor->name,
                (unsigned long)weight->block_cols, EIGHT);
        if (weight->rows > UINT32_MAX || weight->cols > UINT32_MAX)
            die("%s: is too large for a GPU", tensor->name);
        p.block_rows = (uint32_t)weight->block_rows;
        p.block_cols = (uint32_t)weight->block_cols;
        fp8 = (float *)gpu_alloc(gpu, blocks, sizeof *fp8);
        gpu_write(gpu, fp8, scales->fp8, blocks * sizeof *fp8);
    }
    p.fp8 = fp8;
    gpu_wait_uploads(gpu, raw.at, scale.at);
    w->at = gpu_alloc(gpu, rows * w->cols, sizeof(uint16_t));
    dequantize(gpu, w, weight->format, (enum dtype)tensor->dtype, p, (uint32_t *)amax.at);
    if (part.split)
        split(gpu, w, p);
    if (part.transposed)
        transpose(gpu, w);
    gpu_free(gpu, fp8);
    return w;
}

static void drop_operand(struct device *d, struct operand *w)
{
    if (w)
        gpu_free(gpu_of(d), w->at);
    free(w);
}

void gpu_weights(struct device *d)
{
    d->operand = operand;
    d->drop_operand = drop_operand;
}
