#include "verify/checks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/die.h"

/* A layer's largest input scale over its least that is worth a warning. Engines quantize the inputs
 * of all experts of a layer with the largest: an expert whose own is 64 times smaller loses 6 of
 * the about 15 binades that E4M3's block scales have. */
static const float spread_max = 64;

/* ---- second-level and input scales ---- */

/* A scalar to be read. */
struct wanted {
    uint32_t line, shard;
    uint64_t offset;
    float *to;
};

/* In the order in which they lie in the files. */
static int by_offset(const void *a, const void *b)
{
    const struct wanted *x = a, *y = b;
    if (x->shard != y->shard)
        return x->shard < y->shard ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static void read_scalars(struct folder *folder, struct nvfp4s *all)
{
    size_t count = 0;
    struct wanted *wanted = xalloc(2 * all->count, sizeof *wanted);
    for (size_t i = 0; i < all->count; i++) {
        const struct weight *w = &all->of[i].weight;
        wanted[count++] = (struct wanted){.line = w->scale_2, .to = &all->of[i].scale_2};
        wanted[count++] = (struct wanted){.line = w->input_scale, .to = &all->of[i].input_scale};
    }
    for (size_t i = 0; i < count; i++) {
        wanted[i].shard = folder->toc->tensor[wanted[i].line].shard;
        wanted[i].offset = folder->offset[wanted[i].line];
    }
    if (count)
        qsort(wanted, count, sizeof *wanted, by_offset);
    for (size_t i = 0; i < count; i++)
        folder_read(folder, wanted[i].line, 0, wanted[i].to, sizeof *wanted[i].to);
    free(wanted);
}

static void check_scalar(const struct folder *folder, uint32_t line, float value,
                         struct facts *facts)
{
    const char *name = folder->toc->tensor[line].name;
    if (!isfinite(value) || value <= 0)
        facts_add(facts, FACT_SCALAR, "%s: is %g; it must be finite and positive", name, value);
    else if (!isnormal(value))
        facts_add(facts, FACT_SUBNORMAL, "%s: is %g, subnormal; engines may take it for 0", name,
                  value);
}

/* ---- matrices that share scales ---- */

static bool same_bits(float a, float b)
{
    uint32_t x, y;
    memcpy(&x, &a, sizeof x);
    memcpy(&y, &b, sizeof y);
    return x == y;
}

/* The matrices after the i-th that are in the same group of the same expert, or part. */
static void check_group(const struct folder *folder, const struct nvfp4s *all, size_t i,
                        struct facts *facts)
{
    const struct nvfp4 *a = &all->of[i];
    const struct place *place = &a->weight.place;
    for (size_t j = i + 1; place->group && j < all->count; j++) {
        const struct nvfp4 *b = &all->of[j];
        const struct place *other = &b->weight.place;
        if (other->section != place->section || other->layer != place->layer ||
            other->part != place->part || other->expert != place->expert)
            return;
        if (other->group != place->group)
            continue;
        const struct tensor *tensor = folder->toc->tensor;
        if (!same_bits(a->scale_2, b->scale_2))
            facts_add(facts, place->use == USE_LATENT ? FACT_OWN_SCALE_2 : FACT_SHARED_SCALE_2,
                      "%s: is %g, but %s is %g", tensor[a->weight.scale_2].name, a->scale_2,
                      tensor[b->weight.scale_2].name, b->scale_2);
        if (!same_bits(a->input_scale, b->input_scale))
            facts_add(facts, FACT_SHARED_INPUT, "%s: is %g, but %s is %g",
                      tensor[a->weight.input_scale].name, a->input_scale,
                      tensor[b->weight.input_scale].name, b->input_scale);
    }
}

/* The peers of the i-th matrix, which is its layer's first of that kind. */
static void check_spread(const struct folder *folder, const struct nvfp4s *all, size_t i,
                         struct facts *facts)
{
    const struct nvfp4 *least = &all->of[i], *most = least;
    const struct place *place = &least->weight.place;
    for (size_t j = i; j < all->count && all->of[j].weight.place.layer == place->layer &&
                       all->of[j].weight.place.section == place->section;
         j++) {
        const struct nvfp4 *peer = &all->of[j];
        if (!place_are_peers(&peer->weight.place, place))
            continue;
        if (peer->input_scale < least->input_scale)
            least = peer;
        if (peer->input_scale > most->input_scale)
            most = peer;
    }
    if (least->input_scale > 0 && most->input_scale > spread_max * least->input_scale)
        facts_add(
            facts, FACT_SPREAD,
            "%s: %g, the layer's largest, is %.0f times %s; engines use it for all its experts",
            folder->toc->tensor[most->weight.input_scale].name, most->input_scale,
            most->input_scale / least->input_scale,
            folder->toc->tensor[least->weight.input_scale].name);
}

static void check_spreads(const struct folder *folder, const struct nvfp4s *all,
                          struct facts *facts)
{
    struct place last = {.section = SECTION_UNKNOWN};
    uint64_t seen = 0;
    for (size_t i = 0; i < all->count; i++) {
        const struct place *place = &all->of[i].weight.place;
        if (!place_is_routed(place) || place->matrix >= 64)
            continue;
        if (place->section != last.section || place->layer != last.layer)
            seen = 0;
        last = *place;
        if (!(seen >> place->matrix & 1))
            check_spread(folder, all, i, facts);
        seen |= UINT64_C(1) << place->matrix;
    }
}

/* ---- block scales ---- */

static void check_blocks(struct folder *folder, const struct weight *w, struct buffer *buffer,
                         struct facts *facts)
{
    const struct tensor *tensor = &folder->toc->tensor[w->scale];
    size_t size = (size_t)tensor->size, nan = 0, negative = 0, zero = 0;
    uint8_t *code = buffer_room(buffer, size);
    folder_read(folder, w->scale, 0, code, size);
    for (size_t i = 0; i < size; i++) {
        nan += (code[i] & 0x7f) == 0x7f;
        negative += code[i] >> 7;
        zero += !code[i];
    }
    if (nan) {
        facts_add(facts, FACT_NAN, "%s: %zu of %zu block scales are NaN", tensor->name, nan, size);
        facts_add_set(facts, place_is_routed(&w->place) ? 0 : FACT(UNLOADED));
    } else if (negative) {
        facts_add(facts, FACT_NEGATIVE, "%s: %zu of %zu block scales are negative", tensor->name,
                  negative, size);
    }
    if (size && zero == size)
        facts_add(facts, FACT_ZERO, "%s: all block scales are 0", tensor->name);
}

void check_values(struct folder *folder, struct nvfp4s *all, bool every, struct facts *facts)
{
    struct buffer buffer = {0};
    read_scalars(folder, all);
    for (size_t i = 0; i < all->count; i++) {
        const struct nvfp4 *matrix = &all->of[i];
        check_scalar(folder, matrix->weight.scale_2, matrix->scale_2, facts);
        check_scalar(folder, matrix->weight.input_scale, matrix->input_scale, facts);
        check_group(folder, all, i, facts);
        if (every || matrix->sampled)
            check_blocks(folder, &matrix->weight, &buffer, facts);
    }
    check_spreads(folder, all, facts);
    free(buffer.data);
}
