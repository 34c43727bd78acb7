/* The CPU as a device: attention. Each token is computed separately: its queries are the rows of
 * products, and its keys are gathered. So its result depends on nothing else. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "cpu/cpu.h"
#include "cpu/exp.h"

/* Products take this many keys at a time, padded with zeros, which keeps the number of shapes
 * small. */
enum { RUN = 64 };

/* Tokens that are worth another thread. */
enum { TOKENS = 4 };

static uint64_t runs_of(uint64_t keys)
{
    return (keys + RUN - 1) / RUN;
}

/* How many blocks of its sample a token can see: those that end at or before it. */
static uint64_t blocks_before(const struct keys *keys, uint64_t token)
{
    return keys->ratio ? ((uint64_t)*i32_row(keys->position, token) + 1) / keys->ratio : 0;
}

static uint64_t most_blocks(const struct keys *keys)
{
    uint64_t most = 0;
    for (uint64_t i = 0; i < keys->position.rows; i++) {
        uint64_t blocks = blocks_before(keys, i);
        most = blocks > most ? blocks : most;
    }
    return most;
}

static size_t element_size(enum gemm_type type)
{
    return type == GEMM_BF16 ? sizeof(uint16_t) : sizeof(float);
}

/* ---- compression ---- */

/* One token of a block: where its channels begin. */
struct pooled {
    const float *kv, *score, *ape;
};

/* The tokens of block b, after those of the previous block. */
static uint64_t pooled_tokens(struct pooled *token, struct mat kv, struct mat score, struct mat ape,
                              uint64_t row, bool overlap, bool has_before)
{
    uint64_t ratio = ape.rows, own = overlap ? kv.cols / 2 : 0, count = 0;
    for (uint64_t i = 0; i < ratio && overlap && has_before; i++)
        token[count++] = (struct pooled){f32_row(kv, row - ratio + i),
                                         f32_row(score, row - ratio + i), f32_row(ape, i)};
    for (uint64_t i = 0; i < ratio; i++)
        token[count++] = (struct pooled){f32_row(kv, row + i) + own, f32_row(score, row + i) + own,
                                         f32_row(ape, i) + own};
    return count;
}

/* Channels at a time. */
enum { CHANNELS = 64 };

INLINE float pool_logit(const struct pooled *token, uint64_t j)
{
    return token->score[j] + token->ape[j];
}

/* Up to CHANNELS channels from `first` on; sums as in rows.c. */
VECTORS(void, pool_channels,
        (uint16_t * y, const struct pooled *token, uint64_t tokens, uint64_t first, uint64_t count),
        (y, token, tokens, first, count))
{
    float most[CHANNELS];
    double sum[CHANNELS] = {0}, pooled[CHANNELS] = {0};
    for (uint64_t j = 0; j < count; j++)
        most[j] = -INFINITY;
    for (uint64_t i = 0; i < tokens; i++)
        for (uint64_t j = 0; j < count; j++) {
            float logit = pool_logit(&token[i], first + j);
            most[j] = logit > most[j] ? logit : most[j];
        }
    for (uint64_t i = 0; i < tokens; i++)
        for (uint64_t j = 0; j < count; j++)
            sum[j] += (double)exp_f32(pool_logit(&token[i], first + j) - most[j]);
    for (uint64_t i = 0; i < tokens; i++)
        for (uint64_t j = 0; j < count; j++) {
            float power = exp_f32(pool_logit(&token[i], first + j) - most[j]);
            pooled[j] += (double)(token[i].kv[first + j] * (power / (float)sum[j]));
        }
    for (uint64_t j = 0; j < count; j++)
        y[j] = bf16_from_f32((float)pooled[j]);
}

struct pool_args {
    struct mat y, kv, score, ape, first, number;
};

/* Blocks first … last - 1. */
static void pool_piece(void *args, unsigned thread, uint64_t first, uint64_t last)
{
    const struct pool_args o = *(const struct pool_args *)args;
    struct pooled *token = xalloc(2 * (size_t)o.ape.rows, sizeof *token);
    (void)thread;
    for (uint64_t b = first; b < last; b++) {
        uint64_t count = pooled_tokens(token, o.kv, o.score, o.ape, (uint64_t)*i32_row(o.first, b),
                                       o.kv.cols == 2 * o.y.cols, *i32_row(o.number, b) > 0);
        for (uint64_t j = 0; j < o.y.cols; j += CHANNELS)
            pool_channels(bf16_row(o.y, b) + j, token, count, j, at_most(o.y.cols - j, CHANNELS));
    }
    free(token);
}

