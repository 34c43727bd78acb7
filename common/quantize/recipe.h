/* recipe.h: which matrix gets which format. Recipes are data. A file recipes/MODEL_TYPE/NAME.json
 * holds
 *
 *     name, formats {pattern: format, ...}, producer {name, version}, kv_cache_quant_algo,
 *     exclude_modules [pattern, ...], drafts {choice: {formats, exclude_modules}, ...},
 *     separate_scales [pattern, ...], scale_search
 *
 * Patterns are those of fnmatch(3) and match names of modules (see model_pattern_name()). In
 * `formats` the first match wins. A format is one of weight.h's ("NVFP4", "FP8", "MXFP4", "BF16"),
 * "NVFP4-cast" (NVFP4 with the source's codes, which is MXFP4), "FP8-per-tensor" (FP8 with one
 * scale) or "keep". A module that matches no pattern is kept. `drafts` (optional) has what each
 * choice of --drafts adds to `formats`, in front, and to `exclude_modules`; its first choice is the
 * default. `exclude_modules` may be null: the configs then list what is not quantized. A group of
 * modules in `separate_scales` (optional) does not share its scales. `scale_search` (optional) is
 * the default of nvfp4-pack's option. The other members go into the checkpoint's configs.
 * nvfp4-recipe(5) has more. */
#ifndef RECIPE_H
#define RECIPE_H

#include <jansson.h>

#include "base/args.h"
#include "model/model.h"
#include "tensor/weight.h"

struct recipe;

/* Read the recipe `name` for a model's family, with the choice `drafts` (NULL: the recipe's
 * default). A name with a slash is a file; another is searched for in $SEEKPIPE_RECIPES, or near
 * the program (../pipelines/recipes in the source tree, ../share/seekpipe/recipes when installed):
 * in the folder of the model's own type, then in its family's. A recipe that cannot be read or is
 * invalid ends the process. The model must outlive the result; recipe_free() frees it and accepts
 * NULL. */
struct recipe *recipe_load(const char *name, const char *drafts, const struct model *model);
void recipe_free(struct recipe *recipe);

/* --drafts, into *to: NULL if it was not given. */
struct arg recipe_drafts_arg(const char **to);

/* What a recipe makes of a module. */
struct recipe_choice {
    enum format format; /* FORMAT_COUNT: it is kept */
    bool cast;          /* NVFP4 by a cast alone */
    bool per_tensor;    /* FP8 with one scale for all */
};
struct recipe_choice recipe_choice(const struct recipe *recipe, const char *module);

/* True if it may make a module FP8 with one scale. */
bool recipe_has_per_tensor(const struct recipe *recipe);

/* True if the module's input is quantized with a scale from a calibration. */
bool recipe_needs_amax(const struct recipe *recipe, const char *module);

/* False if the module has scales of its own, though it is in a group (see place.h). */
bool recipe_shares_scales(const struct recipe *recipe, const char *module);

/* How nvfp4-pack is to choose block scales: a choice of RECIPE_SEARCHES; NULL if the recipe does
 * not say. Borrowed. */
#define RECIPE_SEARCHES "max|mse|4over6|hessian"
const char *recipe_scale_search(const struct recipe *recipe);

/* End the process if the recipe does not fit the table of `stream`: it would quantize what never is
 * (see place.h), or, in that of a `whole` checkpoint, a pattern of `formats` matches no module. If
 * none matches, the checkpoint has other names, which is left to the caller; so is a missing draft.
 */
void recipe_check(const struct recipe *recipe, const struct model *model, const struct toc *toc,
                  bool whole, const char *stream);

/* What the recipe is called, and its first pattern that gives a format (NULL: it gives none): for
 * messages. Borrowed. */
const char *recipe_name(const struct recipe *recipe);
const char *recipe_pattern(const struct recipe *recipe, enum format format);

/* SHA-256 of the recipe's text in hexadecimal, owned by the recipe: for histories and the identity
 * of a run. */
const char *recipe_digest(const struct recipe *recipe);

/* Put into a stage's history entry what distinguishes it from a run with another recipe: the
 * digest, and the choice of drafts, if the recipe has one. */
void recipe_record(const struct recipe *recipe, json_t *entry);

/* Add to `quant` (see ts_header()) what the configs need from the recipe. */
void recipe_describe(const struct recipe *recipe, json_t *quant);

#endif
