# Outputs that cannot be, or fail half way: said before the first byte where it can be known, in one line,
# and nothing is left that looks finished.
# shellcheck disable=SC2016,SC2030,SC2031 # for the inner shell; functions run commands for several tests

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
        refused 'dangling: is a symbolic link to nothing' st-write $options "$T/dangling" "$T/a.ts"
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
    ln -s real "$T/y.partial"
    mkdir "$T/z.partial"
    echo mine >"$T/z.partial/file"
    for options in '' -n; do
        # shellcheck disable=SC2086
        {
            refused 'x\.partial' st-write $options "$T/x" "$T/a.ts"
            refused 'y\.partial' st-write $options "$T/y" "$T/a.ts"
            refused 'z\.partial: is in the way: st-write did not make it; move or remove it' \
                st-write $options "$T/z" "$T/a.ts"
        }
    done
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
    for plan in '' -n; do
        # shellcheck disable=SC2086 # none, or one
        refused 'out\.partial: was left by a run with other input or options; remove it' st-write $plan "$T/out" "$T/other.ts"
        # shellcheck disable=SC2086
        refused 'out\.partial: belongs to a run in one piece' \
            bash -c "st-read --part 1/2 '$src' | fp8-dequant $plan | st-write $plan --part '$T/out'"
    done
    st-write -n "$T/out" "$T/inline.ts"
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

# ---- folders that cannot be replaced ----

# The words before a command that may write only what others may: a test's user, or nobody.
unprivileged=()
[ "$(id -u)" != 0 ] || unprivileged=(setpriv --reuid 65534 --regid 65534 --clear-groups)

# fixed: an empty folder $T/parent/out in which that user may write, in one in which he may not.
fixed() {
    chmod 755 "$T"
    mkdir "$T/parent" "$T/parent/out"
    [ "$(id -u)" != 0 ] || chown 65534 "$T/parent/out"
    chmod 555 "$T/parent"
    "${unprivileged[@]}" st-read -n "$src" >/dev/null 2>&1 || skip 'no other user may read the source'
}

@test "the parent is not writable: an empty folder is worked in" {
    fixed
    for state in absent complete; do
        [ "$("${unprivileged[@]}" st-write --state "$T/parent/out")" = $state ]
        "${unprivileged[@]}" st-write -n "$T/parent/out" "$T/a.ts"
        "${unprivileged[@]}" st-write -q "$T/parent/out" "$T/a.ts"
    done
    st-write -q "$T/whole" "$T/a.ts"
    diff -r "$T/whole" "$T/parent/out"
    # It stays what cannot be replaced.
    "${unprivileged[@]}" fp8-dequant "$src" >"$T/b.ts"
    refused 'of the same input and options.*or remove its files' "${unprivileged[@]}" st-write "$T/parent/out" "$T/b.ts"
    refused 'is not empty, and --overwrite cannot replace it' \
        "${unprivileged[@]}" st-write --overwrite "$T/parent/out" "$T/b.ts"
}

@test "--overwrite of a folder whose files may not be removed" {
    [ "$(id -u)" = 0 ] || skip 'only root can make one'
    fixed
    chmod 777 "$T/parent"
    mkdir "$T/parent/old"
    echo old >"$T/parent/old/m.safetensors"
    for options in '' -n; do
        # shellcheck disable=SC2086
        refused 'parent/old: --overwrite could not remove what is in it; choose another folder: Permission denied' \
            "${unprivileged[@]}" st-write $options --overwrite "$T/parent/old" "$T/a.ts"
    done
    [ "$(ls "$T/parent")" = old$'\n'out ]
}

