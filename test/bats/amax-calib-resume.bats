# amax-calib --resume: whenever a calibration dies, the same command goes on.
# shellcheck disable=SC2030,SC2031 # each test is a subshell
load common
load craft

prepare() {
    random_ids "$T/tokens.safetensors" 3 40
    calib=(amax-calib --tokens "$T/tokens.safetensors" --mtp)
    kept=$T/kept/calibration.ts
}

# killed SYSTEM_CALL WHEN [OPTION...]: a run that keeps every layer is killed at that call, of all its
# threads together. What it keeps of a layer are calls of fsync, for the file and the folder: of
# calibration.ts, and then of a chunk for each of three samples; so there are eight.
killed() {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    run strace -f -o "$T/trace" -e trace="$1" -e inject="$1:signal=KILL:when=$2" \
        "${calib[@]}" -q --resume "$T/kept" --keep-every 1 -o "$T/out.ts" "${@:3}" "$NANO"
    [ "$status" -eq 137 ]
    [ ! -e "$T/out.ts" ]
}

# resumes [OPTION...]: the same command ends as an uninterrupted run, $T/whole.ts; what it says is in $output.
resumes() {
    run "${calib[@]}" --resume "$T/kept" -o "$T/out.ts" "$@" "$NANO"
    [ "$status" -eq 0 ]
    cmp "$T/whole.ts" "$T/out.ts"
    [ -z "$(ls -A "$T/kept")" ]
    rm "$T/out.ts"
}

# goes_on LAYER [OPTION...]: all samples resume after that layer.
goes_on() {
    resumes "${@:2}"
    [[ $output == *"calibration.ts: layers up to $1 are done; resuming after them"* && $output != *', once samples'* ]]
}

# catches_up LAYER SAMPLES LAYERS [OPTION...]: the same, but these samples go through these layers before.
catches_up() {
    resumes "${@:4}"
    [[ $output == *"calibration.ts: layers up to $1 are done; resuming after them, once samples $2 have gone through layers $3 again"* ]]
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
        killed fsync $((8 * layer + 8))
        goes_on $layer
    done
}

@test "killed while chunks replace older ones: each sample goes on from its own" {
    "${calib[@]}" -q "$NANO" >"$T/whole.ts"
    killed rename 2 # calibration.ts, which has another name by then
    [ -e "$kept.1.partial" ]
    goes_on 1
    killed fsync 10 # it is in place
    catches_up 1 0-2 1-1
    killed linkat 13 # two of an index that replaces another, before its second chunk has a name
    [ "$(echo "$T"/kept/*.*.ts)" = "$T/kept/calibration.0000.2.ts $T/kept/calibration.0001.1.ts $T/kept/calibration.0002.1.ts" ]
    catches_up 2 1-2 2-2
    killed unlinkat 3 # the first that the last one replaces
    [ -e "$T/kept/calibration.0002.0.ts" ]
    goes_on 1
    for n in '4 1-2 0-1' '6 2-2 0-1' '10 0-2 2-3' '14 2-2 2-3'; do
        killed fsync "${n%% *}" --keep-every 2
        layers=${n##* }
        # shellcheck disable=SC2086 # words
        catches_up "${layers#*-}" ${n#* }
    done
}

@test "killed while samples catch up, and again" {
    "${calib[@]}" -q "$NANO" >"$T/whole.ts"
    killed fsync 12 --keep-every 2 # one chunk of layers 2 and 3 is there
    killed fsync 2 --keep-every 2  # one more
    catches_up 3 2-2 2-3 --keep-every 2 -j 1 --batch 1
    killed fsync 3 --keep-every 2 # none of layers 0 and 1
    killed pread64 30 --keep-every 2
    killed fsync 3 --keep-every 2
    catches_up 1 1-2 0-1 --mem 1K
    # What is recorded besides amaxes is of all samples, too.
    more=(--headroom --all-experts --moments "$T/moments")
    "${calib[@]}" -q --headroom --all-experts --moments "$T/whole" "$NANO" >"$T/whole.ts"
    killed fsync 17 --keep-every 2 "${more[@]}" # after four files of moments and one chunk of layers 2 and 3
    resumes --keep-every 2 "${more[@]}"
    [[ $output == *', once samples '* ]]
    for file in "$T"/whole/*; do [ "$(st-sum "$file")" = "$(st-sum "$T/moments/${file##*/}")" ]; done
}

