#include "quantize/convertible.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/glob.h"
#include "tensor/nvfp4.h"

/* What the decisions are made from. */
struct table {
    struct ts_in *in;
    const struct weights *weights;
    const struct recipe *recipe;
    struct recipe_choice *choice; /* of each weight */
    bool *selected;
};

static const struct tensor *tensor_of(const struct table *table, const struct weight *w)
{
    return &ts_toc(table->in)->tensor[w->line];
}

/* A matrix's format, as people call it. */
static const char *format_text(const struct table *table, const struct weight *w)
{
    return w->format == FORMAT_PLAIN ? dtype_name(tensor_of(table, w)->dtype)
                                     : format_name(w->format);
}

static struct recipe_choice choice_of(const struct table *table, const struct weight *w)
{
    return table->choice[w - table->weights->weight];
}

/* True if the recipe gives NVFP4 to a matrix that is this stream's own. */
static bool is_named(const struct table *table, const struct weight *w)
{
    return !tensor_of(table, w)->context && !w->place.stays &&
           choice_of(table, w).format == FORMAT_NVFP4;
}

static bool becomes_nvfp4(const struct table *table, const struct weight *w)
{
    return w->format == FORMAT_NVFP4 || table->selected[w - table->weights->weight];
}

/* The command that converts such a model, whatever its experts' format. */
static const char *remedy(const struct table *table)
{
    const char *command = model_requantized_by(ts_model(table->in));
    return command ? command : "v4-experts --lossy";
}

/* ---- routed experts of one format ---- */

_Noreturn static void refuse_mixture(const struct table *table, const struct weight *a,
                                     const struct weight *b)
{
    die("%s: %s is %s, but %s is %s, and engines take one format for all routed experts; "
        "nvfp4-pack makes all of them NVFP4 (%s)",
        ts_name(table->in), tensor_of(table, a)->name, format_text(table, a),
        tensor_of(table, b)->name, format_text(table, b), remedy(table));
}

/* Each is compared with the first one of its section. */
static void check_mixture(const struct table *table)
{
    const struct weight *first[SECTION_UNKNOWN + 1] = {0};
    for (size_t i = 0; i < table->weights->count; i++) {
        const struct weight *w = &table->weights->weight[i];
        if (!place_is_routed(&w->place) || !is_named(table, w))
            continue;
        if (!first[w->place.section])
            first[w->place.section] = w;
        if (becomes_nvfp4(table, first[w->place.section]) != becomes_nvfp4(table, w))
            refuse_mixture(table, first[w->place.section], w);
    }
}

/* ---- nothing to convert ---- */

/* True if the pattern matches a module's name less some of its first components. */
static bool matches_end(const char *pattern, const char *module)
{
    for (; module; module = strchr(module, '.'), module = module ? module + 1 : NULL)
        if (glob_matches(pattern, module))
            return true;
    return false;
}

/* The matrix whose name best shows how names differ from what the recipe expects: one that has a
 * prefix too many, or one that the family does not know, or any. */
static const struct weight *example_of(const struct weights *weights, const char *pattern)
{
    for (size_t i = 0; i < weights->count; i++)
        if (matches_end(pattern, weights->weight[i].module))
            return &weights->weight[i];
    for (size_t i = 0; i < weights->count; i++)
        if (weights->weight[i].place.section == SECTION_UNKNOWN)
            return &weights->weight[i];
    return weights->weight;
}

void convertible_refuse_names(struct ts_in *in, const struct weights *weights,
                              const struct recipe *recipe)
{
    const char *pattern = recipe_pattern(recipe, FORMAT_NVFP4);
    if (!pattern)
        die("%s: nothing to convert: the recipe '%s' makes nothing NVFP4", ts_name(in),
            recipe_name(recipe));
    if (!weights->count)
        die("%s: nothing to convert: no matrix is in it", ts_name(in));
    die("%s: nothing to convert: the recipe '%s' expects names like %s, but here they are like "
        "%s; convert a checkpoint that has the release's own names",
        ts_name(in), recipe_name(recipe), pattern, example_of(weights, pattern)->module);
}

_Noreturn static void refuse_format(const struct table *table, const struct weight *w)
{
    const char *name = tensor_of(table, w)->name;
    if (w->format == FORMAT_NVFP4)
        die("%s: nothing to convert: %s is NVFP4 already, so nothing is left to do (nvfp4-unpack "
            "first, to quantize it again)",
            ts_name(table->in), name);
    die("%s: nothing to convert: %s is %s, not MXFP4; nvfp4-pack quantizes it to NVFP4 (%s)",
        ts_name(table->in), name, format_text(table, w), remedy(table));
}

