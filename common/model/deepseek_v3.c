/* DeepSeek-V3 (V3, R1, V3.1), V3.2, which adds an indexer, and models of the same architecture such
 * as Kimi-K2, with the tensor names of their releases. Layers from num_hidden_layers on are MTP's.
 * Sources: the releases' config.json and model.safetensors.index.json; for the names in files of
 * ranks and in calibration dumps, DeepSeek's inference/ of V3 and V3.2. */
#include "model/family.h"

static const struct section_name sections[] = {
    {.prefix = "model.embed_tokens.",
     .section = SECTION_EMBED,
     .stays = true,
     .in_ranks = "embed.",
     .share = SHARE_ROWS},
    {.prefix = "model.layers.#.", .section = SECTION_LAYERS, .in_ranks = "layers.#."},
    {.prefix = "model.norm.", .section = SECTION_NORM, .stays = true, .in_ranks = "norm."},
    {.prefix = "lm_head.",
     .section = SECTION_HEAD,
     .stays = true,
     .in_ranks = "head.",
     .share = SHARE_ROWS},
    {0},
};

/* gate and up form one fused product */
static const struct matrix_name mlp[] = {
    {.name = "gate_proj", .group = 1, .in_ranks = "w1", .share = SHARE_ROWS},
    {.name = "up_proj", .group = 1, .in_ranks = "w3", .share = SHARE_ROWS},
    {.name = "down_proj", .in_ranks = "w2", .share = SHARE_COLS},
    {0}};

/* in the order of use; q_a_proj and kv_a_proj_with_mqa, of the same input, form one fused product;
 * q_proj replaces the low-rank q of small models */
static const struct matrix_name attention[] = {
    {.name = "q_proj", .in_ranks = "wq", .share = SHARE_ROWS},
    {.name = "q_a_proj", .group = 1, .use = USE_LATENT, .in_ranks = "wq_a"},
    {.name = "kv_a_proj_with_mqa", .group = 1, .use = USE_LATENT, .in_ranks = "wkv_a"},
    {.name = "q_a_layernorm", .stays = true, .in_ranks = "q_norm"},
    {.name = "kv_a_layernorm", .stays = true, .in_ranks = "kv_norm"},
    {.name = "q_b_proj", .in_ranks = "wq_b", .share = SHARE_ROWS},
    {.name = "indexer.wq_b"},
    {.name = "indexer.wk", .use = USE_INDEXER},
    {.name = "indexer.k_norm", .stays = true},
    {.name = "indexer.weights_proj", .use = USE_INDEXER},
    {.name = "kv_b_proj", .use = USE_ABSORBED, .in_ranks = "wkv_b", .share = SHARE_ROWS},
    {.name = "o_proj", .in_ranks = "wo", .share = SHARE_COLS},
    {0}};

static const struct part_name parts[] = {
    {.prefix = "embed_tokens.", .stays = true}, /* MTP only, as are the next three */
    {.prefix = "enorm.", .stays = true},
    {.prefix = "hnorm.", .stays = true},
    {.prefix = "eh_proj."},
    {.prefix = "input_layernorm.", .stays = true, .in_ranks = "attn_norm."},
    {.prefix = "self_attn.", .matrix = attention, .in_ranks = "attn."},
    {.prefix = "post_attention_layernorm.", .stays = true, .in_ranks = "ffn_norm."},
    {.prefix = "mlp.gate.e_score_correction_bias", .stays = true, .in_ranks = "ffn.gate.bias"},
    {.prefix = "mlp.gate.", .stays = true, .in_ranks = "ffn.gate."},
    {.prefix = "mlp.shared_experts.", .matrix = mlp, .in_ranks = "ffn.shared_experts."},
    {.prefix = "mlp.experts.#.", .matrix = mlp, .in_ranks = "ffn.experts.#."},
    {.prefix = "mlp.", .matrix = mlp, .in_ranks = "ffn."}, /* of dense layers */
    {.prefix = "shared_head.", .stays = true},             /* MTP only */
    {0},
};

/* Source: inference/convert.py of V3 and of V3.2, whose ranks all have the whole indexer. MTP's
 * layer has no place in inference/model.py. */
static const char *const divides[] = {"num_attention_heads", "n_routed_experts", "vocab_size",
                                      NULL};
static const struct rank_files ranks = {.scale = "weight_scale_inv", .divides = divides};

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

static const char *const others[] = {"deepseek_v32", "kimi_k2", NULL};

const struct family family_deepseek_v3 = {
    .type = "deepseek_v3",
    .other_types = others,
    .section = sections,
    .part = parts,
    .has = has,
    .layer_has = layer_has,
    .experts_key = experts_key,
    .requantized_by = "v3-nvfp4",
    .amax_separator = ".",
    .dumped_as_ranks = true,
    .classes = classes_by_score,
    .expert_class = class_by_score,
    .ranks = &ranks,
    .untemplated_type = "deepseek_v32",
    .untemplated_chat = CHAT_V32,
};
