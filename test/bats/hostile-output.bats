# Outputs that cannot be, or fail half way: said before the first byte where it can be known, in one line,
# and nothing is left that looks finished.
# shellcheck disable=SC2016 # for the inner shell

load common
load craft

prepare() {
    src=$T/src
    cp -r "$NANO" "$src"
    st-read "$src" >"$T/a.ts"
    st-read --inline "$src" >"$T/inline.ts"
    sum=$(st-sum "$src")
}

# untouched: the source is what it was.
untouched() {
    diff -r "$NANO" "$src"
}

# ---- folders of st-write ----

@test "the source's folder, folders in it, and folders around it" {
    mkdir "$src/empty"
    ln -s src "$T/link"
    for options in '' --overwrite; do
        for target in "$src" "$src/" "$src/new" "$src/empty" "$src/empty/new" "$T" "$T/" "$T/link" "$T/link/new" \
            "$src/../src" "$src/../src/new" "$src/inference" "$src/inference/new"; do
            # shellcheck disable=SC2086
            refused 'source.s folder.*; choose another folder' st-write $options "$target" "$T/a.ts"
        done
    done
    # Also when the stream's paths lead through links.
    mv "$src" "$T/moved"
    ln -s moved "$T/via"
    st-read --root "$src=$T/via" "$T/a.ts" >"$T/b.ts"
    [ "$(st-sum "$T/b.ts")" = "$sum" ]
    for target in "$T/moved" "$T/moved/new" "$T/via" "$T/via/new"; do
        refused 'source.s folder.*; choose another folder' st-write --overwrite "$target" "$T/b.ts"
    done
    mv "$T/moved" "$src"
    rmdir "$src/empty"
    untouched
}

@test "a Hugging Face cache is a source, too" {
    mkdir -p "$T/hub/blobs" "$T/hub/snapshots/abc"
    for file in "$src"/*.*; do
        cp "$file" "$T/hub/blobs/${file##*/}.blob"
        ln -s "../../blobs/${file##*/}.blob" "$T/hub/snapshots/abc/${file##*/}"
    done
    st-read "$T/hub/snapshots/abc" >"$T/b.ts"
    for target in snapshots/abc snapshots/abc/new snapshots blobs blobs/new; do
        refused 'source.s folder.*; choose another folder' st-write --overwrite "$T/hub/$target" "$T/b.ts"
    done
    [ "$(st-sum "$T/hub/snapshots/abc")" = "$sum" ]
}

@test "what is no folder, or has none to lie in" {
    : >"$T/file"
    mkfifo "$T/fifo"
    ln -s nowhere "$T/dangling"
    for options in '' --overwrite; do
        for target in "$T/file" "$T/fifo" /dev/null; do
            # shellcheck disable=SC2086
            refused 'exists and is not a folder' st-write $options "$target" "$T/a.ts"
        done
        # shellcheck disable=SC2086
        refused 'dangling: No such file' st-write $options "$T/dangling" "$T/a.ts"
        # shellcheck disable=SC2086
        refused 'No such file' st-write $options "$T/no/parent" "$T/a.ts"
    done
    for target in . .. / "$T/."; do
        run st-write "$target" "$T/a.ts"
        [ "$status" -eq 2 ]
    done
    mkdir "$T/full"
    : >"$T/full/file"
    refused 'full: is not empty; choose another folder, or --overwrite it' st-write "$T/full" "$T/a.ts"
    # A link to a folder: that folder.
    mkdir "$T/real"
    ln -s real "$T/to-real"
    st-write -q "$T/to-real" "$T/a.ts"
    [ -L "$T/to-real" ]
    [ "$(st-sum "$T/real")" = "$sum" ]
    # What is in the way of DST.partial.
    : >"$T/x.partial"
    refused 'x\.partial' st-write "$T/x" "$T/a.ts"
    ln -s real "$T/y.partial"
    refused 'y\.partial' st-write "$T/y" "$T/a.ts"
    mkdir "$T/z.partial"
    echo mine >"$T/z.partial/file"
    refused 'z\.partial: is in the way: st-write did not make it; move or remove it' st-write "$T/z" "$T/a.ts"
    [ "$(cat "$T/z.partial/file")" = mine ]
    [ ! -e "$T/x" ] && [ ! -e "$T/y" ] && [ ! -e "$T/z" ]
}

