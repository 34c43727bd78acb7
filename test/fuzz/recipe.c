/* Recipes. */
#include "quantize/recipe.h"

#include "fuzz.h"

enum { FILE_FD = 10 };

static void read_recipe(void *context)
{
    (void)context;
    json_t *recipe = recipe_load("/proc/self/fd/10", NULL);
    recipe_is_nvfp4(recipe, "layers.3.ffn.experts.7.w1");
    json_decref(recipe);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_file(FILE_FD, data, size);
    fuzz_survives(read_recipe, NULL);
    return 0;
}
