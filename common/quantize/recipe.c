#include "quantize/recipe.h"

#include <dirent.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/die.h"
#include "base/digest.h"
#include "base/glob.h"
#include "base/json.h"
#include "base/text.h"

/* The folder of recipes: the first candidate that exists. The caller frees the path. */
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
    /* bin/program, or build/sanitize-1/bin/program: search upwards */
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

struct rule {
    const char *pattern; /* in recipe->json */
    struct recipe_choice choice;
};

struct recipe {
    const struct model *model;
    json_t *json;
    struct rule *rule;
    size_t rules, drafts; /* the first `drafts` rules are of the choice of drafts */
    char digest[DIGEST_TEXT];
};

static const char *const names[] = {[FORMAT_PLAIN] = "BF16",
                                    [FORMAT_FP8] = "FP8",
                                    [FORMAT_MXFP4] = "MXFP4",
                                    [FORMAT_NVFP4] = "NVFP4",
                                    [FORMAT_COUNT] = "keep"};

/* Set the choice to the one with that name in recipes; false if there is none. */
static bool read_choice(struct recipe_choice *choice, const char *name)
{
    choice->cast = name && !strcmp(name, "NVFP4-cast");
    choice->per_tensor = name && !strcmp(name, "FP8-per-tensor");
    if (choice->cast)
        name = names[FORMAT_NVFP4];
    if (choice->per_tensor)
        name = names[FORMAT_FP8];
    for (size_t i = 0; name && i < sizeof names / sizeof *names; i++)
        if (!strcmp(names[i], name)) {
            choice->format = (enum format)i;
            return true;
        }
    return false;
}

static void read_rules(struct recipe *recipe, const char *path)
{
    const char *pattern;
    json_t *format;
    json_t *formats = json_object_get(recipe->json, "formats");
    recipe->rule = xalloc(json_object_size(formats), sizeof *recipe->rule);
    json_object_foreach(formats, pattern, format)
    {
        struct rule *rule = &recipe->rule[recipe->rules++];
        rule->pattern = pattern;
        const char *name = json_string_value(format);
        if (!read_choice(&rule->choice, name))
            die("%s: formats: '%s': %s is not a format; known are NVFP4, NVFP4-cast, FP8, "
                "FP8-per-tensor, MXFP4, BF16 and keep",
                path, pattern, name ? name : "what is not a text");
    }
}

static bool is_absent_or(json_type type, const json_t *value)
{
    return !value || json_typeof(value) == type;
}

/* The pattern of a draft that `formats` has with another format would win without a word. */
static void refuse_contradiction(const json_t *drafts, const json_t *formats, const char *path)
{
    const char *pattern;
    json_t *format;
    json_object_foreach((json_t *)drafts, pattern, format)
    {
        json_t *other = json_object_get(formats, pattern);
        if (other && !json_equal(other, format))
            die("%s: '%s' has one format in formats and another one in drafts; name it once", path,
                pattern);
    }
}

/* Add to `recipe` what its drafts' `choice` says (NULL: the first of them), and note the choice
 * itself. Formats of drafts come first, as the first match wins; returns how many there are. */
static size_t choose_drafts(json_t *recipe, const char *choice, const char *path)
{
    json_t *drafts = json_object_get(recipe, "drafts"), *formats, *exclude = json_array();
    if (!choice)
        choice = json_object_iter_key(json_object_iter(drafts));
    json_t *chosen = choice ? json_object_get(drafts, choice) : NULL;
    if (choice && !chosen)
        die("%s: the recipe has no drafts '%s'; name another recipe, or leave --drafts out", path,
            choice);
    if (!is_absent_or(JSON_OBJECT, drafts) || !is_absent_or(JSON_OBJECT, chosen) ||
        !is_absent_or(JSON_OBJECT, json_object_get(chosen, "formats")) ||
        !is_absent_or(JSON_ARRAY, json_object_get(chosen, "exclude_modules")))
        die("%s: drafts: wanted choices with formats {} and exclude_modules []", path);
    formats = json_object_get(chosen, "formats");
    formats = formats ? json_deep_copy(formats) : json_object();
    size_t count = json_object_size(formats);
    refuse_contradiction(formats, json_object_get(recipe, "formats"), path);
    json_object_update_missing(formats, json_object_get(recipe, "formats"));
    json_array_extend(exclude, json_object_get(recipe, "exclude_modules"));
    json_array_extend(exclude, json_object_get(chosen, "exclude_modules"));
    json_object_set_new(recipe, "formats", formats);
    if (json_is_array(json_object_get(recipe, "exclude_modules")))
        json_object_set(recipe, "exclude_modules", exclude);
    json_decref(exclude);
    json_object_set_new(recipe, "drafts", choice ? json_string(choice) : json_null());
    return count;
}

