#include "tensor/hessian_search.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

/* ---- what is known of the inputs ---- */

/* A symmetric matrix, and the order in which its columns are taken. */
struct square {
    double at[NVFP4_BLOCK][NVFP4_BLOCK];
    size_t order[NVFP4_BLOCK];
};

static void swap_columns(struct square *s, size_t i, size_t j)
{
    size_t column = s->order[i];
    s->order[i] = s->order[j];
    s->order[j] = column;
}

/* Cholesky's factors, the column with the largest rest on the diagonal first: those after it are
 * then the smaller. l[k][i] is of column order[i], i >= k. What is left once the rest is within
 * rounding of 0 counts as 0. */
static void factorize(struct square *h, double l[NVFP4_BLOCK][NVFP4_BLOCK])
{
    const double rounding = 1e-9;
    for (size_t k = 0; k < NVFP4_BLOCK; k++) {
        size_t most = k;
        for (size_t i = k; i < NVFP4_BLOCK; i++) {
            l[k][i] = 0;
            if (h->at[h->order[i]][h->order[i]] > h->at[h->order[most]][h->order[most]])
                most = i;
        }
        swap_columns(h, k, most);
        for (size_t j = 0; j < k; j++) {
            double factor = l[j][k];
            l[j][k] = l[j][most];
            l[j][most] = factor;
        }
        size_t pivot = h->order[k];
        double root = sqrt(fmax(h->at[pivot][pivot], 0));
        if (root * root <= rounding)
            continue;
        for (size_t i = k; i < NVFP4_BLOCK; i++)
            l[k][i] = h->at[h->order[i]][pivot] / root;
        for (size_t i = k; i < NVFP4_BLOCK; i++)
            for (size_t j = k; j < NVFP4_BLOCK; j++)
                h->at[h->order[i]][h->order[j]] -= l[k][i] * l[k][j];
    }
}

/* True if C - x · 1 is positive definite, by Cholesky's factors. */
static bool is_above(double c[NVFP4_BLOCK][NVFP4_BLOCK], double x)
{
    double l[NVFP4_BLOCK][NVFP4_BLOCK];
    for (size_t i = 0; i < NVFP4_BLOCK; i++)
        for (size_t j = 0; j <= i; j++) {
            double rest = i == j ? c[i][j] - x : c[i][j];
            for (size_t k = 0; k < j; k++)
                rest -= l[i][k] * l[j][k];
            if (i == j && !(rest > 0))
                return false;
            l[i][j] = i == j ? sqrt(rest) : rest / l[j][j];
        }
    return true;
}

/* A little less than the least eigenvalue of C, which is at most 1; 0 if it is near 0. */
static double least_eigenvalue(double c[NVFP4_BLOCK][NVFP4_BLOCK])
{
    enum { STEPS = 10 };
    double below = 0, above = 1;
    for (int i = 0; i < STEPS; i++) {
        double middle = (below + above) / 2;
        *(is_above(c, middle) ? &below : &above) = middle;
    }
    return below;
}

/* With D the diagonal of H, and x the least eigenvalue of the correlations D^-½ H D^-½, H - x · D
 * has no negative one: so eᵀHe is at least eᵀ(x · D)e. Returns x. */
static double least_correlation(const struct square *h)
{
    const double margin = 0.999; /* for errors that were rounded */
    double c[NVFP4_BLOCK][NVFP4_BLOCK], root[NVFP4_BLOCK];
    for (size_t i = 0; i < NVFP4_BLOCK; i++)
        root[i] = sqrt(h->at[i][i]);
    for (size_t i = 0; i < NVFP4_BLOCK; i++)
        for (size_t j = 0; j < NVFP4_BLOCK; j++)
            c[i][j] = i == j ? 1 : root[i] && root[j] ? h->at[i][j] / (root[i] * root[j]) : 0;
    return margin * least_eigenvalue(c);
}

static void prepare_lane(struct block_moments *moments, size_t lane, const float *h)
{
    struct square square;
    double most = 0; /* on the diagonal, as nowhere else is a larger one */
    for (size_t i = 0; i < NVFP4_BLOCK; i++)
        most = fmax(most, (double)h[i * NVFP4_BLOCK + i]);
    if (most == 0)
        return;
    moments->known |= UINT32_C(1) << lane;
    for (size_t i = 0; i < NVFP4_BLOCK; i++) {
        square.order[i] = i;
        for (size_t j = 0; j < NVFP4_BLOCK; j++)
            square.at[i][j] = (double)h[i * NVFP4_BLOCK + j] / most;
    }
    double x = least_correlation(&square), l[NVFP4_BLOCK][NVFP4_BLOCK], diagonal[NVFP4_BLOCK];
    for (size_t i = 0; i < NVFP4_BLOCK; i++)
        diagonal[i] = square.at[i][i];
    factorize(&square, l);
    float(*factor)[HESSIAN_LANES] = moments->factor;
    for (size_t k = 0; k < NVFP4_BLOCK; k++) {
        for (size_t i = k; i < NVFP4_BLOCK; i++, factor++)
            (*factor)[lane] = (float)l[k][i];
        moments->least[k][lane] = (float)(x * diagonal[square.order[k]]);
        moments->column[k][lane] = (int32_t)(lane * NVFP4_BLOCK + square.order[k]);
    }
}

