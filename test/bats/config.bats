# What config.json and hf_quant_config.json say of formats: always those that are there.
load common
load craft

PATH=$PWD/pipelines:$PATH

# described CHECKPOINT: quant_method, quant_algo, the keys of FP8, those of NVFP4, expert_dtype, and
# hf_quant_config.json's quant_algo, all of them "-" where they are not there.
described() {
    local hf=-
    [ ! -e "$1/hf_quant_config.json" ] || hf=$(jq -r .quantization.quant_algo "$1/hf_quant_config.json")
    jq -r '[.. | objects | .quantization_config // empty] as [$q] |
        def are($keys): [$keys[] | select(in($q // {}))] | if . == $keys then "all" elif . == [] then "-" else "some" end;
        [$q.quant_method // "-", $q.quant_algo // "-",
         are(["activation_scheme", "fmt", "scale_fmt", "weight_block_size"]),
         are(["config_groups", "group_size", "ignore", "producer", "quantized_layers"]),
         ([.. | objects | .expert_dtype // empty] | first // "-")] | join(" ")' "$1/config.json" |
        sed "s/\$/ $hf/"
}

# release FILTER: the bundled checkpoint in $T/source with a config.json of another shape.
release() {
    cp -r "$NANO" "$T/source"
    jq "$1" "$NANO/config.json" >"$T/source/config.json"
}

# Of V4's config.json, and of V4.1's, which nests.
flat='.expert_dtype = "fp4"'
nested='.quantization_config.expert_dtype = "fp4" | .text_config = {quantization_config} | del(.quantization_config)'

# combinations COMMAND: for each choice of formats that are dequantized in a pipeline after COMMAND,
# what is left, and how the configs then have to describe it; after FP8, MXFP4 (the drafts') and NVFP4.
combinations() {
    local stages wanted
    while read -r stages wanted; do
        rm -rf "$T/out"
        pipeline "$1 ${stages//+/ | } | st-write -q '$T/out'"
        echo "$stages: wanted '$wanted', got '$(described "$T/out")'"
        [ "$(described "$T/out")" = "$wanted" ]
    done <<'TABLE'
+cat fp8 MIXED_PRECISION all all fp4 MIXED_PRECISION
+mxfp4-unpack fp8 MIXED_PRECISION all all fp4 MIXED_PRECISION
+fp8-dequant modelopt MIXED_PRECISION - all fp4 MIXED_PRECISION
+fp8-dequant+mxfp4-unpack modelopt NVFP4 - all fp4 NVFP4
+nvfp4-unpack fp8 - all - - -
+mxfp4-unpack+nvfp4-unpack fp8 - all - - -
+nvfp4-unpack+fp8-dequant mxfp4 - - - - -
+fp8-dequant+mxfp4-unpack+nvfp4-unpack - - - - - -
TABLE
}

@test "every choice of FP8, MXFP4 and NVFP4 that is left, in one pipeline with the cast" {
    amaxes "$T/amax.ts"
    for shape in "$flat" "$nested"; do
        rm -rf "$T/source"
        release "$shape"
        combinations "nvfp4-cast --amax '$T/amax.ts' '$T/source'"
    done
}

@test "every choice of FP8, MXFP4 and NVFP4 that is left of a checkpoint that has all" {
    amaxes "$T/amax.ts"
    for shape in "$flat" "$nested"; do
        rm -rf "$T/source" "$T/all"
        release "$shape"
        pipeline "nvfp4-cast --amax '$T/amax.ts' '$T/source' | st-write -q '$T/all'"
        combinations "st-read '$T/all'"
    done
}

@test "every choice of FP8 and MXFP4 that is left of V4" {
    local stages wanted
    release "$flat"
    while read -r stages wanted; do
        rm -rf "$T/out"
        pipeline "st-read '$T/source' ${stages//+/ | } | st-write -q '$T/out'"
        echo "$stages: wanted '$wanted', got '$(described "$T/out")'"
        [ "$(described "$T/out")" = "$wanted" ]
    done <<'TABLE'
+fp8-dequant mxfp4 - - - fp4 -
+mxfp4-unpack fp8 - all - - -
+mxfp4-unpack+fp8-dequant - - - - - -
TABLE
}

@test "NVFP4 of a checkpoint that was BF16, or whose FP8 went first" {
    amaxes "$T/amax.ts"
    release "$flat"
    v4-bf16 -q "$T/source" "$T/bf16"
    pipeline "nvfp4-pack --amax '$T/amax.ts' '$T/bf16' | st-write -q '$T/out'"
    [ "$(described "$T/out")" = 'modelopt NVFP4 - all - NVFP4' ]
    pipeline "fp8-dequant '$T/source' | nvfp4-cast --amax '$T/amax.ts' | st-write -q '$T/mixed'"
    [ "$(described "$T/mixed")" = 'modelopt MIXED_PRECISION - all fp4 MIXED_PRECISION' ]
}

@test "configs of checkpoints whose formats stay are left alone, byte for byte, also where they are wrong" {
    release '.expert_dtype = "fp8" | .text_config.expert_dtype = "fp8"'
    printf ' \n' >>"$T/source/config.json"
    echo '{"quantization": {}}' >"$T/source/hf_quant_config.json"
    pipeline "st-read '$T/source' | st-write -q '$T/out'"
    cmp "$T/source/config.json" "$T/out/config.json"
    cmp "$T/source/hf_quant_config.json" "$T/out/hf_quant_config.json"
    # A stage that finds nothing of its format changes nothing.
    pipeline "nvfp4-unpack '$T/source' | st-write -q '$T/again'"
    cmp "$T/source/config.json" "$T/again/config.json"
}

# fp8_expert: one expert in FP8, as Base has them, in $T/fp8, and its amaxes in $T/amax.ts.
fp8_expert() {
    local name=layers.0.ffn.experts.0 header='' amaxes='' at=0 i=0 w
    mkdir "$T/fp8"
    for w in w1 w2 w3; do
        header+="${header:+,}\"$name.$w.scale\":{\"dtype\":\"F8_E8M0\",\"shape\":[1,1],\"data_offsets\":[$at,$((at + 1))]}"
        header+=",\"$name.$w.weight\":{\"dtype\":\"F8_E4M3\",\"shape\":[16,16],\"data_offsets\":[$((at + 1)),$((at + 257))]}"
        amaxes+="${amaxes:+,}\"$name.${w}_input_quantizer._amax\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[$i,$((i + 4))]}"
        at=$((at + 257)) i=$((i + 4))
    done
    safetensors "$T/fp8/model.safetensors" "{$header}" "$(printf '%0*d' $((at / 2)) 0 | sed 's/0/\\x38\\x70/g')\\x38"
    jq '.expert_dtype = "fp8"' "$NANO/config.json" >"$T/fp8/config.json"
    safetensors "$T/amax.safetensors" "{$amaxes}" '\0\0\0\x41\0\0\0\x41\0\0\0\x41'
    amax-merge -q -o "$T/amax.ts" "$T/amax.safetensors"
}

@test "experts in FP8: fp8 goes with them" {
    fp8_expert
    pipeline "st-read --layers 0-0 '$T/fp8' | nvfp4-pack --amax '$T/amax.ts' | st-write -q --partial '$T/out'"
    [ "$(described "$T/out")" = 'modelopt NVFP4 - all fp4 NVFP4' ]
    pipeline "st-read --layers 0-0 '$T/fp8' | fp8-dequant | st-write -q --partial '$T/bf16'"
    [ "$(described "$T/bf16")" = '- - - - - -' ]
}

@test "v4-bf16 unpacks NVFP4, too, and says nothing of formats that it did not find" {
    amaxes "$T/amax.ts"
    release "$flat"
    pipeline "nvfp4-cast --amax '$T/amax.ts' '$T/source' | st-write -q '$T/all'"
    run v4-bf16 "$T/all" "$T/out"
    [ "$status" -eq 0 ]
    [[ $output == *'nvfp4-unpack: 192 weights became BF16'* ]]
    [ "$(described "$T/out")" = '- - - - - -' ]
    v4-bf16 -q "$T/source" "$T/bf16"
    st-cmp -q --values "$T/bf16" "$T/out"
    run v4-bf16 "$T/out" "$T/again"
    [ "$status" -eq 0 ]
    run grep -E "became BF16" <<<"$output"
    [ "$status" -eq 1 ]
}

# quantization FILTER SOURCE: of what v4-experts makes of it with a config.json that this jq filter changed.
quantization() {
    rm -rf "$T/less" "$T/out"
    cp -r "$2" "$T/less"
    jq "$1" "$2/config.json" >"$T/less/config.json"
    v4-experts -q --input-scale 1 "$T/less" "$T/out"
    jq -c '.. | objects | .quantization_config? // empty' "$T/out/config.json"
}

@test "FP8's block size is that of the scales, where config.json has none, or what is none" {
    load releases
    release v41 "$T/v41"
    for filter in 'del(.quantization_config)' 'del(.quantization_config.weight_block_size)' \
        '.quantization_config.weight_block_size = [0, 0]' '.quantization_config.weight_block_size = "32"'; do
        [ "$(quantization "$filter" "$T/v41" | jq -c .weight_block_size)" = '[32,32]' ]
        [ "$(quantization "$filter" "$NANO" | jq -c .weight_block_size)" = '[128,128]' ]
    done
}

@test "lists of what FP8 leaves alone do not name what is NVFP4; expert_dtype of any kind follows" {
    for key in ignored_layers modules_to_not_convert; do
        [ "$(quantization ".quantization_config.$key = [\"layers.0.ffn.experts\", \"head\", \"layers.3.ffn.experts.*\"]" "$NANO" |
            jq -c ".$key")" = '["head"]' ]
    done
    quantization '.expert_dtype = 4' "$NANO"
    [ "$(jq .expert_dtype "$T/out/config.json")" = '"fp4"' ]
}
