# amax-calib --resume: whenever a calibration dies, the same command goes on.
load common
load craft

prepare() {
    random_ids "$T/tokens.safetensors" 3 40
    calib=(amax-calib --tokens "$T/tokens.safetensors" --mtp)
    kept=$T/kept/calibration.ts
}

# killed SYSTEM_CALL WHEN [OPTION...]: a run that keeps every layer is killed at that call, of all its
# threads together.
killed() {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    run strace -f -o "$T/trace" -e trace="$1" -e inject="$1:signal=KILL:when=$2" \
        "${calib[@]}" -q --resume "$T/kept" --resume-every 1 -o "$T/out.ts" "${@:3}" "$NANO"
    [ "$status" -eq 137 ]
    [ ! -e "$T/out.ts" ]
}

# goes_on LAYER [OPTION...]: the command resumes after that layer, and its result equals $T/whole.ts.
goes_on() {
    run "${calib[@]}" --resume "$T/kept" -o "$T/out.ts" "${@:2}" "$NANO"
    [ "$status" -eq 0 ]
    [[ $output == *"calibration.ts: layers up to $1 are done; resuming after them"* ]]
    cmp "$T/whole.ts" "$T/out.ts"
    [ -z "$(ls -A "$T/kept")" ]
    rm "$T/out.ts"
}

# gives_again [OPTION...]: what is kept is the whole calibration, and the command gives it without states.
gives_again() {
    [ "$(ls -A "$T/kept")" = calibration.ts ]
    run st-ls --tsv "$kept"
    [ "$status" -eq 0 ]
    [[ $output != *hidden_states* ]]
    cp "$kept" "$T/before.ts"
    run "${calib[@]}" --resume "$T/kept" -v -o "$T/out.ts" "$@" "$NANO"
    [ "$status" -eq 0 ]
    [[ $output == *'calibration.ts: the calibration is finished; writing its result again'* ]]
    [[ $output != *'layers.'*'compute'* && $output != *'mtp.'*'compute'* ]]
    cmp "$T/whole.ts" "$T/out.ts"
    cmp "$T/before.ts" "$kept"
    rm "$T/out.ts"
}

@test "undisturbed, it makes no difference, and leaves an empty folder" {
    "${calib[@]}" -q "$NANO" >"$T/whole.ts"
    "${calib[@]}" -q --resume "$T/kept" "$NANO" >"$T/out.ts" 2>"$T/err"
    cmp "$T/whole.ts" "$T/out.ts"
    [ -z "$(ls -A "$T/kept")" ]
    [ ! -s "$T/err" ]
}

@test "killed after each layer" {
    "${calib[@]}" -q "$NANO" >"$T/whole.ts"
    for layer in 0 1 2 3; do
        killed fsync $((2 * layer + 2)) # the file's, then the folder's
        goes_on $layer
    done
}

@test "killed while it writes: the layer before counts" {
    "${calib[@]}" -q "$NANO" >"$T/whole.ts"
    for layer in 0 1 2; do
        killed rename $((layer + 1)) # the file has another name by then
        [ -e "$kept.1.partial" ]
        goes_on $layer
    done
    strace -f -o "$T/calls" -e trace=write,linkat \
        "${calib[@]}" -q --resume "$T/kept" --resume-every 1 -o "$T/out.ts" "$NANO"
    rm "$T/out.ts"
    killed write "$(awk '/ linkat\(/ { print n + 1; exit } / write\(/ { n++ }' "$T/calls")" # the second layer's first
    [ "$(ls -A "$T/kept")" = calibration.ts ] # what is written has no name
    goes_on 0
}

@test "killed while it writes the first: the run starts again" {
    "${calib[@]}" -q "$NANO" >"$T/whole.ts"
    killed linkat 1
    [ -z "$(ls -A "$T/kept")" ]
    "${calib[@]}" -q --resume "$T/kept" "$NANO" >"$T/out.ts"
    cmp "$T/whole.ts" "$T/out.ts"
    [ -z "$(ls -A "$T/kept")" ]
}

@test "killed in the middle of layers, again and again" {
    "${calib[@]}" -q "$NANO" >"$T/whole.ts"
    # A read a tensor, 667 in all, by eight threads, of which the one that gets there first is killed,
    # and all with it; a run that goes on reads less.
    for when in 50 30 15 8 4 2; do
        killed pread64 $when
    done
    run "${calib[@]}" -q --resume "$T/kept" -o "$T/out.ts" "$NANO"
    [ "$status" -eq 0 ]
    cmp "$T/whole.ts" "$T/out.ts"
}

