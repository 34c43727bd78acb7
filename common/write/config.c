#include "write/config.h"

#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/json.h"
#include "tensor/nvfp4.h"
#include "tensor/weight.h"

/* The keys that quantization adds to config.json's quantization_config; removed again when the
 * weights are dequantized. */
static const char *const nvfp4_keys[] = {"moe_quant_algo",      "producer",   "quant_algo",
                                         "kv_cache_quant_algo", "group_size", "config_groups",
                                         "quantized_layers",    "ignore",     "exclude_modules"};

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* {module: {"quant_algo": "NVFP4", "group_size": 16}}, sorted: one entry for all routed experts of
 * a layer, one for each other matrix. */
static json_t *quantized_layers(const struct model *model, const struct toc *toc)
{
    char **name = NULL;
    size_t count = 0;
    for (size_t i = 0; i < toc->count; i++) {
        char key[TENSOR_NAME_MAX + 1];
        const struct tensor *tensor = &toc->tensor[i];
        if (tensor->context || format_of(tensor) != FORMAT_NVFP4)
            continue;
        struct place place = model_place(model, weight_module(tensor, key));
        if (place_is_routed(&place))
            model_experts_path(model, &place, key);
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

/* Writes numbers with the fewest digits that read back the same. */
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

/* The formats in the outgoing table, as far as the configs need them. */
struct outgoing {
    const struct model *model;
    bool format[FORMAT_COUNT + 1];
    bool experts; /* all routed experts outside MTP are NVFP4 */
};

static struct outgoing survey(const struct model *model, const struct toc *toc)
{
    struct outgoing made = {.model = model};
    bool any = false, other = false;
    for (size_t i = 0; i < toc->count; i++) {
        enum format format = format_of(&toc->tensor[i]);
        made.format[format] = true;
        struct place place = model_place(model, toc->tensor[i].name);
        if (format == FORMAT_COUNT || !place_is_routed(&place) || place.section == SECTION_MTP)
            continue;
        any |= format == FORMAT_NVFP4;
        other |= format != FORMAT_NVFP4;
    }
    made.experts = any && !other;
    return made;
}

/* A checkpoint with other quantized formats besides NVFP4 has mixed precision. */
static const char *quant_algo(const struct outgoing *made)
{
    return made->format[FORMAT_FP8] || made->format[FORMAT_MXFP4] ? "MIXED_PRECISION" : "NVFP4";
}

/* Set the keys for reading FP8 weights, which engines check first. */
static void set_fp8(json_t *q, const struct outgoing *made)
{
    static const char *const keys[] = {"activation_scheme", "weight_block_size", "scale_fmt"};
    if (!made->format[FORMAT_FP8]) {
        json_object_set_new(q, "quant_method", json_string("modelopt"));
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
            json_object_del(q, keys[i]);
        return;
    }
    struct fp8_block block;
    json_object_set_new(q, "quant_method", json_string("fp8"));
    if (!json_object_get(q, "activation_scheme"))
        json_object_set_new(q, "activation_scheme", json_string("dynamic"));
    if (!json_object_get(q, "weight_block_size") && model_fp8_block(made->model, 0, &block))
        json_object_set_new(q, "weight_block_size",
                            json_pack("[I,I]", (json_int_t)block.rows, (json_int_t)block.cols));
}

static char *nvfp4_config(json_t *config, json_t *quant, json_t *layers,
                          const struct outgoing *made)
{
    json_t *q = json_object_get(config, "quantization_config");
    if (!json_is_object(q)) {
        q = json_object();
        json_object_set_new(config, "quantization_config", q);
    }
    set_fp8(q, made);
    if (made->experts)
        json_object_set_new(q, "moe_quant_algo", json_string("NVFP4"));
    else
        json_object_del(q, "moe_quant_algo");
    json_object_set(q, "producer", quant_value(quant, "producer"));
    json_object_set_new(q, "quant_algo", json_string(quant_algo(made)));
    json_object_set(q, "kv_cache_quant_algo", quant_value(quant, "kv_cache_quant_algo"));
    json_object_set_new(q, "group_size", json_integer(NVFP4_BLOCK));
    json_object_set_new(q, "config_groups", config_groups());
    json_object_set(q, "quantized_layers", layers);
    json_object_del(q, "exclude_modules");
    json_object_set(q, "ignore", quant_value(quant, "exclude_modules"));
    return config_text(config, true);
}

static char *nvfp4_hf_quant(json_t *quant, json_t *layers, const struct outgoing *made)
{
    json_t *document = json_pack(
        "{s:O, s:{s:s, s:O, s:i, s:O, s:O}}", "producer", quant_value(quant, "producer"),
        "quantization", "quant_algo", quant_algo(made), "kv_cache_quant_algo",
        quant_value(quant, "kv_cache_quant_algo"), "group_size", NVFP4_BLOCK, "quantized_layers",
        layers, "exclude_modules", quant_value(quant, "exclude_modules"));
    if (!document)
        die("out of memory");
    char *text = config_text(document, false);
    json_decref(document);
    return text;
}

/* No NVFP4 is left: restore config.json to its state before quantization, or remove the entry if
 * all weights are plain now. */
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
    struct outgoing made = survey(ts_model(in), toc);
    *configs = (struct configs){0};
    json_t *quant = json_object_get(ts_header(in), "quant");
    json_t *config = ts_file_json(in, "config.json");
    if (made.format[FORMAT_NVFP4] && json_object_get(quant, "recipe")) {
        json_t *layers = quantized_layers(ts_model(in), toc);
        configs->hf_quant = nvfp4_hf_quant(quant, layers, &made);
        if (config)
            configs->config = nvfp4_config(config, quant, layers, &made);
        json_decref(layers);
    } else if (!made.format[FORMAT_NVFP4] && config) {
        configs->config =
            dequantized_config(config, made.format[FORMAT_FP8] || made.format[FORMAT_MXFP4]);
    }
    /* useless once NVFP4 weights are dequantized */
    json_t *formats = json_object_get(json_object_get(ts_header(in), "input"), "formats");
    bool was_nvfp4 = json_object_get(formats, format_name(FORMAT_NVFP4)) != NULL;
    configs->keep_hf_quant =
        !configs->config && !configs->hf_quant && made.format[FORMAT_NVFP4] == was_nvfp4;
    json_decref(config);
}

void configs_free(struct configs *configs)
{
    free(configs->config);
    free(configs->hf_quant);
}
