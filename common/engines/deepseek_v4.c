/* What engines make of DeepSeek-V4 and V4.1. */
#include "engines/rules.h"

/* vLLM: DeepseekV4FP8Config.override_quantization_method; with modelopt it takes
 * ModelOptMixedPrecisionConfig, whose linears are unquantized: KeyError. Fp8LinearMethod has no
 * input_scale: KeyError. SGLang: _parse_modelopt_quant_config: modelopt_mixed, with unquantized
 * linears: KeyError. */
static const struct rule fp8_linears[] = {
    {VERDICT_REFUSES,
     "only with fp8 it reads this model's FP8 weights beside NVFP4 experts (tried with modelopt)",
     .found = FACT(EXPERTS_ONLY), .key = RULE_Q "quant_method", .unless = "fp8"},
    {VERDICT_REFUSES, "it takes NVFP4 in routed experts only (tried with attention)",
     .found = FACT(DENSE_NVFP4)},
    {0},
};

static const struct rule untried_configs[] = {
    {VERDICT_UNKNOWN, "NVFP4 experts without FP8 weights were not tried", .found = NVFP4_EXPERTS,
     .key = RULE_Q "quant_method", .unless = "fp8"},
    {VERDICT_UNKNOWN, "FP8 weights without the size of their blocks were not tried",
     .found = FACT(EXPERTS_ONLY), .key = RULE_Q "weight_block_size", .unless = "*"},
    {0},
};

static const struct rule untried_formats[] = {
    {VERDICT_UNKNOWN, "FP8 weights with F32 scales (X.scale) beside NVFP4 experts were not tried",
     .found = FACT(F32_SCALES)},
    {VERDICT_UNKNOWN,
     "drafts that are neither NVFP4 nor MXFP4 were not tried; --drafts cast makes them NVFP4",
     .found = FACT(DRAFTS_OTHER), .drafts = true},
    {VERDICT_UNKNOWN, "drafts of unquantized checkpoints of this model were not tried",
     .found = FACT(EXPERTS_PLAIN), .key = "model_type", .unless = "deepseek_v4", .drafts = true},
    {0},
};

/* ---- vLLM ---- */

/* vllm/models/deepseek_v4/quant_config.py, vllm/models/deepseek_v41/quant_config.py:
 * DeepseekV4FP8Config; vllm/models/deepseek_v4/nvidia/model.py: load_weights;
 * vllm/model_executor/layers/quantization/modelopt.py: ModelOptNvFp4FusedMoE. */
static const struct rule vllm[] = {
    /* DeepseekV4FP8Config.expert_dtype */
    {VERDICT_REFUSES, "it builds NVFP4 experts only for fp4 (tried)", .found = NVFP4_EXPERTS,
     .key = "expert_dtype", .unless = "fp4|-"},
    {VERDICT_REFUSES, "it builds MXFP4 experts, which have no input_scale (tried)",
     .found = NVFP4_EXPERTS, .key = RULE_Q "moe_quant_algo", .unless = "NVFP4"},
    /* UnquantizedFusedMoEMethod has no scales: KeyError */
    {VERDICT_REFUSES, "it builds the experts that ignored_layers names unquantized (tried)",
     .found = FACT(IGNORED_LAYERS)},
    /* only V4.1's quant_config.py reads `ignore`: _is_nvfp4_expert_layer */
    {VERDICT_REFUSES, "it builds the experts that `ignore` names as MXFP4", .found = FACT(IGNORE),
     .key = "model_type", .unless = "deepseek_v4"},
    /* DefaultModelLoader.load_weights: track_weights_loading of unquantized models only */
    {VERDICT_REFUSES, "of an unquantized model it checks that every weight was loaded",
     .found = LACKS, .key = "quantization_config", .unless = "*"},
    /* _make_deepseek_v4_weights_mapper */
    {VERDICT_WRONG,
     "it renames an expert's .scale to .weight_scale: E8M0 bytes become E4M3 (tried)",
     .found = FACT(LEFT_OVER) | FACT(MIXED)},
    {VERDICT_WRONG,
     "it builds the drafts' experts as NVFP4, too, but they are MXFP4 (tried); --drafts cast makes "
     "them so",
     .found = FACT(DRAFTS_MXFP4), .key = "model_type", .unless = "deepseek_v41", .drafts = true},
    {VERDICT_WRONG, "it builds drafts' experts that `ignore` does not name as NVFP4",
     .found = FACT(DRAFTS_NOT_IGNORED), .drafts = true},
    {0},
};

/* ---- SGLang ---- */

/* sglang/srt/configs/model_config.py: nvfp4_moe_meta; sglang/srt/model_loader/loader.py:
 * _get_quantization_config; sglang/srt/layers/quantization/modelopt_quant.py: HybridFp8NvFp4Config;
 * sglang/srt/models/deepseek_v4.py: load_weights, which only warns of what it did not find. */
#define SGLANG_MXFP4                                                                               \
    "it takes the experts for MXFP4; a warning in the log says that weights were not initialized " \
    "(tried)"
