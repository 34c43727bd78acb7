#include "quantize/amax_fill.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "model/weights.h"
#include "quantize/convertible.h"
#include "quantize/fit.h"
#include "stream/whole.h"
#include "tensor/nvfp4.h"

/* True for peers in a draft that the calibration did not run. */
static bool is_uncalibrated_draft(const struct amax_peers *peers)
{
    return peers->place.section == SECTION_MTP && !peers->reached;
}

/* The fallback rule's amax for an expert with these peers; 0 if there is none. A draft that was not
 * calibrated takes the trunk's last layer for its own. */
static double fallback_amax(const struct amax_table *table, const struct amax_rules *rules,
                            const struct amax_peers *of)
{
    const struct amax_trunk *trunk = &table->trunk[of->place.matrix];
    if (!strcmp(rules->fallback, "projection-max"))
        return trunk->largest;
    if (is_uncalibrated_draft(of))
        of = trunk->last;
    return of ? of->input_amax : 0;
}

static void fill_one(struct amax_table *table, const struct amax_rules *rules, const char *module,
                     struct amax_filled *filled)
{
    struct place place = model_place(table->model, module);
    const struct amax_peers *peers = amax_table_peers(table, &place);
    if (!peers)
        die("%s has no input amax, and it is no routed expert, of which some may see no token; "
            "calibrate with amax-calib --recipe %s",
            module, rules->recipe);
    if (!strcmp(rules->fallback, "none"))
        die("%s has no input amax: no calibration token reached it; choose a rule with --fallback, "
            "or calibrate with more text",
            module);
    double amax = fallback_amax(table, rules, peers);
    if (amax == 0)
        die("%s has no input amax, and no other expert has one that --fallback %s could take",
            module, rules->fallback);
    if (rules->verbose)
        warn("%s: filled in with %g", module, amax);
    amax_table_add(table, module, AMAX_INPUT, amax)->filled = true;
    *(is_uncalibrated_draft(peers) ? &filled->drafts : &filled->experts) += 1;
}

/* What there is to fill in, in the order of modules. */
struct gaps {
    char **module;
    size_t count;
};

/* A module that must have an input amax. */
static void want(struct amax_table *table, struct gaps *gaps, const char *module)
{
    struct place place = model_place(table->model, module);
    struct amax_peers *peers = amax_table_peers(table, &place);
    if (peers)
        peers->wanted++;
    if (amax_table_find(table, module, AMAX_INPUT))
        return;
    gaps->module = xgrow(gaps->module, gaps->count + 1, sizeof *gaps->module);
    gaps->module[gaps->count++] = xstrdup(module);
}

static void add_disabled(struct amax_table *table, char *name)
{
    table->disabled = xgrow(table->disabled, table->disabled_count + 1, sizeof *table->disabled);
    table->disabled[table->disabled_count++] = name;
}

/* A matrix without amaxes: its quantizers are disabled. So are those for products without weights
 * beside any matrix. */
static void find_disabled(struct amax_table *table, const struct weight *w, bool wanted)
{
    char name[TENSOR_NAME_MAX + 1];
    bool layer = w->place.section == SECTION_LAYERS;
    bool listed = (layer && !w->place.stays) || w->place.section == SECTION_HEAD;
    for (int which = 0; which <= AMAX_WEIGHT && listed && !wanted; which++) {
        char *quantizer = amax_name(table->model, w->module, (enum amax_which)which);
        *strrchr(quantizer, '.') = 0; /* "._amax" */
        add_disabled(table, quantizer);
    }
    for (unsigned i = 0; layer && model_unused_quantizer(table->model, w->module, i, name); i++)
        add_disabled(table, xstrdup(name));
}

/* Those of the recipe in the checkpoint, which must be complete: what it lacks would be blamed on
 * the calibration. */
