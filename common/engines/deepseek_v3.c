/* What engines make of DeepSeek-V3 (V3, R1, V3.1), V3.2 and Kimi-K2 as Model Optimizer's recipe has
 * them: NVFP4 under quant_method modelopt, some matrices in FP8 with one scale, and all others,
 * MTP's too, in BF16. */
#include "engines/rules.h"

/* vLLM: ModelOptQuantConfigBase.from_config; SGLang: ModelOptFp4Config.from_config,
 * ModelOptMixedPrecisionConfig.from_config. */
static const struct rule configs[] = {
    {VERDICT_UNKNOWN, "NVFP4 of this model was tried with modelopt", .found = NVFP4,
     .key = RULE_Q "quant_method", .unless = "modelopt"},
    {VERDICT_REFUSES, "it knows no such kind of modelopt (tried)", .found = NVFP4,
     .key = RULE_Q "quant_algo", .unless = "NVFP4|MIXED_PRECISION"},
    {VERDICT_UNKNOWN, "other blocks than 16 were not tried", .found = NVFP4,
     .key = RULE_Q "group_size", .unless = "16|-"},
    {VERDICT_UNKNOWN, "FP8 weights with scales of blocks beside NVFP4 were not tried",
     .found = FACT(FP8)},
    /* wk_weights_proj: vllm/models/deepseek_v32/nvidia/model.py: load_weights;
     * sglang/srt/models/deepseek_common/deepseek_weight_loader.py: _load_fused_indexer_wk */
    {VERDICT_REFUSES, "it builds the indexer's wk and weights_proj in BF16 (tried)",
     .found = FACT(INDEXER)},
    {VERDICT_UNKNOWN, "quantized matrices that it absorbs (kv_b_proj) were not tried",
     .found = FACT(ABSORBED)},
    {VERDICT_UNKNOWN, "layers in quantized_layers that are not the checkpoint's were not tried",
     .found = FACT(LAYERS)},
    {VERDICT_REFUSES, "it builds unquantized what `ignore` names (tried)", .found = FACT(IGNORE)},
    {VERDICT_REFUSES, "it builds as NVFP4 what `ignore` does not name (tried)",
     .found = FACT(NOT_IGNORED)},
    {0},
};

static const struct rule untried[] = {
    {VERDICT_UNKNOWN, "quantized drafts were not tried",
     .found = FACT(DRAFTS_NVFP4) | FACT(DRAFTS_MXFP4), .drafts = true},
    {0},
};

/* ---- vLLM ---- */

/* vllm/model_executor/models/deepseek_v2.py, deepseek_mtp.py; vllm/models/deepseek_v32/nvidia/;
 * vllm/model_executor/layers/quantization/modelopt.py. */
static const struct rule vllm[] = {
    /* is_layer_excluded: "exclude_module in prefix" */
    {VERDICT_REFUSES,
     "it leaves out each module in whose name an entry of `ignore` stands, as layers.1 in "
     "layers.10 "
     "(tried)",
     .found = FACT(IGNORED_PART)},
    /* params_dict[name] */
    {VERDICT_REFUSES, "it has no parameter for what is left of another format: KeyError",
     .found = FACT(LEFT_OVER)},
    /* KNvfp4Static.process */
    {VERDICT_REFUSES,
     "NaN in the block scales of attention or of an MLP counts as never loaded (tried)",
     .found = FACT(UNLOADED)},
    {VERDICT_WRONG,
     "of the second-level scales of q_a_proj and kv_a_proj_with_mqa, the larger counts for both "
     "(tried); a recipe without separate_scales gives them one",
     .found = FACT(OWN_SCALE_2)},
    {VERDICT_REFUSES, "it builds drafts that `ignore` does not name as NVFP4 (tried)",
     .found = FACT(DRAFTS_NOT_IGNORED) | FACT(NOT_IGNORED_DRAFT), .key = RULE_Q "quant_algo",
     .unless = "MIXED_PRECISION|-", .drafts = true},
    {0},
};

/* ---- SGLang ---- */

/* sglang/srt/models/deepseek_v2.py, deepseek_nextn.py, deepseek_common/deepseek_weight_loader.py;
 * sglang/srt/layers/quantization/modelopt_quant.py. Drafts are in BF16 beside NVFP4 whatever
 * `ignore` says: DeepseekModelNextN. */
