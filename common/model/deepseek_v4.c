/* DeepSeek-V4 (Pro, Flash) with the tensor names of its release. Source: DeepSeek's V4-Flash
 * release, inference/model.py. */
#include "model/deepseek_v4.h"

static const struct section_name sections[] = {
    {.prefix = "embed.", .section = SECTION_EMBED, .stays = true, .share = SHARE_ROWS},
    {.prefix = "layers.#.", .section = SECTION_LAYERS},
    {.prefix = "norm.", .section = SECTION_NORM, .stays = true},
    {.prefix = "hc_head_", .section = SECTION_HEAD, .stays = true},
    {.prefix = "head.", .section = SECTION_HEAD, .part = 1, .stays = true, .share = SHARE_ROWS},
    {.prefix = "mtp.#.", .section = SECTION_MTP},
    {0},
};

/* gate, up, down; gate and up form one fused product */
const struct matrix_name deepseek_v4_mlp[] = {
    {.name = "w1", .group = 1}, {.name = "w3", .group = 1}, {.name = "w2"}, {0}};

/* in the order of use; wq_a and wkv, of the same input, form one fused product */
const struct matrix_name deepseek_v4_attention[] = {{.name = "wq_a", .group = 1, .use = USE_LATENT},
                                                    {.name = "wkv", .group = 1, .use = USE_LATENT},
                                                    {.name = "q_norm", .stays = true},
                                                    {.name = "kv_norm", .stays = true},
                                                    {.name = "wq_b", .share = SHARE_ROWS},
                                                    {.name = "indexer.wq_b", .share = SHARE_ROWS},
                                                    {.name = "wo_a", .share = SHARE_ROWS_BF16},
                                                    {.name = "wo_b", .share = SHARE_COLS},
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
    {.prefix = "attn.attn_sink", .stays = true, .share = SHARE_ROWS},
    {.prefix = "attn.compressor.", .stays = true},
    {.prefix = "attn.indexer.compressor.", .stays = true},
    {.prefix = "attn.indexer.weights_proj.", .stays = true, .share = SHARE_ROWS},
    {.prefix = "attn.", .matrix = deepseek_v4_attention},
    {.prefix = "hc_ffn_", .stays = true},
    {.prefix = "ffn_norm.", .stays = true},
    {.prefix = "ffn.gate.", .stays = true},
    {.prefix = "ffn.shared_experts.", .matrix = deepseek_v4_mlp},
    {.prefix = "ffn.experts.#.", .matrix = deepseek_v4_mlp},
    {.prefix = "hc_head_", .stays = true}, /* MTP only, as are the next three */
    {.prefix = "norm.", .stays = true},
    {.prefix = "emb.", .stays = true, .share = SHARE_NOTHING}, /* copies of the trunk's */
    {.prefix = "head.", .stays = true, .share = SHARE_NOTHING},
    {0},
};

/* Source: the April releases' inference/convert.py; they divide as inference/model.py does. */
static const char *const divides[] = {"num_attention_heads", "index_n_heads", "o_groups",
                                      "n_routed_experts",    "vocab_size",    NULL};
static const struct rank_files ranks = {.mtp = true, .divides = divides};

/* In all releases. */
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

/* What config.json says some layers have. Where it does not say, they are not asked for. */
static const char *const of_hash[] = {"ffn.gate.tid2eid", NULL};
static const char *const of_score[] = {"ffn.gate.bias", NULL};
static const char *const of_compressed[] = {"attn.compressor.ape", "attn.compressor.norm.weight",
                                            "attn.compressor.wgate.weight",
                                            "attn.compressor.wkv.weight", NULL};
static const char *const of_indexed[] = {"attn.indexer.compressor.ape",
                                         "attn.indexer.compressor.norm.weight",
                                         "attn.indexer.compressor.wgate.weight",
                                         "attn.indexer.compressor.wkv.weight",
                                         "attn.indexer.weights_proj.weight",
                                         "attn.indexer.wq_b.weight",
                                         NULL};
static const char *const of_mtp[] = {"enorm.weight",  "hnorm.weight", "e_proj.weight",
                                     "h_proj.weight", "hc_head_base", "hc_head_fn",
                                     "hc_head_scale", "norm.weight",  NULL};

