# st-verify on V3's family: what engines make of each recipe's result, and of faults planted in it.

load common
load craft
load v3
load verify

PATH=$PWD/pipelines:$PATH
vllm='vLLM 0.33.0' sglang='SGLang 0.5.23' trtllm='TensorRT-LLM main (008e0af)'
wrong='loads silently wrong'
expert=model.layers.1.mlp.experts.0
wo=model.layers.1.self_attn.o_proj

# make [OPTION...]: a conversion without a fault in $T/good, and a copy in $T/bad.
make() {
    rm -rf "$T/good" "$T/bad"
    [ -d "$T/v3" ] || v3_checkpoint "$T/v3"
    v3-nvfp4 -q --input-scale 1 "$@" "$T/v3" "$T/good"
    cp -r "$T/good" "$T/bad"
}

# lists FILTER: change the list of what is not quantized in both configs.
lists() {
    config ".quantization_config.ignore |= $1"
    config ".quantization.exclude_modules |= $1" hf_quant_config.json
}

# judged ENGINE VERDICT [VERDICT]: of $T/bad, without speculation and (by default the same) with. A verdict is a
# beginning.
judged() {
    run st-verify --values "$T/bad"
    echo "$output"
    grep -qF "$1, no speculation: $2" <<<"$output"
    grep -qF "$1, with speculation: ${3-$2}" <<<"$output"
}

@test "the default, without shared experts, without wo: vLLM, SGLang and TensorRT-LLM load it and its drafts" {
    for options in '' --experts-only --no-wo; do
        make $options
        for engine in "$vllm" "$sglang" "$trtllm"; do
            run st-verify -q --speculation --engine "$(case $engine in v*) echo vllm ;; S*) echo sglang ;; T*) echo trtllm ;; esac)" "$T/good"
            [ "$status" -eq 0 ]
        done
        judged 'transformers 5.24.0' 'refuses: it has no NVFP4'
        [[ $output == *': faults 0, warnings '* ]]
    done
}

@test "attention in NVFP4: engines that fuse q_a_proj and kv_a_proj_with_mqa take one second-level scale" {
    make --mla nvfp4
    judged "$vllm" "$wrong: of the second-level scales of q_a_proj"
    judged "$sglang" "$wrong: of the scales of q_a_proj"
    judged "$trtllm" loads # which requantizes the one with the smaller scale
    grep -qF 'warning own-scale-2: model.layers.0.self_attn.q_a_proj.weight_scale_2: is ' <<<"$output"
    run v3-nvfp4 -n --input-scale 1 --mla nvfp4 "$T/v3" "$T/plan"
    [[ $(tr -s '\n ' ' ' <<<"$output") == *"$vllm, also with speculation: $wrong: of the second-level scales"* ]]
    jq 'del(.separate_scales) | .name = "shared"' pipelines/recipes/deepseek_v3/mla-nvfp4.json >"$T/shared.json"
    make --recipe "$T/shared.json"
    run v3-nvfp4 -n --input-scale 1 --recipe "$T/shared.json" "$T/v3" "$T/plan"
    [[ $output == *"$vllm, also with speculation: loads"* ]]
    for engine in "$vllm" "$sglang" "$trtllm"; do judged "$engine" loads; done
    [[ $output != *own-scale* ]]
}

@test "MIXED_PRECISION: only vLLM loads it" {
    v3_checkpoint "$T/v3"
    v3_dump "$T/amax.safetensors" layers.{0,1}.attn.{wq_a,wq_b,wkv_a,wo} layers.0.ffn.w{1,2,3} \
        layers.1.ffn.{experts.0,experts.1,shared_experts}.w{1,2,3}
    v3-nvfp4 -q --mla fp8 --amax "$T/amax.safetensors" "$T/v3" "$T/bad"
    judged "$vllm" loads
    judged "$sglang" 'refuses: quantization_config.quant_algo is MIXED_PRECISION: it does not find gate_proj and up_proj'
    judged "$trtllm" 'refuses: hf_quant_config.json:quantization.quant_algo is MIXED_PRECISION: it asserts'
}

@test "V3.2: an indexer's wk and weights_proj have to stay in BF16" {
    v3_checkpoint "$T/v3" deepseek_v32
    make
    for engine in "$vllm" "$sglang" "$trtllm"; do judged "$engine" loads; done
    make --mla nvfp4
    for engine in "$vllm" "$sglang"; do judged "$engine" 'refuses: it builds the indexer'; done
    judged "$trtllm" 'not known: its rules were read for kv_b_proj and the indexer'
    jq '.formats = {"model.layers.*.self_attn.indexer.*": "BF16"} + .formats | del(.separate_scales)' \
        pipelines/recipes/deepseek_v32/mla-nvfp4.json >"$T/plain.json"
    make --recipe "$T/plain.json"
    for engine in "$vllm" "$sglang"; do judged "$engine" loads; done
    judged "$trtllm" 'not known: model_type is deepseek_v32: some of its releases'
}