@test "the parent is not writable, and there is no folder, or not one to write into" {
    fixed
    for options in '' -n; do
        # shellcheck disable=SC2086
        refused 'parent/new: cannot write into .*/parent; make an empty folder .*: Permission denied' \
            "${unprivileged[@]}" st-write $options "$T/parent/new" "$T/a.ts"
        chmod 755 "$T/parent"
        mkdir -p "$T/parent/closed"
        chmod 555 "$T/parent/closed" "$T/parent"
        # shellcheck disable=SC2086
        refused 'parent/closed: cannot write into it: Permission denied' \
            "${unprivileged[@]}" st-write $options "$T/parent/closed" "$T/a.ts"
    done
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

# unread COMMAND: it succeeds, and puts $T/out in place, where standard output or error is full, or nobody reads it.
unread() {
    local where
    for where in '>/dev/full' '2>/dev/full' '>/dev/full 2>&1' '>&4 4>&-' '2>&4 4>&-' '>&4 2>&4 4>&-'; do
        rm -rf "$T/out"
        { bash -o pipefail -c "$1 $where" 2>"$T/said" && echo 0 >"$T/status" || echo 1 >"$T/status"; } 4> >(head -c 1 >/dev/null)
        cat "$T/said"
        [ "$(cat "$T/status")" = 0 ]
        [ -e "$T/out/config.json" ]
    done
}

@test "a report that cannot be printed: the checkpoint is in place, and the exit status says so" {
    [ -c /dev/full ] || skip "no /dev/full"
    unread "st-read '$src' | st-write --json '$T/out'"
    rm -r "$T/out"
    st-read "$src" | st-write -q --json "$T/out" 2>"$T/said" >/dev/full
    grep -qx "st-write: $T/out: is in place, but standard output did not take .*: No space left on device" "$T/said"
    st-write --json "$T/out" "$T/a.ts" >/dev/full # complete already
    unread "st-reshard --ranks 1 '$src' | st-write '$T/out'"
    unread "for i in 1 2; do st-read --part \$i/2 '$src' | st-write --json --part '$T/out' || exit; done >/dev/null 2>&1; st-write --join --json '$T/out'"
    # Before the work, and what a plan or a question is for, is an error.
    run bash -c "st-write --state '$T/out' >/dev/full"
    [ "$status" -eq 1 ]
}

@test "pipelines whose summary or results cannot be printed" {
    [ -c /dev/full ] || skip "no /dev/full"
    unread "pipelines/v4-bf16 '$src' '$T/out'"
    pipelines/v4-bf16 "$src" "$T/out" 2>/dev/full # complete already
    unread "pipelines/v4-experts --input-scale 1 '$src' '$T/out'"
    pipelines/v4-experts --input-scale 1 "$src" "$T/out" 2>/dev/full
    rm -r "$T/out"
    pipelines/v4-experts -q --input-scale 1 --samples 1 --length 8 --eval test/data/text/eval.jsonl "$src" "$T/out" >/dev/full 2>"$T/said"
    grep -qx "v4-experts: $T/out is in place, but standard output did not take what --eval found:" "$T/said"
    grep -q '^source: mean nll' "$T/said"
}

# refused_early STATUS PATTERN COMMAND...: ends with that exit status before it reads its input, and creates nothing.
refused_early() {
    local before
    before=$(ls -R "$T")
    run timeout 20 "${@:3}" <&-
    [ "$status" -eq "$1" ] && [[ ${lines[0]} =~ $2 ]] && [ "$before" = "$(ls -R "$T")" ] && return
    printf '%s\n' "${*:3}: exit $status, wanted $1 and '$2':" "$output"
    return 1
}

@test "every output of every stage is looked at before any work, with -n as well" {
    mkdir "$T/folder"
    ln -s nowhere "$T/dangling"
    : >"$T/file"
    random_ids "$T/tokens.safetensors" 1 8
    outputs=("st-read -n -o" "st-ls -o" "st-stat -o" "st-sum -o" "st-cmp -o" "st-grep x -o" "fp8-dequant -n -o"
        "pt-read -n -o" "nvfp4-cast -n --output" "nvfp4-pack -n -o" "nvfp4-unpack -o" "amax-merge -o"
        "amax-merge -n --summary" "st-tokenize --tokenizer $NANO -o" "st-eval --tokens $T/tokens.safetensors -o"
        "st-eval --tokens $T/tokens.safetensors --save" "st-eval --tokens $T/tokens.safetensors --states-out"
        "amax-calib -n --tokens $T/tokens.safetensors -o" "amax-calib --tokens $T/tokens.safetensors --states-out")
    for command in "${outputs[@]}"; do
        failed=1
        case $command in st-cmp*) failed=2 ;; esac
        # shellcheck disable=SC2086 # a command is words
        {
            refused_early $failed 'folder: is a folder; name a file' $command "$T/folder"
            refused_early $failed 'no/file: its folder, .*: No such file' $command "$T/no/file"
            refused_early $failed 'file/file: (its folder|.* is not a folder)' $command "$T/file/file"
            refused_early $failed 'dangling: is a symbolic link to nothing' $command "$T/dangling"
            refused_early 2 "'-x' is not a file's name; \./-x if it is one" $command -x
            refused_early 2 'an empty name' $command ''
        }
    done
    refused_early 1 'no/kept: its folder, .*: No such file' amax-calib -n --tokens "$T/tokens.safetensors" --resume "$T/no/kept"
    refused_early 1 'file: exists and is not a folder' amax-calib -n --tokens "$T/tokens.safetensors" --resume "$T/file"
    refused_early 1 'dangling: is a symbolic link to nothing' amax-calib -n --tokens "$T/tokens.safetensors" --resume "$T/dangling"
}

