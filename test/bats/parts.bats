# A checkpoint written in parts: st-read --part, st-write --part and --join, v4-experts --jobs, and the job
# script for Slurm. Whatever happens on the way, the result is that of one run, byte for byte.
load common
load craft

PATH=$PWD/pipelines:$PATH

prepare() {
    amaxes "$T/amax.ts"
}

# whole SOURCE STAGE...: what one run writes, in $T/whole.
whole() {
    st-read "$1" | "${@:2}" | st-write -q "$T/whole"
}

# part SOURCE I/N STAGE...: one part of $T/out.
part() {
    st-read --part "$2" "$1" | "${@:3}" | st-write -q --part "$T/out"
}

# cast_whole, cast_part I/N: the bundled checkpoint through nvfp4-cast.
cast_whole() {
    whole "$NANO" nvfp4-cast -q --amax "$T/amax.ts"
}

cast_part() {
    part "$NANO" "$1" nvfp4-cast -q --amax "$T/amax.ts"
}

# half STAGE...: part 2 of 2 of $T/out, killed when the first of its two shards is finished.
half() {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    st-read --part 2/2 "$NANO" | "$@" >"$T/2.ts"
    # What its first thread syncs: the journal, its folder, the first note.
    run strace -f -o /dev/null -e trace=fsync -e inject=fsync:signal=KILL:when=3 \
        st-write -q --part "$T/out" "$T/2.ts"
    [ "$status" -eq 137 ]
    local partial=$T/out.partial
    [ ! -d "$T/out/.partial" ] || partial=$T/out/.partial
    [ "$(grep -ac ^shard "$partial"/part-2-of-2-*.partial/.journal)" = 1 ]
}

# joined: $T/out is joined, whole, and what $T/whole is; nothing else is left.
joined() {
    st-write -q --join "$T/out"
    diff -r "$T/whole" "$T/out"
    [ "$(stat -c '%a %n' "$T"/out/* | sort)" = "$(stat -c '%a %n' "$T"/whole/* | sed "s,/whole/,/out/," | sort)" ]
    [ ! -e "$T/out.partial" ]
}

@test "1, 2 and 3 parts, and more than shards: the bytes of one run" {
    cast_whole
    for parts in 1 2 3 5; do
        for ((i = parts; i >= 1; i--)); do cast_part $i/$parts; done
        joined
        rm -r "$T/out"
    done
}

@test "parts of other pipelines: as it is, requantized, to BF16" {
    for stage in cat "nvfp4-pack -q --amax $T/amax.ts" fp8-dequant; do
        # shellcheck disable=SC2086 # a command
        whole "$NANO" $stage
        # shellcheck disable=SC2086
        for i in 1 2 3; do part "$NANO" $i/3 $stage; done
        joined
        rm -r "$T/whole" "$T/out"
    done
}

@test "scales in another part than their weight, w1 in another than w3" {
    # The last shard gets a scale of the first, and w3 of an expert.
    st-read --inline "$NANO" >"$T/a.ts"
    mkdir "$T/tree"
    tar xf "$T/a.ts" -C "$T/tree"
    awk -F'\t' -v OFS='\t' '$1 ~ /^layers\.0\.(attn\.wkv\.scale|ffn\.experts\.3\.w3\.)/ {
        $4 = "model-00003-of-00003.safetensors" } 1' "$T/tree/.toc" >"$T/toc"
    mv "$T/toc" "$T/tree/.toc"
    tar tf "$T/a.ts" >"$T/order"
    unseal
    tar -C "$T/tree" --format=ustar --no-recursion -cf "$T/moved.ts" -T "$T/order"
    st-write -q "$T/source" "$T/moved.ts"
    for stage in "nvfp4-cast -q --amax $T/amax.ts" "nvfp4-pack -q --amax $T/amax.ts" fp8-dequant; do
        # shellcheck disable=SC2086 # a command
        whole "$T/source" $stage
        # shellcheck disable=SC2086
        for i in 1 2 3; do part "$T/source" $i/3 $stage; done
        joined
        rm -r "$T/whole" "$T/out"
    done
}

