#include "verify/checks.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "engines/formats.h"
#include "model/complete.h"
#include "model/shapes.h"
#include "tensor/mxfp4.h"
#include "tensor/nvfp4.h"

/* The routed experts of the layers, or those of MTP layers. */
struct experts {
    uint32_t tensors;     /* the most that those of one layer have */
    uint32_t count;       /* in each layer that has any */
    size_t nvfp4, others; /* matrices in that format, and in any other */
    char first_nvfp4[TENSOR_NAME_MAX + 1], first_other[TENSOR_NAME_MAX + 1];
};

struct search {
    const struct folder *folder;
    struct facts *facts;
    struct nvfp4s *nvfp4s;
    size_t capacity;
    struct experts layers, mtp;
    uint64_t rows[GROUP_MAX], cols[GROUP_MAX]; /* of the current layer's experts, by matrix */
};

static struct experts *experts_at(struct search *search, const struct place *place)
{
    return place->section == SECTION_MTP ? &search->mtp : &search->layers;
}

/* The tensor module + suffix, or NULL. */
static const struct tensor *find(const struct search *search, const char *module,
                                 const char *suffix)
{
    char *name = xprintf("%s%s", module, suffix);
    int64_t line = toc_find(search->folder->toc, name);
    free(name);
    return line < 0 ? NULL : &search->folder->toc->tensor[line];
}

static uint32_t line_of(const struct search *search, const struct tensor *tensor)
{
    return (uint32_t)(tensor - search->folder->toc->tensor);
}

/* True if the tensor has this form (rank 2, or 0 for a scalar); otherwise that is the fact. */
static bool has_form(struct search *search, enum fact fact, const struct tensor *tensor,
                     enum dtype dtype, unsigned rank, uint64_t rows, uint64_t cols)
{
    struct tensor wanted = {.dtype = (uint8_t)dtype, .rank = (uint8_t)rank, .dim = {rows, cols}};
    char is[TENSOR_SHAPE_TEXT], should[TENSOR_SHAPE_TEXT];
    bool same = tensor_same_form(tensor, &wanted);
    if (!same)
        facts_add(search->facts, fact, "%s: is %s %s, not %s %s", tensor->name,
                  dtype_name(tensor->dtype), tensor_shape(tensor, is), dtype_name(dtype),
                  tensor_shape(&wanted, should));
    return same;
}

/* ---- NVFP4 ---- */

/* A second-level or input scale: NULL if it is missing or cannot be read. */
static const struct tensor *scalar(struct search *search, const char *module, const char *suffix,
                                   enum fact missing)
{
    const struct tensor *tensor = find(search, module, suffix);
    if (!tensor) {
        facts_add(search->facts, missing, "%s%s: is missing", module, suffix);
        return NULL;
    }
    bool one = tensor->dtype == DTYPE_F32 && tensor->size == sizeof(float);
    enum fact fact = one ? FACT_SCALAR_SHAPE : FACT_SCALAR_FORM;
    return has_form(search, fact, tensor, DTYPE_F32, 0, 0, 0) || one ? tensor : NULL;
}

/* The weight's form; a routed expert's must be that of its layer's first. */
static bool weight_form(struct search *search, const struct tensor *weight,
                        const struct place *place)
{
    char shape[TENSOR_SHAPE_TEXT];
    uint64_t rows = weight->dim[0], cols = weight->dim[1];
    bool fits = weight->rank == 2 && weight->dtype == DTYPE_U8 && 2 * cols % NVFP4_BLOCK == 0;
    if (!fits)
        facts_add(search->facts, FACT_WEIGHT_FORM,
                  "%s: is %s %s, not U8 of 2 dimensions and whole blocks of %d", weight->name,
                  dtype_name(weight->dtype), tensor_shape(weight, shape), NVFP4_BLOCK);
    if (!fits || !place_is_routed(place) || place->matrix >= GROUP_MAX)
        return fits;
    uint64_t *first_rows = &search->rows[place->matrix], *first_cols = &search->cols[place->matrix];
    if (!*first_rows) {
        *first_rows = rows;
        *first_cols = cols;
    }
    return has_form(search, FACT_WEIGHT_FORM, weight, DTYPE_U8, 2, *first_rows, *first_cols);
}

static void add_nvfp4(struct search *search, const struct nvfp4 *found)
{
    struct nvfp4s *all = search->nvfp4s;
    if (all->count == search->capacity) {
        search->capacity = search->capacity ? 2 * search->capacity : 256;
        all->of = xgrow(all->of, search->capacity, sizeof *all->of);
    }
    all->of[all->count++] = *found;
}

