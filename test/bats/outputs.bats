# What programs write: files that only their own run can touch, streams that carry their digest, and
# folders that a run of the same user and the same data left.
# shellcheck disable=SC2030,SC2031,SC2317 # each test is a subshell; functions are called by name
load common
load craft

prepare() {
    src=$NANO/model-00003-of-00003.safetensors
    st-grep '^layers\.3\.(attn_norm|ffn\.gate)' "$src" | st-read --inline - >"$T/small.ts"
}

# ---- files of -o ----

@test "-o touches nothing but its file, whatever lies beside it" {
    echo other >"$T/other"
    for kind in fifo link folder; do
        rm -rf "$T"/x.ts*
        case $kind in
        fifo) mkfifo "$T/x.ts.partial" "$T/x.ts.1.partial" ;;
        link) ln "$T/other" "$T/x.ts.partial" && ln "$T/other" "$T/x.ts.1.partial" ;;
        folder) mkdir -p "$T/x.ts.partial/kept" "$T/x.ts.1.partial" ;;
        esac
        timeout 20 st-read -o "$T/x.ts" "$src"
        timeout 20 st-read -o "$T/x.ts" "$src" # over an old file
        st-ls "$T/x.ts" >"$T/list"
        [ "$(cat "$T/other")" = other ]
        [ -e "$T/x.ts.partial" ]
        [ -e "$T/x.ts.1.partial" ]
        [ ! -e "$T/x.ts.2.partial" ]
    done
    # The input has the name that others would use.
    rm -rf "$T"/x.ts*
    cp "$T/small.ts" "$T/x.ts.partial"
    st-read --inline -o "$T/x.ts" - <"$T/x.ts.partial"
    cmp "$T/small.ts" "$T/x.ts.partial"
    [ "$(st-sum "$T/x.ts")" = "$(st-sum "$T/small.ts")" ]
}

# begin_slow: in the background, a run that writes $T/x.ts, has begun to, and waits for the last 2000 bytes of
# $T/small.ts from descriptor 5.
begin_slow() {
    mkfifo "$T/slow"
    st-read --inline -o "$T/x.ts" - <"$T/slow" 3>&- &
    exec 5>"$T/slow"
    head -c -2000 "$T/small.ts" >&5
    until find "/proc/$!/fd" -lname "$T/[#x]*" | grep -q .; do sleep 0.01; done
}

@test "two runs that write one file: each writes its own, and the last one's stays" {
    begin_slow
    st-read -o "$T/x.ts" "$src"
    [ "$(st-sum "$T/x.ts")" = "$(st-sum "$src")" ]
    tail -c 2000 "$T/small.ts" >&5
    exec 5>&-
    wait $!
    [ "$(st-sum "$T/x.ts")" = "$(st-sum "$T/small.ts")" ]
    [ -z "$(find "$T" -name '*.partial')" ]
}

@test "a run that fails or is killed leaves no file, and keeps the old one" {
    echo old >"$T/x.ts"
    head -c 3000 "$T/small.ts" >"$T/cut.ts"
    refused 'cut' st-read --inline -o "$T/x.ts" "$T/cut.ts"
    begin_slow
    kill -KILL $!
    wait $! || true
    exec 5>&-
    [ "$(cat "$T/x.ts")" = old ]
    [ "$(cd "$T" && echo *)" = 'cut.ts refused slow small.ts x.ts' ]
}

@test "the permissions of an old file stay" {
    umask 022
    st-read -o "$T/x.ts" "$src"
    [ "$(stat -c %a "$T/x.ts")" = 644 ]
    chmod 600 "$T/x.ts"
    st-read -o "$T/x.ts" "$src"
    [ "$(stat -c %a "$T/x.ts")" = 600 ]
    pt-read "$NANO_AMAX" >"$T/dump.ts"
    : >"$T/x.png"
    chmod 640 "$T/x.png"
    command -v gnuplot >/dev/null || skip 'gnuplot is missing'
    pipelines/amax-plot -o "$T/x.png" "$T/dump.ts"
    [ "$(stat -c %a "$T/x.png")" = 640 ]
}

@test "a file that cannot replace the old one is not left" {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    echo old >"$T/x.ts"
    run strace -f -o /dev/null -e trace=rename -e inject=rename:error=EIO st-read -o "$T/x.ts" "$src"
    [ "$status" -eq 1 ]
    [ "$(cat "$T/x.ts")" = old ]
    [ -z "$(find "$T" -name '*.partial')" ]
}

@test "without files that have no names (FUSE, NFS), a file has its own" {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    # The first open with O_TMPFILE in the folder fails as it does there.
    run strace -f -P "$T" -e trace=openat -e inject=openat:error=EOPNOTSUPP -o "$T/trace" st-read -o "$T/x.ts" "$src"
    [ "$status" -eq 0 ]
    grep -q 'O_TMPFILE.*INJECTED' "$T/trace"
    [ "$(st-sum "$T/x.ts")" = "$(st-sum "$src")" ]
    [ -z "$(find "$T" -name '*.partial')" ]
}