@test "kv_b_proj and drafts in NVFP4: nobody tried" {
    jq '.formats = {"model.layers.*.self_attn.kv_b_proj": "NVFP4"} + .formats' pipelines/recipes/deepseek_v3/mlp-wo.json >"$T/kv.json"
    make --recipe "$T/kv.json"
    for engine in "$vllm" "$sglang" "$trtllm"; do judged "$engine" 'not known'; done
    jq '.formats = {"mtp.*.mlp.*_proj": "NVFP4"} + .formats' pipelines/recipes/deepseek_v3/mlp-wo.json >"$T/drafts.json"
    make --recipe "$T/drafts.json"
    for engine in "$vllm" "$sglang" "$trtllm"; do judged "$engine" loads 'not known: quantized drafts'; done
}

@test "scales that fused matrices do not share" {
    make
    for module in $expert model.layers.1.mlp.shared_experts model.layers.0.mlp; do
        put "$module.up_proj.weight_scale_2" 3 '\x3f'
        judged "$vllm" "$wrong: of the two second-level scales"
        judged "$sglang" "$wrong: of the two second-level scales"
        judged "$trtllm" 'refuses: it asserts that fused matrices'
        grep -qF "fault shared-scale-2: $module.gate_proj.weight_scale_2: " <<<"$output"
        rm -r "$T/bad" && cp -r "$T/good" "$T/bad"
    done
    put "$expert.up_proj.input_scale" 3 '\x3e'
    judged "$vllm" loads
    judged "$sglang" "$wrong: of the input scales"
    judged "$trtllm" 'refuses: it asserts that fused matrices'
}

@test "what is missing, or NaN: of an expert, and of another matrix" {
    make
    local from engine verdict
    while IFS='|' read -r from engine verdict; do
        rm -r "$T/bad" && cp -r "$T/good" "$T/bad"
        in_headers "\"$from\"" "\"${from%?}X\""
        judged "${!engine}" "$verdict"
    done <<MISSING
$expert.up_proj.weight_scale_2|vllm|$wrong: what the checkpoint lacks
$expert.up_proj.input_scale|sglang|$wrong: what the checkpoint lacks
$expert.up_proj.weight_scale|vllm|$wrong: what the checkpoint lacks
$expert.up_proj.weight|trtllm|refuses: it looks up
$wo.weight_scale_2|vllm|$wrong: what the checkpoint lacks
$wo.weight_scale|vllm|refuses: NaN in the block scales
$wo.weight_scale|sglang|$wrong: what the checkpoint lacks
MISSING
    rm -r "$T/bad" && cp -r "$T/good" "$T/bad"
    put "$expert.up_proj.weight_scale" 0 '\x7f'
    judged "$vllm" "$wrong: scales are not looked at"
    put "$wo.weight_scale" 0 '\x7f'
    judged "$vllm" 'refuses: NaN in the block scales'
    judged "$sglang" "$wrong: scales are not looked at"
}

@test "the lists of what is not quantized" {
    make
    lists '. + ["model.layers.1.mlp.experts*"]'
    for engine in "$vllm" "$sglang" "$trtllm"; do judged "$engine" 'refuses: it builds unquantized what'; done
    lists '. - ["lm_head"]'
    for engine in "$vllm" "$sglang" "$trtllm"; do judged "$engine" 'refuses: it builds as NVFP4 what'; done
    grep -qF 'lacks lm_head, which is not quantized' <<<"$output"
    lists '. - ["model.layers.2*"]'
    judged "$vllm" loads 'refuses: quantization_config.quant_algo is NVFP4: it builds drafts'
    judged "$sglang" loads
    judged "$trtllm" loads 'refuses: it builds drafts'
    lists '. + ["model.layers.1.mlp.exp"]' # no pattern of it
    judged "$vllm" 'refuses: it leaves out each module in whose name'
    judged "$sglang" loads
}

@test "config.json: kinds of modelopt" {
    make
    config '.quantization_config.quant_algo = "NVFP5"'
    for engine in "$vllm" "$sglang"; do judged "$engine" 'refuses: quantization_config.quant_algo is NVFP5: it knows no'; done
    config '.quantization_config.quant_method = "fp8"'
    for engine in "$vllm" "$sglang"; do judged "$engine" 'not known: quantization_config.quant_method is fp8'; done
    config '.model_type = "kimi_k2"'
    for engine in "$vllm" "$sglang" "$trtllm"; do judged "$engine" loads; done
    v3-bf16 -q "$T/v3" "$T/bf16"
    for engine in vllm sglang transformers; do st-verify -q --engine $engine "$T/bf16"; done
    st-verify -q --engine vllm --speculation "$T/bf16"
}

@test "no engine takes layers.10 for a part of layers.1, which is not quantized" {
    v3_checkpoint "$T/v3" deepseek_v3 2 11
    make --experts-only
    jq -e '.quantization_config.ignore | index("model.layers.1.*") and index("model.layers.0*") and (index("model.layers.1") | not)' \
        "$T/good/config.json"
    judged "$vllm" loads
    lists '. + ["model.layers.1"]' # as Model Optimizer has it
    judged "$vllm" 'refuses: it leaves out each module in whose name'
}