static void check_nvfp4(struct search *search, const char *module, const struct place *place,
                        const struct tensor *weight)
{
    const struct tensor *scale = find(search, module, ".weight_scale");
    const struct tensor *left = find(search, module, ".scale");
    const struct tensor *scale_2 = scalar(search, module, ".weight_scale_2", FACT_WEIGHT_SCALE_2);
    const struct tensor *input = scalar(search, module, ".input_scale", FACT_INPUT_SCALE);
    if (left)
        facts_add(search->facts, FACT_LEFT_OVER, "%s: is of MXFP4, but the matrix is NVFP4",
                  left->name);
    if (!scale) {
        facts_add(search->facts, FACT_WEIGHT_SCALE, "%s.weight_scale: is missing", module);
        facts_add_set(search->facts, place_is_routed(place) ? 0 : FACT(UNLOADED));
    }
    if (!weight) {
        facts_add(search->facts, FACT_WEIGHT, "%s.weight: is missing", module);
        return;
    }
    bool fits = weight_form(search, weight, place) && scale &&
                has_form(search, FACT_SCALE_FORM, scale, DTYPE_F8_E4M3, 2, weight->dim[0],
                         2 * weight->dim[1] / NVFP4_BLOCK);
    if (!fits || !scale_2 || !input)
        return;
    struct nvfp4 found = {.weight = {.format = FORMAT_NVFP4,
                                     .line = line_of(search, weight),
                                     .scale = line_of(search, scale),
                                     .scale_2 = line_of(search, scale_2),
                                     .input_scale = line_of(search, input),
                                     .rows = weight->dim[0],
                                     .cols = 2 * weight->dim[1],
                                     .place = *place}};
    add_nvfp4(search, &found);
}

/* ---- other formats ---- */

/* The scale of an FP8 or MXFP4 matrix, which the engines do not miss either. */
static void check_other(struct search *search, const char *module, const struct tensor *weight)
{
    enum format format = format_of(weight);
    const struct tensor *scale = find(search, module, ".scale");
    if (format == FORMAT_MXFP4 && scale)
        has_form(search, FACT_OTHER_SCALE, scale, DTYPE_F8_E8M0, 2, weight->dim[0],
                 2 * weight->dim[1] / MXFP4_BLOCK);
    const struct tensor *one = format == FORMAT_FP8 ? find(search, module, ".weight_scale") : NULL;
    if (one) {
        has_form(search, FACT_SCALAR_FORM, one, DTYPE_F32, 0, 0, 0);
        scalar(search, module, ".input_scale", FACT_INPUT_SCALE);
    }
    bool fp8 = one || (format == FORMAT_FP8 && find(search, module, ".weight_scale_inv"));
    if (!scale && !fp8 && format != FORMAT_PLAIN)
        facts_add(search->facts, FACT_OTHER_SCALE, "%s: %s without its scale, %s.scale",
                  weight->name, format_name(format), module);
}

/* ---- experts ---- */

static void count_expert(struct search *search, const char *module, const struct place *place,
                         enum format format)
{
    struct experts *experts = experts_at(search, place);
    bool nvfp4 = format == FORMAT_NVFP4;
    char *first = nvfp4 ? experts->first_nvfp4 : experts->first_other;
    size_t *count = nvfp4 ? &experts->nvfp4 : &experts->others;
    if (!(*count)++)
        strcpy(first, module);
}

/* One matrix of an expert, of which at least one matrix is there. */
static void check_expert_matrix(struct search *search, const char *module,
                                const struct place *place)
{
    const struct tensor *weight = find(search, module, ".weight");
    const struct tensor *scale = find(search, module, ".weight_scale");
    bool nvfp4 = (weight && weight->dtype == DTYPE_U8) || find(search, module, ".weight_scale_2") ||
                 find(search, module, ".input_scale") || (scale && scale->dtype == DTYPE_F8_E4M3);
    enum format format = nvfp4 ? FORMAT_NVFP4 : weight ? format_of(weight) : FORMAT_COUNT;
    if (format == FORMAT_COUNT) {
        facts_add(search->facts, FACT_WEIGHT, "%s.weight: is missing, or no matrix", module);
        return;
    }
    count_expert(search, module, place, format);
    if (nvfp4)
        check_nvfp4(search, module, place, weight);
    else
        check_other(search, module, weight);
}

static bool is_there(const struct search *search, struct place place)
{
    char module[TENSOR_NAME_MAX + 1];
    for (place.matrix = 0; model_module(search->folder->model, &place, module); place.matrix++)
        for (size_t i = 0; i < WEIGHT_SUFFIXES; i++)
            if (find(search, module, weight_suffix[i]))
                return true;
    return false;
}

/* All experts of the layer at `place`, which is one of its experts. */
static void check_layer(struct search *search, struct place place)
{
    const struct model *model = search->folder->model;
    char module[TENSOR_NAME_MAX + 1];
    uint32_t count = experts_at(search, &place)->count;
    memset(search->rows, 0, sizeof search->rows);
    for (place.expert = 0; place.expert < count; place.expert++) {
        place.matrix = 0;
        if (!is_there(search, place)) {
            facts_add(search->facts, FACT_EXPERT, "%s: is missing",
                      model_expert_path(model, &place, module));
            continue;
        }
        for (; model_module(model, &place, module); place.matrix++) {
            struct place whole = model_place(model, module);
            check_expert_matrix(search, module, &whole);
        }
    }
}

