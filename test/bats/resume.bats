# Runs of st-write that die, and the same command again: the files are those of a run that nothing
# disturbed, and nothing is written twice that was on the disk already.
# shellcheck disable=SC2016 # for the inner shell

load common
load craft

PATH=$PWD/pipelines:$PATH

prepare() {
    amaxes "$T/amax.ts"
    # Bytes of both kinds, by reference and inline.
    nvfp4-cast --amax "$T/amax.ts" -o "$T/a.ts" "$NANO"
    st-write -q "$T/whole" "$T/a.ts"
    first=model-00001-of-00003.safetensors
    second=model-00002-of-00003.safetensors
    third=model-00003-of-00003.safetensors
}

# killed CALL N COMMAND...: COMMAND, killed with SIGKILL at its N-th system call CALL; skips the test where
# there is no strace, or no permission to trace.
killed() {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    local status=0
    strace -f -o /dev/null -e "trace=$1" -e "inject=$1:signal=KILL:when=$2" "${@:3}" 2>/dev/null || status=$?
    [ "$status" = 137 ] || { echo "not killed at $1 $2: exit $status"; return 1; }
}

# calls COMMAND...: lines "CALL COUNT" of what its first thread writes by; strace counts in each.
calls() {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    strace -f --seccomp-bpf -o "$T/log" -e trace="$writing" "$@" 2>/dev/null
    awk 'NR == 1 { pid = $1 } $1 == pid && $2 ~ /\(/ { sub(/\(.*/, "", $2); count[$2]++ }
        END { for (call in count) print call, count[call] }' "$T/log"
}
writing=openat,write,pwrite64,ftruncate,fallocate,fsync,copy_file_range,ioctl,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir

# some COUNT: the first, the last, and a few of 1 to COUNT.
some() {
    awk -v n="$1" 'BEGIN { for (i = 0; i <= 3; i++) print 1 + int((n - 1) * i / 3) }' | sort -nu
}

# dies N: a run that is killed when N shards are finished, into $T/out.
dies() {
    # Behind the journal and its folder a note is what is synced, but for the shards, each by a thread.
    killed fsync $((2 + $1)) st-write -q "$T/out" "$T/a.ts"
    [ ! -e "$T/out" ]
    [ "$(grep -ac ^shard "$T/out.partial/.journal")" = "$1" ]
}

# as_undisturbed: $T/out is, and nothing else is left.
as_undisturbed() {
    diff -r "$T/whole" "$T/out"
    [ ! -e "$T/out.partial" ]
}

@test "killed anywhere: nothing looks whole that is not, and the same command ends it" {
    calls st-write -q "$T/out" "$T/a.ts" >"$T/calls"
    as_undisturbed
    while read -r call count; do
        for n in $(some "$count"); do
            rm -rf "$T/out" "$T/out.partial"
            killed "$call" "$n" st-write -q "$T/out" "$T/a.ts"
            if [ -e "$T/out" ]; then
                diff -r -x .journal "$T/whole" "$T/out"
                [ ! -e "$T/out/.journal" ] || refused 'did not finish' st-sum "$T/out"
            fi
            st-write -q "$T/out" "$T/a.ts"
            as_undisturbed || { echo "killed at $call $n"; return 1; }
        done
    done <"$T/calls"
}

@test "killed anywhere with --overwrite: the old one or the new one, and the old one goes" {
    prepare_old() {
        rm -rf "$T/out" "$T/out.partial"
        mkdir -p "$T/out/folder"
        echo old >"$T/out/m.safetensors"
        echo old >"$T/out/folder/file"
    }
    prepare_old
    calls st-write -q --overwrite "$T/out" "$T/a.ts" >"$T/calls"
    as_undisturbed
    while read -r call count; do
        case $call in pwrite64 | copy_file_range | openat | ioctl) continue ;; esac
        # The end is what differs.
        for n in $(seq $((count > 6 ? count - 5 : 1)) "$count"); do
            prepare_old
            killed "$call" "$n" st-write -q --overwrite "$T/out" "$T/a.ts"
            if [ -e "$T/out/m.safetensors" ]; then
                [ "$(cat "$T/out/m.safetensors" "$T/out/folder/file")" = $'old\nold' ]
                [ ! -e "$T/out/.journal" ]
            else
                diff -r -x .journal "$T/whole" "$T/out"
            fi
            st-write -q --overwrite "$T/out" "$T/a.ts" 2>/dev/null
            as_undisturbed || { echo "killed at $call $n"; return 1; }
        done
    done <"$T/calls"
}

