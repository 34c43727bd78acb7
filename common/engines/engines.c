/* The rules of serving engines, as data. A table's rules are in the order in which the engine comes
 * to them: the first that applies decides. Comments say where a rule was read. "tried": the
 * engine's own loader, on a CPU, was given a checkpoint with this fault. */
#include "engines/engines.h"

#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/text.h"

#define Q "quantization_config."
#define HF RULE_HF_QUANT "quantization."

/* Routed experts in NVFP4. */
#define NVFP4 FACT(EXPERTS_NVFP4)

/* What an expert, or a matrix, lacks. */
#define LACKS                                                                                      \
    (FACT(EXPERT) | FACT(INCOMPLETE) | FACT(WEIGHT) | FACT(WEIGHT_SCALE) | FACT(WEIGHT_SCALE_2) |  \
     FACT(INPUT_SCALE))

/* ---- every engine: the safetensors library, and values that no arithmetic survives ---- */

static const struct rule first[] = {
    /* safetensors/src/tensor.rs: Metadata::validate */
    {.found = FACT(SHARD),
     .verdict = VERDICT_REFUSES,
     .why = "a shard is not there, or the safetensors library refuses it"},
    {.key = "model_type",
     .unless = "*",
     .verdict = VERDICT_REFUSES,
     .why = "no engine knows what model it is"},
    {.key = "model_type",
     .unless = "deepseek_v4|deepseek_v41",
     .verdict = VERDICT_UNKNOWN,
     .why = "no rules are known for that model"},
    {.found = FACT(NO_NVFP4),
     .verdict = VERDICT_UNKNOWN,
     .why = "the rules are of NVFP4 and of unquantized checkpoints"},
    {0},
};

static const struct rule no_drafts = {.verdict = VERDICT_REFUSES,
                                      .why = "the checkpoint has no drafts"};

static const struct rule last[] = {
    {.found = NVFP4,
     .key = Q "quant_method",
     .unless = "fp8",
     .verdict = VERDICT_UNKNOWN,
     .why = "NVFP4 experts without FP8 weights were not tried"},
    {.found = FACT(EXPERTS_ONLY),
     .key = Q "weight_block_size",
     .unless = "*",
     .verdict = VERDICT_UNKNOWN,
     .why = "FP8 weights without the size of their blocks were not tried"},
    {.found = FACT(WEIGHT_FORM),
     .verdict = VERDICT_UNKNOWN,
     .why = "I8 weights are loaded as if they were U8 (tried); other forms were not tried"},
    {.found = FACT(NAN) | FACT(NEGATIVE) | FACT(SCALAR),
     .verdict = VERDICT_WRONG,
     .why = "scales are not looked at: what is NaN, 0, infinite or negative goes into the "
            "products"},
    {.found = FACT(F32_SCALES),
     .verdict = VERDICT_UNKNOWN,
     .why = "FP8 weights with F32 scales (X.scale) beside NVFP4 experts were not tried"},
    {.found = FACT(DRAFTS_OTHER),
     .drafts = true,
     .verdict = VERDICT_UNKNOWN,
     .why = "drafts that are neither NVFP4 nor MXFP4 were not tried; --drafts cast makes them "
            "NVFP4"},
    {.found = FACT(EXPERTS_PLAIN),
     .drafts = true,
     .key = "model_type",
     .unless = "deepseek_v4",
     .verdict = VERDICT_UNKNOWN,
     .why = "drafts of unquantized checkpoints of this model were not tried"},
    {0},
};

/* ---- vLLM ---- */

/* vllm/models/deepseek_v4/quant_config.py, vllm/models/deepseek_v41/quant_config.py:
 * DeepseekV4FP8Config; vllm/models/deepseek_v4/nvidia/model.py: load_weights;
 * vllm/model_executor/layers/quantization/modelopt.py: ModelOptNvFp4FusedMoE. */