@test "nothing is written through links that someone put into DST.partial" {
    # As a run leaves it that was cut.
    head -c 300000 "$T/a.ts" | st-write "$T/out" 2>/dev/null || true
    for name in model-00001-of-00003.safetensors config.json; do
        rm -f "$T/out.partial/$name"
        echo old >"$T/elsewhere"
        ln -s "$T/elsewhere" "$T/out.partial/$name"
        refused 'Too many levels of symbolic links' st-write "$T/out" "$T/a.ts"
        [ "$(cat "$T/elsewhere")" = old ]
        rm "$T/out.partial/$name"
    done
    mkdir "$T/folder"
    rm -rf "$T/out.partial/inference"
    ln -s "$T/folder" "$T/out.partial/inference"
    refused 'inference: not a folder' st-write "$T/out" "$T/a.ts"
    [ -z "$(ls "$T/folder")" ]
    rm "$T/out.partial/inference"
    st-write -q "$T/out" "$T/a.ts"
    [ "$(st-sum "$T/out")" = "$sum" ]
}

@test "one st-write at a time" {
    mkfifo "$T/fifo"
    timeout 20 st-write -q "$T/out" <"$T/fifo" 3>&- &
    first=$!
    exec 5>"$T/fifo"
    # More than a pipe and a reader's buffer hold: when it is taken, the first one is at work.
    head -c 6000000 "$T/inline.ts" >&5
    [ -d "$T/out.partial" ]
    refused 'out\.partial: another st-write is at work in it' st-write "$T/out" "$T/inline.ts"
    tail -c +6000001 "$T/inline.ts" >&5
    exec 5>&-
    wait "$first"
    [ "$(st-sum "$T/out")" = "$sum" ]
    [ ! -e "$T/out.partial" ]
}

@test "what a killed run left: continued by the same input, refused with another" {
    st-write -q "$T/whole" "$T/inline.ts"
    mkfifo "$T/fifo"
    st-write -q "$T/out" <"$T/fifo" 3>&- &
    victim=$!
    exec 5>"$T/fifo"
    head -c 6000000 "$T/inline.ts" >&5
    kill -9 "$victim"
    exec 5>&-
    wait "$victim" || true
    [ ! -e "$T/out" ]
    [ -d "$T/out.partial" ]
    for program in st-read st-sum; do
        refused 'did not finish' "$program" "$T/out.partial"
    done
    fp8-dequant "$src" >"$T/other.ts"
    refused 'out\.partial: was left by a run with other input or options; remove it' st-write "$T/out" "$T/other.ts"
    [ ! -e "$T/out" ]
    st-write -q "$T/out" "$T/inline.ts"
    diff -r "$T/whole" "$T/out"
    [ ! -e "$T/out.partial" ]
}

@test "the input fails at its very end: DST is not there, or still the old one" {
    head -c -3000 "$T/inline.ts" >"$T/cut.ts"
    refused 'cut\.ts: .*make it again' st-write "$T/out" "$T/cut.ts"
    [ ! -e "$T/out" ]
    rm -r "$T/out.partial"
    mkdir "$T/out"
    echo old >"$T/out/m.safetensors"
    refused 'cut\.ts: .*make it again' st-write --overwrite "$T/out" "$T/cut.ts"
    [ "$(ls "$T/out")" = m.safetensors ]
}

# ---- files of -o ----

@test "-o: devices, FIFOs and folders" {
    [ -c /dev/null ] && [ -c /dev/full ] || skip "no /dev/null or /dev/full"
    st-read -o /dev/null "$src"
    [ -c /dev/null ]
    [ ! -e /dev/null.partial ]
    refused '/dev/full: offset [0-9]+: .*No space left on device; what was written is incomplete' st-read --inline -o /dev/full "$src"
    # References only: all of it is written at the end.
    refused '/dev/full: offset [0-9]+: .*No space left on device; what was written is incomplete' st-read -o /dev/full "$src"
    [ -c /dev/full ]
    [ ! -e /dev/full.partial ]
    mkfifo "$T/fifo"
    timeout 20 st-sum "$T/fifo" >"$T/sum" 3>&- &
    st-read -o "$T/fifo" "$src"
    wait $!
    [ "$(cat "$T/sum")" = "$sum" ]
    [ -p "$T/fifo" ]
    mkdir "$T/folder"
    refused 'folder/?: is a folder; name a file' st-read -o "$T/folder" "$src"
    refused 'folder/?: is a folder; name a file' st-read -o "$T/folder/" "$src"
    refused 'No such file' st-read -o "$T/no/parent" "$src"
    [ -z "$(ls -A "$T/folder")" ]
    untouched
}

