/* The GPU as a device: operations on single rows. */
#include "gpu.cuh"

/* ---- copies and sums ---- */

static __global__ void copy_row(struct mat y, struct mat x)
{
    uint64_t i = blockIdx.x;
    EACH_EIGHT(j, y.cols)
    {
        float v[EIGHT];
        if (x.dtype == DTYPE_F32)
            load8(v, f32_row(x, i) + j, x.cols - j);
        else
            load8(v, bf16_row(x, i) + j, x.cols - j);
        if (y.dtype == DTYPE_F32)
            store8(f32_row(y, i) + j, v, y.cols - j);
        else
            store8(bf16_row(y, i) + j, v, y.cols - j);
    }
}

static void copy(struct device *d, struct mat y, struct mat x)
{
    EACH_ROW(gpu_of(d), copy_row, y.rows, threads_for(y.cols), y, x);
}

static __global__ void gather_row(struct mat y, struct mat x, struct mat index, uint32_t *seen)
{
    uint64_t i = blockIdx.x, from = (uint64_t)*i32_row(index, i);
    uint32_t most = 0;
    EACH_EIGHT(j, y.cols)
    {
        struct eight codes = load_codes(bf16_row(x, from) + j, y.cols - j);
        store_codes(bf16_row(y, i) + j, codes, y.cols - j);
        most = most_of(most, codes);
    }
    if (seen)
        keep_most(seen, larger_of(most));
}

static void gather(struct device *d, struct mat y, struct mat x, struct mat index, struct mat seen)
{
    EACH_ROW(gpu_of(d), gather_row, y.rows, threads_for(y.cols), y, x, index, magnitude_of(seen));
}

static __global__ void scatter_row(struct mat y, struct mat x, struct mat index, struct mat weight,
                                   uint32_t *seen)
{
    uint64_t i = blockIdx.x, to = (uint64_t)*i32_row(index, i);
    float factor = weight.rows ? *f32_row(weight, i) : 1;
    uint32_t most = 0;
    EACH_EIGHT(j, x.cols)
    {
        float sum[EIGHT];
        struct eight codes = load_codes(bf16_row(x, i) + j, x.cols - j);
        load8(sum, f32_row(y, to) + j, x.cols - j);
#pragma unroll
        for (unsigned k = 0; k < EIGHT; k++)
            sum[k] += bf16_to_f32(code_of(codes, k)) * factor;
        store8(f32_row(y, to) + j, sum, x.cols - j);
        most = most_of(most, codes);
    }
    if (seen)
        keep_most(seen, larger_of(most));
}

static void scatter_add(struct device *d, struct mat y, struct mat x, struct mat index,
                        struct mat weight, struct mat seen)
{
    gpu_ordered_begin(gpu_of(d));
    EACH_ROW(gpu_of(d), scatter_row, x.rows, threads_for(x.cols), y, x, index, weight,
             magnitude_of(seen));
    gpu_ordered_end(gpu_of(d));
}

/* By factor, or by each row's own. */
static __global__ void scale_row(struct mat x, float factor, struct mat own)
{
    uint16_t *row = bf16_row(x, blockIdx.x);
    if (own.rows)
        factor = *f32_row(own, blockIdx.x);
    EACH_EIGHT(j, x.cols)
    {
        float v[EIGHT];
        load8(v, row + j, x.cols - j);
#pragma unroll
        for (unsigned k = 0; k < EIGHT; k++)
            v[k] *= factor;
        store8(row + j, v, x.cols - j);
    }
}

static void scale(struct device *d, struct mat x, float factor)
{
    struct mat none = {};
    EACH_ROW(gpu_of(d), scale_row, x.rows, threads_for(x.cols), x, factor, none);
}

static void scale_rows(struct device *d, struct mat x, struct mat factor)
{
    EACH_ROW(gpu_of(d), scale_row, x.rows, threads_for(x.cols), x, 0, factor);
}

static __global__ void add_row(struct mat y, struct mat x)
{
    uint64_t i = blockIdx.x;
    EACH_EIGHT(j, y.cols)
    {
        float a[EIGHT], b[EIGHT];
        load8(a, bf16_row(y, i) + j, y.cols - j);
        load8(b, bf16_row(x, i) + j, y.cols - j);
#pragma unroll
        for (unsigned k = 0; k < EIGHT; k++)
            a[k] += b[k];
        store8(bf16_row(y, i) + j, a, y.cols - j);
    }
}

