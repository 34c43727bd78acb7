load common
load craft

# value STREAM KEY: one amax.
value() {
    tar xOf "$1" "$2" | od -An -tf4 | tr -d ' '
}

# change STREAM KEY BYTES: the stream with other bytes (printf's) under a key.
change() {
    rm -rf "$T/tree"
    mkdir "$T/tree"
    tar xf "$1" -C "$T/tree"
    # shellcheck disable=SC2059
    printf "$3" >"$T/tree/$2"
    tar tf "$1" >"$T/order"
    unseal
    tar -C "$T/tree" --format=ustar --no-recursion -cf "$T/changed.ts" -T "$T/order"
}

layer3=layers.3.ffn.experts

prepare() {
    pt-read "$NANO_AMAX" >"$T/dump.ts"
}

@test "F32 scalars under Model Optimizer's own names, in the model's order" {
    amaxes "$T/amax.ts"
    tar xOf "$T/amax.ts" .toc | grep -q "^$layer3.7.w1_input_quantizer._amax	F32	\[\]"
    # 378 of the dump, 3 filled in
    [ "$(tar xOf "$T/amax.ts" .toc | wc -l)" -eq 381 ]
}

@test "w1 and w3 share the larger" {
    amaxes "$T/amax.ts"
    for which in input weight; do
        for expert in 0 5 15; do
            a=$(value "$T/amax.ts" "$layer3.$expert.w1_${which}_quantizer._amax")
            b=$(value "$T/amax.ts" "$layer3.$expert.w3_${which}_quantizer._amax")
            [ "$a" = "$b" ]
        done
    done
    # and it is the larger one of the dump's, BF16 there
    bits() { tar xOf "$T/dump.ts" "$1" | od -An -tx2 | tr -d ' '; }
    differ=0
    for expert in 0 1 2 3 4 5 6 7; do
        w1=$(bits "$layer3.$expert.w1_weight_quantizer._amax")
        w3=$(bits "$layer3.$expert.w3_weight_quantizer._amax")
        [ "$w1" = "$w3" ] || differ=$((differ + 1))
        larger=$(printf '%s\n' "$w1" "$w3" | sort | tail -n 1)
        [ "$(tar xOf "$T/amax.ts" "$layer3.$expert.w1_weight_quantizer._amax" | od -An -tx4)" = " ${larger}0000" ]
    done
    [ "$differ" -gt 0 ]
}

@test "an expert never reached is an error without a rule" {
    run amax-merge --model "$NANO" -o "$T/x.ts" "$T/dump.ts"
    [ "$status" -eq 1 ]
    [[ $output == *"$layer3.13.w1 has no input amax"*--fallback* ]]
    [ ! -e "$T/x.ts" ]
}

@test "it is found without the checkpoint as well" {
    run amax-merge -o "$T/x.ts" "$T/dump.ts"
    [ "$status" -eq 1 ]
    [[ $output == *"$layer3.13.w"?" has no input amax"* ]]
    amax-merge -q --fallback layer-max "$T/dump.ts" >"$T/a.ts"
    amaxes "$T/b.ts"
    st-cmp "$T/a.ts" "$T/b.ts"
}

@test "layer-max and projection-max differ where an early layer's entry is missing" {
    cold='layers\.0\.ffn\.experts\.4\.w[123]_input'
    pipeline "st-grep --invert '$cold' '$T/dump.ts' >'$T/cold.ts'"
    for rule in layer-max projection-max; do
        amax-merge -q --model "$NANO" --fallback "$rule" "$T/cold.ts" >"$T/$rule.ts"
    done
    largest() { # STREAM LAYERS PROJECTION
        tar xOf "$1" .toc | cut -f1 | grep -E "^layers\.$2\.ffn\.experts\.[0-9]+\.$3_input" |
            while read -r key; do value "$1" "$key"; done | sort -g | tail -n 1
    }
    for w in w1 w2 w3; do
        key=layers.0.ffn.experts.4.${w}_input_quantizer._amax
        # The rules' own definitions, over the experts that were reached.
        [ "$(value "$T/layer-max.ts" "$key")" = "$(largest "$T/layer-max.ts" 0 "$w")" ]
        [ "$(value "$T/projection-max.ts" "$key")" = "$(largest "$T/layer-max.ts" '[0-9]' "$w")" ]
        [ "$(value "$T/layer-max.ts" "$key")" != "$(value "$T/projection-max.ts" "$key")" ]
    done
}

