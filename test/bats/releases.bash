# Small checkpoints with the tensors, formats and config keys of DeepSeek's releases, made from the bundled one.
# Facts: the releases' config.json and model.safetensors.index.json. load craft first.

# shellcheck disable=SC2034 # add, of craft.bash, uses what it is not given

# put NAME DTYPE SHAPE BYTE: one tensor more of what was unpacked, of equal bytes (tr's octal).
put() {
    local size=1 n
    local -A width=([BF16]=2 [F32]=4)
    for n in ${3//[],[]/ }; do size=$((size * n)); done
    printf '%s\t%s\t%s\tmodel-00003-of-00003.safetensors\tdata\n' "$1" "$2" "$3" >>"$T/tree/.toc"
    head -c $((size * ${width[$2]-1})) /dev/zero | tr '\0' "\\$4" >"$T/tree/$1"
}

# leave PATTERN: without the tensors whose names match.
leave() {
    grep -vE "^($1)" "$T/tree/.toc" >"$T/toc"
    mv "$T/toc" "$T/tree/.toc"
}

# again FROM TO PATTERN: the tensors FROM.… that match are TO.…, too.
again() {
    local name
    grep -E "^$1[.]($3)" "$T/tree/.toc" | sed "s/^$1[.]/$2./" >"$T/toc"
    cut -f1 "$T/toc" | while read -r name; do ln "$T/tree/$1.${name#"$2".}" "$T/tree/$name"; done
    cat "$T/toc" >>"$T/tree/.toc"
}

# Drafts of DSpark instead of MTP.
dspark() {
    local draft
    for draft in mtp.1 mtp.2; do again mtp.0 $draft 'attn|ffn|hc_attn|hc_ffn'; done
    again mtp.0 mtp.2 'norm|hc_head'
    leave 'mtp.0.(enorm|hnorm|e_proj|h_proj|norm|hc_head)'
    put mtp.0.main_proj.weight F8_E4M3 '[256,768]' 70
    put mtp.0.main_proj.scale F8_E8M0 '[2,6]' 170
    put mtp.0.main_norm.weight BF16 '[256]' 77
    put mtp.2.markov_head.markov_w1.weight BF16 '[4096,8]' 74
    put mtp.2.markov_head.markov_w2.weight BF16 '[4096,8]' 74
    put mtp.2.confidence_head.proj.weight BF16 '[1,264]' 74
    config='.compress_ratios += [0, 0] | .dspark_block_size = 5 | .dspark_target_layer_ids = [1, 2, 3]
        | .dspark_markov_rank = 8 | .dspark_noise_token_id = 4000'
}

vision() {
    local layer
    dspark
    for layer in layers.{0..3} mtp.{0..2}; do put "$layer.ffn.gate.bias_vl" F32 '[16]' 74; done
    for layer in layers.{0,1}; do put "$layer.ffn.gate.bias" F32 '[16]' 74; done
    put vision.patch_embed.proj.weight BF16 '[64,588]' 74
    put vision.patch_embed.proj.bias BF16 '[64]' 74
    put vision.blocks.0.attn.wqkv.weight BF16 '[192,64]' 74
    put vision.norm.weight BF16 '[64]' 77
    put aligner.w1.weight BF16 '[256,576]' 74
    put aligner.w1.bias BF16 '[256]' 74
    for layer in start end pad newline; do put image_$layer BF16 '[256]' 74; done
    config+=' | .num_nextn_predict_layers = 3 | .rms_norm_eps = 1e-20 | .vision_n_layers = 1 | .vision_dim = 64'
}

all_experts='(layers|mtp)[.][0-9]+[.]ffn[.]experts[.][0-9]+[.]w[123]'

# Everything FP8, with scales in F32.
base() {
    local name byte bytes scale
    to_fp8 "$all_experts"
    awk -F'\t' '$1 ~ /[.]scale$/ { print $1 }' "$T/tree/.toc" >"$T/scales"
    sed -i '/[.]scale\t/ s/\tF8_E8M0\t/\tF32\t/' "$T/tree/.toc"
    while read -r name; do
        mapfile -t bytes < <(od -An -v -tu1 -w1 "$T/tree/$name")
        scale=''
        for byte in "${bytes[@]}"; do # 2^(byte - 127)
            printf -v byte '\\0\\0\\x%02x\\x%02x' $(((byte & 1) << 7)) $((byte >> 1))
            scale+=$byte
        done
        rm "$T/tree/$name"
        printf '%b' "$scale" >"$T/tree/$name"
    done <"$T/scales"
    config='.expert_dtype = "fp8"'
}

# release NAME FOLDER: flash, pro (without expert_dtype), dspark, vision, base, fp8 (others upload V4 so), v41.
release() {
    local config=.
    [ "$1" != v41 ] || { v41 "$2" && return; }
    unpack "$NANO"
    case $1 in
    flash) config='.expert_dtype = "fp4"' ;;
    dspark) dspark && config+=' | .expert_dtype = "fp4"' ;;
    vision) vision && config+=' | .expert_dtype = "fp4"' ;;
    base) base ;;
    fp8) to_fp8 "$all_experts" ;;
    esac
    jq "$config" "$NANO/config.json" >"$T/tree/files/config.json"
    pack "$T/release.ts"
    st-write -q "$2" "$T/release.ts"
    rm -r "$T/tree" "$T/release.ts"
}

