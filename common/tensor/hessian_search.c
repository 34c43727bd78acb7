#include "tensor/hessian_search.h"

#include <math.h>

#include "tensor/bf16.h"
#include "tensor/e2m1.h"

/* ---- what is known of the inputs ---- */

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
 * has no negative one: so eᵀHe is at least eᵀ(x · D)e. */
static void find_least(struct block_moments *moments)
{
    const double margin = 0.999; /* for errors that were rounded */
    double c[NVFP4_BLOCK][NVFP4_BLOCK], root[NVFP4_BLOCK];
    for (size_t i = 0; i < NVFP4_BLOCK; i++)
        root[i] = sqrt((double)moments->h[i][i]);
    for (size_t i = 0; i < NVFP4_BLOCK; i++)
        for (size_t j = 0; j < NVFP4_BLOCK; j++)
            c[i][j] = i == j               ? 1
                      : root[i] && root[j] ? (double)moments->h[i][j] / (root[i] * root[j])
                                           : 0;
    double x = margin * least_eigenvalue(c);
    for (size_t i = 0; i < NVFP4_BLOCK; i++)
        moments->least[i] = (float)(x * (double)moments->h[i][i]);
}

void block_moments_prepare(struct block_moments *moments, const float *h)
{
    float most = 0; /* on the diagonal, as nowhere else is a larger one */
    *moments = (struct block_moments){0};
    for (size_t i = 0; i < NVFP4_BLOCK; i++)
        most = fmaxf(most, h[i * NVFP4_BLOCK + i]);
    if (most == 0)
        return;
    moments->known = true;
    for (size_t i = 0; i < NVFP4_BLOCK; i++)
        for (size_t j = 0; j < NVFP4_BLOCK; j++)
            moments->h[i][j] = h[i * NVFP4_BLOCK + j] / most;
    find_least(moments);
}

/* ---- the search ---- */

#define TARGET

struct block {
    float m[NVFP4_BLOCK], sign[NVFP4_BLOCK];
    float amax;
};

static inline void load_block(struct block *block, const uint16_t *w, float unit)
{
    uint16_t largest = 0; /* BF16 magnitudes order as integers */
    for (size_t j = 0; j < NVFP4_BLOCK; j++) {
        uint16_t magnitude = w[j] & 0x7fff;
        largest = magnitude > largest ? magnitude : largest;
        block->m[j] = fminf(bf16_to_f32(magnitude) * unit, HESSIAN_MOST);
        block->sign[j] = w[j] & 0x8000 ? -1.0f : 1.0f;
    }
    block->amax =
        bf16_not_finite(largest) ? INFINITY : fminf(bf16_to_f32(largest) * unit, HESSIAN_MOST);
}

static inline float sum_of(float *x)
{
    for (size_t half = NVFP4_BLOCK / 2; half; half /= 2)
        for (size_t i = 0; i < half; i++)
            x[i] += x[i + half];
    return x[0];
}

/* What errors cost at least. */
static inline float least_cost(const float *e, const struct block_moments *moments)
{
    float cost[NVFP4_BLOCK];
    for (size_t j = 0; j < NVFP4_BLOCK; j++)
        cost[j] = moments->least[j] * (e[j] * e[j]);
    return sum_of(cost);
}

static inline float code_error(const struct block *block, const struct block_moments *moments,
                               float s, float enough)
{
    float e[NVFP4_BLOCK], sum[4][NVFP4_BLOCK] = {0}, total[NVFP4_BLOCK], inverse = 1 / s;
    for (size_t j = 0; j < NVFP4_BLOCK; j++) {
        float y = block->m[j] * inverse;
        y = y < E2M1_MAX ? y : E2M1_MAX;
        float round = (y < 2 ? 1.0f : y < 4 ? 2.0f : 4.0f) * HESSIAN_ROUND;
        e[j] = block->m[j] - ((y + round) - round) * s;
        e[j] *= block->sign[j];
    }
    if (least_cost(e, moments) > enough)
        return INFINITY;
    for (size_t j = 0; j < NVFP4_BLOCK; j++)
        for (size_t i = 0; i < NVFP4_BLOCK; i++)
            sum[j % 4][i] += moments->h[j][i] * e[j];
    for (size_t i = 0; i < NVFP4_BLOCK; i++)
        total[i] = ((sum[0][i] + sum[1][i]) + (sum[2][i] + sum[3][i])) * e[i];
    return sum_of(total);
}

static inline float zeros_cost(const struct block *block, const struct block_moments *moments,
                               float s)
{
    float e[NVFP4_BLOCK];
    for (size_t j = 0; j < NVFP4_BLOCK; j++)
        e[j] = block->m[j] <= s / 4 ? block->m[j] : 0;
    return least_cost(e, moments);
}

static inline float clipping_cost(const struct block *block, const struct block_moments *moments,
                                  float s)
{
    float e[NVFP4_BLOCK];
    for (size_t j = 0; j < NVFP4_BLOCK; j++) {
        float clipped = block->m[j] - E2M1_MAX * s;
        e[j] = clipped > 0 ? clipped : 0;
    }
    return least_cost(e, moments);
}

#include "tensor/hessian_loop.h"

void nvfp4_scales_hessian_row(uint8_t *scale, const uint16_t *w, size_t cols, float scale_2,
                              const struct block_moments *moments)
{
    search_row(scale, w, cols, scale_2, moments);
}