static void pool(struct device *d, struct mat y, struct mat kv, struct mat score, struct mat ape,
                 struct mat first, struct mat number)
{
    parallel_for(cpu_of(d)->threads, y.rows, cpu_grain(y.cols * ape.rows), pool_piece,
                 &(struct pool_args){y, kv, score, ape, first, number});
}

/* ---- the indexer ---- */

/* Scores of one run of blocks, from `first` on, from the products of all heads with their keys. */
VECTORS(void, score_run,
        (float *score, const float *product, const struct keys *keys, uint64_t first,
         struct mat weight, uint64_t token, uint64_t count),
        (score, product, keys, first, weight, token, count))
{
    bool exact = weight.dtype == DTYPE_F32; /* with scales */
    float sum[RUN] = {0};
    for (uint64_t h = 0; h < weight.cols; h++, product += RUN) {
        float factor = exact ? f32_row(weight, token)[h] : bf16_to_f32(bf16_row(weight, token)[h]);
        for (uint64_t j = 0; j < RUN && exact; j++)
            sum[j] += (product[j] > 0 ? product[j] : 0) * factor;
        for (uint64_t j = 0; j < RUN && !exact; j++) {
            float value = to_bf16(product[j]);
            sum[j] += to_bf16((value > 0 ? value : 0) * factor);
        }
    }
    for (uint64_t j = 0; j < count; j++)
        score[j] = exact ? sum[j] * *f32_row(keys->scale, first + j) : to_bf16(sum[j]);
}

struct ranked {
    float score;
    int32_t block;
};

static int by_score(const void *left, const void *right)
{
    const struct ranked *a = left, *b = right;
    if (a->score != b->score)
        return a->score > b->score ? -1 : 1;
    return a->block < b->block ? -1 : 1;
}

static int by_number(const void *left, const void *right)
{
    int32_t a = *(const int32_t *)left, b = *(const int32_t *)right;
    return (a > b) - (a < b);
}

/* The numbers of the n best of count blocks, ascending, padded with -1. */
static void select_best(int32_t *selected, uint64_t n, const float *score, struct ranked *ranked,
                        uint64_t count)
{
    for (uint64_t j = 0; j < count; j++)
        ranked[j] = (struct ranked){score[j], (int32_t)j};
    if (count > n)
        qsort(ranked, (size_t)count, sizeof *ranked, by_score);
    uint64_t kept = count < n ? count : n;
    for (uint64_t j = 0; j < n; j++)
        selected[j] = j < kept ? ranked[j].block : -1;
    qsort(selected, (size_t)kept, sizeof *selected, by_number);
}

/* Every token's best blocks. */
struct selecting {
    struct cpu *cpu;
    struct mat selected, q, weight;
    const struct keys *keys;
    uint64_t most; /* blocks that any token sees */
    const struct gemm *gemm;
};

/* What a thread needs for one token. */
struct selecting_room {
    char *q, *key; /* operands */
    float *product, *score;
    struct ranked *ranked;
};

static void score_blocks(const struct selecting *s, const struct selecting_room *room,
                         unsigned thread, uint64_t token, uint64_t blocks)
{
    uint64_t width = s->q.cols / s->weight.cols, row = (uint64_t)*i32_row(s->keys->block, token);
    cpu_fill(s->cpu->type, room->q, 0, bf16_row(s->q, token), s->q.cols);
    for (uint64_t run = 0; run < blocks; run += RUN) {
        uint64_t count = blocks - run < RUN ? blocks - run : RUN;
        for (uint64_t j = 0; j < count; j++)
            cpu_fill(s->cpu->type, room->key, j * width,
                     bf16_row(s->keys->compressed, row + run + j), width);
        gemm_run(s->gemm, thread, room->q, room->key, room->product);
        score_run(room->score + run, room->product, s->keys, row + run, s->weight, token, count);
    }
}

static void select_piece(void *context, unsigned thread, uint64_t first, uint64_t last)
{
    const struct selecting *s = context;
    size_t element = element_size(s->cpu->type);
    uint64_t heads = s->weight.cols;
    struct selecting_room room = {xaligned((size_t)s->q.cols, element),
                                  xaligned((size_t)(RUN * (s->q.cols / heads)), element),
                                  xaligned((size_t)(heads * RUN), sizeof(float)),
                                  xalloc((size_t)s->most, sizeof(float)),
                                  xalloc((size_t)s->most, sizeof(struct ranked))};
    for (uint64_t i = first; i < last; i++) {
        uint64_t blocks = blocks_before(s->keys, i);
        score_blocks(s, &room, thread, i, blocks);
        select_best(i32_row(s->selected, i), s->selected.cols, room.score, room.ranked, blocks);
    }
    free(room.q);
    free(room.key);
    free(room.product);
    free(room.score);
    free(room.ranked);
}