@test "--summary is there only if the amaxes are" {
    [ -c /dev/full ] || skip 'no /dev/full'
    pt-read "$NANO_AMAX" >"$T/dump.ts"
    refused 'No space left' amax-merge -q --fallback layer-max --summary "$T/summary" -o /dev/full "$T/dump.ts"
    [ ! -e "$T/summary" ]
    amax-merge -q --fallback layer-max --summary "$T/summary" -o "$T/amax.ts" "$T/dump.ts"
    [ -s "$T/summary" ]
}

@test "pipelines/amax-plot -o: a device, and names beside it" {
    command -v gnuplot >/dev/null || skip 'gnuplot is missing'
    pt-read "$NANO_AMAX" >"$T/dump.ts"
    mkdir -p "$T/x.png.partial/kept"
    pipelines/amax-plot -o "$T/x.png" "$T/dump.ts"
    [ -s "$T/x.png" ]
    [ -d "$T/x.png.partial/kept" ]
    pipelines/amax-plot -o /dev/null "$T/dump.ts"
    [ -c /dev/null ]
    run pipelines/amax-plot -o '' "$T/dump.ts"
    [ "$status" -eq 2 ]
}

@test "pipelines/amax-plot -o: a picture for which there is no room is not put in place" {
    command -v gnuplot >/dev/null || skip 'gnuplot is missing'
    mkdir "$T/small"
    unshare -m mount -t tmpfs -o size=32k none "$T/small" 2>/dev/null || skip 'cannot mount a small disk here'
    pt-read "$NANO_AMAX" >"$T/dump.ts"
    run unshare -m bash -c "mount -t tmpfs -o size=32k none '$T/small' &&
        TMPDIR=$T/small pipelines/amax-plot -o '$T/x.png' '$T/dump.ts'"
    [ "$status" -eq 1 ]
    [[ $output == *'x.png: was not drawn'* ]]
    [ ! -e "$T/x.png" ]
}

@test "standard output is the stream's alone" {
    random_ids "$T/tokens.safetensors" 1 16
    amax-calib -q --tokens "$T/tokens.safetensors" --layers 0-0 "$NANO" >"$T/quiet.ts"
    ONEDNN_VERBOSE=2 amax-calib -q --tokens "$T/tokens.safetensors" --layers 0-0 "$NANO" >"$T/loud.ts" 2>"$T/said"
    cmp "$T/quiet.ts" "$T/loud.ts"
    st-eval -q --tokens "$T/tokens.safetensors" "$NANO" >"$T/quiet"
    ONEDNN_VERBOSE=2 st-eval -q --tokens "$T/tokens.safetensors" "$NANO" >"$T/loud"
    cmp "$T/quiet" "$T/loud"
}

# ---- the digest of a stream ----