@test "a part that is missing, or not complete: no checkpoint, and a word which" {
    cast_part 1/3
    cast_part 3/3
    refused 'out.partial: part 2 of 3 is missing; run it' st-write --join "$T/out"
    st-read --part 2/3 "$NANO" | nvfp4-cast --amax "$T/amax.ts" | head -c -20000 >"$T/cut.ts"
    run st-write -q --part "$T/out" "$T/cut.ts"
    [ "$status" -eq 1 ]
    refused 'part 2 of 3 is not complete' st-write --join "$T/out"
    [ ! -e "$T/out" ]
    # Nobody takes it for a checkpoint.
    run st-read "$T/out.partial"
    [ "$status" -eq 1 ]
    cast_whole
    cast_part 2/3
    joined
}

@test "no parts at all" {
    refused 'out.partial: st-write --part writes parts there: No such file' st-write --join "$T/out"
    mkdir "$T/out.partial"
    refused 'out.partial: holds no parts' st-write --join "$T/out"
}

@test "a part that runs twice: the second time it is there" {
    cast_part 1/2
    find "$T/out.partial" -printf '%p %i %T@\n' | sort >"$T/before"
    run cast_part 1/2
    [ "$status" -eq 0 ]
    find "$T/out.partial" -printf '%p %i %T@\n' | sort | diff "$T/before" -
    cast_whole
    cast_part 2/2
    joined
}

@test "a part that runs twice at a time: one of them says so" {
    st-read --part 1/2 -o "$T/1.ts" "$NANO"
    mkfifo "$T/fifo"
    st-write -q --part "$T/out" <"$T/fifo" 3>&- &
    exec 9>"$T/fifo"
    head -c -20000 "$T/1.ts" >&9
    for ((i = 0; i < 100; i++)); do
        [ ! -e "$(echo "$T"/out.partial/part-1-of-2-*.partial/.journal)" ] || break
        sleep 0.1
    done
    refused 'another st-write is at work in it' st-write --part "$T/out" "$T/1.ts"
    tail -c 20000 "$T/1.ts" >&9
    exec 9>&-
    wait
    whole "$NANO" cat
    part "$NANO" 2/2 cat
    joined
}

@test "parts of other options, of another input, in another number: refused at once" {
    cast_part 1/2
    find "$T/out.partial" | sort >"$T/before"
    run part "$NANO" 2/2 nvfp4-cast -q --zero positive --amax "$T/amax.ts"
    [ "$status" -eq 1 ]
    [[ $output == *'a part of a run with other input or options'* ]]
    run cast_part 1/3
    [ "$status" -eq 1 ]
    cp -r "$NANO" "$T/copy"
    run part "$T/copy" 2/2 nvfp4-cast -q --amax "$T/amax.ts"
    [ "$status" -eq 1 ]
    refused 'out.partial: ' st-write "$T/out" "$NANO"
    find "$T/out.partial" | sort | diff "$T/before" -
}

@test "a run in one piece, and parts, do not mix" {
    nvfp4-cast -q --amax "$T/amax.ts" "$NANO" | head -c -20000 >"$T/cut.ts"
    run st-write -q "$T/out" "$T/cut.ts"
    [ "$status" -eq 1 ]
    find "$T/out.partial" | sort >"$T/before"
    run cast_part 1/2
    [ "$status" -eq 1 ]
    [[ $output == *'belongs to a run in one piece'* ]]
    refused 'holds no parts' st-write --join "$T/out"
    find "$T/out.partial" | sort | diff "$T/before" -
}