static void check(const json_t *recipe, const char *path)
{
    if (!json_is_string(json_object_get(recipe, "name")) ||
        !json_is_object(json_object_get(recipe, "formats")) ||
        !json_is_object(json_object_get(recipe, "producer")) ||
        (!json_is_array(json_object_get(recipe, "exclude_modules")) &&
         !json_is_null(json_object_get(recipe, "exclude_modules"))) ||
        !json_object_get(recipe, "kv_cache_quant_algo"))
        die("%s: a recipe needs name, formats, producer, kv_cache_quant_algo, exclude_modules",
            path);
    if (!is_absent_or(JSON_ARRAY, json_object_get(recipe, "separate_scales")))
        die("%s: separate_scales: wanted an array of patterns", path);
}

static void check_search(const json_t *recipe, const char *path)
{
    const json_t *search = json_object_get(recipe, "scale_search");
    const char *name = json_string_value(search);
    if (search && !(name && is_choice(RECIPE_SEARCHES, name)))
        die("%s: scale_search: %s is not one of %s", path, name ? name : "what is not a text",
            RECIPE_SEARCHES);
}

static int is_recipe(const struct dirent *entry)
{
    return ends_with(entry->d_name, ".json");
}

/* With the names of those that there are. */
_Noreturn static void refuse_name(const char *name, const struct model *model, const char *folder)
{
    char *path = xprintf("%s/%s", folder, model_type(model)), *names = NULL;
    struct dirent **entry;
    int count = scandir(path, &entry, is_recipe, alphasort);
    for (int i = 0; i < count; i++)
        names = xprintf("%s%s%.*s", names ? names : "", names ? ", " : "",
                        (int)(strlen(entry[i]->d_name) - strlen(".json")), entry[i]->d_name);
    die("no recipe '%s' for model type %s, which has %s; a name with '/' is a recipe's file", name,
        model_type(model), names ? names : "none");
}

/* The path of a recipe's file, which the caller frees: of the model's own type if there is one,
 * else of its family. */
static char *find(const char *name, const struct model *model)
{
    if (strchr(name, '/'))
        return xstrdup(name);
    if (!*model_type(model))
        die("no recipe '%s': the source has no config.json, or one with a model_type that is not "
            "known here; a name with '/' is a recipe's file",
            name);
    char *folder = recipes_folder();
    char *path = xprintf("%s/%s/%s.json", folder, model_own_type(model), name);
    if (access(path, R_OK)) {
        free(path);
        path = xprintf("%s/%s/%s.json", folder, model_type(model), name);
    }
    if (access(path, F_OK))
        refuse_name(name, model, folder);
    free(folder);
    return path;
}

struct recipe *recipe_load(const char *name, const char *drafts, const struct model *model)
{
    struct recipe *recipe = xalloc(1, sizeof *recipe);
    char *path = find(name, model);
    recipe->model = model;
    if (access(path, R_OK))
        die_errno("%s", path);
    json_error_t error;
    recipe->json = json_file_within(path, JSON_REJECT_DUPLICATES, &error);
    if (!recipe->json)
        die("%s: line %d: %s", path, error.line, error.text);
    check(recipe->json, path);
    check_search(recipe->json, path);
    recipe->drafts = choose_drafts(recipe->json, drafts, path);
    read_rules(recipe, path);
    free(path);
    struct digest *digest = digest_new();
    char *text = json_text(recipe->json, false, false);
    digest_add(digest, text, strlen(text));
    digest_end(digest, recipe->digest);
    free(text);
    return recipe;
}

void recipe_free(struct recipe *recipe)
{
    if (!recipe)
        return;
    json_decref(recipe->json);
    free(recipe->rule);
    free(recipe);
}

/* The rule for a module, or NULL. */
static const struct rule *rule_for(const struct recipe *recipe, const char *module)
{
    char name[TENSOR_NAME_MAX + 1];
    model_pattern_name(recipe->model, module, name);
    for (size_t i = 0; i < recipe->rules; i++)
        if (glob_matches(recipe->rule[i].pattern, name))
            return &recipe->rule[i];
    return NULL;
}

struct recipe_choice recipe_choice(const struct recipe *recipe, const char *module)
{
    const struct rule *rule = rule_for(recipe, module);
    return rule ? rule->choice : (struct recipe_choice){.format = FORMAT_COUNT};
}

