/* DeepSeek-V4.1's dimensions: V4's keys, and those of what layers share. */
#include <stdlib.h>

#include "base/die.h"
#include "forward/deepseek_v41/deepseek_v41.h"

/* The layers that a list of config.json names, by layer. */
static bool *listed(const struct config *config, const char *key, uint64_t layers)
{
    uint64_t count = json_array_size(config_member(config, key));
    uint64_t *list = config_list(config, key, count, "layers");
    bool *is = xalloc((size_t)layers, sizeof *is);
    for (uint64_t i = 0; i < count; i++) {
        config_check(config, list[i] < layers, "a source layer is none of num_hidden_layers");
        is[list[i]] = true;
    }
    free(list);
    return is;
}

/* Every layer that sees blocks has a source of keys and of the selection at or before it, of its
 * own ratio. */
static void check_sources(const struct v41 *v41, const struct config *config)
{
    const uint64_t *ratio = v41->v4.config.ratio;
    uint64_t keys = 0, selected = 0; /* the ratio of the last source; 0: none */
    for (uint64_t i = 0; i < v41->v4.network.layers; i++) {
        if (v41->key_source[i])
            keys = ratio[i];
        if (v41->index_source[i])
            selected = ratio[i];
        config_check(
            config, !v41->key_source[i] || (v41->index_source[i] && ratio[i]),
            "kv_source_layer_ids: such a layer must be in index_source_layer_ids, and have "
            "a ratio in compress_ratios");
        config_check(config, !ratio[i] || (keys == ratio[i] && selected == ratio[i]),
                     "compress_ratios: a layer's ratio is not that of the last source in "
                     "kv_source_layer_ids and index_source_layer_ids");
    }
}

/* The most tokens of a sample for which all blocks are candidates. */
static uint64_t longest(const struct v41 *v41, const struct config *config)
{
    const json_t *source = json_object_get(config->json, "candidate_source_layer_id");
    json_int_t layer = json_is_integer(source) ? json_integer_value(source) : -1;
    if (layer < 0)
        return 0;
    config_check(config, (uint64_t)layer < v41->v4.network.layers,
                 "candidate_source_layer_id is none of num_hidden_layers");
    return config_size(config, "candidate_topk_blocks") *
           config_size(config, "candidate_block_size") * v41->v4.config.ratio[layer];
}

void v41_config_read(struct v41 *v41, const struct config *config)
{
    struct network *n = &v41->v4.network;
    struct v4_config *c = &v41->v4.config;
    v4_config_read(&v41->v4, config);
    n->mtp_layers = 0; /* they are drafts */
    n->fp8 = ACTIVATION_FP8_32;
    c->shared_limit = c->swiglu_limit;
    c->round_keys = true;
    v41->key_source = listed(config, "kv_source_layer_ids", n->layers);
    v41->index_source = listed(config, "index_source_layer_ids", n->layers);
    check_sources(v41, config);
    config_check(config, c->head_dim % 16 == 0, "head_dim must be a multiple of 16");
    n->longest = longest(v41, config);
    n->carried = v41_carried_columns(v41);
}
