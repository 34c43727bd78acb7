#include "engines/rules.h"

const struct rule rules_unchecked[] = {
    {VERDICT_WRONG, "what the checkpoint lacks stays as it was in memory (tried)",
     .found = LACKS | FACT(OTHER_SCALE)},
    {VERDICT_WRONG, "it converts block scales of another dtype as numbers (tried)",
     .found = FACT(SCALE_FORM)},
    /* vLLM: ModelOptNvFp4FusedMoE.process_weights_after_loading, KNvfp4Static.process; SGLang:
     * ModelOptNvFp4FusedMoEMethod, ModelOptFp4LinearMethod */
    {VERDICT_WRONG,
     "of the two second-level scales of a fused product (gate and up), one counts for both (tried)",
     .found = FACT(SHARED_SCALE_2)},
    {0},
};

const struct rule rules_values[] = {
    {VERDICT_UNKNOWN,
     "I8 weights are loaded as if they were U8 (tried); other forms were not tried",
     .found = FACT(WEIGHT_FORM)},
    {VERDICT_WRONG,
     "scales are not looked at: what is NaN, 0, infinite or negative goes into the products",
     .found = FACT(NAN) | FACT(NEGATIVE) | FACT(SCALAR)},
    {0},
};

/* AutoModelForCausalLM.from_pretrained raises RuntimeError, since U8 weights have other shapes than
 * the model's. */
const struct rule rules_transformers[] = {
    {VERDICT_REFUSES, "it has no NVFP4 (tried): v3-bf16 and v4-bf16 make checkpoints that it loads",
     .found = NVFP4},
    {VERDICT_UNKNOWN, "it would look for quantized weights", .key = "quantization_config",
     .unless = "-"},
    {VERDICT_WRONG, "missing weights are initialized at random, with a line in the log",
     .found = LACKS},
    {VERDICT_REFUSES, "it does not speculate with drafts", .drafts = true},
    {0},
};