@test "projection-max leaves MTP out, layer-max is the layer's own" {
    key=layers.1.ffn.experts.2.w1_input_quantizer._amax
    mtp=mtp.0.ffn.experts.0.w1_input_quantizer._amax
    # 2, 3 and, far above, MTP's 4096; expert 2 of layer 1 was never reached.
    header='' i=0
    for module in layers.0.ffn.experts.2 layers.1.ffn.experts.0 mtp.0.ffn.experts.0; do
        header+="${header:+,}\"$module.w1_input_quantizer._amax\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[$i,$((i + 4))]}"
        i=$((i + 4))
    done
    safetensors "$T/in.safetensors" "{$header}" '\0\0\x40\x40\0\0\0\x40\0\0\x80\x45'
    amax-merge -q --fallback projection-max "$T/in.safetensors" >"$T/projection.ts"
    [ "$(value "$T/projection.ts" "$key")" = 3 ]
    [ "$(value "$T/projection.ts" "$mtp")" = 4096 ]
    amax-merge -q --fallback layer-max "$T/in.safetensors" >"$T/layer.ts"
    [ "$(value "$T/layer.ts" "$key")" = 2 ]
}

@test "fallbacks concern input amaxes only" {
    amaxes "$T/amax.ts"
    run grep "$layer3.13.*weight_quantizer" <(tar xOf "$T/amax.ts" .toc)
    [ "$status" -eq 1 ]
    [ "$(tar xOf "$T/amax.ts" .end | jq '.counts[-1].input_fallback')" -eq 3 ]
}

@test "--peer-max: all experts of a layer share its maximum, by projection" {
    amax-merge -q --fallback layer-max --peer-max "$T/dump.ts" >"$T/peer.ts"
    for w in w1 w2 w3; do
        n=$(for e in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
            value "$T/peer.ts" "$layer3.$e.${w}_input_quantizer._amax"
        done | sort -u | wc -l)
        [ "$n" -eq 1 ]
    done
    # weights keep their own
    [ "$(value "$T/peer.ts" "$layer3.0.w2_weight_quantizer._amax")" = \
        "$(amax-merge -q --fallback layer-max "$T/dump.ts" | value /dev/stdin "$layer3.0.w2_weight_quantizer._amax")" ]
}

@test "ranks: two dumps are the union of both, in one stream or two" {
    pt-read "$NANO_AMAX-mp2" | amax-merge -q --fallback layer-max >"$T/two.ts"
    amaxes "$T/one.ts"
    st-cmp "$T/one.ts" "$T/two.ts"
    pt-read "$NANO_AMAX-mp2/amax_dict_rank0-mp2.pt" >"$T/r0.ts"
    pt-read "$NANO_AMAX-mp2/amax_dict_rank1-mp2.pt" >"$T/r1.ts"
    amax-merge -q --fallback layer-max "$T/r0.ts" "$T/r1.ts" >"$T/three.ts"
    st-cmp "$T/one.ts" "$T/three.ts"
}

@test "a missing rank and a collision are errors" {
    pt-read "$NANO_AMAX-mp2/amax_dict_rank1-mp2.pt" >"$T/r1.ts"
    run amax-merge --fallback layer-max -o "$T/x.ts" "$T/r1.ts"
    [ "$status" -eq 1 ]
    [[ $output == *'amax_dict_rank0-mp2.pt is missing'* ]]
    run amax-merge --fallback layer-max -o "$T/x.ts" "$T/dump.ts" "$T/dump.ts"
    [ "$status" -eq 1 ]
    [[ $output == *'comes from two ranks'* ]]
}

@test "a NaN, negative or infinite amax, or an input amax of 0, is refused by name" {
    key=$layer3.7.w2_input_quantizer._amax
    for bytes in '\xc0\x7f' '\x80\xbf' '\x80\x7f' '\x00\x00' '\x00\x80'; do
        change "$T/dump.ts" "$key" "$bytes"
        run amax-merge --fallback layer-max -o "$T/x.ts" "$T/changed.ts"
        [ "$status" -eq 1 ]
        [[ $output == *"$key"* ]]
        [ ! -e "$T/x.ts" ]
    done
    change "$T/dump.ts" "$layer3.7.w2_weight_quantizer._amax" '\x00\x00'
    amax-merge -q --fallback layer-max "$T/changed.ts" >"$T/x.ts"
}