@test "parts that were begun at the same moment, and do not belong together" {
    cast_part 1/2
    mv "$T/out.partial" "$T/kept"
    part "$NANO" 2/2 nvfp4-cast -q --zero positive --amax "$T/amax.ts"
    mv "$T"/kept/* "$T/out.partial"
    refused 'do not belong together' st-write --join "$T/out"
    [ ! -e "$T/out" ]
}

@test "a part that was killed goes on" {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    cast_whole
    cast_part 1/2
    st-read --part 2/2 "$NANO" | nvfp4-cast --amax "$T/amax.ts" >"$T/2.ts"
    for when in 1 2 3 4; do
        run strace -f -o "$T/trace" -e trace=fsync -e inject=fsync:signal=KILL:when=$when \
            st-write -q --part "$T/out" "$T/2.ts"
        [ "$status" -eq 137 ]
    done
    cast_part 2/2
    joined
}

@test "a part that was killed goes on with the shards that it lacks, and is whole" {
    cast_whole
    cast_part 1/2
    half nvfp4-cast -q --amax "$T/amax.ts"
    folder=$(echo "$T"/out.partial/part-2-of-2-*.partial)
    [ "$(st-write --todo "${folder%.partial}")" = model-00003-of-00003.safetensors ]
    # Shards that it does not lack do not make it whole.
    for shards in '' model-00002-of-00003.safetensors; do
        run bash -c "st-read --part 2/2 --shards '$shards' '$NANO' | nvfp4-cast -q --amax '$T/amax.ts' | st-write -q --part '$T/out'"
        [ "$status" -eq 1 ]
        [[ $output == *'1 shards are still missing'* ]]
    done
    refused 'part 2 of 2 is not complete' st-write --join "$T/out"
    st-read --part 2/2 --shards model-00003-of-00003.safetensors "$NANO" |
        nvfp4-cast -q --amax "$T/amax.ts" | st-write -q --part "$T/out"
    run st-write --join "$T/out"
    [ "$status" -eq 0 ]
    [[ $output == *'1 of 3 shards were finished by an earlier run'* ]]
    diff -r "$T/whole" "$T/out"
}

@test "inside a folder that cannot be replaced" {
    cast_whole
    mkdir -p "$T/out/.partial/part-9" # as in a mount point that is in use
    cast_part 1/2
    rmdir "$T/out/.partial/part-9"
    [ "$(st-write --state "$T/out")" = partial ]
    half nvfp4-cast -q --amax "$T/amax.ts"
    [ "$(st-write --todo-part 2/2 "$T/out")" = model-00003-of-00003.safetensors ]
    refused 'no .safetensors file' st-sum "$T/out"
    cast_part 2/2
    [ ! -e "$T/out.partial" ]
    joined
    [ ! -e "$T/out/.partial" ]
}

@test "once more when all is joined: complete already" {
    cast_whole
    for i in 1 2; do cast_part $i/2; done
    # A plan of parts does not mind them.
    st-read -n "$NANO" | nvfp4-cast -n | st-write -n --part "$T/out"
    joined
    for i in 1/2 2/2 1/3; do
        run cast_part $i
        [ "$status" -eq 0 ]
        run bash -c "st-read --part $i '$NANO' | nvfp4-cast -q --amax '$T/amax.ts' | st-write --verify --part '$T/out'"
        [ "$status" -eq 0 ]
        [[ $output == *'out: complete already, of the same input and options; verified' ]]
    done
    run st-write --join "$T/out"
    [ "$status" -eq 0 ]
    [[ $output == *'out: complete already' ]]
    [ ! -e "$T/out.partial" ]
    diff -r "$T/whole" "$T/out"
    run bash -c "st-read --part 1/2 '$NANO' | nvfp4-cast -q --zero positive --amax '$T/amax.ts' | st-write --part '$T/out'"
    [ "$status" -eq 1 ]
    [[ $output == *'nvfp4-cast had no options, and has --zero=positive here'* ]]
}

@test "killed while it is joined, anywhere: the same commands end it, with --overwrite too; others are refused" {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    cast_whole
    for i in 1 2; do cast_part $i/2; done
    mv "$T/out.partial" "$T/parts"
    for overwrite in '' --overwrite; do
        for call in fsync:when=2 fsync:when=6 rename:when=1 rename:when=2 unlinkat:when=1 rmdir:when=2 \
            renameat2:when=1 unlinkat:when=5 rename:when=4 rmdir:when=3; do
            rm -rf "$T/out" "$T/out.partial"
            cp -rp "$T/parts" "$T/out.partial"
            [ -z "$overwrite" ] || { st-read "$NANO" | st-write -q "$T/old" && mv "$T/old" "$T/out"; }
            # Without --overwrite, the last ones are not reached.
            run strace -f -o /dev/null -e "inject=$call:signal=KILL" st-write -q $overwrite --join "$T/out"
            [ "$status" -eq 137 ] || { [ "$status" -eq 0 ] && continue; }
            if [ -z "$overwrite" ]; then
                run bash -c "st-read --part 1/2 '$NANO' | nvfp4-cast -q --zero positive --amax '$T/amax.ts' | st-write --part '$T/out'"
                echo "$call: $output"
                [ "$status" -eq 1 ]
            fi
            for i in 1 2; do
                st-read --part $i/2 "$NANO" | nvfp4-cast -q --amax "$T/amax.ts" | st-write -q $overwrite --part "$T/out"
            done
            st-write -q $overwrite --join "$T/out"
            diff -r "$T/whole" "$T/out"
            [ ! -e "$T/out.partial" ]
        done
    done
}

@test "the old checkpoint that another run left when it was killed is removed, not taken for a run" {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    cast_whole
    mkdir "$T/out"
    echo old >"$T/out/m.safetensors"
    st-read "$NANO" >"$T/copy.ts"
    run strace -f -o /dev/null -e trace=unlinkat -e inject=unlinkat:signal=KILL:when=3 st-write -q --overwrite "$T/out" "$T/copy.ts"
    [ "$status" -eq 137 ]
    grep -q ^replaced "$T/out.partial/.journal"
    for i in 1 2; do
        st-read -n --part $i/2 "$NANO" | nvfp4-cast -n --amax "$T/amax.ts" | st-write -n --overwrite --part "$T/out"
        st-read --part $i/2 "$NANO" | nvfp4-cast -q --amax "$T/amax.ts" | st-write -q --overwrite --part "$T/out"
    done
    st-write -q --overwrite --join "$T/out"
    diff -r "$T/whole" "$T/out"
    [ ! -e "$T/out.partial" ]
}

@test "a plan refuses parts of another run, or of another number" {
    cast_part 1/2
    plan() { # PART-OPTIONS CAST-OPTIONS WRITE-OPTIONS: of all, or of a part
        planned="st-read -n $1 '$NANO' | nvfp4-cast -n --amax '$T/amax.ts' $2 | st-write -n $3 '$T/out'"
    }
    plan '' '' --part
    pipeline "$planned"
    plan '' '' ''
    refused 'out\.partial: holds parts of a run in 2 \(--part\), .*, as -j 2 does' bash -c "$planned"
    plan '' '--zero positive' --part
    refused 'out\.partial: holds part-1-of-2-.*, a part of a run with other input or options' bash -c "$planned"
    plan '--part 2/3' '' --part
    refused 'out\.partial: holds part-1-of-2-.*; run it in 2 parts, too \(-j 2\), to continue' bash -c "$planned"
    plan '--part 2/2' '' --part
    pipeline "$planned"
    for jobs in 3 1; do
        run v4-experts -n --jobs $jobs --amax "$NANO_AMAX" "$NANO" "$T/out"
        [ "$status" -eq 1 ]
        [[ $output == *'out.partial: holds part'* ]]
    done
    v4-experts -n --jobs 2 --amax "$NANO_AMAX" "$NANO" "$T/out"
    st-read "$NANO" | nvfp4-cast -q --amax "$T/amax.ts" >"$T/whole.ts"
    refused 'out\.partial: holds parts of a run in 2 \(--part\)' st-write "$T/out" "$T/whole.ts"
}

@test "killed when only its journal was left: another run with --overwrite is not taken for it" {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    cast_whole
    for call in unlinkat:when=7 unlinkat:when=8; do
        st-read "$NANO" | st-write -q --overwrite "$T/out"
        for i in 1 2; do
            st-read --part $i/2 "$NANO" | nvfp4-cast -q --zero positive --amax "$T/amax.ts" | st-write -q --overwrite --part "$T/out"
        done
        run strace -f -o /dev/null -e "inject=$call:signal=KILL" st-write -q --overwrite --join "$T/out"
        [ "$status" -eq 137 ]
        [ -e "$T/out/.journal" ]
        for i in 1 2; do
            st-read --part $i/2 "$NANO" | nvfp4-cast -q --amax "$T/amax.ts" | st-write -q --overwrite --part "$T/out"
        done
        st-write -q --overwrite --join "$T/out"
        diff -r "$T/whole" "$T/out"
        [ ! -e "$T/out.partial" ]
    done
}

@test "--todo-part: what is left of a part, nothing of one that is complete" {
    run st-write --todo-part 1/2 "$T/out"
    [ "$status" -eq 1 ]
    [[ $output == *'out.partial: no run of part 1/2 is to be continued'* ]]
    cast_part 1/2
    [ "$(st-write --state "$T/out")" = partial ]
    run st-write --todo-part 1/2 "$T/out"
    [ "$status" -eq 0 ]
    [ -z "$output" ]
    half nvfp4-cast -q --amax "$T/amax.ts"
    [ "$(st-write --todo-part 2/2 "$T/out")" = model-00003-of-00003.safetensors ]
    run st-write --todo-part 1/3 "$T/out"
    [ "$status" -eq 1 ]
    run st-write --todo-part 3/2 "$T/out"
    [ "$status" -eq 2 ]
    [[ $output == *"--todo-part: '3/2' is not I/N with 1 <= I <= N"* ]]
}

@test "a part that was killed in its last step is complete" {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    cast_whole
    cast_part 1/2
    st-read --part 2/2 "$NANO" | nvfp4-cast --amax "$T/amax.ts" >"$T/2.ts"
    run strace -f -o "$T/trace" -e trace=unlinkat -e inject=unlinkat:signal=KILL:when=1 \
        st-write -q --part "$T/out" "$T/2.ts"
    [ "$status" -eq 137 ]
    [ -e "$(echo "$T"/out.partial/part-2-of-2-*/.journal)" ]
    cp -rp "$T/out.partial" "$T/parts"
    joined
    # And so it is when it runs again.
    rm -r "$T/out"
    mv "$T/parts" "$T/out.partial"
    cast_part 2/2
    joined
}

