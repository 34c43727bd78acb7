# Checkpoints that are not what a conversion takes: refused in the plan, in one line that says why and what to do.
load common
load craft

PATH=$PWD/pipelines:$PATH
experts='(layers|mtp)[.][0-9]+[.]ffn[.]experts[.][0-9]+[.]w[123]'

# unconverted PATTERN PROGRAM SOURCE: the program refuses it, with and without -n, and there is no output.
unconverted() {
    refused "nothing to convert: .*($1)" "$2" -n -o "$T/x.ts" "$3"
    refused "nothing to convert: .*($1)" "$2" --amax "$T/amax.ts" -o "$T/x.ts" "$3"
    [ ! -e "$T/x.ts" ]
}

@test "nothing to convert: experts in BF16, in FP8, in NVFP4 already" {
    amaxes "$T/amax.ts"
    pipeline "fp8-dequant '$NANO' | mxfp4-unpack >'$T/bf16.ts'"
    unconverted 'layers\.0\.ffn\.experts\.0\.w1\.weight is BF16.*--lossy' nvfp4-cast "$T/bf16.ts"
    unpack "$NANO"
    to_fp8 "$experts"
    pack "$T/fp8.ts"
    unconverted 'layers\.0\.ffn\.experts\.0\.w1\.weight is FP8.*--lossy' nvfp4-cast "$T/fp8.ts"
    nvfp4-cast --amax "$T/amax.ts" -o "$T/nvfp4.ts" "$NANO"
    for program in nvfp4-cast nvfp4-pack; do
        unconverted 'is NVFP4 already.*nvfp4-unpack' "$program" "$T/nvfp4.ts"
    done
    # The way out that was named.
    nvfp4-pack --amax "$T/amax.ts" -o "$T/lossy.ts" "$T/fp8.ts"
    [ "$(st-ls --tsv "$T/lossy.ts" | grep -c '\.weight_scale_2')" -eq 192 ]
    pipeline "nvfp4-unpack '$T/nvfp4.ts' | nvfp4-pack --amax '$T/amax.ts' >'$T/again.ts'"
}

@test "nothing to convert: names that the family does not know" {
    amaxes "$T/amax.ts"
    unpack "$NANO"
    while IFS=$'\t' read -r name _; do mv "$T/tree/$name" "$T/tree/model.$name"; done <"$T/tree/.toc"
    sed -i 's/^/model./' "$T/tree/.toc"
    pack "$T/prefix.ts"
    for program in nvfp4-cast nvfp4-pack; do
        unconverted 'expects names like layers\.\*\.ffn\.experts\.\*\.w\[123\], but here they are like model\.layers\.0\.ffn\.experts\.[0-9]+\.w1;' \
            "$program" "$T/prefix.ts"
    done
    # One of another kind: as other projects call the same matrices.
    safetensors "$T/hf.safetensors" \
        '{"model.layers.0.mlp.experts.0.gate_proj.weight":{"dtype":"BF16","shape":[1,16],"data_offsets":[0,32]}}' \
        "$(printf '\\x3f%.0s' {1..32})"
    cp "$NANO/config.json" "$T"
    unconverted 'here they are like model\.layers\.0\.mlp\.experts\.0\.gate_proj;' nvfp4-cast "$T/hf.safetensors"
}

@test "nothing to convert: v4-experts says so before it calibrates, and writes nothing" {
    v4-bf16 -q "$NANO" "$T/bf16"
    run v4-experts --calib test/data/text/eval.jsonl "$T/bf16" "$T/out"
    [ "$status" -eq 1 ]
    [[ $output == *'nothing to convert: layers.0.ffn.experts.0.w1.weight is BF16'*'--lossy'* ]]
    [[ $output != *'lossless'* ]]
    [ -z "$(find "$T" -name 'out*')" ]
    v4-experts -q --lossy --amax "$NANO_AMAX" "$T/bf16" "$T/out"
}

