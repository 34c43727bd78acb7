/* DeepSeek-V3 (V3, R1, V3.1), V3.2, which adds an indexer, and models of the same architecture such
 * as Kimi-K2, with the tensor names of their releases. Layers from num_hidden_layers on are MTP's.
 * Sources: the releases' config.json and model.safetensors.index.json; for the names in calibration
 * dumps, DeepSeek's inference/model.py of V3 and V3.2. */
#include <stdio.h>
#include <string.h>

#include "model/family.h"

static const struct section_name sections[] = {
    {.prefix = "model.embed_tokens.", .section = SECTION_EMBED, .stays = true},
    {.prefix = "model.layers.#.", .section = SECTION_LAYERS},
    {.prefix = "model.norm.", .section = SECTION_NORM, .stays = true},
    {.prefix = "lm_head.", .section = SECTION_HEAD, .stays = true},
    {0},
};

/* gate and up form one fused product */
static const struct matrix_name mlp[] = {
    {.name = "gate_proj", .group = 1}, {.name = "up_proj", .group = 1}, {.name = "down_proj"}, {0}};

/* in the order of use; q_a_proj and kv_a_proj_with_mqa, of the same input, form one fused product;
 * q_proj replaces the low-rank q of small models */
static const struct matrix_name attention[] = {{.name = "q_proj"},
                                               {.name = "q_a_proj", .group = 1},
                                               {.name = "kv_a_proj_with_mqa", .group = 1},
                                               {.name = "q_a_layernorm", .stays = true},
                                               {.name = "kv_a_layernorm", .stays = true},
                                               {.name = "q_b_proj"},
                                               {.name = "indexer.wq_b"},
                                               {.name = "indexer.wk"},
                                               {.name = "indexer.k_norm", .stays = true},
                                               {.name = "indexer.weights_proj"},
                                               {.name = "kv_b_proj"},
                                               {.name = "o_proj"},
                                               {0}};

static const struct part_name parts[] = {
    {.prefix = "embed_tokens.", .stays = true}, /* MTP only, as are the next three */
    {.prefix = "enorm.", .stays = true},
    {.prefix = "hnorm.", .stays = true},
    {.prefix = "eh_proj."},
    {.prefix = "input_layernorm.", .stays = true},
    {.prefix = "self_attn.", .matrix = attention},
    {.prefix = "post_attention_layernorm.", .stays = true},
    {.prefix = "mlp.gate.", .stays = true},
    {.prefix = "mlp.shared_experts.", .matrix = mlp},
    {.prefix = "mlp.experts.#.", .matrix = mlp},
    {.prefix = "mlp.", .matrix = mlp},         /* of dense layers */
    {.prefix = "shared_head.", .stays = true}, /* MTP only */
    {0},
};

/* ---- what a checkpoint has ---- */

static json_int_t dimension(const struct model *model, const char *key)
{
    return json_integer_value(json_object_get(model->config, key));
}

/* The first layers have one MLP instead of experts; of the others, every moe_layer_freq-th has
 * experts. */
static bool is_dense(const struct model *model, const struct place *place)
{
    json_int_t step = dimension(model, "moe_layer_freq");
    bool between = step > 1 && place->layer % step != 0;
    return place->section == SECTION_LAYERS &&
           (place->layer < dimension(model, "first_k_dense_replace") || between);
}

static bool has_experts(const struct model *model, const struct place *place)
{
    return !is_dense(model, place);
}

static bool has_shared_experts(const struct model *model, const struct place *place)
{
    return has_experts(model, place) && dimension(model, "n_shared_experts") > 0;
}

static bool has_low_rank_q(const struct model *model, const struct place *place)
{
    (void)place;
    return dimension(model, "q_lora_rank") > 0;
}

static bool has_full_q(const struct model *model, const struct place *place)
{
    return !has_low_rank_q(model, place);
}

static bool has_indexer(const struct model *model, const struct place *place)
{
    (void)place;
    return dimension(model, "index_topk") > 0;
}

static bool is_draft(const struct model *model, const struct place *place)
{
    (void)model;
    return place->section == SECTION_MTP;
}

static const char *const has[] = {"model.embed_tokens.weight", "model.norm.weight",
                                  "lm_head.weight", NULL};
static const char *const of_all[] = {"input_layernorm.weight",
                                     "self_attn.kv_a_layernorm.weight",
                                     "self_attn.kv_a_proj_with_mqa.weight",
                                     "self_attn.kv_b_proj.weight",
                                     "self_attn.o_proj.weight",
                                     "post_attention_layernorm.weight",
                                     NULL};
static const char *const of_low_rank_q[] = {"self_attn.q_a_proj.weight",
                                            "self_attn.q_a_layernorm.weight",
                                            "self_attn.q_b_proj.weight", NULL};