@test "killed between the renames of an --overwrite that cannot exchange: the next run ends it" {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    fp8-dequant -o "$T/other.ts" "$NANO"
    # The first rename only tries whether the folder can be moved.
    for n in 1 2 3 4; do
        for next in "--overwrite $T/out $T/a.ts" "$T/out $T/a.ts" "--overwrite $T/out $T/other.ts"; do
            rm -rf "$T/out"
            mkdir "$T/out"
            echo old >"$T/out/m.safetensors"
            # Before the call; the first one may be renameat2, of the exchange.
            run strace -f -o /dev/null -e inject=renameat2:error=EINVAL -e inject=rename:signal=KILL:when=$n \
                st-write -q --overwrite "$T/out" "$T/a.ts"
            [ "$status" -eq 137 ]
            if [ $n -le 2 ]; then
                [ "$(cat "$T/out/m.safetensors")" = old ]
                next="--overwrite $T/out $T/a.ts"
            else
                [ "$(st-write --state "$T/out")" = partial ]
            fi
            # One of the two is there, whole, under a name that tells which.
            ls "$T"/out*/m.safetensors
            # shellcheck disable=SC2086
            st-write -q $next 2>/dev/null
            case $next in *other*) st-cmp "$T/out" "$T/other.ts" ;; *) diff -r "$T/whole" "$T/out" ;; esac
            [ ! -e "$T/out.partial" ] && [ ! -e "$T/out.replaced" ]
        done
    done
}

# inside: makes $T/out a folder in which st-write is at work, as in one that cannot be replaced: it goes on there.
inside() {
    rm -rf "$T/out"
    mkdir -p "$T/out/.partial"
    : >"$T/out/.partial/.journal"
}

@test "inside its folder, killed anywhere: nothing looks whole that is not, and the same command ends it" {
    inside
    calls st-write -q "$T/out" "$T/a.ts" >"$T/calls"
    as_undisturbed
    while read -r call count; do
        for n in $(case $call in rename | unlinkat | rmdir) seq "$count" ;; *) some "$count" ;; esac); do
            inside
            killed "$call" "$n" st-write -q "$T/out" "$T/a.ts"
            if [ -e "$T/out/.partial/.journal" ]; then
                [ "$(st-write --state "$T/out")" = partial ]
                refused 'did not finish|no .safetensors file' st-sum "$T/out"
                [ ! -e "$T/out/model.safetensors.index.json" ] || diff -r -x .partial "$T/whole" "$T/out"
            fi
            case $n in
            "$count") st-read --shards "$(st-write --todo "$T/out" || true)" "$NANO" |
                nvfp4-cast -q --amax "$T/amax.ts" >"$T/rest.ts" ;;
            *) cp "$T/a.ts" "$T/rest.ts" ;;
            esac
            [ -e "$T/out/.partial/.journal" ] || cp "$T/a.ts" "$T/rest.ts"
            st-write -q "$T/out" "$T/rest.ts" 2>"$T/said"
            as_undisturbed || { echo "killed at $call $n"; return 1; }
        done
    done <"$T/calls"
}

@test "inside its folder: other runs are refused, --verify and --todo work, other files do not get among it" {
    inside
    killed fsync 4 st-write -q "$T/out" "$T/a.ts"
    fp8-dequant -o "$T/other.ts" "$NANO"
    refused 'out/\.partial: was left by a run with other input or options' st-write "$T/out" "$T/other.ts"
    [ "$(st-write --todo "$T/out" | wc -l)" -lt 3 ]
    echo mine >"$T/out/notes"
    refused 'out: holds other files beside an unfinished run of st-write; move them away' \
        st-write "$T/out" "$T/a.ts"
    rm "$T/out/notes"
    mkdir "$T/out/.calib"
    st-write -q --verify "$T/out" "$T/a.ts"
    rmdir "$T/out/.calib"
    as_undisturbed
    # Files are being moved up.
    inside
    killed rename 3 st-write -q "$T/out" "$T/a.ts"
    [ ! -e "$T/out/.partial/generation_config.json" ] || [ ! -e "$T/out/generation_config.json" ]
    refused 'out/\.partial: was left by a run with other input or options; remove the files' \
        st-write "$T/out" "$T/other.ts"
    [ -z "$(st-write --todo "$T/out")" ]
    st-write -n "$T/out" "$T/a.ts"
    st-write "$T/out" "$T/a.ts"
    as_undisturbed
}