@test "killed when all is done but the output" {
    "${calib[@]}" -q "$NANO" >"$T/whole.ts"
    killed linkat 8 # out.ts, behind one of the first file and two of three more
    goes_on 3
}

@test "kept after every N layers; by default after the first" {
    "${calib[@]}" -q "$NANO" >"$T/whole.ts"
    for every in 2 3; do
        killed fsync 2 --resume-every $every # the last one counts
        goes_on $((every - 1))
    done
    run strace -f -o "$T/trace" -e trace=fsync -e inject=fsync:signal=KILL:when=2 \
        "${calib[@]}" -q --resume "$T/kept" -o "$T/out.ts" "$NANO"
    [ "$status" -eq 137 ]
    goes_on 0
    # Never, in so few layers.
    killed linkat 1 --resume-every 5
    [ -z "$(ls -A "$T/kept")" ]
}

@test "a finished calibration is kept, if that is wanted, and given again" {
    "${calib[@]}" -q "$NANO" >"$T/whole.ts"
    "${calib[@]}" -q --resume "$T/kept" --resume-keep -o "$T/out.ts" "$NANO"
    cmp "$T/whole.ts" "$T/out.ts"
    gives_again
    gives_again --resume-keep -j 1
    # Killed between the two, and before the first.
    for case in 'linkat 10 is finished' 'rename 4 are done'; do
        rm "$kept"
        # shellcheck disable=SC2086 # words
        killed ${case%% [a-z]*} --resume-keep
        run "${calib[@]}" --resume "$T/kept" --resume-keep -o "$T/out.ts" "$NANO"
        [ "$status" -eq 0 ]
        [[ $output == *'calibration.ts: '*" ${case#* * }"* ]]
        cmp "$T/whole.ts" "$T/out.ts"
        gives_again
    done
}

@test "a finished calibration is of its tokens, options and weights" {
    "${calib[@]}" -q --resume "$T/kept" --resume-keep -o "$T/out.ts" "$NANO"
    refused 'other options.* remove it' "${calib[@]}" --all-experts --resume "$T/kept" "$NANO"
    refused 'other options' amax-calib --tokens "$T/tokens.safetensors" --resume "$T/kept" "$NANO"
    refused 'from other tokens' "${calib[@]}" --samples 2 --resume "$T/kept" "$NANO"
    other_scale
    refused 'with other weights.* remove this file' "${calib[@]}" -q --resume "$T/kept" "$T/ckpt"
}

@test "--resume-discard removes what is kept, and the folder if nothing else is in it" {
    amax-calib --resume "$T/kept" --resume-discard
    [ ! -e "$T/kept" ]
    "${calib[@]}" -q --resume "$T/kept" --resume-keep -o "$T/out.ts" "$NANO"
    touch "$T/kept/calibration.ts.1.partial"
    amax-calib --resume "$T/kept" --resume-discard
    [ ! -e "$T/kept" ]
    mkdir "$T/kept"
    echo hello >"$T/kept/mine"
    amax-calib --resume "$T/kept" --resume-discard
    [ "$(ls -A "$T/kept")" = mine ]
    for wrong in --resume-discard "--resume $T/kept --resume-discard $NANO"; do
        # shellcheck disable=SC2086 # words
        run amax-calib $wrong
        [ "$status" -eq 2 ]
        [[ $output == *'--resume-discard goes with --resume'* ]]
    done
}

@test "threads, batch and memory may change on the way" {
    "${calib[@]}" -q "$NANO" >"$T/whole.ts"
    killed fsync 4
    goes_on 1 -j 1 --batch 1 --mem 1K
}

@test "hidden states after the last layer are written once" {
    "${calib[@]}" -q --layers 0-2 --states-out "$T/states.ts" "$NANO" >"$T/whole.ts"
    mv "$T/states.ts" "$T/whole-states.ts"
    killed linkat 7 --layers 0-2 --states-out "$T/states.ts"
    goes_on 2 --layers 0-2 --states-out "$T/states.ts"
    cmp "$T/whole-states.ts" "$T/states.ts"
}

