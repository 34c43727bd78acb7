# Releases beside the one that most tests use.

# shellcheck disable=SC2034 # add, of craft.bash, uses what it is not given

load common
load craft

# V4.1 in small: config.json is nested, FP8 has blocks of 32 x 32, an Engram table a scale for every 32 columns.
v41() {
    local header='' data='' at=0 layer w
    mkdir "$T/v41"
    jq -n '{model_type: "deepseek_v41", quantization_config: {quant_method: "fp8", weight_block_size: [32, 32],
        activation_scheme: "dynamic", scale_fmt: "ue8m0", expert_dtype: "fp4"},
        text_config: {model_type: "deepseek_v41_text", num_hidden_layers: 2, n_routed_experts: 1}}' >"$T/v41/config.json"
    add embed.weight BF16 '[4,64]' 512 '\x3c'
    for layer in layers.0 layers.1 mtp.0; do
        add $layer.attn.wq_a.weight F8_E4M3 '[64,64]' 4096 '\x38'
        add $layer.attn.wq_a.scale F8_E8M0 '[2,2]' 4 '\x7f'
        for w in w1 w2 w3; do
            add $layer.ffn.experts.0.$w.weight I8 '[64,32]' 2048 '\x12'
            add $layer.ffn.experts.0.$w.scale F8_E8M0 '[64,2]' 128 '\x7e'
        done
    done
    add layers.1.engram.embed.weight F8_E4M3 '[5,64]' 320 '\x38'
    add layers.1.engram.embed.scale F8_E8M0 '[5,2]' 10 '\x7f'
    add head.weight BF16 '[4,64]' 512 '\x3c'
    safetensors "$T/v41/model.safetensors" "{$header}" "$data"
    header='' data='' at=0
    for layer in 0 1; do
        for w in w1 w2 w3; do
            add layers.$layer.ffn.experts.0.${w}_input_quantizer._amax F32 '[]' 4 '\x40'
        done
    done
    safetensors "$T/amax.safetensors" "{$header}" "$data"
}

@test "V4.1: its experts are cast, Engram tables and drafts stay, configs are nested" {
    v41
    pipeline "amax-merge -q --model '$T/v41' '$T/amax.safetensors' >'$T/amax.ts'"
    pipeline "nvfp4-cast --amax '$T/amax.ts' '$T/v41' | st-write -q --json '$T/out' >'$T/json'"
    jq -e '.counts[0].experts == {"score": 2, "mtp": 0} and .counts[0].lossy == 0' "$T/json"
    jq -e '.quantization_config | .moe_quant_algo == "NVFP4" and .quant_algo == "MIXED_PRECISION" and .expert_dtype == "fp4"
        and .weight_block_size == [32, 32] and (.quantized_layers | keys) == ["layers.0.ffn.experts", "layers.1.ffn.experts"]' "$T/out/config.json"
    jq -e '.text_config.num_hidden_layers == 2' "$T/out/config.json"
    run st-cmp --values "$T/v41" "$T/out"
    [[ $output == *' 0 differ'* ]]
}

@test "V4.1: everything to BF16, blocks of 32 x 32 and of 1 x 32" {
    v41
    pipeline "fp8-dequant '$T/v41' | mxfp4-unpack | st-write -q '$T/out'"
    st-ls --tsv "$T/out" | cut -f2 | sort -u | diff - <(echo BF16)
    jq -e 'has("quantization_config") | not' "$T/out/config.json"
}

@test "V4.1: what is not built in is refused: messages" {
    v41
    cp "$NANO"/tokenizer*.json "$T/v41"
    echo '{"messages": [{"role": "user", "content": "hi"}]}' >"$T/chat.jsonl"
    refused 'rules of its own for messages' st-tokenize -o "$T/x.ts" --tokenizer "$T/v41" "$T/chat.jsonl"
}
