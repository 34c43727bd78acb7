/* DeepSeek-V3's dimensions, from config.json. */
#include <math.h>
#include <string.h>

#include "forward/deepseek_v3/deepseek_v3.h"

/* A key that may be null, which config.json's authors write for what a model has not. */
static bool is_set(const struct config *config, const char *key)
{
    const json_t *value = json_object_get(config->json, key);
    return value && !json_is_null(value);
}

static uint64_t size_or_none(const struct config *config, const char *key)
{
    return is_set(config, key) ? config_optional(config, key) : 0;
}

/* RoPE, and the scale of attention's logits, which YaRN raises. */
static void read_rope(struct v3_config *c, const struct config *config)
{
    c->rope = (struct rope){.dim = config_size(config, "qk_rope_head_dim"),
                            .theta = config_real(config, "rope_theta", 1)};
    double scale = 1 / sqrt((double)(c->nope_dim + c->rope.dim));
    if (is_set(config, "rope_scaling")) {
        const struct config scaling = config_object(config, "rope_scaling");
        rope_read_scaling(&c->rope, config);
        double mscale = config_real(&scaling, "mscale_all_dim", 0);
        config_check(config, config_real(&scaling, "mscale", 0) == mscale,
                     "rope_scaling: mscale must equal mscale_all_dim");
        double raised = 0.1 * mscale * log(c->rope.factor) + 1;
        scale *= raised * raised;
    }
    c->logit_scale = (float)scale;
}

static void read_index(struct v3_config *c, const struct config *config)
{
    c->index_best = size_or_none(config, "index_topk");
    if (!c->index_best)
        return;
    c->index_heads = config_size(config, "index_n_heads");
    c->index_dim = config_size(config, "index_head_dim");
    config_check(config, (c->index_dim & (c->index_dim - 1)) == 0 && c->index_dim <= 128,
                 "index_head_dim must be a power of two up to 128");
    config_check(config, c->rope.dim <= c->index_dim,
                 "qk_rope_head_dim must not be above index_head_dim");
    config_check(config, c->q_rank > 0, "q_lora_rank: the indexer needs it");
}

static void read_experts(struct v3_config *c, const struct config *config)
{
    const char *method = json_string_value(json_object_get(config->json, "topk_method"));
    c->dense_layers = config_optional(config, "first_k_dense_replace");
    c->dense_dim = c->dense_layers ? config_size(config, "intermediate_size") : 0;
    c->experts = config_size(config, "n_routed_experts");
    c->experts_used = config_size(config, "num_experts_per_tok");
    c->expert_dim = config_size(config, "moe_intermediate_size");
    c->shared_dim = config_size(config, "n_shared_experts") * c->expert_dim;
    c->scoring = routing_scoring(config);
    c->bias = method && !strcmp(method, "noaux_tc");
    c->normalize = is_set(config, "norm_topk_prob")
                       ? json_is_true(config_member(config, "norm_topk_prob"))
                       : c->scoring == SCORING_SIGMOID;
    c->route_scale = (float)config_real(config, "routed_scaling_factor", 0);
    c->groups.count = is_set(config, "n_group") ? config_size(config, "n_group") : 1;
    c->groups.used = c->groups.count > 1 ? config_size(config, "topk_group") : 1;
    config_check(config, size_or_none(config, "moe_layer_freq") <= 1,
                 "moe_layer_freq: only 1 is known");
    config_check(config, c->groups.used <= c->groups.count && c->experts % c->groups.count == 0,
                 "n_group must divide n_routed_experts, and topk_group not be above it");
    config_check(config,
                 (uint64_t)c->experts_used * c->groups.count <=
                     (uint64_t)c->experts * c->groups.used,
                 "num_experts_per_tok is larger than n_routed_experts in topk_group groups");
    config_check(config, !c->bias || c->groups.count == 1 || c->experts > c->groups.count,
                 "n_group: a group must have two experts or more");
}

/* How activations are quantized; V3.1's scales are powers of two. */
static void set_activations(struct v3 *v3, const struct config *config)
{
    struct network *n = &v3->network;
    const json_t *quantization = json_object_get(config->json, "quantization_config");
    const char *scale = json_string_value(json_object_get(quantization, "scale_fmt"));
    bool powers = scale && !strcmp(scale, "ue8m0"), v32 = v3->config.index_best > 0;
    n->fp8 = powers ? ACTIVATION_FP8 : v32 ? ACTIVATION_FP8_V32 : ACTIVATION_FP8_V3;
    v3->rounding = powers ? ACTIVATION_FP8 : ACTIVATION_FP8_V32_ROUNDED;
}

void v3_config_read(struct v3 *v3, const struct config *config)
{
    struct network *n = &v3->network;
    struct v3_config *c = &v3->config;
    n->dim = config_size(config, "hidden_size");
    n->copies = 1;
    n->layers = config_size(config, "num_hidden_layers");
    n->mtp_layers = size_or_none(config, "num_nextn_predict_layers");
    n->vocabulary = config_size(config, "vocab_size");
    n->norm_eps = (float)config_real(config, "rms_norm_eps", 0);
    *c = (struct v3_config){.heads = config_size(config, "num_attention_heads"),
                            .q_rank = size_or_none(config, "q_lora_rank"),
                            .kv_rank = config_size(config, "kv_lora_rank"),
                            .nope_dim = config_size(config, "qk_nope_head_dim"),
                            .value_dim = config_size(config, "v_head_dim")};
    read_rope(c, config);
    read_index(c, config);
    read_experts(c, config);
    config_check(config, c->rope.dim % 2 == 0, "qk_rope_head_dim must be even");
    set_activations(v3, config);
    n->rounds_logits = v3_rounds(n);
    n->carried = v3_rounds(n) ? 0 : n->dim;
}