@test "a plan refuses what its run would refuse, of what another run left" {
    fp8-dequant -o "$T/other.ts" "$NANO"
    fp8-dequant -n -o "$T/other-plan.ts" "$NANO"
    nvfp4-cast -n --amax "$T/amax.ts" -o "$T/plan.ts" "$NANO"
    nvfp4-cast -n -o "$T/bare.ts" "$NANO"
    both() { # PATTERN: of the other stream, and of its plan
        refused "$1" st-write "$T/out" "$T/other.ts"
        refused "$1" st-write -n "$T/out" "$T/other.ts"
        refused "$1" st-write -n "$T/out" "$T/other-plan.ts"
        # The same run's plan, and one that does not know its amaxes yet.
        st-write -n "$T/out" "$T/plan.ts" >/dev/null
        st-write -n "$T/out" "$T/bare.ts" >/dev/null
    }
    dies 1
    both 'out\.partial: was left by a run with other input or options; remove it'
    rm -r "$T/out.partial"
    killed rename 1 st-write -q "$T/out" "$T/a.ts"
    both 'out\.partial: is a complete checkpoint, of a run with other input or options .* move or remove it'
    st-write -q "$T/out" "$T/a.ts"
    rm -r "$T/out"
    # In place but for its journal.
    killed unlinkat 1 st-write -q "$T/out" "$T/a.ts"
    both 'out: is not empty; choose another folder, or --overwrite it'
    [ -e "$T/out/.journal" ]
    st-write -n --overwrite "$T/out" "$T/other.ts"
    st-write -q "$T/out" "$T/a.ts"
    as_undisturbed
    inside
    killed rename 3 st-write -q "$T/out" "$T/a.ts"
    both 'out/\.partial: was left by a run with other input or options; remove the files'
    st-write -q "$T/out" "$T/a.ts"
    as_undisturbed
}

@test "the old checkpoint that a killed --overwrite left is removed by any later run" {
    mkdir "$T/out"
    echo old >"$T/out/m.safetensors"
    # Two files are removed with -at; the third one is the mark itself.
    killed unlinkat 3 st-write -q --overwrite "$T/out" "$T/a.ts"
    diff -r "$T/whole" "$T/out"
    grep -q ^replaced "$T/out.partial/.journal"
    refused 'did not finish' st-sum "$T/out.partial"
    [ -z "$(st-write --todo "$T/out")" ]
    fp8-dequant -o "$T/other.ts" "$NANO"
    st-write -n --overwrite "$T/out" "$T/other.ts"
    st-write -q --overwrite "$T/out" "$T/other.ts"
    [ ! -e "$T/out.partial" ]
    [ "$(st-sum "$T/out")" = "$(st-sum "$T/other.ts")" ]
}

@test "an old checkpoint that could not be removed stays marked, and the next run removes it" {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    for n in $(seq 12); do
        rm -rf "$T/out" "$T/out.partial"
        mkdir "$T/out"
        echo old >"$T/out/m.safetensors"
        status=0
        strace -f -o "$T/log" -e trace=getdents64 -e "inject=getdents64:error=EIO:when=$n" \
            st-write -q --overwrite "$T/out" "$T/a.ts" 2>/dev/null || status=$?
        # The last ones count entries of what is empty already.
        [ "$status" = 0 ] || st-write -q --overwrite "$T/out" "$T/a.ts" 2>/dev/null
        as_undisturbed || { echo "getdents64 $n"; return 1; }
        grep -q INJECTED "$T/log" || break
    done
    [ "$n" -gt 4 ]
}

@test "what was finished is not written again, what was half written is" {
    dies 1
    before=$(stat -c '%i %y' "$T/out.partial/$first")
    st-write --json "$T/out" "$T/a.ts" >"$T/json" 2>"$T/said"
    grep -q '^1 of 3 shards were finished by an earlier run' "$T/said"
    [ "$(jq -c '[.shards, .finished_shards]' "$T/json")" = '[3,1]' ]
    [ "$before" = "$(stat -c '%i %y' "$T/out/$first")" ]
    as_undisturbed
}

