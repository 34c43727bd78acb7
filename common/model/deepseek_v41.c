/* DeepSeek-V4.1 (Flash) with the tensor names of its release: as V4's, with Engram tables in some
 * layers, an indexer with keys of its own, and no hyper-connection head. Sources: the release's
 * config.json and model.safetensors.index.json. */
#include "model/deepseek_v4.h"

static const struct section_name sections[] = {
    {.prefix = "embed.", .section = SECTION_EMBED, .stays = true},
    {.prefix = "layers.#.", .section = SECTION_LAYERS},
    {.prefix = "norm.", .section = SECTION_NORM, .stays = true},
    {.prefix = "head.", .section = SECTION_HEAD, .stays = true},
    {.prefix = "mtp.#.", .section = SECTION_MTP},
    {0},
};

static const struct part_name parts[] = {
    {.prefix = "main_norm.", .stays = true}, /* drafts only, as is the next one */
    {.prefix = "main_proj."},
    {.prefix = "engram.", .stays = true},
    {.prefix = "hc_attn_", .stays = true},
    {.prefix = "attn_norm.", .stays = true},
    {.prefix = "attn.attn_sink", .stays = true},
    {.prefix = "attn.compressor.", .stays = true},
    {.prefix = "attn.indexer.k_norm.", .stays = true},
    {.prefix = "attn.indexer.weights_proj.", .stays = true},
    {.prefix = "attn.indexer.wk.", .stays = true},
    {.prefix = "attn.", .matrix = deepseek_v4_attention},
    {.prefix = "hc_ffn_", .stays = true},
    {.prefix = "ffn_norm.", .stays = true},
    {.prefix = "ffn.gate.", .stays = true},
    {.prefix = "ffn.shared_experts.", .matrix = deepseek_v4_mlp},
    {.prefix = "ffn.experts.#.", .matrix = deepseek_v4_mlp},
    {0},
};

static const char *const has[] = {"embed.weight", "norm.weight", "head.weight", NULL};

static const char *experts_key(const struct model *model, const struct place *place)
{
    (void)model;
    return place->section == SECTION_MTP ? "dspark_n_routed_experts" : "n_routed_experts";
}

/* The rows of Engram tables have a scale for every 32 columns. */
static const struct fp8_block blocks[] = {{1, 32}, {0}};

const struct family family_deepseek_v41 = {
    .type = "deepseek_v41",
    .section = sections,
    .part = parts,
    .has = has,
    .layer_has = deepseek_v4_layer_has,
    .experts_key = experts_key,
    .shapes = deepseek_v4_shapes,
    .dspark = "mtp.0.main_proj",
    .weighs_early = true,
    .requantized_by = "v4-experts --lossy",
    .amax_separator = "_",
    .fp8_block = blocks,
    .classes = classes_by_score,
    .expert_class = class_by_score,
    .chat = CHAT_V41,
};