static void want_for_model(struct amax_table *table, struct ts_in *model, struct gaps *gaps)
{
    struct weights weights;
    bool named = false;
    whole_check(model);
    weights_find(&weights, table->model, ts_toc(model), ts_name(model));
    recipe_check(table->recipe, table->model, ts_toc(model), ts_is_whole(model), ts_name(model));
    for (size_t i = 0; i < weights.count; i++) {
        const struct weight *w = &weights.weight[i];
        bool wanted = !w->place.stays && recipe_needs_amax(table->recipe, w->module);
        if (wanted)
            want(table, gaps, w->module);
        if (model_lists_disabled(table->model))
            find_disabled(table, w, wanted);
        named |= wanted;
    }
    if (!named && ts_is_whole(model))
        convertible_refuse_names(model, &weights, table->recipe);
    weights_free(&weights);
}

/* The number of experts: one more than that of any in the stream. A number may claim anything, so
 * that what would be filled in is bounded: V4-Pro has 70,000 matrices of experts. */
static uint32_t count_experts(const struct amax_table *table)
{
    enum { FILLED_MOST = 1 << 20 };
    const struct amax_entry *last = NULL;
    for (size_t i = 0; i < table->count; i++)
        if (table->entry[i].peers && (!last || table->entry[i].place.expert > last->place.expert))
            last = &table->entry[i];
    uint64_t experts = last ? (uint64_t)last->place.expert + 1 : 0;
    if (experts * table->kinds > FILLED_MOST + table->count)
        die("%s: with as many experts as that, %" PRIu64 " amaxes would be missing; is the "
            "calibration damaged? If not, --model says how many experts there are",
            amax_table_name(table, last), experts * table->kinds - table->count);
    return (uint32_t)experts;
}

/* Without the checkpoint: in each layer that occurs, from expert 0 to the last one of any layer. */
static void want_for_dump(struct amax_table *table, struct gaps *gaps)
{
    uint32_t experts = count_experts(table);
    for (const struct amax_peers *peers = table->peers; peers; peers = peers->next)
        for (uint32_t expert = 0; expert < experts; expert++) {
            struct place place = peers->place;
            char module[TENSOR_NAME_MAX + 1];
            place.expert = expert;
            if (model_module(table->model, &place, module))
                want(table, gaps, module);
        }
}

static void check_coverage(const struct amax_table *table, const struct amax_rules *rules)
{
    for (const struct amax_peers *peers = table->peers; peers; peers = peers->next) {
        char path[TENSOR_NAME_MAX + 1];
        if (!is_uncalibrated_draft(peers) &&
            peers->reached * 100.0 < (double)(peers->wanted * rules->coverage))
            die("%s: the calibration has %" PRIu32 " of %" PRIu32 " experts, under %" PRIu64
                " %%; is it of this model? If so, calibrate with more text, or name a rule with "
                "--fallback",
                model_experts_path(table->model, &peers->place, path), peers->reached,
                peers->wanted, rules->coverage);
    }
}

static void check_fit(const struct amax_table *table, struct ts_in *model, const char *name)
{
    struct fit *fit = fit_begin(model);
    for (size_t i = 0; i < table->count; i++) {
        char module[TENSOR_NAME_MAX + 1];
        const struct amax_entry *entry = &table->entry[i];
        if (entry->peers && model_module(table->model, &entry->place, module))
            fit_add(fit, module);
    }
    fit_end(fit, name);
}

struct amax_filled amax_fill(struct amax_table *table, const struct amax_rules *rules,
                             struct ts_in *model, const char *name)
{
    struct gaps gaps = {0};
    struct amax_filled filled = {0};
    if (model) {
        want_for_model(table, model, &gaps);
        check_fit(table, model, name);
    } else {
        want_for_dump(table, &gaps);
    }
    check_coverage(table, rules);
    for (size_t i = 0; i < gaps.count; i++) {
        if (rules->input_scale > 0)
            amax_table_add(table, gaps.module[i], AMAX_INPUT, nvfp4_amax(rules->input_scale));
        else
            fill_one(table, rules, gaps.module[i], &filled);
        free(gaps.module[i]);
    }
    free(gaps.module);
    return filled;
}