static const struct rule vllm[] = {
    /* override_quantization_method. With modelopt it takes ModelOptMixedPrecisionConfig, whose
     * linears are unquantized: KeyError (tried) */
    {.found = FACT(EXPERTS_ONLY),
     .key = Q "quant_method",
     .unless = "fp8",
     .verdict = VERDICT_REFUSES,
     .why = "only with fp8 it reads this model's FP8 weights beside NVFP4 experts (tried with "
            "modelopt)"},
    /* Fp8LinearMethod has no input_scale: KeyError (tried) */
    {.found = FACT(DENSE_NVFP4),
     .verdict = VERDICT_REFUSES,
     .why = "it takes NVFP4 in routed experts only (tried with attention)"},
    /* DeepseekV4FP8Config.expert_dtype */
    {.found = NVFP4,
     .key = "expert_dtype",
     .unless = "fp4|-",
     .verdict = VERDICT_REFUSES,
     .why = "it builds NVFP4 experts only for fp4 (tried)"},
    {.found = NVFP4,
     .key = Q "moe_quant_algo",
     .unless = "NVFP4",
     .verdict = VERDICT_REFUSES,
     .why = "it builds MXFP4 experts, which have no input_scale (tried)"},
    /* UnquantizedFusedMoEMethod has no scales: KeyError (tried) */
    {.found = FACT(IGNORED_LAYERS),
     .verdict = VERDICT_REFUSES,
     .why = "it builds the experts that ignored_layers names unquantized (tried)"},
    /* only V4.1's quant_config.py reads `ignore`: _is_nvfp4_expert_layer */
    {.found = FACT(IGNORE),
     .key = "model_type",
     .unless = "deepseek_v4",
     .verdict = VERDICT_REFUSES,
     .why = "it builds the experts that `ignore` names as MXFP4"},
    /* DefaultModelLoader.load_weights: track_weights_loading of unquantized models only */
    {.found = LACKS,
     .key = "quantization_config",
     .unless = "*",
     .verdict = VERDICT_REFUSES,
     .why = "of an unquantized model it checks that every weight was loaded"},
    {.found = LACKS | FACT(OTHER_SCALE),
     .verdict = VERDICT_WRONG,
     .why = "what the checkpoint lacks stays as it was in memory (tried)"},
    /* _make_deepseek_v4_weights_mapper */
    {.found = FACT(LEFT_OVER) | FACT(MIXED),
     .verdict = VERDICT_WRONG,
     .why = "it renames an expert's .scale to .weight_scale: E8M0 bytes become E4M3 (tried)"},
    {.found = FACT(SCALE_FORM),
     .verdict = VERDICT_WRONG,
     .why = "it converts block scales of another dtype as numbers (tried)"},
    /* ModelOptNvFp4FusedMoE.process_weights_after_loading: warning_once */
    {.found = FACT(SHARED_SCALE_2),
     .verdict = VERDICT_WRONG,
     .why = "it takes w1's weight_scale_2 for w3, too, with a warning in the log (tried)"},
    {.found = FACT(DRAFTS_MXFP4),
     .key = "model_type",
     .unless = "deepseek_v41",
     .drafts = true,
     .verdict = VERDICT_WRONG,
     .why = "it builds the drafts' experts as NVFP4, too, but they are MXFP4 (tried); "
            "--drafts cast makes them so"},
    {.found = FACT(DRAFTS_NOT_IGNORED),
     .drafts = true,
     .verdict = VERDICT_WRONG,
     .why = "it builds drafts' experts that `ignore` does not name as NVFP4"},
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
    {.found = FACT(DENSE_NVFP4),
     .verdict = VERDICT_REFUSES,
     .why = "it takes NVFP4 in routed experts only (tried with attention)"},
    /* _parse_modelopt_quant_config: modelopt_mixed, with unquantized linears: KeyError */
    {.found = FACT(EXPERTS_ONLY),
     .key = Q "quant_method",
     .unless = "fp8",
     .verdict = VERDICT_REFUSES,
     .why = "only with fp8 it reads this model's FP8 weights beside NVFP4 experts (tried with "
            "modelopt)"},
    {.found = FACT(EXPERTS_ONLY),
     .key = Q "weight_block_size",
     .unless = "*",
     .verdict = VERDICT_REFUSES,
     .why = "it builds FP8 weights with one scale each: KeyError (tried)"},
    {.found = NVFP4,
     .key = Q "quant_algo",
     .unless = "MIXED_PRECISION",
     .verdict = VERDICT_WRONG,
     .why = SGLANG_MXFP4},
    {.found = NVFP4,
     .key = Q "moe_quant_algo",
     .unless = "NVFP4",
     .verdict = VERDICT_WRONG,
     .why = SGLANG_MXFP4},
    {.found = NVFP4,
     .key = Q "group_size",
     .unless = "*",
     .verdict = VERDICT_WRONG,
     .why = SGLANG_MXFP4},
    {.found = NVFP4,
     .key = Q "group_size",
     .unless = "16",
     .verdict = VERDICT_UNKNOWN,
     .why = "other blocks than 16 were not tried"},
    {.found = LACKS | FACT(OTHER_SCALE),
     .verdict = VERDICT_WRONG,
     .why = "what the checkpoint lacks stays as it was in memory (tried)"},
    {.found = FACT(LEFT_OVER) | FACT(MIXED),
     .verdict = VERDICT_WRONG,
     .why = "it takes what it finds of a matrix, and leaves the rest as it was in memory (tried)"},
    {.found = FACT(SCALE_FORM),
     .verdict = VERDICT_WRONG,
     .why = "it converts block scales of another dtype as numbers (tried)"},
    {.found = FACT(SHARED_SCALE_2),
     .verdict = VERDICT_WRONG,
     .why = "it takes w1's weight_scale_2 for w3, too, with a warning in the log (tried)"},
    {.found = FACT(SHARED_INPUT),
     .verdict = VERDICT_WRONG,
     .why = "of w1's and w3's input_scale, the one that is loaded last counts for both (tried)"},
    /* _get_quantization_config: exclude_modules + ["model.decoder.*", "stages.*"] */
    {.found = FACT(DRAFTS_NVFP4),
     .drafts = true,
     .verdict = VERDICT_WRONG,
     .why = "it builds the drafts' experts as MXFP4, but they are NVFP4 (tried); "
            "--drafts keep leaves them so"},
    {0},
};