static void add(struct device *d, struct mat y, struct mat x)
{
    EACH_ROW(gpu_of(d), add_row, y.rows, threads_for(y.cols), y, x);
}

/* ---- magnitudes ---- */

/* The largest of eight columns' magnitudes, as bits of F32. */
static __device__ uint32_t most_of_eight(const float *v)
{
    uint32_t most = 0;
#pragma unroll
    for (unsigned k = 0; k < EIGHT; k++)
        most = max(most, __float_as_uint(v[k]) & 0x7fffffff);
    return most;
}

static __device__ uint32_t most_of_eight(const float *from, uint64_t left)
{
    float v[EIGHT];
    load8(v, from, left);
    return most_of_eight(v);
}

static __device__ uint32_t most_of_eight(const uint16_t *from, uint64_t left)
{
    return larger_of(most_of(0, load_codes(from, left)));
}

/* Threads take turns of eight columns over all rows, so that one result of a block, not of each
 * row, is compared with what the others found. */
template <typename T>
static __global__ void most_of_all(uint32_t *amax, const T *from, uint64_t rows, uint64_t cols,
                                   uint64_t stride)
{
    uint64_t eights = (cols + EIGHT - 1) / EIGHT, turn = (uint64_t)gridDim.x * blockDim.x;
    uint32_t most = 0;
    for (uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; i < rows * eights;
         i += turn) {
        uint64_t row = rows == 1 ? 0 : i / eights, j = (i - row * eights) * EIGHT;
        most = max(most, most_of_eight(from + row * stride + j, cols - j));
    }
    keep_most(amax, most);
}

static void max_abs(struct device *d, struct mat amax, struct mat x)
{
    enum { GRID_MOST = 2048 };
    if (x.stride == x.cols) { /* one long row */
        x.cols *= x.rows;
        x.rows = x.cols != 0;
    }
    uint64_t eights = x.rows * ((x.cols + EIGHT - 1) / EIGHT);
    unsigned grid = (unsigned)min((eights + THREADS_MOST - 1) / THREADS_MOST, (uint64_t)GRID_MOST);
    uint32_t *to = (uint32_t *)amax.at;
    if (x.dtype == DTYPE_F32)
        EACH_ROW(gpu_of(d), most_of_all<float>, grid, THREADS_MOST, to, (const float *)x.at, x.rows,
                 x.cols, x.stride);
    else
        EACH_ROW(gpu_of(d), most_of_all<uint16_t>, grid, THREADS_MOST, to, (const uint16_t *)x.at,
                 x.rows, x.cols, x.stride);
}

/* ---- activations ---- */

/* The largest magnitude in the eight columns of each of `threads` neighbours. */
static __device__ float neighbours_most(const float *v, int threads)
{
    uint32_t most = most_of_eight(v);
    for (int step = threads / 2; step; step /= 2)
        most = max(most, __shfl_xor_sync(~0U, most, step));
    return __uint_as_float(most);
}

/* Eight columns of blocks of `block`, 32 and 16; see common/tensor/activation.c and nvfp4.c. */
static __device__ void round_fp8(float *v, int block)
{
    float s = power_above(fmaxf(neighbours_most(v, block / EIGHT), 1e-4f) * (1 / E4M3_MAX));
#pragma unroll
    for (unsigned k = 0; k < EIGHT; k++)
        v[k] = round_e4m3(v[k] / s) * s;
}

/* The scale of blocks of 128 that is no power of two. */
static __device__ float real_scale(const float *v, bool quotient)
{
    float most = fmaxf(neighbours_most(v, 128 / EIGHT), 1e-4f);
    return quotient ? most / E4M3_MAX : most * (1 / E4M3_MAX);
}

static __device__ void round_real(float *v, bool quotient)
{
    float s = real_scale(v, quotient);
#pragma unroll
    for (unsigned k = 0; k < EIGHT; k++)
        v[k] = round_e4m3(v[k] / s) * s;
}

