/* DeepSeek-V4 (Pro, Flash) with the tensor names of its release. Source: DeepSeek's V4-Flash
 * release, inference/model.py. */
#include "model/deepseek_v4.h"

static const struct section_name sections[] = {
    {.prefix = "embed.", .section = SECTION_EMBED, .stays = true},
    {.prefix = "layers.#.", .section = SECTION_LAYERS},
    {.prefix = "norm.", .section = SECTION_NORM, .stays = true},
    {.prefix = "hc_head_", .section = SECTION_HEAD, .stays = true},
    {.prefix = "head.", .section = SECTION_HEAD, .part = 1, .stays = true},
    {.prefix = "mtp.#.", .section = SECTION_MTP},
    {0},
};

/* gate, up, down; gate and up form one fused product */
const struct matrix_name deepseek_v4_mlp[] = {
    {.name = "w1", .group = 1}, {.name = "w3", .group = 1}, {.name = "w2"}, {0}};

/* in the order of use; wq_a and wkv, of the same input, form one fused product */
const struct matrix_name deepseek_v4_attention[] = {{.name = "wq_a", .group = 1},
                                                    {.name = "wkv", .group = 1},
                                                    {.name = "q_norm", .stays = true},
                                                    {.name = "kv_norm", .stays = true},
                                                    {.name = "wq_b"},
                                                    {.name = "indexer.wq_b"},
                                                    {.name = "wo_a"},
                                                    {.name = "wo_b"},
                                                    {0}};

static const struct part_name parts[] = {
    {.prefix = "enorm.", .stays = true}, /* April's MTP only, as are the next three */
    {.prefix = "hnorm.", .stays = true},
    {.prefix = "e_proj."},
    {.prefix = "h_proj."},
    {.prefix = "main_norm.", .stays = true}, /* DSpark's drafts only, as is the next one */
    {.prefix = "main_proj."},
    {.prefix = "hc_attn_", .stays = true},
    {.prefix = "attn_norm.", .stays = true},
    {.prefix = "attn.attn_sink", .stays = true},
    {.prefix = "attn.compressor.", .stays = true},
    {.prefix = "attn.indexer.compressor.", .stays = true},
    {.prefix = "attn.indexer.weights_proj.", .stays = true},
    {.prefix = "attn.", .matrix = deepseek_v4_attention},
    {.prefix = "hc_ffn_", .stays = true},
    {.prefix = "ffn_norm.", .stays = true},
    {.prefix = "ffn.gate.", .stays = true},
    {.prefix = "ffn.shared_experts.", .matrix = deepseek_v4_mlp},
    {.prefix = "ffn.experts.#.", .matrix = deepseek_v4_mlp},
    {0},
};

/* In all releases; compressor, indexer, hash tables and biases are in some layers only. */
static const char *const has[] = {
    "embed.weight", "norm.weight", "hc_head_base", "hc_head_fn", "hc_head_scale",
    "head.weight",  NULL};
static const char *const of_all[] = {"hc_attn_base",
                                     "hc_attn_fn",
                                     "hc_attn_scale",
                                     "attn_norm.weight",
                                     "attn.attn_sink",
                                     "attn.kv_norm.weight",
                                     "attn.q_norm.weight",
                                     "attn.wkv.weight",
                                     "attn.wo_a.weight",
                                     "attn.wo_b.weight",
                                     "attn.wq_a.weight",
                                     "attn.wq_b.weight",
                                     "hc_ffn_base",
                                     "hc_ffn_fn",
                                     "hc_ffn_scale",
                                     "ffn_norm.weight",
                                     "ffn.gate.weight",
                                     "ffn.shared_experts.w1.weight",
                                     "ffn.shared_experts.w3.weight",
                                     "ffn.shared_experts.w2.weight",
                                     NULL};
const struct layer_names deepseek_v4_layer_has[] = {{of_all, NULL}, {0}};

static const char *experts_key(const struct model *model, const struct place *place)
{
    (void)model;
    (void)place;
    return "n_routed_experts";
}

enum { CLASS_HASH, CLASS_SCORE, CLASS_MTP };
static const struct expert_class classes[] = {
    [CLASS_HASH] = {"hash", "hash-routed"},
    [CLASS_SCORE] = {"score", "score-routed"},
    [CLASS_MTP] = {"mtp", "MTP"},
    {0},
};

/* The first num_hash_layers layers route by token id, the others by score. */
static unsigned expert_class(const struct model *model, const struct place *place)
{
    json_int_t hash_layers = json_integer_value(json_object_get(model->config, "num_hash_layers"));
    return place->section == SECTION_MTP ? CLASS_MTP
           : place->layer < hash_layers  ? CLASS_HASH
                                         : CLASS_SCORE;
}

const struct family family_deepseek_v4 = {
    .type = "deepseek_v4",
    .section = sections,
    .part = parts,
    .has = has,
    .layer_has = deepseek_v4_layer_has,
    .experts_key = experts_key,
    .dspark = "mtp.0.main_proj",
    .weighs_early = true,
    .amax_separator = "_",
    .classes = classes,
    .expert_class = expert_class,
    .chat = CHAT_V4,
};