@test "a finished shard that was touched since is written again" {
    for harm in 'touch "$file"' 'truncate -s -1 "$file"' 'rm "$file"' 'rm "$file"; mkdir "$file"'; do
        dies 2
        [ "$(st-write --todo "$T/out")" = "$third" ]
        file=$T/out.partial/$first bash -c "$harm"
        [ "$(st-write --todo "$T/out")" = "$first"$'\n'"$third" ]
        if [ -d "$T/out.partial/$first" ]; then
            refused 'Is a directory' st-write "$T/out" "$T/a.ts"
            rmdir "$T/out.partial/$first"
        fi
        st-write -q "$T/out" "$T/a.ts"
        as_undisturbed
        rm -r "$T/out"
    done
}

# flip FILE OFFSET: change a byte so that size and mtime stay.
flip() {
    touch -r "$1" "$T/time"
    printf "%b" "\\x$(printf %02x $(($(od -An -tu1 -j "$2" -N 1 "$1") ^ 16)))" |
        dd of="$1" bs=1 seek="$2" conv=notrunc status=none
    touch -r "$T/time" "$1"
}

# at SHARD TENSOR: where its first byte lies.
at() {
    local n
    n=$(od -An -tu8 -N8 "$T/whole/$1")
    echo $((8 + n + $(tail -c +9 "$T/whole/$1" | head -c "$n" | jq ".[\"$2\"].data_offsets[0]")))
}

@test "--verify finds a flipped byte in what came by reference, inline, and in a header" {
    st-write -q --verify "$T/out" "$T/a.ts"
    as_undisturbed
    for tensor in layers.0.ffn.experts.3.w1.weight layers.0.ffn.experts.3.w1.weight_scale ''; do
        rm -r "$T/out"
        dies 2
        shard=$(st-ls --tsv "$T/whole" | awk -F'\t' -v t="${tensor:-embed.weight}" '$1 == t { print $5 }')
        [ "$shard" != "$third" ]
        offset=20
        [ -z "$tensor" ] || offset=$(($(at "$shard" "$tensor") + 100))
        flip "$T/out.partial/$shard" "$offset"
        # Nothing that costs no reading finds it.
        [ "$(st-write --todo "$T/out")" = "$third" ]
        refused "out\.partial/$shard: ${tensor:+tensor }${tensor:-its header} is not what was written.*Run the same command again" \
            st-write --verify "$T/out" "$T/a.ts"
        [ ! -e "$T/out" ]
        [ "$(st-write --todo "$T/out")" = "$shard" ]
        st-write -q --verify "$T/out" "$T/a.ts"
        as_undisturbed
    done
}

@test "--todo names what is missing, st-read --shards brings just that" {
    run st-write --todo "$T/out"
    [ "$status" -eq 1 ]
    [[ $output == *'out.partial: is not there: no run is to be continued'* ]]
    for n in 0 1 2 3; do
        rm -rf "$T/out"
        dies "$n"
        st-write --todo "$T/out" >"$T/todo"
        [ "$(wc -l <"$T/todo")" = $((3 - n)) ]
        st-read --shards "$(cat "$T/todo")" "$NANO" | nvfp4-cast -q --amax "$T/amax.ts" >"$T/rest.ts"
        diff <(tar xOf "$T/rest.ts" .toc | awk -F'\t' '$5 == "data" { print $4 }' | sort -u) "$T/todo"
        st-write -q "$T/out" "$T/rest.ts"
        as_undisturbed
    done
}