@test "some shards of a part do not begin it" {
    cast_part 1/2
    run bash -c "st-read --part 2/2 --shards model-00003-of-00003.safetensors '$NANO' | nvfp4-cast -q --amax '$T/amax.ts' | st-write -q --part '$T/out'"
    [ "$status" -eq 1 ]
    [[ $output == *'brings some shards only'* ]]
    refused 'part 2 of 2 is missing' st-write --join "$T/out"
}

@test "a shard that is gone, or has another size" {
    cast_part 1/2
    cast_part 2/2
    truncate -s -1 "$T"/out.partial/part-1-of-2-*/model-00001-of-00003.safetensors
    refused 'model-00001-of-00003.safetensors: it has 4337491 bytes, not 4337492; remove the folder' st-write --join "$T/out"
    rm "$T"/out.partial/part-1-of-2-*/model-00001-of-00003.safetensors
    refused 'model-00001-of-00003.safetensors is not there; remove its part' st-write --join "$T/out"
    [ ! -e "$T/out" ]
    rm -r "$T"/out.partial/part-1-of-2-*
    cast_whole
    cast_part 1/2
    joined
}

@test "joining that is killed at any step goes on" {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    cast_whole
    for i in 1 2; do cast_part $i/2; done
    cp -rp "$T/out.partial" "$T/parts"
    killed=0
    for call in write,pwrite64 fsync rename,renameat2 unlinkat rmdir; do
        for ((when = 1; when < 60; when++)); do
            rm -rf "$T/out" "$T/out.partial"
            cp -rp "$T/parts" "$T/out.partial"
            status=0
            strace -f -o "$T/trace" -e trace="$call" -e inject="$call:signal=KILL:when=$when" \
                st-write -q --join "$T/out" || status=$?
            [ $status -ne 0 ] || break
            [ $status -eq 137 ]
            killed=$((killed + 1))
            if [ -e "$T/out" ] && [ ! -e "$T/out/.journal" ]; then
                diff -r "$T/whole" "$T/out" # all was done
            else
                joined
            fi
        done
        [ $when -gt 1 ]
    done
    echo "$killed"
    [ $killed -gt 30 ]
}

