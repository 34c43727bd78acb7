#include "quantize/recipe.h"

#include <fnmatch.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/die.h"

/* The folder of recipes: the first that exists. The caller frees it. */
static char *recipes_folder(void)
{
    const char *named = getenv("SEEKPIPE_RECIPES");
    if (named && *named)
        return xstrdup(named);
    char program[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (length < 0)
        die_errno("/proc/self/exe");
    program[length] = 0;
    /* bin/program, or build/sanitize-1/bin/program: look upwards. */
    for (char *slash; (slash = strrchr(program, '/'));) {
        static const char *const places[] = {"pipelines/recipes", "share/seekpipe/recipes"};
        *slash = 0;
        for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
            char *folder = xprintf("%s/%s", program, places[i]);
            if (!access(folder, X_OK))
                return folder;
            free(folder);
        }
    }
    die("no folder of recipes beside the programs; name one in $SEEKPIPE_RECIPES");
}

static void check(const json_t *recipe, const char *path)
{
    const char *pattern;
    json_t *format;
    json_t *formats = json_object_get(recipe, "formats");
    if (!json_is_string(json_object_get(recipe, "name")) || !json_is_object(formats) ||
        !json_is_object(json_object_get(recipe, "producer")) ||
        !json_is_array(json_object_get(recipe, "exclude_modules")) ||
        !json_object_get(recipe, "kv_cache_quant_algo"))
        die("%s: a recipe needs name, formats, producer, kv_cache_quant_algo, exclude_modules",
            path);
    json_object_foreach(formats, pattern, format)
    {
        const char *text = json_string_value(format);
        if (!text || strcmp(text, "NVFP4") != 0)
            die("%s: formats: '%s': the only format known is \"NVFP4\"", path, pattern);
    }
}

json_t *recipe_load(const char *name, const char *model_type)
{
    char *path;
    if (strchr(name, '/')) {
        path = xstrdup(name);
    } else {
        char *folder = recipes_folder();
        path = xprintf("%s/%s/%s.json", folder, model_type ? model_type : "none", name);
        free(folder);
    }
    json_error_t error;
    if (access(path, R_OK))
        die_errno("%s: no recipe '%s' for model type %s", path, name,
                  model_type ? model_type : "(unknown: no config.json in the stream)");
    json_t *recipe = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    if (!recipe)
        die("%s: line %d: %s", path, error.line, error.text);
    check(recipe, path);
    free(path);
    return recipe;
}

bool recipe_is_nvfp4(const json_t *recipe, const char *module)
{
    const char *pattern;
    json_t *format;
    json_object_foreach(json_object_get(recipe, "formats"), pattern, format)
    {
        if (!fnmatch(pattern, module, 0))
            return true;
    }
    return false;
}
