load common
load craft

# amax FILE: the numbers of an amax stream, without the header, which has the options.
amax() {
    st-sum --each "$1"
}

prepare() {
    random_ids "$T/tokens.safetensors" 5 150
    calib=(amax-calib -q --tokens "$T/tokens.safetensors")
}

@test "-v: where the time went, layer by layer, and what the bottleneck was" {
    amax-calib -v --samples 2 --tokens "$T/tokens.safetensors" -o "$T/a.ts" "$NANO" 2>"$T/said"
    [ "$(grep -cE '^amax-calib: (start:|layers\.[0-3]\.|all:) [0-9.]+ s: read .*, upload .*, compute .*, wait ' "$T/said")" = 6 ]
    grep -qE '^amax-calib: matrix products took [0-9.]+% of the time$' "$T/said"
    grep -qE '^amax-calib: the bottleneck was (computing|reading the weights|the upload to the device)$' "$T/said"
}

# everywhere COMMAND: with the processor's own BF16 products, if it has them, and without.
everywhere() {
    "$@"
    for isa in AVX2 AVX512_CORE; do
        ONEDNN_MAX_CPU_ISA=$isa "$@"
    done
}

however_it_runs() {
    "${calib[@]}" -j 1 --batch 1 --mem 1K "$NANO" >"$T/one.ts"
    for options in '-j 2 --batch 3' '-j 2 --batch 100 --mem 1G' '-j 3 --mem 10M'; do
        # shellcheck disable=SC2086 # a list of options
        "${calib[@]}" $options "$NANO" >"$T/other.ts"
        cmp "$T/one.ts" "$T/other.ts"
    done
}

@test "the same bytes for any number of threads, any batch, any memory" {
    everywhere however_it_runs
}

however_it_comes() {
    "${calib[@]}" "$NANO" >"$T/folder.ts"
    st-read "$NANO" | "${calib[@]}" >"$T/references.ts"
    st-read --inline "$NANO" | "${calib[@]}" --mem 100K >"$T/inline.ts"
    cmp "$T/folder.ts" "$T/references.ts"
    cmp "$T/folder.ts" "$T/inline.ts"
}

@test "the same bytes from a folder, a stream of references, and one with the bytes inline" {
    everywhere however_it_comes
}

however_it_is_cut() {
    "${calib[@]}" --mtp "$NANO" >"$T/whole.ts"
    for last in 0 2; do
        "${calib[@]}" --layers 0-$last --states-out "$T/states.ts" "$NANO" >"$T/first.ts"
        "${calib[@]}" --layers $((last + 1))-3 --mtp --states-in "$T/states.ts" "$NANO" >"$T/second.ts"
        diff <(amax "$T/whole.ts") <(amax "$T/first.ts" && amax "$T/second.ts")
    done
}

@test "cut in two by hidden states, it is the whole" {
    everywhere however_it_is_cut
}

@test "samples shorter than their rows count as far as they go" {
    # Three tokens of the second sample are cut off, whatever they are: ids beyond any vocabulary.
    safetensors "$T/short.safetensors" \
        '{"input_ids":{"dtype":"I64","shape":[2,4],"data_offsets":[0,64]},"lengths":{"dtype":"I32","shape":[2],"data_offsets":[64,72]}}' \
        "$(for id in 5 6 7 8 9; do printf '\\x0%d\\x00\\x00\\x00\\x00\\x00\\x00\\x00' $id; done
            printf '\\xff%.0s' {1..24})\\x04\\x00\\x00\\x00\\x01\\x00\\x00\\x00"
    amax-calib -q --tokens "$T/short.safetensors" "$NANO" >"$T/amax.ts"
    tokens=$(tar tf "$T/amax.ts" | grep 'layers.0.*\.tokens$' |
        while read -r name; do tar xOf "$T/amax.ts" "$name" | od -An -td8; done |
        awk '{ n += $1 } END { print n }')
    [ "$tokens" -eq $((5 * 4)) ] # five tokens, four experts each
}

