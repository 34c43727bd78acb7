#include "write/config.h"

#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/json.h"
#include "engines/formats.h"
#include "stream/shard_name.h"
#include "tensor/nvfp4.h"
#include "tensor/weight.h"
#include "write/unquantized.h"

/* What NVFP4 adds to quantization_config, and what says how FP8 weights are to be read; each is
 * taken out when the last weight of its format is gone. */
static const char *const nvfp4_keys[] = {"moe_quant_algo",      "producer",   "quant_algo",
                                         "kv_cache_quant_algo", "group_size", "config_groups",
                                         "quantized_layers",    "ignore",     "exclude_modules",
                                         "kv_cache_scheme",     NULL};
static const char *const fp8_keys[] = {"activation_scheme", "fmt", "scale_fmt", "weight_block_size",
                                       NULL};

static void delete_keys(json_t *object, const char *const *key)
{
    for (; *key; key++)
        json_object_del(object, *key);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names of the matrices of one format, sorted; the caller frees them. */
struct names {
    char **name;
    size_t count;
};

/* All routed experts of a layer have one name, unless `each`. */
static struct names names_of(const struct model *model, const struct toc *toc, enum format format,
                             bool each)
{
    struct names all = {0};
    for (size_t i = 0; i < toc->count; i++) {
        char key[TENSOR_NAME_MAX + 1];
        const struct tensor *tensor = &toc->tensor[i];
        if (tensor->context || format_of(tensor) != format)
            continue;
        struct place place = model_place(model, weight_module(tensor, key));
        if (place_is_routed(&place) && !each)
            model_experts_path(model, &place, key);
        if (all.count && !strcmp(all.name[all.count - 1], key))
            continue;
        all.name = xgrow(all.name, all.count + 1, sizeof *all.name);
        all.name[all.count++] = xstrdup(key);
    }
    if (all.count)
        qsort(all.name, all.count, sizeof *all.name, by_text);
    return all;
}

/* True if the FP8 matrix of that module has one scale. */
static bool is_per_tensor(struct toc *toc, const char *module)
{
    char *name = xprintf("%s.weight_scale", module);
    int64_t line = toc_find(toc, name);
    free(name);
    return line >= 0 && toc->tensor[line].size == sizeof(float);
}

/* {module: {"quant_algo": "NVFP4", "group_size": 16}}, sorted: one entry for all routed experts of
 * a layer, one for each other matrix. If NVFP4 is not only in routed experts (`dense`), each matrix
 * has its own, also those in FP8: engines take a module that is not listed, unless its method is
 * fp8, for unquantized. */
static json_t *quantized_layers(const struct model *model, struct toc *toc, bool dense,
                                const json_t *exclude)
{
    json_t *layers = json_object();
    struct names nvfp4 = names_of(model, toc, FORMAT_NVFP4, dense), fp8 = {0};
    for (size_t i = 0; i < nvfp4.count; i++) {
        json_object_set_new(
            layers, nvfp4.name[i],
            json_pack("{s:s, s:i}", "quant_algo", "NVFP4", "group_size", NVFP4_BLOCK));
        free(nvfp4.name[i]);
    }
    if (dense)
        fp8 = names_of(model, toc, FORMAT_FP8, true);
    for (size_t i = 0; i < fp8.count; i++) {
        const char *algo = is_per_tensor(toc, fp8.name[i]) ? "FP8" : "FP8_PB_WO";
        if (!matching_pattern(exclude, fp8.name[i]))
            json_object_set_new(layers, fp8.name[i], json_pack("{s:s}", "quant_algo", algo));
        free(fp8.name[i]);
    }
    free(nvfp4.name);
    free(fp8.name);
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
    bool experts[FORMAT_COUNT + 1]; /* of routed experts; MTP's count where there are no others */
    bool dense;                     /* NVFP4 outside of routed experts */
    bool blocks;                    /* FP8 with a scale per block: */
    struct fp8_block block;         /* the size of most, by the first one; 0 rows if unknown */
    bool was[FORMAT_COUNT];         /* of the checkpoint that was read */
    bool changed;                   /* a quantized format went or came … */
    bool converted;                 /* … or there is more or less of it now */
};

static void look_at_experts(struct outgoing *made, const struct toc *toc, bool mtp)
{
    for (size_t i = 0; i < toc->count; i++) {
        struct place place = model_place(made->model, toc->tensor[i].name);
        if (place_is_routed(&place) && (place.section == SECTION_MTP) == mtp)
            made->experts[format_of(&toc->tensor[i])] = true;
    }
}

static bool is_grid(uint64_t scales, uint64_t elements, uint64_t block)
{
    return scales == elements / block + (elements % block != 0);
}

/* The block size of an FP8 matrix, by the shape of its scales; 0 rows if it is none. A row of an
 * embedding's table has blocks of its own (V4.1's Engram), which the configs do not name. */
static struct fp8_block block_of(const struct model *model, struct toc *toc,
                                 const struct tensor *tensor)
{
    static const char *const suffix[] = {".scale", ".weight_scale_inv"};
    char module[TENSOR_NAME_MAX + 1];
    struct fp8_block block;
    int64_t line = -1;
    weight_module(tensor, module);
    for (size_t i = 0; line < 0 && i < sizeof suffix / sizeof *suffix; i++) {
        char *name = xprintf("%s%s", module, suffix[i]);
        line = toc_find(toc, name);
        free(name);
    }
    const struct tensor *scale = line < 0 ? NULL : &toc->tensor[line];
    bool grid = scale && scale->rank == 2 && tensor->rank == 2;
    for (unsigned i = 0; grid && model_fp8_block(model, i, &block); i++)
        if (block.rows > 1 && is_grid(scale->dim[0], tensor->dim[0], block.rows) &&
            is_grid(scale->dim[1], tensor->dim[1], block.cols))
            return block;
    return (struct fp8_block){0};
}

static bool any_experts(const struct outgoing *made)
{
    return made->experts[FORMAT_PLAIN] || made->experts[FORMAT_FP8] ||
           made->experts[FORMAT_MXFP4] || made->experts[FORMAT_NVFP4];
}

static struct outgoing survey(struct ts_in *in, struct toc *toc)
{
    struct outgoing made = {.model = ts_model(in)};
    json_t *before = json_object_get(json_object_get(ts_header(in), "input"), "formats");
    json_t *totals = formats_totals(toc), *now = json_object_get(totals, "formats");
    for (size_t i = 0; i < toc->count; i++) {
        enum format format = format_of(&toc->tensor[i]);
        struct place place = model_place(made.model, toc->tensor[i].name);
        made.format[format] = true;
        made.dense |= format == FORMAT_NVFP4 && !place_is_routed(&place);
        if (format == FORMAT_FP8 && !made.blocks) {
            char module[TENSOR_NAME_MAX + 1];
            made.blocks = !is_per_tensor(toc, weight_module(&toc->tensor[i], module));
        }
        if (format == FORMAT_FP8 && !made.block.rows)
            made.block = block_of(made.model, toc, &toc->tensor[i]);
    }
    for (enum format f = FORMAT_FP8; f < FORMAT_COUNT; f++) {
        json_t *was = json_object_get(before, format_name(f));
        json_t *is = json_object_get(now, format_name(f));
        made.was[f] = was != NULL;
        made.changed |= made.was[f] != made.format[f];
        made.converted |= json_integer_value(was) != json_integer_value(is);
    }
    json_decref(totals);
    look_at_experts(&made, toc, false);
    if (!any_experts(&made))
        look_at_experts(&made, toc, true);
    return made;
}

static bool experts_are_nvfp4(const struct outgoing *made)
{
    return made->experts[FORMAT_NVFP4] && !made->experts[FORMAT_MXFP4] &&
           !made->experts[FORMAT_FP8] && !made->experts[FORMAT_PLAIN];
}

/* A checkpoint with other quantized formats besides NVFP4 has mixed precision. */
static const char *quant_algo(const struct outgoing *made)
{
    return made->format[FORMAT_FP8] || made->format[FORMAT_MXFP4] ? "MIXED_PRECISION" : "NVFP4";
}

/* The name of the routed experts' format in config.json; NULL for BF16 and for several formats,
 * which have none. */
static const char *expert_dtype(const struct outgoing *made)
{
    bool fp4 = made->experts[FORMAT_MXFP4] || made->experts[FORMAT_NVFP4];
    bool fp8 = made->experts[FORMAT_FP8], plain = made->experts[FORMAT_PLAIN];
    return fp4 + fp8 + plain != 1 ? NULL : fp4 ? "fp4" : fp8 ? "fp8" : NULL;
}

/* Set the keys for reading the weights; engines check those of FP8 first. Their fp8 is that of
 * checkpoints with NVFP4 in routed experts alone. FP8 with one scale is Model Optimizer's. */
static void set_method(json_t *q, const struct outgoing *made)
{
    if (!made->blocks) {
        bool modelopt = made->format[FORMAT_NVFP4] || made->format[FORMAT_FP8];
        const char *method = modelopt ? "modelopt" : "mxfp4";
        json_object_set_new(q, "quant_method", json_string(method));
        delete_keys(q, fp8_keys);
        return;
    }
    const json_t *size = json_object_get(q, "weight_block_size");
    bool known = json_array_size(size) == 2 && json_integer_value(json_array_get(size, 0)) > 0 &&
                 json_integer_value(json_array_get(size, 1)) > 0;
    json_object_set_new(q, "quant_method", json_string(made->dense ? "modelopt" : "fp8"));
    if (!json_object_get(q, "activation_scheme"))
        json_object_set_new(q, "activation_scheme", json_string("dynamic"));
    if (!known && made->block.rows)
        json_object_set_new(
            q, "weight_block_size",
            json_pack("[I,I]", (json_int_t)made->block.rows, (json_int_t)made->block.cols));
}

static void correct_quantization(json_t *object, const char *key, const struct outgoing *made)
{
    json_t *q = json_object_get(object, key);
    if (!made->format[FORMAT_FP8] && !made->format[FORMAT_MXFP4] && !made->format[FORMAT_NVFP4]) {
        json_object_del(object, key);
        return;
    }
    if (!json_is_object(q))
        return;
    set_method(q, made);
    if (made->format[FORMAT_NVFP4])
        json_object_set_new(q, "quant_algo", json_string(quant_algo(made)));
    else if (made->was[FORMAT_NVFP4] || json_object_get(q, "quantized_layers"))
        delete_keys(q, nvfp4_keys);
}

static void correct_expert_dtype(json_t *object, const char *key, const struct outgoing *made)
{
    const char *dtype = expert_dtype(made);
    const json_t *old = json_object_get(object, key);
    if (!old || json_is_null(old) || !any_experts(made))
        return;
    if (dtype)
        json_object_set_new(object, key, json_string(dtype));
    else
        json_object_del(object, key);
}

/* Derive every key about formats, in this object and those inside it, from the formats present:
 * V4.1 has expert_dtype in quantization_config, and other models have both in text_config. */
static void correct(json_t *object, const struct outgoing *made)
{
    const char *key;
    json_t *value;
    if (made->changed)
        correct_quantization(object, "quantization_config", made);
    if (made->converted)
        correct_expert_dtype(object, "expert_dtype", made);
    json_object_foreach(object, key, value) correct(value, made);
}

/* The first quantization_config, at any depth; NULL if there is none. */
static json_t *find_quantization(json_t *object)
{
    const char *key;
    json_t *value, *found = json_object_get(object, "quantization_config");
    json_object_foreach(object, key, value)
    {
        if (json_is_object(found))
            break;
        found = find_quantization(value);
    }
    return json_is_object(found) ? found : NULL;
}

/* What the recipe and the tensors say of the quantized checkpoint, for both files; the caller owns
 * it. "exclude_modules" is there; "group_size" and "quantized_layers" may be missing. */
static json_t *described(json_t *quant, struct toc *toc, const struct outgoing *made)
{
    json_t *exclude = quant_value(quant, "exclude_modules"), *listed = NULL, *all = json_object();
    bool lists = json_is_null(exclude), mixed = !strcmp(quant_algo(made), "MIXED_PRECISION");
    if (lists)
        exclude = listed = unquantized_modules(made->model, toc);
    json_object_set_new(all, "quant_algo", json_string(quant_algo(made)));
    json_object_set(all, "kv_cache_quant_algo", quant_value(quant, "kv_cache_quant_algo"));
    if (!lists || !mixed) /* else each layer has its own */
        json_object_set_new(all, "group_size", json_integer(NVFP4_BLOCK));
    if (!lists || mixed)
        json_object_set_new(all, "quantized_layers",
                            quantized_layers(made->model, toc, made->dense || lists, exclude));
    json_object_set(all, "exclude_modules", exclude);
    json_decref(listed);
    return all;
}

/* Serving engines read the KV cache's format here; FP8 has no other scale than 1. */
static void set_kv_cache(json_t *q)
{
    const char *algo = json_string_value(json_object_get(q, "kv_cache_quant_algo"));
    if (algo && !strcmp(algo, "FP8"))
        json_object_set_new(
            q, "kv_cache_scheme",
            json_pack("{s:b, s:i, s:s}", "dynamic", 0, "num_bits", 8, "type", "float"));
    else
        json_object_del(q, "kv_cache_scheme");
}

/* FP8's lists of what is not quantized: without the modules that now are. */
static void correct_ignored(json_t *q, const struct outgoing *made, const struct toc *toc)
{
    static const char *const key[] = {"ignored_layers", "modules_to_not_convert"};
    struct names nvfp4 = names_of(made->model, toc, FORMAT_NVFP4, false);
    for (size_t k = 0; k < sizeof key / sizeof *key; k++) {
        json_t *list = json_object_get(q, key[k]);
        for (size_t i = json_array_size(list); i-- > 0;) {
            const char *text = json_string_value(json_array_get(list, i));
            bool named = false;
            for (size_t n = 0; text && !named && n < nvfp4.count; n++)
                named = strstr(text, nvfp4.name[n]);
            if (named)
                json_array_remove(list, i);
        }
    }
    for (size_t n = 0; n < nvfp4.count; n++)
        free(nvfp4.name[n]);
    free(nvfp4.name);
}

static char *nvfp4_config(json_t *config, json_t *quant, json_t *all, const struct toc *toc,
                          const struct outgoing *made)
{
    static const char *const old[] = {"exclude_modules", "group_size", "quantized_layers", NULL};
    correct(config, made);
    json_t *q = find_quantization(config);
    if (!q) {
        q = json_object();
        json_object_set_new(config, "quantization_config", q);
    }
    set_method(q, made);
    correct_ignored(q, made, toc);
    if (experts_are_nvfp4(made) && (made->blocks || made->format[FORMAT_MXFP4]))
        json_object_set_new(q, "moe_quant_algo", json_string("NVFP4"));
    else
        json_object_del(q, "moe_quant_algo");
    json_object_set(q, "producer", quant_value(quant, "producer"));
    json_object_set_new(q, "config_groups", config_groups());
    delete_keys(q, old);
    json_object_update(q, all);
    json_object_del(q, "exclude_modules");
    json_object_set(q, "ignore", json_object_get(all, "exclude_modules"));
    set_kv_cache(q);
    return config_text(config, true);
}

static char *nvfp4_hf_quant(json_t *quant, json_t *all)
{
    json_t *document =
        json_pack("{s:O, s:O}", "producer", quant_value(quant, "producer"), "quantization", all);
    if (!document)
        die("out of memory");
    char *text = config_text(document, false);
    json_decref(document);
    return text;
}

/* For a stream without a recipe: NULL if config.json is right as it is. */
static char *corrected_config(json_t *config, const struct outgoing *made)
{
    json_t *before = json_deep_copy(config);
    correct(config, made);
    char *text = json_equal(before, config) ? NULL : config_text(config, false);
    json_decref(before);
    return text;
}

/* The NVFP4 weights are those of the source, but the formats beside them have changed. NULL if
 * there is no such file. */
static char *corrected_hf_quant(json_t *document, const struct outgoing *made)
{
    json_t *quantization = json_object_get(document, "quantization");
    if (!json_is_object(quantization))
        return NULL;
    json_object_set_new(quantization, "quant_algo", json_string(quant_algo(made)));
    return config_text(document, false);
}

/* True if a stage has done more than to select tensors, of which there are fewer then, too. */
static bool is_result(struct ts_in *in)
{
    size_t i;
    json_t *stage;
    json_array_foreach(json_object_get(ts_header(in), "history"), i, stage)
    {
        if (!json_is_true(json_object_get(stage, "selects")))
            return true;
    }
    return false;
}

/* True for the files of model-parallel ranks, which the code in the source reads. */
static bool is_of_ranks(const struct toc *toc)
{
    return toc->shards && shard_is_rank(toc->shard[0]);
}

/* hf_quant_config.json as it will be; the caller owns it. */
static json_t *new_hf_quant(const struct configs *configs, struct ts_in *in)
{
    if (configs->keep_hf_quant)
        return ts_file_json(in, "hf_quant_config.json");
    return configs->hf_quant ? json_loads(configs->hf_quant, 0, NULL) : NULL;
}

void configs_derive(struct configs *configs, struct ts_in *in, struct toc *toc)
{
    struct outgoing made = survey(in, toc);
    json_t *quant = json_object_get(ts_header(in), "quant");
    json_t *config = ts_file_json(in, "config.json");
    *configs = (struct configs){.converted = made.changed && is_result(in) && !is_of_ranks(toc)};
    if (made.format[FORMAT_NVFP4] && json_object_get(quant, "recipe")) {
        json_t *all = described(quant, toc, &made);
        configs->hf_quant = nvfp4_hf_quant(quant, all);
        if (config)
            configs->config = nvfp4_config(config, quant, all, toc, &made);
        json_decref(all);
    } else {
        if (config)
            configs->config = corrected_config(config, &made);
        configs->keep_hf_quant = !made.changed;
        bool corrected = made.changed && made.format[FORMAT_NVFP4];
        json_t *hf_quant = corrected ? ts_file_json(in, "hf_quant_config.json") : NULL;
        configs->hf_quant = corrected_hf_quant(hf_quant, &made);
        json_decref(hf_quant);
    }
    configs->evidence = (struct evidence){.config = config,
                                          .hf_quant = new_hf_quant(configs, in),
                                          .found = formats_found(made.model, toc, config)};
}

void configs_free(struct configs *configs)
{
    free(configs->config);
    free(configs->hf_quant);
    json_decref((json_t *)configs->evidence.config);
    json_decref((json_t *)configs->evidence.hf_quant);
}
