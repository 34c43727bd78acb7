/* The CPU as a device: causal attention in BF16 steps. A head's queries of TILE neighbouring tokens
 * are the rows of products with the keys of all tokens up to the last of them, padded with zeros. A
 * tile begins at a multiple of TILE in its sample, so a token's result depends on its own sample
 * alone. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "cpu/cpu.h"
#include "cpu/exp.h"

enum { TILE = 64, PARTS = 2 };

/* The products with every number of tiles of keys. */
struct products {
    const struct gemm **logits[PARTS], **sums; /* by tiles - 1 */
};

/* Some tokens of a sample. */
struct tile {
    uint64_t sample; /* the row of the sample's first token */
    uint64_t number; /* of the tile in the sample */
    uint64_t rows;   /* tokens in the tile */
};

/* What a thread needs. */
struct room {
    void *q, *key[PARTS], *value, *probability; /* operands */
    float *logit[PARTS], *sum;
    uint16_t *rounded; /* probabilities of a row */
    bool *seen;        /* by key */
};

static uint64_t tile_keys(const struct tile *tile)
{
    return (tile->number + 1) * TILE;
}

/* The tiles of all samples; the caller frees them. */
static struct tile *find_tiles(const struct causal *c, size_t *count, uint64_t *most)
{
    struct tile *tile = NULL;
    *count = 0;
    *most = 0;
    for (uint64_t i = 0; i < c->position.rows; i++) {
        uint64_t position = (uint64_t)*i32_row(c->position, i);
        if (!tile || position % TILE == 0) {
            tile = xgrow(tile, *count + 1, sizeof *tile);
            tile[*count] = (struct tile){(uint64_t)*i32_row(c->first, i), position / TILE, 0};
            *most = position / TILE + 1 > *most ? position / TILE + 1 : *most;
            ++*count;
        }
        tile[*count - 1].rows++;
    }
    return tile;
}

/* ---- products ---- */

static void products_begin(struct products *p, struct cpu *cpu, const struct causal *c,
                           uint64_t most)
{
    p->sums = xalloc((size_t)most, sizeof(struct gemm *));
    for (unsigned part = 0; part < PARTS; part++)
        p->logits[part] = xalloc((size_t)most, sizeof(struct gemm *));
    for (uint64_t i = 0; i < most; i++) {
        uint64_t keys = (i + 1) * TILE;
        for (unsigned part = 0; part < PARTS; part++)
            p->logits[part][i] =
                gemm_get(cpu->gemms, cpu->type, GEMM_TRANSPOSED, TILE, keys, c->key[part].width);
        p->sums[i] = gemm_get(cpu->gemms, cpu->type, GEMM_PLAIN, TILE, c->value.width, keys);
    }
}

static void products_end(struct products *p)
{
    free(p->sums);
    for (unsigned part = 0; part < PARTS; part++)
        free(p->logits[part]);
}

static void room_make(struct room *room, const struct cpu *cpu, const struct causal *c,
                      uint64_t most)
{
    struct blocks *blocks = cpu->blocks;
    size_t element = cpu->type == GEMM_BF16 ? sizeof(uint16_t) : sizeof(float);
    size_t keys = (size_t)most * TILE, wide = (size_t)c->key[0].width;
    for (unsigned part = 0; part < PARTS; part++) {
        wide = c->key[part].width > wide ? (size_t)c->key[part].width : wide;
        room->key[part] = blocks_take(blocks, keys * c->key[part].width, element);
        room->logit[part] = blocks_take(blocks, TILE * keys, sizeof(float));
    }
    room->q = blocks_take(blocks, TILE * wide, element);
    room->value = blocks_take(blocks, keys * c->value.width, element);
    room->probability = blocks_take(blocks, TILE * keys, element);
    room->sum = blocks_take(blocks, TILE * c->value.width, sizeof(float));
    room->rounded = xalloc(keys, sizeof *room->rounded);
    room->seen = xalloc(keys, sizeof *room->seen);
}

static void room_free(struct room *room, struct blocks *blocks)
{
    for (unsigned part = 0; part < PARTS; part++) {
        blocks_give(blocks, room->key[part]);
        blocks_give(blocks, room->logit[part]);
    }
    blocks_give(blocks, room->q);
    blocks_give(blocks, room->value);
    blocks_give(blocks, room->probability);
    blocks_give(blocks, room->sum);
    free(room->rounded);
    free(room->seen);
}

/* ---- a tile ---- */

/* Every tile's attention. */
struct attending {
    struct cpu *cpu;
    const struct causal *causal;
    struct products products;
    struct tile *tile;
    uint64_t most; /* tiles of the longest sample */
    struct mat o;
};

/* A head's columns of `count` rows from `first` on as an operand of `rows` rows; zeros beyond. */
static void take(enum gemm_type type, void *to, const struct head_cols *from, uint64_t head,
                 uint64_t first, uint64_t count, uint64_t rows)
{
    size_t element = type == GEMM_BF16 ? sizeof(uint16_t) : sizeof(float);
    uint64_t width = from->width, col = from->first + head * from->step;
    for (uint64_t i = 0; i < count; i++)
        cpu_fill(type, to, i * width, bf16_row(from->of, first + i) + col, width);
    memset((char *)to + (size_t)(count * width) * element, 0,
           (size_t)((rows - count) * width) * element);
}

