/* DeepSeek-V3 and R1, V3.2, Kimi-K2.
 *
 * What the layout follows:
 *   names, dtypes, shapes   the releases' tables of weights, which are met exactly: R1's 91,991
 *                           tensors of 684,531,386,000 elements in all, V3.2's 92,425 of
 *                           685,396,921,376, Kimi-K2's 139,644 of 1,026,470,731,056
 *   config.json             the releases' own */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/json.h"
#include "layout.h"

/* ---- config.json ---- */

/* R1's, which is V3's. */
static const char v3[] =
    "{\"architectures\": [\"DeepseekV3ForCausalLM\"], \"attention_bias\": false,"
    " \"attention_dropout\": 0.0, \"bos_token_id\": 0, \"eos_token_id\": 1, \"ep_size\": 1,"
    " \"first_k_dense_replace\": 3, \"hidden_act\": \"silu\", \"hidden_size\": 7168,"
    " \"initializer_range\": 0.02, \"intermediate_size\": 18432, \"kv_lora_rank\": 512,"
    " \"max_position_embeddings\": 163840, \"model_type\": \"deepseek_v3\","
    " \"moe_intermediate_size\": 2048, \"moe_layer_freq\": 1, \"n_group\": 8,"
    " \"n_routed_experts\": 256, \"n_shared_experts\": 1, \"norm_topk_prob\": true,"
    " \"num_attention_heads\": 128, \"num_experts_per_tok\": 8, \"num_hidden_layers\": 61,"
    " \"num_key_value_heads\": 128, \"num_nextn_predict_layers\": 1, \"q_lora_rank\": 1536,"
    " \"qk_nope_head_dim\": 128, \"qk_rope_head_dim\": 64, \"quantization_config\":"
    " {\"activation_scheme\": \"dynamic\", \"fmt\": \"e4m3\", \"quant_method\": \"fp8\","
    " \"weight_block_size\": [128, 128]}, \"rms_norm_eps\": 1e-06, \"rope_scaling\":"
    " {\"beta_fast\": 32, \"beta_slow\": 1, \"factor\": 40, \"mscale\": 1.0,"
    " \"mscale_all_dim\": 1.0, \"original_max_position_embeddings\": 4096, \"type\": \"yarn\"},"
    " \"rope_theta\": 10000, \"routed_scaling_factor\": 2.5, \"scoring_func\": \"sigmoid\","
    " \"tie_word_embeddings\": false, \"topk_group\": 4, \"topk_method\": \"noaux_tc\","
    " \"torch_dtype\": \"bfloat16\", \"use_cache\": true, \"v_head_dim\": 128,"
    " \"vocab_size\": 129280}";

/* What differs from V3. */
static const struct {
    const char *name, *differs;
} presets[] = {
    {"v3", "{}"},
    {"v3.2", "{\"architectures\": [\"DeepseekV32ForCausalLM\"], \"index_head_dim\": 128,"
             " \"index_n_heads\": 64, \"index_topk\": 2048, \"model_type\": \"deepseek_v32\"}"},
    {"kimi-k2",
     "{\"bos_token_id\": 163584, \"eos_token_id\": 163585, \"first_k_dense_replace\": 1,"
     " \"max_position_embeddings\": 131072, \"model_type\": \"kimi_k2\", \"n_group\": 1,"
     " \"n_routed_experts\": 384, \"num_attention_heads\": 64, \"num_key_value_heads\": 64,"
     " \"num_nextn_predict_layers\": 0, \"rope_scaling\": {\"beta_fast\": 1.0, \"beta_slow\": 1.0,"
     " \"factor\": 32.0, \"mscale\": 1.0, \"mscale_all_dim\": 1.0,"
     " \"original_max_position_embeddings\": 4096, \"type\": \"yarn\"}, \"rope_theta\": 50000.0,"
     " \"routed_scaling_factor\": 2.827, \"topk_group\": 1, \"vocab_size\": 163840}"},
};

static json_t *preset(const char *name)
{
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++)
        if (!strcmp(presets[i].name, name)) {
            json_t *config = json_object_from(v3, strlen(v3), "v3");
            json_t *differs =
                json_object_from(presets[i].differs, strlen(presets[i].differs), name);
            json_object_update(config, differs);
            json_decref(differs);
            return config;
        }
    return NULL;
}

/* ---- the table ---- */

struct plan {
    struct layout *layout;
    const json_t *config;
    enum dtype norms;
    uint64_t hidden;
};

static uint64_t number(const struct plan *plan, const char *key)
{
    return layout_number(plan->config, key);
}

static bool is_type(const json_t *config, const char *type)
{
    const char *own = json_string_value(json_object_get(config, "model_type"));
    return own && !strcmp(own, type);
}

static void add_fp8(struct plan *plan, const char *part, const char *matrix, uint64_t rows,
                    uint64_t cols)
{
    char *module = xprintf("%s.%s", part, matrix);
    layout_add(plan->layout, DTYPE_F32, (rows + 127) / 128, (cols + 127) / 128, module,
               ".weight_scale_inv");
    layout_add(plan->layout, DTYPE_F8_E4M3, rows, cols, module, ".weight");
    free(module);
}

static void add_norm(struct plan *plan, const char *module, uint64_t size)
{
    layout_add(plan->layout, plan->norms, size, 0, module, ".weight");
}