void block_moments_prepare(struct block_moments *moments, const float *h, size_t blocks)
{
    for (size_t i = 0; i < block_moments_count(blocks); i++) {
        moments[i] = (struct block_moments){0};
        for (size_t j = 0; j < NVFP4_BLOCK; j++)
            for (size_t lane = 0; lane < HESSIAN_LANES; lane++)
                moments[i].column[j][lane] = (int32_t)(lane * NVFP4_BLOCK + j);
    }
    for (size_t i = 0; i < blocks; i++)
        prepare_lane(&moments[i / HESSIAN_LANES], i % HESSIAN_LANES,
                     h + i * NVFP4_BLOCK * NVFP4_BLOCK);
}

/* ---- the search ---- */

#define TARGET

typedef struct {
    float x[HESSIAN_LANES];
} lanes;

/* Each 0 or all ones. */
typedef struct {
    uint32_t x[HESSIAN_LANES];
} mask;

static inline lanes splat(float x)
{
    lanes r;
    for (size_t i = 0; i < HESSIAN_LANES; i++)
        r.x[i] = x;
    return r;
}

static inline lanes load(const float *p)
{
    lanes r;
    for (size_t i = 0; i < HESSIAN_LANES; i++)
        r.x[i] = p[i];
    return r;
}

static inline void store(float *p, lanes a)
{
    memcpy(p, a.x, sizeof a.x);
}

static inline lanes pick(const float *p, const int32_t *index)
{
    lanes r;
    for (size_t i = 0; i < HESSIAN_LANES; i++)
        r.x[i] = p[index[i]];
    return r;
}

static inline lanes plus(lanes a, lanes b)
{
    lanes r;
    for (size_t i = 0; i < HESSIAN_LANES; i++)
        r.x[i] = a.x[i] + b.x[i];
    return r;
}

static inline lanes minus(lanes a, lanes b)
{
    lanes r;
    for (size_t i = 0; i < HESSIAN_LANES; i++)
        r.x[i] = a.x[i] - b.x[i];
    return r;
}

static inline lanes times(lanes a, lanes b)
{
    lanes r;
    for (size_t i = 0; i < HESSIAN_LANES; i++)
        r.x[i] = a.x[i] * b.x[i];
    return r;
}

static inline lanes over(lanes a, lanes b)
{
    lanes r;
    for (size_t i = 0; i < HESSIAN_LANES; i++)
        r.x[i] = a.x[i] / b.x[i];
    return r;
}

static inline lanes least_of(lanes a, lanes b)
{
    lanes r;
    for (size_t i = 0; i < HESSIAN_LANES; i++)
        r.x[i] = a.x[i] < b.x[i] ? a.x[i] : b.x[i];
    return r;
}

static inline lanes most_of(lanes a, lanes b)
{
    lanes r;
    for (size_t i = 0; i < HESSIAN_LANES; i++)
        r.x[i] = a.x[i] > b.x[i] ? a.x[i] : b.x[i];
    return r;
}

static inline lanes flip(lanes a, lanes sign)
{
    lanes r;
    for (size_t i = 0; i < HESSIAN_LANES; i++)
        r.x[i] = signbit(sign.x[i]) ? -a.x[i] : a.x[i];
    return r;
}

static inline lanes sign(lanes a)
{
    lanes r;
    for (size_t i = 0; i < HESSIAN_LANES; i++)
        r.x[i] = copysignf(0, a.x[i]);
    return r;
}

static inline lanes magnitude(lanes a)
{
    lanes r;
    for (size_t i = 0; i < HESSIAN_LANES; i++)
        r.x[i] = fabsf(a.x[i]);
    return r;
}

static inline lanes power_of_two(lanes a)
{
    uint32_t bits[HESSIAN_LANES];
    memcpy(bits, a.x, sizeof bits);
    for (size_t i = 0; i < HESSIAN_LANES; i++)
        bits[i] &= 0x7f800000;
    memcpy(a.x, bits, sizeof bits);
    return a;
}

static inline mask less(lanes a, lanes b)
{
    mask r;
    for (size_t i = 0; i < HESSIAN_LANES; i++)
        r.x[i] = a.x[i] < b.x[i] ? UINT32_MAX : 0;
    return r;
}

static inline mask both(mask a, mask b)
{
    mask r;
    for (size_t i = 0; i < HESSIAN_LANES; i++)
        r.x[i] = a.x[i] & b.x[i];
    return r;
}

static inline mask without(mask a, mask b)
{
    mask r;
    for (size_t i = 0; i < HESSIAN_LANES; i++)
        r.x[i] = a.x[i] & ~b.x[i];
    return r;
}

static inline mask from_bits(uint32_t bits)
{
    mask r;
    for (size_t i = 0; i < HESSIAN_LANES; i++)
        r.x[i] = bits >> i & 1 ? UINT32_MAX : 0;
    return r;
}

static inline uint32_t to_bits(mask m)
{
    uint32_t bits = 0;
    for (size_t i = 0; i < HESSIAN_LANES; i++)
        bits |= (m.x[i] & 1) << i;
    return bits;
}

static inline bool any(mask m)
{
    uint32_t all = 0;
    for (size_t i = 0; i < HESSIAN_LANES; i++)
        all |= m.x[i];
    return all;
}

static inline lanes where(mask m, lanes a, lanes b)
{
    lanes r;
    for (size_t i = 0; i < HESSIAN_LANES; i++)
        r.x[i] = m.x[i] ? a.x[i] : b.x[i];
    return r;
}

#include "tensor/hessian_loop.h"

void nvfp4_scales_hessian_row(uint8_t *scale, const uint16_t *w, size_t cols, float scale_2,
                              const struct block_moments *moments)
{
    search_row(scale, w, cols, scale_2, moments);
}
