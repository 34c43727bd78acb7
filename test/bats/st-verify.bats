# st-verify: faults planted in a good conversion of v4-nano, one at a time, most of them in place, so that
# nothing else changes; and what engines make of each.

# shellcheck disable=SC2034 # add, of craft.bash, uses what it is not given

load common
load craft
load verify

expert=layers.2.ffn.experts.3

prepare() {
    amaxes "$T/amax.ts"
    nvfp4-cast -q --amax "$T/amax.ts" "$NANO" | st-write -q "$T/good"
    cp -r "$T/good" "$T/bad"
}

wrong='loads silently wrong'

@test "a good conversion has no fault, and each engine its verdict" {
    run st-verify --values --source "$NANO" "$T/good"
    echo "$output"
    [ "$status" -eq 0 ]
    [[ $output == *'1051 tensors, 192 of them NVFP4 matrices: faults 0, warnings 0'* ]]
    diff <(grep speculation: <<<"$output" | cut -d: -f1,2) - <<'VERDICTS'
vLLM 0.33.0, no speculation: loads
vLLM 0.33.0, with speculation: loads silently wrong
SGLang 0.5.23, no speculation: loads
SGLang 0.5.23, with speculation: loads
TensorRT-LLM main (008e0af), no speculation: loads
TensorRT-LLM main (008e0af), with speculation: refuses
transformers 5.24.0, no speculation: refuses
transformers 5.24.0, with speculation: refuses
VERDICTS
}

@test "--engine asks one, and exits 1 unless it loads; --speculation with the drafts" {
    for engine in vllm sglang trtllm; do st-verify -q --engine "$engine" "$T/good"; done
    st-verify -q --engine sglang --speculation "$T/good"
    run st-verify --engine vllm --speculation "$T/good"
    [ "$status" -eq 1 ]
    [[ $output == *"vLLM 0.33.0, with speculation: $wrong"*'drafts'* && $output != *SGLang* ]]
    run st-verify -q --engine sglang --engine transformers "$T/good"
    [ "$status,$output" = 1, ]
}

@test "drafts in NVFP4 are vLLM's, not SGLang's" {
    local header='' data='' at=0 layer i w
    for layer in layers.{0..3} mtp.0; do
        for i in {0..15}; do
            for w in w1 w2 w3; do add "$layer.ffn.experts.$i.${w}_input_quantizer._amax" F32 '[]' 4 '\x40'; done
        done
    done
    safetensors "$T/amax.safetensors" "{$header}" "$data"
    amax-merge -q -o "$T/all.ts" "$T/amax.safetensors"
    nvfp4-cast -q --drafts cast --amax "$T/all.ts" "$NANO" | st-write -q "$T/drafts"
    run st-verify "$T/drafts"
    echo "$output"
    [ "$status" -eq 0 ]
    [[ $output == *"240 of them NVFP4 matrices: faults 0"* && $output == *'vLLM 0.33.0, with speculation: loads'$'\n'* ]]
    [[ $output == *"SGLang 0.5.23, with speculation: $wrong"*MXFP4* ]]
}

