# Names of files and folders that shells and programs misread: a dash first, spaces, quotes, backslashes, patterns,
# newlines. Pipelines take them for names, wherever they stand.
# shellcheck disable=SC2016 # names are not expanded
load common
load craft

PATH=$PWD/pipelines:$PATH
text=$PWD/test/data/text/eval.jsonl

prepare() {
    name='-x "q'\''*[a]?\n\\t$(touch pwned)`touch pwned`;&|%s=~ é'
    odd=$name$'\nb\n' # where a newline may be
    mkdir "$T/in" "$T/in/$odd tmp"
    cd "$T/in" || return
    cp -r "$NANO" "./$name"
    export TMPDIR="$odd tmp"
}

# tidy: nothing was run that a name says, nor left beside results.
tidy() {
    [ ! -e pwned ]
    [ "$(ls -A "./$odd tmp")" = '' ]
    [ -z "$(find . -name '*.partial' -o -name '*.calib')" ]
}

@test "v4-experts: source, destination, texts, outputs, TMPDIR" {
    cp "$text" "./$odd.jsonl"
    v4-experts -q --samples 1 --length 8 --calib "$text" --eval "$text" --save-amax "$T/amax.ts" "$NANO" "$T/whole" >"$T/wanted"
    v4-experts -q --jobs 2 --samples 1 --length 8 --calib "./$odd.jsonl" --eval "./$odd.jsonl" --save-amax "./$odd.ts" \
        --summary "./$odd.txt" -- "$name" "$name dst" >"$T/found"
    diff "$T/wanted" "$T/found"
    [ "$(st-sum "./$odd.ts")" = "$(st-sum "$T/amax.ts")" ]
    [ -s "./$odd.txt" ]
    [ "$(st-sum -- "$name dst")" = "$(st-sum "$T/whole")" ]
    grep -qF "text: ${odd//$'\n'/?}.jsonl" "./$name dst/README.md"
    tidy
    # A text among the operands.
    cp "$text" ./-text.jsonl
    v4-experts -n --samples 1 --length 8 --calib "$text" -- -text.jsonl "$name" -dst >"$T/plan"
}

@test "v4-experts --amax: a folder of dumps, one dump; complete already" {
    mkdir "./$odd dumps"
    cp "$NANO_AMAX"/*.pt "./$odd dumps"
    v4-experts -q --fallback layer-max --amax "$NANO_AMAX" "$NANO" "$T/whole"
    for amax in "./$odd dumps" "./$odd dumps"/*.pt; do
        v4-experts -q --fallback layer-max --amax "$amax" -- "$name" -dst
        v4-experts --fallback layer-max --amax "$amax" -- "$name" -dst 2>"$T/said"
        grep -q 'complete already' "$T/said"
        same_run "$T/whole" ./-dst
        tidy
        rm -r ./-dst
    done
}

@test "v4-bf16, v3-nvfp4, v4-full and v3-bf16: the same; shards that begin with a dash" {
    for shard in ./"$name"/*.safetensors; do mv "$shard" "./$name/-${shard##*/model-}"; done
    sed -i 's/"model-0/"-0/' "./$name/model.safetensors.index.json"
    v4-bf16 -q -- "$name" -dst
    v4-bf16 -- "$name" -dst 2>"$T/said"
    grep -q 'complete already' "$T/said"
    v4-bf16 -q --verify -- "$name" -dst
    [ -e ./-dst/-00001-of-00003.safetensors ]
    v4-bf16 -q "$NANO" "$T/bf16"
    [ "$(st-sum -- -dst)" = "$(st-sum "$T/bf16")" ]
    tidy
    v4-full -n --input-scale 1 -- "$name" -full >"$T/plan"
    for pipeline in v3-bf16 'v3-nvfp4 --input-scale 1'; do
        # The source is read: it is none of V3's.
        # shellcheck disable=SC2086 # words
        run $pipeline -n -- "$name" -dst3
        [[ $output != *"Try '"* ]]
    done
    # After a run that died, whose shards are named.
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    rm -r ./-dst
    run bash -c "st-read -- '${name//\'/\'\\\'\'}' | fp8-dequant | mxfp4-unpack | nvfp4-unpack |
        strace -f -o /dev/null -e trace=fsync -e inject=fsync:signal=KILL:when=3 st-write -q -- -dst"
    [ -d ./-dst.partial ]
    st-write --todo -- -dst >"$T/todo"
    grep -q '^-0000' "$T/todo"
    v4-bf16 -- "$name" -dst 2>"$T/said"
    grep -q 'shards were finished by an earlier run' "$T/said"
    [ "$(st-sum -- -dst)" = "$(st-sum "$T/bf16")" ]
    tidy
}

@test "amax-plot: stream, output, TMPDIR" {
    pt-read "$NANO_AMAX" >"./$odd.ts"
    amax-plot "./$odd.ts" >"$T/found"
    TMPDIR=$T amax-plot "./$odd.ts" | cmp - "$T/found"
    amax-plot -- "$odd.ts" | cmp - "$T/found"
    TMPDIR='a=b' && mkdir 'a=b'
    amax-plot -- "$odd.ts" | cmp - "$T/found"
    command -v gnuplot >/dev/null || skip 'gnuplot is missing'
    amax-plot -o "./$odd" -- "$odd.ts"
    [ -s "./$odd" ]
    tidy
}

@test "job scripts for Slurm" {
    amaxes "$T/amax.ts"
    for i in 1 2; do
        SLURM_ARRAY_TASK_ID=$i bash "$OLDPWD/pipelines/slurm/v4-experts.sbatch" 2 "$T/amax.ts" "$name" -dst
    done
    st-write -q --join -- -dst
    [ -e ./-dst/config.json ]
}

@test "a destination that nobody could read again is refused before any work" {
    for target in "$odd" $'tab\t' $'esc\e[2J'; do
        refused 'a control character in its path: .*; choose another folder' st-write "./$target" <(st-read "./$name")
        run v4-experts --input-scale 1 "./$name" "./$target"
        [ "$status" -eq 1 ]
        [ ! -e "./$target.partial" ]
    done
    refused 'a control character in its path' st-write "./$odd tmp/new" <(st-read "./$name")
}
