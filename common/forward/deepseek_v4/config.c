/* DeepSeek-V4's dimensions, from config.json. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "forward/deepseek_v4/deepseek_v4.h"

/* Beyond this, a number in a config is a mistake. */
enum { SIZE_MOST = 1 << 24 };

struct reader {
    const char *stream;
    const json_t *json;
};

static const json_t *member(const struct reader *r, const char *key)
{
    const json_t *value = json_object_get(r->json, key);
    if (!value)
        die("%s: config.json: %s is missing; the forward pass needs it", r->stream, key);
    return value;
}

static uint64_t checked(const struct reader *r, const char *key, const json_t *value,
                        uint64_t least)
{
    json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < (json_int_t)least || number > SIZE_MOST)
        die("%s: config.json: %s: wanted an integer from %" PRIu64 " to %d", r->stream, key, least,
            SIZE_MOST);
    return (uint64_t)number;
}

static uint64_t size(const struct reader *r, const char *key)
{
    return checked(r, key, member(r, key), 1);
}

static double real(const struct reader *r, const char *key, double least)
{
    const json_t *value = member(r, key);
    if (!json_is_number(value) || !(json_number_value(value) >= least))
        die("%s: config.json: %s: wanted a number from %g on", r->stream, key, least);
    return json_number_value(value);
}

static enum scoring scoring(const struct reader *r)
{
    static const char *const names[] = {[SCORING_SOFTMAX] = "softmax",
                                        [SCORING_SIGMOID] = "sigmoid",
                                        [SCORING_SQRT_SOFTPLUS] = "sqrtsoftplus"};
    const char *name = json_string_value(member(r, "scoring_func"));
    for (int i = SCORING_SOFTMAX; i <= SCORING_SQRT_SOFTPLUS; i++)
        if (name && !strcmp(names[i], name))
            return (enum scoring)i;
    die("%s: config.json: scoring_func: wanted softmax, sigmoid or sqrtsoftplus, got %s", r->stream,
        name ? name : "no text");
}

static uint64_t *ratios(const struct reader *r, uint64_t layers)
{
    const json_t *list = member(r, "compress_ratios");
    if (json_array_size(list) < layers)
        die("%s: config.json: compress_ratios: wanted %" PRIu64
            " of them, one a layer, MTP's behind, got %zu",
            r->stream, layers, json_array_size(list));
    uint64_t *ratio = xalloc((size_t)layers, sizeof *ratio);
    for (uint64_t i = 0; i < layers; i++)
        ratio[i] = checked(r, "compress_ratios", json_array_get(list, (size_t)i), 0);
    return ratio;
}

static void check_fits(const struct reader *r, bool fits, const char *what)
{
    if (!fits)
        die("%s: config.json: %s", r->stream, what);
}

static void read_rope(struct v4_config *c, const struct reader *r)
{
    c->rope_theta = real(r, "rope_theta", 1);
    c->compress_theta = real(r, "compress_rope_theta", 1);
    const struct reader scaling = {r->stream, member(r, "rope_scaling")};
    c->rope_factor = real(&scaling, "factor", 1);
    c->beta_fast = real(&scaling, "beta_fast", 0);
    c->beta_slow = real(&scaling, "beta_slow", 0);
    c->original_length = checked(&scaling, "original_max_position_embeddings",
                                 member(&scaling, "original_max_position_embeddings"), 0);
}

static bool is_power_of_two(uint64_t n)
{
    return (n & (n - 1)) == 0;
}

void v4_config_read(struct v4_config *c, struct ts_in *in)
{
    json_t *json = ts_file_json(in, "config.json");
    if (!json)
        die("%s: no config.json in it; its dimensions are needed", ts_name(in));
    const struct reader r = {ts_name(in), json};
    const json_t *mtp = json_object_get(json, "num_nextn_predict_layers");
    *c = (struct v4_config){
        .dim = size(&r, "hidden_size"),
        .layers = size(&r, "num_hidden_layers"),
        .mtp_layers = mtp ? checked(&r, "num_nextn_predict_layers", mtp, 0) : 0,
        .vocabulary = size(&r, "vocab_size"),
        .heads = size(&r, "num_attention_heads"),
        .head_dim = size(&r, "head_dim"),
        .rope_dim = size(&r, "qk_rope_head_dim"),
        .q_rank = size(&r, "q_lora_rank"),
        .o_groups = size(&r, "o_groups"),
        .o_rank = size(&r, "o_lora_rank"),
        .window = size(&r, "sliding_window"),
        .index_heads = size(&r, "index_n_heads"),
        .index_dim = size(&r, "index_head_dim"),
        .index_best = size(&r, "index_topk"),
        .experts = size(&r, "n_routed_experts"),
        .experts_used = size(&r, "num_experts_per_tok"),
        .expert_dim = size(&r, "moe_intermediate_size"),
        .hash_layers = checked(&r, "num_hash_layers", member(&r, "num_hash_layers"), 0),
        .copies = size(&r, "hc_mult"),
        .sinkhorn_iterations = size(&r, "hc_sinkhorn_iters"),
        .norm_eps = (float)real(&r, "rms_norm_eps", 0),
        .hc_eps = (float)real(&r, "hc_eps", 0),
        .route_scale = (float)real(&r, "routed_scaling_factor", 0),
        .swiglu_limit = (float)real(&r, "swiglu_limit", 0),
        .scoring = scoring(&r),
    };
    c->ratio = ratios(&r, c->layers + c->mtp_layers);
    read_rope(c, &r);
    check_fits(&r, size(&r, "n_shared_experts") == 1, "n_shared_experts: only 1 is known");
    check_fits(&r,
               c->rope_dim % 2 == 0 && c->rope_dim <= c->head_dim && c->rope_dim <= c->index_dim,
               "qk_rope_head_dim must be even, and not above head_dim and index_head_dim");
    check_fits(&r, c->heads * c->head_dim % c->o_groups == 0,
               "o_groups does not divide num_attention_heads times head_dim");
    check_fits(&r, c->experts_used <= c->experts,
               "num_experts_per_tok is larger than n_routed_experts");
    check_fits(&r, is_power_of_two(c->index_dim), "index_head_dim must be a power of two");
    json_decref(json);
}

void v4_config_free(struct v4_config *c)
{
    free(c->ratio);
}
