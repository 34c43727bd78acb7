/* DeepSeek-V4's dimensions, from config.json. */
#include <stdlib.h>

#include "base/die.h"
#include "forward/deepseek_v4/deepseek_v4.h"

/* Far beyond what releases have: 128, 1024, 20 and 4. */
enum { WINDOW_MOST = 1 << 20, BLOCKS_MOST = 1 << 16, SINKHORN_MOST = 1000, COPIES_MOST = 64 };

static void read_rope(struct v4_config *c, const struct config *config)
{
    uint64_t dim = config_size(config, "qk_rope_head_dim");
    c->rope = (struct rope){.dim = dim, .theta = config_real(config, "rope_theta", 1)};
    c->compress_rope =
        (struct rope){.dim = dim, .theta = config_real(config, "compress_rope_theta", 1)};
    rope_read_scaling(&c->compress_rope, config);
}

static bool is_power_of_two(uint64_t n)
{
    return (n & (n - 1)) == 0;
}

/* Check that the dimensions fit together. */
static void check(const struct v4_config *c, const struct config *config)
{
    config_check(config, config_size(config, "n_shared_experts") == 1,
                 "n_shared_experts: only 1 is known");
    config_check(config,
                 c->rope.dim % 2 == 0 && c->rope.dim <= c->head_dim && c->rope.dim <= c->index_dim,
                 "qk_rope_head_dim must be even, and not above head_dim and index_head_dim");
    config_check(config, c->heads * c->head_dim % c->o_groups == 0,
                 "o_groups does not divide num_attention_heads times head_dim");
    config_check(config, c->experts_used <= c->experts,
                 "num_experts_per_tok is larger than n_routed_experts");
    config_check(config, is_power_of_two(c->index_dim), "index_head_dim must be a power of two");
}

void v4_config_read(struct v4 *v4, const struct config *config)
{
    struct network *n = &v4->network;
    struct v4_config *c = &v4->config;
    n->dim = config_size(config, "hidden_size");
    n->layers = config_size(config, "num_hidden_layers");
    n->mtp_layers = config_optional(config, "num_nextn_predict_layers");
    n->vocabulary = config_size(config, "vocab_size");
    *c = (struct v4_config){
        .heads = config_size(config, "num_attention_heads"),
        .head_dim = config_size(config, "head_dim"),
        .q_rank = config_size(config, "q_lora_rank"),
        .o_groups = config_size(config, "o_groups"),
        .o_rank = config_size(config, "o_lora_rank"),
        .window = config_within(config, "sliding_window", 1, WINDOW_MOST),
        .index_heads = config_size(config, "index_n_heads"),
        .index_dim = config_size(config, "index_head_dim"),
        .index_best = config_within(config, "index_topk", 1, BLOCKS_MOST),
        .experts = config_size(config, "n_routed_experts"),
        .experts_used = config_size(config, "num_experts_per_tok"),
        .expert_dim = config_size(config, "moe_intermediate_size"),
        .hash_layers = config_optional(config, "num_hash_layers"),
        .sinkhorn_iterations = config_within(config, "hc_sinkhorn_iters", 1, SINKHORN_MOST),
        .hc_eps = (float)config_real(config, "hc_eps", 0),
        .route_scale = (float)config_real(config, "routed_scaling_factor", 0),
        .swiglu_limit = (float)config_real(config, "swiglu_limit", 0),
        .scoring = routing_scoring(config),
    };
    n->copies = config_within(config, "hc_mult", 1, COPIES_MOST);
    n->kept = n->copies + n->copies * n->copies;
    n->norm_eps = (float)config_real(config, "rms_norm_eps", 0);
    c->ratio = config_list(config, "compress_ratios", n->layers + n->mtp_layers,
                           "one per layer, MTP's last");
    read_rope(c, config);
    check(c, config);
}