@test "the counts of a resumed run are those of the whole checkpoint, also as JSON, whatever it reads again" {
    same_counts() { # COMMAND...: resumed with the ${shards[@]} of the source
        st-read "${shards[@]}" "$NANO" | "$@" | st-write -q --json "$T/out" >"$T/json"
        same_json "$T/whole.json" "$T/json" .counts
        as_undisturbed
        rm -r "$T/out"
    }
    bf16() { fp8-dequant | mxfp4-unpack; }
    lossy() { nvfp4-pack -q --amax "$T/amax.ts"; }
    positive() { nvfp4-cast -q --zero positive --amax "$T/amax.ts"; }
    best() { nvfp4-cast -q --window best --amax "$T/amax.ts"; }
    for stages in bf16 lossy positive best; do
        rm -r "$T/whole"
        st-read "$NANO" | "$stages" >"$T/a.ts"
        st-write -q --json "$T/whole" "$T/a.ts" >"$T/whole.json"
        [ "$(jq '[.counts[] | .dequantized // .weights] | add' "$T/whole.json")" -gt 190 ]
        for n in 1 2 3; do
            dies "$n"
            [ "$(grep -ac ^counts "$T/out.partial/.journal")" = "$n" ]
            cp -rp "$T/out.partial" "$T/left"
            shards=(--shards "$(st-write --todo "$T/out")")
            same_counts "$stages"
            cp -rp "$T/left" "$T/out.partial"
            shards=()
            same_counts "$stages"
            cp -rp "$T/left" "$T/out.partial"
            rm "$T/out.partial/$first" # it is counted once
            shards=(--shards "$(st-write --todo "$T/out")")
            same_counts "$stages"
            rm -r "$T/left"
        done
    done
}

@test "an expert whose matrices are in two shards counts once, whichever of them is written first" {
    st-read --inline "$NANO" >"$T/inline.ts"
    mkdir "$T/tree"
    tar xf "$T/inline.ts" -C "$T/tree"
    # w2 of layer 0 moves to the third shard.
    awk -F'\t' -v OFS='\t' -v to="$third" '$1 ~ /^layers\.0\.ffn\.experts\.[0-9]+\.w2\./ { $4 = to } 1' \
        "$T/tree/.toc" >"$T/toc"
    mv "$T/toc" "$T/tree/.toc"
    tar tf "$T/inline.ts" >"$T/order"
    unseal
    tar -C "$T/tree" --format=ustar --no-recursion -cf "$T/moved.ts" -T "$T/order"
    st-write -q "$T/source" "$T/moved.ts"
    nvfp4-pack --amax "$T/amax.ts" -o "$T/a.ts" "$T/source"
    rm -r "$T/whole"
    st-write -q --json "$T/whole" "$T/a.ts" >"$T/whole.json"
    [ "$(jq -c '.counts[0].experts | add' "$T/whole.json")" = 64 ]
    dies 1
    st-read --shards "$(st-write --todo "$T/out")" "$T/source" | nvfp4-pack -q --amax "$T/amax.ts" |
        st-write -q --json "$T/out" >"$T/json"
    same_json "$T/whole.json" "$T/json" .counts
    as_undisturbed
}

@test "a journal whose counts are none: the shards stay finished" {
    dies 2
    sed -i 's/^\(counts\t[^\t]*\t\).*/\1{"x":-1}/' "$T/out.partial/.journal"
    printf 'counts\ncounts\t%s\ncounts\t%s\t\ncounts\tnope\t{}\ncounts\t%s\t[' "$first" "$first" "$first" \
        >>"$T/out.partial/.journal"
    st-write -q --json "$T/out" "$T/a.ts" >"$T/json"
    [ "$(jq .finished_shards "$T/json")" = 2 ]
    as_undisturbed
}

@test "--state: absent, partial, complete, other" {
    [ "$(st-write --state "$T/out")" = absent ]
    mkdir "$T/out"
    [ "$(st-write --state "$T/out")" = absent ]
    echo hello >"$T/out/notes"
    [ "$(st-write --state "$T/out")" = other ]
    rm -r "$T/out"
    dies 1
    [ "$(st-write --state "$T/out")" = partial ]
    st-write -q "$T/out" "$T/a.ts"
    [ "$(st-write --state "$T/out")" = complete ]
    rm -r "$T/out"
    killed unlinkat 1 st-write -q "$T/out" "$T/a.ts"
    [ "$(st-write --state "$T/out")" = partial ]
    for wrong in --todo --join --part -n -o/dev/null; do
        run st-write --state "$wrong" "$T/out"
        [ "$status" -eq 2 ]
    done
    run st-write --state "$T/out" "$T/a.ts"
    [ "$status" -eq 2 ]
    [[ $output == *'--state reads no stream'* ]]
}

