#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/text.h"
#include "engines/formats.h"
#include "engines/rule.h"
#include "tensor/nvfp4.h"
#include "verify/checks.h"

#define ANY_NVFP4 (FACT(EXPERTS_NVFP4) | FACT(DENSE_NVFP4))

/* What the configs of a checkpoint with NVFP4 have to say, as Model Optimizer's
 * examples/deepseek/deepseek_v4/quantize_to_nvfp4.py writes it; that of other formats stays the
 * source's. */
static const struct rule stated[] = {
    {.key = RULE_Q "quant_algo",
     .unless = "MIXED_PRECISION|NVFP4",
     .why = "it must name NVFP4's kind"},
    {.key = RULE_HF "quant_algo",
     .unless = "MIXED_PRECISION|NVFP4",
     .why = "it must name NVFP4's kind"},
    {.found = FACT(FP8) | FACT(PER_TENSOR) | FACT(MXFP4),
     .key = RULE_Q "quant_algo",
     .unless = "MIXED_PRECISION|-",
     .why = "there are other formats beside NVFP4"},
    {.found = FACT(EXPERTS_BESIDE),
     .key = RULE_Q "moe_quant_algo",
     .unless = "NVFP4",
     .why = "the experts are NVFP4"},
    {.found = FACT(EXPERTS_NVFP4),
     .key = "expert_dtype",
     .unless = "fp4|-",
     .why = "the experts are NVFP4"},
    {.found = FACT(EXPERTS_NVFP4),
     .key = RULE_Q "expert_dtype",
     .unless = "fp4|-",
     .why = "the experts are NVFP4"},
    {.key = RULE_Q "quant_method",
     .unless = "fp8|modelopt",
     .why = "engines know fp8 and modelopt with NVFP4"},
    {.found = FACT(FP8),
     .key = RULE_Q "weight_block_size",
     .unless = "*",
     .why = "there are FP8 weights"},
    {.found = FACT(EXPERTS_ONLY),
     .key = RULE_Q "quant_method",
     .unless = "fp8",
     .why = "engines read FP8 weights beside NVFP4 experts only with fp8"},
    {0},
};

/* Where not each layer says it, as beside FP8 with one scale. */
static const struct rule group_size[] = {
    {.key = RULE_Q "group_size", .unless = "16", .why = "NVFP4's blocks have 16 columns"},
    {.key = RULE_HF "group_size", .unless = "16", .why = "NVFP4's blocks have 16 columns"},
    {0},
};

/* For each checkpoint that has no quantized matrix. */
static const struct rule unquantized = {
    .key = "quantization_config", .unless = "-", .why = "no matrix is quantized"};

static bool is_hf(const struct rule *rule)
{
    return starts_with(rule->key, RULE_HF_QUANT);
}

static void add_rule(const struct rule *rule, const struct evidence *evidence, struct facts *facts)
{
    char *text = rule_text(rule, evidence);
    facts_add(facts, is_hf(rule) ? FACT_HF_QUANT : FACT_CONFIG, "%s", text);
    free(text);
}

static void add_rules(const struct rule *rule, const struct evidence *evidence, struct facts *facts)
{
    for (; rule->why; rule++)
        if ((evidence->hf_quant || !is_hf(rule)) && rule_applies(rule, evidence))
            add_rule(rule, evidence, facts);
}

/* ---- names of modules ---- */

/* The module of an NVFP4 matrix, and what stands for it in the configs: the path of all experts of
 * its layer, or the module. */
struct named {
    char module[TENSOR_NAME_MAX + 1], path[TENSOR_NAME_MAX + 1];
};

static void name_matrix(const struct folder *folder, const struct nvfp4 *matrix,
                        struct named *named)
{
    const struct weight *w = &matrix->weight;
    weight_module(&folder->toc->tensor[w->line], named->module);
    if (place_is_routed(&w->place))
        model_experts_path(folder->model, &w->place, named->path);
    else
        strcpy(named->path, named->module);
}