@test "the reference's index: its total_size is stale" {
    cp "$GOLDEN"/modelopt-cast/*.json "$T/bad"
    finds 'fault total-size: the index says 12701674 bytes, the tensors have 12899818'
    only total-size
}

@test "a whole expert, or a tensor of one, is missing" {
    rm -r "$T/bad"
    st-grep -V "^layers[.]2[.]ffn[.]experts[.]3[.]" "$T/good" | st-write -q --partial "$T/bad"
    finds "fault expert: $expert: is missing" "vLLM 0.33.0, no speculation: $wrong" \
        "SGLang 0.5.23, no speculation: $wrong" 'TensorRT-LLM main (008e0af), no speculation: refuses'
    only expert
    local suffix
    for suffix in input_scale weight_scale_2 weight; do
        rm -r "$T/bad" && cp -r "$T/good" "$T/bad"
        in_headers "\"$expert.w1.$suffix\"" "\"$expert.wX.$suffix\""
        finds "fault ${suffix//_/-}: $expert.w1.$suffix: is missing" "vLLM 0.33.0, no speculation: $wrong"
    done
}

@test "the last expert of every layer, a layer, and the scale of an attention matrix are missing" {
    in_headers '.ffn.experts.15.' '.ffn.expertz.15.'
    finds 'fault incomplete: the checkpoint lacks layers.0.ffn.experts.15'
    rm -r "$T/bad" && cp -r "$T/good" "$T/bad"
    in_headers '"layers.3.' '"layerz.3.'
    finds 'fault incomplete: the checkpoint lacks layers.3'
    rm -r "$T/bad" && cp -r "$T/good" "$T/bad"
    in_headers layers.1.attn.wq_b.scale layers.1.attn.wq_b.scalX
    finds 'fault other-scale: layers.1.attn.wq_b.weight: FP8 without its scale'
}

@test "a name that claims a billion experts" {
    mkdir "$T/many"
    cp "$T/good/config.json" "$T/many"
    safetensors "$T/many/model.safetensors" \
        '{"layers.0.ffn.experts.999999999.w1.weight":{"dtype":"U8","shape":[1,8],"data_offsets":[0,8]}}' '\0\0\0\0\0\0\0\0'
    run timeout 5 st-verify "$T/many"
    [ "$status" -eq 1 ]
    [[ $output == *'fault expert: layers.0.ffn.experts.999999999.w1.weight: its number is larger than'* ]]
}

@test "a left-over .scale, and block scales, weights and scalars of another form" {
    in_headers "\"$expert.w1.weight_scale\":" "\"$expert.w1.scale\":       "
    sed -i "s/$expert.w1.weight_scale\": /$expert.w1.scale\": /" "$T/bad/model.safetensors.index.json"
    finds "fault left-over-scale: $expert.w1.scale: is of MXFP4" "fault weight-scale: $expert.w1.weight_scale: is missing" \
        "vLLM 0.33.0, no speculation: $wrong"
    local from to
    while read -r name from to what; do
        rm -r "$T/bad" && cp -r "$T/good" "$T/bad"
        in_headers "\"$expert.w1.$name\":{\"dtype\":\"$from\"" "\"$expert.w1.$name\":{\"dtype\":\"$to\"$(printf "%$((${#from} - ${#to}))s" '')"
        finds "fault $what: $expert.w1.$name: is $to"
        only "$what"
    done <<'FORMS'
weight_scale F8_E4M3 U8 scale-form
weight U8 I8 weight-form
FORMS
    [[ $output == *'vLLM 0.33.0, no speculation: not known: I8 weights'* ]]
    in_headers "\"$expert.w1.input_scale\":{\"dtype\":\"F32\"" "\"$expert.w1.input_scale\":{\"dtype\":\"I32\""
    finds "fault scalar-form: $expert.w1.input_scale: is I32 [], not F32 []"
    unpack "$T/good" # engines take one of shape [1]
    sed -i "s/^\($expert.w1.input_scale\tF32\t\)\[\]/\1[1]/" "$T/tree/.toc"
    pack "$T/one.ts"
    st-write -q "$T/one" <"$T/one.ts"
    run st-verify --engine vllm "$T/one"
    [ "$status" -eq 0 ]
    [[ $output == *"warning scalar-shape: $expert.w1.input_scale: is F32 [1], not F32 []"* ]]
}

@test "values: NaN and negative block scales, zero, infinite, negative and subnormal scalars" {
    local line
    while read -r name bytes what; do
        rm -r "$T/bad" && cp -r "$T/good" "$T/bad"
        put "$expert.$name" 0 "$bytes"
        finds "fault $what: $expert.$name: " "vLLM 0.33.0, no speculation: $wrong" -- --values
        only "$what"
    done <<'VALUES'
w1.weight_scale \x7f nan
w2.weight_scale \xff nan
w2.weight_scale \xb8 negative
w2.weight_scale_2 \0\0\0\0 scalar
w2.weight_scale_2 \0\0\xc0\x7f scalar
w2.input_scale \0\0\x80\x7f scalar
w2.input_scale \0\0\x80\xbf scalar
VALUES
    rm -r "$T/bad" && cp -r "$T/good" "$T/bad"
    put "$expert.w2.weight_scale_2" 0 '\1\0\0\0'
    run st-verify "$T/bad"
    [ "$status" -eq 0 ]
    [[ $output == *"warning subnormal: $expert.w2.weight_scale_2: "* ]]
}

@test "block scales: one expert a layer without --values, all with it" {
    put "$expert.w1.weight_scale" 5 '\x7f'
    st-verify -q "$T/bad"
    finds "fault nan: $expert.w1.weight_scale: 1 of 2048" -- --values
    put layers.2.ffn.experts.2.w1.weight_scale 5 '\x7f'
    finds 'fault nan: layers.2.ffn.experts.2.w1.weight_scale: 1 of 2048'
}

@test "w1 and w3 that differ in one bit, and a layer whose input scales lie far apart" {
    put "$expert.w3.weight_scale_2" 0 '\x77'
    finds "fault shared-scale-2: $expert.w1.weight_scale_2: " "vLLM 0.33.0, no speculation: $wrong" \
        'TensorRT-LLM main (008e0af), no speculation: refuses'
    only shared-scale-2
    rm -r "$T/bad" && cp -r "$T/good" "$T/bad"
    put "$expert.w1.input_scale" 0 '\x77'
    finds "fault shared-input-scale: $expert.w1.input_scale: "
    rm -r "$T/bad" && cp -r "$T/good" "$T/bad"
    put "$expert.w2.input_scale" 0 '\0\0\x80\x40'
    run st-verify "$T/bad"
    [ "$status" -eq 0 ]
    [[ $output == *"warning input-spread: $expert.w2.input_scale: 4, the layer's largest, is "* ]]
}

@test "index: a name in the wrong shard, in none, left out; shards that are not there or not named" {
    local index=model.safetensors.index.json
    jq '.weight_map["embed.weight"] = "model-00002-of-00003.safetensors"' "$T/good/$index" >"$T/bad/$index"
    finds 'fault index: embed.weight: the index names model-00002-of-00003.safetensors, but it is in model-00001-of'
    only index
    jq '.weight_map["more.weight"] = "model-00002-of-00003.safetensors"' "$T/good/$index" >"$T/bad/$index"
    finds 'fault index: more.weight: the index names model-00002-of-00003.safetensors, which has no such tensor'
    jq 'del(.weight_map["embed.weight"])' "$T/good/$index" >"$T/bad/$index"
    finds 'fault index: embed.weight: in model-00001-of-00003.safetensors, but not in the index'
    jq 'del(.metadata)' "$T/good/$index" >"$T/bad/$index"
    finds 'fault total-size: the index has no metadata.total_size'
    cp "$T/good/$index" "$T/bad"
    cp "$T/bad/model-00001-of-00003.safetensors" "$T/bad/more.safetensors"
    finds 'fault index: more.safetensors: a shard that the index does not name'
    rm "$T/bad/more.safetensors" "$T/bad/model-00002-of-00003.safetensors"
    finds 'fault shard: model-00002-of-00003.safetensors: No such file' 'vLLM 0.33.0, no speculation: refuses: a shard'
    cp "$T/good/model-00002-of-00003.safetensors" "$T/bad"
    rm "$T/bad/$index"
    finds 'fault index: several shards, and no model.safetensors.index.json'
    echo '{' >"$T/bad/$index"
    finds 'fault index: model.safetensors.index.json: JSON offset'
}

@test "headers: a hole, a tail, and what a download leaves behind" {
    local shard=$T/bad/model-00002-of-00003.safetensors
    echo >>"$shard"
    finds 'fault shard: model-00002-of-00003.safetensors: the tensors end at' 'SGLang 0.5.23, with speculation: refuses'
    echo 'version https://git-lfs.github.com/spec/v1' >"$shard"
    finds 'fault shard: model-00002-of-00003.safetensors: is a Git LFS pointer'
    mkdir "$T/holes"
    echo '{"model_type": "deepseek_v4"}' >"$T/holes/config.json"
    safetensors "$T/holes/model.safetensors" '{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[],"data_offsets":[8,12]}}' '\0\0\0\0\0\0\0\0\0\0\0\0'
    run st-verify "$T/holes"
    [ "$status" -eq 1 ]
    [[ $output == *'fault shard: model.safetensors: tensor b: begins at 8 of the data, but the one before ends at 4 (hole)'* ]]
    # not a fault of the format, but of the writer
    safetensors "$T/holes/model.safetensors" '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[],"data_offsets":[1,5]}}' '\0\0\0\0\0'
    run st-verify "$T/holes"
    [[ $output == *'warning alignment: b: at byte '* ]]
}

@test "config.json: each key that engines go by" {
    local filter what engine verdict
    while IFS='|' read -r filter what engine verdict; do
        config "$filter"
        finds "fault $what" "$engine, no speculation: $verdict"
    done <<'KEYS'
del(.quantization_config.quant_algo)|config: quantization_config.quant_algo is missing|SGLang 0.5.23|loads silently wrong
.quantization_config.quant_algo = "NVFP4"|config: quantization_config.quant_algo is NVFP4: there are other formats|SGLang 0.5.23|loads silently wrong
del(.quantization_config.group_size)|config: quantization_config.group_size is missing|SGLang 0.5.23|loads silently wrong
del(.quantization_config.moe_quant_algo)|config: quantization_config.moe_quant_algo is missing|SGLang 0.5.23|loads silently wrong
del(.quantization_config.moe_quant_algo)|config: quantization_config.moe_quant_algo is missing|vLLM 0.33.0|refuses
.expert_dtype = "fp8"|config: expert_dtype is fp8|vLLM 0.33.0|refuses
.quantization_config.quant_method = "modelopt"|config: quantization_config.quant_method is modelopt|vLLM 0.33.0|refuses
.quantization_config.quant_method = "modelopt"|config: quantization_config.quant_method is modelopt|SGLang 0.5.23|refuses
.quantization_config.quant_method = "awq"|config: quantization_config.quant_method is awq|vLLM 0.33.0|refuses
del(.quantization_config.weight_block_size)|config: quantization_config.weight_block_size is missing: there are FP8 weights|SGLang 0.5.23|refuses
del(.quantization_config.weight_block_size)|config: quantization_config.weight_block_size is missing: there are FP8 weights|vLLM 0.33.0|not known
del(.quantization_config)|config: quantization_config.quant_algo is missing|vLLM 0.33.0|refuses
.quantization_config.ignored_layers = ["model.layers.2.ffn.experts"]|ignored-layers: config.json's quantization_config.ignored_layers names layers.2.ffn.experts|vLLM 0.33.0|refuses
.quantization_config.ignore += ["layers.2.*"]|ignore: config.json: 'layers.2.*' leaves out layers.2.ffn.experts|vLLM 0.33.0|loads
del(.quantization_config.quantized_layers["layers.2.ffn.experts"])|quantized-layers: config.json: quantized_layers lacks layers.2.ffn.experts|vLLM 0.33.0|loads
.quantization_config.quantized_layers["layers.7.ffn.experts"] = {quant_algo: "NVFP4"}|quantized-layers: config.json: quantized_layers has layers.7.ffn.experts|vLLM 0.33.0|loads
KEYS
    echo '[]' >"$T/bad/config.json"
    finds 'fault config: config.json: not a JSON object' 'vLLM 0.33.0, no speculation: refuses'
    rm "$T/bad/config.json"
    finds 'fault config: there is no config.json'
    config '.vocab_size = 4095'
    finds "fault config: the checkpoint has embed.weight of 4096 rows, but config.json's vocab_size is 4095"
    config 'del(.compress_ratios)'
    finds 'TensorRT-LLM main (008e0af), no speculation: refuses: compress_ratios is missing' -- --engine trtllm
}

@test "hf_quant_config.json: missing, and other than config.json" {
    rm "$T/bad/hf_quant_config.json"
    finds 'fault hf-quant-config: there is no hf_quant_config.json' 'TensorRT-LLM main (008e0af), no speculation: not known'
    only hf-quant-config
    config '.quantization.exclude_modules += ["more"]' hf_quant_config.json
    finds "fault configs-disagree: config.json's quantization_config.ignore is not hf_quant_config.json's quantization.exclude_modules"
    only configs-disagree
    config '.quantization.group_size = 32' hf_quant_config.json
    finds 'fault hf-quant-config: hf_quant_config.json:quantization.group_size is 32' 'fault configs-disagree'
    echo '{' >"$T/bad/hf_quant_config.json"
    finds 'fault hf-quant-config: hf_quant_config.json: line 2'
}

@test "the source: bytes that passed through, values of what was packed, side files" {
    put layers.1.attn.wq_b.weight 0 '\x11\x22\x33'
    finds "fault passed-through: layers.1.attn.wq_b.weight: its bytes are not the source's" -- --source "$NANO"
    only passed-through
    st-verify -q "$T/bad"
    rm -r "$T/bad" && cp -r "$T/good" "$T/bad"
    in_headers mtp.0.enorm.weight mtp.0.znorm.weight
    finds 'mtp.0.enorm.weight: the source has it, this has not' 'mtp.0.znorm.weight: the source has no such tensor' -- --source "$NANO"
    rm -r "$T/bad" && cp -r "$T/good" "$T/bad"
    put layers.2.ffn.experts.2.w1.weight 0 "$(printf '\\x%02x' {1..128})"
    put layers.2.ffn.experts.2.w1.weight $((127 * 128)) "$(printf '\\x%02x' {1..128})"
    finds "fault values: layers.2.ffn.experts.2.w1.weight: its values are not the source's: signal to error" -- --source "$NANO"
    only values
    rm -r "$T/bad" && cp -r "$T/good" "$T/bad"
    rm "$T/bad/tokenizer_config.json" "$T/bad/generation_config.json"
    cp -r "$NANO" "$T/source"
    echo card | tee "$T/source/README.md" >"$T/bad/README.md"
    mkdir "$T/bad/inference"
    run st-verify --source "$T/source" "$T/bad"
    [ "$status" -eq 0 ]
    for line in 'side-file: the source has tokenizer_config.json' 'side-file: there is no generation_config.json' \
        "describes-source: README.md is the source's" 'describes-source: inference/'; do
        grep -qF "warning $line" <<<"$output"
    done
}

@test "a result that was requantized is near the source, too" {
    nvfp4-pack -q --amax "$T/amax.ts" "$NANO" | st-write -q "$T/lossy"
    st-verify -q --values --source "$NANO" "$T/lossy"
    run st-verify --source "$T/lossy" "$T/good"
    [ "$status" -eq 1 ]
    [[ $output == *'fault passed-through: layers.0.ffn.experts.'* ]]
}

@test "BF16 loads where NVFP4 does not; MXFP4 is no result" {
    pipeline "st-read '$NANO' | fp8-dequant -q | mxfp4-unpack -q | st-write -q '$T/bf16'"
    st-verify -q --engine transformers "$T/bf16"
    st-verify -q --engine vllm --engine sglang --speculation "$T/bf16"
    jq '.quantization_config = {quant_method: "fp8"}' "$T/bf16/config.json" >"$T/config.json"
    cp "$T/config.json" "$T/bf16"
    run st-verify "$T/bf16"
    [ "$status" -eq 1 ]
    [[ $output == *'fault config: quantization_config is {"quant_method":"fp8"}: no matrix is quantized'* ]]
    run st-verify "$NANO"
    [ "$status" -eq 1 ]
    [[ $output == *'fault no-nvfp4'* ]]
}

@test "--json: a record for each finding and verdict" {
    put "$expert.w1.weight_scale" 0 '\x7f'
    run st-verify --json --values "$T/bad"
    [ "$status" -eq 1 ]
    [ "$(jq -r 'select(.what == "fault") | "\(.name) \(.count) \(.found[0])"' <<<"$output")" = \
        "nan 1 $expert.w1.weight_scale: 1 of 2048 block scales are NaN" ]
    [ "$(jq -rc 'select(.what == "verdict" and .engine == "vllm") | [.version, .speculation, .verdict]' <<<"$output")" = \
        '["0.33.0",false,"loads silently wrong"]
["0.33.0",true,"loads silently wrong"]' ]
}

@test "trouble: exit 2" {
    for command in 'st-verify' 'st-verify a b' "st-verify --engine triton $T/good" "st-verify --speculation $T/good" \
        "st-verify $T/none" "st-verify $T/good/config.json" "st-verify --source $T/none $T/good"; do
        run $command
        [ "$status" -eq 2 ] || { echo "$command: $status" && return 1; }
    done
    : >"$T/bad/.journal"
    run st-verify "$T/bad"
    [ "$status" -eq 2 ]
}