/* ---- all tensors ---- */

static bool same_layer(const struct place *a, const struct place *b)
{
    return a->section == b->section && a->layer == b->layer;
}

/* The most tensors that the routed experts of one layer have: no layer has more experts. */
static void count_tensors(struct search *search)
{
    const struct toc *toc = search->folder->toc;
    struct place last = {.section = SECTION_UNKNOWN};
    uint32_t count = 0;
    for (size_t i = 0; i < toc->count; i++) {
        struct place place = model_place(search->folder->model, toc->tensor[i].name);
        struct experts *experts = experts_at(search, &place);
        if (!place_is_routed(&place))
            continue;
        count = same_layer(&place, &last) ? count + 1 : 1;
        last = place;
        if (count > experts->tensors)
            experts->tensors = count;
    }
}

/* How many experts a layer has: one more than the largest number, unless that cannot be. */
static void count_experts(struct search *search)
{
    const struct toc *toc = search->folder->toc;
    for (size_t i = 0; i < toc->count; i++) {
        struct place place = model_place(search->folder->model, toc->tensor[i].name);
        struct experts *experts = experts_at(search, &place);
        if (!place_is_routed(&place))
            continue;
        if (place.expert >= experts->tensors)
            facts_add(search->facts, FACT_EXPERT,
                      "%s: its number is larger than that of the layer's tensors",
                      toc->tensor[i].name);
        else if (place.expert >= experts->count)
            experts->count = place.expert + 1;
    }
}

static void check_each(struct search *search)
{
    const struct toc *toc = search->folder->toc;
    struct place last = {.section = SECTION_UNKNOWN};
    for (size_t i = 0; i < toc->count; i++) {
        const struct tensor *tensor = &toc->tensor[i];
        char module[TENSOR_NAME_MAX + 1];
        struct place place = model_place(search->folder->model, tensor->name);
        enum format format = format_of(tensor);
        if (place_is_routed(&place)) {
            if (!same_layer(&place, &last))
                check_layer(search, place);
            last = place;
        } else if (format == FORMAT_NVFP4) {
            check_nvfp4(search, weight_module(tensor, module), &place, tensor);
        } else if (format == FORMAT_FP8 || format == FORMAT_MXFP4) {
            check_other(search, weight_module(tensor, module), tensor);
        }
    }
}

/* Of each layer one expert, another one in each; all matrices that are none of experts. */
static void choose_sample(struct nvfp4s *all)
{
    for (size_t i = 0, end; i < all->count; i = end) {
        const struct place *first = &all->of[i].weight.place;
        for (end = i + 1; end < all->count; end++) {
            const struct place *place = &all->of[end].weight.place;
            if (!same_layer(place, first) || place_is_routed(place) != place_is_routed(first))
                break;
        }
        uint32_t expert = all->of[i + 3 * (size_t)first->layer % (end - i)].weight.place.expert;
        for (size_t j = i; j < end; j++)
            all->of[j].sampled = all->of[j].weight.place.expert == expert;
    }
}

static void conclude(struct search *search)
{
    struct facts *facts = search->facts;
    const struct experts *both[] = {&search->layers, &search->mtp};
    for (size_t i = 0; i < 2; i++)
        if (both[i]->nvfp4 && both[i]->others)
            facts_add(facts, FACT_MIXED, "%s is NVFP4, %s is not; engines take one format for all",
                      both[i]->first_nvfp4, both[i]->first_other);
    uint64_t there =
        formats_found(search->folder->model, search->folder->toc, search->folder->config);
    facts_add_set(facts, there & ~FACT(NO_NVFP4)); /* which has a text */
    if (there & FACT(NO_NVFP4))
        facts_add(facts, FACT_NO_NVFP4, "no matrix is NVFP4; is this the result of a conversion?");
    if (facts_found(facts) & (FACT(EXPERT) | FACT(WEIGHT) | FACT(INDEX)))
        return;
    char *lacks = model_incomplete(search->folder->model, search->folder->toc);
    if (lacks)
        facts_add(facts, FACT_INCOMPLETE, "the checkpoint %s", lacks);
    char *misshapen = lacks ? NULL : model_misshapen(search->folder->model, search->folder->toc);
    if (misshapen)
        facts_add(facts, FACT_CONFIG, "the checkpoint %s", misshapen);
    free(misshapen);
    free(lacks);
}

void check_tensors(const struct folder *folder, struct nvfp4s *nvfp4s, struct facts *facts)
{
    struct search search = {.folder = folder, .facts = facts, .nvfp4s = nvfp4s};
    *nvfp4s = (struct nvfp4s){0};
    count_tensors(&search);
    count_experts(&search);
    check_each(&search);
    choose_sample(nvfp4s);
    conclude(&search);
}

void nvfp4s_free(struct nvfp4s *nvfp4s)
{
    free(nvfp4s->of);
    *nvfp4s = (struct nvfp4s){0};
}