@test "FIFOs where a checkpoint's files should be are not waited for" {
    pipeline "st-read '$src' | st-write -q --partial '$T/good'"
    cp "$T/good/quant-run.json" "$T/record"
    rm "$T/good/quant-run.json"
    mkfifo "$T/good/quant-run.json"
    refused 'good: is not empty' bash -c "st-read '$src' | st-write -q --partial '$T/good'"
    cp -r "$NANO" "$T/c"
    chmod -R u+w "$T/c"
    echo text >"$T/text.txt"
    for name in config.json tokenizer_config.json tokenizer.json; do
        mv "$T/c/$name" "$T/kept"
        mkfifo "$T/c/$name"
        refused "$name: (wanted a file|not a regular file)" st-tokenize --tokenizer "$T/c" --length 5 "$T/text.txt"
        rm "$T/c/$name"
        mv "$T/kept" "$T/c/$name"
    done
    rm "$T/c/config.json"
    mkfifo "$T/c/config.json"
    run timeout 20 pipelines/v4-experts -n --input-scale 1 "$T/c" "$T/new"
    [ "$status" -eq 1 ]
    [[ $output == *'config.json: not a regular file'* ]]
}

@test "an output in a folder that is not writable" {
    fixed
    refused 'new: cannot write into its folder, .*/parent: Permission denied' \
        "${unprivileged[@]}" st-ls -o "$T/parent/new" "$src"
    refused 'parent: cannot write into it: Permission denied' \
        "${unprivileged[@]}" amax-calib -n --tokens x --resume "$T/parent" "$src"
    "${unprivileged[@]}" st-ls -o "$T/parent/out/new" "$src"
}

@test "outputs that permissions do not tell of: a filesystem that takes no files, another user's file" {
    random_ids "$T/tokens.safetensors" 1 8
    experts=(pipelines/v4-experts --samples 1 --length 8 --calib "$T/none.jsonl" "$T/none" "$T/out")
    ln -s /proc/sys/kernel/hostname "$T/link"
    refused 'hostname: cannot write into its folder, /proc/sys/kernel: ' st-ls -o "$T/link" "$src"
    run "${experts[@]}" --save-amax "$T/link"
    [[ $output == *'its folder is not there or not writable'* ]]
    for plan in '' -n; do
        # shellcheck disable=SC2086 # nothing, or a word
        for command in "st-ls -o" "amax-calib --tokens $T/tokens.safetensors -o" "amax-calib --tokens $T/none --resume"; do
            refused '/proc/seekpipe: cannot write into its folder, /proc: ' $command /proc/seekpipe $plan "$src"
        done
        for option in --save-amax --summary; do
            # shellcheck disable=SC2086
            run "${experts[@]}" $plan $option /proc/seekpipe
            [ "$status" -eq 2 ]
            [[ $output == "v4-experts: $option: /proc/seekpipe: its folder is not there or not writable"* ]]
        done
    done
    # Where a file belongs to another user, and so does the folder, in which everybody keeps his own.
    [ "$(id -u)" = 0 ] || skip 'only root can give files to others'
    fixed
    chmod 1777 "$T/parent"
    echo theirs >"$T/parent/file"
    chown 1 "$T/parent/file" "$T/parent"
    chmod 666 "$T/parent/file"
    refused 'file: belongs to another user, and only they may replace it' "${unprivileged[@]}" st-ls -o "$T/parent/file" "$src"
    run "${unprivileged[@]}" "${experts[@]}" --save-amax "$T/parent/file"
    [ "$status" -eq 2 ]
    [[ $output == *'belongs to another user, and only they may replace it'* ]]
    "${unprivileged[@]}" st-ls -o "$T/parent/new" "$src"
    "${unprivileged[@]}" st-ls -o "$T/parent/new" "$src"
    mknod -m 644 "$T/device" c 1 3
    refused 'device: Permission denied' "${unprivileged[@]}" amax-calib -n --tokens "$T/none" -o "$T/device" "$src"
    [ "$(cat "$T/parent/file")" = theirs ]
}