/* ---- TensorRT-LLM ---- */

/* tensorrt_llm/_torch/model_config.py: _set_deepseek_v4_routed_moe_quant_config, from_pretrained;
 * tensorrt_llm/_torch/models/modeling_deepseekv4.py:
 * _normalize_deepseek_v4_nvfp4_mixed_precision_config, DeepseekV4WeightLoader;
 * tensorrt_llm/_torch/modules/fused_moe/quantization.py: load_expert_*_nvfp4. Read, not tried: it
 * needs a GPU. */
static const struct rule trtllm[] = {
    {.key = "model_type",
     .unless = "deepseek_v4",
     .verdict = VERDICT_UNKNOWN,
     .why = "no rules are known for that model"},
    /* from_pretrained raises */
    {.key = "compress_ratios",
     .unless = "*",
     .verdict = VERDICT_REFUSES,
     .why = "it must list a ratio for each layer"},
    {.found = FACT(EXPERTS_PLAIN) | FACT(DENSE_NVFP4),
     .verdict = VERDICT_UNKNOWN,
     .why = "its rules are of FP8 with routed experts in NVFP4 or MXFP4"},
    /* _normalize_deepseek_v4_nvfp4_mixed_precision_config wants all of these for FP8 linears */
    {.key = HF "quant_algo",
     .unless = "MIXED_PRECISION",
     .verdict = VERDICT_UNKNOWN,
     .why = "only with MIXED_PRECISION it reads FP8 weights beside NVFP4 experts"},
    {.key = HF "quantized_layers",
     .unless = "*",
     .verdict = VERDICT_UNKNOWN,
     .why = "MIXED_PRECISION has to list its layers"},
    {.key = Q "quant_method",
     .unless = "fp8",
     .verdict = VERDICT_UNKNOWN,
     .why = "only with fp8 it reads FP8 weights beside NVFP4 experts"},
    {.key = Q "weight_block_size",
     .unless = "[128,128]",
     .verdict = VERDICT_UNKNOWN,
     .why = "only with blocks of 128 x 128 it reads FP8 weights beside NVFP4 experts"},
    {.key = HF "kv_cache_quant_algo",
     .unless = "-",
     .verdict = VERDICT_UNKNOWN,
     .why = "its rules were read for null"},
    {.found = LACKS | FACT(OTHER_SCALE) | FACT(MIXED),
     .verdict = VERDICT_REFUSES,
     .why = "it looks up every tensor of every expert by name"},
    /* _rename_deepseek_v4_ffn_subkey */
    {.found = FACT(LEFT_OVER),
     .verdict = VERDICT_WRONG,
     .why = "it renames an expert's .scale to .weight_scale: the last of the two counts"},
    /* load_expert_w3_w1_weight_scale_2, load_expert_fc31_input_scale_nvfp4: allclose */
    {.found = FACT(SHARED_SCALE_2) | FACT(SHARED_INPUT),
     .verdict = VERDICT_REFUSES,
     .why = "it asserts that w1 and w3 have about the same"},
    {.found = FACT(SCALE_FORM) | FACT(WEIGHT_FORM) | FACT(SCALAR_FORM),
     .verdict = VERDICT_UNKNOWN,
     .why = "its rules were read for U8 weights, F8_E4M3 scales and F32 [] scalars"},
    /* _set_deepseek_v4_routed_moe_quant_config: MTP layers get the trunk's layout */
    {.found = FACT(DRAFTS_MANY),
     .drafts = true,
     .verdict = VERDICT_UNKNOWN,
     .why = "no rules are known for drafts of several layers (DSpark)"},
    {.found = FACT(DRAFTS_MXFP4),
     .drafts = true,
     .verdict = VERDICT_REFUSES,
     .why = "it builds the drafts' experts as NVFP4, too, and looks up their weight_scale_2"},
    {0},
};

