/* Recipes. */
#include "quantize/recipe.h"

#include "fuzz.h"

enum { FILE_FD = 10 };

static void read_recipe(void *context)
{
    (void)context;
    struct model *model = model_open(NULL, NULL);
    struct recipe *recipe = recipe_load("/proc/self/fd/10", NULL, model);
    recipe_choice(recipe, "layers.3.ffn.experts.7.w1");
    recipe_free(recipe);
    model_close(model);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_file(FILE_FD, data, size);
    fuzz_survives(read_recipe, NULL);
    return 0;
}