/* The layer's number among all, of which MTP's are the last. */
static json_int_t number_of(const struct model *model, const struct place *place)
{
    return place->layer + (place->section == SECTION_MTP ? (json_int_t)model->layers : 0);
}

static bool routes_by_score(const struct model *model, const struct place *place)
{
    const json_t *hash_layers = json_object_get(model->config, "num_hash_layers");
    return json_is_integer(hash_layers) &&
           number_of(model, place) >= json_integer_value(hash_layers);
}

static bool routes_by_hash(const struct model *model, const struct place *place)
{
    const json_t *hash_layers = json_object_get(model->config, "num_hash_layers");
    return number_of(model, place) < json_integer_value(hash_layers);
}

/* How many tokens become one key; 0: none, or not said. */
static json_int_t ratio_of(const struct model *model, const struct place *place)
{
    const json_t *ratios = json_object_get(model->config, "compress_ratios");
    return place->section == SECTION_LAYERS
               ? json_integer_value(json_array_get(ratios, place->layer))
               : 0;
}

static bool compresses(const struct model *model, const struct place *place)
{
    return ratio_of(model, place) > 0;
}

/* Layers of the least ratio choose among their keys. */
static bool has_indexer(const struct model *model, const struct place *place)
{
    enum { INDEXED_RATIO = 4 };
    return ratio_of(model, place) == INDEXED_RATIO;
}

/* Drafts of DSpark have other parts, each of its stages its own. */
static bool is_mtp(const struct model *model, const struct place *place)
{
    return place->section == SECTION_MTP && !json_object_get(model->config, "dspark_block_size");
}

static const struct layer_names layer_has[] = {{of_all, NULL},
                                               {of_hash, routes_by_hash},
                                               {of_score, routes_by_score},
                                               {of_compressed, compresses},
                                               {of_indexed, has_indexer},
                                               {of_mtp, is_mtp},
                                               {0}};

/* Drafts are left out: those of V4.1 have other experts. */
const struct shape_name deepseek_v4_shapes[] = {
    {"embed.weight", "vocab_size", "hidden_size"},
    {"head.weight", "vocab_size", "hidden_size"},
    {"norm.weight", "hidden_size", NULL},
    {"layers.#.attn_norm.weight", "hidden_size", NULL},
    {"layers.#.attn.attn_sink", "num_attention_heads", NULL},
    {"layers.#.attn.wq_a.weight", "q_lora_rank", "hidden_size"},
    {"layers.#.attn.wq_b.weight", "num_attention_heads*head_dim", "q_lora_rank"},
    {"layers.#.attn.wkv.weight", "head_dim", "hidden_size"},
    {"layers.#.attn.wo_a.weight", "o_groups*o_lora_rank", NULL},
    {"layers.#.attn.wo_b.weight", "hidden_size", "o_groups*o_lora_rank"},
    {"layers.#.attn.indexer.wq_b.weight", "index_n_heads*index_head_dim", "q_lora_rank"},
    {"layers.#.hc_attn_fn", NULL, "hc_mult*hidden_size"},
    {"layers.#.ffn.gate.weight", "n_routed_experts", "hidden_size"},
    {"layers.#.ffn.gate.tid2eid", "vocab_size", "num_experts_per_tok"},
    {"layers.#.ffn.shared_experts.w1.weight", "n_shared_experts*moe_intermediate_size",
     "hidden_size"},
    {"layers.#.ffn.experts.#.w1.weight", "moe_intermediate_size", "hidden_size"},
    {"layers.#.ffn.experts.#.w3.weight", "moe_intermediate_size", "hidden_size"},
    {"layers.#.ffn.experts.#.w2.weight", "hidden_size", "moe_intermediate_size"},
    {0}};

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
    .layer_has = layer_has,
    .experts_key = experts_key,
    .shapes = deepseek_v4_shapes,
    .dspark = "mtp.0.main_proj",
    .weighs_early = true,
    .requantized_by = "v4-experts --lossy",
    .amax_separator = "_",
    .classes = classes,
    .expert_class = expert_class,
    .ranks = &ranks,
    .chat = CHAT_V4,
};
