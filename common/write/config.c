#include "write/config.h"

#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/json.h"
#include "tensor/nvfp4.h"
#include "tensor/weight.h"

/* What quantization adds to config.json's quantization_config; taken out again when the weights are
 * dequantized. */
static const char *const nvfp4_keys[] = {"moe_quant_algo",      "producer",   "quant_algo",
                                         "kv_cache_quant_algo", "group_size", "config_groups",
                                         "quantized_layers",    "ignore",     "exclude_modules"};

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* {module: {"quant_algo": "NVFP4", "group_size": 16}}, sorted: one entry for all the routed experts
 * of a layer, one for each other matrix. */
static json_t *quantized_layers(const struct model *model, const struct toc *toc)
{
    char **name = NULL;
    size_t count = 0;
    for (size_t i = 0; i < toc->count; i++) {
        char module[TENSOR_NAME_MAX + 1], experts[TENSOR_NAME_MAX + 1];
        char projection[TENSOR_NAME_MAX + 1];
        uint32_t layer, expert;
        bool mtp;
        const struct tensor *tensor = &toc->tensor[i];
        if (tensor->context || format_of(tensor) != FORMAT_NVFP4)
            continue;
        weight_module(tensor, module);
        bool is_expert = model->expert(module, experts, projection, &layer, &expert, &mtp);
        const char *key = is_expert ? experts : module;
        if (count && !strcmp(name[count - 1], key))
            continue;
        name = xgrow(name, count + 1, sizeof *name);
        name[count++] = xstrdup(key);
    }
    if (count)
        qsort(name, count, sizeof *name, by_text);
    json_t *layers = json_object();
    for (size_t i = 0; i < count; i++) {
        json_object_set_new(
            layers, name[i],
            json_pack("{s:s, s:i}", "quant_algo", "NVFP4", "group_size", NVFP4_BLOCK));
        free(name[i]);
    }
    free(name);
    return layers;
}

static json_t *config_groups(void)
{
    static const char form[] = "{s:b, s:i, s:s, s:i}";
    json_t *activations =
        json_pack(form, "dynamic", 0, "num_bits", 4, "type", "float", "group_size", NVFP4_BLOCK);
    json_t *weights = json_deep_copy(activations);
    return json_pack("{s:{s:o, s:o, s:[s]}}", "group_0", "input_activations", activations,
                     "weights", weights, "targets", "Linear");
}

/* Numbers in the fewest digits that give them back. */
static char *config_text(const json_t *config, bool sorted)
{
    size_t order = sorted ? JSON_SORT_KEYS : JSON_PRESERVE_ORDER;
    char *text = json_dumps(config, JSON_INDENT(2) | order | JSON_REAL_PRECISION(15));
    json_t *again = text ? json_loads(text, 0, NULL) : NULL;
    if (!again)
        die("out of memory");
    bool same = json_equal(config, again);
    json_decref(again);
    if (same) {
        char *line = xprintf("%s\n", text);
        free(text);
        return line;
    }
    free(text);
    return json_text(config, true, sorted);
}

static json_t *quant_value(json_t *quant, const char *key)
{
    json_t *value = json_object_get(quant, key);
    if (!value)
        die("the stream's .stream has no quant.%s, which config.json needs; the stage that made "
            "NVFP4 sets it from its recipe",
            key);
    return value;
}

static char *nvfp4_config(json_t *config, json_t *quant, json_t *layers)
{
    json_t *q = json_object_get(config, "quantization_config");
    if (!json_is_object(q)) {
        q = json_object();
        json_object_set_new(config, "quantization_config", q);
    }
    /* The attention stays FP8, and engines look for that first. */
    if (!json_object_get(q, "activation_scheme"))
        json_object_set_new(q, "activation_scheme", json_string("dynamic"));
    json_object_set_new(q, "quant_method", json_string("fp8"));
    if (!json_object_get(q, "weight_block_size"))
        json_object_set_new(q, "weight_block_size", json_pack("[i,i]", FP8_BLOCK, FP8_BLOCK));
    json_object_set_new(q, "moe_quant_algo", json_string("NVFP4"));
    json_object_set(q, "producer", quant_value(quant, "producer"));
    json_object_set_new(q, "quant_algo", json_string("MIXED_PRECISION"));
    json_object_set(q, "kv_cache_quant_algo", quant_value(quant, "kv_cache_quant_algo"));
    json_object_set_new(q, "group_size", json_integer(NVFP4_BLOCK));
    json_object_set_new(q, "config_groups", config_groups());
    json_object_set(q, "quantized_layers", layers);
    json_object_del(q, "exclude_modules");
    json_object_set(q, "ignore", quant_value(quant, "exclude_modules"));
    return config_text(config, true);
}

static char *nvfp4_hf_quant(json_t *quant, json_t *layers)
{
    json_t *document = json_pack(
        "{s:O, s:{s:s, s:O, s:i, s:O, s:O}}", "producer", quant_value(quant, "producer"),
        "quantization", "quant_algo", "MIXED_PRECISION", "kv_cache_quant_algo",
        quant_value(quant, "kv_cache_quant_algo"), "group_size", NVFP4_BLOCK, "quantized_layers",
        layers, "exclude_modules", quant_value(quant, "exclude_modules"));
    if (!document)
        die("out of memory");
    char *text = config_text(document, false);
    json_decref(document);
    return text;
}

/* No NVFP4 is left: config.json says what there was before, or nothing if all is plain now. */
static char *dequantized_config(json_t *config, bool any_quantized)
{
    json_t *q = json_object_get(config, "quantization_config");
    if (!q)
        return NULL;
    bool was_nvfp4 = json_object_get(q, "quantized_layers") != NULL;
    if (any_quantized && !was_nvfp4)
        return NULL;
    if (!any_quantized)
        json_object_del(config, "quantization_config");
    else
        for (size_t i = 0; i < sizeof nvfp4_keys / sizeof *nvfp4_keys; i++)
            json_object_del(q, nvfp4_keys[i]);
    return config_text(config, false);
}

void configs_derive(struct configs *configs, struct ts_in *in, const struct toc *toc)
{
    bool used[FORMAT_COUNT + 1] = {false};
    *configs = (struct configs){0};
    for (size_t i = 0; i < toc->count; i++)
        used[format_of(&toc->tensor[i])] = true;
    json_t *quant = json_object_get(ts_header(in), "quant");
    json_t *config = ts_file_json(in, "config.json");
    if (used[FORMAT_NVFP4] && json_object_get(quant, "recipe")) {
        json_t *layers = quantized_layers(ts_model(in), toc);
        configs->hf_quant = nvfp4_hf_quant(quant, layers);
        if (config)
            configs->config = nvfp4_config(config, quant, layers);
        json_decref(layers);
    } else if (!used[FORMAT_NVFP4] && config) {
        configs->config = dequantized_config(config, used[FORMAT_FP8] || used[FORMAT_MXFP4]);
    }
    /* A stream whose NVFP4 weights were dequantized has no use for it. */
    json_t *formats = json_object_get(json_object_get(ts_header(in), "input"), "formats");
    bool was_nvfp4 = json_object_get(formats, format_name(FORMAT_NVFP4)) != NULL;
    configs->keep_hf_quant =
        !configs->config && !configs->hf_quant && used[FORMAT_NVFP4] == was_nvfp4;
    json_decref(config);
}

void configs_free(struct configs *configs)
{
    free(configs->config);
    free(configs->hf_quant);
}