static void take_keys(const struct cpu *cpu, const struct causal *c, struct room *room,
                      const struct tile *tile, uint64_t head)
{
    uint64_t keys = tile_keys(tile), count = keys - TILE + tile->rows;
    for (unsigned part = 0; part < PARTS; part++)
        if (head == 0 || c->key[part].step)
            take(cpu->type, room->key[part], &c->key[part], head, tile->sample, count, keys);
    if (head == 0 || c->value.step)
        take(cpu->type, room->value, &c->value, head, tile->sample, count, keys);
}

/* Which keys the token in row `row` sees, of those up to it. */
static void look(const struct causal *c, bool *seen, uint64_t row, uint64_t count)
{
    uint64_t listed = c->selected.cols;
    for (uint64_t j = 0; j < count; j++)
        seen[j] = !listed;
    for (uint64_t i = 0; i < listed; i++) {
        int32_t j = i32_row(c->selected, row)[i];
        if (j >= 0 && (uint64_t)j < count)
            seen[j] = true;
    }
}

/* The logits of `count` keys, in place in the first part's; -infinity where a key is not seen. */
VECTORS(void, finish_logits,
        (float *logit, const float *second, const bool *seen, uint64_t count, float scale,
         bool rounds_parts),
        (logit, second, seen, count, scale, rounds_parts))
{
    for (uint64_t j = 0; j < count; j++) {
        float sum = rounds_parts ? to_bf16(logit[j]) + to_bf16(second[j]) : logit[j] + second[j];
        float rounded = to_bf16(to_bf16(sum) * scale);
        logit[j] = seen[j] ? rounded : -INFINITY;
    }
}

/* Their softmax, rounded; a token sees at least one. */
VECTORS(void, probabilities, (uint16_t * rounded, float *logit, uint64_t count),
        (rounded, logit, count))
{
    float most = -INFINITY;
    double sum = 0; /* see rows.c */
    for (uint64_t j = 0; j < count; j++)
        most = fmaxf(most, logit[j]);
    for (uint64_t j = 0; j < count; j++)
        logit[j] = exp_f32(logit[j] - most);
    for (uint64_t j = 0; j < count; j++)
        sum += (double)logit[j];
    float total = (float)sum;
    for (uint64_t j = 0; j < count; j++)
        rounded[j] = bf16_from_f32(logit[j] / total);
}

static void attend_tile(const struct attending *a, struct room *room, unsigned thread,
                        const struct tile *tile, uint64_t head)
{
    struct cpu *cpu = a->cpu;
    const struct causal *c = a->causal;
    const struct products *p = &a->products;
    struct mat o = a->o;
    uint64_t keys = tile_keys(tile), first = tile->sample + keys - TILE;
    take_keys(cpu, c, room, tile, head);
    for (unsigned part = 0; part < PARTS; part++) {
        take(cpu->type, room->q, &c->q[part], head, first, tile->rows, TILE);
        gemm_run(p->logits[part][tile->number], thread, room->q, room->key[part],
                 room->logit[part]);
    }
    for (uint64_t i = 0; i < TILE; i++) {
        uint64_t count = i < tile->rows ? keys - TILE + i + 1 : 0;
        memset(room->rounded, 0, (size_t)keys * sizeof *room->rounded);
        if (count) {
            look(c, room->seen, first + i, count);
            finish_logits(room->logit[0] + i * keys, room->logit[1] + i * keys, room->seen, count,
                          c->scale, c->rounds_parts);
            probabilities(room->rounded, room->logit[0] + i * keys, count);
        }
        cpu_fill(cpu->type, room->probability, i * keys, room->rounded, keys);
    }
    gemm_run(p->sums[tile->number], thread, room->probability, room->value, room->sum);
    uint64_t width = c->value.width;
    for (uint64_t i = 0; i < tile->rows; i++)
        for (uint64_t j = 0; j < width; j++)
            bf16_row(o, first + i)[head * width + j] = bf16_from_f32(room->sum[i * width + j]);
}

static void attend_tiles(void *context, unsigned thread, uint64_t first, uint64_t last)
{
    const struct attending *a = context;
    struct room room;
    room_make(&room, a->cpu, a->causal, a->most);
    for (uint64_t i = first; i < last; i++)
        for (uint64_t head = 0; head < a->causal->heads; head++)
            attend_tile(a, &room, thread, &a->tile[i], head);
    room_free(&room, a->cpu->blocks);
}

static void attend_causal(struct device *d, struct mat o, const struct causal *c)
{
    struct attending a = {.cpu = cpu_of(d), .causal = c, .o = o};
    size_t tiles;
    a.tile = find_tiles(c, &tiles, &a.most);
    products_begin(&a.products, a.cpu, c, a.most);
    parallel_for(a.cpu->threads, tiles, 1, attend_tiles, &a);
    products_end(&a.products);
    free(a.tile);
}

void cpu_causal(struct device *d)
{
    d->attend_causal = attend_causal;
}