/* ---- transformers ---- */

/* transformers/models/deepseek_v4; tried: AutoModelForCausalLM.from_pretrained raises
 * RuntimeError, since U8 weights have other shapes than the model's. */
static const struct rule transformers[] = {
    {.found = NVFP4 | FACT(DENSE_NVFP4),
     .verdict = VERDICT_REFUSES,
     .why = "it has no NVFP4 (tried): v4-bf16 makes a checkpoint that it loads"},
    {.key = "quantization_config",
     .unless = "-",
     .verdict = VERDICT_UNKNOWN,
     .why = "it would look for quantized weights"},
    {.key = "model_type",
     .unless = "deepseek_v4",
     .verdict = VERDICT_UNKNOWN,
     .why = "no rules are known for that model"},
    {.found = LACKS,
     .verdict = VERDICT_WRONG,
     .why = "missing weights are initialized at random, with a line in the log"},
    {.drafts = true, .verdict = VERDICT_REFUSES, .why = "it does not speculate with drafts"},
    {0},
};

const struct engine engines[] = {
    {.name = "vllm",
     .title = "vLLM",
     .version = "0.33.0",
     .serve = "vllm serve .",
     .speculate = "--speculative-config '{\"method\": \"mtp\", \"num_speculative_tokens\": 1}'",
     .rule = vllm},
    {.name = "sglang",
     .title = "SGLang",
     .version = "0.5.23",
     .serve = "python3 -m sglang.launch_server --model-path .",
     .speculate = "--speculative-algorithm EAGLE",
     .rule = sglang},
    {.name = "trtllm",
     .title = "TensorRT-LLM",
     .version = "main (008e0af)",
     .serve = "trtllm-serve .",
     .rule = trtllm},
    {.name = "transformers", .title = "transformers", .version = "5.24.0", .rule = transformers},
    {0},
};

/* ---- verdicts ---- */

const struct engine *engine_find(const char *name)
{
    const struct engine *engine = engines;
    while (engine->name && strcmp(engine->name, name) != 0)
        engine++;
    return engine->name ? engine : NULL;
}

bool engines_know(const struct evidence *evidence)
{
    return evidence->found & (FACT(EXPERTS_NVFP4) | FACT(DENSE_NVFP4) | FACT(EXPERTS_PLAIN));
}

/* The first rule of a table that applies, or NULL. */
static const struct rule *deciding(const struct rule *rule, const struct evidence *evidence,
                                   bool drafts)
{
    for (; rule->why; rule++)
        if ((drafts || !rule->drafts) && rule_applies(rule, evidence))
            return rule;
    return NULL;
}

enum verdict engine_judge(const struct engine *engine, const struct evidence *evidence, bool drafts,
                          const struct rule **rule)
{
    const struct rule *const table[] = {first, engine->rule, last};
    *rule = NULL;
    for (size_t i = 0; !*rule && i < sizeof table / sizeof *table; i++)
        *rule = deciding(table[i], evidence, drafts);
    if (!*rule && drafts && !(evidence->found & FACT(DRAFTS)))
        *rule = &no_drafts;
    return *rule ? (*rule)->verdict : VERDICT_LOADS;
}

const char *verdict_name(enum verdict verdict)
{
    static const char *const name[] = {[VERDICT_LOADS] = "loads",
                                       [VERDICT_REFUSES] = "refuses",
                                       [VERDICT_WRONG] = "loads silently wrong",
                                       [VERDICT_UNKNOWN] = "not known"};
    return name[verdict];
}

/* "loads", or "refuses: why". The caller frees it. */
static char *verdict_text(enum verdict verdict, const struct rule *rule,
                          const struct evidence *evidence)
{
    char *why = rule ? rule_text(rule, evidence) : xstrdup("");
    char *text = xprintf("%s%s%s", verdict_name(verdict), rule ? ": " : "", why);
    free(why);
    return text;
}

char *engine_line(const struct engine *engine, const struct evidence *evidence)
{
    const struct rule *rule[2];
    enum verdict verdict[2];
    char *text[2];
    for (int drafts = 0; drafts < 2; drafts++) {
        verdict[drafts] = engine_judge(engine, evidence, drafts, &rule[drafts]);
        text[drafts] = verdict_text(verdict[drafts], rule[drafts], evidence);
    }
    bool same = verdict[0] == verdict[1] && rule[0] == rule[1];
    char *line =
        same ? xprintf("%s %s, also with speculation: %s", engine->title, engine->version, text[0])
             : xprintf("%s %s: %s; with speculation: %s", engine->title, engine->version, text[0],
                       text[1]);
    free(text[0]);
    free(text[1]);
    return line;
}