@test "-o of a report, and --summary: devices, FIFOs and folders" {
    # shellcheck disable=SC2086 # a command is words
    for command in "st-ls -o" "st-stat -o" "st-sum -o" "amax-merge -q --fallback layer-max -o $T/amax.ts --summary"; do
        input=$src
        case $command in amax-merge*) pt-read -o "$T/dump.ts" "$NANO_AMAX" && input=$T/dump.ts ;; esac
        $command "$T/report" "$input"
        [ ! -e "$T/report.partial" ]
        rm -f "$T/fifo"
        mkfifo "$T/fifo"
        timeout 20 cat "$T/fifo" >"$T/read" 3>&- &
        timeout 20 $command "$T/fifo" "$input"
        wait $!
        cmp "$T/report" "$T/read"
        [ -p "$T/fifo" ]
        mkdir -p "$T/folder"
        refused 'folder: is a folder; name a file' $command "$T/folder" "$input"
    done
    [ -c /dev/full ] || skip "no /dev/full"
    refused 'standard output: No space left on device' st-sum -o /dev/full "$src"
    [ -c /dev/full ]
    [ ! -e /dev/full.partial ]
}

@test "-o through a symbolic link: the file that it points to is replaced, when the new one is whole" {
    mkdir "$T/there"
    ln -s there/file "$T/link"
    refused 'link: is a symbolic link to nothing' st-sum -o "$T/link" "$src"
    echo old >"$T/there/file"
    head -c 5000000 "$T/inline.ts" >"$T/cut.ts"
    refused 'cut\.ts: ' st-sum -o "$T/link" "$T/cut.ts"
    [ "$(cat "$T/there/file")" = old ]
    st-sum -o "$T/link" "$src"
    [ "$(cat "$T/there/file")" = "$sum" ]
    st-read -o "$T/link" "$src"
    [ "$(st-sum "$T/there/file")" = "$sum" ]
    [ -L "$T/link" ]
    [ "$(ls "$T/there")" = file ]
}

@test "-o FILE keeps an old FILE until the new one is whole" {
    echo old >"$T/b.ts"
    head -c 5000000 "$T/inline.ts" >"$T/cut.ts"
    for program in st-read fp8-dequant mxfp4-unpack; do
        refused 'cut\.ts: ' "$program" -o "$T/b.ts" "$T/cut.ts"
        [ "$(cat "$T/b.ts")" = old ]
    done
    # A stream may replace the one it was made from.
    st-read --inline -o "$T/inline.ts" "$T/inline.ts"
    [ "$(st-sum "$T/inline.ts")" = "$sum" ]
}

@test "standard output on a full disk" {
    [ -c /dev/full ] || skip "no /dev/full"
    for program in 'st-read --inline' fp8-dequant mxfp4-unpack st-read; do
        run bash -c "timeout 20 $program '$src' >/dev/full"
        [ "$status" -eq 1 ]
        [ "${#lines[@]}" -eq 1 ]
        [[ $output == *'standard output: '*'No space left on device; what was written is incomplete' ]]
    done
    for program in 'st-sum --each' 'st-write -n x'; do
        run bash -c "timeout 20 $program '$src' >/dev/full"
        [ "$status" -eq 1 ]
        [ "${#lines[@]}" -eq 1 ]
        [[ $output == *'standard output: No space left on device' ]]
    done
}

# ---- disks that are too small ----

# on_disk SIZE COMMAND: in bash, with an empty tmpfs of that size at $T/disk, which is gone afterwards.
on_disk() {
    local unshare=(unshare -m)
    mkdir -p "$T/disk"
    [ "$(id -u)" = 0 ] || unshare=(unshare -rm)
    "${unshare[@]}" mount -t tmpfs -o size=1m none "$T/disk" 2>/dev/null ||
        skip "cannot mount a tmpfs here"
    export T src sum
    timeout 60 "${unshare[@]}" bash -c "mount -t tmpfs -o size=$1 none '$T/disk'; $(declare -f refused); $2"
}

@test "a disk that is too small, known before the first byte" {
    on_disk 8m '
        set -e
        refused "disk/out: 12\.[0-9] MB are needed, 8\.[0-9] MB are free; make room, or choose another disk" \
            st-write "$T/disk/out" "$T/a.ts"
        refused "disk/out: 12\.[0-9] MB are needed" st-write -n "$T/disk/out" "$T/a.ts"
        [ ! -e "$T/disk/out" ]
        [ -z "$(find "$T/disk" -name "*.safetensors")" ]
        refused "b\.ts: 12[0-9]* bytes are needed, 8[0-9]* are free; make room, or choose another disk" \
            st-read --inline -o "$T/disk/b.ts" "$src"
        [ ! -e "$T/disk/b.ts" ]
        [ "$(stat -c %s "$T/disk/b.ts.partial")" = 0 ]'
}

