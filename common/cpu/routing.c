/* The CPU as a device: which experts tokens go to. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "cpu/exp.h"
#include "cpu/piece.h"

struct score_args {
    struct mat logits;
    enum scoring how;
};

PIECE(score_piece)
{
    const struct score_args o = *(const struct score_args *)args;
    for (uint64_t i = first; i < last; i++) {
        float *x = f32_row(o.logits, i);
        if (o.how == SCORING_SOFTMAX)
            softmax(x, o.logits.cols);
        for (uint64_t j = 0; j < o.logits.cols && o.how != SCORING_SOFTMAX; j++)
            x[j] = o.how == SCORING_SIGMOID ? sigmoid(x[j])
                                            : sqrtf(x[j] > 20 ? x[j] : log1pf(exp_f32(x[j])));
    }
}

static void score(struct device *d, struct mat logits, enum scoring how)
{
    cpu_each_row(d, logits.rows, logits.cols, score_piece, &(struct score_args){logits, how});
}

void cpu_largest(const float *x, uint64_t count, int32_t *index, uint64_t n)
{
    uint64_t found = 0;
    for (uint64_t j = 0; j < count; j++) {
        if (found == n && !(x[j] > x[index[n - 1]]))
            continue;
        uint64_t at = found < n ? found++ : n - 1;
        for (; at > 0 && x[j] > x[index[at - 1]]; at--)
            index[at] = index[at - 1];
        index[at] = (int32_t)j;
    }
}

/* How good a group is: the sum of its two best, or its best one. */
static float group_score(const float *x, uint64_t count, bool two)
{
    float best = -INFINITY, second = -INFINITY;
    for (uint64_t j = 0; j < count; j++) {
        second = fmaxf(second, fminf(x[j], best));
        best = fmaxf(best, x[j]);
    }
    return two ? best + second : best;
}

/* Working memory for the groups of a row. */
struct group_room {
    float *score;
    int32_t *best;
};

/* Set the scores of all but the best groups to -infinity. */
static void keep_groups(float *x, uint64_t count, struct expert_groups groups, bool two,
                        const struct group_room *room)
{
    uint64_t size = count / groups.count;
    for (uint64_t g = 0; g < groups.count; g++)
        room->score[g] = group_score(x + g * size, size, two);
    cpu_largest(room->score, groups.count, room->best, groups.used);
    for (uint64_t k = 0; k < groups.used; k++)
        room->score[room->best[k]] = INFINITY;
    for (uint64_t j = 0; j < groups.count * size; j++)
        if (room->score[j / size] < INFINITY)
            x[j] = -INFINITY;
}

struct route_topk_args {
    struct mat experts, scores, bias;
    struct expert_groups groups;
};

static void route_topk_piece(const void *args, uint64_t first, uint64_t last)
{
    const struct route_topk_args o = *(const struct route_topk_args *)args;
    float *biased = xalloc((size_t)o.scores.cols, sizeof *biased);
    struct group_room room = {xalloc((size_t)o.groups.count, sizeof(float)),
                              xalloc((size_t)o.groups.count, sizeof(int32_t))};
    for (uint64_t i = first; i < last; i++) {
        for (uint64_t j = 0; j < o.scores.cols; j++)
            biased[j] = f32_row(o.scores, i)[j] + (o.bias.rows ? f32_row(o.bias, 0)[j] : 0);
        if (o.groups.count > 1)
            keep_groups(biased, o.scores.cols, o.groups, o.bias.rows > 0, &room);
        cpu_largest(biased, o.scores.cols, i32_row(o.experts, i), o.experts.cols);
    }
    free(biased);
    free(room.score);
    free(room.best);
}

static void route_topk(struct device *d, struct mat experts, struct mat scores, struct mat bias,
                       struct expert_groups groups)
{
    cpu_each_row(d, scores.rows, scores.cols, route_topk_piece,
                 &(struct route_topk_args){experts, scores, bias, groups});
}

struct route_weights_args {
    struct mat weight, scores, experts;
    bool normalize;
    float scale;
};

static void route_weights_piece(const void *args, uint64_t first, uint64_t last)
{
    const struct route_weights_args o = *(const struct route_weights_args *)args;
    for (uint64_t i = first; i < last; i++) {
        float *w = f32_row(o.weight, i), sum = 0;
        for (uint64_t j = 0; j < o.weight.cols; j++)
            sum += w[j] = f32_row(o.scores, i)[i32_row(o.experts, i)[j]];
        for (uint64_t j = 0; j < o.weight.cols; j++)
            w[j] = (o.normalize ? w[j] / sum : w[j]) * o.scale;
    }
}

static void route_weights(struct device *d, struct mat weight, struct mat scores,
                          struct mat experts, bool normalize, float scale)
{
    cpu_each_row(d, weight.rows, weight.cols, route_weights_piece,
                 &(struct route_weights_args){weight, scores, experts, normalize, scale});
}

static void sort_by_expert(struct device *d, struct mat token, struct mat sorted,
                           struct mat experts, struct mat weight, uint64_t *number, uint64_t count)
{
    uint64_t used = experts.cols, all = experts.rows * used, at = 0;
    const int32_t *expert = experts.at;
    uint64_t *next = xalloc((size_t)count, sizeof *next);
    (void)d;
    memset(number, 0, (size_t)count * sizeof *number);
    for (uint64_t i = 0; i < all; i++)
        number[expert[i]]++;
    for (uint64_t e = 0; e < count; at += number[e++])
        next[e] = at;
    for (uint64_t i = 0; i < all; i++) {
        uint64_t to = next[expert[i]]++;
        *i32_row(token, to) = (int32_t)(i / used);
        *f32_row(sorted, to) = ((const float *)weight.at)[i];
    }
    free(next);
}

void cpu_routing(struct device *d)
{
    d->score = score;
    d->route_topk = route_topk;
    d->route_weights = route_weights;
    d->sort_by_expert = sort_by_expert;
}
