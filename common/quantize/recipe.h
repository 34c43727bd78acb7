/* recipe.h: which matrix gets which format. Recipes are data: a file recipes/MODEL_TYPE/NAME.json
 * holds
 *
 *   name, formats {pattern: format, ...}, producer {name, version}, kv_cache_quant_algo,
 *   exclude_modules [pattern, ...]
 *
 * Patterns are those of fnmatch(3), over names of modules. In `formats` the first one that matches
 * a module counts; a format is one of weight.h's ("NVFP4", "FP8", "MXFP4", "BF16") or "keep". A
 * module that none matches is kept. The other members go into the checkpoint's configs. */
#ifndef RECIPE_H
#define RECIPE_H

#include <jansson.h>

#include "model/model.h"
#include "tensor/weight.h"

struct recipe;

/* Read the recipe `name` of a model's family; one that cannot be read or makes no sense ends the
 * process. A name without a slash is looked for in $SEEKPIPE_RECIPES, or beside the program
 * (../pipelines/recipes in the source tree, ../share/seekpipe/recipes when installed); a name with
 * a slash is a file. The caller frees it. */
struct recipe *recipe_load(const char *name, const struct model *model);
void recipe_free(struct recipe *recipe);

/* The format that a module gets; FORMAT_COUNT: it is kept as it is. */
enum format recipe_format(const struct recipe *recipe, const char *module);

/* A digest of the recipe's text, in hexadecimal: for histories, and for what tells one run from
 * another. */
const char *recipe_digest(const struct recipe *recipe);

/* Set what the configs need of it in `quant` (see ts_header()). */
void recipe_describe(const struct recipe *recipe, json_t *quant);

#endif