@test "two outputs are two files, and no input" {
    amaxes "$T/amax.ts"
    random_ids "$T/ids.safetensors" 1 8
    ln -s amax.ts "$T/link.ts"
    refused_early 2 "both write $T/x.ts" st-eval --tokens "$T/ids.safetensors" --save "$T/x.ts" --states-out "$T/x.ts"
    refused_early 2 'both write' amax-merge -o "$T/x.ts" --summary "$T/./x.ts" "$T/amax.ts"
    refused_early 2 'amax.ts is also what --amax reads' nvfp4-cast --amax "$T/amax.ts" -o "$T/amax.ts" "$src"
    refused_early 2 'link.ts is also what --amax reads' nvfp4-pack --amax "$T/amax.ts" -o "$T/link.ts" "$src"
    refused_early 2 'is also what --tokens reads' amax-calib --tokens "$T/ids.safetensors" -o "$T/ids.safetensors" "$src"
    refused_early 2 'is also what --tokenizer reads' \
        st-tokenize --tokenizer "$src/tokenizer.json" -o "$src/tokenizer.json" "$src/config.json"
    refused_early 2 'config.json is also ' st-tokenize --tokenizer "$src" -o "$src/config.json" "$src/config.json"
    refused_early 2 'config.json is also what --model reads' amax-merge --model "$src" --summary "$src/config.json" "$T/amax.ts"
    refused_early 2 'amax.ts is also read' amax-merge --summary "$T/amax.ts" "$T/amax.ts"
    for program in st-ls st-stat st-sum; do
        refused_early 2 'a.ts is also read' $program -o "$T/a.ts" "$T/a.ts"
    done
    for file in "$src/model-00001-of-00003.safetensors" "$src/config.json"; do
        refused_early 2 'is also read' st-ls -o "$file" "$src"
        refused_early 2 'is also read' amax-calib --tokens "$T/ids.safetensors" -o "$file" "$src/"
    done
    # What is read must be there; a pattern is no file, and a new file may be beside the source's.
    (cd "$T" && st-ls -o embed.weight "$src" embed.weight)
    st-sum -o "$src/sums.json" "$src"
    rm "$src/sums.json"
    # A device is no file to be lost.
    amax-merge -o /dev/null --summary /dev/null "$T/amax.ts"
    # The file of a reference.
    shard=$src/model-00002-of-00003.safetensors
    refused_early 2 'is also read' st-read -o "$shard" "$src"
    refused 'is a file of the source; name another file' st-read -o "$shard" "$shard"
    refused 'is a file of the source; name another file' fp8-dequant -o "$shard" "$T/a.ts"
    untouched
}

# ---- filesystems that lack something ----

# lacking CALL ERROR COMMAND...: COMMAND, where the system call CALL fails with ERROR.
lacking() {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    strace -f -o "$T/log" -e "trace=$1" -e "inject=$1:error=$2" "${@:3}"
}