@test "--todo: one shard after the other" {
    dies 1
    [ "$(st-write --todo "$T/out")" = "$second"$'\n'"$third" ]
    st-read --shards "$third" "$NANO" | nvfp4-cast --amax "$T/amax.ts" >"$T/third.ts"
    refused 'out\.partial: 1 shards are still missing' st-write "$T/out" "$T/third.ts"
    [ "$(st-write --todo "$T/out")" = "$second" ]
    st-read --part 2/3 "$NANO" | nvfp4-cast --amax "$T/amax.ts" >"$T/second.ts"
    st-write -q "$T/out" "$T/second.ts"
    as_undisturbed
}

@test "--todo: in place but for the end, or at work" {
    killed unlinkat 1 st-write -q "$T/out" "$T/a.ts"
    [ -e "$T/out/.journal" ]
    [ -z "$(st-write --todo "$T/out")" ]
    st-read --shards '' "$NANO" | nvfp4-cast -q --amax "$T/amax.ts" >"$T/rest.ts"
    run st-write "$T/out" "$T/rest.ts"
    [ "$status" -eq 0 ]
    [[ $output == *'an earlier run had completed it but for its journal'* ]]
    as_undisturbed
    rm -r "$T/out"
    dies 1
    exec 5<"$T/out.partial"
    flock 5
    refused 'out\.partial: another st-write is at work in it' st-write --todo "$T/out"
    exec 5<&-
}

@test "w1 and w3 in different shards: the missing half brings its partner along as context" {
    st-read --inline "$NANO" >"$T/inline.ts"
    mkdir "$T/tree"
    tar xf "$T/inline.ts" -C "$T/tree"
    # w3 of layer 0 moves to the third shard.
    awk -F'\t' -v OFS='\t' -v to="$third" '$1 ~ /^layers\.0\.ffn\.experts\.[0-9]+\.w3\./ { $4 = to } 1' \
        "$T/tree/.toc" >"$T/toc"
    mv "$T/toc" "$T/tree/.toc"
    tar tf "$T/inline.ts" >"$T/order"
    unseal
    tar -C "$T/tree" --format=ustar --no-recursion -cf "$T/moved.ts" -T "$T/order"
    st-write -q "$T/source" "$T/moved.ts"
    nvfp4-cast --amax "$T/amax.ts" -o "$T/a.ts" "$T/source"
    rm -r "$T/whole"
    st-write -q "$T/whole" "$T/a.ts"
    dies 1
    st-read --shards "$(st-write --todo "$T/out")" "$T/source" | nvfp4-cast --amax "$T/amax.ts" >"$T/rest.ts"
    tar xOf "$T/rest.ts" .toc | grep -q context
    st-write -q "$T/out" "$T/rest.ts"
    as_undisturbed
}

@test "other input, options or shards are refused, and harm nothing" {
    cp -rp "$NANO" "$T/source"
    nvfp4-cast --amax "$T/amax.ts" -o "$T/a.ts" "$T/source"
    dies 1
    cp -r "$T/out.partial" "$T/before"
    other='out\.partial: was left by a run with other input or options; remove it'
    nvfp4-cast --amax "$T/amax.ts" --zero positive -o "$T/b.ts" "$T/source"
    refused "$other" st-write "$T/out" "$T/b.ts"
    nvfp4-cast --amax "$T/amax.ts" -o "$T/b.ts" "$NANO"
    refused "$other" st-write "$T/out" "$T/b.ts"
    st-read --layers 0-1 "$T/source" | nvfp4-cast --amax "$T/amax.ts" >"$T/b.ts"
    refused "$other" st-write --partial "$T/out" "$T/b.ts"
    # A table that was changed by hand.
    mkdir "$T/tree"
    tar xf "$T/a.ts" -C "$T/tree"
    sed -i "s/$third/$second/" "$T/tree/.toc"
    tar tf "$T/a.ts" >"$T/order"
    unseal
    tar -C "$T/tree" --format=ustar --no-recursion -cf "$T/b.ts" -T "$T/order"
    refused "$other" st-write "$T/out" "$T/b.ts"
    diff -r "$T/before" "$T/out.partial"
    touch "$T/source/$first"
    nvfp4-cast --amax "$T/amax.ts" -o "$T/b.ts" "$T/source"
    refused "$other" st-write "$T/out" "$T/b.ts"
    # The shards that were made of it are written again.
    touch -r "$NANO/$first" "$T/source/$first"
    nvfp4-cast --amax "$T/amax.ts" -o "$T/b.ts" "$T/source"
    st-write -q "$T/out" "$T/b.ts"
    as_undisturbed
}

