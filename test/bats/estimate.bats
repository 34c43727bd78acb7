# What a dry run says of the run: how long, what bounds it, how much memory. Nothing is left of what it measures.
load common

PATH=$PWD/pipelines:$PATH

# everything: each file in $T and in the folder of temporary files.
everything() {
    find "$T" -printf '%p %s %T@\n' | sort
}

@test "-n says how long a run takes, and leaves nothing" {
    mkdir "$T/tmp"
    export TMPDIR=$T/tmp
    calib=(v4-experts --samples 12 --length 32 --calib test/data/text/calib-code.jsonl)
    v3=$PWD/test/data/v3-tiny/ckpt
    for command in "v4-bf16" "v4-bf16 --verify" "v4-experts --amax $NANO_AMAX" "v4-experts --lossy --input-scale 1" \
        "${calib[*]} --eval test/data/text/eval.jsonl" "v4-experts --input-scale 1 --generate a,b" \
        "v3-nvfp4 --input-scale 1"; do
        source=$NANO
        case $command in v3*) source=$v3 ;; esac
        $command -n "$source" "$T/out" >"$T/tmp/plan" 2>"$T/tmp/said" || { cat "$T/tmp/said" && return 1; }
        cat "$T/tmp/plan" "$T/tmp/said"
        grep -qE '^time  about [0-9hms.]+, bound by ' "$T/tmp/plan"
        grep -qE '^      checks [0-9.]+s, .*weights [0-9.]+s at [0-9]+ MB/s(, reading them again [0-9.]+s)?$' "$T/tmp/plan"
        grep -qE '^memory at most (256 MiB a stage|4 GiB for weights(, and [0-9.]+ [MG]B of hidden states)?)$' "$T/tmp/plan"
        case $command in
        *--verify) grep -q 'reading them again' "$T/tmp/plan" ;;
        *--eval*) grep -q ', calibration [0-9.]*s, evaluation [0-9.]*s, ' "$T/tmp/plan" ;;
        *--generate*) grep -qE ', texts of both [0-9hms.]+, ' "$T/tmp/plan" ;;
        esac
        rm "$T/tmp/plan" "$T/tmp/said"
        [ "$(find "$T" -mindepth 1)" = "$T/tmp" ]
    done
}

@test "a run that is refused, or that is done, is not measured" {
    v4-experts -q --amax "$NANO_AMAX" "$NANO" "$T/out"
    v4-experts -n --amax "$NANO_AMAX" "$NANO" "$T/out" >"$T/plan"
    if grep '^time' "$T/plan"; then return 1; fi
    run v4-experts -n --input-scale 1 "$NANO" "$T/out"
    [ "$status" -eq 1 ]
    [[ $output != *'time  about'* ]]
}

@test "st-speed: bytes and seconds; what takes long to arrive is waited for" {
    st-read "$NANO" | fp8-dequant | st-speed --json "$T" >"$T/json"
    jq -e '.bytes == 14700400 and .seconds > 0 and .waiting <= .seconds' "$T/json"
    fp8-dequant "$NANO" | { head -c 2000000; sleep 1; cat; } | st-speed --json "$T" |
        jq -e '.waiting > 0.8 and .seconds > 0.9'
    st-read --inline "$NANO" | { head -c 6000000; sleep 5; cat || true; } | st-speed --json --seconds 1 "$T" |
        jq -e '.seconds < 7 and .bytes < 12000000' || return 1
    [ "$(ls -A "$T")" = json ]
    run st-speed "$T/none" <(st-read "$NANO")
    [ "$status" -eq 1 ]
    st-read -n -o "$T/plan.ts" "$NANO"
    run st-speed "$T" "$T/plan.ts"
    [ "$status" -eq 1 ]
    [[ $output == *'is a plan'* ]]
    run st-speed
    [ "$status" -eq 2 ]
}

@test "a run in parts that was killed is measured, too, and nothing is said against its parts" {
    amax-merge -q --model "$NANO" --input-scale 1 -o "$T/amax.ts"
    pipeline "st-read --part 1/2 '$NANO' | nvfp4-cast --amax '$T/amax.ts' | st-write -q --part '$T/out'"
    v4-experts -n -j 2 --input-scale 1 "$NANO" "$T/out" >"$T/plan" 2>"$T/said"
    cat "$T/said"
    [ ! -s "$T/said" ]
    grep '^time  about' "$T/plan"
}

@test "texts that can be read once only are measured, too" {
    mkfifo "$T/fifo.jsonl"
    cat test/data/text/calib-code.jsonl >"$T/fifo.jsonl" &
    for text in "$T/fifo.jsonl" <(cat test/data/text/calib-code.jsonl); do
        timeout 60 v4-experts -n --samples 4 --length 32 --calib "$text" "$NANO" "$T/out" >"$T/plan"
        grep ', calibration [0-9.]*s, ' "$T/plan"
    done
}

# texts COMMAND...: seconds that a plan says --generate takes; nothing else is said.
texts() {
    "$@" 2>"$T/said" >"$T/plan"
    cat "$T/said"
    [ ! -s "$T/said" ]
    grep -o 'texts of both [0-9.hm]*s' "$T/plan" | grep -v ' 0.0s'
}

@test "--generate is measured whatever its text is, and through st-read, too" {
    texts v4-experts -n --input-scale 1 --generate 'Είναι' "$NANO" "$T/out"
    texts v4-experts -n --input-scale 1 --generate '深' "$NANO" "$T/out"
    texts v4-experts -n --input-scale 1 --generate a --allow-zeros "$NANO" "$T/out"
}

@test "--generate without a tokenizer is refused before any work" {
    mkdir "$T/ckpt"
    cp -r "$NANO"/* "$T/ckpt"
    rm "$T/ckpt/tokenizer.json"
    for plan in -n -q; do
        run v4-experts $plan --input-scale 1 --generate a "$T/ckpt" "$T/out"
        [ "$status" = 1 ]
        [[ $output == *'no tokenizer.json in it; --generate needs one'* ]]
        [ "$(ls "$T")" = ckpt ]
    done
}

@test "config.json in one line, with another model's numbers after the first ones" {
    mkdir "$T/ckpt"
    cp -r "$NANO"/* "$T/ckpt"
    other='{"hidden_size": 7, "num_hidden_layers": 99, "first_k_dense_replace": 50, "model_type": "deepseek_v3"}'
    jq -c ". + {first_k_dense_replace: 0, vision_config: $other}" "$NANO/config.json" >"$T/ckpt/config.json"
    [ "$(wc -l <"$T/ckpt/config.json")" = 1 ]
    v4-experts -n --samples 2 --length 32 --calib test/data/text/calib-code.jsonl "$T/ckpt" "$T/out" >"$T/plan" 2>"$T/said"
    grep '^time' "$T/plan"
    if grep 'there are layers' "$T/said"; then return 1; fi
    run v3-nvfp4 -n --input-scale 1 "$T/ckpt" "$T/out"
    [[ $output == *'its model_type is deepseek_v4, which v4-experts or v4-full converts'* ]]
}
