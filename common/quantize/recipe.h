/* recipe.h: which matrices get which format. Recipes are data: recipes/MODEL_TYPE/NAME.json holds
 *
 *   name                 its name
 *   formats              {shell pattern of modules: format}; the first match counts
 *   producer, kv_cache_quant_algo, exclude_modules
 *                        what st-write puts into config.json and hf_quant_config.json
 */
#ifndef RECIPE_H
#define RECIPE_H

#include <jansson.h>
#include <stdbool.h>

/* Load the recipe `name` of a model type, from $SEEKPIPE_RECIPES, or beside the programs
 * (../pipelines/recipes in the source tree, ../share/seekpipe/recipes when installed); a name with a slash is
 * a file of the user's own. Ends the process if there is none or it is malformed. The caller owns
 * it. */
json_t *recipe_load(const char *name, const char *model_type);

/* True if the recipe makes the module ("layers.3.ffn.experts.7.w1") NVFP4. */
bool recipe_is_nvfp4(const json_t *recipe, const char *module);

#endif