# V4.1: config.json is nested, FP8 has blocks of 32 x 32, an Engram table a scale for every 32 columns, drafts have
# other experts. In $T/amax.safetensors amaxes of its layers.
v41() {
    local header='' data='' at=0 layer w
    mkdir "$1"
    jq -n '{model_type: "deepseek_v41", quantization_config: {quant_method: "fp8", weight_block_size: [32, 32],
        activation_scheme: "dynamic", scale_fmt: "ue8m0", expert_dtype: "fp4"},
        text_config: {model_type: "deepseek_v41_text", num_hidden_layers: 2, n_routed_experts: 2,
            dspark_n_routed_experts: 1, num_nextn_predict_layers: 1}}' >"$1/config.json"
    cp "$NANO"/tokenizer*.json "$1"
    add embed.weight BF16 '[4,64]' 512 '\x3c'
    for layer in layers.0 layers.1 mtp.0; do
        for w in attn_norm.weight attn.kv_norm.weight attn.q_norm.weight ffn_norm.weight; do
            add $layer.$w BF16 '[64]' 128 '\x3f'
        done
        for w in attn.attn_sink hc_attn_base hc_attn_fn hc_attn_scale hc_ffn_base hc_ffn_fn hc_ffn_scale ffn.gate.bias_vl; do
            add $layer.$w F32 '[4]' 16 '\x3f'
        done
        add $layer.ffn.gate.weight BF16 '[2,64]' 256 '\x3c'
        for w in attn.wq_a attn.wq_b attn.wkv attn.wo_a attn.wo_b ffn.shared_experts.w1 ffn.shared_experts.w3 ffn.shared_experts.w2; do
            add $layer.$w.weight F8_E4M3 '[64,64]' 4096 '\x38'
            add $layer.$w.scale F8_E8M0 '[2,2]' 4 '\x7f'
        done
        for w in 0.w1 0.w2 0.w3 1.w1 1.w2 1.w3; do
            [ "$layer-${w%.*}" != mtp.0-1 ] || continue
            add $layer.ffn.experts.$w.weight I8 '[64,32]' 2048 '\x12'
            add $layer.ffn.experts.$w.scale F8_E8M0 '[64,2]' 128 '\x7e'
        done
    done
    add layers.1.engram.embed.weight F8_E4M3 '[5,64]' 320 '\x38'
    add layers.1.engram.embed.scale F8_E8M0 '[5,2]' 10 '\x7f'
    add mtp.0.main_proj.weight F8_E4M3 '[64,192]' 12288 '\x38'
    add mtp.0.main_proj.scale F8_E8M0 '[2,6]' 12 '\x7f'
    add norm.weight BF16 '[64]' 128 '\x3f'
    add vision.norm.weight BF16 '[64]' 128 '\x3f'
    add head.weight BF16 '[4,64]' 512 '\x3c'
    safetensors "$1/model.safetensors" "{$header}" "$data"
    header='' data='' at=0
    for layer in layers.{0,1}.ffn.experts.{0,1}; do
        for w in w1 w2 w3; do
            add "$layer.${w}_input_quantizer._amax" F32 '[]' 4 '\x40'
        done
    done
    safetensors "$T/amax.safetensors" "{$header}" "$data"
}