static __device__ void round_fp4(float *v)
{
    float most = fmaxf(neighbours_most(v, 32 / EIGHT), E2M1_MAX * 0x1p-126f);
    float s = power_above(most * (1 / E2M1_MAX));
#pragma unroll
    for (unsigned k = 0; k < EIGHT; k++)
        v[k] = e2m1_to_f32(e2m1_from_f32(v[k] / s)) * s;
}

static __device__ void round_nvfp4(float *v, float scale_2)
{
    float s = neighbours_most(v, 16 / EIGHT) / (E2M1_MAX * scale_2);
    s = s == 0 ? 1 : s;
    s = e4m3_to_f32(e4m3_from_f32(fminf(fmaxf(s, E4M3_MIN_SUBNORMAL), E4M3_MAX))) * scale_2;
#pragma unroll
    for (unsigned k = 0; k < EIGHT; k++) {
        unsigned nibble = e2m1_from_f32(v[k] / s);
        v[k] = e2m1_to_f32(nibble == 8 ? 0 : nibble) * s;
    }
}

/* All threads run all iterations, since neighbours exchange values. */
static __global__ void quantize_row(struct mat y, struct mat x, enum activation how, float scale_2,
                                    uint32_t *seen)
{
    uint64_t i = blockIdx.x;
    uint32_t most = 0;
    for (uint64_t first = 0; first < x.cols; first += blockDim.x * EIGHT) {
        uint64_t j = first + threadIdx.x * EIGHT, left = j < x.cols ? x.cols - j : 0;
        float v[EIGHT];
        load8(v, bf16_row(x, i) + j, left);
        most = max(most, most_of_eight(v));
        if (how == ACTIVATION_FP8)
            round_fp8(v, 128);
        else if (how == ACTIVATION_FP8_32)
            round_fp8(v, 32);
        else if (how == ACTIVATION_FP8_V32_ROUNDED)
            round_real(v, false);
        else if (how == ACTIVATION_FP4)
            round_fp4(v);
        else if (how == ACTIVATION_NVFP4)
            round_nvfp4(v, scale_2);
        store8(bf16_row(y, i) + j, v, left);
    }
    if (seen)
        keep_most(seen, most);
}

static __global__ void split_row(struct mat y, struct mat x, bool quotient, uint32_t *seen)
{
    uint64_t i = blockIdx.x;
    uint32_t most = 0;
    for (uint64_t first = 0; first < x.cols; first += blockDim.x * EIGHT) {
        uint64_t j = first + threadIdx.x * EIGHT, left = j < x.cols ? x.cols - j : 0;
        float v[EIGHT];
        load8(v, bf16_row(x, i) + j, left);
        most = max(most, most_of_eight(v));
        round_real(v, quotient);
        for (unsigned k = 0; k < EIGHT && k < left; k++)
            split_left(bf16_row(y, i) + j + k, x.cols, split_of(v[k]));
    }
    if (seen)
        keep_most(seen, most);
}

/* One warp per row. */
static __global__ void encode_row(struct mat y, struct mat x, struct mat factor, bool power)
{
    uint64_t i = blockIdx.x;
    float most = 0;
    for (uint64_t j = threadIdx.x; j < x.cols; j += WARP)
        most = fmaxf(most, fabsf(bf16_to_f32(bf16_row(x, i)[j])));
    float scale = fmaxf(warp_max(most), 1e-4f) * (1 / E4M3_MAX);
    scale = power ? power_above(scale) : scale;
    for (uint64_t j = threadIdx.x; j < x.cols; j += WARP)
        bf16_row(y, i)[j] = bf16_from_f32(round_e4m3(bf16_to_f32(bf16_row(x, i)[j]) / scale));
    if (threadIdx.x == 0)
        *f32_row(factor, i) *= scale;
}

static void encode(struct device *d, struct mat y, struct mat x, struct mat factor, bool power)
{
    EACH_ROW(gpu_of(d), encode_row, x.rows, WARP, y, x, factor, power);
}

static void quantize(struct device *d, struct mat y, struct mat x, enum activation how,
                     float scale_2, struct mat seen)
{
    uint32_t *to = magnitude_of(seen);
    if (activation_splits(how)) {
        EACH_ROW(gpu_of(d), split_row, x.rows, threads_for(x.cols), y, x, how == ACTIVATION_FP8_V3,
                 to);
        return;
    }
    EACH_ROW(gpu_of(d), quantize_row, x.rows, threads_for(x.cols), y, x, how, scale_2, to);
}

