/* DeepSeek-V4.
 *
 * What the layout follows:
 *   names, dtypes, shapes   DeepSeek's V4-Flash release, inference/model.py; the published listing
 *                           of V4-Pro's 145,116 tensors (805.32 GiB in 64 files) is met exactly
 *   files                   the same listing: embedding, one a layer, head, one an MTP block
 *   config.json             V4-Flash's and V4-Pro's own */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/json.h"
#include "base/number.h"
#include "layout.h"

/* What Flash and Pro have in common, and Flash's own values. */
static const char flash[] =
    "{\"architectures\": [\"DeepseekV4ForCausalLM\"], \"attention_bias\": false,"
    " \"attention_dropout\": 0.0, \"bos_token_id\": 0, \"eos_token_id\": 1, \"hc_eps\": 1e-06,"
    " \"hc_mult\": 4, \"hc_sinkhorn_iters\": 20, \"head_dim\": 512, \"hidden_act\": \"silu\","
    " \"hidden_size\": 4096, \"index_head_dim\": 128, \"index_n_heads\": 64, \"index_topk\": 512,"
    " \"initializer_range\": 0.02, \"max_position_embeddings\": 1048576,"
    " \"model_type\": \"deepseek_v4\", \"moe_intermediate_size\": 2048, \"n_routed_experts\": 256,"
    " \"n_shared_experts\": 1, \"norm_topk_prob\": true, \"num_attention_heads\": 64,"
    " \"num_experts_per_tok\": 6, \"num_hidden_layers\": 43, \"num_hash_layers\": 3,"
    " \"num_key_value_heads\": 1, \"num_nextn_predict_layers\": 1, \"o_groups\": 8,"
    " \"o_lora_rank\": 1024, \"q_lora_rank\": 1024, \"qk_rope_head_dim\": 64,"
    " \"quantization_config\": {\"activation_scheme\": \"dynamic\", \"fmt\": \"e4m3\","
    " \"quant_method\": \"fp8\", \"scale_fmt\": \"ue8m0\", \"weight_block_size\": [128, 128]},"
    " \"rms_norm_eps\": 1e-06, \"rope_scaling\": {\"beta_fast\": 32, \"beta_slow\": 1,"
    " \"factor\": 16, \"original_max_position_embeddings\": 65536, \"type\": \"yarn\"},"
    " \"rope_theta\": 10000, \"routed_scaling_factor\": 1.5, \"scoring_func\": \"sqrtsoftplus\","
    " \"sliding_window\": 128, \"swiglu_limit\": 10.0, \"tie_word_embeddings\": false,"
    " \"topk_method\": \"noaux_tc\", \"torch_dtype\": \"bfloat16\","
    " \"transformers_version\": \"4.57.1\", \"use_cache\": true, \"vocab_size\": 129280,"
    " \"compress_rope_theta\": 160000}";

/* What differs from Flash. Compression ratios begin with those of layers 0 and 1; then 4 and 128
 * alternate, and MTP has 0. */
static const struct {
    const char *name, *differs;
    int first_ratio;
} presets[] = {
    {"flash", "{}", 0},
    {"pro",
     "{\"hidden_size\": 7168, \"index_topk\": 1024, \"moe_intermediate_size\": 3072,"
     " \"n_routed_experts\": 384, \"num_attention_heads\": 128, \"num_hidden_layers\": 61,"
     " \"o_groups\": 16, \"q_lora_rank\": 1536, \"routed_scaling_factor\": 2.5}",
     128},
    {"tiny", /* of no release: a little of everything */
     "{\"hidden_size\": 256, \"head_dim\": 128, \"index_head_dim\": 64, \"index_n_heads\": 4,"
     " \"index_topk\": 16, \"max_position_embeddings\": 8192, \"moe_intermediate_size\": 128,"
     " \"n_routed_experts\": 8, \"num_attention_heads\": 4, \"num_experts_per_tok\": 2,"
     " \"num_hidden_layers\": 4, \"num_hash_layers\": 2, \"o_groups\": 2, \"o_lora_rank\": 128,"
     " \"q_lora_rank\": 128, \"sliding_window\": 32, \"vocab_size\": 1024}",
     0},
};

static void preset_ratios(json_t *config, int first_ratio)
{
    json_int_t layers = json_integer_value(json_object_get(config, "num_hidden_layers"));
    json_int_t mtp = json_integer_value(json_object_get(config, "num_nextn_predict_layers"));
    json_t *ratios = json_array();
    for (json_int_t i = 0; i < layers; i++)
        json_array_append_new(ratios, json_integer(i < 2 ? first_ratio : i % 2 ? 128 : 4));
    for (json_int_t i = 0; i < mtp; i++)
        json_array_append_new(ratios, json_integer(0));
    json_object_set_new(config, "compress_ratios", ratios);
}

static json_t *preset(const char *name)
{
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++)
        if (!strcmp(presets[i].name, name)) {
            json_t *config = json_object_from(flash, strlen(flash), "flash");
            json_t *differs =
                json_object_from(presets[i].differs, strlen(presets[i].differs), name);
            json_object_update(config, differs);
            json_decref(differs);
            preset_ratios(config, presets[i].first_ratio);
            return config;
        }
    return NULL;
}

