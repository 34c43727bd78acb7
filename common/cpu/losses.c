/* The CPU as a device: losses and the best tokens. */

#include <math.h>

#include "cpu/exp.h"
#include "cpu/piece.h"
#include "cpu/sums.h"

SUM(sum_of_powers, (const float *x, float most, uint64_t count), (double)exp_f32(x[j] - most))

/* log of the sum of exp; in double, since a vocabulary is large. */
INLINE double log_sum(const float *x, uint64_t count)
{
    float most = x[0];
    for (uint64_t j = 1; j < count; j++)
        most = fmaxf(most, x[j]);
    return (double)most + log(sum_of_powers(x, most, count));
}

struct loss_args {
    struct mat nll, logits, target;
};

PIECE(loss_piece)
{
    const struct loss_args o = *(const struct loss_args *)args;
    for (uint64_t i = first; i < last; i++) {
        const float *x = f32_row(o.logits, i);
        *f32_row(o.nll, i) = (float)(log_sum(x, o.logits.cols) - (double)x[*i32_row(o.target, i)]);
    }
}

static void loss(struct device *d, struct mat nll, struct mat logits, struct mat target)
{
    cpu_each_row(d, logits.rows, logits.cols, loss_piece, &(struct loss_args){nll, logits, target});
}

struct best_args {
    struct mat value, number, logits;
};

PIECE(best_piece)
{
    const struct best_args o = *(const struct best_args *)args;
    for (uint64_t i = first; i < last; i++) {
        const float *x = f32_row(o.logits, i);
        double sum = log_sum(x, o.logits.cols);
        cpu_largest(x, o.logits.cols, i32_row(o.number, i), o.number.cols);
        for (uint64_t j = 0; j < o.value.cols; j++)
            f32_row(o.value, i)[j] = (float)((double)x[i32_row(o.number, i)[j]] - sum);
    }
}

static void best(struct device *d, struct mat value, struct mat number, struct mat logits)
{
    cpu_each_row(d, logits.rows, logits.cols, best_piece,
                 &(struct best_args){value, number, logits});
}

void cpu_losses(struct device *d)
{
    d->loss = loss;
    d->best = best;
}
