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

# v3_mtp_checkpoint DIR: a dense layer and two dense layers of MTP in BF16, 32 wide, that compute: values that look random
# and depend on nothing. Those of norms before MTP lie far apart.
v3_mtp_checkpoint() {
    mkdir -p "$1"
    cat >"$1/config.json" <<'JSON'
{"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "num_hidden_layers": 1,
 "num_nextn_predict_layers": 2, "first_k_dense_replace": 3, "moe_layer_freq": 1, "n_routed_experts": 2,
 "n_shared_experts": 1, "num_experts_per_tok": 1, "n_group": 1, "topk_group": 1, "scoring_func": "sigmoid",
 "norm_topk_prob": true, "routed_scaling_factor": 1.0, "moe_intermediate_size": 16, "intermediate_size": 32,
 "hidden_size": 32, "num_attention_heads": 2, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8,
 "qk_rope_head_dim": 8, "v_head_dim": 8, "vocab_size": 64, "rms_norm_eps": 1e-06, "rope_theta": 10000,
 "max_position_embeddings": 64, "hidden_act": "silu"}
JSON
    local header data
    header=$(v3_mtp_tensors | awk '{
        size = 2; shape = $2; count = split($2, dim, "x"); sub("x", ",", shape)
        for (i = 1; i <= count; i++) size *= dim[i]
        line = sprintf("\"%s\":{\"dtype\":\"BF16\",\"shape\":[%s],\"data_offsets\":[%d,%d]}", $1, shape, at, at + size)
        at += size; printf "%s%s", separator, line; separator = "," }')
    data=$(v3_mtp_tensors | awk 'BEGIN { x = 7 } {
        count = split($2, dim, "x") == 2 ? dim[1] * dim[2] : dim[1]
        while (count--) {
            x = (x * 75 + 74) % 65537
            high = $1 ~ /(model|head).norm.weight/ ? 62 + x % 3 : $2 ~ /x/ ? 61 + 128 * (x % 2) : 63
            printf "\\x%02x\\x%02x", int(x / 8) % 256, high
        } }')
    safetensors "$1/model.safetensors" "{$header}" "$data"
}

# Its tensors, with shapes.
v3_mtp_tensors() {
    local layer
    echo model.embed_tokens.weight 64x32
    for layer in model.layers.{0..2}; do
        printf "$layer.%s\n" 'input_layernorm.weight 32' 'self_attn.q_a_proj.weight 16x32' \
            'self_attn.q_a_layernorm.weight 16' 'self_attn.q_b_proj.weight 32x16' \
            'self_attn.kv_a_proj_with_mqa.weight 24x32' 'self_attn.kv_a_layernorm.weight 16' \
            'self_attn.kv_b_proj.weight 32x16' 'self_attn.o_proj.weight 32x16' 'post_attention_layernorm.weight 32' \
            'mlp.gate_proj.weight 32x32' 'mlp.up_proj.weight 32x32' 'mlp.down_proj.weight 32x32'
    done
    printf '%s\n' model.layers.{1,2}.{enorm,hnorm,shared_head.norm}.weight' 32' \
        model.layers.{1,2}.eh_proj.weight' 32x64'
    printf '%s\n' 'model.norm.weight 32' 'lm_head.weight 64x32'
}

# v3_mtp_ids FILE: two samples of 12 tokens for it.
v3_mtp_ids() {
    safetensors "$1" '{"input_ids":{"dtype":"I32","shape":[2,12],"data_offsets":[0,96]}}' \
        "$(awk 'BEGIN { for (i = 0; i < 24; i++) printf "\\x%02x\\0\\0\\0", i % 12 ? (i * i * 7 + i * 5) % 64 : 0 }')"
}