@test "what is no amax is refused" {
    refused 'embed.weight: wanted an amax' amax-merge -o "$T/x.ts" "$NANO/model-00001-of-00003.safetensors"
    refused 'has no input scales of matrices in NVFP4' amax-merge -o "$T/x.ts" "$NANO"
    [ ! -e "$T/x.ts" ]
}

# ---- input scales without a calibration ----

# converted DESTINATION: the checkpoint in NVFP4 by $T/amax.ts.
converted() {
    nvfp4-cast --amax "$T/amax.ts" "$NANO" | st-write -q "$1"
}

# scales CHECKPOINT: the bits of each different input scale.
scales() {
    rm -rf "$T/tree"
    mkdir "$T/tree"
    st-read --inline "$1" | st-grep '\.input_scale$' >"$T/scales.ts"
    tar xf "$T/scales.ts" -C "$T/tree"
    find "$T/tree" -name '*.input_scale' -exec od -An -tx4 {} \; | sort -u
}

@test "--input-scale: every matrix of the recipe has exactly this one" {
    while read -r scale bits; do
        amax-merge --model "$NANO" --input-scale "$scale" -o "$T/amax.ts"
        rm -rf "$T/out"
        converted "$T/out"
        [ "$(scales "$T/out")" = " $bits" ]
    done <<'SCALES'
1 3f800000
0.37 3ebd70a4
1.9999999 3fffffff
1e-20 1e3ce508
SCALES
    [ "$(tar xOf "$T/amax.ts" .toc | grep -c '^layers\..*_input_quantizer\._amax	F64	')" -eq 192 ]
    for wrong in '' 0 -1 x 1x ' 1' 0x1 nan inf 1e39 1e; do
        run amax-merge --model "$NANO" --input-scale "$wrong" -o "$T/x.ts"
        [ "$status" -eq 2 ]
    done
    for wrong in 1e-39 1e-99; do
        run amax-merge --model "$NANO" --input-scale "$wrong" -o "$T/x.ts"
        [ "$status" -eq 2 ]
        [[ $output == *"--input-scale: '$wrong' is too small: below 1.17549e-38, engines may take it for 0"* ]]
    done
    for wrong in --coverage=90 --fallback=layer-max --peer-max "$T/dump.ts"; do
        run amax-merge --model "$NANO" --input-scale 1 -o "$T/x.ts" "$wrong"
        [ "$status" -eq 2 ]
    done
    run amax-merge --input-scale 1 -o "$T/x.ts"
    [ "$status" -eq 2 ]
}

