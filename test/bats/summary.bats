# The summary at the end of a run: for people in 80 columns, and as JSON.
load common

PATH=$PWD/pipelines:$PATH

# narrow FILE: all its rows fit 80 columns.
narrow() {
    if grep -E '^.{81}' "$1"; then return 1; fi
}

@test "what was made, of what, steps, rate, quality, verdicts, what next; in 80 columns" {
    v4-experts --samples 2 --length 32 --calib test/data/text/calib-code.jsonl --eval test/data/text/eval.jsonl --verify \
        "$NANO" "$T/out" >"$T/results" 2>"$T/said"
    sed '1,/^amax-merge/d' "$T/said" | sed -n '/was made from/,$p' >"$T/summary"
    [ -s "$T/summary" ]
    tail -n +2 "$T/summary" | grep -v "^  st-verify\|^  cd " >"$T/rows" # names may be long
    narrow "$T/rows"
    grep -qE '^in +667 tensors, +12\.7 MB: BF16' "$T/rows"
    grep -qE '^out +1051 tensors' "$T/rows"
    tr '\n' ' ' <"$T/rows" | tr -s ' ' | grep -q "stays MXFP4: 786 kB, 48 matrices of the drafts' experts (mtp.*), as SGLang needs them"
    grep -q '^lossless MXFP4->NVFP4 blocks: 196608/196608 (100.0000%)$' "$T/rows"
    grep -q '^verified: all shards were read again' "$T/rows"
    grep -q '^checked: faults 0, warnings 0$' "$T/rows"
    for step in checks calibration 'evaluation of the source' 'evaluation of the result' weights verdicts; do
        grep -qE "^$step +[0-9.]+s$" "$T/rows"
    done
    # The rate is of the whole time.
    read -r seconds mega < <(sed -nE 's|^all +([0-9.]+)s +13\.0 MB, ([0-9.]+) MB/s$|\1 \2|p' "$T/rows")
    awk -v s="$seconds" -v r="$mega" 'BEGIN { exit !(s * r > 11 && s * r < 15) }'
    awk '/^source: / { a = $6 } /^result: / { b = $6 } END { print a, b }' "$T/results" >"$T/both"
    read -r before after <"$T/both"
    grep -qE "^source +$before +" "$T/rows"
    grep -qE "^result +$after +" "$T/rows"
    grep -qE '^vLLM [^ ]+ +loads +loads silently wrong \(1\)$' "$T/rows"
    grep -qE '^SGLang [^ ]+ +loads +loads$' "$T/rows"
    # The commands run.
    command=$(sed -n 's/^  \(st-verify .*\)/\1/p' "$T/summary")
    bash -c "$command"
    grep -qE "^  cd $T/out && vllm serve \.$" "$T/summary"
}

@test "--json: the same on standard output, and nothing else there; -q prints no summary" {
    v4-experts --json --samples 1 --length 16 --calib test/data/text/calib-code.jsonl --eval test/data/text/eval.jsonl \
        "$NANO" "$T/out" >"$T/json" 2>"$T/said"
    jq -e '.program == "v4-experts" and (.destination | endswith("/out")) and .written.output.tensors == 1051 and
        (.steps | map(.step) | length == 6) and ((.steps | map(.seconds) | add) - .seconds | fabs < 1e-6) and
        (.quality.runs | length == 2) and (.checks | map(select(.what == "verdict")) | length == 8) and
        (.next[0] | startswith("st-verify"))' "$T/json"
    if grep -q 'was made from' "$T/said"; then return 1; fi
    v4-bf16 -q "$NANO" "$T/bf16" >"$T/none" 2>&1
    [ ! -s "$T/none" ]
    v4-bf16 --json --overwrite "$NANO" "$T/bf16" | jq -e '.written.output.formats.BF16 > 0 and .program == "v4-bf16"'
}

@test "with --jobs: counts are of the whole, and verified is said" {
    v4-experts --amax "$NANO_AMAX" --jobs 3 --verify "$NANO" "$T/jobs" 2>"$T/said"
    grep -q '^lossless MXFP4->NVFP4 blocks: 196608/196608' "$T/said"
    grep -q 'cast: 192 weights' "$T/said"
    grep -q 'verified: each part read its shards again' "$T/said"
}

@test "st-write: no rate where nothing was written, such as by --join" {
    for i in 1 2; do st-read --part $i/2 "$NANO" | st-write -q --part "$T/out"; done
    st-write --join "$T/out" 2>"$T/said"
    grep -qE '^done in [0-9.]+s$' "$T/said"
    st-read "$NANO" | st-write --no-share --verify "$T/whole" 2>"$T/said"
    grep -qE '^done in [0-9.]+s, [0-9.]+ [kMG]B/s$' "$T/said"
    grep -q '^verified: ' "$T/said"
    narrow "$T/said"
    st-read "$NANO" | st-write --no-share "$T/again" 2>"$T/said"
    if grep -q '^verified: ' "$T/said"; then return 1; fi
}

@test "st-summary: names are shown and quoted; files that are none" {
    run st-summary $'a\nb' "c'd e"
    [ "$status" -eq 0 ]
    [[ ${lines[0]} == "st-write: c'd e is what these options make of a?b" ]]
    [[ ${lines[-1]} == *"st-cmp --values \$'a\\012b' 'c'\\''d e'" ]]
    st-summary --json $'a\xff' b | jq -e '.next[0] == "st-cmp --values $'"'a\\\\377'"' b"'
    echo '{' >"$T/bad"
    for option in checks quality steps written; do
        run st-summary --$option "$T/bad" a b
        [ "$status" -eq 1 ]
        run st-summary --$option "$T/missing" a b
        [ "$status" -eq 1 ]
    done
    run st-summary a
    [ "$status" -eq 2 ]
}

@test "the summary fails: the checkpoint is in place, and the status says so" {
    load instead
    prepare
    rm "$T/bin/st-summary"
    printf '#!/bin/sh\nexit 3\n' >"$T/bin/st-summary"
    chmod +x "$T/bin/st-summary"
    run v4-experts --amax "$NANO_AMAX" "$NANO" "$T/out"
    [ "$status" = 0 ]
    [[ $output == *"$T/out is in place, but st-summary failed"* ]]
    [ -e "$T/out/config.json" ]
}