@test "a flipped bit anywhere in a stream is found, or changes nothing that is read" {
    sum=$(st-sum "$T/small.ts")
    size=$(stat -c %s "$T/small.ts")
    for ((i = 0; i < 400; i++)); do
        at=$(((i * 7919 + 13) * 31 % size)) bit=$((i * 5 % 8))
        cp "$T/small.ts" "$T/bad.ts"
        byte=$((16#$(xxd -s $at -l 1 -p "$T/bad.ts") ^ 1 << bit))
        # shellcheck disable=SC2059 # a byte
        printf "$(printf '\\x%02x' $byte)" | dd of="$T/bad.ts" bs=1 seek=$at conv=notrunc status=none
        if found=$(st-sum "$T/bad.ts" 2>/dev/null); then
            [ "$found" = "$sum" ] || {
                echo "bit $bit of byte $at"
                return 1
            }
        fi
    done
}

@test "a byte of a tensor, of a side file and of the table: the digest, whoever reads" {
    st-read --inline "$NANO" >"$T/a.ts"
    for text in 'deepseek_v4' 'layers.0.attn_norm.weight	BF16'; do
        LC_ALL=C sed "0,/$text/s//${text%?}X/" "$T/a.ts" >"$T/bad.ts"
        run cmp -s "$T/a.ts" "$T/bad.ts"
        [ "$status" -eq 1 ]
        run st-sum "$T/bad.ts"
        [ "$status" -eq 1 ]
    done
    unpack "$T/small.ts"
    cp "$T/tree/.end" "$T/sealed"
    name=$(cut -f1 "$T/tree/.toc" | head -n 1)
    printf '\0' | dd of="$T/tree/$name" bs=1 seek=1 conv=notrunc status=none
    pack "$T/changed.ts" # without a digest
    st-sum "$T/changed.ts" >"$T/sum"
    cp "$T/sealed" "$T/tree/.end"
    tar -C "$T/tree" --format=ustar --hard-dereference --owner=0 --group=0 --no-recursion -cf "$T/bad.ts" -T "$T/packed"
    for command in st-sum st-ls st-stat fp8-dequant "st-read --inline" "st-write --partial $T/out"; do
        # shellcheck disable=SC2086 # words
        refused 'bad\.ts: \.end: the stream.s digest is another' $command "$T/bad.ts"
    done
    [ ! -e "$T/out" ]
    jq -c '.digesu = .digest | del(.digest)' "$T/sealed" >"$T/tree/.end"
    tar -C "$T/tree" --format=ustar --hard-dereference --owner=0 --group=0 --no-recursion -cf "$T/bad.ts" -T "$T/packed"
    refused '\.end: malformed' st-sum "$T/bad.ts"
}

@test "a kept calibration that was changed is not taken" {
    random_ids "$T/tokens.safetensors" 1 16
    calib=(amax-calib -q --tokens "$T/tokens.safetensors" --resume "$T/kept" --resume-keep)
    "${calib[@]}" -o "$T/out.ts" "$NANO"
    name=$(st-ls --tsv "$T/kept/calibration.ts" | awk -F'\t' '/input_quantizer/ { print $1; exit }')
    unpack "$T/kept/calibration.ts"
    [ -e "$T/tree/$name" ] || name=$(cut -f1 "$T/tree/.toc" | grep input_quantizer | head -n 1)
    size=$(stat -c %s "$T/tree/$name")
    cp "$T/kept/calibration.ts" "$T/whole.ts"
    # NaN, in the file itself.
    offset=$(grep -abo "$name" "$T/whole.ts" | tail -n 1 | cut -d: -f1)
    [ "$size" -gt 0 ]
    head -c "$size" /dev/zero | tr '\0' '\377' | dd of="$T/kept/calibration.ts" bs=1 seek=$((offset + 512)) conv=notrunc status=none
    refused 'calibration\.ts: \.end: the stream.s digest is another' "${calib[@]}" -o "$T/out.ts" "$NANO"
    # Without a digest, changed or not.
    unseal
    pack "$T/kept/calibration.ts"
    refused 'calibration\.ts: was not written by --resume' "${calib[@]}" -o "$T/out.ts" "$NANO"
}

# ---- runs that are continued ----

# halved STREAM: a run that dies when its first shard is noted, and the second is synced.
halved() {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    run strace -f -o /dev/null -e trace=fsync -e inject=fsync:signal=KILL:when=5 st-write -q "$T/out" "$1"
    [ "$status" -eq 137 ]
    grep -aq ^shard "$T/out.partial/.journal"
}

@test "another inline stream with the same table does not continue a dead run" {
    st-read --inline "$NANO" >"$T/a.ts"
    halved "$T/a.ts"
    cp -a "$T/out.partial" "$T/left"
    unpack "$T/a.ts"
    printf '\x12' | dd of="$T/tree/layers.0.attn_norm.weight" bs=1 seek=1 conv=notrunc status=none
    pack "$T/b.ts"
    for verify in '' --verify; do
        # shellcheck disable=SC2086 # no word
        refused 'tensor layers\.0\.attn_norm\.weight is not what it was when an earlier run finished model-00001' \
            st-write -q $verify "$T/out" "$T/b.ts"
        [ ! -e "$T/out" ]
        rm -rf "$T/out.partial"
        cp -a "$T/left" "$T/out.partial"
    done
    st-write -q --verify "$T/out" "$T/a.ts"
    [ "$(st-sum "$T/out")" = "$(st-sum "$T/a.ts")" ]
}

@test "a source that was replaced by a file of the same size and mtime" {
    cp -r "$NANO" "$T/ckpt"
    victim=$T/ckpt/model-00001-of-00003.safetensors
    st-read "$T/ckpt" >"$T/a.ts"
    halved "$T/a.ts"
    cp -p "$victim" "$T/new"
    printf '\x12' | dd of="$T/new" bs=1 seek=$(($(stat -c %s "$T/new") - 1)) conv=notrunc status=none
    touch -r "$victim" "$T/new"
    sleep 0.01
    mv "$T/new" "$victim"
    # The stream is of the old one; a new stream has the new bytes, in the shard that was finished, too.
    refused 'replaced, linked or given other permissions' st-write -q "$T/out" "$T/a.ts"
    refused 'replaced, linked or given other permissions' st-sum "$T/a.ts"
    st-write --todo "$T/out" >"$T/todo"
    grep -qx model-00001-of-00003.safetensors "$T/todo"
    st-read "$T/ckpt" | st-write -q "$T/out"
    [ "$(st-sum "$T/out")" = "$(st-sum "$T/ckpt")" ]
    [ "$(st-sum "$T/out")" != "$(st-sum "$NANO")" ]
}

# ---- parts ----

# part I [STREAM]: of two.
part() {
    st-read --part "$1/2" --inline "${2-$NANO}" | st-write -q --part "$T/out"
}

@test "--join compares the parts with what was noted of them, and reads them with --verify" {
    part 1
    part 2
    shard=$(echo "$T"/out.partial/part-1-*/*.safetensors)
    cp -p "$shard" "$T/good"
    at=$(($(stat -c %s "$shard") - 9))
    printf '\x5a\xa5' | dd of="$shard" bs=1 seek=$at conv=notrunc status=none
    refused 'it was written to since it was complete' st-write --join "$T/out"
    touch -r "$T/good" "$shard"
    refused 'tensor .* is not what was written' st-write --join --verify "$T/out"
    cp -p "$T/good" "$shard"
    st-write -q --join --verify "$T/out"
    [ "$(st-sum "$T/out")" = "$(st-sum "$NANO")" ]
    ls -A "$T/out" >"$T/list"
    run grep -E 'part|journal' "$T/list"
    [ "$status" -eq 1 ]
}

@test "--join: what st-write did not write into a part, and FIFOs" {
    part 1
    part 2
    folder=$(echo "$T"/out.partial/part-2-*)
    echo mine >"$folder/evil.safetensors"
    refused 'evil\.safetensors: st-write did not write it; move it away' st-write --join "$T/out"
    rm "$folder/evil.safetensors"
    mkfifo "$folder/x"
    refused '/x: st-write did not write it' st-write --join "$T/out"
    rm "$folder/x"
    for name in part.notes part.ts model-00003-of-00003.safetensors; do
        mv "$folder/$name" "$T/saved"
        mkfifo "$folder/$name"
        refused "$name: .*not a regular file" st-write --join "$T/out"
        rm "$folder/$name"
        mv "$T/saved" "$folder/$name"
    done
    st-write -q --join "$T/out"
}

@test "a part that is complete is of the same data, or is refused" {
    part 1
    part 1
    unpack "$NANO"
    printf '\x12' | dd of="$T/tree/layers.0.attn_norm.weight" bs=1 seek=1 conv=notrunc status=none
    pack "$T/b.ts"
    run part 1 "$T/b.ts"
    [ "$status" -ne 0 ] || [[ $output == *'other data'* ]]
}

@test "files in DST.partial that st-write did not write do not get into DST" {
    st-read --inline "$NANO" >"$T/a.ts"
    halved "$T/a.ts"
    cp -a "$T/out.partial" "$T/left"
    rm -rf "$T/out.partial"
    part 1
    part 2
    mkdir "$T/out.partial/.git" "$T/out.partial/inference"
    for name in .git/config inference/model.pyc evil.safetensors x; do
        echo mine >"$T/out.partial/$name"
        refused "out\.partial/$name: st-write did not write it; move it away" st-write --join "$T/out"
        rm "$T/out.partial/$name"
    done
    st-write -q --join "$T/out"
    rm -r "$T/out"
    mv "$T/left" "$T/out.partial"
    mkdir -p "$T/out.partial/.git" "$T/out.partial/inference"
    ln -s / "$T/out.partial/inference/link"
    refused 'out\.partial/inference/link: st-write did not write it' st-write "$T/out" "$T/a.ts"
    rm "$T/out.partial/inference/link"
    touch "$T/out.partial/.nfs0001"
    st-write -q "$T/out" "$T/a.ts"
    [ "$(st-sum "$T/out")" = "$(st-sum "$NANO")" ]
}

# ---- --overwrite ----

@test "--overwrite that died when it removed the old checkpoint, and DST was moved away" {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    st-read "$NANO" | fp8-dequant | st-write -q "$T/out"
    run strace -f -o /dev/null -e trace=unlink,unlinkat -e inject=unlink,unlinkat:signal=KILL:when=4 \
        bash -c "st-read '$NANO' | st-write -q --overwrite '$T/out'"
    [ "$status" -ne 0 ]
    [ -d "$T/out.partial" ]
    mv "$T/out" "$T/moved"
    before=$(find "$T/out.partial" | sort)
    run bash -o pipefail -c "st-read '$NANO' | st-write --overwrite '$T/out'"
    [ "$status" -eq 1 ]
    [[ $output == *'the new one that took its place is not at'* ]]
    [ "$(find "$T/out.partial" | sort)" = "$before" ]
    mv "$T/moved" "$T/out"
    st-read "$NANO" | st-write -q --overwrite "$T/out"
    [ ! -e "$T/out.partial" ]
    [ "$(st-sum "$T/out")" = "$(st-sum "$NANO")" ]
}

@test "removing the old checkpoint follows no link and leaves no folder's bounds" {
    st-read "$NANO" | fp8-dequant | st-write -q "$T/out"
    mkdir -p "$T/precious/deep" "$T/out/sub/deeper"
    echo mine >"$T/precious/deep/file"
    ln -s "$T/precious" "$T/out/link"
    ln -s "$T/precious" "$T/out/sub/deeper/link"
    st-read "$NANO" | st-write -q --overwrite "$T/out"
    [ "$(cat "$T/precious/deep/file")" = mine ]
    [ ! -e "$T/out.partial" ]
    [ ! -e "$T/out/link" ]
}

@test "a folder of the old checkpoint that is replaced by a link while it is removed" {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    st-read "$NANO" | fp8-dequant | st-write -q "$T/out"
    mkdir "$T/precious" "$T/out/sub"
    touch "$T"/{precious,out/sub}/{1..40}
    st-read "$NANO" >"$T/a.ts"
    # Stopped among the 40 files, whether they come first or last.
    strace -f -o "$T/trace" -e trace=unlink,unlinkat -e inject=unlink,unlinkat:signal=STOP:when=20 \
        st-write -q --overwrite "$T/out" "$T/a.ts" 3>&- &
    until grep -qs 'stopped by SIGSTOP' "$T/trace"; do
        kill -0 $!
        sleep 0.01
    done
    mv "$T/out.partial/sub" "$T/moved"
    ln -s "$T/precious" "$T/out.partial/sub"
    pkill -CONT -P $!
    wait $! || true
    [ "$(find "$T/precious" -type f | wc -l)" = 40 ]
}

@test "what is mounted in the old checkpoint stays, also a folder of the same filesystem" {
    mkdir "$T/precious" "$T/tried"
    echo mine >"$T/precious/file"
    mount --bind "$T/precious" "$T/tried" 2>/dev/null || skip 'no right to mount'
    umount "$T/tried"
    st-read "$NANO" | fp8-dequant | st-write -q "$T/out"
    mkdir "$T/out/sub"
    mount --bind "$T/precious" "$T/out/sub"
    refused 'out\.partial: the new checkpoint is in place, but something is mounted in the old one' \
        bash -c "st-read '$NANO' | st-write -q --overwrite '$T/out'" || failed=1
    umount "$T/out.partial/sub"
    [ "$(cat "$T/precious/file")" = mine ]
    [ -z "${failed-}" ]
    st-read "$NANO" | st-write -q --overwrite "$T/out"
    [ ! -e "$T/out.partial" ]
}

@test "DST.partial that somebody moves during the run, with another folder in its place" {
    st-read --inline "$NANO" >"$T/a.ts"
    mkfifo "$T/slow"
    for old in '' --overwrite; do
        # shellcheck disable=SC2086 # no word
        st-write -q $old "$T/out" <"$T/slow" 2>"$T/said" 3>&- &
        exec 5>"$T/slow"
        head -c 6000000 "$T/a.ts" >&5
        until [ -e "$T/out.partial/.journal" ]; do sleep 0.01; done
        mv "$T/out.partial" "$T/moved"
        mkdir "$T/out.partial"
        before=$(find "$T/out" 2>/dev/null || true)
        tail -c +6000001 "$T/a.ts" >&5
        exec 5>&-
        status=0
        wait $! || status=$?
        [ "$status" -eq 1 ]
        grep -q 'out\.partial: was renamed or replaced' "$T/said"
        [ "$(find "$T/out" 2>/dev/null || true)" = "$before" ]
        # What it says helps.
        rmdir "$T/out.partial"
        mv "$T/moved" "$T/out.partial"
        # shellcheck disable=SC2086 # no word
        st-write -q $old "$T/out" "$T/a.ts"
        [ "$(st-sum "$T/out")" = "$(st-sum "$T/a.ts")" ]
    done
}

@test "--join --overwrite without parts says that the checkpoint may be an earlier join's" {
    part 1
    part 2
    st-write -q --join --overwrite "$T/out"
    refused 'out: is complete, and no parts are at .*out\.partial: an earlier --join put it in place, or' \
        st-write -q --join --overwrite "$T/out"
    st-write -q --join "$T/out"
}

@test "a source that cannot be opened for a moment leaves no record that says less" {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    st-read "$NANO" >"$T/a.ts"
    st-write -q "$T/whole" "$T/a.ts"
    shard=$(realpath "$NANO/model-00001-of-00003.safetensors")
    for ((i = 1; ; i++)); do
        run strace -f -P "$shard" -e trace=openat -e inject=openat:error=EINTR:when=$i -o "$T/trace" \
            st-write -q "$T/out" "$T/a.ts"
        grep -q INJECTED "$T/trace" || break
        [ "$status" -ne 0 ] || cmp "$T/whole/quant-run.json" "$T/out/quant-run.json"
        rm -rf "$T"/out*
    done
    [ "$i" -gt 2 ]
}

# ---- neighbours ----

@test "links, devices and FIFOs of another user are not written" {
    [ "$(id -u)" = 0 ] || skip 'only root can give files to others'
    echo secret >"$T/secret"
    mkdir "$T/folder"
    pt-read "$NANO_AMAX" >"$T/dump.ts"
    ln -s "$T/secret" "$T/x.ts"
    ln -s "$T/folder" "$T/out"
    mkfifo "$T/fifo"
    st-read -o "$T/x.ts" "$src"
    [ -L "$T/x.ts" ]
    echo secret >"$T/secret"
    chown -h nobody "$T/x.ts" "$T/out" "$T/fifo"
    for name in x.ts fifo; do
        refused "$name: it is a link, device or FIFO of another user, who would choose what is written" timeout 20 st-read -o "$T/$name" "$src"
        run timeout 20 pipelines/amax-plot -o "$T/$name" "$T/dump.ts"
        [ "$status" -eq 2 ]
        [[ $output == *"$name is a link, device or FIFO of another user"* ]]
        # It may appear after that.
        run timeout 20 bash -c ". pipelines/seekpipe.bash && put_file '$T/dump.ts' '$T/$name'"
        [ "$status" -eq 1 ]
        [[ $output == *"$name: is a link, device or FIFO of another user"* ]]
    done
    refused 'out: it is a link, device or FIFO of another user' bash -c "st-read '$NANO' | st-write -q '$T/out'"
    [ "$(cat "$T/secret")" = secret ]
    [ -z "$(ls -A "$T/folder")" ]
}

@test "a file that takes the name of one about to be complete is not put in place" {
    echo old >"$T/x.ts"
    replace() { mv "$T/x.ts.1.partial" "$T/moved" && echo planted >"$T/x.ts.1.partial"; }
    stopped_at linkat 2 replace st-read -o "$T/x.ts" "$src"
    [ "$status" -eq 1 ]
    grep -q 'x\.ts\.1\.partial: another user renamed or replaced it' "$T/said"
    [ "$(cat "$T/x.ts")" = old ]
    [ "$(cat "$T/x.ts.1.partial")" = planted ]
}

@test "a folder that takes the place of DST.partial is not put in place" {
    st-read "$NANO" >"$T/a.ts"
    st-write -q "$T/planted" "$T/a.ts"
    replace() { mv "$T/out.partial" "$T/moved" && cp -r "$T/planted" "$T/out.partial"; }
    stopped_at fsync 4 replace st-write -q "$T/out" "$T/a.ts"
    [ "$status" -eq 1 ]
    grep -q 'out\.partial: was renamed or replaced, and is not put in place' "$T/said"
    [ ! -e "$T/out" ]
    rm -r "$T/out.partial"
    mv "$T/moved" "$T/out.partial"
    st-write -q "$T/out" "$T/a.ts"
    [ "$(st-sum "$T/out")" = "$(st-sum "$NANO")" ]
}

@test "a folder that is moved away in the last steps: they are not left out" {
    st-read "$NANO" >"$T/a.ts"
    strace -f -o "$T/log" -e trace=access st-write -q "$T/out" "$T/a.ts" || skip 'strace is missing, or may not trace'
    count=$(grep -c 'access(' "$T/log")
    move() { mv "$T/here" "$T/there"; }
    for ((i = count - 3; i <= count; i++)); do
        rm -rf "$T/here" "$T/there"
        mkdir "$T/here"
        stopped_at access "$i" move st-write -q "$T/here/out" "$T/a.ts"
        mv "$T/there" "$T/here"
        [ "$status" = 0 ] || st-write -q "$T/here/out" "$T/a.ts"
        [ ! -e "$T/here/out/.journal" ]
        [ "$(st-sum "$T/here/out")" = "$(st-sum "$NANO")" ]
    done
}

@test "--overwrite replaces what was there when it began, and nothing that came later" {
    st-read "$NANO" >"$T/a.ts"
    for before in checkpoint nothing; do
        rm -rf "$T"/out* "$T/moved"
        [ "$before" = nothing ] || st-write -q "$T/out" "$T/a.ts"
        replace() {
            [ "$before" = nothing ] || mv "$T/out" "$T/moved"
            mkdir "$T/out"
            echo mine >"$T/out/file"
        }
        stopped_at flock 1 replace st-write -q --overwrite "$T/out" "$T/a.ts"
        [ "$status" -eq 1 ]
        grep -q 'out: is not what was there when this run began; move it away' "$T/said"
        [ "$(cat "$T/out/file")" = mine ]
        mv "$T/out" "$T/mine"
        st-write -q --overwrite "$T/out" "$T/a.ts"
        [ "$(st-sum "$T/out")" = "$(st-sum "$NANO")" ]
        rm -r "$T/mine"
    done
}

@test "a DST.partial of another user is not continued" {
    [ "$(id -u)" = 0 ] || skip 'only root can give files to others'
    for made in empty run; do
        rm -rf "$T/out.partial"
        if [ $made = run ]; then halved "$T/small2.ts"; else mkdir "$T/out.partial"; fi
        chown -R nobody "$T/out.partial"
        refused 'out\.partial: belongs to another user' bash -c "st-read '$NANO' | st-write -q '$T/out'"
        refused 'out\.partial: belongs to another user' st-write --todo "$T/out"
        [ ! -e "$T/out" ]
        [ $made = empty ] || break
        st-read --inline "$NANO" >"$T/small2.ts"
    done
    chown -R root "$T/out.partial"
    st-write -q "$T/out" "$T/small2.ts"
}

# nobody COMMAND...: as another user; or false if that cannot be.
nobody() {
    setpriv --reuid 65534 --clear-groups "$@"
}

@test "another user's checkpoint that was in its last step when it was checked is not replaced" {
    [ "$(id -u)" = 0 ] && nobody true || skip 'only root can act for others'
    chmod 711 "$T"
    mkdir -m 777 "$T/open"
    st-read "$NANO" | st-write -q "$T/open/out"
    : >"$T/open/out/.journal"
    fp8-dequant "$NANO" >"$T/a.ts"
    chmod 777 "$T/open"
    end() { rm "$T/open/out/.journal"; }
    stopped_at rename 1 end setpriv --reuid 65534 --clear-groups st-write -q --overwrite "$T/open/out" "$T/a.ts"
    [ "$status" -eq 1 ]
    grep -q 'open/out: --overwrite could not remove what is in it' "$T/said"
    [ "$(st-sum "$T/open/out")" = "$(st-sum "$NANO")" ]
}

@test "what another user planted in a shared folder is not written through" {
    [ "$(id -u)" = 0 ] && nobody true || skip 'only root can act for others'
    chmod 711 "$T"
    mkdir -m 1777 "$T/shared"
    mkdir -m 755 "$T/own"
    echo key >"$T/key"
    nobody ln -s "$T/key" "$T/shared/x.ts"
    nobody ln -s "$T/own" "$T/shared/folder"
    nobody mkfifo "$T/shared/fifo"
    pt-read "$NANO_AMAX" >"$T/dump.ts"
    wrong='is a link, device or FIFO of another user, who would choose what is written'
    for name in x.ts folder/x.ts fifo; do
        refused "$wrong" st-read -o "$T/shared/$name" "$src"
        refused "$wrong" st-sum -o "$T/shared/$name" "$src"
        refused "$wrong" amax-merge -q --fallback layer-max --summary "$T/shared/$name" -o "$T/amax.ts" "$T/dump.ts"
    done
    refused "$wrong" st-write -q "$T/shared/folder" "$NANO"
    refused "$wrong" st-write -q "$T/shared/folder/out" "$NANO"
    random_ids "$T/tokens.safetensors" 1 16
    refused "$wrong" amax-calib -q --tokens "$T/tokens.safetensors" --resume "$T/shared/folder" "$NANO"
    if command -v gnuplot >/dev/null; then
        for name in x.ts fifo; do
            run timeout 20 pipelines/amax-plot -o "$T/shared/$name" "$T/dump.ts"
            [ "$status" -eq 2 ]
            [[ $output == *"$wrong"* ]]
        done
    fi
    [ "$(cat "$T/key")" = key ]
    [ -z "$(ls -A "$T/own")" ]
    # What one cannot replace in the end.
    : >"$T/shared/roots"
    if nobody test -x "$(command -v st-sum)" && nobody test -r "$src"; then
        refused 'roots: belongs to another user, and only they may replace it' \
            setpriv --reuid 65534 --clear-groups "$(command -v st-sum)" -o "$T/shared/roots" "$src"
    fi
    # One's own, and the folder's owner's, and what lies elsewhere.
    ln -s "$T/key" "$T/shared/own.ts"
    st-read -o "$T/shared/own.ts" "$src"
    [ "$(st-sum "$T/key")" = "$(st-sum "$src")" ]
    mkdir -m 755 "$T/closed"
    ln -s "$T/own" "$T/closed/folder"
    chown -h nobody "$T/closed/folder"
    st-read -o "$T/closed/folder/x.ts" "$src"
}

@test "folders of another user: parts, a kept calibration, a checkpoint that looks complete" {
    [ "$(id -u)" = 0 ] || skip 'only root can give files to others'
    mkdir -p "$T/out.partial" "$T/kept" "$T/to.calib/its"
    chown nobody "$T/out.partial" "$T/kept" "$T/to.calib"
    refused 'out\.partial: belongs to another user' bash -c "st-read --part 1/2 '$NANO' | st-write -q --part '$T/out'"
    random_ids "$T/tokens.safetensors" 1 16
    refused 'kept: belongs to another user' amax-calib -q --tokens "$T/tokens.safetensors" --resume "$T/kept" "$NANO"
    echo 'A text.' >"$T/text.txt"
    run pipelines/v4-experts --amax "$NANO_AMAX" --eval "$T/text.txt" "$NANO" "$T/to"
    [ "$status" -eq 1 ]
    [[ $output == *'to.calib: belongs to another user'* ]]
    [ -z "$(find "$T/out.partial" "$T/kept" "$T/to.calib" -type f)" ]
    st-read "$NANO" | st-write -q "$T/done"
    cp -r "$T/done" "$T/good"
    printf '\x12' | dd of="$T/done/model-00001-of-00003.safetensors" bs=1 seek=4000000 conv=notrunc status=none
    chown -R nobody "$T/done"
    refused 'done: belongs to another user; compare it' bash -c "st-read '$NANO' | st-write '$T/done'"
    refused 'done: belongs to another user; compare it' bash -c "st-read -n '$NANO' | st-write -n '$T/done'"
    refused 'done: belongs to another user; choose' st-write --join "$T/done"
    refused 'is not what the stream gives' bash -c "st-read '$NANO' | st-write --verify '$T/done'"
    cp "$T/good/model-00001-of-00003.safetensors" "$T/done"
    pipeline "st-read '$NANO' | st-write -q --verify '$T/done'"
}

@test "another user's journal does not say that a run is done" {
    [ "$(id -u)" = 0 ] || skip 'only root can give files to others'
    st-read --inline "$NANO" >"$T/a.ts"
    halved "$T/a.ts"
    st-read "$NANO" | fp8-dequant | st-write -q --partial "$T/other"
    mv "$T/other" "$T/out"
    before=$(st-sum "$T/out")
    printf 'replaced\t%d\t%d\n' "$(stat -c %d "$T/out")" "$(stat -c %i "$T/out")" >>"$T/out.partial/.journal"
    cp -r "$T/out.partial" "$T/left"
    chown -R nobody "$T/out.partial"
    refused 'out\.partial: belongs to another user' st-write -q --overwrite "$T/out" "$T/a.ts"
    [ "$(st-sum "$T/out")" = "$before" ]
    [ -s "$T/out.partial/.journal" ]
    # One's own does.
    rm -r "$T/out.partial"
    mv "$T/left" "$T/out.partial"
    st-write --overwrite "$T/out" "$T/a.ts" 2>&1 | grep 'an earlier run had completed it'
}

@test "a complete shard that something else writes to is found" {
    st-read --inline "$NANO" >"$T/a.ts"
    mkfifo "$T/slow"
    st-write -q "$T/out" <"$T/slow" 2>"$T/said" 3>&- &
    exec 5>"$T/slow"
    head -c -2000 "$T/a.ts" >&5
    until grep -aqs ^shard "$T/out.partial/.journal"; do sleep 0.01; done
    printf x | dd of="$T/out.partial/model-00001-of-00003.safetensors" bs=1 seek=4000000 conv=notrunc status=none
    tail -c 2000 "$T/a.ts" >&5
    exec 5>&-
    status=0
    wait $! || status=$?
    [ "$status" -eq 1 ]
    grep -q 'model-00001-of-00003.safetensors: it was written to since it was complete' "$T/said"
    [ ! -e "$T/out" ]
}

# Names that normalization would compose are refused before that: hostile-checkpoint.bats.
@test "names that are one file where case or normalization does not count" {
    for pair in 'MODEL-00001-of-00003.safetensors.txt model-00001-OF-00003.safetensors.TXT' 'Config.JSON' 'README.MD readme.md' \
        $'stra\u00dfe STRASSE' 'x.txt X.txt.' 'x/y x./y' $'read\u200cme readme' $'\uff41.txt a.txt'; do
        cp -r "$NANO" "$T/ckpt"
        for name in $pair; do mkdir -p "$(dirname "$T/ckpt/$name")" && echo x >"$T/ckpt/$name"; done
        refused '(are one file where case or Unicode normalization does not count|occurs twice)' \
            bash -c "st-read '$T/ckpt' | st-write -q '$T/out'"
        refused '(are one file where case|occurs twice)' bash -c "st-read -n '$T/ckpt' | st-write -n '$T/out'"
        [ ! -e "$T/out" ]
        rm -r "$T/ckpt"
    done
    # A shard and a side file, in a stream.
    unpack "$NANO"
    echo x >"$T/tree/files/MODEL-00001-of-00003.SAFETENSORS"
    { sed -n 1,2p "$T/order"; echo files/MODEL-00001-of-00003.SAFETENSORS; sed 1,2d "$T/order"; } >"$T/longer"
    mv "$T/longer" "$T/order"
    pack "$T/b.ts"
    refused 'are one file|not a valid name of a side file' st-write -q "$T/out" "$T/b.ts"
}