@test "the summary is that of one run" {
    # But for time and rate, and experts in two parts.
    totals() { grep -E '^(in|out|files|lossless|input amaxes) '; }
    st-read "$NANO" | nvfp4-cast -q --amax "$T/amax.ts" | st-write "$T/whole" 2>&1 | totals >"$T/wanted"
    # What engines make of a part, of which one has no drafts, is nobody's question.
    for i in 1 2 3; do
        st-read --part $i/3 "$NANO" | nvfp4-cast -q --amax "$T/amax.ts" | st-write --part "$T/out" 2>"$T/part"
        grep -q '^lossless' "$T/part"
        run grep -E '^(vLLM|SGLang|no engine)' "$T/part"
        [ "$status" -eq 1 ]
    done
    st-write --join "$T/out" 2>"$T/joined"
    grep -q '^vLLM' "$T/joined"
    totals <"$T/joined" | diff "$T/wanted" -
    [ "$(wc -l <"$T/wanted")" -eq 6 ]
}

@test "--overwrite: the old one stays until the parts are joined" {
    cp -r "$NANO" "$T/out"
    chmod -R u+w "$T/out"
    run cast_part 1/1
    [ "$status" -eq 1 ]
    [[ $output == *'--overwrite'* ]]
    cast_whole
    st-read --part 1/1 "$NANO" | nvfp4-cast -q --amax "$T/amax.ts" | st-write -q --overwrite --part "$T/out"
    st-cmp "$NANO" "$T/out"
    st-write -q --overwrite --join "$T/out"
    diff -r "$T/whole" "$T/out"
    [ ! -e "$T/out.partial" ]
}

