# v4-experts --calib, killed: the same command goes on with the calibration that it had.
# shellcheck disable=SC2030,SC2031 # each test is a subshell
load common

PATH=$PWD/pipelines:$PATH
text=$PWD/test/data/text

prepare() {
    export TMPDIR=$T
    mkdir "$T/bin"
    ln -s "$PWD/$BIN"/* "$T/bin"
    run=(v4-experts --samples 2 --length 40 --calib "$text/calib-prose.jsonl")
}

# killed PROGRAM CALL N OPTION...: v4-experts is killed, when PROGRAM is at its N-th system call CALL; not in
# the plan.
killed() {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    rm "$T/bin/$1"
    cat >"$T/bin/$1" <<SH
#!/bin/sh
case " \$* " in *' -n '* | *' --todo'* | *' --state '*) exec "$PWD/$BIN/$1" "\$@" ;; esac
strace -f -o /dev/null -e trace=$2 -e inject=$2:signal=KILL:when=$3 "$PWD/$BIN/$1" "\$@"
kill -KILL \$PPID
SH
    chmod +x "$T/bin/$1"
    local status=0
    SEEKPIPE_BIN=$T/bin "${run[@]}" -q "${@:4}" "${source-$NANO}" "$T/out" || status=$?
    [ "$status" != 0 ] # 1 if it was in a part
    [ ! -e "$T/out" ]
    [[ " ${run[*]} " != *" --calib "* && ! -e $T/out.calib || -e $T/out.calib/calibration.ts ]]
}

# goes_on LAYERS OPTION...: the command resumes, computes LAYERS layers, and ends like an uninterrupted run.
goes_on() {
    "${run[@]}" -v "${@:2}" "$NANO" "$T/out/" 2>"$T/said"
    [ "$(grep -c '^amax-calib: layers\..*compute' "$T/said")" = "$1" ]
    same_run "$T/whole" "$T/out"
    [ ! -e "$T/out.calib" ]
    [ ! -e "$T/out.partial" ]
}

@test "killed in the calibration" {
    "${run[@]}" -v "$NANO" "$T/whole" 2>"$T/said"
    [ "$(grep -c '^amax-calib: layers\..*compute' "$T/said")" = 4 ]
    [ ! -e "$T/whole.calib" ]
    killed amax-calib fsync 6 --keep-every 1 # calibration.ts and two chunks, of two samples: the first layer
    [ ! -e "$T/out.partial" ]
    goes_on 3
    grep -q "$T/out.calib/calibration.ts: layers up to 0 are done; resuming" "$T/said"
}

@test "killed while the weights are written: the calibration is not repeated" {
    "${run[@]}" -q --save-amax "$T/amax.ts" "$NANO" "$T/whole"
    mv "$T/amax.ts" "$T/whole-amax.ts"
    for jobs in 1 2; do
        killed st-write fsync 3 --jobs $jobs # when the first shard is done
        goes_on 0 --jobs $jobs --save-amax "$T/amax.ts"
        grep -q 'calibration.ts: the calibration is finished; writing its result again' "$T/said"
        cmp "$T/whole-amax.ts" "$T/amax.ts"
        rm -r "$T/out" "$T/bin/st-write"
        ln -s "$PWD/$BIN/st-write" "$T/bin"
    done
}

@test "killed while source and result are judged" {
    judged=(--eval "$text/eval.jsonl")
    "${run[@]}" -q "${judged[@]}" "$NANO" "$T/whole" >"$T/wanted"
    killed st-eval openat 20 "${judged[@]}"
    goes_on 0 "${judged[@]}" >"$T/found"
    diff "$T/wanted" "$T/found"
}

@test "with other texts or options, and with another source, it says what to do" {
    killed amax-calib fsync 6 --keep-every 1
    cp -r "$T/out.calib" "$T/before"
    other() { # WORDS OPTION... SOURCE
        local status=0
        "${run[@]}" "${@:2}" "$T/out" 2>"$T/said" || status=$?
        [ "$status" = 1 ]
        grep -q "out\.calib/calibration\.ts: .*$1.*; give the same, or remove" "$T/said"
        diff -r "$T/before" "$T/out.calib"
        [ ! -e "$T/out" ]
    }
    other 'from other tokens' --calib "$text/calib-code.jsonl" "$NANO"
    other 'from other tokens' --length 30 "$NANO"
    other 'with other options' --all-experts "$NANO"
    cp -r "$NANO" "$T/source"
    chmod -R u+w "$T/source"
    sed -i 's/"rope_theta": 10000/"rope_theta": 10001/' "$T/source/config.json"
    other 'from another config.json' "$T/source"
}

@test "only what it kept is removed" {
    mkdir "$T/out.calib"
    echo mine >"$T/out.calib/mine"
    "${run[@]}" -q "$NANO" "$T/out"
    [ "$(ls -A "$T/out.calib")" = mine ]
}

@test "another user's folder is left alone; a destination that cannot be made is named" {
    run "${run[@]}" "$NANO" "$T/no/out"
    [[ $status -eq 1 && $output == *": $T/no/out.calib: its folder, $T/no: No such file"* ]]
    [ "$(id -u)" = 0 ] || skip 'only root can give files to others'
    mkdir "$T/out.calib"
    chown nobody "$T/out.calib"
    run "${run[@]}" "$NANO" "$T/out"
    [[ $status -eq 1 && $output == *'out.calib: belongs to another user'* ]]
    [ -d "$T/out.calib" ]
}

@test "without room for hidden states: --no-keep" {
    "${run[@]}" -q --save-amax "$T/amax.ts" "$NANO" "$T/whole"
    mv "$T/amax.ts" "$T/whole-amax.ts"
    killed st-write fsync 3 --no-keep
    [ "$(ls "$T/out.calib")" = calibration.ts ]
    goes_on 0 --no-keep --save-amax "$T/amax.ts"
    cmp "$T/whole-amax.ts" "$T/amax.ts"
    for wrong in '--amax x --no-keep' '--amax x --keep-every 2' '--calib x --no-keep --keep-every 2' '--calib x --keep-every 0'; do
        # shellcheck disable=SC2086 # words
        run v4-experts $wrong "$NANO" "$T/other"
        [ "$status" -eq 2 ]
    done
}

@test "a plan, and a calibration that is there, keep nothing" {
    "${run[@]}" -n "$NANO" "$T/out" >"$T/plan" 2>"$T/said"
    grep -q 'out\.calib: keeps 1.. kB of hidden states, as often as fits in a tenth of the time; .* are free$' "$T/said"
    v4-experts -n --drafts cast --keep-every 2 "${run[@]:1}" "$NANO" "$T/out" >"$T/plan" 2>"$T/said"
    grep -q 'out\.calib: keeps 1.. kB of hidden states, 2 times, 3.. kB in all; .* are free$' "$T/said"
    "${run[@]}" -n --no-keep "$NANO" "$T/out" 2>"$T/said" >"$T/plan"
    if grep 'hidden states' "$T/said"; then return 1; fi
    v4-experts -q --amax "$NANO_AMAX" "$NANO" "$T/out"
    [ ! -e "$T/out.calib" ]
}

# put_back PROGRAM...: after killed.
put_back() {
    local program
    for program; do ln -sf "$PWD/$BIN/$program" "$T/bin"; done
}

# counted SUMMARY: its lines about what the stages counted.
counted() {
    grep -E '^(cast|packed|lossless|weight amaxes|input amaxes|fp8-dequant|mxfp4-unpack|nvfp4-(cast|pack|unpack))[ :]' "$1"
}

# counts_as_whole FINISHED: the same command completes $T/out, and its summary counts what that of $T/whole does.
counts_as_whole() {
    "${run[@]}" "${@:2}" "$source" "$T/out" 2>"$T/said"
    grep -qx "$1 of 3 shards were finished by an earlier run" "$T/said"
    diff <(counted "$T/wanted") <(counted "$T/said")
    if grep 'nothing to do' "$T/said"; then return 1; fi
    same_run "$T/whole" "$T/out"
    rm -r "$T/out"
}

# with_zeros: a copy of the source of which two experts' w1, in the first shard and in the last, are zero.
with_zeros() {
    cp -rp "$NANO" "$T/source"
    chmod -R u+w "$T/source"
    source=$T/source
    local matrix place
    for matrix in layers.0.ffn.experts.3.w1 layers.3.ffn.experts.14.w1; do
        while read -r place; do
            dd if=/dev/zero of="$source/${place%@*}" bs=1 conv=notrunc status=none \
                seek="$(expr "$place" : '.*@\([0-9]*\)+')" count="${place##*+}"
        done < <(st-read "$NANO" | tar tvf - | sed -n "s/.* ${matrix//./\\.}\.\(weight\|scale\) -> //p")
    done
}

@test "the summary of a resumed run counts the whole checkpoint" {
    with_zeros
    for options in '' --lossy '--zero positive' --bf16; do
        run=(v4-experts --amax "$NANO_AMAX")
        if [ "$options" = --bf16 ]; then run=(v4-bf16); else
            # shellcheck disable=SC2206 # words
            run+=($options)
        fi
        "${run[@]}" "$source" "$T/whole" 2>"$T/wanted"
        [ "$(counted "$T/wanted" | grep -c '^[a-z0-9-]*: weights or scales that are all zero: 2, first layers\.0\.')" = 1 ]
        for fsync in 3 7; do # after the first shard, and after the last
            killed st-write fsync $fsync
            put_back st-write
            counts_as_whole $((fsync / 2))
        done
        killed st-write fsync 3 # three times: after the first shard, in the second, and after the last
        killed st-write fsync 1
        killed st-write fsync 2
        put_back st-write
        counts_as_whole 3
        if [ "$options" != --bf16 ]; then
            killed st-write fsync 3 --jobs 2
            put_back st-write
            counts_as_whole '[12]' --jobs 2
        fi
        rm -r "$T/whole"
    done
}

# spoil_last STREAM...: another bit in each one's last tensor.
spoil_last() {
    local file name at byte
    for file; do
        name=$(tar tf "$file" | tail -n 2 | head -n 1)
        at=$(($(grep -abo "$name" "$file" | tail -n 1 | cut -d: -f1) + 512))
        byte=$((16#$(xxd -s $at -l 1 -p "$file") ^ 1))
        # shellcheck disable=SC2059 # a byte
        printf "$(printf '\\x%02x' $byte)" | dd of="$file" bs=1 seek=$at conv=notrunc status=none
    done
}

@test "moments that were changed between a run and the one that continues it" {
    run+=(-q --recipe full --scale-search hessian)
    killed st-write openat 20
    spoil_last "$T"/out.calib/moments/*.ts
    run "${run[@]}" "$NANO" "$T/out"
    echo "$output"
    [ "$status" -eq 1 ]
    [[ $output == *'/out.calib/moments/layers.'*'.ts: .end: the stream'"'"'s digest is another: '* ]]
    [ ! -e "$T/out" ]
}

@test "the source's evaluation is kept, and not computed again; with another text it is" {
    own=(-q --amax "$NANO_AMAX" --samples 2 --length 20)
    v4-experts "${own[@]}" --eval "$text/eval.jsonl" "$NANO" "$T/whole" >"$T/wanted"
    rm "$T/bin/st-eval" "$T/bin/st-write"
    cat >"$T/bin/st-eval" <<SH
#!/bin/sh
echo "\$*" >>"$T/runs"
exec "$PWD/$BIN/st-eval" "\$@"
SH
    printf '#!/bin/sh\ncase " $* " in *" -n "* | *" --state "*) exec "%s" "$@" ;; esac\nkill -TERM $$\n' \
        "$PWD/$BIN/st-write" >"$T/bin/st-write"
    chmod +x "$T/bin/st-eval" "$T/bin/st-write"
    export SEEKPIPE_BIN=$T/bin
    run v4-experts "${own[@]}" --eval "$text/eval.jsonl" "$NANO" "$T/out"
    [ "$status" -eq 1 ]
    [[ ${lines[-1]} == *'the same command continues' ]]
    run v4-experts "${own[@]}" --eval "$text/calib-code.jsonl" "$NANO" "$T/out" # another text
    [ "$status" -eq 1 ]
    [ "$(grep -c -- '--save .*out.calib/source-.*ckpt$' "$T/runs")" -eq 2 ]
    ln -sf "$PWD/$BIN/st-write" "$T/bin/st-write"
    : >"$T/runs"
    # All that is kept carries a digest: what was changed meanwhile is not taken, and the result not evaluated first.
    [ "$(find "$T/out.calib" -type f ! -name 'source-*.ts' | wc -l)" -eq 0 ]
    cp -r "$T/out.calib" "$T/good"
    spoil_last "$T"/out.calib/source-*.ts
    run v4-experts "${own[@]}" --eval "$text/eval.jsonl" "$NANO" "$T/out"
    echo "$output"
    [ "$status" -eq 1 ]
    [[ $output == *'st-sum: '*"/out.calib/source-"*'.ts: .end: the stream'"'"'s digest is another: '*'v4-experts: st-sum failed (exit 1); '* ]]
    [ "$(grep -c -- '--save' "$T/runs")" -eq 0 ]
    cp "$T"/good/* "$T/out.calib"
    v4-experts "${own[@]}" --eval "$text/eval.jsonl" "$NANO" "$T/out" >"$T/found"
    diff "$T/wanted" "$T/found"
    [ "$(grep -c -- '--save .*out.calib/source-' "$T/runs")" -eq 0 ]
    same_run "$T/whole" "$T/out"
    [ ! -e "$T/out.calib" ]
}

@test "the same command once more: complete already, before any work; another one: what differs" {
    # Only what plans and answers may run.
    watch() {
        for program in amax-calib st-eval nvfp4-cast nvfp4-pack fp8-dequant; do
            rm "$T/bin/$program"
            printf '#!/bin/sh\ncase " $* " in *" -n "*) exec "%s" "$@" ;; esac\necho "%s $*" >>"%s/ran"\n' \
                "$PWD/$BIN/$program" "$program" "$T" >"$T/bin/$program"
            chmod +x "$T/bin/$program"
        done
        export SEEKPIPE_BIN=$T/bin
    }
    calib=(--calib "$text/calib-prose.jsonl" --samples 1 --length 16)
    v4-experts -q "${calib[@]}" "$NANO" "$T/calib"
    v4-experts -q --amax "$NANO_AMAX" "$NANO" "$T/amax"
    v4-experts -q --input-scale 1 --jobs 2 "$NANO" "$T/scale"
    v4-bf16 -q "$NANO" "$T/bf16"
    find "$T" -type f -printf '%p %s %T@\n' | sort >"$T/before"
    watch
    again() {
        run "$@"
        echo "$output"
        [ "$status" -eq 0 ]
        [ "${lines[-1]}" = "$1: ${!#}: complete already, of the same input and options" ]
        run "$1" -n "${@:2}"
        [ "$status" -eq 0 ]
        [[ $output == *"${!#}: complete already, of the same input and options" ]]
    }
    again v4-experts "${calib[@]}" --samples 1 "$NANO" "$T/calib"
    again v4-experts --amax "$NANO_AMAX" "$NANO" "$T/amax"
    again v4-experts --input-scale 1 "$NANO" "$T/scale"
    # Equal options, given in other words.
    again v4-experts --input-scale 1.00e0 --drafts keep --recipe experts --zero keep "$NANO" "$T/scale"
    again v4-experts --amax "$NANO_AMAX" --fallback layer-max --w2 engine "$NANO" "$T/amax"
    again v4-experts --amax "$NANO_AMAX"/amax_dict_rank0-mp1.pt "$NANO" "$T/amax"
    again v4-bf16 "$NANO" "$T/bf16"
    # What else was asked for is not passed over in silence.
    run v4-experts "${calib[@]}" --eval "$text/eval.jsonl" "$NANO" "$T/calib"
    [ "$status" -eq 0 ]
    [ "${lines[-1]}" = 'v4-experts: --eval was not done again; st-eval does it alone' ]
    for option in --save-amax --summary; do
        run v4-experts "${calib[@]}" $option "$T/unmade" "$NANO" "$T/calib"
        [ "$status" -eq 1 ]
        [[ ${lines[-1]} == *'unmade: was not written, as '*' is complete already; '* ]]
        : >"$T/unmade"
        v4-experts -q "${calib[@]}" $option "$T/unmade" "$NANO" "$T/calib"
        rm "$T/unmade"
    done
    other() { # WORDS COMMAND...
        for plan in '' -n; do
            # shellcheck disable=SC2086 # none, or one
            run "$2" $plan "${@:3}"
            echo "$output"
            [ "$status" -eq 1 ]
            [[ $output == *"${!#}: is complete, but not of the same input and options: "*"$1"* ]]
        done
    }
    other 'another calibration' v4-experts "${calib[@]}" --length 17 "$NANO" "$T/calib"
    other 'another calibration' v4-experts "${calib[@]}" --all-experts "$NANO" "$T/calib"
    other 'another calibration' v4-experts "${calib[@]}" --fallback projection-max "$NANO" "$T/calib"
    other 'another calibration' v4-experts --calib "$text/calib-code.jsonl" --samples 1 --length 16 "$NANO" "$T/calib"
    other 'nvfp4-pack' v4-experts "${calib[@]}" --lossy "$NANO" "$T/calib"
    other '--zero' v4-experts --amax "$NANO_AMAX" --zero positive "$NANO" "$T/amax"
    other 'nvfp4-cast had --input-scale 1, and has 2 here' v4-experts --input-scale 2 "$NANO" "$T/scale"
    other 'nvfp4-cast had --input-scale 1, and has none here' v4-experts --amax "$NANO_AMAX" "$NANO" "$T/scale"
    other 'nvfp4-cast had no --input-scale, and has 1 here' v4-experts --input-scale 1 "$NANO" "$T/amax"
    other 'nvfp4-cast had --drafts keep, and has cast here' v4-experts --drafts cast --amax "$NANO_AMAX" "$NANO" "$T/amax"
    cp -r "$NANO" "$T/source"
    chmod -R u+w "$T/source"
    echo '{}' >"$T/source/generation_config.json"
    other 'its source had another generation_config.json' v4-bf16 "$T/source" "$T/bf16"
    [ ! -e "$T/ran" ]
    rm -r "$T/source"
}

@test "a destination that lacks a file, or has another config.json, is not complete already" {
    run=(v4-experts -q --amax "$NANO_AMAX" "$NANO" "$T/out")
    "${run[@]}"
    cp -rp "$T/out" "$T/whole"
    for file in tokenizer.json config.json hf_quant_config.json model.safetensors.index.json; do
        rm "$T/out/$file"
        for plan in '' -n; do
            run "${run[@]}" $plan
            [ "$status" -eq 1 ]
            [[ $output == *"not of the same input and options: $file is not there"* ]]
        done
        cp -p "$T/whole/$file" "$T/out/$file"
    done
    sed -i 's/"NVFP4"/"NVFP8"/' "$T/out/config.json"
    run "${run[@]}"
    [ "$status" -eq 1 ]
    [[ $output == *'config.json was changed'* ]]
    "${run[@]}" --overwrite
    same_run "$T/whole" "$T/out"
}