@test "with other options it is an error, whichever they are" {
    killed fsync 4
    cp "$kept" "$T/before.ts"
    for option in --all-experts '--layers 0-3 --states-out states.ts' '--layers 0-2'; do
        # shellcheck disable=SC2086
        refused 'calibration.ts: was left by a run with other options.* remove it' \
            "${calib[@]}" $option --resume "$T/kept" "$NANO"
    done
    refused 'calibration.ts: these states were made .* for another recipe' "${calib[@]}" --recipe mlp --resume "$T/kept" "$NANO"
    refused 'other options' amax-calib --tokens "$T/tokens.safetensors" --resume "$T/kept" "$NANO"
    cmp "$T/before.ts" "$kept"
}

# other_scale: a copy of the model in $T/ckpt, but for the first scale of a weight of layer 1.
other_scale() {
    local place file offset byte
    cp -r "$NANO" "$T/ckpt"
    chmod -R u+w "$T/ckpt"
    place=$(st-read "$NANO" | tar tvf - | sed -n 's/.* layers\.1\.attn\.wkv\.scale -> //p')
    file=$T/ckpt/${place%@*} offset=${place#*@} offset=${offset%+*}
    byte=$(od -An -tu1 -j "$offset" -N 1 "$file")
    printf '%b' "\\x$(printf %02x $((byte ^ 1)))" | dd of="$file" bs=1 seek="$offset" conv=notrunc status=none
}

@test "with other tokens, and with another model, it is an error" {
    killed fsync 4
    cp "$kept" "$T/before.ts"
    random_ids "$T/other.safetensors" 3 40 8
    refused 'made from other tokens' \
        amax-calib --tokens "$T/other.safetensors" --mtp --resume "$T/kept" "$NANO"
    refused 'made from other tokens' "${calib[@]}" --samples 2 --resume "$T/kept" "$NANO"
    other_scale
    refused 'with other weights' "${calib[@]}" -q --resume "$T/kept" "$T/ckpt"
    sed -i 's/"rope_theta": 10000/"rope_theta": 10001/' "$T/ckpt/config.json"
    grep -q 10001 "$T/ckpt/config.json"
    refused 'from another config.json' "${calib[@]}" --resume "$T/kept" "$T/ckpt"
    cmp "$T/before.ts" "$kept"
}

@test "a full disk is an error, and the same command goes on with more room" {
    "${calib[@]}" -q "$NANO" >"$T/whole.ts"
    killed fsync 4
    cp "$kept" "$T/before.ts"
    # A file may have 100 KiB.
    run bash -c "ulimit -f 100; exec $(printf '%q ' "${calib[@]}") -q --resume '$T/kept' --resume-every 1 '$NANO' | cat"
    [[ $output == *'calibration.ts: '*'File too large'* ]]
    cmp "$T/before.ts" "$kept"
    goes_on 1
}

@test "a folder that cannot be made or written in" {
    refused 'kept/no: its folder, .*/kept: No such file or directory' "${calib[@]}" --resume "$T/kept/no" "$NANO"
    touch "$T/file"
    refused 'file: exists and is not a folder' "${calib[@]}" --resume "$T/file" "$NANO"
}

@test "a folder is one run's at a time" {
    mkdir "$T/kept"
    exec 8<"$T/kept"
    flock 8
    refused 'kept: another program is at work in it' "${calib[@]}" --resume "$T/kept" "$NANO"
    exec 8<&-
}

@test "only what it wrote is removed" {
    mkdir "$T/kept"
    echo mine >"$T/kept/mine"
    "${calib[@]}" -q --resume "$T/kept" "$NANO" >"$T/out.ts"
    [ "$(ls -A "$T/kept")" = mine ]
}

@test "a file that --resume did not write is refused" {
    mkdir "$T/kept"
    echo nonsense >"$kept"
    refused 'not a tensor stream' "${calib[@]}" --resume "$T/kept" "$NANO"
    "${calib[@]}" -q --layers 0-1 --states-out "$kept" "$NANO" >"$T/out.ts"
    refused 'calibration.ts: was not written by --resume' "${calib[@]}" --resume "$T/kept" "$NANO"
}

@test "a plan keeps nothing; --states-in does not go with it" {
    "${calib[@]}" -n --resume "$T/kept" "$NANO" >"$T/plan.ts"
    [ ! -e "$T/kept" ]
    for options in "--resume $T/kept --states-in x" --resume-keep '--resume-every 2'; do
        # shellcheck disable=SC2086
        run "${calib[@]}" $options "$NANO"
        [ "$status" -eq 2 ]
    done
}