static void add_indexer(struct plan *plan)
{
    static const char part[] = "self_attn.indexer";
    uint64_t head = number(plan, "index_head_dim"), heads = number(plan, "index_n_heads");
    layout_add(plan->layout, DTYPE_F32, head, 0, part, ".k_norm.bias");
    layout_add(plan->layout, DTYPE_F32, head, 0, part, ".k_norm.weight");
    layout_add(plan->layout, DTYPE_BF16, heads, plan->hidden, part, ".weights_proj.weight");
    add_fp8(plan, part, "wk", head, plan->hidden);
    add_fp8(plan, part, "wq_b", heads * head, number(plan, "q_lora_rank"));
}

static void add_attention(struct plan *plan)
{
    static const char part[] = "self_attn";
    uint64_t heads = number(plan, "num_attention_heads");
    uint64_t q = number(plan, "q_lora_rank"), kv = number(plan, "kv_lora_rank");
    uint64_t nope = number(plan, "qk_nope_head_dim"), rope = number(plan, "qk_rope_head_dim");
    uint64_t value = number(plan, "v_head_dim");
    add_norm(plan, "self_attn.kv_a_layernorm", kv);
    add_norm(plan, "self_attn.q_a_layernorm", q);
    add_fp8(plan, part, "kv_a_proj_with_mqa", kv + rope, plan->hidden);
    add_fp8(plan, part, "kv_b_proj", heads * (nope + value), kv);
    add_fp8(plan, part, "o_proj", plan->hidden, heads * value);
    add_fp8(plan, part, "q_a_proj", q, plan->hidden);
    add_fp8(plan, part, "q_b_proj", heads * (nope + rope), q);
    if (is_type(plan->config, "kimi_k2")) /* which no code reads */
        layout_add(plan->layout, DTYPE_BF16, 56, 0, part, ".rotary_emb.inv_freq");
    if (json_object_get(plan->config, "index_n_heads"))
        add_indexer(plan);
}

static void add_mlp(struct plan *plan, const char *part, uint64_t inner)
{
    add_fp8(plan, part, "down_proj", plan->hidden, inner);
    add_fp8(plan, part, "gate_proj", inner, plan->hidden);
    add_fp8(plan, part, "up_proj", inner, plan->hidden);
}

static void add_experts(struct plan *plan)
{
    uint64_t experts = number(plan, "n_routed_experts");
    uint64_t inner = number(plan, "moe_intermediate_size");
    char part[64];
    layout_add(plan->layout, DTYPE_F32, experts, 0, "mlp.gate", ".e_score_correction_bias");
    layout_add(plan->layout, DTYPE_BF16, experts, plan->hidden, "mlp.gate", ".weight");
    for (uint64_t i = 0; i < experts; i++) {
        snprintf(part, sizeof part, "mlp.experts.%" PRIu64, i);
        add_mlp(plan, part, inner);
    }
    add_mlp(plan, "mlp.shared_experts", number(plan, "n_shared_experts") * inner);
}

static void add_layer(struct plan *plan, uint64_t i)
{
    layout_file(plan->layout, "model.layers", i);
    add_norm(plan, "input_layernorm", plan->hidden);
    add_norm(plan, "post_attention_layernorm", plan->hidden);
    add_attention(plan);
    if (i < number(plan, "first_k_dense_replace"))
        add_mlp(plan, "mlp", number(plan, "intermediate_size"));
    else
        add_experts(plan);
}

/* What a layer of MTP has besides; it repeats embedding and head. */
static void add_mtp(struct plan *plan, uint64_t vocabulary)
{
    add_norm(plan, "enorm", plan->hidden);
    add_norm(plan, "hnorm", plan->hidden);
    add_norm(plan, "shared_head.norm", plan->hidden);
    layout_add(plan->layout, DTYPE_BF16, plan->hidden, 2 * plan->hidden, "eh_proj", ".weight");
    layout_add(plan->layout, DTYPE_BF16, vocabulary, plan->hidden, "embed_tokens", ".weight");
    layout_add(plan->layout, DTYPE_BF16, vocabulary, plan->hidden, "shared_head.head", ".weight");
}

static void lay_out(struct layout *layout, const json_t *config)
{
    struct plan all = {.layout = layout, .config = config}, *plan = &all;
    uint64_t layers = number(plan, "num_hidden_layers"), vocabulary = number(plan, "vocab_size");
    plan->hidden = number(plan, "hidden_size");
    plan->norms = is_type(config, "deepseek_v32") ? DTYPE_F32 : DTYPE_BF16;
    if (plan->hidden % 128 || !number(plan, "n_routed_experts"))
        die("config.json: wanted hidden_size in multiples of 128, and at least one expert");
    layout_file(layout, "", 0);
    layout_add(layout, DTYPE_BF16, vocabulary, plan->hidden, "model.embed_tokens", ".weight");
    for (uint64_t i = 0; i < layers; i++)
        add_layer(plan, i);
    layout_file(layout, "", 0);
    add_norm(plan, "model.norm", plan->hidden);
    layout_add(layout, DTYPE_BF16, vocabulary, plan->hidden, "lm_head", ".weight");
    for (uint64_t i = 0; i < number(plan, "num_nextn_predict_layers"); i++) {
        add_layer(plan, layers + i);
        add_mtp(plan, vocabulary);
    }
}

const struct maker maker_deepseek_v3 = {
    .type = "deepseek_v3", .quantized = DTYPE_F8_E4M3, .preset = preset, .lay_out = lay_out};
