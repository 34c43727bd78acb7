# What amax-calib records for better scales, and what is made of it.
# shellcheck disable=SC2030,SC2031 # each test is a subshell
load common
load craft

prepare() {
    random_ids "$T/tokens.safetensors" 3 100
    calib=(amax-calib -q --tokens "$T/tokens.safetensors")
}

# sums FOLDER: what is in its streams, without the histories.
sums() {
    for file in "$1"/*.ts; do
        basename "$file"
        st-sum "$file"
    done
}

@test "moments and headroom: amaxes stay the same, and so do moments however it runs" {
    prepare
    "${calib[@]}" "$NANO" >"$T/plain.ts"
    "${calib[@]}" --moments "$T/a" "$NANO" >"$T/a.ts"
    cmp "$T/plain.ts" "$T/a.ts"
    "${calib[@]}" --headroom --moments "$T/b" -j 1 --batch 1 --mem 1K "$NANO" >"$T/b.ts"
    [ "$(tar xOf "$T/b.ts" .toc | grep -c headroom)" -gt 100 ]
    st-grep --invert headroom "$T/b.ts" >"$T/without.ts"
    diff <(st-sum --each "$T/plain.ts") <(st-sum --each "$T/without.ts")
    diff <(sums "$T/a") <(sums "$T/b")
    [ "$(sums "$T/a" | grep -c '^layers')" -eq 4 ]
    # Layer by layer, with hidden states between.
    "${calib[@]}" --moments "$T/c" --layers 0-1 --states-out "$T/states.ts" "$NANO" >"$T/c.ts"
    "${calib[@]}" --moments "$T/c" --layers 2-3 --states-in "$T/states.ts" "$NANO" >"$T/c.ts"
    diff <(sums "$T/a") <(sums "$T/c")
}

@test "moments: of the first matrix of each group, symmetric means of squares; of a recipe's too" {
    prepare
    "${calib[@]}" --recipe full --samples 1 --layers 0-0 --moments "$T/a" "$NANO" >"$T/a.ts"
    tar xOf "$T/a/layers.0.ts" .toc | cut -f1 >"$T/names"
    grep -qx 'layers.0.attn.wq_a.input_moments' "$T/names"
    grep -qx 'layers.0.ffn.shared_experts.w1.input_moments' "$T/names"
    run grep -E 'wkv|w3' "$T/names"
    [ "$status" -eq 1 ]
    tar xOf "$T/a/layers.0.ts" layers.0.attn.wq_a.input_moments | od -An -v -w4 -tf4 |
        awk '{ m[NR - 1] = $1 } END {
            for (b = 0; b < NR; b += 256) for (i = 0; i < 16; i++) for (j = 0; j < 16; j++)
                if (m[b + 16 * i + j] != m[b + 16 * j + i] || m[b + 17 * i] < 0) bad = 1
            exit NR % 256 || bad }'
}

@test "hessian: moments are used where there are any, and that is counted" {
    prepare
    "${calib[@]}" --moments "$T/m" "$NANO" >"$T/calib.ts"
    amax-merge -q --model "$NANO" --fallback layer-max "$T/calib.ts" >"$T/amax.ts"
    pack=(nvfp4-pack --amax "$T/amax.ts")
    "${pack[@]}" --scale-search hessian --moments "$T/m" "$NANO" >"$T/a.ts" 2>"$T/said"
    known=$(tar xOf "$T/a.ts" .end | jq '.counts[0].moments_known')
    unknown=$(tar xOf "$T/a.ts" .end | jq '.counts[0].moments_unknown')
    [ $((known + unknown)) -eq 192 ]
    [ "$unknown" -gt 0 ]
    grep -q "^nvfp4-pack: $unknown of 192 weights have no moments" "$T/said"
    for cpu in portable avx2 avx512; do
        "${pack[@]}" -q --cpu "$cpu" --scale-search hessian --moments "$T/m" "$NANO" >"$T/b.ts" || continue
        cmp <(st-sum --each "$T/a.ts") <(st-sum --each "$T/b.ts")
    done
    # By a recipe; without a layer, that one is packed as by mse.
    jq '.scale_search = "hessian"' pipelines/recipes/deepseek_v4/experts.json >"$T/hessian.json"
    rm "$T/m/layers.2.ts"
    "${pack[@]}" -q --recipe "$T/hessian.json" --moments "$T/m" "$NANO" >"$T/b.ts"
    "${pack[@]}" -q --scale-search mse "$NANO" >"$T/mse.ts"
    diff <(st-sum --each "$T/a.ts" | grep 'layers\.1\.') <(st-sum --each "$T/b.ts" | grep 'layers\.1\.')
    diff <(st-sum --each "$T/mse.ts" | grep 'layers\.2\.') <(st-sum --each "$T/b.ts" | grep 'layers\.2\.')
    run diff <(st-sum --each "$T/a.ts") <(st-sum --each "$T/mse.ts")
    [ "$status" -eq 1 ]
}

# refuses STATUS TEXT COMMAND...
refuses() {
    run "${@:3}"
    [ "$status" -eq "$1" ]
    [[ $output == *"$2"* ]]
}

@test "hessian: what cannot be used is refused" {
    amaxes "$T/amax.ts"
    pack=(nvfp4-pack -o "$T/out.ts" --amax "$T/amax.ts")
    refuses 2 'needs --moments DIR' "${pack[@]}" --scale-search hessian "$NANO"
    refuses 2 'goes with --scale-search hessian' "${pack[@]}" --moments "$T" "$NANO"
    mkdir "$T/m"
    pack+=(--scale-search hessian --moments "$T/m")
    refuses 1 'holds no moments of inputs; amax-calib --moments makes them' "${pack[@]}" "$NANO"
    refuses 1 'missing: No such file' nvfp4-pack --amax "$T/amax.ts" --scale-search hessian --moments missing "$NANO"
    name=layers.0.ffn.experts.0.w1.input_moments
    safetensors "$T/m.safetensors" "{\"$name\":{\"dtype\":\"F32\",\"shape\":[1,16,16],\"data_offsets\":[0,1024]}}" \
        "$(printf '\\0%.0s' {1..1024})"
    st-read --inline "$T/m.safetensors" >"$T/m/layers.0.ts"
    refuses 1 "$name: wanted F32 [16,16,16], got F32 [1,16,16]" "${pack[@]}" "$NANO"
    safetensors "$T/nan.safetensors" "{\"$name\":{\"dtype\":\"F32\",\"shape\":[16,16,16],\"data_offsets\":[0,16384]}}" \
        "$(printf '\\377%.0s' {1..16384})"
    st-read --inline "$T/nan.safetensors" >"$T/m/layers.0.ts"
    refuses 1 "$name: element 0 is" "${pack[@]}" "$NANO"
    jq '.scale_search = "best"' pipelines/recipes/deepseek_v4/experts.json >"$T/best.json"
    refuses 1 'scale_search: best is not one of max|mse|4over6|hessian' nvfp4-pack -n --recipe "$T/best.json" "$NANO"
}

@test "headroom: amax-merge takes these amaxes for the others, and only where there are any" {
    prepare
    "${calib[@]}" --headroom "$NANO" >"$T/calib.ts"
    merge=(amax-merge -q --model "$NANO" --fallback layer-max)
    "${merge[@]}" "$T/calib.ts" >"$T/plain.ts"
    "${merge[@]}" --headroom "$T/calib.ts" >"$T/headroom.ts"
    diff <(tar xOf "$T/plain.ts" .toc) <(tar xOf "$T/headroom.ts" .toc)
    diff <(st-sum --each "$T/plain.ts" | grep -v input) <(st-sum --each "$T/headroom.ts" | grep -v input)
    [ "$(tar xOf "$T/headroom.ts" .end | jq '.counts[-1].headroom')" = true ]
    # w2's of engines is chosen here, too.
    for kind in engine reference; do
        "${merge[@]}" --w2 $kind --headroom "$T/calib.ts" >"$T/$kind.ts"
    done
    input=layers.0.ffn.experts.0.w2_input_quantizer._amax
    number() { tar xOf "$1" "$2" | od -An -tx4; }
    [ "$(number "$T/engine.ts" $input)" = "$(number "$T/calib.ts" ${input}_engine_headroom)" ]
    [ "$(number "$T/reference.ts" $input)" = "$(number "$T/calib.ts" ${input}_headroom)" ]
    refuses 1 'has no input amax with headroom; amax-calib --headroom records it' "${merge[@]}" --headroom "$T/plain.ts"
    refuses 1 'this calibration is not merged' nvfp4-cast -o "$T/out.ts" --amax "$T/calib.ts" "$NANO"
}

@test "two ranks add up what they recorded" {
    prepare
    "${calib[@]}" --headroom --moments "$T/one" "$NANO" >"$T/one.ts"
    export MASTER_PORT=$((10000 + 2 * ($$ % 10000)))
    for rank in 1 0; do
        RANK=$rank WORLD_SIZE=2 "${calib[@]}" --headroom --moments "$T/two" -o "$T/two$rank.ts" "$NANO" 3>&- &
    done
    wait
    diff <(st-sum --each "$T/one.ts") <(st-sum --each "$T/two0.ts")
    for layer in 0 1 2 3; do
        diff <(tar xOf "$T/one/layers.$layer.ts" .toc) <(tar xOf "$T/two/layers.$layer.ts" .toc)
    done
    name=layers.3.ffn.experts.1.w1.input_moments
    values() { tar xOf "$1/layers.3.ts" "$name" | od -An -v -w4 -tf4; }
    paste <(values "$T/one") <(values "$T/two") |
        awk '{ d = $1 - $2; error += d * d; all += $1 * $1 } END { exit !(all > 0 && error < 1e-10 * all) }'
}

@test "the summary names the experts that set input scales; of many layers, the unevenest" {
    amaxes "$T/amax.ts"
    nvfp4-cast --amax "$T/amax.ts" "$NANO" | st-write "$T/out" 2>"$T/said"
    grep -A 1 -E '^  layers\.3\.ffn\.experts +w1\+w3 +[0-9.e-]+ +expert [0-9]+ +[0-9.]+ x$' "$T/said" |
        grep -qE '^ +w2 +[0-9.e-]+ +expert [0-9]+ +[0-9.]+ x$'
    # The largest input scale of the layer, of that expert.
    tar xOf "$T/amax.ts" .end | jq -e '.counts[-1].input_scales | length == 8' >"$T/ok"
    tar xOf "$T/amax.ts" .end | jq -r '.counts[-1].input_scales[] |
        select(.experts == "layers.2.ffn.experts" and .matrices == "w2") | "\(.expert) \(.input_scale)"' >"$T/chosen"
    read -r expert scale <"$T/chosen"
    nvfp4-cast -q --amax "$T/amax.ts" "$NANO" >"$T/cast.ts"
    for e in {0..15}; do
        tar xOf "$T/cast.ts" "layers.2.ffn.experts.$e.w2.input_scale" | od -An -tf4 | sed "s/^/$e /"
    done | sort -k2,2gr -k1,1n | head -1 >"$T/largest"
    awk -v e="$expert" -v s="$scale" '{ exit !($1 == e && ($2 - s) ^ 2 < 1e-12 * s ^ 2) }' "$T/largest"
}

@test "v4-full: the search, the moments and the headroom go through; nothing is left behind" {
    full=(pipelines/v4-full -q --fallback layer-max)
    "${full[@]}" --calib test/data/text/calib-prose.jsonl --samples 2 --length 64 --scale-search hessian \
        --input-scale headroom --moments "$T/m" --save-amax "$T/calib.ts" "$NANO" "$T/a" 2>"$T/said"
    [ ! -e "$T/a.calib" ]
    [ -e "$T/m/layers.0.ts" ]
    # The same by a recipe, and from what was kept.
    jq '.scale_search = "hessian"' pipelines/recipes/deepseek_v4/full.json >"$T/full.json"
    "${full[@]}" --amax "$T/calib.ts" --input-scale headroom --recipe "$T/full.json" --moments "$T/m" "$NANO" "$T/b" \
        2>"$T/said"
    st-cmp "$T/a" "$T/b"
    "${full[@]}" --amax "$T/calib.ts" "$NANO" "$T/plain" 2>"$T/said"
    run st-cmp "$T/a" "$T/plain"
    [ "$status" -eq 1 ]
    refuses 2 '--scale-search hessian needs --calib, or --moments beside --amax' \
        "${full[@]}" --amax "$T/calib.ts" --scale-search hessian "$NANO" "$T/c"
    refuses 2 '--scale-search and --moments are for what is packed' \
        pipelines/v4-experts --amax "$T/calib.ts" --scale-search mse "$NANO" "$T/c"
}

@test "moments: those of drafts come last" {
    prepare
    "${calib[@]}" --mtp --moments "$T/m" "$NANO" >"$T/calib.ts"
    st-sum "$T/m/mtp.0.ts"
    st-ls --tsv "$T/m/mtp.0.ts" >"$T/list"
    [ "$(grep -c '^mtp\.0\.ffn\.experts\.' "$T/list")" -gt 16 ]
}

@test "moments: nothing else is written into their folder" {
    prepare
    mkdir "$T/m"
    for option in '-o m/layers.1.ts' '--states-out m/states.safetensors' '-o m/../m/x.ts'; do
        # shellcheck disable=SC2086 # two words
        run bash -c "cd '$T' && \"\$@\" 2>&1 >x.ts" - "${calib[@]}" --moments m $option "$NANO"
        [ "$status" -eq 2 ]
        [[ $output == *': is in the folder of --moments, where all files are of moments; name another file'* ]]
        [ -z "$(ls -A "$T/m")" ]
    done
}

@test "moments: a killed run leaves the layers that it finished, and the same command adds the others" {
    prepare
    "${calib[@]}" --moments "$T/whole" "$NANO" >"$T/whole.ts"
    again=("${calib[@]}" --resume "$T/resume" --keep-every 1 --moments "$T/m" -o "$T/a.ts" "$NANO")
    "${again[@]}" 3>&- &
    until [ -e "$T/m/layers.1.ts" ] || ! kill -0 $!; do sleep 0.05; done
    kill -KILL $! || skip 'it was too fast'
    wait $! || :
    if [ -e "$T/m/layers.3.ts" ]; then skip 'it was too fast'; fi
    "${again[@]}"
    cmp "$T/whole.ts" "$T/a.ts"
    diff <(sums "$T/whole") <(sums "$T/m")
    # Not with the calibration of a run that recorded none.
    "${calib[@]}" --resume "$T/resume" --resume-keep -o "$T/b.ts" "$NANO"
    refused 'run with other options' "${calib[@]}" --resume "$T/resume" --moments "$T/m" -o "$T/b.ts" "$NANO"
}
