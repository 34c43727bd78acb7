# Every release as shared/releases/mkrelease.py makes it in small: skipped where that, or its numpy, is not here.
load common
load craft

PATH=$PWD/pipelines:$PATH
maker=$PWD/../shared/releases/mkrelease.py

# made RELEASE: it lies in $T/RELEASE, with a calibration of all its experts but the drafts' in $T/amax.safetensors.
made() {
    [ -e "$maker" ] || skip "$maker is not here"
    python3 -c 'import numpy' 2>/dev/null || skip 'python3 has no numpy'
    NANO=$NANO python3 -B "$maker" "$T" "$1" >/dev/null
    dump "$T/amax.safetensors" "$(jq '[.. | .num_hidden_layers? // empty] | first' "$T/$1/config.json")" \
        "$(jq '[.. | .n_routed_experts? // empty] | first' "$T/$1/config.json")"
}

# experts_of CHECKPOINT SUFFIX: how many of the layers' experts' matrices have a tensor of that name.
experts_of() {
    st-ls --tsv "$1" | grep -cE "^$2[.][0-9]+[.]ffn[.]experts[.][0-9]+[.]w[123][.]$3	"
}

# converts RELEASE [OPTION...]: plan and whole conversion, drafts kept and cast; everything to BF16.
converts() {
    local drafts source=$T/$1 most
    made "$1"
    shift
    for drafts in keep cast; do
        convert=(v4-experts --drafts "$drafts" --amax "$T/amax.safetensors" "$@" "$source" "$T/out-$drafts")
        plan=$("${convert[@]}" -n 2>/dev/null | grep -E '^(in|out|files|the drafts) ')
        run "${convert[@]}"
        echo "$output"
        [ "$status" -eq 0 ]
        [ "$(grep -E '^(in|out|files|the drafts) ' <<<"$output")" = "$plan" ]
        [ "$(experts_of "$T/out-$drafts" layers weight_scale_2)" -eq "$(experts_of "$source" layers weight)" ]
        jq -e --slurpfile c "$T/out-$drafts/config.json" '.quantization | .quantized_layers == $c[0].quantization_config.quantized_layers
            and .exclude_modules == $c[0].quantization_config.ignore' "$T/out-$drafts/hf_quant_config.json"
        [ "$(jq '[.. | .quantized_layers? // empty] | first | length' "$T/out-$drafts/config.json")" -eq \
            "$(st-ls --tsv "$T/out-$drafts" | grep 'weight_scale_2	' | cut -d. -f1-4 | sort -u | wc -l)" ]
    done
    [ "$(experts_of "$T/out-keep" mtp weight_scale_2)" -eq 0 ]
    [ "$(experts_of "$T/out-cast" mtp weight_scale_2)" -eq "$(experts_of "$source" mtp weight)" ]
    if [ $# -eq 0 ]; then # without loss
        for drafts in keep cast; do st-cmp -q --values "$source" "$T/out-$drafts"; done
    else # within what NVFP4 can say
        most=$(st-cmp --values --tsv "$source" "$T/out-cast" | awk -F'\t' '$2 == "differs" { print $13 }' | sort -g | head -n 1)
        echo "the lowest SQNR: $most dB"
        awk -v least="$most" 'BEGIN { exit !(least > 15) }'
    fi
    v4-bf16 -q "$source" "$T/bf16"
    st-cmp -q --values "$source" "$T/bf16"
    [ "$(st-ls --tsv "$T/bf16" | cut -f2 | grep -vxcE 'BF16|F32|I64')" -eq 0 ]
}

# runs RELEASE [OPTION...]: the forward pass takes it, and what becomes of it.
runs() {
    local text=$PWD/test/data/text/eval.jsonl
    run v4-experts --calib "$text" --samples 1 --length 16 --eval "$text" "${@:2}" "$T/$1" "$T/calibrated"
    echo "$output"
    [ "$status" -eq 0 ]
    [[ $output == *'result against source: KL divergence '* ]]
}

# is_done RELEASE: already NVFP4: nothing to convert; to BF16 it goes.
is_done() {
    made "$1"
    run v4-experts -n --amax "$T/amax.safetensors" "$T/$1" "$T/out"
    [ "$status" -eq 1 ]
    [[ $output == *'is NVFP4 already'* ]]
    v4-bf16 -q "$T/$1" "$T/bf16"
    st-cmp -q --values "$T/$1" "$T/bf16"
    jq -e '[.. | objects | has("quantization_config") or has("expert_dtype")] | any | not' "$T/bf16/config.json"
}

@test "v4-flash-april" {
    converts v4-flash-april
    runs v4-flash-april
}

@test "v4-pro-april" {
    converts v4-pro-april
    runs v4-pro-april
}

@test "v4-flash" {
    converts v4-flash
    runs v4-flash
}

@test "v4-pro" {
    converts v4-pro
    runs v4-pro
}

@test "v4-flash-0731" {
    converts v4-flash-0731
    runs v4-flash-0731
}

@test "v4-pro-0813" {
    converts v4-pro-0813
    runs v4-pro-0813
}

@test "v4-flash-vision-exp" {
    converts v4-flash-vision-exp
    runs v4-flash-vision-exp
}

@test "v4.1-flash" { converts v4.1-flash; }
@test "v4-flash-base" {
    converts v4-flash-base --lossy
    runs v4-flash-base --lossy
}

@test "v4-pro-base" {
    converts v4-pro-base --lossy
    runs v4-pro-base --lossy
}

@test "v4-flash-fp8-sgl" {
    converts v4-flash-fp8-sgl --lossy
    runs v4-flash-fp8-sgl --lossy
}

@test "v4-flash-nvfp4" { is_done v4-flash-nvfp4; }
@test "v4-flash-nvfp4-old" { is_done v4-flash-nvfp4-old; }
@test "v4-flash-0731-nvfp4" { is_done v4-flash-0731-nvfp4; }
@test "v4-pro-0813-nvfp4" { is_done v4-pro-0813-nvfp4; }
@test "v4.1-flash-nvfp4" { is_done v4.1-flash-nvfp4; }