@test "a recipe file that was edited is another run, even where the plan is the same" {
    cp pipelines/recipes/deepseek_v4/experts.json "$T/recipe.json"
    nvfp4-cast --recipe "$T/recipe.json" --amax "$T/amax.ts" -o "$T/a.ts" "$NANO"
    rm -r "$T/whole"
    st-write -q "$T/whole" "$T/a.ts"
    dies 1
    jq '.formats = {"mtp.*": "keep"} + .formats' pipelines/recipes/deepseek_v4/experts.json >"$T/recipe.json"
    nvfp4-cast --recipe "$T/recipe.json" --amax "$T/amax.ts" -o "$T/b.ts" "$NANO"
    refused 'out\.partial: was left by a run with other input or options; remove it' st-write "$T/out" "$T/b.ts"
    cp pipelines/recipes/deepseek_v4/experts.json "$T/recipe.json"
    nvfp4-cast --recipe "$T/recipe.json" --amax "$T/amax.ts" -o "$T/b.ts" "$NANO"
    st-write -q "$T/out" "$T/b.ts"
    as_undisturbed
}

@test "a part that was not whole for itself needs --partial, and not again to be continued" {
    st-read --part 1/2 "$NANO" | nvfp4-cast --amax "$T/amax.ts" >"$T/a.ts"
    refused 'is only a part of a checkpoint' st-write "$T/out" "$T/a.ts"
    [ ! -e "$T/out.partial" ]
    rm -r "$T/whole"
    st-write -q --partial "$T/whole" "$T/a.ts"
    killed fsync 3 st-write -q --partial "$T/out" "$T/a.ts"
    st-write -q "$T/out" "$T/a.ts"
    as_undisturbed
}

@test "a journal that was cut, anywhere" {
    dies 2
    cp -rp "$T/out.partial" "$T/left"
    size=$(stat -c %s "$T/left/.journal")
    table=$(grep -anm 1 '^\(source\|counts\|shard\)' "$T/left/.journal" | cut -d: -f1)
    table=$(head -n $((table - 1)) "$T/left/.journal" | wc -c)
    for n in "$table" $((table + 10)) $((size - 1)); do
        rm -rf "$T/out" "$T/out.partial"
        cp -rp "$T/left" "$T/out.partial"
        truncate -s "$n" "$T/out.partial/.journal"
        # As a file system may leave it that lost its power.
        [ "$n" != "$table" ] || truncate -s +100 "$T/out.partial/.journal"
        run st-write -q --json "$T/out" "$T/a.ts"
        [ "$status" -eq 0 ]
        [ "$(jq .finished_shards <<<"$output")" = $((n == size - 1)) ]
        as_undisturbed
    done
    # Where other files are, no cut journal is written over.
    cp -rp "$T/left" "$T/out.partial"
    truncate -s $((table - 1)) "$T/out.partial/.journal"
    rm -r "$T/out"
    refused 'out\.partial: its journal is damaged; remove the folder' st-write "$T/out" "$T/a.ts"
    rm -r "$T/out.partial"
    # Before the first note nothing but the journal is there.
    for n in 0 5 50 1000 $((table - 1)); do
        rm -rf "$T/out"
        mkdir "$T/out.partial"
        head -c "$n" "$T/left/.journal" >"$T/out.partial/.journal"
        refused 'not there: no run is to be continued' st-write --todo "$T/out"
        st-write -q "$T/out" "$T/a.ts"
        as_undisturbed
    done
}

@test "journals that are none, or where they do not belong" {
    mkdir "$T/out.partial"
    echo mine >"$T/out.partial/.journal"
    refused 'in the way: st-write did not make it' st-write "$T/out" "$T/a.ts"
    [ "$(cat "$T/out.partial/.journal")" = mine ]
    rm "$T/out.partial/.journal"
    ln -s /dev/zero "$T/out.partial/.journal"
    refused 'journal' st-write "$T/out" "$T/a.ts"
    rm "$T/out.partial/.journal"
    mkfifo "$T/out.partial/.journal"
    refused 'journal|in the way' st-write "$T/out" "$T/a.ts"
    rm -r "$T/out.partial"
    # A run that is half done, renamed by hand, must not be taken for one that is whole.
    dies 2
    mv "$T/out.partial" "$T/out"
    for options in '' --overwrite; do
        # shellcheck disable=SC2086
        refused 'out: holds the result of an unfinished run of st-write; move it back to .*out\.partial' \
            st-write $options "$T/out" "$T/a.ts"
    done
    mv "$T/out" "$T/out.partial"
    # Nonsense after the table: those shards are written again.
    printf 'shard\t%s\t1\t2\nshard\t\nredo\nshard\tnope\t1\t2\n\n\t\nshard' "$first" >>"$T/out.partial/.journal"
    [ "$(st-write --todo "$T/out")" = "$first"$'\n'"$third" ]
    st-write -q --verify "$T/out" "$T/a.ts"
    as_undisturbed
}