@test "a disk that fills up on the way" {
    on_disk 14m '
        set -e
        # Enough when it is looked at; then another one takes it.
        mkfifo "$T/fifo"
        timeout 20 st-write "$T/disk/out" <"$T/fifo" 2>"$T/refused" & last=$!
        exec 5>"$T/fifo"
        head -c 6000000 "$T/inline.ts" >&5
        cat /dev/zero >"$T/disk/other" 2>/dev/null || true
        (trap "" PIPE; tail -c +6000001 "$T/inline.ts" >&5 2>/dev/null) || true
        exec 5>&-
        status=0
        wait $last || status=$?
        [ $status = 1 ]
        [ "$(wc -l <"$T/refused")" = 1 ]
        grep -qE "^st-write: [a-z].*, to $T/disk/out\.partial/model-.*: (writing at|copying to) offset [0-9]+: No space left" "$T/refused"
        [ ! -e "$T/disk/out" ]
        # What is left is continued when there is room again.
        rm "$T/disk/other"
        st-write -q "$T/disk/out" "$T/inline.ts"
        [ "$(st-sum "$T/disk/out")" = "$sum" ]'
}

@test "what a run left is room for the next" {
    on_disk 16m '
        set -e
        head -c 12000000 "$T/inline.ts" | st-write "$T/disk/out" 2>/dev/null || true
        [ -d "$T/disk/out.partial" ]
        st-write -q "$T/disk/out" "$T/inline.ts"
        [ "$(st-sum "$T/disk/out")" = "$sum" ]'
}

@test "a stage runs into a full disk" {
    on_disk 8m '
        set -e
        for program in fp8-dequant mxfp4-unpack; do
            refused "b\.ts: offset [0-9]+: .*No space left on device; what was written is incomplete" \
                "$program" -o "$T/disk/b.ts" "$T/inline.ts"
            [ ! -e "$T/disk/b.ts" ]
            rm "$T/disk/b.ts.partial"
        done'
}

@test "a limit on the size of files" {
    limited=(bash -c 'ulimit -f 2000; exec "$@"' -)
    refused 'b\.ts: offset [0-9]+: .*File too large; what was written is incomplete' "${limited[@]}" st-read --inline -o "$T/b.ts" "$src"
    refused 'b\.ts: offset [0-9]+: .*File too large' "${limited[@]}" fp8-dequant -o "$T/b.ts" "$src"
    refused 'out\.partial/model.*: File too large' "${limited[@]}" st-write "$T/out" "$T/a.ts"
    [ ! -e "$T/b.ts" ] && [ ! -e "$T/out" ]
}

# ---- pipes ----

@test "a closed pipe ends a stage silently" {
    for command in "st-read --inline '$src'" "fp8-dequant '$src'" "mxfp4-unpack '$T/inline.ts'" "st-read --inline '$src' | fp8-dequant"; do
        run timeout 20 bash -c "$command | head -c 1 >/dev/null; echo \${PIPESTATUS[*]}"
        [ "$status" -eq 0 ]
        [[ $output =~ ^(141\ )+0$ ]]
    done
    # Where SIGPIPE is ignored, it is an error like others.
    run timeout 20 bash -c "trap '' PIPE; { st-read --inline '$src'; echo \$? >'$T/status'; } | head -c 1 >/dev/null"
    [ "$(cat "$T/status")" -eq 1 ]
    [ "${#lines[@]}" -eq 1 ]
    [[ $output == *'Broken pipe'* ]]
}

@test "standard output, input or error that is closed" {
    for command in "st-read --inline '$src' >&-" 'st-sum <&-' "st-ls '$src' >&-"; do
        run timeout 20 bash -c "$command"
        [ "$status" -eq 1 ]
        [ "${#lines[@]}" -eq 1 ]
        [[ $output == *'Bad file descriptor'* ]]
    done
    # No file that is opened gets their numbers: nothing meant for them gets into it.
    timeout 20 st-write -q "$T/out" "$T/a.ts" <&- >&- 2>&-
    timeout 20 st-read --inline -v -o "$T/b.ts" "$src" <&- >&- 2>&-
    timeout 20 st-sum -o "$T/c" "$src" <&- >&- 2>&-
    [ "$(st-sum "$T/out")" = "$sum" ]
    [ "$(st-sum "$T/b.ts")" = "$sum" ]
    [ "$(cat "$T/c")" = "$sum" ]
    untouched
}