/* ---- norms ---- */

/* The mean of a row's squares; every thread of the block gets it. */
static __device__ float mean_square(const struct mat &x, uint64_t i)
{
    float sum = 0;
    EACH_EIGHT(j, x.cols)
    {
        float v[EIGHT];
        load8(v, bf16_row(x, i) + j, x.cols - j);
#pragma unroll
        for (unsigned k = 0; k < EIGHT; k++)
            sum += v[k] * v[k];
    }
    return block_sum(sum) / (float)x.cols;
}

static __global__ void rms_norm_row(struct mat y, struct mat x, struct mat weight, float eps)
{
    uint64_t i = blockIdx.x;
    float scale = 1 / sqrtf(mean_square(x, i) + eps);
    EACH_EIGHT(j, x.cols)
    {
        float v[EIGHT], w[EIGHT];
        load8(v, bf16_row(x, i) + j, x.cols - j);
        load8(w, f32_row(weight, 0) + j, x.cols - j);
#pragma unroll
        for (unsigned k = 0; k < EIGHT; k++)
            v[k] = w[k] * (v[k] * scale);
        store8(bf16_row(y, i) + j, v, x.cols - j);
    }
}

static void rms_norm(struct device *d, struct mat y, struct mat x, struct mat weight, float eps)
{
    EACH_ROW(gpu_of(d), rms_norm_row, x.rows, threads_for(x.cols), y, x, weight, eps);
}

static __global__ void add_norm_row(struct mat y, struct mat sum, struct mat x, struct mat weight,
                                    float eps)
{
    uint64_t i = blockIdx.x;
    float squares = 0;
    EACH_EIGHT(j, x.cols)
    {
        float a[EIGHT], b[EIGHT];
        load8(a, bf16_row(sum, i) + j, x.cols - j);
        load8(b, bf16_row(x, i) + j, x.cols - j);
#pragma unroll
        for (unsigned k = 0; k < EIGHT; k++)
            squares += (a[k] + b[k]) * (a[k] + b[k]);
    }
    float scale = 1 / sqrtf(block_sum(squares) / (float)x.cols + eps);
    EACH_EIGHT(j, x.cols)
    {
        float a[EIGHT], b[EIGHT], w[EIGHT];
        load8(a, bf16_row(sum, i) + j, x.cols - j);
        load8(b, bf16_row(x, i) + j, x.cols - j);
        load8(w, f32_row(weight, 0) + j, x.cols - j);
#pragma unroll
        for (unsigned k = 0; k < EIGHT; k++) {
            a[k] += b[k];
            b[k] = w[k] * (a[k] * scale);
        }
        store8(bf16_row(y, i) + j, b, x.cols - j);
        store8(bf16_row(sum, i) + j, a, x.cols - j);
    }
}

static void add_norm(struct device *d, struct mat y, struct mat sum, struct mat x,
                     struct mat weight, float eps)
{
    EACH_ROW(gpu_of(d), add_norm_row, x.rows, threads_for(x.cols), y, sum, x, weight, eps);
}

static __global__ void layer_norm_row(struct mat y, struct mat x, struct mat weight,
                                      struct mat bias, float eps)
{
    uint64_t i = blockIdx.x;
    const uint16_t *from = bf16_row(x, i);
    float sum = 0, squares = 0;
    for (uint64_t j = threadIdx.x; j < x.cols; j += blockDim.x)
        sum += bf16_to_f32(from[j]);
    float mean = block_sum(sum) / (float)x.cols;
    for (uint64_t j = threadIdx.x; j < x.cols; j += blockDim.x) {
        float value = bf16_to_f32(from[j]) - mean;
        squares += value * value;
    }
    float scale = 1 / sqrtf(block_sum(squares) / (float)x.cols + eps);
    for (uint64_t j = threadIdx.x; j < x.cols; j += blockDim.x)
        bf16_row(y, i)[j] = bf16_from_f32(
            (bf16_to_f32(from[j]) - mean) * scale * f32_row(weight, 0)[j] + f32_row(bias, 0)[j]);
}