@test "a part that has nothing to convert is fine" {
    amaxes "$T/amax.ts"
    pipeline "st-grep '^(embed|head)' '$NANO' | nvfp4-cast --amax '$T/amax.ts' >'$T/x.ts'"
    pipeline "st-read --part 4/4 '$NANO' | nvfp4-cast -n | st-ls -q"
}

# mixed NAMES PATTERN [OPTION...]: with these experts in FP8, nvfp4-cast refuses the mixture; nvfp4-pack converts all.
mixed() {
    unpack "$NANO"
    to_fp8 "$1"
    pack "$T/mixed.ts"
    refused "$2, and engines take one format.*--lossy" nvfp4-cast -n "${@:3}" -o "$T/x.ts" "$T/mixed.ts"
    nvfp4-pack -n "${@:3}" "$T/mixed.ts" >"$T/plan.ts"
    [ "$(st-ls --tsv -n "$T/plan.ts" | grep -c '^layers.*experts.*\.weight.U8')" -eq 192 ]
}

@test "experts of mixed formats: refused, the first two that differ named" {
    mixed 'layers[.]2[.]ffn[.]experts[.]5[.]w[123]' \
        'layers\.0\.ffn\.experts\.0\.w1\.weight is MXFP4, but layers\.2\.ffn\.experts\.5\.w1\.weight is FP8'
    mixed 'layers[.]0[.]ffn[.]experts[.]0[.]w[123]' \
        'layers\.0\.ffn\.experts\.0\.w1\.weight is FP8, but layers\.0\.ffn\.experts\.1\.w1\.weight is MXFP4'
    mixed 'layers[.]3[.]ffn[.]experts[.]15[.]w3' \
        'layers\.0\.ffn\.experts\.0\.w1\.weight is MXFP4, but layers\.3\.ffn\.experts\.15\.w3\.weight is FP8'
    # Of a whole checkpoint on disk, too, before anything is written.
    st-write -q "$T/source" "$T/mixed.ts"
    run v4-experts --amax "$NANO_AMAX" "$T/source" "$T/out"
    [ "$status" -eq 1 ]
    [[ $output == *'layers.3.ffn.experts.15.w3.weight is FP8, and engines take one format'* ]]
    [ -z "$(find "$T" -name 'out*')" ]
    v4-experts -q --lossy --amax "$NANO_AMAX" "$T/source" "$T/out"
    [ "$(st-ls --tsv "$T/out" | grep -c '^layers.*experts.*\.weight.U8')" -eq 192 ]
}

@test "experts of mixed formats: MTP's may differ from the trunk's, not from each other" {
    unpack "$NANO"
    to_fp8 'mtp[.]0[.]ffn[.]experts[.][0-9]+[.]w[123]'
    pack "$T/mtp.ts"
    nvfp4-cast -n "$T/mtp.ts" >"$T/plan.ts"
    jq '.formats = {"mtp.*.experts.*": "NVFP4"} + .formats' pipelines/recipes/deepseek_v4/experts.json >"$T/drafts.json"
    nvfp4-cast -n --recipe "$T/drafts.json" "$T/mtp.ts" >"$T/plan.ts"
    mixed 'mtp[.]0[.]ffn[.]experts[.]7[.]w[123]' \
        'mtp\.0\.ffn\.experts\.0\.w1\.weight is MXFP4, but mtp\.0\.ffn\.experts\.7\.w1\.weight is FP8' --recipe "$T/drafts.json"
}

@test "experts that are partly NVFP4 become NVFP4 all" {
    amaxes "$T/amax.ts"
    jq '.formats = {"layers.[123].*": "keep"} + .formats' pipelines/recipes/deepseek_v4/experts.json >"$T/first.json"
    nvfp4-cast --recipe "$T/first.json" --amax "$T/amax.ts" -o "$T/first.ts" "$NANO"
    nvfp4-cast --amax "$T/amax.ts" -o "$T/all.ts" "$T/first.ts"
    [ "$(st-sum "$T/all.ts")" = "$(pipeline "nvfp4-cast --amax '$T/amax.ts' '$NANO' | st-sum")" ]
}