static void check_something(const struct table *table)
{
    const struct weight *named = NULL;
    for (size_t i = table->weights->count; i-- > 0;) {
        const struct weight *w = &table->weights->weight[i];
        if (table->selected[i])
            return;
        if (is_named(table, w))
            named = w;
    }
    if (!ts_is_whole(table->in))
        return;
    if (!named)
        convertible_refuse_names(table->in, table->weights, table->recipe);
    refuse_format(table, named);
}

/* ---- formats that a recipe wants, and these stages do not make ---- */

static void check_format(const struct table *table, const struct weight *w, const bool *convertible)
{
    const char *name = tensor_of(table, w)->name, *recipe = recipe_name(table->recipe);
    struct recipe_choice choice = choice_of(table, w);
    enum format wanted = choice.format;
    bool packs = convertible[FORMAT_PLAIN], per_tensor = choice.per_tensor;
    if (tensor_of(table, w)->context || wanted == FORMAT_COUNT ||
        (w->format == wanted && w->per_tensor >= per_tensor))
        return;
    if (per_tensor && packs)
        die("%s: %s is %s, but the recipe '%s' wants FP8 with one scale; put fp8-pack --recipe "
            "before",
            ts_name(table->in), name, format_text(table, w), recipe);
    if (per_tensor)
        return;
    if (wanted == FORMAT_FP8 || wanted == FORMAT_MXFP4)
        die("%s: %s is %s, but the recipe '%s' wants %s, which no program makes; take 'keep'",
            ts_name(table->in), name, format_text(table, w), recipe, format_name(wanted));
    if (wanted == FORMAT_PLAIN && packs)
        die("%s: %s is %s, but the recipe '%s' wants BF16; put %s --recipe before",
            ts_name(table->in), name, format_name(w->format), recipe,
            w->format == FORMAT_FP8     ? "fp8-dequant"
            : w->format == FORMAT_MXFP4 ? "mxfp4-unpack"
                                        : "nvfp4-unpack");
    if (wanted != FORMAT_NVFP4 || !choice.cast)
        return;
    if (w->format != FORMAT_MXFP4)
        die("%s: %s is %s, but the recipe '%s' casts it (NVFP4-cast), which needs MXFP4; let it "
            "say NVFP4",
            ts_name(table->in), name, format_text(table, w), recipe);
    if (packs)
        die("%s: %s is MXFP4, and the recipe '%s' keeps its codes (NVFP4-cast); put nvfp4-cast "
            "--recipe before",
            ts_name(table->in), name, recipe);
}

/* A matrix of the model whose weight is none, by dtype or shape, would pass through as it is.
 * Vectors are norms. */
static void check_matrices(const struct table *table)
{
    const struct toc *toc = ts_toc(table->in);
    for (size_t i = 0; i < toc->count; i++) {
        const struct tensor *tensor = &toc->tensor[i];
        struct place place = model_place(ts_model(table->in), tensor->name);
        char shape[TENSOR_SHAPE_TEXT];
        if (tensor->context || weight_of(table->weights, i) || place.stays ||
            place.section == SECTION_UNKNOWN || !tensor_has_suffix(tensor, ".weight") ||
            (tensor->rank == 1 && !place_is_routed(&place)))
            continue;
        die("%s: %s is %s %s, which is no matrix in any format known here; the file is damaged, "
            "or was made by another tool",
            ts_name(table->in), tensor->name, dtype_name(tensor->dtype),
            tensor_shape(tensor, shape));
    }
}

bool *convertible_select(struct ts_in *in, const struct weights *weights,
                         const struct recipe *recipe, const bool *convertible)
{
    struct table table = {.in = in,
                          .weights = weights,
                          .recipe = recipe,
                          .choice = xalloc(weights->count, sizeof *table.choice),
                          .selected = xalloc(weights->count, sizeof *table.selected)};
    recipe_check(recipe, ts_model(in), ts_toc(in), ts_is_whole(in), ts_name(in));
    for (size_t i = 0; i < weights->count; i++) {
        const struct weight *w = &weights->weight[i];
        table.choice[i] = recipe_choice(recipe, w->module);
        check_format(&table, w, convertible);
        table.selected[i] = convertible[w->format] && is_named(&table, w);
        if (table.selected[i] && w->cols % NVFP4_BLOCK)
            die("%s: %s: %" PRIu64 " columns, which is not a multiple of NVFP4's block of %d",
                ts_name(in), tensor_of(&table, w)->name, w->cols, NVFP4_BLOCK);
    }
    check_matrices(&table);
    check_mixture(&table);
    check_something(&table);
    free(table.choice);
    return table.selected;
}