@test "names that cannot be exchanged: --overwrite renames twice" {
    for error in EINVAL ENOSYS EOPNOTSUPP; do
        rm -rf "$T/out"
        mkdir "$T/out"
        echo old >"$T/out/m.safetensors"
        lacking renameat2 $error st-write -q --overwrite "$T/out" "$T/a.ts"
        grep -q INJECTED "$T/log"
        [ "$(st-sum "$T/out")" = "$sum" ]
        [ ! -e "$T/out/m.safetensors" ]
        [ ! -e "$T/out.partial" ] && [ ! -e "$T/out.replaced" ]
    done
    # Where the old one would wait, is something else: said before any work.
    mkdir "$T/out.replaced"
    st-read -n "$src" >"$T/plan.ts"
    refused 'out\.replaced: is in the way of --overwrite' st-write --overwrite "$T/out" "$T/a.ts"
    refused 'out\.replaced: is in the way of --overwrite' st-write -n --overwrite "$T/out" "$T/plan.ts"
}

@test "a folder that no rename can move is known before any work" {
    mkdir "$T/out"
    st-read -n "$src" >"$T/plan.ts"
    for old in '' m.safetensors; do
        [ -z "$old" ] || echo old >"$T/out/$old"
        for error in EBUSY EXDEV EPERM; do
            for stream in "$T/a.ts" "-n $T/plan.ts"; do
                # shellcheck disable=SC2086 # an option, and a file
                run lacking rename $error st-write --overwrite "$T/out" $stream
                [ "$status" -eq 1 ]
                [ "${#lines[@]}" -eq 1 ]
                [[ $output == *'out: cannot be renamed ('*'), so that nothing can take its place; choose another folder'* ]]
            done
        done
        [ "$(ls -A "$T/out")" = "$old" ]
        [ "$(find "$T" -name '.seekpipe-*' -o -name 'out.*' | wc -l)" = 0 ]
    done
    # Really.
    rm "$T/out/m.safetensors"
    if chattr +i "$T/out" 2>/dev/null; then
        run st-write "$T/out" "$T/a.ts"
        chattr -i "$T/out"
        [ "$status" -eq 1 ]
        [[ $output == *'out: cannot be renamed (Operation not permitted)'* ]]
    fi
    # What fails for another reason, or does not, does not matter.
    lacking rename EACCES st-write -n --overwrite "$T/out" "$T/plan.ts" >/dev/null
    st-write -q --overwrite "$T/out" "$T/a.ts"
    [ "$(st-sum "$T/out")" = "$sum" ]
}

@test "no locks: the error names the folder and the call" {
    for error in ENOSYS EOPNOTSUPP ENOLCK; do
        run lacking flock $error st-write "$T/out" "$T/a.ts"
        [ "$status" -eq 1 ]
        [ "${#lines[@]}" -eq 1 ]
        [[ $output == *"out.partial: cannot be locked against a second program (flock: "*'choose a folder on another one' ]]
        [ ! -e "$T/out" ]
    done
    random_ids "$T/ids.safetensors" 1 8
    run lacking flock ENOSYS amax-calib -q --tokens "$T/ids.safetensors" --resume "$T/kept" -o "$T/x.ts" "$src"
    [ "$status" -eq 1 ]
    [[ $output == *"kept: cannot be locked against a second program (flock: "* ]]
}

# closed_first LOG NAME: in this trace of openat, close and unlinkat, each file of that name is closed when it is
# removed. NFS and FUSE keep an open one in its folder, under another name.
closed_first() {
    awk -v name="\"$2\"" '
        index($0, "openat(") && index($0, name) && $NF ~ /^[0-9]+$/ { open[$NF] = 1 }
        match($0, /close\([0-9]+\)/) { delete open[substr($0, RSTART + 6, RLENGTH - 7)] }
        index($0, "unlinkat(") && index($0, name) && / = 0$/ { removed++; for (fd in open) bad = 1 }
        END { exit !removed || bad }' "$1"
}