static const struct rule sglang[] = {
    {VERDICT_REFUSES, "it builds FP8 weights with one scale each: KeyError (tried)",
     .found = FACT(EXPERTS_ONLY), .key = RULE_Q "weight_block_size", .unless = "*"},
    {VERDICT_WRONG, SGLANG_MXFP4, .found = NVFP4_EXPERTS, .key = RULE_Q "quant_algo",
     .unless = "MIXED_PRECISION"},
    {VERDICT_WRONG, SGLANG_MXFP4, .found = NVFP4_EXPERTS, .key = RULE_Q "moe_quant_algo",
     .unless = "NVFP4"},
    {VERDICT_WRONG, SGLANG_MXFP4, .found = NVFP4_EXPERTS, .key = RULE_Q "group_size",
     .unless = "*"},
    {VERDICT_UNKNOWN, "other blocks than 16 were not tried", .found = NVFP4_EXPERTS,
     .key = RULE_Q "group_size", .unless = "16"},
    {VERDICT_WRONG,
     "it takes what it finds of a matrix, and leaves the rest as it was in memory (tried)",
     .found = FACT(LEFT_OVER) | FACT(MIXED)},
    {VERDICT_WRONG,
     "of w1's and w3's input_scale, the one that is loaded last counts for both (tried)",
     .found = FACT(SHARED_INPUT)},
    /* _get_quantization_config: exclude_modules + ["model.decoder.*", "stages.*"] */
    {VERDICT_WRONG,
     "it builds the drafts' experts as MXFP4, but they are NVFP4 (tried); --drafts keep leaves "
     "them so",
     .found = FACT(DRAFTS_NVFP4), .drafts = true},
    {0},
};

/* ---- TensorRT-LLM ---- */

/* tensorrt_llm/_torch/model_config.py: _set_deepseek_v4_routed_moe_quant_config, from_pretrained;
 * tensorrt_llm/_torch/models/modeling_deepseekv4.py:
 * _normalize_deepseek_v4_nvfp4_mixed_precision_config, DeepseekV4WeightLoader;
 * tensorrt_llm/_torch/modules/fused_moe/quantization.py: load_expert_*_nvfp4. Read, not tried: it
 * needs a GPU. */
static const struct rule trtllm[] = {
    {VERDICT_UNKNOWN, "no rules are known for that model", .key = "model_type",
     .unless = "deepseek_v4"},
    /* from_pretrained raises */
    {VERDICT_REFUSES, "it must list a ratio for each layer", .key = "compress_ratios",
     .unless = "*"},
    {VERDICT_UNKNOWN, "its rules were read for FP8 with routed experts in NVFP4 or MXFP4",
     .found = FACT(EXPERTS_PLAIN) | FACT(DENSE_NVFP4)},
    /* _normalize_deepseek_v4_nvfp4_mixed_precision_config wants all of these for FP8 linears */
    {VERDICT_UNKNOWN, "only with MIXED_PRECISION it reads FP8 weights beside NVFP4 experts",
     .key = RULE_HF "quant_algo", .unless = "MIXED_PRECISION"},
    {VERDICT_UNKNOWN, "MIXED_PRECISION has to list its layers", .key = RULE_HF "quantized_layers",
     .unless = "*"},
    {VERDICT_UNKNOWN, "only with fp8 it reads FP8 weights beside NVFP4 experts",
     .key = RULE_Q "quant_method", .unless = "fp8"},
    {VERDICT_UNKNOWN, "only with blocks of 128 x 128 it reads FP8 weights beside NVFP4 experts",
     .key = RULE_Q "weight_block_size", .unless = "[128,128]"},
    {VERDICT_UNKNOWN, "its rules were read for null", .key = RULE_HF "kv_cache_quant_algo",
     .unless = "-"},
    {VERDICT_REFUSES, "it looks up every tensor of every expert by name",
     .found = LACKS | FACT(OTHER_SCALE) | FACT(MIXED)},
    /* _rename_deepseek_v4_ffn_subkey */
    {VERDICT_WRONG, "it renames an expert's .scale to .weight_scale: the last of the two counts",
     .found = FACT(LEFT_OVER)},
    /* load_expert_w3_w1_weight_scale_2, load_expert_fc31_input_scale_nvfp4: allclose */
    {VERDICT_REFUSES, "it asserts that w1 and w3 have about the same",
     .found = FACT(SHARED_SCALE_2) | FACT(SHARED_INPUT)},
    {VERDICT_UNKNOWN, "its rules were read for U8 weights, F8_E4M3 scales and F32 [] scalars",
     .found = FACT(SCALE_FORM) | FACT(WEIGHT_FORM) | FACT(SCALAR_FORM)},
    /* _set_deepseek_v4_routed_moe_quant_config: MTP layers get the trunk's layout */
    {VERDICT_UNKNOWN, "no rules are known for drafts of several layers (DSpark)",
     .found = FACT(DRAFTS_MANY), .drafts = true},
    {VERDICT_REFUSES,
     "it builds the drafts' experts as NVFP4, too, and looks up their weight_scale_2",
     .found = FACT(DRAFTS_MXFP4), .drafts = true},
    {0},
};

/* ---- transformers: transformers/models/deepseek_v4 ---- */

static const struct rule transformers[] = {
    {VERDICT_UNKNOWN, "no rules are known for that model", .found = FACT(EXPERTS_PLAIN),
     .key = "model_type", .unless = "deepseek_v4"},
    {0},
};

const struct family_rules rules_deepseek_v4 = {
    .types = "deepseek_v4|deepseek_v41",
    .of = {[ENGINE_VLLM] = TABLES(fp8_linears, vllm, rules_unchecked, untried_configs, rules_values,
                                  untried_formats),
           [ENGINE_SGLANG] = TABLES(fp8_linears, sglang, rules_unchecked, untried_configs,
                                    rules_values, untried_formats),
           [ENGINE_TRTLLM] = TABLES(trtllm, untried_configs, rules_values, untried_formats),
           [ENGINE_TRANSFORMERS] = TABLES(transformers, rules_transformers)},
};