@test "every expert has weight amaxes and a count; those reached have input amaxes" {
    "${calib[@]}" --samples 1 "$NANO" >"$T/amax.ts"
    [ "$(tar tf "$T/amax.ts" | grep -c '\.tokens$')" -eq 64 ]
    [ "$(tar tf "$T/amax.ts" | grep -c _weight_quantizer)" -eq 192 ]
    for name in $(tar tf "$T/amax.ts" | grep '\.tokens$'); do
        count=$(tar xOf "$T/amax.ts" "$name" | od -An -td8)
        inputs=$(tar tf "$T/amax.ts" | grep -cF "${name%.tokens}.w1_input") || true
        [ "$inputs" -eq $((count > 0)) ]
    done
    # w2's inputs twice, with the router's weight and, for engines, without.
    diff <(tar tf "$T/amax.ts" | grep 'w2_input.*_amax$') <(tar tf "$T/amax.ts" | sed -n 's/_engine$//p')
}

@test "the history tells tokens by what they are, not by where they lie" {
    "${calib[@]}" -n --layers 0-0 "$NANO" >"$T/a.ts"
    mv "$T/tokens.safetensors" "$T/elsewhere.safetensors"
    amax-calib -n --layers 0-0 --tokens "$T/elsewhere.safetensors" "$NANO" | cmp - "$T/a.ts"
    [[ $(tar xOf "$T/a.ts" .stream | jq -r '.history[0].tokens') =~ ^[0-9a-f]{64}$ ]]
}

@test "--all-experts reaches all, changes no routes, and only raises amaxes" {
    "${calib[@]}" --samples 1 "$NANO" >"$T/some.ts"
    "${calib[@]}" --samples 1 --all-experts "$NANO" >"$T/all.ts"
    [ "$(tar tf "$T/all.ts" | grep -c '_input_quantizer\._amax$')" -eq 192 ]
    diff <(amax "$T/some.ts" | grep -E 'tokens|weight') <(amax "$T/all.ts" | grep -E 'tokens|weight')
    name=layers.0.ffn.experts.3.w1_input_quantizer._amax
    for file in some all; do tar xOf "$T/$file.ts" $name | od -An -tf4; done |
        awk '{ value[NR] = $1 } END { exit !(value[1] > 0 && value[2] >= value[1]) }'
}

@test "a plan has the names of a run that reaches all" {
    "${calib[@]}" --samples 1 --all-experts "$NANO" >"$T/all.ts"
    "${calib[@]}" -n "$NANO" >"$T/plan.ts"
    diff <(tar xOf "$T/all.ts" .toc) <(tar xOf "$T/plan.ts" .toc)
}

@test "what it records goes through amax-merge and nvfp4-cast" {
    "${calib[@]}" "$NANO" | amax-merge -q --model "$NANO" --fallback layer-max >"$T/amax.ts"
    nvfp4-cast --amax "$T/amax.ts" "$NANO" >"$T/cast.ts"
    [ "$(tar tf "$T/cast.ts" | grep -c 'experts.*input_scale$')" -eq 192 ]
}

@test "bad tokens: beyond the vocabulary, none, no such tensor, too many lengths" {
    safetensors "$T/a.safetensors" '{"input_ids":{"dtype":"I32","shape":[1,1],"data_offsets":[0,4]}}' '\x00\x10\x00\x00'
    refused 'sample 0, token 0: id 4096 is not in the .*vocabulary of 4096' amax-calib --tokens "$T/a.safetensors" "$NANO"
    safetensors "$T/a.safetensors" '{"input_ids":{"dtype":"I32","shape":[0,4],"data_offsets":[0,0]}}'
    refused 'no sample in it' amax-calib --tokens "$T/a.safetensors" "$NANO"
    safetensors "$T/a.safetensors" '{"ids":{"dtype":"I32","shape":[1,1],"data_offsets":[0,4]}}' '\x00\x00\x00\x00'
    refused 'no tensor input_ids' amax-calib --tokens "$T/a.safetensors" "$NANO"
    safetensors "$T/a.safetensors" '{"input_ids":{"dtype":"I32","shape":[1,1],"data_offsets":[0,4]},"lengths":{"dtype":"I32","shape":[1],"data_offsets":[4,8]}}' '\x00\x00\x00\x00\x00\x00\x00\x00'
    refused 'sample 0 has 0 tokens' amax-calib --tokens "$T/a.safetensors" "$NANO"
    safetensors "$T/a.safetensors" '{"input_ids":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}}' '\x00\x00\x00\x00'
    refused 'input_ids: wanted I32 or I64, got F32' amax-calib --tokens "$T/a.safetensors" "$NANO"
}