/* True if the config has no list, but one format for all that it does not ignore. */
static bool has_one_format(const json_t *q)
{
    const char *algo = json_string_value(json_object_get(q, "quant_algo"));
    return !json_object_get(q, "quantized_layers") && algo && !strcmp(algo, "NVFP4");
}

/* Then a matrix that is not quantized must be ignored. */
static void check_unquantized(const struct folder *folder, const json_t *ignore,
                              struct facts *facts)
{
    for (size_t i = 0; i < folder->toc->count; i++) {
        char module[TENSOR_NAME_MAX + 1];
        const struct tensor *tensor = &folder->toc->tensor[i];
        const uint8_t section = model_place(folder->model, tensor->name).section;
        if (format_of(tensor) != FORMAT_PLAIN || section == SECTION_EMBED)
            continue;
        if (!matching_pattern(ignore, weight_module(tensor, module)))
            facts_add(facts, section == SECTION_MTP ? FACT_NOT_IGNORED_DRAFT : FACT_NOT_IGNORED,
                      "config.json: `ignore` lacks %s, which is not quantized", module);
    }
}

/* True if an entry stands within the path, and is not all of it: engines that search for entries
 * take "layers.1" for a part of "layers.10.mlp". */
static bool has_part(const json_t *ignore, const char *path)
{
    size_t i;
    const json_t *entry;
    json_array_foreach(ignore, i, entry)
    {
        const char *text = json_string_value(entry);
        if (text && strstr(path, text) && strcmp(path, text) != 0)
            return true;
    }
    return false;
}

/* Each NVFP4 matrix must be among `layers` (NULL: all are), and no pattern of `ignore` may cover
 * it.
 */
static void check_named(const struct folder *folder, const struct nvfp4s *all, const char *file,
                        const json_t *layers, const json_t *ignore, struct facts *facts)
{
    char last[TENSOR_NAME_MAX + 1] = "";
    for (size_t i = 0; i < all->count; i++) {
        struct named named;
        name_matrix(folder, &all->of[i], &named);
        bool listed =
            !layers || json_object_get(layers, named.path) || json_object_get(layers, named.module);
        const char *pattern = matching_pattern(ignore, named.path);
        if (!facts->of[FACT_IGNORED_PART].count && has_part(ignore, named.path))
            facts_add_set(facts, FACT(IGNORED_PART));
        if ((!listed || pattern) && strcmp(named.path, last) != 0) {
            strcpy(last, named.path);
            if (!listed)
                facts_add(facts, FACT_LAYERS, "%s: quantized_layers lacks %s, which is NVFP4", file,
                          named.path);
            if (pattern)
                facts_add(facts, FACT_IGNORE, "%s: '%s' leaves out %s, which is NVFP4", file,
                          pattern, named.path);
        }
    }
}

/* FP8's own lists of what stays unquantized must not name NVFP4 matrices. */
static void check_ignored_layers(const struct folder *folder, const struct nvfp4s *all,
                                 const json_t *q, struct facts *facts)
{
    static const char *const key[] = {"ignored_layers", "modules_to_not_convert"};
    char last[TENSOR_NAME_MAX + 1] = "";
    for (size_t i = 0; i < all->count; i++) {
        struct named named;
        name_matrix(folder, &all->of[i], &named);
        if (!strcmp(named.path, last))
            continue;
        strcpy(last, named.path);
        for (size_t k = 0; k < sizeof key / sizeof *key; k++) {
            size_t j;
            const json_t *entry;
            json_array_foreach(json_object_get(q, key[k]), j, entry)
            {
                const char *text = json_string_value(entry);
                if (text && strstr(text, named.path))
                    facts_add(facts, FACT_IGNORED_LAYERS,
                              "config.json's " RULE_Q "%s names %s, which is NVFP4", key[k],
                              named.path);
            }
        }
    }
}