static const char *const of_full_q[] = {"self_attn.q_proj.weight", NULL};
static const char *const of_indexer[] = {
    "self_attn.indexer.wq_b.weight", "self_attn.indexer.wk.weight",
    "self_attn.indexer.k_norm.weight", "self_attn.indexer.weights_proj.weight", NULL};
static const char *const of_dense[] = {"mlp.gate_proj.weight", "mlp.up_proj.weight",
                                       "mlp.down_proj.weight", NULL};
static const char *const of_experts[] = {"mlp.gate.weight", NULL};
static const char *const of_shared_experts[] = {"mlp.shared_experts.gate_proj.weight",
                                                "mlp.shared_experts.up_proj.weight",
                                                "mlp.shared_experts.down_proj.weight", NULL};
static const char *const of_drafts[] = {"enorm.weight", "hnorm.weight", "eh_proj.weight", NULL};

static const struct layer_names layer_has[] = {
    {of_all, NULL},
    {of_low_rank_q, has_low_rank_q},
    {of_full_q, has_full_q},
    {of_indexer, has_indexer},
    {of_dense, is_dense},
    {of_experts, has_experts},
    {of_shared_experts, has_shared_experts},
    {of_drafts, is_draft},
    {0},
};

static const char *experts_key(const struct model *model, const struct place *place)
{
    return is_dense(model, place) ? NULL : "n_routed_experts";
}

enum { CLASS_SCORE, CLASS_MTP };
static const struct expert_class classes[] = {
    [CLASS_SCORE] = {"score", "score-routed"},
    [CLASS_MTP] = {"mtp", "MTP"},
    {0},
};

static unsigned expert_class(const struct model *model, const struct place *place)
{
    return is_draft(model, place) ? CLASS_MTP : CLASS_SCORE;
}

/* ---- names in calibration dumps ---- */

/* Components of names, in the release and in dumps; the others are the same. */
static const struct spelling {
    const char *name, *dumped;
} spellings[] = {
    {"self_attn", "attn"},  {"mlp", "ffn"},       {"q_proj", "wq"},
    {"q_a_proj", "wq_a"},   {"q_b_proj", "wq_b"}, {"kv_a_proj_with_mqa", "wkv_a"},
    {"kv_b_proj", "wkv_b"}, {"o_proj", "wo"},     {"gate_proj", "w1"},
    {"down_proj", "w2"},    {"up_proj", "w3"},    {"lm_head", "head"},
};

/* The other spelling of a component of *length characters, which becomes its length; the component
 * itself if it has none. */
static const char *respell(const char *component, size_t *length, bool to_dump)
{
    for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++) {
        const struct spelling *s = &spellings[i];
        const char *from = to_dump ? s->name : s->dumped, *to = to_dump ? s->dumped : s->name;
        if (strlen(from) == *length && !strncmp(from, component, *length)) {
            *length = strlen(to);
            return to;
        }
    }
    return component;
}

/* Append the name to `out`, each component respelled. The indexer's wq_b has one name only. False
 * if it does not fit. */
static bool respell_all(const char *name, char *out, bool to_dump)
{
    size_t used = strlen(out);
    for (bool same = false;; name++) {
        size_t length = strcspn(name, "."), written = length;
        const char *component = same ? name : respell(name, &written, to_dump);
        same = length == strlen("indexer") && !strncmp(name, "indexer", length);
        name += length;
        if (used + written + 1 > TENSOR_NAME_MAX)
            return false;
        memcpy(out + used, component, written);
        used += written;
        out[used] = *name;
        if (!*name)
            return true;
        out[++used] = 0;
    }
}

static const char prefix[] = "model.";

/* "model.layers.3.self_attn.o_proj" is dumped as "layers.3.attn.wo". */
static bool to_dump(const char *module, char *dumped)
{
    size_t length = strlen(prefix);
    *dumped = 0;
    return respell_all(strncmp(module, prefix, length) != 0 ? module : module + length, dumped,
                       true);
}

static bool from_dump(const struct model *model, const char *dumped, char *module)
{
    static const char layers[] = "layers.";
    (void)model;
    bool in_layer = !strncmp(dumped, layers, strlen(layers));
    strcpy(module, in_layer ? prefix : "");
    return respell_all(dumped, module, false);
}

static const char *const others[] = {"deepseek_v32", "kimi_k2", NULL};

const struct family family_deepseek_v3 = {
    .type = "deepseek_v3",
    .other_types = others,
    .section = sections,
    .part = parts,
    .has = has,
    .layer_has = layer_has,
    .experts_key = experts_key,
    .amax_separator = ".",
    .to_dump = to_dump,
    .from_dump = from_dump,
    .classes = classes,
    .expert_class = expert_class,
};