static void select_blocks(struct device *d, struct mat selected, struct mat q,
                          const struct keys *keys, struct mat weight)
{
    struct cpu *cpu = cpu_of(d);
    uint64_t heads = weight.cols, width = q.cols / heads, most = most_blocks(keys);
    struct selecting s = {cpu, selected, q, weight, keys, most, NULL};
    s.gemm = gemm_get(cpu->gemms, cpu->type, GEMM_TRANSPOSED, heads, RUN, width);
    parallel_for(cpu->threads, q.rows, TOKENS, select_piece, &s);
}

/* ---- attention ---- */

/* The products for every number of runs of keys: q · keysᵀ and probabilities · keys. */
struct attention {
    struct cpu *cpu;
    const struct keys *keys;
    uint64_t heads, width, runs;
    const struct gemm **logits, **sums; /* by runs - 1 */
    struct mat o, q;
    const float *sink;
    float scale;
};

/* What a thread needs for one token. */
struct attention_room {
    char *q, *key, *probability; /* operands */
    float *logit, *sum;
    float *total;      /* by head */
    uint16_t *rounded; /* one head's probabilities */
};

static void attention_begin(struct attention *a, struct cpu *cpu, const struct keys *keys,
                            uint64_t heads, uint64_t width)
{
    uint64_t blocks = keys->selected.cols ? keys->selected.cols : most_blocks(keys);
    *a = (struct attention){.cpu = cpu, .keys = keys, .heads = heads, .width = width};
    a->runs = runs_of(keys->sliding + blocks);
    a->logits = xalloc((size_t)a->runs, sizeof(struct gemm *));
    a->sums = xalloc((size_t)a->runs, sizeof(struct gemm *));
    for (uint64_t i = 0; i < a->runs; i++) {
        uint64_t n = (i + 1) * RUN;
        a->logits[i] = gemm_get(cpu->gemms, cpu->type, GEMM_TRANSPOSED, heads, n, width);
        a->sums[i] = gemm_get(cpu->gemms, cpu->type, GEMM_PLAIN, heads, width, n);
    }
}

static void attention_end(struct attention *a)
{
    free(a->logits);
    free(a->sums);
}

static void room_make(struct attention_room *room, const struct attention *a)
{
    struct blocks *blocks = a->cpu->blocks;
    size_t element = element_size(a->cpu->type), n = (size_t)(a->runs * RUN);
    room->q = blocks_take(blocks, a->heads * a->width, element);
    room->key = blocks_take(blocks, n * a->width, element);
    room->probability = blocks_take(blocks, a->heads * n, element);
    room->logit = blocks_take(blocks, a->heads * n, sizeof(float));
    room->sum = blocks_take(blocks, a->heads * a->width, sizeof(float));
    room->total = xalloc((size_t)a->heads, sizeof(float));
    room->rounded = xalloc(n, sizeof(uint16_t));
}

static void room_free(struct attention_room *room, struct blocks *blocks)
{
    blocks_give(blocks, room->q);
    blocks_give(blocks, room->key);
    blocks_give(blocks, room->probability);
    blocks_give(blocks, room->logit);
    blocks_give(blocks, room->sum);
    free(room->total);
    free(room->rounded);
}

/* Gather the keys that a token sees; returns their number. */
static uint64_t gather_keys(const struct attention *a, uint64_t token, char *to)
{
    const struct keys *keys = a->keys;
    enum gemm_type type = a->cpu->type;
    uint64_t position = (uint64_t)*i32_row(keys->position, token), count = 0;
    uint64_t seen = position + 1 < keys->sliding ? position + 1 : keys->sliding;
    for (uint64_t i = token + 1 - seen; i <= token; i++)
        cpu_fill(type, to, count++ * a->width, bf16_row(keys->window, i), a->width);
    if (!keys->ratio)
        return count;
    uint64_t first = (uint64_t)*i32_row(keys->block, token), blocks = blocks_before(keys, token);
    uint64_t listed = keys->selected.cols;
    for (uint64_t i = 0; i < (listed ? listed : blocks); i++) {
        int64_t block = listed ? i32_row(keys->selected, token)[i] : (int64_t)i;
        if (block >= 0)
            cpu_fill(type, to, count++ * a->width,
                     bf16_row(keys->compressed, first + (uint64_t)block), a->width);
    }
    return count;
}

/* Partial sums of a head's probabilities: see rows.c. */
enum { LANES = 32 };