static void layer_norm(struct device *d, struct mat y, struct mat x, struct mat weight,
                       struct mat bias, float eps)
{
    EACH_ROW(gpu_of(d), layer_norm_row, x.rows, threads_for(x.cols), y, x, weight, bias, eps);
}

static __global__ void hc_scale_row(struct mat mixes, struct mat x, float eps)
{
    uint64_t i = blockIdx.x;
    float scale = 1 / sqrtf(mean_square(x, i) + eps);
    for (uint64_t j = threadIdx.x; j < mixes.cols; j += blockDim.x)
        f32_row(mixes, i)[j] *= scale;
}

static void hc_scale(struct device *d, struct mat mixes, struct mat x, float eps)
{
    EACH_ROW(gpu_of(d), hc_scale_row, x.rows, threads_for(x.cols), mixes, x, eps);
}

/* The warps share the runs of `width` columns. */
#define EACH_HEAD(first, width, cols)                                                              \
    for (uint64_t first = threadIdx.x / WARP * (width); first < (cols);                            \
         first += blockDim.x / WARP * (width))

/* A warp has each head in registers, OWN eights of columns a lane. */
template <unsigned OWN>
static __global__ void unit_row(struct mat x, uint64_t width, float eps, uint32_t *seen)
{
    uint64_t j = threadIdx.x % WARP * EIGHT;
    uint32_t most = 0;
    EACH_HEAD(first, width, x.cols)
    {
        uint16_t *head = bf16_row(x, blockIdx.x) + first;
        float sum = 0, v[OWN][EIGHT];
#pragma unroll
        for (unsigned n = 0; n < OWN; n++) {
            uint64_t at = n * WARP * EIGHT + j;
            load8(v[n], head + at, at < width ? width - at : 0);
            most = max(most, most_of_eight(v[n]));
#pragma unroll
            for (unsigned k = 0; k < EIGHT; k++)
                sum += to_bf16(v[n][k] * v[n][k]);
        }
        float mean = to_bf16(warp_sum(sum) / (float)width);
        float scale = to_bf16(1 / sqrtf(to_bf16(mean + eps)));
#pragma unroll
        for (unsigned n = 0; n < OWN; n++) {
            uint64_t at = n * WARP * EIGHT + j;
#pragma unroll
            for (unsigned k = 0; k < EIGHT; k++)
                v[n][k] *= scale;
            store8(head + at, v[n], at < width ? width - at : 0);
        }
    }
    if (seen)
        keep_most(seen, most);
}

static void unit(struct device *d, struct mat x, uint64_t width, float eps, struct mat seen)
{
    enum { ONE = WARP * EIGHT };
    struct gpu *gpu = gpu_of(d);
    uint32_t *to = magnitude_of(seen);
    if (width <= 1 * ONE)
        EACH_ROW(gpu, unit_row<1>, x.rows, THREADS_MOST, x, width, eps, to);
    else if (width <= 2 * ONE)
        EACH_ROW(gpu, unit_row<2>, x.rows, THREADS_MOST, x, width, eps, to);
    else if (width <= 4 * ONE)
        EACH_ROW(gpu, unit_row<4>, x.rows, THREADS_MOST, x, width, eps, to);
    else
        die("CUDA: queries may have heads of %d columns, not %d", 4 * ONE, (int)width);
}

static __global__ void rotate_row(struct mat x, uint64_t width, struct mat table,
                                  struct mat position, float direction)
{
    uint64_t i = blockIdx.x, pairs = table.cols / 2, all = x.cols / width * pairs;
    const float *angle = f32_row(table, (uint64_t)*i32_row(position, i));
    for (uint64_t p = threadIdx.x; p < all; p += blockDim.x) {
        uint64_t pair = 2 * (p % pairs);
        uint16_t *at = bf16_row(x, i) + (p / pairs + 1) * width - table.cols + pair;
        float a = bf16_to_f32(at[0]), b = bf16_to_f32(at[1]);
        float cosine = angle[pair], sine = angle[pair + 1] * direction;
        at[0] = bf16_from_f32(a * cosine - b * sine);
        at[1] = bf16_from_f32(a * sine + b * cosine);
    }
}

