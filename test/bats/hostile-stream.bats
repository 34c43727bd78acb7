# Tensor streams that lie, end early or hide something: refused in one line, nothing left that looks
# finished. What is cut at every byte is in test/unit/stream.c.
# shellcheck disable=SC2317,SC2030,SC2031 # parts are called by stream(); each test is a subshell

load common
load craft

# A small stream in parts, which the tests change before `stream` puts them together: tensor a inline,
# b by reference to the middle of a file.
prepare() {
    mkdir "$T/src"
    printf '0123456789' >"$T/src/m.safetensors"
    list m.safetensors
    model=
    quant='{}'
    history='[]'
    toc=$'a\tU8\t[4]\tm.safetensors\tdata\nb\tU8\t[2,3]\tm.safetensors\tdata\n'
    end='{"tensors":2,"bytes":10,"plan":false,"counts":[]}'
}

# list FILE...: what .stream lists is these.
list() {
    local file
    files=
    for file; do files+="${files:+,}\"$file\":$(listed "$T/src/$file")"; done
}

# listed FILE: its entry in .stream's list.
listed() {
    local size mtime fraction
    read -r size mtime < <(stat -Lc '%s %.9Y' "$1")
    fraction=${mtime#*.}
    printf '{"path":"%s","size":%d,"mtime_ns":%s}' "$1" "$size" "${mtime%.*}$fraction"
}

header() {
    printf '{"format":"tensor-stream","version":1,"scope":"all",%s"files":{%s},"quant":%s,"history":%s}\n' \
        "$model" "$files" "$quant" "$history"
}

text_entry() { # with the newline that $() takes
    tar_entry "$1" $((${#2} + 1)) && printf '%s\n' "$2" && pad $((${#2} + 1))
}

begin() {
    text_entry .stream "$(header)"
    entry .toc "$toc"
}

tensors() {
    entry a abcd
    reference b m.safetensors@2+6
}

finish() {
    text_entry .end "$end"
    head -c 1024 /dev/zero
}

# finish, with what lacks its newline
finish_bare() {
    entry .end "$end"
    head -c 1024 /dev/zero
}

# stream PART...: the parts' output as $T/a.ts
stream() {
    local part
    for part; do $part; done >"$T/a.ts"
}

# bad PATTERN: $T/a.ts is refused, and nothing is left that looks finished.
bad() {
    refused "a\.ts: .*($1)" st-write "$T/out" "$T/a.ts"
    refused "a\.ts: .*($1)" st-read --inline -o "$T/b.ts" "$T/a.ts"
    [ ! -e "$T/out" ]
    [ ! -e "$T/b.ts" ]
    rm -rf "$T/out.partial"
}

# bad_all PATTERN: the parts as they are now make such a stream.
bad_all() {
    stream begin tensors finish
    bad "$1"
}

@test "the small stream that the others are made from is read" {
    stream begin tensors finish
    st-sum --each "$T/a.ts" >"$T/sums"
    [ "$(wc -l <"$T/sums")" -eq 2 ]
    grep -q "^$(printf 234567 | sha256sum | cut -d' ' -f1)"$'\tb\t' "$T/sums"
    [ -z "$(tar tvf "$T/a.ts" 2>&1 >/dev/null)" ]
    st-read "$T/a.ts" | st-sum >/dev/null
    # Zeros after it are padding, however many.
    head -c 3000000 /dev/zero >>"$T/a.ts"
    st-sum "$T/a.ts"
}

@test "a stream cut between its entries" {
    tensors_a() { entry a abcd; }
    tensors_b() { reference b m.safetensors@2+6; }
    padding() { head -c 1024 /dev/zero; }
    stream begin
    bad 'wanted tensor a, got the end; .*make it again'
    stream begin padding
    bad 'wanted tensor a, got the end; .*make it again'
    stream begin tensors_a
    bad 'wanted tensor b, got the end; .*make it again'
    stream begin tensors_a padding
    bad 'wanted tensor b, got the end; .*make it again'
    stream begin tensors
    bad 'ends without \.end; .*make it again'
    stream begin tensors padding
    bad 'ends without \.end; .*make it again'
    stream finish
    bad 'wanted entry \.stream, .*got \.end; not a tensor stream'
    stream padding
    bad 'wanted entry \.stream, .*got the end; not a tensor stream'
    text_entry .stream "$(header)" >"$T/a.ts"
    bad 'wanted entry \.toc, .*got the end; the stream is truncated'
    : >"$T/a.ts"
    bad 'is empty; the stage before failed'
}

@test "a large stream cut anywhere" {
    st-read --inline "$NANO" >"$T/whole.ts"
    size=$(stat -c %s "$T/whole.ts")
    for ((i = 1; i < 40; i++)); do
        head -c $((size * i / 40 + i)) "$T/whole.ts" >"$T/a.ts"
        refused 'a\.ts: .*make it again' st-sum "$T/a.ts"
    done
    # Stages, too, and what they write does not look finished.
    for program in fp8-dequant mxfp4-unpack st-read; do
        refused 'a\.ts: .*make it again' "$program" -o "$T/b.ts" "$T/a.ts"
        [ ! -e "$T/b.ts" ]
        timeout 20 "$program" "$T/a.ts" 2>/dev/null >"$T/b" || true
        refused 'b: .*make it again' st-sum "$T/b"
    done
}

@test "a stage that is killed in mid pipeline" {
    st-read --inline "$NANO" >"$T/whole.ts"
    mkfifo "$T/in" "$T/out"
    for program in fp8-dequant mxfp4-unpack; do
        "$program" <"$T/in" >"$T/out" 3>&- &
        victim=$!
        timeout 20 st-write "$T/dst" <"$T/out" 2>"$T/refused" 3>&- &
        last=$!
        exec 5>"$T/in"
        # More than a pipe and the reader's buffer hold: when it is taken, the stage is at work.
        head -c 6000000 "$T/whole.ts" >&5
        kill -9 "$victim"
        exec 5>&-
        status=0
        wait "$victim" || status=$?
        [ "$status" -eq 137 ]
        status=0
        wait "$last" || status=$?
        [ "$status" -eq 1 ]
        [ "$(wc -l <"$T/refused")" -eq 1 ]
        [ ! -e "$T/dst" ]
        rm -rf "$T/dst.partial"
    done
}

@test ".stream: malformed, of another version, not there" {
    whole=$(header)
    raw() { text_entry .stream "$raw" && entry .toc "$toc" && tensors && finish; }
    for raw in '' '[]' 'null' '{' "$whole}" "${whole%\}}" '{}' "${whole/tensor-stream/other}" "${whole/\"version\":1/\"version\":\"1\"}" \
        "${whole/\"quant\":\{\}/\"quant\":[]}" "${whole/\"history\":\[\]/\"history\":1}" "${whole/\"scope\":\"all\"/\"scope\":1}" \
        "${whole/\"version\":1/\"version\":1,\"version\":1}"; do
        stream raw
        bad '\.stream: .*(malformed|damaged)'
    done
    raw=${whole/\"version\":1/\"version\":2}
    stream raw
    bad '\.stream: version 2; this program reads version 1'
    raw=$(printf '[%.0s' {1..100000})
    stream raw
    bad '\.stream: .*make or get it again'
    printf -v long 'x%.0s' {1..256}
    for entry in '"x":{}' '"x":1' '"x":{"path":"relative","size":1,"mtime_ns":1}' '"x":{"path":"/x","size":-1,"mtime_ns":1}' \
        '"x":{"path":"/x","size":1.5,"mtime_ns":1}' '"x":{"path":"/x","size":1}' '"":{"path":"/x","size":1,"mtime_ns":1}' \
        '"a@b":{"path":"/x","size":1,"mtime_ns":1}' "\"$long\":{\"path\":\"/x\",\"size\":1,\"mtime_ns\":1}" '"a\nb":{"path":"/x","size":1,"mtime_ns":1}' \
        '"x":{"path":"/x\ny","size":1,"mtime_ns":1}' '"x":{"path":"/x","size":1,"mtime_ns":1,"phase":4096}' \
        '"x":{"path":"/x","size":1,"mtime_ns":1,"phase":-1}' '"x":{"path":"/x","size":9223372036854775808,"mtime_ns":1}'; do
        files=$entry
        bad_all '\.stream: .*(needs an absolute path|too big).*make .*again'
    done
}

@test ".toc: malformed in each field" {
    line() { toc=$1$'\n'; }
    for fields in 'a|U8|[4]|m.safetensors' 'a|U8|[4]|m.safetensors|other' 'a|U7|[4]|m.safetensors|data' \
        'a|U8|[-4]|m.safetensors|data' 'a|U8|4|m.safetensors|data' 'a|U8|[4]|../m|data' 'a|U8|[4]|/m|data' \
        'a|U8|[4]|.m|data' '../a|U8|[4]|m.safetensors|data' '/a|U8|[4]|m.safetensors|data' \
        '.end|U8|[4]|m.safetensors|data' 'files/a|U8|[4]|m.safetensors|data' 'a b|U8|[4]|m.safetensors|data' \
        'a|F64|[9223372036854775807]|m.safetensors|data' '' 'a'; do
        line "${fields//|/$'\t'}"
        bad_all '\.toc: line 1 .*make it again'
    done
    toc=$'a\tU8\t[4]\tm.safetensors\tdata'
    bad_all '\.toc: line 1: the last line has no newline'
    toc=$'a\tU8\t[4]\tm.safetensors\tdata\na\tU8\t[4]\tm.safetensors\tdata\n'
    bad_all '\.toc: line 2 \(a\): .*already in the same shard'
}

@test "a table whose sizes are beyond everything" {
    max=9223372036854775807
    toc=
    for name in a b c; do toc+="$name"$'\tU8\t['$max$']\tm.safetensors\tdata\n'; done
    end='{"tensors":0,"bytes":0,"plan":true,"counts":[]}'
    stream begin finish
    refused 'm\.safetensors: its size overflows' st-write -n "$T/out" "$T/a.ts"
    toc=${toc/c$'\t'/b$'\t'}
    for i in 1 2 3; do toc+="x"$'\tU8\t['$max$']\t'"$i.safetensors"$'\tdata\n'; done
    toc=$(sed '/^[abc]/d' <<<"$toc")$'\n'
    stream begin finish
    refused 'overflows' st-write -n "$T/out" "$T/a.ts"
    timeout 20 st-ls -n "$T/a.ts" >/dev/null || [ $? = 1 ]
}

@test "tensors that the table lacks, missing ones, another order, twice" {
    a() { entry a abcd; }
    b() { reference b m.safetensors@2+6; }
    c() { entry c abcd; }
    stream begin a c b finish
    bad 'offset [0-9]+: entry c: wanted tensor b; '
    stream begin c a b finish
    bad 'entry c: wanted tensor a; '
    stream begin a b c finish
    bad 'wanted entry \.end, .*got c; '
    stream begin b a finish
    bad 'entry b: wanted tensor a; '
    stream begin a a b finish
    bad 'entry a: wanted tensor b; '
    stream begin a b b finish
    bad 'wanted entry \.end, .*got b; '
    stream begin b finish
    bad 'entry b: wanted tensor a; '
    stream begin a finish
    bad 'entry \.end: wanted tensor b; '
    stream begin finish
    bad '\.end: .*counts do not match the table'
    b() { entry b abcde; }
    stream begin a b finish
    bad 'entry b: wanted 6 bytes, got 5; '
    b() { entry b abcdefg; }
    stream begin a b finish
    bad 'entry b: wanted 6 bytes, got 7; '
}

@test "entries that are neither file nor link" {
    b() { reference b m.safetensors@2+6; }
    for type in 1 3 4 5 6; do
        a() { tar_entry a 0 "$type" "${link-}"; }
        link=
        stream begin a b finish
        bad 'entry a: |wanted'
        link=.stream
        stream begin a b finish
        bad 'entry a: '
    done
    a() { tar_entry a 4 1 .stream && printf abcd && pad 4; } # a hard link with data
    stream begin a b finish
    bad 'entry a: neither a plain regular file'
    side() { tar_entry files/x 0 "$type" .toc; }
    for type in 1 3 5 6; do
        stream begin side tensors finish
        bad 'entry files/x: '
    done
    top() { tar_entry .stream 0 5; }
    stream top
    bad 'entry \.stream: '
    top() { reference .stream m.safetensors@0+4; }
    stream top
    bad 'wanted entry \.stream, a regular file'
}

@test "names that lead elsewhere" {
    for name in ../a /a a/../../a ./a a/; do
        a() { entry "$name" abcd; }
        stream begin a
        bad 'wanted tensor a; |wanted entry|neither'
    done
    for name in ../x /x a/../x ./x a//x '' . ..; do
        side() { entry "files/$name" x; }
        stream begin side tensors finish
        bad 'not a valid name of a side file|neither'
    done
    for name in .journal model.safetensors x/y.safetensors model.safetensors.index.json; do
        side() { entry "files/$name" x; }
        stream begin side tensors finish
        bad 'not a valid name of a side file'
    done
    side() { entry files/x x && entry files/x x; }
    stream begin side tensors finish
    bad 'entry files/x: occurs twice'
    side() { entry "files/$(printf 'a\nb\033[1m')" x; }
    stream begin side tensors finish
    bad 'a control character in its name'
    # A link keeps its slash at the end, and a pax header has room for more than a name.
    side() { reference files/ m.safetensors@2+6; }
    stream begin side tensors finish
    bad 'entry files/: not a valid name of a side file'
    printf -v long 'x%.0s' {1..1024}
    side() { pax p "path=files/$long" && entry x x; }
    stream begin side tensors finish
    bad 'not a valid name of a side file'
    # A side file cannot go through what another one made.
    side() { entry files/x x && entry files/x/y x; }
    stream begin side tensors finish
    refused 'out\.partial/x: not a folder' st-write "$T/out" "$T/a.ts"
    [ ! -e "$T/out" ]
}

@test "side files that programs would obey are neither read nor written, at any depth" {
    names=(.git/config .GIT/config a/.git/config a/b/.git/hooks/post-checkout HEAD a/Head a/.cache/x a/__pycache__/model.pyc
        __PYCACHE__/x a/.journal .partial/x .calib/x .envrc a/.vscode/tasks.json x/MODEL.SAFETENSORS/y
        Model.Safetensors.Index.JSON HEAD. 'a/Head ' $'HE\u200cAD' $'\uff28EAD' $'x/\u2024git/config' model.safetensors.)
    for name in "${names[@]}"; do
        side() { entry "files/$name" x; }
        stream begin side tensors finish
        bad 'entry files/.*: not a valid name of a side file'
    done
    # st-read leaves the same ones out.
    cp -r "$NANO" "$T/c"
    chmod -R u+w "$T/c"
    for name in "${names[@]}"; do
        mkdir -p "$T/c/$(dirname "$name")"
        touch "$T/c/$name"
    done
    diff <(st-read "$NANO" | tar tf - | grep ^files/) <(st-read "$T/c" | tar tf - | grep ^files/)
    # As deep as st-read goes.
    deep=1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16
    side() { entry "files/$deep/x" x; }
    stream begin side tensors finish
    st-write -q "$T/out" "$T/a.ts"
    [ -s "$T/out/$deep/x" ]
    rm -r "$T/out"
    side() { entry "files/$deep/17/x" x; }
    stream begin side tensors finish
    bad 'not a valid name of a side file'
}

@test "shards that would take the place of other files" {
    for shard in config.json model.safetensors.index.json hf_quant_config.json x; do
        toc=$'a\tU8\t[4]\t'$shard$'\tdata\nb\tU8\t[2,3]\tm.safetensors\tdata\n'
        stream begin tensors finish
        refused "shard $shard: .*end in \.safetensors" st-write "$T/out" "$T/a.ts"
        [ ! -e "$T/out" ]
    done
}

@test "sparse files and other sizes" {
    b() { reference b m.safetensors@2+6; }
    # GNU tar's three pax forms and its own old one.
    truncate -s 1G "$T/a"
    printf abcd >>"$T/a"
    for form in --format=gnu '--format=pax --sparse-version=0.0' '--format=pax --sparse-version=0.1' \
        '--format=pax --sparse-version=1.0'; do
        # shellcheck disable=SC2086
        a() { tar -C "$T" $form --sparse -cf - a | head -c -1024; }
        stream begin a b finish
        bad 'entry a: '
    done
    # One small map that announces a pebibyte, and a size that is not the data's.
    a() { pax p GNU.sparse.size=1125899906842624 GNU.sparse.numblocks=1 GNU.sparse.offset=1125899906842620 GNU.sparse.numbytes=4 && entry a abcd; }
    stream begin a b finish
    bad 'entry a: '
    a() { pax p GNU.sparse.realsize=1125899906842624 && entry a abcd; }
    stream begin a b finish
    bad 'entry a: |make it again'
    for size in 1125899906842624 9223372036854775807 18446744073709551615 99999999999999999999 -4; do
        a() { pax p "size=$size" && entry a abcd; }
        stream begin a b finish
        bad 'make it again|neither'
        side() { pax p "size=$size" && entry files/x abcd; }
        stream begin side tensors finish
        bad 'make it again|neither|allowed'
        top() { pax p "size=$size" && entry .stream abcd; }
        stream top tensors finish
        bad 'stream'
    done
    # A table of 2 GiB.
    top() { text_entry .stream "$(header)" && tar_entry .toc 2147483648; }
    stream top tensors finish
    bad 'entry \.toc: 2147483648 bytes, more than the 1073741824 allowed'
}

@test "headers that are wrong" {
    a() { tar_entry a 4 0 '' 1 && printf abcd && pad 4; }
    stream begin a
    bad 'offset [0-9]+: .*make it again'
    a() { tar_entry a 4 Z && printf abcd && pad 4; }
    stream begin a
    bad 'wanted tensor b|make it again|neither'
    # A name or link in pax headers that is no UTF-8, empty, or with a NUL.
    a() { pax p "path=a$(printf '\377')" && entry a abcd; }
    stream begin a
    bad 'make it again|wanted tensor a'
    a() { pax p path= && entry a abcd; }
    stream begin a
    bad 'wanted tensor|neither|make it again'
    a() { entry a abcd && pax p linkpath=x && reference b m.safetensors@2+6; }
    stream begin a finish
    bad 'entry b: '
}

@test "references outside of what is listed" {
    b() { reference b "$text"; }
    for text in '' x m.safetensors m.safetensors@2 m.safetensors@2+ m.safetensors@+6 m.safetensors@2+7 m.safetensors@2+5 \
        m.safetensors@5+6 m.safetensors@-2+6 m.safetensors@2+-6 m.safetensors@18446744073709551614+6 \
        m.safetensors@18446744073709551616+6 m.safetensors@2+18446744073709551622 m.safetensors@2+6x 'm.safetensors@2 +6' \
        'm.safetensors@ 2+6' m.safetensors@0x2+6 other@2+6 @2+6 m.safetensor@2+6 m.safetensorss@2+6 ../m.safetensors@2+6 \
        m.safetensors@x+6 m.safetensors@2+x /etc/passwd "$(printf 'a\n\033[1m')"; do
        a() { entry a abcd; }
        stream begin a b finish
        bad 'offset [0-9]+: entry b: its reference, .*is not LABEL@OFFSET\+6 inside a file that \.stream lists; '
    done
    a() { reference a x@0+4; }
    list
    stream begin a
    bad 'entry a: its reference, x@0\+4, is not'
    list m.safetensors
    side() { reference files/x "$text"; }
    for text in m.safetensors@2+9 m.safetensors@2+-1 x@0+1 m.safetensors@0+99999999999999999999; do
        stream begin side tensors finish
        bad 'entry files/x: (its reference, |a side file of up to 1 MiB by reference)'
    done
}

@test "references to what is no regular file" {
    mkfifo "$T/src/fifo"
    mkdir "$T/src/folder"
    ln -s /dev/zero "$T/src/link"
    for path in /dev/zero /dev/null "$T/src/fifo" "$T/src/folder" "$T/src/link"; do
        files="\"m.safetensors\":{\"path\":\"$path\",\"size\":10,\"mtime_ns\":0}"
        stream begin tensors finish
        refused "$path: not a regular file; " st-sum "$T/a.ts"
        refused "$path: not a regular file; " st-write "$T/out" "$T/a.ts"
        [ ! -e "$T/out" ]
        rm -r "$T/out.partial"
    done
    files="\"m.safetensors\":{\"path\":\"$T/nowhere\",\"size\":10,\"mtime_ns\":0}"
    stream begin tensors finish
    refused 'nowhere: .*--root OLD=NEW.*No such file' st-sum "$T/a.ts"
    refused 'nowhere: .*--root OLD=NEW.*No such file' st-write "$T/out" "$T/a.ts"
}

# changed PATTERN: m.safetensors is not what it was when the stream was made.
changed() {
    refused "m\.safetensors: changed since the stream was made.*run the pipeline again from st-read" st-sum "$T/a.ts"
    refused "$1" st-read --inline -o "$T/b.ts" "$T/a.ts"
    mkdir -p "$T/to"
    refused "$1" st-write "$T/to/out" "$T/a.ts"
    [ ! -e "$T/to/out" ]
    [ ! -e "$T/b.ts" ]
    rm -rf "$T/to" "$T/b.ts.partial"
}

@test "a file that changed since: size, time, another in its place" {
    stream begin tensors finish
    cp -p "$T/src/m.safetensors" "$T/src/old"
    echo more >>"$T/src/m.safetensors"
    changed 'changed since .*size is 15, was 10'
    printf '0123456789' >"$T/src/m.safetensors"
    touch -d @1 "$T/src/m.safetensors"
    changed 'changed since .*modification time differs'
    printf '0123456789' >"$T/src/new"
    touch -d @2 "$T/src/new"
    mv "$T/src/new" "$T/src/m.safetensors"
    changed 'changed since .*modification time differs'
    printf '0' >"$T/src/m.safetensors"
    changed 'changed since .*size is 1, was 10'
    mv "$T/src/old" "$T/src/m.safetensors"
    st-sum "$T/a.ts" >/dev/null
}

# during PATTERN CHANGE PROGRAM...: the program has read b when CHANGE, a command, is done, and sees it at the
# end, or when it reads c.
during() {
    local pattern=$1 change=$2 status=0
    shift 2
    mkfifo "$T/fifo"
    timeout 20 "$@" <"$T/fifo" >/dev/null 2>"$T/refused" 3>&- &
    local last=$!
    exec 5>"$T/fifo"
    # More than a pipe and the reader's buffer hold: what is taken shows that b was read.
    { begin && reference b m.safetensors@2+6 && tar_entry z 8388608 && head -c 8388608 /dev/zero; } >&5
    $change
    (trap '' PIPE; reference c m.safetensors@4+6 >&5 2>/dev/null) || true
    # It may see the change before, and read no more.
    (trap '' PIPE; finish >&5 2>/dev/null) || true
    exec 5>&-
    wait "$last" || status=$?
    rm "$T/fifo"
    [ "$status" -eq 1 ]
    [ "$(wc -l <"$T/refused")" -eq 1 ]
    grep -q "m\.safetensors: $pattern" "$T/refused"
}

@test "a file that changes during the run" {
    toc=$'b\tU8\t[2,3]\tm.safetensors\tdata\nz\tU8\t[8388608]\tn.safetensors\tdata\nc\tU8\t[6]\tm.safetensors\tdata\n'
    end='{"tensors":3,"bytes":8388620,"plan":false,"counts":[]}'
    touch -d @1 "$T/src/m.safetensors"
    cp -p "$T/src/m.safetensors" "$T/old"
    list m.safetensors
    grow() { echo more >>"$T/src/m.safetensors"; }
    later() { touch "$T/src/m.safetensors"; }
    other() { printf 'abcdefghij' >"$T/new" && mv "$T/new" "$T/src/m.safetensors"; }
    cut() { truncate -s 4 "$T/src/m.safetensors"; }
    gone() { rm "$T/src/m.safetensors"; }
    for change in grow later other; do
        for program in st-sum "st-write $T/out" "st-read --inline -"; do
            # shellcheck disable=SC2086
            during 'changed since' $change $program
            [ ! -e "$T/out" ]
            rm -rf "$T/out.partial"
            cp -p "$T/old" "$T/src/m.safetensors"
        done
    done
    during 'c: file ends at offset 4, wanted 6 bytes more' cut st-sum
    cp -p "$T/old" "$T/src/m.safetensors"
    during 'No such file' gone st-sum
}

@test ".end: wrong counts, malformed, missing, twice" {
    for end in '' '{}' '[]' '{' '{"tensors":1,"bytes":10,"plan":false,"counts":[]}' '{"tensors":3,"bytes":10,"plan":false,"counts":[]}' \
        '{"tensors":2,"bytes":9,"plan":false,"counts":[]}' '{"tensors":2,"bytes":10,"plan":true,"counts":[]}' \
        '{"tensors":2,"bytes":10,"plan":0,"counts":[]}' '{"tensors":2,"bytes":10,"plan":false,"counts":{}}' \
        '{"tensors":"2","bytes":10,"plan":false,"counts":[]}' '{"tensors":2,"plan":false,"counts":[]}' \
        '{"tensors":0,"bytes":0,"plan":true,"counts":[]}'; do
        bad_all '\.end: .*make .*again'
    done
    end='{"tensors":2,"bytes":10,"plan":false,"counts":[]}'
    twice() { text_entry .end "$end" && finish; }
    stream begin tensors twice
    bad 'something follows \.end at offset [0-9]+; '
    link() { reference .end m.safetensors@2+6; }
    stream begin tensors link
    bad 'wanted entry \.end, a regular file'
}

@test ".end needs its newline" {
    stream begin tensors finish_bare
    bad '\.end: malformed'
}

@test "a configuration by reference: too small for a reference, or too large for one" {
    echo '{"model_type":"deepseek_v4"}' >"$T/src/config.json"
    model='"model_type":"deepseek_v4",'
    side() { reference files/config.json "config.json@0+$size"; }
    for size in "$(stat -c %s "$T/src/config.json")" $(((1 << 20) + 1)) $(((128 << 20) + 1)); do
        truncate -s "$size" "$T/src/config.json"
        list m.safetensors config.json
        stream begin side tensors finish
        bad 'config\.json: (a side file of up to 1 MiB by reference; not made by st-read|more than 1 MiB; )'
    done
}

@test "something after the end" {
    stream begin tensors finish
    cp "$T/a.ts" "$T/one"
    behind='something follows .*; a file holds one stream'
    cat "$T/one" >>"$T/a.ts" # a second archive
    bad "$behind"
    { cat "$T/one" && printf x; } >"$T/a.ts"
    bad "$behind"
    { cat "$T/one" && head -c 3000000 /dev/zero && printf x; } >"$T/a.ts"
    bad "$behind"
    { cat "$T/one" && head -c 3000000 /dev/zero && printf x && head -c 3000000 /dev/zero; } >"$T/a.ts"
    bad "$behind"
    { head -c -1024 "$T/one" && entry extra x && head -c 1024 /dev/zero; } >"$T/a.ts"
    bad "$behind"
    { head -c -512 "$T/one" && entry extra x && head -c 1024 /dev/zero; } >"$T/a.ts"
    bad "$behind"
}

@test "a plan is no stream of tensors" {
    end='{"tensors":0,"bytes":0,"plan":true,"counts":[]}'
    stream begin finish
    refused 'plan.*; run' st-sum "$T/a.ts"
    refused 'is a plan, without tensors; run its stages without -n' st-write "$T/out" "$T/a.ts"
    [ ! -e "$T/out" ]
}

@test "compressed streams, other tar archives, other files" {
    stream begin tensors finish
    cp "$T/a.ts" "$T/one"
    for program in gzip bzip2 xz; do
        command -v "$program" >/dev/null || continue
        "$program" <"$T/one" >"$T/a.ts"
        bad 'not a tensor stream .*decompress it first'
    done
    tar -C "$T" -cf "$T/a.ts" one
    bad 'wanted entry \.stream, .*got one; not a tensor stream'
    head -c 10000 /dev/zero >"$T/a.ts"
    bad 'not a tensor stream'
    printf 'x%.0s' {1..5000} >"$T/a.ts"
    bad 'not a tensor stream'
    cp "$NANO/model-00001-of-00003.safetensors" "$T/a.ts"
    bad 'not a tensor stream'
    # bsdtar's other formats are not tar.
    for format in cpio zip shar; do
        bsdtar -C "$T" --format $format -cf "$T/a.ts" one
        bad 'not a tensor stream'
    done
}

@test "a scale after its weight" {
    w=layers.0.ffn.experts.0.w2
    toc="$w.weight"$'\tI8\t[2,16]\tm.safetensors\tdata\n'"$w.scale"$'\tF8_E8M0\t[2,1]\tm.safetensors\tdata\n'
    stream begin
    for program in mxfp4-unpack fp8-dequant; do
        refused "$w.weight: its scale $w.scale must be F8_E8M0 \[2,1\] and come directly before it, .*line 2" "$program" -o "$T/b.ts" "$T/a.ts"
        [ ! -e "$T/b.ts" ]
    done
}

@test "no binary stream to or from a terminal" {
    script -qec true /dev/null </dev/null >/dev/null 2>&1 || skip "no script(1) that works here"
    for command in st-sum 'st-write x' fp8-dequant "st-read $NANO" "st-read -o /dev/tty $NANO"; do
        run timeout 20 script -qec "$command" /dev/null </dev/null
        [ "$status" -eq 2 ]
        [[ $output == *terminal* ]]
    done
}

# counted: a stage of the small stream counted; its .counts are $counts, at the place where the part `here` is.
counted() {
    here() { text_entry .counts "$counts"; }
    history='[{"program":"st-read","selects":true},{"program":"none"},{"program":"p"}]'
    end='{"tensors":2,"bytes":10,"plan":false,"counts":[{"n":3,"of":{"x":3},"first":"a","program":"p"}]}'
}

@test ".counts: before, between and after tensors; and what may stand there instead" {
    counted
    between() { entry a abcd && here && here && reference b m.safetensors@2+6; }
    counts='{"m.safetensors":{"1":{"n":1,"of":{"x":1},"first":"a"}}}'
    stream begin here tensors finish
    st-sum "$T/a.ts" >"$T/sum"
    stream begin between here finish
    st-sum "$T/a.ts" | diff "$T/sum" -
    st-ls "$T/a.ts" | grep -q tensors
    st-write -q --json "$T/out" "$T/a.ts" >"$T/json"
    [ "$(jq -c '.counts[0] | [.n, .of.x, .first]' "$T/json")" = '[3,3,"a"]' ]
    st-read --inline "$T/a.ts" >"$T/b.ts" # and it passes on
    [ "$(tar xOf "$T/b.ts" .counts | jq -s '[.[][]["1"].n] | add')" = 3 ]
    rm -r "$T/out" "$T/b.ts"
    for counts in '{}' '{"m.safetensors":{}}' '{"m.safetensors":{"1":{}}}'; do
        stream begin between finish
        st-sum "$T/a.ts" | diff "$T/sum" -
    done
    counts='{"m.safetensors":{"1":{"n":1}}}'
    stream here begin tensors finish
    bad 'wanted entry \.stream, .*got \.counts'
    begin_so() { text_entry .stream "$(header)" && here && entry .toc "$toc"; }
    stream begin_so tensors finish
    bad 'wanted entry \.toc, .*got \.counts'
    side() { entry files/x y; }
    stream begin here side tensors finish
    bad 'wanted tensor a, got files/x|files/x: wanted tensor a'
    finish_so() { text_entry .end "$end" && here; }
    stream begin tensors finish_so
    bad 'something follows \.end'
    linked() { reference .counts m.safetensors@2+6; }
    stream begin linked tensors finish
    bad 'wanted entry \.counts, a regular file'
    big() { tar_entry .counts 99999999; }
    stream begin big
    bad '\.counts'
}

@test ".counts that are none, of nothing, or more than .end says" {
    counted
    between() { entry a abcd && here && reference b m.safetensors@2+6; }
    many=$(for ((i = 0; i < 257; i++)); do printf '"n%d":1,' "$i"; done)
    for counts in '[]' 'null' '3' '{' '{"m.safetensors":{},"m.safetensors":{}}'; do
        stream begin between finish
        bad '\.counts'
    done
    for stages in '3' '[]' '{"1":3}' '{"1":[]}' '{"1":null}' '{"2":{"n":1}}' '{"-1":{"n":1}}' '{"x":{"n":1}}' \
        '{"":{"n":1}}' '{"1 ":{"n":1}}' '{"99999999999999999999":{"n":1}}' '{"1":{"n":-1}}' '{"1":{"n":1.5}}' \
        '{"1":{"n":9007199254740993}}' '{"1":{"n":true}}' '{"1":{"of":{"x":{}}}}' '{"1":{"of":{"x":"y"}}}' \
        '{"1":{"of":{"x":-1}}}' "{\"1\":{${many%,}}}" "{\"1\":{\"of\":{${many%,}}}}"; do
        counts="{\"m.safetensors\":$stages}"
        stream begin between finish
        bad '\.counts: malformed, or not of this stream; make the stream again'
    done
    counts='{"other.safetensors":{"1":{"n":1}}}'
    stream begin between finish
    bad '\.counts: malformed, or not of this stream'
    # Each may be right, but not their sum.
    twice() { entry a abcd && here && counts=$more here && reference b m.safetensors@2+6; }
    counts='{"m.safetensors":{"1":{"n":9007199254740992}}}'
    more='{"m.safetensors":{"1":{"n":1}}}'
    stream begin twice finish
    bad '\.counts: malformed'
    counts='{"m.safetensors":{"1":{"n":1}}}'
    more='{"m.safetensors":{"1":{"n":"text"}}}'
    stream begin twice finish
    bad '\.counts: malformed'
    for stages in '{"1":{"n":4}}' '{"1":{"m":1}}' '{"1":{"n":"x"}}' '{"1":{"of":{"x":4}}}' '{"1":{"of":{"y":1}}}' \
        '{"0":{"n":1}}'; do
        counts="{\"m.safetensors\":$stages}"
        stream begin between finish
        bad '\.end: malformed, or its counts do not match'
    done
}

@test "numbers beyond what they are kept in: versions, dimensions, times" {
    whole=$(header)
    raw() { text_entry .stream "$raw" && entry .toc "$toc" && tensors && finish; }
    for version in 4294967297 -4294967295 18446744073709551617; do
        raw=${whole/\"version\":1/\"version\":$version}
        stream raw
        bad '\.stream: .*(version -?[0-9]+; this program reads version 1|too big)'
    done
    toc=$'a\tU8\t[4]\tm.safetensors\tdata\nb\tU8\t[2,3]\tm.safetensors\tdata\nc\tU8\t[9223372036854775808,0]\tm.safetensors\tdata\n'
    end='{"tensors":3,"bytes":10,"plan":false,"counts":[]}'
    empty() { entry c ''; }
    stream begin tensors empty finish
    [ "$(st-ls --json "$T/a.ts" | jq -c 'select(.name == "c").shape | map(. > 9e18)')" = "[true,false]" ]
    # After 2262, nanoseconds do not fit.
    cp -r "$NANO" "$T/late"
    touch -d '@20000000000' "$T/late/model-00001-of-00003.safetensors"
    pipeline "st-read '$T/late' | st-sum" | diff - <(st-sum "$NANO")
    # Nor before 1677.
    touch -d '@-20000000000' "$T/late/model-00001-of-00003.safetensors"
    pipeline "st-read '$T/late' | st-sum" | diff - <(st-sum "$NANO")
    # A recipe's and a journal's numbers.
    [ "$(st-stat --json "$T/a.ts" | jq -c 'select(.name == "c").shape | map(. > 9e18)')" = "[true,false]" ]
    mkdir "$T/out2.partial"
    printf 'seekpipe-journal 4294967297 %064d 0\n' 0 >"$T/out2.partial/.journal"
    refused 'out2\.partial.*' st-write "$T/out2" <(st-read "$NANO")
}

@test "nothing at all: a stream without tensors, a table without lines" {
    : >"$T/none"
    toc='' end='{"tensors":0,"bytes":0,"plan":false,"counts":[]}'
    stream begin finish
    for command in st-ls st-sum 'st-sum --each' st-stat "st-cmp $T/a.ts" "st-cmp --values $T/a.ts" fp8-dequant mxfp4-unpack nvfp4-unpack \
        'amax-merge --fallback none'; do
        # shellcheck disable=SC2086 # words
        timeout 20 $command "$T/a.ts" >"$T/found"
    done
    refused 'holds no tensor' st-write --partial "$T/out" "$T/a.ts"
    refused 'no sample in it' st-tokenize --tokenizer "$NANO" --pack --no-bos --length 4 "$T/none"
}