/* Add up to LANES probabilities, and round them. */
INLINE void add_probabilities(double *lane, uint16_t *rounded, const float *logit, float scale,
                              float most, uint64_t count)
{
    float p[LANES];
    for (uint64_t j = 0; j < count; j++)
        p[j] = exp_f32(logit[j] * scale - most);
    for (uint64_t j = 0; j < count; j++)
        lane[j] += (double)p[j];
    for (uint64_t j = 0; j < count; j++)
        rounded[j] = bf16_from_f32(p[j]);
}

/* The largest of count > 0 logits, scaled. */
INLINE float most_logit(const float *logit, float scale, uint64_t count)
{
    float lane[LANES], most = -INFINITY;
    for (uint64_t j = 0; j < LANES; j++)
        lane[j] = -INFINITY;
    for (uint64_t i = 0; i < count / LANES; i++)
        for (uint64_t j = 0; j < LANES; j++) {
            float value = logit[i * LANES + j] * scale;
            lane[j] = value > lane[j] ? value : lane[j];
        }
    for (uint64_t j = 0; j < LANES; j++)
        most = fmaxf(most, lane[j]);
    for (uint64_t j = count / LANES * LANES; j < count; j++)
        most = fmaxf(most, logit[j] * scale);
    return most;
}

/* exp(logit · scale - most) of one head's keys, rounded to BF16; returns their sum before rounding,
 * with the sink's. */
VECTORS(float, probabilities,
        (const float *logit, uint16_t *rounded, uint64_t count, float scale, float sink),
        (logit, rounded, count, scale, sink))
{
    double lane[LANES] = {0}, sum = 0;
    float most = most_logit(logit, scale, count);
    uint64_t i = 0;
    for (; i + LANES <= count; i += LANES)
        add_probabilities(lane, rounded + i, logit + i, scale, most, LANES);
    add_probabilities(lane, rounded + i, logit + i, scale, most, count - i);
    for (uint64_t j = 0; j < LANES; j++)
        sum += lane[j];
    return (float)(sum + (double)exp_f32(sink - most));
}

VECTORS(void, divide, (uint16_t * y, const float *sum, float total, uint64_t count),
        (y, sum, total, count))
{
    for (uint64_t j = 0; j < count; j++)
        y[j] = bf16_from_f32(sum[j] / total);
}

static void attend_token(const struct attention *a, struct attention_room *room, unsigned thread,
                         uint64_t token)
{
    enum gemm_type type = a->cpu->type;
    const uint16_t *q = bf16_row(a->q, token);
    uint16_t *o = bf16_row(a->o, token);
    uint64_t count = gather_keys(a, token, room->key), n = runs_of(count) * RUN;
    size_t element = element_size(type);
    memset(room->key + count * a->width * element, 0, (size_t)((n - count) * a->width) * element);
    cpu_fill(type, room->q, 0, q, a->heads * a->width);
    gemm_run(a->logits[n / RUN - 1], thread, room->q, room->key, room->logit);
    memset(room->rounded, 0, (size_t)n * sizeof *room->rounded);
    for (uint64_t h = 0; h < a->heads; h++) {
        room->total[h] =
            probabilities(room->logit + h * n, room->rounded, count, a->scale, a->sink[h]);
        cpu_fill(type, room->probability, h * n, room->rounded, n);
    }
    gemm_run(a->sums[n / RUN - 1], thread, room->probability, room->key, room->sum);
    for (uint64_t h = 0; h < a->heads; h++)
        divide(o + h * a->width, room->sum + h * a->width, room->total[h], a->width);
}

static void attend_piece(void *context, unsigned thread, uint64_t first, uint64_t last)
{
    const struct attention *a = context;
    struct attention_room room;
    room_make(&room, a);
    for (uint64_t i = first; i < last; i++)
        attend_token(a, &room, thread, i);
    room_free(&room, a->cpu->blocks);
}

static void attend(struct device *d, struct mat o, struct mat q, const struct keys *keys,
                   struct mat sink, float scale, const struct attended *then)
{
    struct attention a;
    attention_begin(&a, cpu_of(d), keys, sink.cols, q.cols / sink.cols);
    a.o = o;
    a.q = q;
    a.sink = f32_row(sink, 0);
    a.scale = scale;
    parallel_for(a.cpu->threads, q.rows, TOKENS, attend_piece, &a);
    attention_end(&a);
    device_attended(d, o, keys, a.width, then);
}

void cpu_attention(struct device *d)
{
    d->pool = pool;
    d->select = select_blocks;
    d->attend = attend;
}