static void rotate(struct device *d, struct mat x, uint64_t width, struct mat table,
                   struct mat position, bool inverse)
{
    EACH_ROW(gpu_of(d), rotate_row, x.rows, threads_for(x.cols / width * table.cols), x, width,
             table, position, inverse ? -1.0f : 1.0f);
}

static __global__ void rotate_halves_row(struct mat x, uint64_t width, struct mat table,
                                         struct mat position)
{
    uint64_t i = blockIdx.x, pairs = table.cols / 2, all = x.cols / width * pairs;
    const float *angle = f32_row(table, (uint64_t)*i32_row(position, i));
    for (uint64_t p = threadIdx.x; p < all; p += blockDim.x) {
        uint64_t pair = p % pairs;
        uint16_t *at = bf16_row(x, i) + p / pairs * width + pair;
        float a = bf16_to_f32(at[0]), b = bf16_to_f32(at[pairs]);
        float cosine = angle[2 * pair], sine = angle[2 * pair + 1];
        at[0] = bf16_from_f32(a * cosine - b * sine);
        at[pairs] = bf16_from_f32(a * sine + b * cosine);
    }
}

static void rotate_halves(struct device *d, struct mat x, uint64_t width, struct mat table,
                          struct mat position)
{
    EACH_ROW(gpu_of(d), rotate_halves_row, x.rows, threads_for(x.cols / width * table.cols), x,
             width, table, position);
}

/* Runs of WARP * OWN columns, of which each lane has OWN neighbours. */
template <unsigned OWN> static __global__ void hadamard_row(struct mat x, float scale)
{
    unsigned lane = threadIdx.x % WARP;
    EACH_HEAD(first, WARP * OWN, x.cols)
    {
        uint16_t *at = bf16_row(x, blockIdx.x) + first + lane * OWN;
        float v[OWN];
        for (unsigned j = 0; j < OWN; j++)
            v[j] = bf16_to_f32(at[j]);
#pragma unroll
        for (unsigned half = 1; half < OWN; half *= 2)
#pragma unroll
            for (unsigned j = 0; j < OWN; j++)
                if (!(j & half)) {
                    float a = v[j], b = v[j + half];
                    v[j] = a + b;
                    v[j + half] = a - b;
                }
#pragma unroll
        for (unsigned half = 1; half < WARP; half *= 2)
#pragma unroll
            for (unsigned j = 0; j < OWN; j++) {
                float other = __shfl_xor_sync(~0U, v[j], half);
                v[j] = lane & half ? other - v[j] : v[j] + other;
            }
        for (unsigned j = 0; j < OWN; j++)
            at[j] = bf16_from_f32(v[j] * scale);
    }
}

static void hadamard(struct device *d, struct mat x, uint64_t width)
{
    struct gpu *gpu = gpu_of(d);
    float scale = (float)(1 / sqrt((double)width));
    if (width == 1 * WARP)
        EACH_ROW(gpu, hadamard_row<1>, x.rows, THREADS_MOST, x, scale);
    else if (width == 2 * WARP)
        EACH_ROW(gpu, hadamard_row<2>, x.rows, THREADS_MOST, x, scale);
    else if (width == 4 * WARP)
        EACH_ROW(gpu, hadamard_row<4>, x.rows, THREADS_MOST, x, scale);
    else if (width == 8 * WARP)
        EACH_ROW(gpu, hadamard_row<8>, x.rows, THREADS_MOST, x, scale);
    else
        die("CUDA: a Hadamard transform must have 32, 64, 128 or 256 columns, not %d", (int)width);
}

void gpu_rows(struct device *d)
{
    d->copy = copy;
    d->gather = gather;
    d->scatter_add = scatter_add;
    d->scale = scale;
    d->scale_rows = scale_rows;
    d->add = add;
    d->max_abs = max_abs;
    d->quantize = quantize;
    d->encode = encode;
    d->rms_norm = rms_norm;
    d->add_norm = add_norm;
    d->layer_norm = layer_norm;
    d->hc_scale = hc_scale;
    d->unit = unit;
    d->rotate = rotate;
    d->rotate_halves = rotate_halves;
    d->hadamard = hadamard;
}