@test "a checkpoint in NVFP4: its input scales come back bit for bit, from a folder and from a stream" {
    amaxes "$T/amax.ts"
    converted "$T/first"
    # One that no amax in F32 gives.
    place=$(st-read "$T/first" | tar tvf - | sed -n 's/.*layers\.2\.ffn\.experts\.5\.w2\.input_scale -> //p')
    offset=${place#*@}
    printf '\xff\xff\xff\x3c' | dd of="$T/first/${place%@*}" bs=1 seek="${offset%+*}" conv=notrunc status=none
    amax-merge --coverage 100 --model "$NANO" -o "$T/amax.ts" "$T/first"
    converted "$T/second"
    st-cmp "$T/first" "$T/second"
    pipeline "st-read '$T/first' | amax-merge --model '$NANO' >'$T/again.ts'"
    st-cmp "$T/amax.ts" "$T/again.ts"
    amax-merge -q "$T/amax.ts" -o "$T/merged.ts" # the stream is no checkpoint
}

@test "input scales of FP8 are not taken; those of another model, and broken ones, are refused" {
    amaxes "$T/amax.ts"
    converted "$T/first"
    "$BIN/test/mkckpt" -q --model "$NANO/config.json" --set n_routed_experts=8 --fill "$T/eight"
    refused 'has amaxes of 64 routed experts, but .*/eight has 40' amax-merge --model "$T/eight" -o "$T/x.ts" "$T/first"
    # Without scale_2 a matrix is not NVFP4.
    pipeline "st-grep --invert 'experts\.[0-9]\.w[123]\.weight_scale_2' '$T/first' >'$T/some.ts'"
    refused 'the calibration has 6 of 16 experts, under 90 %' \
        amax-merge --coverage 90 --fallback layer-max --model "$NANO" -o "$T/x.ts" "$T/some.ts"
    refused 'a checkpoint and a calibration do not go together' \
        amax-merge --model "$NANO" -o "$T/x.ts" "$T/first" "$T/dump.ts"
    place=$(st-read "$T/first" | tar tvf - | sed -n 's/.*layers\.2\.ffn\.experts\.5\.w2\.input_scale -> //p')
    offset=${place#*@}
    printf '\x00\x00\xc0\x7f' | dd of="$T/first/${place%@*}" bs=1 seek="${offset%+*}" conv=notrunc status=none
    refused 'layers.2.ffn.experts.5.w2.input_scale: an input scale must be finite and above 0' \
        amax-merge --model "$NANO" -o "$T/x.ts" "$T/first"
    [ ! -e "$T/x.ts" ]
}

@test "--summary: a line per quantizer and a digest per layer" {
    amax-merge -q --fallback layer-max --summary "$T/summary" "$T/dump.ts" >"$T/a.ts"
    grep -q "^$layer3.13.w1_input_quantizer  .*filled in" "$T/summary"
    [ "$(grep -c _quantizer "$T/summary")" -eq 381 ]
    grep -qE "^$layer3 w1 input +16 +1 " "$T/summary"
}

@test "merging again changes nothing" {
    amaxes "$T/a.ts"
    amax-merge --model "$NANO" "$T/a.ts" >"$T/b.ts"
    st-cmp "$T/a.ts" "$T/b.ts"
}

@test "--w2: of the two amaxes of w2's input, one is kept, under the one name" {
    random_ids "$T/tokens.safetensors" 2 60
    amax-calib -q --tokens "$T/tokens.safetensors" "$NANO" >"$T/calib.ts"
    amax-merge --fallback layer-max -o "$T/default.ts" "$T/calib.ts" 2>"$T/said"
    run grep w2 "$T/said"
    [ "$status" -eq 1 ]
    for kind in engine reference; do
        amax-merge -q --w2 $kind --fallback layer-max "$T/calib.ts" >"$T/$kind.ts"
        [ "$(tar xOf "$T/$kind.ts" .end | jq -r '.counts[-1].w2')" = $kind ]
        run grep -q _amax_engine <(tar tf "$T/$kind.ts")
        [ "$status" -eq 1 ]
        amax-merge --w2 $kind -o "$T/again.ts" "$T/$kind.ts" 2>"$T/said"
        [ ! -s "$T/said" ]
        st-cmp -q "$T/$kind.ts" "$T/again.ts"
    done
    st-cmp -q "$T/default.ts" "$T/engine.ts"
    keys=$(tar tf "$T/calib.ts" | sed -n 's/_engine$//p')
    [ "$(wc -w <<<"$keys")" -gt 30 ]
    sed -n '1p;9p;$p' <<<"$keys" >"$T/keys"
    while read -r key; do
        [[ $key == *.w2_input_quantizer._amax ]]
        [ "$(value "$T/engine.ts" "$key")" = "$(value "$T/calib.ts" "${key}_engine")" ]
        [ "$(value "$T/reference.ts" "$key")" = "$(value "$T/calib.ts" "$key")" ]
    done <"$T/keys"
    # Nothing else differs, and the engines' are the larger ones: the router's weights are below 1 here, mostly.
    st-cmp "$T/engine.ts" "$T/reference.ts" >"$T/different" || true
    [ "$(grep -c 'w2_input' "$T/different")" -gt 30 ]
    run grep -E 'w[13]_input|weight_q|tokens' "$T/different"
    [ "$status" -eq 1 ]
    # A dump of one kind is used as it is, and a line says so.
    run amax-merge --w2 reference -o "$T/again.ts" "$T/engine.ts"
    [[ $output == *'--w2 reference: of w2'?'s inputs, '*' have amaxes without the router'* ]]
    st-cmp -q "$T/engine.ts" "$T/again.ts"
    run amax-merge --fallback layer-max -o "$T/dump-engine.ts" "$T/dump.ts"
    [[ $output == *'--w2 engine: of w2'?'s inputs, 63 have amaxes with the router'* ]]
    run amax-merge --w2 reference --fallback layer-max -o "$T/dump-reference.ts" "$T/dump.ts"
    [[ $output != *w2\'s* ]]
    st-cmp -q "$T/dump-engine.ts" "$T/dump-reference.ts"
}

@test "a calibration that is not merged is refused by the stages that quantize" {
    random_ids "$T/tokens.safetensors" 1 20
    amax-calib -q --tokens "$T/tokens.safetensors" --layers 0-0 "$NANO" >"$T/calib.ts"
    for stage in nvfp4-cast nvfp4-pack; do
        refused 'w2_input_quantizer._amax_engine: this calibration is not merged; amax-merge' \
            $stage --amax "$T/calib.ts" -o "$T/x.ts" "$NANO"
    done
}

@test "a choice is one of them, whole" {
    for rule in 'none|layer-max' '' none\| layer; do
        run amax-merge --fallback "$rule" "$T/dump.ts"
        [ "$status" -eq 2 ]
        [[ $output == *"'$rule' is none of none|layer-max|projection-max"* ]]
    done
}

@test "dumps themselves are for pt-read" {
    for dump in "$NANO_AMAX" "$NANO_AMAX/amax_dict_rank0-mp1.pt"; do
        run amax-merge "$dump"
        [ "$status" -eq 1 ]
        [[ $output == *pt-read* ]]
    done
}

@test "the history of every stream is kept, and what its stages counted" {
    st-grep -o "$T/a.ts" 'layers\.[01]\.' "$T/dump.ts"
    st-grep -o "$T/b.ts" 'layers\.2\.' "$T/dump.ts"
    st-grep -o "$T/c.ts" -V 'layers\.[012]\.' "$T/dump.ts"
    amax-merge -q --fallback layer-max -o "$T/amax.ts" "$T"/{a,b,c}.ts
    st-ls --header "$T/amax.ts" >"$T/header"
    jq -e '[.history[].program] == ["pt-read", "st-grep", "amax-merge"]' "$T/header"
    jq -e '.history[1].options == ["--regexp=layers\\.[01]\\."]' "$T/header"
    jq -e '[.history[2].with[].history[1].options[-1]] ==
        ["--regexp=layers\\.2\\.", "--regexp=layers\\.[012]\\."]' "$T/header"
    jq -e '.history[2].with | all(.counts | type == "array")' "$T/header"
    # Of one stream there is nothing more to keep.
    amax-merge -q --fallback layer-max "$T/dump.ts" | st-ls --header - |
        jq -e '.history[-1] | has("with") | not'
}

@test "amaxes of another model: more experts, more layers; both counts are said" {
    for size in 4:17 4:256 5:16 61:1; do
        dump "$T/other.safetensors" "${size%:*}" "${size#*:}"
        count=$((${size%:*} * ${size#*:}))
        for rule in none layer-max; do
            run amax-merge --model "$NANO" --fallback "$rule" -o "$T/x.ts" "$T/other.safetensors"
            [ "$status" -eq 1 ]
            [[ $output == *"other.safetensors: has amaxes of $count routed experts, but "*' has '*', and lacks '* ]]
            [ ! -e "$T/x.ts" ]
        done
    done
    dump "$T/other.safetensors" 4 17 # the checkpoint has 64, and MTP's
    refused 'has amaxes of 68 routed experts, but .*ckpt has 80 routed experts, and lacks 4 of those, as layers\.0\.ffn\.experts\.16\.w1' \
        amax-merge -n --model "$NANO" "$T/other.safetensors"
}

@test "--coverage: a layer of which the calibration knows too little" {
    dump "$T/few.safetensors" 4 14
    refused 'layers\.[0-3]\.ffn\.experts: the calibration has 14 of 16 experts, under 90 %.*--fallback' \
        amax-merge --model "$NANO" --fallback layer-max --coverage 90 "$T/few.safetensors"
    amax-merge -q --model "$NANO" --fallback layer-max --coverage 87 "$T/few.safetensors" >"$T/a.ts"
    amax-merge -q --model "$NANO" --fallback layer-max "$T/few.safetensors" >"$T/b.ts"
    cmp "$T/a.ts" "$T/b.ts"
    dump "$T/none.safetensors" 3 16 # a whole layer
    refused 'layers\.3\.ffn\.experts: the calibration has 0 of 16 experts' \
        amax-merge --model "$NANO" --fallback projection-max --coverage 1 "$T/none.safetensors"
    amax-merge -q --coverage 90 --fallback layer-max "$T/dump.ts" >"$T/a.ts" # 15 of 16, without the model
    run amax-merge --coverage 101 "$T/dump.ts"
    [ "$status" -eq 2 ]
}