bool recipe_has_per_tensor(const struct recipe *recipe)
{
    for (size_t i = 0; i < recipe->rules; i++)
        if (recipe->rule[i].choice.per_tensor)
            return true;
    return false;
}

bool recipe_needs_amax(const struct recipe *recipe, const char *module)
{
    struct recipe_choice choice = recipe_choice(recipe, module);
    return choice.format == FORMAT_NVFP4 || choice.per_tensor;
}

bool recipe_shares_scales(const struct recipe *recipe, const char *module)
{
    size_t i;
    json_t *pattern;
    char name[TENSOR_NAME_MAX + 1];
    model_pattern_name(recipe->model, module, name);
    json_array_foreach(json_object_get(recipe->json, "separate_scales"), i, pattern)
    {
        const char *text = json_string_value(pattern);
        if (text && glob_matches(text, name))
            return false;
    }
    return true;
}

/* The module of a tensor, into `module`: its name where it is no module's weight or scale, as that
 * of a hyper-connection. */
static void module_of(const struct tensor *tensor, char *module)
{
    for (size_t i = 0; i < WEIGHT_SUFFIXES; i++)
        if (tensor_has_suffix(tensor, weight_suffix[i])) {
            weight_module(tensor, module);
            return;
        }
    strcpy(module, tensor->name);
}

void recipe_check(const struct recipe *recipe, const struct model *model, const struct toc *toc,
                  bool whole, const char *stream)
{
    bool *matches = xalloc(recipe->rules, sizeof *matches), any = false;
    char module[TENSOR_NAME_MAX + 1], last[TENSOR_NAME_MAX + 1] = "";
    for (size_t i = 0; i < toc->count; i++, strcpy(last, module)) {
        module_of(&toc->tensor[i], module);
        if (!strcmp(module, last)) /* its scales come before its weight */
            continue;
        const struct rule *rule = rule_for(recipe, module);
        if (!rule)
            continue;
        any = true;
        enum format format = rule->choice.format;
        if (format != FORMAT_COUNT && format != FORMAT_PLAIN && model_place(model, module).stays)
            die("%s: the recipe '%s' makes %s %s by '%s', but a router, norm, embedding, head, "
                "compressor or hyper-connection is never quantized; narrow the pattern, or keep "
                "the module by one before it",
                stream, recipe_name(recipe), module, names[format], rule->pattern);
        char name[TENSOR_NAME_MAX + 1];
        model_pattern_name(model, module, name);
        for (size_t j = 0; j < recipe->rules; j++)
            matches[j] = matches[j] || glob_matches(recipe->rule[j].pattern, name);
    }
    for (size_t j = recipe->drafts; whole && any && j < recipe->rules; j++)
        if (!matches[j])
            die("%s: the recipe '%s' has the pattern '%s', which no module of the checkpoint "
                "matches; correct the pattern, or leave it out",
                stream, recipe_name(recipe), recipe->rule[j].pattern);
    free(matches);
}

struct arg recipe_drafts_arg(const char **to)
{
    return (struct arg){.name = "drafts",
                        .kind = ARG_CHOICE,
                        .to = to,
                        .value = "which",
                        .choices = "keep|cast",
                        .help = "the drafts' routed experts (mtp.*): keep them as they are "
                                "(default, unless the recipe says otherwise), or cast them, too",
                        .silent = true}; /* recipe_record() records what it comes to */
}

const char *recipe_scale_search(const struct recipe *recipe)
{
    return json_string_value(json_object_get(recipe->json, "scale_search"));
}

const char *recipe_name(const struct recipe *recipe)
{
    return json_string_value(json_object_get(recipe->json, "name"));
}

const char *recipe_pattern(const struct recipe *recipe, enum format format)
{
    for (size_t i = 0; i < recipe->rules; i++)
        if (recipe->rule[i].choice.format == format)
            return recipe->rule[i].pattern;
    return NULL;
}

const char *recipe_digest(const struct recipe *recipe)
{
    return recipe->digest;
}

void recipe_record(const struct recipe *recipe, json_t *entry)
{
    json_t *drafts = json_object_get(recipe->json, "drafts");
    if (json_is_string(drafts))
        json_object_set(entry, "drafts", drafts);
    json_object_set_new(entry, "recipe", json_string(recipe->digest));
}

void recipe_describe(const struct recipe *recipe, json_t *quant)
{
    static const char *const keys[] = {"producer", "kv_cache_quant_algo", "exclude_modules"};
    json_object_set(quant, "recipe", json_object_get(recipe->json, "name"));
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        json_object_set(quant, keys[i], json_object_get(recipe->json, keys[i]));
}