@test "v4-experts --jobs: the bytes of one job" {
    v4-experts -q --amax "$NANO_AMAX" "$NANO" "$T/whole"
    for jobs in 2 4; do
        v4-experts -q --jobs $jobs --amax "$NANO_AMAX" "$NANO" "$T/out"
        same_run "$T/whole" "$T/out"
        rm -r "$T/out"
    done
    # Parts of other options are refused, complete ones as well.
    for i in 1 2; do cast_part $i/2; done
    run v4-experts -q --jobs 2 --zero positive --amax "$NANO_AMAX" "$NANO" "$T/out"
    [ "$status" -eq 1 ]
    [[ $output == *'a part of a run with other input or options'* ]]
    [ ! -e "$T/out" ]
}

@test "v4-experts --jobs: only what is missing is read again" {
    v4-experts -q --lossy --amax "$NANO_AMAX" "$NANO" "$T/whole"
    casting=(nvfp4-pack -q --amax "$T/amax.ts")
    part "$NANO" 1/2 "${casting[@]}"
    half "${casting[@]}"
    find "$T/out.partial" -name 'model-0000[12]*' -printf '%f %i %T@\n' | sort >"$T/before"
    mkdir "$T/bin"
    ln -s "$PWD/$BIN"/* "$T/bin"
    rm "$T/bin/st-read"
    printf '#!/bin/sh\nprintf "%%s\\n" "$*" >>"%s/read"\nexec "%s/st-read" "$@"\n' "$T" "$PWD/$BIN" >"$T/bin/st-read"
    chmod +x "$T/bin/st-read"
    SEEKPIPE_BIN=$T/bin v4-experts -q --lossy --jobs 2 --amax "$NANO_AMAX" "$NANO" "$T/out"
    grep -qx -- "--part 1/2 --shards  $NANO" "$T/read"
    grep -qx -- "--part 2/2 --shards model-00003-of-00003.safetensors $NANO" "$T/read"
    find "$T/out" -name 'model-0000[12]*' -printf '%f %i %T@\n' | sort | diff "$T/before" -
    same_run "$T/whole" "$T/out"
}

@test "v4-experts --jobs: a part that fails is named; wrong numbers" {
    cp -r "$NANO" "$T/source"
    chmod -R u+w "$T/source"
    # A NaN among the block scales of an expert in the second shard.
    place=$(st-read --part 2/3 "$T/source" | tar tvf - | sed -n 's/.* layers\.2\.ffn\.experts\.3\.w1\.scale -> //p')
    file=${place%@*} offset=${place#*@}
    printf '\377' | dd of="$T/source/$file" bs=1 seek="${offset%+*}" conv=notrunc status=none
    run v4-experts --jobs 3 --amax "$NANO_AMAX" "$T/source" "$T/out"
    [ "$status" -eq 1 ]
    [[ $output == *'v4-experts: nvfp4-cast of part 2/3 failed'* ]]
    [ ! -e "$T/out" ]
    for jobs in 0 x 1000 -1; do
        run v4-experts --jobs $jobs --amax "$NANO_AMAX" "$NANO" "$T/out"
        [ "$status" -eq 2 ]
    done
}

@test "v4-experts --jobs: ended from outside, its parts end with it" {
    mkdir "$T/bin"
    ln -s "$PWD/$BIN"/* "$T/bin"
    rm "$T/bin/nvfp4-cast"
    # shellcheck disable=SC2016 # for another shell
    printf '#!/bin/sh\ncase " $* " in *" -n "*) exec "%s/nvfp4-cast" "$@" ;; esac\necho $$ >>"%s/begun"\nexec sleep 600\n' \
        "$PWD/$BIN" "$T" >"$T/bin/nvfp4-cast"
    chmod +x "$T/bin/nvfp4-cast"
    SEEKPIPE_BIN=$T/bin v4-experts -q --jobs 2 --amax "$NANO_AMAX" "$NANO" "$T/out" 3>&- &
    script=$!
    for ((i = 0; i < 200; i++)); do
        [ "$(wc -l 2>/dev/null <"$T/begun")" != 2 ] || break
        sleep 0.1
    done
    mapfile -t parts <"$T/begun"
    [ ${#parts[@]} -eq 2 ]
    kill "$script"
    run wait "$script"
    for part in "${parts[@]}"; do
        for ((i = 0; i < 100; i++)); do
            kill -0 "$part" 2>/dev/null || break
            sleep 0.1
        done
        run kill -0 "$part"
        [ "$status" -ne 0 ]
    done
}

@test "the job script for Slurm, task by task" {
    cast_whole
    for i in 3 1 2; do
        SLURM_ARRAY_TASK_ID=$i bash pipelines/slurm/v4-experts.sbatch 3 "$T/amax.ts" "$NANO" "$T/out"
    done
    joined
    run bash pipelines/slurm/v4-experts.sbatch 3 "$T/amax.ts" "$NANO" "$T/out"
    [ "$status" -eq 2 ]
}

@test "wrong command lines, and streams that are no part" {
    for args in "--part --join $T/out" "--join $T/out $T/amax.ts" '--join' "-n --join $T/out"; do
        # shellcheck disable=SC2086
        run st-write $args
        [ "$status" -eq 2 ]
    done
    run bash -c "st-read '$NANO' | st-write --part '$T/out'"
    [ "$status" -eq 1 ]
    [[ $output == *'is no part of a checkpoint'*'st-read --part'* ]]
    run bash -c "st-read --part 1/2 '$NANO' | st-write '$T/out'"
    [ "$status" -eq 1 ]
    [[ $output == *'part 1/2'* ]]
    [ ! -e "$T/out.partial" ]
}
