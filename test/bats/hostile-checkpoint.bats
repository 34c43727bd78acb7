# Checkpoints that lie: refused in one line that names file and tensor and says what to do.
load common
load craft
load releases

# A tensor's value in a header, with its first four bytes of data.
a='{"dtype":"U8","shape":[4],"data_offsets":[0,4]}'

# bad PATTERN HEADER [DATA]: a file of that header and data (by default 4 bytes) is refused.
bad() {
    safetensors "$T/m.safetensors" "$2" "${3-abcd}"
    refused_file "$1"
}

# refused_file PATTERN: m.safetensors is refused, and leaves nothing behind.
refused_file() {
    refused "m\.safetensors: .*($1).*publisher" st-read --inline -o "$T/out.ts" "$T/m.safetensors"
    [ ! -e "$T/out.ts" ]
}

# good HEADER [DATA]: the counterpart.
good() {
    safetensors "$T/m.safetensors" "$1" "${2-abcd}"
    timeout 20 st-sum -q "$T/m.safetensors" >/dev/null
}

@test "the small file that the others are made from is read" {
    good "{\"a\":$a}"
    good "{\"a\":$a}      "
    good "{\"__metadata__\":{\"format\":\"pt\"},\"a\":$a}"
    good "{\"a\":$a,\"b\":{\"shape\":[0,18446744073709551615],\"data_offsets\":[4,4],\"dtype\":\"F32\"}}"
    good '{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}'
    good '{"a":{"dtype":"U8","shape":[1,1,1,1,2,1,2,1],"data_offsets":[0,4]}}'
    good '{}' ''
}

@test "length of the header" {
    : >"$T/m.safetensors"
    refused 'm\.safetensors: is empty; download it again' st-read --inline -o "$T/out.ts" "$T/m.safetensors"
    [ ! -e "$T/out.ts" ]
    printf '1234567' >"$T/m.safetensors"
    refused_file 'shorter than the 8 bytes'
    for n in 0 1 100 100000000; do
        { le64 "$n" && printf '{'; } >"$T/m.safetensors"
        [ "$n" = 1 ] || refused_file "claims $n bytes, but the file has 9|does not begin"
    done
    for n in 100000001 4294967296 9223372036854775807 -1 -8 -9223372036854775808; do
        { le64 "$n" && printf '{}'; } >"$T/m.safetensors"
        truncate -s 100000020 "$T/m.safetensors"
        refused_file 'more than the 100 MB allowed'
    done
    # All of 100 MB, nearly all of it zeros.
    { le64 100000000 && printf '{}'; } >"$T/m.safetensors"
    truncate -s 100000008 "$T/m.safetensors"
    refused_file 'offset 2: something follows'
}