@test "proofs that are none are found" {
    for proof in 's/\t[^\t]*$//' 's/\t[^\t]*$/\tnope@1/' 's/@\([0-9]*\)\t/@1\1\t/' 's/$/\t/' 's/@[0-9]*\t/@99999999999999999999\t/'; do
        dies 1
        sed -i "/^shard/{$proof}" "$T/out.partial/.journal"
        st-write -q --verify "$T/out" "$T/a.ts" 2>"$T/said" || {
            [ "$(wc -l <"$T/said")" = 1 ]
            grep -q 'remove the folder' "$T/said"
            rm -r "$T/out.partial"
            st-write -q --verify "$T/out" "$T/a.ts"
        }
        as_undisturbed
        rm -r "$T/out"
    done
}

# logged: a folder of programs on which $SEEKPIPE_BIN can be set, which notes how st-read is called.
logged() {
    mkdir "$T/bin"
    ln -s "$PWD/$BIN"/* "$T/bin"
    rm "$T/bin/st-read"
    printf '#!/bin/sh\nprintf "%%s\\n" "$*" >>"%s/read"\nexec "%s/st-read" "$@"\n' "$T" "$PWD/$BIN" >"$T/bin/st-read"
    chmod +x "$T/bin/st-read"
    export SEEKPIPE_BIN=$T/bin
}

@test "the pipelines read only what is missing" {
    logged
    rm -r "$T/whole"
    v4-experts -q --lossy --amax "$NANO_AMAX" "$NANO" "$T/whole"
    grep -qx "$NANO" "$T/read"
    nvfp4-pack --amax "$T/amax.ts" -o "$T/a.ts" "$NANO"
    dies 2
    : >"$T/read"
    v4-experts -q --lossy --amax "$NANO_AMAX" "$NANO" "$T/out"
    grep -qx -- "--shards $third $NANO" "$T/read"
    same_run "$T/whole" "$T/out"
    rm -r "$T/whole" "$T/out"
    v4-bf16 -q "$NANO" "$T/whole"
    fp8-dequant "$NANO" | mxfp4-unpack | nvfp4-unpack >"$T/a.ts"
    dies 0
    rm -r "$T/out.partial"
    st-read "$NANO" | fp8-dequant | mxfp4-unpack | nvfp4-unpack >"$T/a.ts"
    dies 3
    : >"$T/read"
    v4-bf16 -q "$NANO" "$T/out"
    grep -qx -- "--shards  $NANO" "$T/read"
    as_undisturbed
    # A plan looks at all of it, and at nothing that was left.
    rm -r "$T/out"
    dies 1
    v4-bf16 -n "$NANO" "$T/out" | grep -q '^out '
}

@test "st-read --shards: commas or newlines, or no shard at all" {
    st-read --shards "$first,$third" "$NANO" >"$T/a.ts"
    st-read --shards "$first"$'\n'"$third" "$NANO" >"$T/b.ts"
    cmp <(tar xOf "$T/a.ts" .toc) <(tar xOf "$T/b.ts" .toc)
    [ "$(tar xOf "$T/b.ts" .stream | jq -r .scope)" = "shards $first,$third" ]
    st-read --shards '' "$NANO" >"$T/c.ts"
    [ -z "$(tar xOf "$T/c.ts" .toc)" ]
    refused 'holds no tensor to write' st-write --partial "$T/out" "$T/c.ts"
}

@test "--todo and --verify: command lines" {
    run st-write --todo
    [ "$status" -eq 2 ]
    run st-write --todo "$T/out" "$T/a.ts"
    [ "$status" -eq 2 ]
    run st-write --todo /
    [ "$status" -eq 2 ]
}