/* Each entry must be of an NVFP4 matrix, of blocks of 16. */
static void check_entries(const struct folder *folder, const struct nvfp4s *all, const char *file,
                          const json_t *layers, struct facts *facts)
{
    json_t *there = json_object(), *entry;
    const char *name;
    for (size_t i = 0; i < all->count; i++) {
        struct named named;
        name_matrix(folder, &all->of[i], &named);
        json_object_set_new(there, named.path, json_true());
        json_object_set_new(there, named.module, json_true());
    }
    json_object_foreach((json_t *)layers, name, entry)
    {
        const char *algo = json_string_value(json_object_get(entry, "quant_algo"));
        const json_t *size = json_object_get(entry, "group_size");
        if (algo && strcmp(algo, "NVFP4") != 0)
            continue;
        if (!algo || !json_object_get(there, name))
            facts_add(facts, FACT_LAYERS, "%s: quantized_layers has %s, which is not NVFP4 here",
                      file, name);
        else if (size && json_integer_value(size) != NVFP4_BLOCK)
            facts_add(facts, FACT_LAYERS, "%s: quantized_layers: %s: group_size is not %d", file,
                      name, NVFP4_BLOCK);
    }
    json_decref(there);
}

/* ---- the two files ---- */

static bool same(const json_t *a, const json_t *b)
{
    a = json_is_null(a) ? NULL : a;
    b = json_is_null(b) ? NULL : b;
    return a == b || (a && b && json_equal(a, b));
}

static void compare(const json_t *q, const json_t *hf, struct facts *facts)
{
    static const char *const both[][2] = {{"quant_algo", "quant_algo"},
                                          {"kv_cache_quant_algo", "kv_cache_quant_algo"},
                                          {"group_size", "group_size"},
                                          {"quantized_layers", "quantized_layers"},
                                          {"ignore", "exclude_modules"}};
    for (size_t i = 0; i < sizeof both / sizeof *both; i++)
        if (!same(json_object_get(q, both[i][0]), json_object_get(hf, both[i][1])))
            facts_add(facts, FACT_DISAGREE,
                      "config.json's " RULE_Q "%s is not hf_quant_config.json's quantization.%s",
                      both[i][0], both[i][1]);
}

void check_configs(const struct folder *folder, const struct nvfp4s *all, struct facts *facts)
{
    const struct evidence evidence = folder_evidence(folder, facts);
    uint64_t found = evidence.found;
    const json_t *q = quantization_of(folder->config);
    const json_t *hf = json_object_get(folder->hf_quant, "quantization");
    if (!folder->config) {
        if (!(found & FACT(CONFIG)))
            facts_add(facts, FACT_CONFIG, "there is no config.json");
        return;
    }
    if (!(found & (ANY_NVFP4 | FACT(FP8) | FACT(PER_TENSOR) | FACT(MXFP4))) &&
        rule_applies(&unquantized, &evidence))
        add_rule(&unquantized, &evidence, facts);
    if (!(found & ANY_NVFP4))
        return;
    if (!folder->hf_quant && !(found & FACT(HF_QUANT)))
        facts_add(facts, FACT_HF_QUANT, "there is no hf_quant_config.json");
    add_rules(stated, &evidence, facts);
    if (!(found & FACT(PER_TENSOR)))
        add_rules(group_size, &evidence, facts);
    const json_t *layers = json_object_get(q, "quantized_layers"),
                 *ignore = json_object_get(q, "ignore");
    json_t *none = layers || has_one_format(q) ? NULL : json_object();
    check_named(folder, all, "config.json", layers ? layers : none, ignore, facts);
    if (has_one_format(q))
        check_unquantized(folder, ignore, facts);
    check_entries(folder, all, "config.json", layers, facts);
    json_decref(none);
    check_ignored_layers(folder, all, q, facts);
    if (hf)
        compare(q, hf, facts);
}