@test "a tensor that is missing, and one of another shape, are found before any work" {
    st-read --layers 0-2 "$NANO" >"$T/part.ts"
    refused 'layers.3.* is missing' amax-calib --tokens "$T/tokens.safetensors" "$T/part.ts"
    cp -r "$NANO" "$T/ckpt"
    chmod -R u+w "$T/ckpt"
    sed -i 's/"head_dim": 128/"head_dim": 64/' "$T/ckpt/config.json"
    refused 'layers.0.attn.wq_b.weight: wanted 256 x 128 .* got F8_E4M3' "${calib[@]}" "$T/ckpt"
    sed -i '/"hc_mult"/d; s/"head_dim": 64/"head_dim": 128/' "$T/ckpt/config.json"
    refused 'config.json: hc_mult is missing' "${calib[@]}" "$T/ckpt"
    sed -i 's/deepseek_v4/other/' "$T/ckpt/config.json"
    refused 'wanted a model of type deepseek_v3 or deepseek_v4 or deepseek_v41, got other' "${calib[@]}" "$T/ckpt"
}

@test "NaN and infinity are named with layer and module: in a weight, in a scale, in what came of them" {
    spoil 'layers\.2\.attn\.wkv\.weight' '\177'
    refused 'layers.2.attn.wkv: its weight holds NaN' "${calib[@]}" "$T/ckpt"
    spoil 'layers\.1\.ffn\.experts\.3\.w1\.scale' '\376'
    refused 'layers.1.ffn.experts.3.w1: its weight holds NaN or infinity' "${calib[@]}" "$T/ckpt"
    spoil 'layers\.1\.ffn\.experts\.3\.w1\.scale' '\377'
    refused 'layers.1.ffn.experts.3.w1.scale: element 0 .* is the E8M0 code 255, NaN' "${calib[@]}" "$T/ckpt"
    spoil 'layers\.1\.ffn_norm\.weight' '\177\177' # the largest BF16 there is
    refused 'layers.1.ffn.gate: its input holds NaN or infinity' "${calib[@]}" "$T/ckpt"
    spoil 'layers\.3\.attn_norm\.weight' '\377\177'
    refused 'layers.3.attn_norm.weight: element 0 is NaN or infinite' "${calib[@]}" "$T/ckpt"
}

@test "hidden states of other tokens, another layer or none are refused" {
    "${calib[@]}" --samples 2 --layers 0-1 --states-out "$T/states.ts" "$NANO" >"$T/first.ts"
    refused 'states after layer 1' "${calib[@]}" --samples 2 --layers 3-3 --states-in "$T/states.ts" "$NANO"
    safetensors "$T/other.safetensors" '{"input_ids":{"dtype":"I32","shape":[2,150],"data_offsets":[0,1200]}}' \
        "$(printf '\\x01\\x00\\x00\\x00%.0s' {1..300})"
    refused 'other tokens' amax-calib -q --tokens "$T/other.safetensors" --samples 2 --layers 2-3 --states-in "$T/states.ts" "$NANO"
    refused 'has no tensor hidden_states' "${calib[@]}" --layers 2-3 --states-in "$T/first.ts" "$NANO"
    safetensors "$T/bare.safetensors" '{"hidden_states":{"dtype":"BF16","shape":[1,1,4,1],"data_offsets":[0,8]}}' '\x00\x00\x00\x00\x00\x00\x00\x00'
    refused 'hidden_states: wanted BF16 .5,150,4,256., got BF16 .1,1,4,1.' "${calib[@]}" --layers 2-3 --states-in "$T/bare.safetensors" "$NANO"
}

