# A DeepSeek-V3 checkpoint in small, made by hand; load craft before.

# fp8 NAME ROWS COLS BYTE SCALE: a matrix of equal FP8 codes more, at most 128 x 128, and its scale.
fp8() {
    add "$1.weight" F8_E4M3 "[$2,$3]" $(($2 * $3)) "$4"
    add "$1.weight_scale_inv" F32 '[1,1]' 4 "$5"
}

# v3_mlp MODULE: gate, up and down; up is twice as large as gate.
v3_mlp() {
    fp8 "$1.gate_proj" 16 32 '\x38' '\x3d'
    fp8 "$1.up_proj" 16 32 '\x40' '\x3d'
    fp8 "$1.down_proj" 32 16 '\x38' '\x3d'
}

# v3_checkpoint DIR [TYPE [DENSE LAYERS]]: a dense layer (or DENSE), one with two experts (LAYERS in all), and MTP's,
# all 32 wide; with TYPE deepseek_v32 also an indexer. Its scales are 0x3d3d3d3d, 0.0462.
v3_checkpoint() {
    local layer norm expert header='' data='' at=0 indexer='' dense=${3-1} layers=${4-2}
    [ "${2-}" != deepseek_v32 ] || indexer=', "index_topk": 4, "index_n_heads": 2, "index_head_dim": 16'
    mkdir -p "$1"
    cat >"$1/config.json" <<JSON
{"architectures": ["DeepseekV3ForCausalLM"], "model_type": "${2:-deepseek_v3}", "num_hidden_layers": $layers,
 "num_nextn_predict_layers": 1, "first_k_dense_replace": $dense, "moe_layer_freq": 1, "n_routed_experts": 2,
 "n_shared_experts": 1, "hidden_size": 32, "q_lora_rank": 16, "kv_lora_rank": 16$indexer,
 "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
 "weight_block_size": [128, 128]}}
JSON
    add model.embed_tokens.weight BF16 '[4,32]' 256 '\x3f'
    for ((layer = 0; layer <= layers; layer++)); do
        for norm in input_layernorm post_attention_layernorm self_attn.q_a_layernorm self_attn.kv_a_layernorm; do
            add model.layers.$layer.$norm.weight BF16 '[16]' 32 '\x3f'
        done
        fp8 model.layers.$layer.self_attn.q_a_proj 16 32 '\x38' '\x3d'
        fp8 model.layers.$layer.self_attn.q_b_proj 32 16 '\x38' '\x3d'
        fp8 model.layers.$layer.self_attn.kv_a_proj_with_mqa 32 32 '\x40' '\x3d'
        fp8 model.layers.$layer.self_attn.kv_b_proj 32 16 '\x38' '\x3d'
        fp8 model.layers.$layer.self_attn.o_proj 32 16 '\x38' '\x3d'
        if [ -n "$indexer" ]; then
            fp8 model.layers.$layer.self_attn.indexer.wq_b 32 16 '\x38' '\x3d'
            fp8 model.layers.$layer.self_attn.indexer.wk 16 32 '\x38' '\x3d'
            add model.layers.$layer.self_attn.indexer.k_norm.weight F32 '[16]' 64 '\x3f'
            add model.layers.$layer.self_attn.indexer.k_norm.bias F32 '[16]' 64 '\x00'
            add model.layers.$layer.self_attn.indexer.weights_proj.weight BF16 '[2,32]' 128 '\x3d'
        fi
        if ((layer < dense)); then
            v3_mlp model.layers.$layer.mlp
            continue
        fi
        add model.layers.$layer.mlp.gate.weight BF16 '[2,32]' 128 '\x3f'
        add model.layers.$layer.mlp.gate.e_score_correction_bias F32 '[2]' 8 '\x3f'
        for expert in shared_experts experts.0 experts.1; do
            v3_mlp model.layers.$layer.mlp.$expert
        done
    done
    for norm in enorm hnorm shared_head.norm; do
        add model.layers.$layers.$norm.weight BF16 '[32]' 64 '\x3f'
    done
    add model.layers.$layers.eh_proj.weight BF16 '[32,64]' 4096 '\x3d'
    add model.layers.$layers.embed_tokens.weight BF16 '[4,32]' 256 '\x3f'
    add model.layers.$layers.shared_head.head.weight BF16 '[4,32]' 256 '\x3f'
    add model.norm.weight BF16 '[32]' 64 '\x3f'
    add lm_head.weight BF16 '[4,32]' 256 '\x3f'
    safetensors "$1/model.safetensors" "{$header}" "$data"
}

# v3_dump FILE [MODULE...]: amaxes of these modules, as dumps call them; inputs are 3, weights 0.1855, in BF16. Without
# MODULE, those of a default calibration of this checkpoint in which no token reached expert 1.
v3_dump() {
    local header='' data='' at=0 module
    local -a modules=("${@:2}")
    [ ${#modules[@]} -gt 0 ] || modules=(layers.{0,1}.attn.wo layers.0.ffn.w{1,2,3}
        layers.1.ffn.{experts.0,shared_experts}.w{1,2,3})
    for module in "${modules[@]}"; do
        add "$module.input_quantizer._amax" BF16 '[]' 2 '\x40'
        add "$module.weight_quantizer._amax" BF16 '[]' 2 '\x3e'
    done
    safetensors "$1" "{$header}" "$data"
}