@test "killed at each call that changes the disk" {
    calib=(amax-calib --tokens "$T/tokens.safetensors" --layers 0-2 -j 2) # two are kept
    "${calib[@]}" -q "$NANO" >"$T/whole.ts"
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    for call in fsync linkat rename unlinkat; do
        rm -f "$T/out.ts"
        strace -f -o "$T/calls" -e trace=$call "${calib[@]}" -q --resume "$T/kept" --keep-every 1 -o "$T/out.ts" "$NANO"
        calls=$(grep -c " $call(" "$T/calls")
        [ "$calls" -gt 0 ]
        for ((n = 1; n <= calls; n++)); do
            rm -f "$T/out.ts"
            run strace -f -o "$T/trace" -e trace=$call -e inject=$call:signal=KILL:when=$n \
                "${calib[@]}" -q --resume "$T/kept" --keep-every 1 -o "$T/out.ts" "$NANO"
            [ "$status" -eq 137 ]
            run "${calib[@]}" -q --resume "$T/kept" -o "$T/out.ts" "$NANO"
            [ "$status" -eq 0 ]
            cmp "$T/whole.ts" "$T/out.ts"
            [ -z "$(ls -A "$T/kept")" ]
        done
    done
}

@test "hidden states are never there twice" {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    random_ids "$T/tokens.safetensors" 24 40
    strace -f -o "$T/calls" -e trace=linkat,unlinkat "${calib[@]}" -q --resume "$T/kept" --keep-every 1 -o "$T/out.ts" "$NANO"
    # Sixteen parts would be of one sample and a half.
    [ "$(grep -c 'linkat(.*calibration\.00[0-9]*\.3\.ts' "$T/calls")" -ge 24 ]
    most=$(awk '/ linkat\(.*calibration\.[0-9]+\.[0-9]+\.ts"/ { if (++n > most) most = n }
        / unlinkat\(.*calibration\.[0-9]+\.[0-9]+\.ts"/ { n-- } END { print most }' "$T/calls")
    [ "$most" -eq 25 ]
    # On a disk without room for it.
    mkdir "$T/disk"
    unshare=(unshare -m)
    [ "$(id -u)" = 0 ] || unshare=(unshare -rm)
    "${unshare[@]}" mount -t tmpfs -o size=1m none "$T/disk" 2>/dev/null || skip 'cannot mount a tmpfs here'
    "${unshare[@]}" bash -c "mount -t tmpfs -o size=3200k none '$T/disk' &&
        $(printf '%q ' "${calib[@]}") -q --layers 0-2 --resume '$T/disk/kept' --keep-every 1 -o '$T/out.ts' '$NANO'"
    for plan in '' -n; do
        run "${unshare[@]}" bash -c "mount -t tmpfs -o size=1200k none '$T/disk' &&
            $(printf '%q ' "${calib[@]}") -q $plan --resume '$T/disk/kept' '$NANO' | cat"
        [[ $output == *'disk/kept: 2.0 MB are needed for hidden states, 1.2 MB are free; make room, choose another disk, or give --no-keep' ]]
    done
    "${unshare[@]}" bash -c "mount -t tmpfs -o size=1200k none '$T/disk' &&
        $(printf '%q ' "${calib[@]}") -q --layers 0-0 --resume '$T/disk/kept' --resume-keep --no-keep -o '$T/out.ts' '$NANO'"
}

@test "a large chunk is written without the page cache; also where a filesystem only says that it can" {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    random_ids "$T/tokens.safetensors" 1 4200 # 8.6 MB
    # kept FOLDER OPTION...: the chunk that a run leaves under strace with these options.
    kept() {
        run strace -f -o "$T/calls" -e trace=fcntl,write,linkat "${@:2}" -e inject=linkat:signal=KILL:when=3 \
            amax-calib -q --tokens "$T/tokens.safetensors" --layers 0-1 --resume "$T/kept" --keep-every 1 -o "$T/out.ts" "$NANO"
        [ "$status" -eq 137 ]
        mkdir "$T/$1"
        mv "$T"/kept/calibration.0000.0.ts "$T/$1"
        rm -r "$T/kept"
    }
    kept direct
    grep -q ' fcntl([0-9]*, F_SETFL, .*O_DIRECT|.*= 0$' "$T/calls" || skip 'this filesystem does not say that it can'
    # strace divides a call during which another thread makes one.
    grep -Eq ' write(\(.*, 8388608| resumed>)\) *= 8388608$' "$T/calls"
    # Of all writes of its thread.
    first=$(awk '/ write\(/ { n[$1]++; if (/, 8388608[) ]/) { print n[$1]; exit } }' "$T/calls")
    kept refused -e inject=write:error=EINVAL:when="$first"
    grep -Eq ' write(\(.*, 8388608| resumed>)\).*EINVAL.*\(INJECTED\)' "$T/calls"
    cmp "$T"/{direct,refused}/calibration.0000.0.ts
    st-sum "$T/direct/calibration.0000.0.ts" # its digest holds
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
    killed linkat 20 # out.ts, after four of the first layer and five of others
    goes_on 3
}

@test "kept after every N layers" {
    "${calib[@]}" -q "$NANO" >"$T/whole.ts"
    for every in 2 3; do
        killed fsync 8 --keep-every $every # the last one counts
        goes_on $((every - 1))
    done
    # Never, in so few layers.
    killed linkat 1 --keep-every 5
    [ -z "$(ls -A "$T/kept")" ]
}

@test "by default, it takes at most a tenth of the time" {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    "${calib[@]}" -q "$NANO" >"$T/whole.ts"
    # delayed CALL MICROSECONDS: what is linked where each call takes so much longer.
    delayed() {
        strace -f -o "$T/calls" -e trace=linkat,"$1" -e inject="$1:delay_exit=$2" \
            "${calib[@]}" -q --resume "$T/kept" -o "$T/out.ts" "$NANO"
        cmp "$T/whole.ts" "$T/out.ts"
        rm "$T/out.ts"
        [ -z "$(ls -A "$T/kept")" ]
        sed -n 's/.* linkat(.*"[^"]*kept\/\([^"]*\)".*/\1/p' "$T/calls" >"$T/links"
    }
    # A slow disk: only one chunk is tried, after the first layer.
    delayed fsync 400000
    [ "$(cat "$T/links")" = calibration.0000.0.ts ]
    # Slow weights: the last layers are kept, after this.
    delayed pread64 40000
    [ "$(head -n 1 "$T/links")" = calibration.0000.0.ts ]
    grep -qx 'calibration\.ts.*' "$T/links"
    grep -qx 'calibration\.0002\.[0-3]\.ts' "$T/links"
}

@test "without hidden states, only a finished calibration is kept" {
    "${calib[@]}" -q "$NANO" >"$T/whole.ts"
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    strace -f -o "$T/calls" -e trace=linkat "${calib[@]}" -q --resume "$T/kept" --resume-keep --no-keep -o "$T/out.ts" "$NANO"
    cmp "$T/whole.ts" "$T/out.ts"
    [ "$(grep -c ' linkat(' "$T/calls")" = 2 ]
    gives_again --resume-keep --no-keep
    rm "$kept"
    # What an earlier run kept is used, and not replaced.
    killed fsync 13
    find "$T/kept" -type f -printf '%f %T@\n' | sort >"$T/before"
    run strace -f -o "$T/trace" -e trace=linkat -e inject=linkat:signal=KILL:when=1 \
        "${calib[@]}" -q --resume "$T/kept" --resume-keep --no-keep -o "$T/out.ts" "$NANO"
    [ "$status" -eq 137 ]
    find "$T/kept" -type f -printf '%f %T@\n' | sort >"$T/after"
    diff "$T/before" "$T/after"
    catches_up 1 1-2 1-1
}

@test "a finished calibration is kept, if that is wanted, and given again" {
    "${calib[@]}" -q "$NANO" >"$T/whole.ts"
    "${calib[@]}" -q --resume "$T/kept" --resume-keep -o "$T/out.ts" "$NANO"
    cmp "$T/whole.ts" "$T/out.ts"
    gives_again
    gives_again --resume-keep -j 1
    # Killed between the two, and as the fourth layer is kept.
    for case in 'linkat 22 is finished' 'rename 4 are done'; do
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
    touch "$T/kept/calibration.ts.1.partial" "$T/kept/calibration.0000.3.ts" "$T/kept/calibration.0001.3.ts.1.partial"
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
    killed fsync 16
    goes_on 1 -j 1 --batch 1 --mem 1K
}

@test "the last layer is not kept, but its hidden states are written where they are wanted" {
    "${calib[@]}" -q --layers 0-2 --states-out "$T/states.ts" "$NANO" >"$T/whole.ts"
    mv "$T/states.ts" "$T/whole-states.ts"
    killed linkat 11 --layers 0-2 --states-out "$T/states.ts" # out.ts, after four files, five, and states.ts
    cmp "$T/whole-states.ts" "$T/states.ts"
    [ "$(echo "$T"/kept/*.*.ts)" = "$T/kept/calibration.0000.1.ts $T/kept/calibration.0001.1.ts $T/kept/calibration.0002.1.ts" ]
    goes_on 1 --layers 0-2 --states-out "$T/states.ts"
    cmp "$T/whole-states.ts" "$T/states.ts"
}

@test "with other options it is an error, whichever they are" {
    killed fsync 16
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
    killed fsync 16
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
    killed fsync 16
    cp "$kept" "$T/before.ts"
    # A file may have 100 KiB.
    run bash -c "ulimit -f 100; exec $(printf '%q ' "${calib[@]}") -q --resume '$T/kept' --keep-every 1 '$NANO' | cat"
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
    # What is called much like it; and what would be called so.
    similar=(calibration.2024-05-01.128-samples.ts calibration.1.2.ts calibration.ts.old.partial)
    (cd "$T/kept" && touch "${similar[@]}")
    "${calib[@]}" -q --resume "$T/kept" -o "$T/kept/calibration.2024-11.ts" "$NANO"
    (cd "$T/kept" && ls -- mine "${similar[@]}")
    cmp "$T/out.ts" "$T/kept/calibration.2024-11.ts"
    cp "$T/tokens.safetensors" "$T/kept/calibration.2024.11.ts"
    for options in '-o calibration.ts' '-o calibration.2024.11.ts' '--states-out ./calibration.0000.1.ts' \
        "--tokens $T/kept/calibration.2024.11.ts" '-o calibration.ts.1.partial'; do
        # shellcheck disable=SC2086 # words
        run env -C "$T/kept" "${calib[@]}" $options --resume . "$NANO"
        [ "$status" -eq 2 ]
        [[ $output == *': --resume keeps and removes files of such names there; name another file'* ]]
    done
    cmp "$T/tokens.safetensors" "$T/kept/calibration.2024.11.ts"
}

@test "a file that --resume did not write is refused" {
    mkdir "$T/kept"
    echo nonsense >"$kept"
    refused 'not a tensor stream' "${calib[@]}" --resume "$T/kept" "$NANO"
    "${calib[@]}" -q --layers 0-1 --states-out "$kept" "$NANO" >"$T/out.ts"
    refused 'calibration.ts: was not written by --resume' "${calib[@]}" --resume "$T/kept" "$NANO"
    # What would be waited for, or leads elsewhere.
    mv "$kept" "$T/elsewhere.ts"
    for plant in mkfifo mkdir "ln -s $T/elsewhere.ts" 'ln -s none'; do
        # shellcheck disable=SC2086 # words
        $plant "$kept"
        for plan in '' -n; do
            # shellcheck disable=SC2086 # a word, or none
            refused 'calibration.ts: is not a regular file; remove it' "${calib[@]}" -q $plan --resume "$T/kept" "$NANO"
        done
        rm -d "$kept"
    done
}

@test "a chunk that is missing, was changed, or is of another run is refused" {
    killed fsync 12 # one chunk after layer 1, two after layer 0
    cp -r "$T/kept" "$T/good"
    first=$T/kept/calibration.0000.1.ts second=$T/kept/calibration.0001.0.ts
    again=("${calib[@]}" -q --resume "$T/kept" "$NANO")
    rm "$second"
    refused 'calibration\.0001\.0\.ts: is missing; remove the other calibration\.\*' "${again[@]}"
    mkfifo "$second"
    refused 'calibration\.0001\.0\.ts: is missing' "${again[@]}"
    rm "$second"
    head -c 5000 "$T/good/${second##*/}" >"$second"
    refused 'calibration\.0001\.0\.ts: .*(end|cut|short|trunc)' "${again[@]}"
    cp "$T/good/calibration.0002.0.ts" "$second"
    refused 'calibration\.0001\.0\.ts: is not what this run keeps; remove the calibration\.\* there' "${again[@]}"
    cp "$T/good/${second##*/}" "$second"
    offset=$(grep -abo hidden_states "$first" | tail -n 1 | cut -d: -f1)
    printf '\x12' | dd of="$first" bs=1 seek=$((offset + 1000)) conv=notrunc status=none
    refused 'calibration\.0000\.1\.ts: \.end: the stream.s digest is another' "${again[@]}"
    # With a digest that fits: NaN, and another type. st-grep writes one, where there was none.
    unpack "$T/good/${first##*/}"
    printf '\xff\x7f' | dd of="$T/tree/hidden_states" bs=1 seek=200 conv=notrunc status=none
    unseal
    pack "$first"
    refused 'calibration\.0000\.1\.ts: (holds NaN|is not what)' "${again[@]}"
    st-grep -q . "$first" >"$T/sealed.ts"
    mv "$T/sealed.ts" "$first"
    refused 'calibration\.0000\.1\.ts: holds NaN or infinity, which no run keeps' "${again[@]}"
    sed -i 's/BF16/F16/' "$T/tree/.toc"
    pack "$first"
    refused 'calibration\.0000\.1\.ts: is not what this run keeps' "${again[@]}"
    # Another run's, at the same place.
    rm -r "$T/kept"
    random_ids "$T/tokens.safetensors" 3 40 8
    killed fsync 12
    cp "$T/kept/calibration.0001.0.ts" "$T/good"
    cp "$T/good"/* "$T/kept"
    random_ids "$T/tokens.safetensors" 3 40
    refused 'calibration\.0001\.0\.ts: is not what this run keeps' "${again[@]}"
}

@test "what another user put into the folder, or in its place, is not taken" {
    [ "$(id -u)" = 0 ] && setpriv --reuid 65534 --clear-groups true || skip 'only root can act for others'
    "${calib[@]}" -q "$NANO" >"$T/whole.ts"
    killed fsync 12 # one chunk after layer 1, two after layer 0
    cp -r "$T/kept" "$T/good"
    for file in calibration.ts calibration.0000.1.ts calibration.0002.0.ts; do
        chown 65534 "$T/kept/$file"
        refused "kept/$file: belongs to another user" "${calib[@]}" -q --resume "$T/kept" "$NANO"
        rm -r "$T/kept"
        cp -r "$T/good" "$T/kept"
    done
    chown 65534 "$T/kept"
    refused 'kept: belongs to another user' "${calib[@]}" -q -n --resume "$T/kept" "$NANO"
    # Once the folder is locked, another takes its name: what was kept is read, but nothing written there.
    mkdir -m 777 "$T/open"
    mv "$T/good" "$T/open/kept"
    mv "$T/kept" "$T/open/planted"
    random_ids "$T/tokens.safetensors" 3 40 8
    killed fsync 12
    cp "$T/kept"/* "$T/open/planted"
    random_ids "$T/tokens.safetensors" 3 40
    swap() { mv "$T/open/kept" "$T/open/away" && mv "$T/open/planted" "$T/open/kept"; }
    stopped_at flock 1 swap "${calib[@]}" -q --resume "$T/open/kept" -o "$T/out.ts" "$NANO"
    [ "$status" -eq 1 ]
    grep -q 'open/kept: was moved or removed meanwhile; give the folder that it is now' "$T/said"
    rm -r "$T/kept"
    mv "$T/open/away" "$T/kept"
    catches_up 1 1-2 1-1
}

@test "what other runs left is removed before the first chunk is written" {
    mkdir "$T/kept"
    "${calib[@]}" -q "$NANO" >"$T/whole.ts"
    echo nonsense | tee "$T/kept/calibration.0001.0.ts" >"$T/kept/calibration.0007.3.ts"
    killed fsync 2 # before any chunk
    [ "$(ls -A "$T/kept")" = calibration.ts ]
    catches_up 0 0-2 0-0
}

@test "a plan keeps nothing; --states-in does not go with it" {
    "${calib[@]}" -n --resume "$T/kept" "$NANO" >"$T/plan.ts" 2>"$T/err"
    [ ! -e "$T/kept" ]
    grep -q 'kept: keeps 246 kB of hidden states, as often as fits in a tenth of the time; .* are free$' "$T/err"
    [ "$(wc -l <"$T/err")" = 1 ]
    "${calib[@]}" -n --resume "$T/kept" --keep-every 2 "$NANO" 2>&1 >"$T/plan.ts" |
        grep 'kept: keeps 246 kB of hidden states, 2 times, 492 kB in all; .* are free$'
    "${calib[@]}" -n --resume "$T/kept" --keep-every 4 "$NANO" 2>&1 >"$T/plan.ts" |
        grep 'kept: keeps 246 kB of hidden states, once; .* are free$'
    "${calib[@]}" -n --resume "$T/kept" --keep-every 5 "$NANO" 2>&1 >"$T/plan.ts" |
        grep 'kept: keeps 246 kB of hidden states, never, as there are fewer layers; .* are free$'
    for options in -q '--resume-keep --no-keep'; do
        # shellcheck disable=SC2086 # words
        "${calib[@]}" -n --resume "$T/kept" $options "$NANO" >"$T/plan.ts" 2>"$T/err"
        [ ! -s "$T/err" ]
    done
    for options in "--resume $T/kept --states-in x" --resume-keep '--keep-every 2' --no-keep "--resume $T/kept --no-keep" \
        "--resume $T/kept --resume-keep --no-keep --keep-every 2"; do
        # shellcheck disable=SC2086
        run "${calib[@]}" $options "$NANO"
        [ "$status" -eq 2 ]
    done
}