static const struct rule sglang[] = {
    /* ModelOptMixedPrecisionConfig._resolve_quant_algo: deepseek_v2.py has no
     * packed_modules_mapping, so that gate_up_proj is unquantized: KeyError */
    {VERDICT_REFUSES, "it does not find gate_proj and up_proj in quantized_layers (tried)",
     .found = FACT(DENSE_NVFP4), .key = RULE_Q "quant_algo", .unless = "NVFP4"},
    /* do_load_weights: cached_a_proj */
    {VERDICT_WRONG,
     "of the scales of q_a_proj and kv_a_proj_with_mqa, q_a_proj's counts for both (tried); a "
     "recipe without separate_scales gives them one",
     .found = FACT(OWN_SCALE_2)},
    {VERDICT_WRONG, "of the input scales of matrices that it fuses, one counts for all (tried)",
     .found = FACT(SHARED_INPUT)},
    {0},
};

/* ---- TensorRT-LLM ---- */

/* tensorrt_llm/_torch/models/modeling_deepseekv3.py: DeepseekV3WeightLoader,
 * DeepseekV3DecoderLayer; modeling_utils.py: apply_quant_config_exclude_modules;
 * tensorrt_llm/models/modeling_utils.py: is_module_excluded_from_quantization;
 * tensorrt_llm/_torch/modules/linear.py: NVFP4LinearMethod. Read, not tried: it needs a GPU; and
 * some of these files in releases before main. It requantizes q_a_proj or kv_a_proj_with_mqa where
 * their second-level scales differ. */
static const struct rule trtllm[] = {
    {VERDICT_UNKNOWN, "its rules were read for NVFP4", .found = FACT(EXPERTS_PLAIN)},
    /* DeepseekV3DecoderLayer: "MIXED_PRECISION is ambiguous" */
    {VERDICT_REFUSES, "it asserts that it is not MIXED_PRECISION", .key = RULE_HF "quant_algo",
     .unless = "NVFP4|-"},
    {VERDICT_UNKNOWN, "its rules were read for NVFP4 in hf_quant_config.json",
     .key = RULE_HF "quant_algo", .unless = "NVFP4"},
    {VERDICT_UNKNOWN, "its rules were read for blocks of 16", .key = RULE_HF "group_size",
     .unless = "16"},
    {VERDICT_UNKNOWN, "its rules were read for NVFP4 and BF16",
     .found = FACT(FP8) | FACT(PER_TENSOR)},
    {VERDICT_UNKNOWN, "its rules were read for kv_b_proj and the indexer's wk in BF16",
     .found = FACT(ABSORBED) | FACT(INDEXER)},
    /* DeepseekV32Attention: its kv_a_proj_with_mqa has had wk in it, and asserted one dtype */
    {VERDICT_UNKNOWN, "some of its releases fuse q_a_proj and kv_a_proj_with_mqa with the indexer",
     .found = FACT(LATENT_NVFP4), .key = "model_type", .unless = "deepseek_v3|kimi_k2"},
    {VERDICT_REFUSES, "it looks up every tensor by name",
     .found = LACKS | FACT(OTHER_SCALE) | FACT(MIXED)},
    {VERDICT_REFUSES, "it builds unquantized what exclude_modules names", .found = FACT(IGNORE)},
    {VERDICT_REFUSES, "it builds as NVFP4 what exclude_modules does not name",
     .found = FACT(NOT_IGNORED)},
    /* NVFP4LinearMethod.load_weight_scales; load_expert_w3_w1_weight_scale_2,
     * load_expert_fc31_input_scale_nvfp4: allclose */
    {VERDICT_REFUSES, "it asserts that fused matrices have the same",
     .found = FACT(SHARED_SCALE_2) | FACT(SHARED_INPUT)},
    {VERDICT_UNKNOWN, "its rules were read for U8 weights, F8_E4M3 scales and F32 [] scalars",
     .found = FACT(SCALE_FORM) | FACT(WEIGHT_FORM) | FACT(SCALAR_FORM)},
    {VERDICT_REFUSES, "it builds drafts that exclude_modules does not name as NVFP4",
     .found = FACT(DRAFTS_NOT_IGNORED) | FACT(NOT_IGNORED_DRAFT), .drafts = true},
    {0},
};

/* ---- transformers: transformers/models/deepseek_v3, deepseek_v32 ---- */

static const struct rule transformers[] = {
    {VERDICT_UNKNOWN, "it has no such model; code that comes with the release was not tried",
     .key = "model_type", .unless = "deepseek_v3|deepseek_v32"},
    {0},
};

const struct family_rules rules_deepseek_v3 = {
    .types = "deepseek_v3|deepseek_v32|kimi_k2",
    .of = {[ENGINE_VLLM] = TABLES(configs, vllm, rules_unchecked, rules_values, untried),
           [ENGINE_SGLANG] = TABLES(configs, sglang, rules_unchecked, rules_values, untried),
           [ENGINE_TRTLLM] = TABLES(trtllm, rules_values, untried),
           [ENGINE_TRANSFORMERS] = TABLES(transformers, rules_transformers)},
};