@test "before and after the JSON" {
    bad "does not begin with '\{'" " {\"a\":$a}"
    bad "does not begin with '\{'" '[]'
    bad "does not begin with '\{'" '"a"'
    bad 'something follows' "{\"a\":$a}x"
    bad 'something follows' "{\"a\":$a} {}"
    bad "wanted ','" "{\"a\":$a \"b\":$a}"
    bad "wanted '\"'" "{\"a\":$a,}"
    header="{\"a\":$a}"
    { le64 $((${#header} + 1)) && printf '%s\0abcd' "$header"; } >"$T/m.safetensors"
    refused_file "offset ${#header}: something follows"
}

@test "characters that are no UTF-8, or not whole" {
    for text in '\xff' '\x80' '\xc0\x80' '\xc3' '\xed\xa0\x80' '\xf4\x90\x80\x80' '\xe2\x82' '\xf8\x88\x80\x80\x80'; do
        printf -v raw '%b' "$text"
        header="{\"__metadata__\":{\"k\":\"$raw\"},\"a\":$a}"
        { le64 "$(printf '%s' "$header" | wc -c)" && printf '%sabcd' "$header"; } >"$T/m.safetensors"
        refused_file 'not UTF-8'
    done
    bad 'half a surrogate' "{\"__metadata__\":{\"k\":\"\\ud800\"},\"a\":$a}"
    bad 'half a surrogate' "{\"__metadata__\":{\"k\":\"\\udc00\"},\"a\":$a}"
    bad 'half a surrogate' "{\"__metadata__\":{\"k\":\"\\ud800\\u0041\"},\"a\":$a}"
    bad 'a NUL' "{\"__metadata__\":{\"k\":\"\\u0000\"},\"a\":$a}"
    bad 'unknown escape' "{\"__metadata__\":{\"k\":\"\\x41\"},\"a\":$a}"
    bad 'a control character' "{\"__metadata__\":{\"k\":\"$(printf '\1')\"},\"a\":$a}"
}

@test "offsets" {
    value() { printf '{"dtype":"U8","shape":[%s],"data_offsets":[%s]}' "$1" "$2"; }
    bad 'tensor b: .*overlap' "{\"a\":$a,\"b\":$(value 2 2,4)}"
    bad 'tensor b: .*overlap' "{\"a\":$a,\"b\":$(value 4 0,4)}"
    bad 'tensor b: .*hole' "{\"a\":$(value 1 0,1),\"b\":$(value 2 2,4)}"
    bad 'tensor a: .*hole' "{\"a\":$(value 3 1,4)}"
    bad 'tensor c: .*overlap' "{\"a\":$(value 4 0,4),\"c\":$(value 0 2,2)}"
    bad 'end at 3 of the data, the file at 4' "{\"a\":$(value 3 0,3)}"
    bad 'end at 5 of the data, the file at 4' "{\"a\":$(value 5 0,5)}"
    bad 'end at 0 of the data, the file at 4' '{}'
    bad 'tensor a: .*backwards' "{\"a\":$(value 4 4,0)}"
    bad 'tensor a: .*hole' "{\"a\":$(value 4 18446744073709551611,18446744073709551615)}"
    bad 'tensor a: .*beyond 64 bits' "{\"a\":$(value 4 0,18446744073709551616)}"
    for offsets in -4,0 0,4.0 0,4e0 '0,"4"' 0,04 0,+4 0 0,4,8 '' 0,null '[0,4]'; do
        bad 'tensor a: .*(two numbers|whole number)' "{\"a\":$(value 4 "$offsets")}"
    done
    bad "tensor a: .*wanted '\['" '{"a":{"dtype":"U8","shape":[4],"data_offsets":4}}'
}

@test "dtypes and shapes" {
    value() { printf '{"dtype":%s,"shape":%s,"data_offsets":[0,4]}' "$1" "$2"; }
    for dtype in '"F6_E2M3"' '"u8"' '""' '"F8_E4M3FN"' '"\n\u001b[31m"'; do
        bad 'tensor a: .*unknown dtype' "{\"a\":$(value "$dtype" '[4]')}"
    done
    bad "tensor a: .*wanted '\"'" "{\"a\":$(value 8 '[4]')}"
    bad 'tensor a: .*make 3 bytes, data_offsets 4' "{\"a\":$(value '"U8"' '[3]')}"
    bad 'tensor a: .*make 16 bytes, data_offsets 4' "{\"a\":$(value '"F32"' '[4]')}"
    bad 'tensor a: .*make 0 bytes, data_offsets 4' "{\"a\":$(value '"U8"' '[0,4]')}"
    bad 'tensor a: .*make 2 bytes, data_offsets 4' "{\"a\":$(value '"F4"' '[4]')}"
    bad 'tensor a: .*F4 rows are no whole bytes' "{\"a\":$(value '"F4"' '[8,1]')}"
    for shape in '[-4]' '[4.0]' '["4"]' '[[4]]' '[4,]' '[04]' '[null]'; do
        bad 'tensor a: ' "{\"a\":$(value '"U8"' "$shape")}"
    done
    bad "tensor a: .*wanted '\['" "{\"a\":$(value '"U8"' 4)}"
    bad 'tensor a: .*more than 8 dimensions' "{\"a\":$(value '"U8"' '[1,1,1,1,1,1,1,1,4]')}"
    printf -v many '1,%.0s' {1..100000}
    bad 'tensor a: .*more than 8 dimensions' "{\"a\":$(value '"U8"' "[${many}4]")}"
    bad 'tensor a: .*size overflows' "{\"a\":$(value '"U8"' '[4294967296,4294967296]')}"
    bad 'tensor a: .*size overflows' "{\"a\":$(value '"F32"' '[4611686018427387905]')}"
    bad 'tensor a: .*size overflows' "{\"a\":$(value '"U8"' '[9223372036854775808]')}"
    bad 'tensor a: .*size overflows' "{\"a\":$(value '"U8"' '[4294967296,4294967296,0]')}"
}

@test "fields and names that come twice, or not, or are unknown" {
    bad 'tensor (a|b): .*overlap' "{\"a\":$a,\"a\":$a}"
    none='{"dtype":"U8","shape":[0],"data_offsets":[4,4]}'
    bad 'tensor b: .*already in the same shard' "{\"a\":$a,\"b\":$none,\"b\":$none}"
    bad "tensor a: .*'dtype' occurs twice" '{"a":{"dtype":"U8","dtype":"U8","shape":[4],"data_offsets":[0,4]}}'
    bad "tensor a: .*'shape' occurs twice" '{"a":{"dtype":"U8","shape":[4],"shape":[4],"data_offsets":[0,4]}}'
    bad "tensor a: .*'data_offsets' occurs twice" '{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4],"data_offsets":[0,4]}}'
    bad '__metadata__ occurs twice' "{\"__metadata__\":{},\"a\":$a,\"__metadata__\":{}}"
    bad 'is missing' '{"a":{"dtype":"U8","shape":[4]}}'
    bad 'is missing' '{"a":{"dtype":"U8","data_offsets":[0,4]}}'
    bad 'is missing' '{"a":{"shape":[4],"data_offsets":[0,4]}}'
    bad 'is missing' '{"a":{}}'
    bad "tensor a: .*unknown field 'x\?\?\[1m'" '{"a":{"x\n\u001b[1m":1,"dtype":"U8","shape":[4],"data_offsets":[0,4]}}'
    bad "tensor a: .*wanted '\{'" '{"a":null}'
    bad "wanted '\"'" '{"__metadata__":{"a":1}}'
    bad "wanted '\{'" '{"__metadata__":[]}'
}

@test "deep nesting, long strings" {
    printf -v deep '[%.0s' {1..100000}
    bad 'tensor a: ' "{\"a\":{\"dtype\":\"U8\",\"shape\":$deep"
    bad 'tensor a: ' "{\"a\":$deep"
    printf -v deep '{"a":%.0s' {1..100000}
    bad 'tensor a: ' "$deep"
    printf -v long 'x%.0s' {1..70000}
    bad 'a string longer' "{\"$long\":$a}"
    bad "a tensor's name is longer than 1023 bytes" "{\"${long:0:1024}\":$a}"
    good "{\"${long:0:1023}\":$a}"
}

@test "names that would be no tensor's in a stream" {
    for name in '' . .. .end .stream .toc .a files/x files/ ../x a/../x a/.. /x /etc/passwd a//b a/ ./a a/./b \
        'a b' ' a' 'a\tb' 'a\nb' 'a\rb' 'a\u001b[2J' 'a\u007f' 'a\u00e9' 'a\u202eb'; do
        bad "tensor [^ ]* *[^ ]*: .*a tensor's name must be" "{\"$name\":$a}"
    done
    bad "a tensor's name must be" "{\"a$(printf '\x7f')\":$a}"
    # shellcheck disable=SC1003 # a backslash
    for name in a..b a.b/c.d 'a\u002fb' '\"\\'; do
        good "{\"$name\":$a}"
    done
}

@test "names of files that a stream could not carry" {
    for name in 'a b' 'a@b' .a "$(printf 'a\nb')" "$(printf 'a\tb')" ä; do
        safetensors "$T/$name.safetensors" "{\"a\":$a}" abcd
        refused 'rename or link it' st-read -o "$T/out.ts" "$T/$name.safetensors"
        rm "$T/$name.safetensors"
    done
    mkdir "$T/d" "$T/e"
    safetensors "$T/d/m.safetensors" "{\"a\":$a}" abcd
    cp "$T/d/m.safetensors" "$T/e"
    refused 'two files of that name' st-read -o "$T/out.ts" "$T/d/m.safetensors" "$T/e/m.safetensors"
    head -c 2000000 /dev/zero >"$T/d/a@b.bin"
    refused 'a@b\.bin: a stream cannot refer .*rename it' st-read -o "$T/out.ts" "$T/d"
    rm "$T/d/a@b.bin"
    for name in "$(printf 'a\nb')" "$(printf 'a\177b')" "$(printf 'a\377b')" "$(printf 'e\314\201')"; do
        : >"$T/d/$name"
        refused 'must be composed UTF-8 .NFC. without control characters; rename it' st-read -o "$T/out.ts" "$T/d"
        rm "$T/d/$name"
    done
    : >"$T/d/$(printf '\303\251')"
    pipeline "st-read '$T/d' | st-ls >'$T/list'" # composed
    printf -v long 'x%.0s' {1..200}
    mkdir -p "$T/d/$long"
    mv "$T/d/m.safetensors" "$T/e/other.safetensors"
    head -c 2000000 /dev/zero >"$T/d/$long/$long"
    cp "$T/e/m.safetensors" "$T/d"
    refused 'cannot refer to a file of this name \(over 255 bytes' st-read -o "$T/out.ts" "$T/d"
    mkdir "$T/$(printf 'a\nb')" "$T/$(printf 'a\377b')" "$T/$(printf 'a\377c')"
    cp "$T/e/m.safetensors" "$T/$(printf 'a\nb')"
    refused 'a.b/m\.safetensors: a stream cannot refer' st-read -o "$T/out.ts" "$T/$(printf 'a\nb')/m.safetensors"
    # A path need not be UTF-8 for the kernel, but for JSON: of a shard, or of the folder alone.
    cp "$T/e/m.safetensors" "$T/$(printf 'a\377b')"
    LC_ALL=C refused '/m\.safetensors: its path is not UTF-8' st-read -o "$T/out.ts" "$T/$(printf 'a\377b')"
    ln -s "$T/e/m.safetensors" "$T/$(printf 'a\377c')"
    LC_ALL=C refused 'a.c: its path is not UTF-8' st-read -o "$T/out.ts" "$T/$(printf 'a\377c')"
    [ ! -e "$T/out.ts" ]
}

# checkpoint INDEX: two shards with tensors a and b, and that weight_map.
checkpoint() {
    mkdir -p "$T/c"
    safetensors "$T/c/1.safetensors" "{\"a\":$a}" abcd
    safetensors "$T/c/2.safetensors" "{\"b\":$a}" abcd
    printf '{"metadata":{},"weight_map":%s}' "$1" >"$T/c/model.safetensors.index.json"
}

# bad_index PATTERN WEIGHT_MAP
bad_index() {
    checkpoint "$2"
    refused "c/(model\.safetensors\.index\.json|[0-9]\.safetensors): .*($1)" st-read -o "$T/out.ts" "$T/c"
    [ ! -e "$T/out.ts" ]
}

@test "an index that its shards contradict" {
    checkpoint '{"a":"1.safetensors","b":"2.safetensors"}'
    st-read "$T/c" | st-sum | grep -q '2 tensors'
    bad_index 'named by .*is the download complete\?.*No such file' '{"a":"1.safetensors","b":"3.safetensors"}'
    bad_index 'names tensor c in 2\.safetensors, .*no such tensor; ' '{"a":"1.safetensors","b":"2.safetensors","c":"2.safetensors"}'
    bad_index 'names tensor a in 2\.safetensors, but it is in 1\.safetensors; ' '{"a":"2.safetensors","b":"1.safetensors"}'
    for shard in ../x.safetensors /etc/passwd x/y.safetensors .. . '' .x 'x y' 'x\ny' 'x@y' 'x\u0000'; do
        bad_index 'get it again' "{\"a\":\"$shard\",\"b\":\"2.safetensors\"}"
    done
    bad_index 'get it again' '{"../a":"1.safetensors"}'
    bad_index 'get it again' '{"a":1}'
    bad_index 'no weight_map, or nothing in it' '{}'
    bad_index 'get it again' '[]'
    bad_index 'get it again' '{"a":"1.safetensors"'
    safetensors "$T/c/2.safetensors" "{\"a\":$a}" abcd
    printf '{"weight_map":{"a":"1.safetensors"}}' >"$T/c/model.safetensors.index.json"
    st-sum "$T/c" | grep -q '1 tensors' # a file that the index does not know is none of the checkpoint's
    rm "$T/c/model.safetensors.index.json"
    mkfifo "$T/c/model.safetensors.index.json"
    refused 'index\.json: not a regular file' st-read -o "$T/out.ts" "$T/c"
    [ ! -e "$T/out.ts" ]
}

@test "the same tensor in two shards" {
    checkpoint '{"a":"1.safetensors","b":"2.safetensors"}'
    safetensors "$T/c/2.safetensors" \
        "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[1,4]}}" abcd
    refused 'tensor a is in two shards, 1\.safetensors and 2\.safetensors; ' st-read -o "$T/out.ts" "$T/c"
    [ ! -e "$T/out.ts" ]
}

@test "side files that are none" {
    checkpoint '{"a":"1.safetensors","b":"2.safetensors"}'
    for text in '' '[]' '{' '{"a":1,"a":2}' 'null' '{"a":"\ud800"}'; do
        printf '%s' "$text" >"$T/c/config.json"
        refused 'c/config\.json: ' st-read -o "$T/out.ts" "$T/c"
    done
    printf '{"a":%*s1}' 2000000 '' >"$T/c/config.json"
    refused 'c/config\.json: more than 1048576 bytes' st-read -o "$T/out.ts" "$T/c"
    rm "$T/c/config.json"
    mkfifo "$T/c/config.json"
    refused 'c/config\.json: not a regular file' st-read -o "$T/out.ts" "$T/c"
    rm "$T/c/config.json"
    mkdir "$T/c/config.json"
    refused 'c/config\.json: not a regular file' st-read -o "$T/out.ts" "$T/c"
    rmdir "$T/c/config.json"
    ln -s config.json "$T/c/config.json"
    refused 'c/config\.json: Too many levels' st-read -o "$T/out.ts" "$T/c"
    rm "$T/c/config.json"
    ln -s nowhere "$T/c/README.md"
    refused 'c/README\.md: No such file' st-read -o "$T/out.ts" "$T/c"
    rm "$T/c/README.md"
    # Its size is said to be 0, but there is text in it.
    ln -s /proc/self/status "$T/c/status"
    refused 'c/status: changed while it was being read' st-read -o "$T/out.ts" "$T/c"
    rm "$T/c/status"
    mkdir -p "$T/c/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16"
    st-read -n "$T/c" >/dev/null
    mkdir -p "$T/c/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17"
    refused '/17: folders nested deeper than 16' st-read -o "$T/out.ts" "$T/c"
    [ ! -e "$T/out.ts" ]
}

@test "what is no part of a checkpoint is left out" {
    checkpoint '{"a":"1.safetensors","b":"2.safetensors"}'
    mkdir -p "$T/c/__pycache__" "$T/c/.cache" "$T/c/.git" "$T/c/deep/__pycache__" "$T/elsewhere"
    touch "$T/c/__pycache__/x" "$T/c/.cache/x" "$T/c/.git/x" "$T/c/deep/__pycache__/x" "$T/c/deep/kept"
    ln -s "$T/elsewhere" "$T/c/link"
    mkfifo "$T/c/pipe"
    st-read -o "$T/out.ts" "$T/c" 2>"$T/said"
    [ "$(tar tf "$T/out.ts" | grep ^files/)" = files/deep/kept ]
    [ "$(grep -c 'c/\(link\|pipe\): neither a regular file nor a folder; left out' "$T/said")" -eq 2 ]
}

@test "what may not be read" {
    # Without root's right to read everything.
    as_owner=()
    [ "$(id -u)" != 0 ] || as_owner=(setpriv --bounding-set=-all)
    "${as_owner[@]}" true || skip 'no right to give up rights'
    checkpoint '{"a":"1.safetensors","b":"2.safetensors"}'
    mkdir "$T/c/d"
    touch "$T/c/d/x"
    # unreadable PATTERN MODE FILE: st-read says so.
    unreadable() {
        local before
        before=$(stat -c %a "$3")
        chmod "$2" "$3"
        refused "$1: .*Permission denied" "${as_owner[@]}" st-read --inline -o "$T/out.ts" "$T/c"
        chmod "$before" "$3"
    }
    unreadable 'c/1\.safetensors' 0 "$T/c/1.safetensors"
    unreadable 'c/model\.safetensors\.index\.json' 0 "$T/c/model.safetensors.index.json"
    unreadable 'c/d' 0 "$T/c/d"
    unreadable 'c/d/x' 0 "$T/c/d/x"
    unreadable 'c/d/x' 444 "$T/c/d" # its names may be seen, but no more
    rm "$T/c/model.safetensors.index.json"
    unreadable 'c/1\.safetensors' 0 "$T/c/1.safetensors"
    "${as_owner[@]}" st-read "$T/c" >"$T/a.ts"
    chmod 0 "$T/a.ts"
    refused 'a\.ts: Permission denied' "${as_owner[@]}" st-sum "$T/a.ts"
    [ ! -e "$T/out.ts" ]
}

@test "no checkpoint at all" {
    mkdir "$T/empty"
    refused 'empty: no \.safetensors file and no .*is it a checkpoint\?' st-read "$T/empty"
    refused 'nowhere: No such file' st-read "$T/nowhere"
    mkfifo "$T/f.safetensors"
    refused 'f\.safetensors: not a regular file' st-read "$T/f.safetensors"
    mkdir "$T/d.safetensors"
    refused 'd\.safetensors: no \.safetensors file' st-read "$T/d.safetensors"
    good "{\"a\":$a}"
    refused 'nowhere\.safetensors: No such file' st-read "$T/m.safetensors" "$T/nowhere.safetensors"
    for operands in "d.safetensors m.safetensors" "a.ts m.safetensors"; do
        touch "$T/a.ts"
        # shellcheck disable=SC2086
        run sh -c 'cd "$1" && shift && exec timeout 20 st-read "$@"' - "$T" $operands
        [ "$status" -eq 2 ]
        [[ $output == *'must be the only operand'* || $output == *'one stream at a time'* ]]
    done
    # What st-write has not finished has headers and sizes from the start.
    checkpoint '{"a":"1.safetensors","b":"2.safetensors"}'
    echo fingerprint >"$T/c/.journal"
    for program in st-read st-sum; do
        refused 'c/\.journal: .*did not finish' "$program" "$T/c"
    done
}

@test "more shards than are kept open" {
    mkdir "$T/many"
    for i in {1..40}; do
        safetensors "$T/many/$i.safetensors" "{\"$i\":$a}" abcd
    done
    st-read --inline "$T/many" | st-sum | grep -q '40 tensors'
}

@test "token ids by the gigabyte" {
    safetensors "$T/ids.safetensors" \
        "{\"input_ids\":{\"dtype\":\"I32\",\"shape\":[1,300000000],\"data_offsets\":[0,1200000000]}}"
    truncate -s +1200000000 "$T/ids.safetensors"
    refused 'ids\.safetensors: input_ids: 1200000000 bytes are too many' \
        amax-calib --tokens "$T/ids.safetensors" "$NANO"
}

# ---- scales ----

w=layers.0.ffn.experts.0.w2

# expert DTYPE SHAPE DATA SCALE: w2.weight of an expert, and SCALE, entries after it in the header and their
# data, beginning at byte 32.
expert() {
    mkdir -p "$T/e"
    echo '{"model_type":"deepseek_v4"}' >"$T/e/config.json"
    safetensors "$T/e/m.safetensors" \
        "{\"$w.weight\":{\"dtype\":\"$1\",\"shape\":$2,\"data_offsets\":[0,32]}${4:+,$4}}" "$3${5-}"
    safetensors "$T/amax.safetensors" \
        "{\"${w}_input_quantizer._amax\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}" '\x00\x00\x80\x3f'
}

# scale NAME DTYPE SHAPE BYTES
scale() {
    printf '"%s.%s":{"dtype":"%s","shape":%s,"data_offsets":[32,%d]}' "$w" "$1" "$2" "$3" $((32 + $4))
}

printf -v codes '\\x11%.0s' {1..32}

# stages PATTERN PROGRAM...: each program refuses the expert.
stages() {
    local pattern=$1 program options
    shift
    for program; do
        options=()
        [[ $program != nvfp4-* ]] || options=(--amax "$T/amax.safetensors")
        refused "$pattern" "$program" "${options[@]}" -o "$T/out.ts" "$T/e"
        [ ! -e "$T/out.ts" ]
    done
}

@test "MXFP4: a scale that is missing, misshapen, or of a wrong dtype" {
    all=(mxfp4-unpack fp8-dequant nvfp4-cast nvfp4-pack)
    expert I8 '[2,16]' "$codes" "$(scale scale F8_E8M0 '[2,1]' 2)" '\x7f\x7f'
    for program in "${all[@]}"; do
        options=()
        [[ $program != nvfp4-* ]] || options=(--amax "$T/amax.safetensors")
        "$program" "${options[@]}" "$T/e" >/dev/null
    done
    expert I8 '[2,16]' "$codes"
    stages "$w.weight: its scale $w.scale \(F8_E8M0 \[2,1\]\) is missing; " "${all[@]}"
    expert I8 '[2,16]' "$codes" "$(scale scale F8_E8M0 '[1,2]' 2)" '\x7f\x7f'
    stages "$w.weight: its scale $w.scale must be F8_E8M0 \[2,1\] .*but is F8_E8M0 \[1,2\]" "${all[@]}"
    expert I8 '[2,16]' "$codes" "$(scale scale F8_E8M0 '[2]' 2)" '\x7f\x7f'
    stages "$w.weight: its scale $w.scale must be F8_E8M0 \[2,1\] .*but is F8_E8M0 \[2\]" "${all[@]}"
    expert I8 '[2,16]' "$codes" "$(scale scale U8 '[2,1]' 2)" '\x7f\x7f'
    stages "$w.weight: its scale $w.scale must be F8_E8M0 \[2,1\] .*but is U8 " "${all[@]}"
    expert I8 '[4,8]' "$codes" "$(scale scale F8_E8M0 '[4,1]' 4)" '\x7f\x7f\x7f\x7f'
    stages "$w.weight: 16 columns, which is not a multiple of the block of 32" "${all[@]}"
}

@test "FP8: a scale that is missing, misshapen, or of a wrong dtype" {
    expert F8_E4M3 '[2,16]' "$codes"
    stages "$w.weight: its scale $w.scale \(F8_E8M0 \[1,1\]\) is missing; " fp8-dequant nvfp4-pack
    expert F8_E4M3 '[2,16]' "$codes" "$(scale scale F8_E8M0 '[1,2]' 2)" '\x7f\x7f'
    stages "$w.weight: its scale $w.scale must be F8_E8M0 \[1,1\] .*but is F8_E8M0 \[1,2\]" fp8-dequant nvfp4-pack
    expert F8_E4M3 '[2,16]' "$codes" "$(scale scale BF16 '[1,1]' 2)" '\x80\x3f'
    stages "$w.weight: its scale $w.scale must be F8_E8M0 \[1,1\] .*but is BF16 \[1,1\]" fp8-dequant nvfp4-pack
    expert F8_E4M3 '[2,16]' "$codes" "$(scale scale F32 '[1,2]' 8)" '\x00\x00\x80\x3f\x00\x00\x80\x3f'
    stages "$w.weight: its scale $w.scale must be F8_E8M0 \[1,1\] .*but is F32 \[1,2\]" fp8-dequant nvfp4-pack
    expert F8_E4M3 '[2,16]' "$codes" "$(scale weight_scale F32 '[1]' 4)" '\x00\x00\x80\x7f'
    stages "$w.weight_scale: element 0 \(byte 0 of the tensor\) is not finite" fp8-dequant nvfp4-pack
    expert F8_E4M3 '[2,16]' "$codes" "$(scale weight_scale F8_E8M0 '[1,1]' 1)" '\x7f'
    stages "$w.weight: its scale $w.weight_scale must be F32 \[\] .*but is F8_E8M0" fp8-dequant nvfp4-pack
    expert F8_E4M3 '[2,16]' "$codes" "$(scale weight_scale_inv BF16 '[1,1]' 2)" '\x80\x3f'
    stages "$w.weight: its scale $w.weight_scale_inv must be F32 \[1,1\] .*but is BF16" fp8-dequant nvfp4-pack
}

@test "E8M0 255 is an error that names scale and offset, in every stage" {
    expert I8 '[2,16]' "$codes" "$(scale scale F8_E8M0 '[2,1]' 2)" '\x7f\xff'
    stages "e: $w.scale: element 1 \(byte 1 of the tensor\) is the E8M0 code 255, NaN; .*publisher" \
        mxfp4-unpack nvfp4-cast nvfp4-pack
    expert F8_E4M3 '[2,16]' "$codes" "$(scale scale F8_E8M0 '[1,1]' 1)" '\xff'
    stages "e: $w.scale: element 0 \(byte 0 of the tensor\) is the E8M0 code 255, NaN; .*publisher" \
        fp8-dequant nvfp4-pack
}

@test "an F32 scale that is not finite" {
    for value in '\x00\x00\xc0\x7f' '\x00\x00\x80\xff'; do
        expert F8_E4M3 '[2,16]' "$codes" "$(scale weight_scale_inv F32 '[1,1]' 4)" "$value"
        stages "e: $w.weight_scale_inv: element 0 .*is not finite; .*publisher" fp8-dequant nvfp4-pack
    done
}

@test "an F32 scale that is negative" {
    expert F8_E4M3 '[2,16]' "$codes" "$(scale weight_scale_inv F32 '[1,1]' 4)" '\x00\x00\x80\xbf'
    stages "e: $w.weight_scale_inv: element 0 .*is negative; .*publisher" fp8-dequant nvfp4-pack
}

# passing PATTERN PROGRAM...: each refuses $T/ckpt for a scale of a matrix that it does not convert.
passing() {
    local pattern=$1 program options
    shift
    for program; do
        options=()
        [[ $program == *-unpack || $program == fp8-* ]] || options=(--amax "$T/amax.ts")
        refused "ckpt: $pattern; .*publisher" "$program" "${options[@]}" -o "$T/out.ts" "$T/ckpt"
        [ ! -e "$T/out.ts" ]
    done
}

@test "scales of matrices that only pass are checked, too" {
    amaxes "$T/amax.ts"
    spoil 'layers\.2\.attn\.wkv\.scale' '\177\377'
    passing 'layers.2.attn.wkv.scale: element 1 .*is the E8M0 code 255, NaN' mxfp4-unpack nvfp4-unpack nvfp4-cast nvfp4-pack
    run pipelines/v4-experts --amax "$NANO_AMAX" "$T/ckpt" "$T/out"
    [ "$status" = 1 ]
    [[ $output == *'layers.2.attn.wkv.scale: element 1 (byte 1 of the tensor) is the E8M0 code 255, NaN'* ]]
    [ ! -e "$T/out" ]
    spoil 'mtp\.0\.ffn\.experts\.3\.w2\.scale' '\377'
    passing 'mtp.0.ffn.experts.3.w2.scale: element 0 .*is the E8M0 code 255, NaN' fp8-dequant nvfp4-unpack nvfp4-cast nvfp4-pack
    pipelines/v4-experts -q --amax "$NANO_AMAX" "$NANO" "$T/nvfp4"
    spoil 'layers\.3\.ffn\.experts\.1\.w3\.weight_scale' '\60\377' "$T/nvfp4"
    passing 'layers.3.ffn.experts.1.w3.weight_scale: element 1 .*is an E4M3 NaN' fp8-dequant mxfp4-unpack
    spoil 'layers\.3\.ffn\.experts\.1\.w3\.weight_scale_2' '\0\0\200\177' "$T/nvfp4"
    passing 'layers.3.ffn.experts.1.w3.weight_scale_2: element 0 .*is not finite' fp8-dequant mxfp4-unpack
    spoil 'layers\.3\.ffn\.experts\.1\.w3\.input_scale' '\0\0\200\277' "$T/nvfp4"
    passing 'layers.3.ffn.experts.1.w3.input_scale: element 0 .*is negative' fp8-dequant mxfp4-unpack
    release base "$T/base"
    for bytes in '\0\0\300\177 is not finite' '\0\0\200\377 is not finite' '\0\0\200\277 is negative'; do
        spoil 'layers\.2\.attn\.wkv\.scale' "${bytes%% *}" "$T/base"
        passing "layers.2.attn.wkv.scale: element 0 .*${bytes#* }" mxfp4-unpack nvfp4-pack
    done
}

@test "an FP8 NaN is counted by fp8-dequant, and an error for nvfp4-pack" {
    expert F8_E4M3 '[2,16]' "${codes:0:68}\\x7f${codes:0:56}" "$(scale scale F8_E8M0 '[1,1]' 1)" '\x7f'
    run fp8-dequant -o "$T/b.ts" "$T/e"
    [ "$status" -eq 0 ]
    [[ $output == *'1 FP8 NaN became BF16 NaN'* ]]
    [ "$(tar xOf "$T/b.ts" .end | jq '.counts[0].nan')" = 1 ]
    stages "e: $w.weight: row 1, column 1 is NaN or infinite" nvfp4-pack
}

@test "an infinite MXFP4 weight is an error for nvfp4-cast and nvfp4-pack" {
    expert I8 '[2,16]' "${codes//11/77}" "$(scale scale F8_E8M0 '[2,1]' 2)" '\x7f\xfe'
    stages "e: $w.weight: row 1 \(byte 16 of the tensor\) holds an infinite weight" nvfp4-cast
    stages "e: $w.weight: row 1, column 0 is NaN or infinite" nvfp4-pack
}