void deepseek_v4_ratios(json_t *config, const char *list)
{
    size_t all = (size_t)json_integer_value(json_object_get(config, "num_hidden_layers"));
    json_t *old = json_object_get(config, "compress_ratios"), *ratios = json_array();
    for (const char *p = list;; p++) {
        uint64_t ratio;
        if (!number_parse(&p, UINT16_MAX, &ratio) || (*p && *p != ','))
            die_usage("--ratios: '%s' is not a list of numbers, as 4,128", list);
        json_array_append_new(ratios, json_integer((json_int_t)ratio));
        if (!*p)
            break;
    }
    json_object_set_new(config, "num_hidden_layers",
                        json_integer((json_int_t)json_array_size(ratios)));
    for (size_t i = all; i < json_array_size(old); i++)
        json_array_append(ratios, json_array_get(old, i));
    json_object_set_new(config, "compress_ratios", ratios);
}

/* The numbers that shapes depend on. */
struct dims {
    uint64_t hidden, vocab, layers, hash_layers, mtp, hc;
    uint64_t heads, head, q_rank, o_rank, o_groups, index_heads, index_head;
    uint64_t experts, shared, per_token, inner;
    const json_t *ratios; /* by layer, then by MTP block */
};

static void dims_read(struct dims *d, const json_t *config)
{
    const struct {
        const char *key;
        uint64_t *to;
    } keys[] = {
        {"hidden_size", &d->hidden},
        {"vocab_size", &d->vocab},
        {"num_hidden_layers", &d->layers},
        {"num_hash_layers", &d->hash_layers},
        {"num_nextn_predict_layers", &d->mtp},
        {"hc_mult", &d->hc},
        {"num_attention_heads", &d->heads},
        {"head_dim", &d->head},
        {"q_lora_rank", &d->q_rank},
        {"o_lora_rank", &d->o_rank},
        {"o_groups", &d->o_groups},
        {"index_n_heads", &d->index_heads},
        {"index_head_dim", &d->index_head},
        {"n_routed_experts", &d->experts},
        {"n_shared_experts", &d->shared},
        {"num_experts_per_tok", &d->per_token},
        {"moe_intermediate_size", &d->inner},
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        *keys[i].to = layout_number(config, keys[i].key);
    d->ratios = json_object_get(config, "compress_ratios");
    if (json_array_size(d->ratios) < d->layers + d->mtp)
        die("config.json: compress_ratios: wanted %" PRIu64 " numbers", d->layers + d->mtp);
    if (!d->o_groups || !d->experts || d->hidden % 128 || d->inner % 128)
        die("config.json: wanted hidden_size and moe_intermediate_size in multiples of 128, and at "
            "least one expert and output group");
}

/* ---- the table ---- */

struct plan {
    struct layout *layout;
    struct dims d;
};

static void add_fp8(struct plan *plan, const char *module, uint64_t rows, uint64_t cols)
{
    layout_add(plan->layout, DTYPE_F8_E8M0, (rows + 127) / 128, (cols + 127) / 128, module,
               ".scale");
    layout_add(plan->layout, DTYPE_F8_E4M3, rows, cols, module, ".weight");
}

static void add_mxfp4(struct plan *plan, const char *module, uint64_t rows, uint64_t cols)
{
    layout_add(plan->layout, DTYPE_F8_E8M0, rows, cols / 32, module, ".scale");
    layout_add(plan->layout, DTYPE_I8, rows, cols / 2, module, ".weight");
}

/* Ratio 4 overlaps its windows, which takes two projections. */
static void add_compressor(struct plan *plan, const char *module, uint64_t ratio, uint64_t head)
{
    uint64_t width = ratio == 4 ? 2 * head : head;
    layout_add(plan->layout, DTYPE_F32, ratio, width, module, ".ape");
    layout_add(plan->layout, DTYPE_BF16, head, 0, module, ".norm.weight");
    layout_add(plan->layout, DTYPE_BF16, width, plan->d.hidden, module, ".wgate.weight");
    layout_add(plan->layout, DTYPE_BF16, width, plan->d.hidden, module, ".wkv.weight");
}

static void add_attention(struct plan *plan, uint64_t ratio)
{
    const struct dims *d = &plan->d;
    layout_add(plan->layout, DTYPE_F32, d->heads, 0, "attn", ".attn_sink");
    layout_add(plan->layout, DTYPE_BF16, d->head, 0, "attn.kv_norm", ".weight");
    layout_add(plan->layout, DTYPE_BF16, d->q_rank, 0, "attn.q_norm", ".weight");
    add_fp8(plan, "attn.wkv", d->head, d->hidden);
    add_fp8(plan, "attn.wo_a", d->o_groups * d->o_rank, d->heads * d->head / d->o_groups);
    add_fp8(plan, "attn.wo_b", d->hidden, d->o_groups * d->o_rank);
    add_fp8(plan, "attn.wq_a", d->q_rank, d->hidden);
    add_fp8(plan, "attn.wq_b", d->heads * d->head, d->q_rank);
    if (ratio)
        add_compressor(plan, "attn.compressor", ratio, d->head);
    if (ratio == 4) {
        add_compressor(plan, "attn.indexer.compressor", ratio, d->index_head);
        layout_add(plan->layout, DTYPE_BF16, d->index_heads, d->hidden, "attn.indexer.weights_proj",
                   ".weight");
        add_fp8(plan, "attn.indexer.wq_b", d->index_heads * d->index_head, d->q_rank);
    }
}

static void add_experts(struct plan *plan, bool hash)
{
    const struct dims *d = &plan->d;
    char module[64];
    layout_add(plan->layout, DTYPE_BF16, d->experts, d->hidden, "ffn.gate", ".weight");
    if (hash)
        layout_add(plan->layout, DTYPE_I64, d->vocab, d->per_token, "ffn.gate", ".tid2eid");
    else
        layout_add(plan->layout, DTYPE_F32, d->experts, 0, "ffn.gate", ".bias");
    add_fp8(plan, "ffn.shared_experts.w1", d->shared * d->inner, d->hidden);
    add_fp8(plan, "ffn.shared_experts.w2", d->hidden, d->shared * d->inner);
    add_fp8(plan, "ffn.shared_experts.w3", d->shared * d->inner, d->hidden);
    for (uint64_t i = 0; i < d->experts; i++)
        for (int matrix = 1; matrix <= 3; matrix++) {
            bool down = matrix == 2;
            snprintf(module, sizeof module, "ffn.experts.%" PRIu64 ".w%d", i, matrix);
            add_mxfp4(plan, module, down ? d->hidden : d->inner, down ? d->inner : d->hidden);
        }
}

static void add_hyper_connection(struct plan *plan, const char *module)
{
    uint64_t hc = plan->d.hc, mix = (2 + hc) * hc;
    layout_add(plan->layout, DTYPE_F32, mix, 0, module, "_base");
    layout_add(plan->layout, DTYPE_F32, mix, hc * plan->d.hidden, module, "_fn");
    layout_add(plan->layout, DTYPE_F32, 3, 0, module, "_scale");
}

static void add_hyper_head(struct plan *plan)
{
    layout_add(plan->layout, DTYPE_F32, plan->d.hc, 0, "hc_head", "_base");
    layout_add(plan->layout, DTYPE_F32, plan->d.hc, plan->d.hc * plan->d.hidden, "hc_head", "_fn");
    layout_add(plan->layout, DTYPE_F32, 1, 0, "hc_head", "_scale");
}

static void add_block(struct plan *plan, uint64_t ratio, bool hash)
{
    add_hyper_connection(plan, "hc_attn");
    layout_add(plan->layout, DTYPE_BF16, plan->d.hidden, 0, "attn_norm", ".weight");
    add_attention(plan, ratio);
    add_hyper_connection(plan, "hc_ffn");
    layout_add(plan->layout, DTYPE_BF16, plan->d.hidden, 0, "ffn_norm", ".weight");
    add_experts(plan, hash);
}

static void add_mtp(struct plan *plan)
{
    static const char *const norms[] = {"enorm", "hnorm", "norm"};
    for (size_t i = 0; i < 3; i++)
        layout_add(plan->layout, DTYPE_BF16, plan->d.hidden, 0, norms[i], ".weight");
    add_fp8(plan, "e_proj", plan->d.hidden, plan->d.hidden);
    add_fp8(plan, "h_proj", plan->d.hidden, plan->d.hidden);
    add_hyper_head(plan);
}

static void add_head(struct plan *plan)
{
    layout_file(plan->layout, "", 0);
    layout_add(plan->layout, DTYPE_BF16, plan->d.hidden, 0, "norm", ".weight");
    add_hyper_head(plan);
    layout_add(plan->layout, DTYPE_BF16, plan->d.vocab, plan->d.hidden, "head", ".weight");
}

static void add_layer(struct plan *plan, uint64_t i)
{
    const struct dims *d = &plan->d;
    bool mtp = i >= d->layers;
    layout_file(plan->layout, mtp ? "mtp" : "layers", mtp ? i - d->layers : i);
    add_block(plan, (uint64_t)json_integer_value(json_array_get(d->ratios, i)), i < d->hash_layers);
    if (mtp)
        add_mtp(plan);
}

static void lay_out(struct layout *layout, const json_t *config)
{
    struct plan all = {.layout = layout}, *plan = &all;
    const struct dims *d = &plan->d;
    dims_read(&plan->d, config);
    layout_file(plan->layout, "", 0);
    layout_add(plan->layout, DTYPE_BF16, d->vocab, d->hidden, "embed", ".weight");
    for (uint64_t i = 0; i < d->layers; i++)
        add_layer(plan, i);
    add_head(plan);
    for (uint64_t i = 0; i < d->mtp; i++)
        add_layer(plan, d->layers + i);
}

const struct maker maker_deepseek_v4 = {
    .type = "deepseek_v4", .quantized = DTYPE_I8, .preset = preset, .lay_out = lay_out};