@test "no file is removed while it is open, where that leaves it in its folder" {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    trace=(strace -f -o "$T/log" -e 'trace=openat,close,unlinkat')
    fp8-dequant -o "$T/other.ts" "$src"
    for stream in a other; do
        "${trace[@]}" st-write -q --overwrite "$T/out" "$T/$stream.ts"
        closed_first "$T/log" .journal
    done
    fixed
    chmod 777 "$T"
    "${trace[@]}" "${unprivileged[@]}" st-write -q "$T/parent/out" "$T/a.ts"
    closed_first "$T/log" .journal
}

@test "no O_TMPFILE: a file with a name for a moment" {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    mkdir "$T/spool"
    printf 'some text\nmore\n' >"$T/text"
    st-tokenize -q --length 8 --tokenizer "$src" -o "$T/wanted.ts" "$T/text"
    TMPDIR=$T/spool strace -f -o "$T/log" -P "$T/spool" -e inject=openat:error=EOPNOTSUPP \
        st-tokenize -q --length 8 --tokenizer "$src" -o "$T/ids.ts" "$T/text"
    grep -q 'O_TMPFILE.*INJECTED' "$T/log"
    st-cmp "$T/wanted.ts" "$T/ids.ts"
    [ -z "$(ls -A "$T/spool")" ]
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
        # The plan is printed all the same.
        st-write -n "$T/disk/out" "$T/a.ts" >"$T/plan" 2>&1 || true
        grep -q "^out .* 667 tensors" "$T/plan"
        tail -n 1 "$T/plan" | grep -q "disk/out: 12\.[0-9] MB are needed"
        [ ! -e "$T/disk/out" ]
        [ -z "$(find "$T/disk" -name "*.safetensors")" ]
        refused "b\.ts: 12[0-9]* bytes are needed, 8[0-9]* are free; make room, or choose another disk" \
            st-read --inline -o "$T/disk/b.ts" "$src"
        [ ! -e "$T/disk/b.ts" ]
        [ -z "$(find "$T/disk" -name "b.ts*")" ]'
}

@test "a filesystem of its own is worked in: nothing gets onto the one around it" {
    on_disk 30m '
        set -e
        mkdir "$T/disk/lost+found"
        [ "$(st-write --state "$T/disk")" = absent ]
        st-write -n "$T/disk" "$T/a.ts" >"$T/plan"
        grep -qE "^free +3[01]\.[0-9] MB" "$T/plan"
        head -c 300000 "$T/a.ts" | st-write "$T/disk" 2>/dev/null || true
        [ "$(st-write --state "$T/disk")" = partial ]
        [ -d "$T/disk/.partial" ] && [ ! -e "$T/disk.partial" ]
        st-write -q "$T/disk" "$T/a.ts"
        [ "$(st-sum "$T/disk")" = "$sum" ]
        [ ! -e "$T/disk/.partial" ]
        st-write "$T/disk" "$T/a.ts" 2>&1 | grep -q "complete already"
        refused "is not empty, and --overwrite cannot replace it" st-write --overwrite "$T/disk" "$T/a.ts"'
    # A bind mount is of the same filesystem as what is around it.
    mkdir "$T/bound"
    on_disk 30m '
        set -e
        mount --bind "$T/bound" "$T/bound"
        st-write -q "$T/bound" "$T/a.ts"
        [ "$(st-sum "$T/bound")" = "$sum" ]
        [ ! -e "$T/bound.partial" ]'
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
            [ -z "$(find "$T/disk" -name "b.ts*")" ]
        done'
}

@test "a limit on the size of files" {
    limited=(bash -c 'ulimit -f 2000; exec "$@"' -)
    refused 'b\.ts: offset [0-9]+: .*File too large; what was written is incomplete' "${limited[@]}" st-read --inline -o "$T/b.ts" "$src"
    refused 'b\.ts: offset [0-9]+: .*File too large' "${limited[@]}" fp8-dequant -o "$T/b.ts" "$src"
    # What is known before the first byte, also in a plan.
    for plan in '' -n; do
        # shellcheck disable=SC2086 # no word
        refused 'out: model-.* gets [0-9.]+ MB, more than the 2.0 MB that this shell allows \(ulimit -f\)' \
            "${limited[@]}" st-write $plan "$T/out" "$T/a.ts"
        [ ! -e "$T/out.partial" ]
    done
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