@test "hidden states go on with a copy of the checkpoint, and a stream of any kind, but no other weights" {
    "${calib[@]}" --layers 0-1 --states-out "$T/states.ts" "$NANO" >"$T/first.ts"
    rest=("${calib[@]}" --layers 2-3 --states-in "$T/states.ts")
    "${rest[@]}" "$NANO" >"$T/second.ts"
    cp -r "$NANO" "$T/ckpt"
    chmod -R u+w "$T/ckpt"
    "${rest[@]}" "$T/ckpt" >"$T/copy.ts"
    st-read --inline "$T/ckpt" | tee "$T/inline.ts" | "${rest[@]}" --mem 100K >"$T/pipe.ts"
    "${rest[@]}" "$T/inline.ts" >"$T/file.ts"
    for other in copy pipe file; do cmp "$T/second.ts" "$T/$other.ts"; done
    # The first scale of a weight in layer 1; then a cast.
    place=$(st-read "$T/ckpt" | tar tvf - | sed -n 's/.* layers\.1\.attn\.wkv\.scale -> //p')
    file=$T/ckpt/${place%@*} offset=${place#*@} offset=${offset%+*}
    byte=$(od -An -tu1 -j "$offset" -N 1 "$file")
    printf '%b' "\\x$(printf %02x $((byte ^ 1)))" | dd of="$file" bs=1 seek="$offset" conv=notrunc status=none
    refused 'other weights' "${rest[@]}" "$T/ckpt"
    amaxes "$T/amax.ts"
    refused 'other weights' "${rest[@]}" <(nvfp4-cast --amax "$T/amax.ts" "$NANO")
}

@test "--progress: bytes of the weights that it runs" {
    for layers in 0-3 0-1; do
        total=$(st-ls --tsv "$NANO" | awk -F'\t' "\$1 ~ /^layers\\.[$layers]\\./ { n += \$4 } END { printf \"%.1f\", n / 1e6 }")
        "${calib[@]}" --progress --layers $layers -o "$T/a.ts" "$NANO" 2>"$T/said"
        tr '\r' '\n' <"$T/said" | grep -qE "^amax-calib: [0-9.]+ k?B of $total MB \\(0%\\), [0-9.]+ [kMG]?B/s, .* left"
    done
    # What was done before does not count.
    "${calib[@]}" --layers 0-1 --states-out "$T/1.ts" -o "$T/a.ts" "$NANO"
    total=$(st-ls --tsv "$NANO" | awk -F'\t' '$1 ~ /^layers\.[23]\./ { n += $4 } END { printf "%.1f", n / 1e6 }')
    "${calib[@]}" --progress --layers 2-3 --states-in "$T/1.ts" -o "$T/a.ts" "$NANO" 2>"$T/said"
    tr '\r' '\n' <"$T/said" | grep -q " of $total MB (0%), "
}

@test "usage: no tokens, no samples at a time, layers that do not begin at 0" {
    run amax-calib "$NANO"
    [ "$status" -eq 2 ]
    run "${calib[@]}" --batch 0 "$NANO"
    [ "$status" -eq 2 ]
    run "${calib[@]}" --layers 1-2 -o "$T/x" "$NANO"
    [ "$status" -eq 2 ]
    refused 'there are layers 0 to 3' "${calib[@]}" --layers 0-4 "$NANO"
}

# The page's examples, on the bundled checkpoint.
@test "example: calibrate in two pieces" {
    cd "$T"
    mv tokens.safetensors calib.safetensors
    amax-calib -q --tokens calib.safetensors --layers 0-1 --states-out 1.ts "$NANO" >first.ts
    amax-calib -q --tokens calib.safetensors --layers 2-3 --states-in 1.ts "$NANO" >second.ts
    amax-merge -q --fallback layer-max first.ts second.ts >amax.ts
    nvfp4-cast --amax amax.ts "$NANO" | st-write -q nvfp4
}
