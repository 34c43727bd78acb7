load common

# golden/amax.tsv holds what another reader of such files found in $NANO_AMAX: name, dtype, shape,
# shard and bytes of each tensor, in the dict's order.

# table STREAM: a stream in the form of golden/amax.tsv.
table() {
    mkdir "$T/tensors"
    tar xf "$1" -C "$T/tensors"
    while IFS=$'\t' read -r name dtype shape shard _; do
        printf '%s\t%s\t%s\t%s\t%s\n' "$name" "$dtype" "$shape" "$shard" \
            "$(od -An -v -tx1 "$T/tensors/$name" | tr -d ' \n')"
    done <"$T/tensors/.toc"
    rm -r "$T/tensors"
}

# Pickles are written as printf '%b' takes them.

# text STRING: a string's opcode.
text() {
    printf 'X\\x%02x\\0000\\0000\\0000%s' ${#1} "$1"
}

# tensor TYPE KEY ELEMENTS OFFSET SHAPE STRIDE: a tensor in a storage; the last four are opcodes.
tensor() {
    printf '%s' 'ctorch._utils\n_rebuild_tensor_v2\n((' "$(text storage)" "ctorch\\n$1Storage\\n" \
        "$(text "$2")" "$(text cpu)" "$3" 'tQ' "$4$5$6" '\x89ccollections\nOrderedDict\n)RtR'
}

# dict KEY TENSOR ...: a whole pickle.
dict() {
    printf '%s' '\x80\x02}('
    for ((; $#; )); do
        printf '%s' "$(text "$1")" "$2"
        shift 2
    done
    printf '%s' 'u.'
}

# entry NAME BYTES: put it into the folder that becomes a zip.
entry() {
    mkdir -p "$(dirname "$T/archive/$1")"
    printf '%b' "$2" >"$T/archive/$1"
}

# pack [NAME ...]: $T/x.pt with these entries, or with all.
pack() {
    if [ $# = 0 ]; then
        mapfile -t all < <(cd "$T/archive" && find . -type f -printf '%P\n' | sort)
        set -- "${all[@]}"
    fi
    rm -f "$T/x.pt"
    bsdtar -C "$T" --format zip --options zip:compression=store -cf "$T/x.pt" "${@/#/archive/}"
}

# A file with tensor a = [1, 2, 3, 4] of I16.
prepare() {
    entry byteorder little
    entry version '3\n'
    entry data/0 '\x01\x00\x02\x00\x03\x00\x04\x00'
    entry data.pkl "$(dict a "$(tensor Short 0 'K\x04' 'K\x00' 'K\x04\x85' 'K\x01\x85')")"
}

# with TENSOR: $T/x.pt with this one as a.
with() {
    entry data.pkl "$(dict a "$1")"
    pack
}

# bytes_of NAME: of a tensor in $T/x.pt.
bytes_of() {
    pt-read "$T/x.pt" | tar xOf - "$1" | od -An -v -tx1 | tr -d ' \n'
}

# refused WORDS [FILE ...]: exit 1, one line with these words, no output.
refused() {
    local words=$1
    shift
    [ $# -gt 0 ] || set -- "$T/x.pt"
    run pt-read -o "$T/x.ts" "$@"
    echo "$output"
    [ "$status" -eq 1 ] && [ "${#lines[@]}" -eq 1 ] && [[ $output == pt-read:*"$words"* ]] &&
        [ ! -e "$T/x.ts" ] && [ ! -e "$T/x.ts.partial" ]
}

# patch OFFSET BYTES: change $T/x.pt there.
patch() {
    printf '%b' "$2" | dd of="$T/x.pt" bs=1 seek="$1" conv=notrunc status=none
}

# claim NAME BYTES: make the zip say that the unpacked entry is so large, both in the header before it
# (30 bytes and the name) and in the table at the end (46 bytes and the name).
claim() {
    local at
    mapfile -t at < <(LC_ALL=C grep -abo "archive/$1" "$T/x.pt" | cut -d : -f 1)
    patch $((at[0] - 30 + 22)) "$2"
    patch $((at[-1] - 46 + 24)) "$2"
}

@test "a dump has the names, dtypes, shapes and bytes that another reader finds" {
    pt-read "$NANO_AMAX/amax_dict_rank0-mp1.pt" >"$T/a.ts"
    table "$T/a.ts" | cmp - "$GOLDEN/amax.tsv"
}

@test "a folder's dump of two ranks: a shard each, together the same" {
    pt-read "$NANO_AMAX-mp2" >"$T/a.ts"
    table "$T/a.ts" >"$T/a.tsv"
    cut -f 4 "$T/a.tsv" | uniq -c | tr -s ' ' >"$T/shards"
    printf ' %s\n' '192 amax_dict_rank0-mp2.pt' '186 amax_dict_rank1-mp2.pt' | cmp - "$T/shards"
    cmp <(cut -f 1-3,5 "$T/a.tsv" | sort) <(cut -f 1-3,5 "$GOLDEN/amax.tsv" | sort)
    pt-read "$NANO_AMAX-mp2"/amax_dict_rank{0,1}-mp2.pt | cmp - "$T/a.ts"
}

@test "keys that begin with a module of another family, or part the quantizer with a dot" {
    entry data/0 '\x80\x3f'
    amax=$(tensor BFloat16 0 'K\x01' 'K\x00' ')' ')')
    entry data.pkl "$(dict \
        model.layers.3.mlp.experts.7.gate_proj.input_quantizer._amax "$amax" \
        layers.0.attn.wo.weight_quantizer._amax "$amax")"
    pack
    run pipeline "pt-read '$T/x.pt' | st-stat --tsv - | cut -f 1,2,3,6"
    [ "$output" = $'model.layers.3.mlp.experts.7.gate_proj.input_quantizer._amax\tBF16\t[]\t1
layers.0.attn.wo.weight_quantizer._amax\tBF16\t[]\t1' ]
}

@test "the dumps of V3 and V3.2, of one rank and of two" {
    for family in v3-nano v32-nano v3-wide; do
        fixtures $family
        for dump in "$FIXTURES"/golden/amax*; do
            pt-read "$dump" >"$T/a.ts"
            st-sum -q "$T/a.ts" >"$T/sum"
            [ "$(tar xOf "$T/a.ts" .toc | grep -c '\._amax')" -gt 100 ]
        done
    done
}

@test "the output is a whole stream, as st-read and tar see it" {
    pt-read "$NANO_AMAX" >"$T/a.ts"
    st-read "$T/a.ts" >"$T/b.ts"
    [ "$(tar tvf "$T/a.ts" | grep -c _quantizer._amax)" -eq 378 ]
    cmp <(tar xOf "$T/a.ts" .toc) <(tar xOf "$T/b.ts" .toc)
    table "$T/b.ts" | cmp - "$GOLDEN/amax.tsv"
    [ "$(tar xOf "$T/a.ts" .end | jq -c '[.tensors, .bytes, .plan]')" = '[378,756,false]' ]
}

@test "-n writes the table only, -v says how much" {
    pt-read -n -o "$T/plan.ts" "$NANO_AMAX"
    [ "$(tar tf "$T/plan.ts" | tr '\n' ' ')" = '.stream .toc .end ' ]
    tar xOf "$T/plan.ts" .toc | cut -f 1-4 | cmp - <(cut -f 1-4 "$GOLDEN/amax.tsv")
    run pt-read -v -o "$T/a.ts" "$NANO_AMAX"
    [ "$output" = 'pt-read: 378 tensors, 756 bytes, from 1 files' ]
}

@test "every dump of the larger fixtures: a tensor for each storage" {
    fixtures v4-mini
    FIXTURES=${FIXTURES%/v4-mini}
    find "$FIXTURES" -path '*/amax*/*.pt' >"$T/dumps"
    [ -s "$T/dumps" ]
    while read -r dump; do
        pt-read "$dump" >"$T/a.ts"
        [ "$(tar tf "$T/a.ts" | grep -c '_quantizer\._amax$')" -eq \
            "$(bsdtar tf "$dump" | grep -c '/data/')" ]
    done <"$T/dumps"
}

@test "a file packed by deflate gives the same" {
    mkdir "$T/tree"
    bsdtar -C "$T/tree" -xf "$NANO_AMAX/amax_dict_rank0-mp1.pt"
    (cd "$T/tree" && find . -type f -printf '%P\n') >"$T/names"
    bsdtar -C "$T/tree" --format zip --options zip:compression=deflate \
        -cf "$T/amax_dict_rank0-mp1.pt" -T "$T/names"
    cmp <(pt-read "$T/amax_dict_rank0-mp1.pt") <(pt-read "$NANO_AMAX")
}

@test "every dtype, from the storage's type" {
    entry data/0 '\x01\x02\x03\x04\x05\x06\x07\x08'
    for each in BFloat16:BF16:2 Float:F32:4 Half:F16:2 Double:F64:8 Long:I64:8 Int:I32:4 Short:I16:2 \
        Char:I8:1 Byte:U8:1 Bool:BOOL:1; do
        IFS=: read -r type dtype size <<<"$each"
        n="K\\x0$((8 / size))"
        with "$(tensor "$type" 0 "$n" 'K\x00' "$n\\x85" 'K\x01\x85')"
        [ "$(pt-read "$T/x.pt" | tar xOf - .toc)" = \
            "$(printf 'a\t%s\t[%d]\tx.pt\tdata' "$dtype" $((8 / size)))" ]
        [ "$(bytes_of a)" = 0102030405060708 ]
    done
}

@test "tensors that share a storage, with offsets, any stride where there is one element" {
    entry data.pkl "$(dict \
        all "$(tensor Short 0 'K\x04' 'K\x00' 'K\x02K\x02\x86' 'K\x02K\x01\x86')" \
        last "$(tensor Short 0 'K\x04' 'K\x02' 'K\x02\x85' 'K\x01\x85')" \
        one "$(tensor Short 0 'K\x04' 'K\x01' 'K\x01K\x01\x86' 'K\x07K\x00\x86')" \
        none "$(tensor Short 0 'K\x04' 'K\x04' 'K\x00K\x05\x86' 'K\x05K\x01\x86')")"
    pack
    [ "$(bytes_of all)" = 0100020003000400 ]
    [ "$(bytes_of last)" = 03000400 ]
    [ "$(bytes_of one)" = 0200 ]
    [ "$(bytes_of none)" = '' ]
    [ "$(pt-read "$T/x.pt" | tar xOf - .toc | cut -f 3 | tr '\n' ' ')" = '[2,2] [2] [1,1] [0,5] ' ]
}

@test "no byteorder, as older files have it, means little-endian" {
    rm "$T/archive/byteorder"
    pack
    [ "$(bytes_of a)" = 0100020003000400 ]
    entry byteorder big
    pack
    refused "byteorder: wanted 'little'"
}

@test "code is refused by name and offset" {
    entry data.pkl '\x80\x02cos\nsystem\n'"$(text 'touch pwned')"'\x85R.'
    pack
    refused "x.pt: byte 2 of the pickle: global 'os system' is more than tensors need; this file could run code"
    entry data.pkl "$(dict a '\x80\x02cbuiltins\neval\n')"
    pack
    refused 'a: byte 10 of the pickle: opcode 0x80'
    entry data.pkl "$(dict a "$(tensor ComplexFloat 0 'K\x01' 'K\x00' ')' ')')")"
    pack
    refused "a: byte 57 of the pickle: global 'torch ComplexFloatStorage'"
    for opcode in b i o R '\x81' '\x93' '\x82' ']' 'N' 'P' G '\x8c' '\x94' '\x95'; do
        entry data.pkl "$(dict a "$opcode")"
        pack
        refused 'a: byte 10 of the pickle'
    done
    entry data.pkl '\x80\x02ccollections\nOrderedDict\n)R}b.'
    pack
    refused 'opcode 0x62'
}

@test "values that are no tensors are refused by their key" {
    entry data.pkl "$(dict model "$(dict a "$(tensor Short 0 'K\x04' 'K\x00' ')' ')')" |
        sed 's/^\\x80\\x02//; s/\.$//')")"
    pack
    refused 'model: byte'
    [[ $output == *'wanted a tensor, got a dict; save the inner dict alone' ]]
    entry data.pkl "$(dict epoch 'K\x07')"
    pack
    refused 'epoch: byte'
    [[ $output == *'wanted a tensor, got a number'* ]]
    entry data.pkl '\x80\x02K\x01.'
    pack
    refused 'wanted one dict of tensors, got a number'
    entry data.pkl '\x80\x02}.'
    pack
    refused 'no tensor in it'
}

@test "keys that are no tensor names, or come twice" {
    scalar=$(tensor Short 0 'K\x04' 'K\x00' ')' ')')
    for name in '' .end ../x files/x a//b 'a b'; do
        entry data.pkl "$(dict "$name" "$scalar")"
        pack
        refused "$name: a tensor's name must be printable"
    done
    entry data.pkl "$(dict a "$scalar" b "$scalar" a "$scalar")"
    pack
    refused 'x.pt: a: a tensor of that name is already in the same shard'
}

@test "sizes, shapes, strides and offsets that do not fit" {
    whole='\x85K\x01\x85' # of a shape, and its stride
    with "$(tensor Short 0 'K\x03' 'K\x00' 'K\x03' "$whole")"
    refused 'a: wanted a storage data/0 of 3 I16, got 8 bytes'
    with "$(tensor Int 0 'K\x04' 'K\x00' 'K\x04' "$whole")"
    refused 'a: wanted a storage data/0 of 4 I32, got 8 bytes'
    with "$(tensor Short 0 '\x8a\x08\x04\x00\x00\x00\x00\x00\x00\x40' 'K\x00' 'K\x04' "$whole")"
    refused 'a: wanted a storage data/0 of 4611686018427387908 I16'
    with "$(tensor Double 0 '\x8a\x08\x04\x00\x00\x00\x00\x00\x00\x40' 'K\x00' 'K\x04' "$whole")"
    refused 'a: wanted a storage data/0 of 4611686018427387908 F64'
    with "$(tensor Short 0 'J\xff\xff\xff\xff' 'K\x00' 'K\x04' "$whole")"
    refused 'a storage of -1 elements'
    with "$(tensor Short 0 'K\x04' 'K\x01' 'K\x04' "$whole")"
    refused 'a: 8 bytes from element 1 on are outside its storage data/0 of 8 bytes'
    with "$(tensor Short 0 'K\x04' '\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f' 'K\x04' "$whole")"
    refused 'a: 8 bytes from element 9223372036854775807 on are outside its storage'
    with "$(tensor Double 0 'K\x01' '\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f' 'K\x01' "$whole")"
    refused 'a: 8 bytes from element 9223372036854775807 on are outside its storage'
    with "$(tensor Short 0 'K\x04' 'J\xfe\xff\xff\xff' 'K\x04' "$whole")"
    refused 'its offset is -2'
    with "$(tensor Short 0 'K\x04' 'K\x05' 'K\x00' "$whole")"
    refused 'a: 0 bytes from element 5 on are outside'
    with "$(tensor Short 0 'K\x04' 'K\x00' 'K\x05' "$whole")"
    refused 'a: 10 bytes from element 0 on are outside'
    with "$(tensor Short 0 'K\x04' 'K\x00' 'J\xff\xff\xff\xff' "$whole")"
    refused 'its shape holds a negative number'
    with "$(tensor Short 0 'K\x04' 'K\x00' '\x8a\x04\x00\x00\x00\x40' "$whole")"
    refused 'a: 2147483648 bytes, wanted at most 1073741824'
    big='\x8a\x05\x00\x00\x00\x00\x01'
    with "$(tensor Short 0 'K\x04' 'K\x00' "$big$big\\x86" 'K\x00K\x00\x86')"
    refused 'a: its size overflows'
    with "$(tensor Short 0 'K\x04' 'K\x00' 'K\x02K\x02\x86' 'K\x01K\x02\x86')"
    refused 'a: not contiguous; save its .contiguous() copy'
    with "$(tensor Short 0 'K\x04' 'K\x00' 'K\x04\x85' 'K\x00\x85')"
    refused 'a: not contiguous'
    with "$(tensor Short 0 'K\x04' 'K\x00' 'K\x04\x85' 'J\xff\xff\xff\xff\x85')"
    refused 'its stride holds a negative number'
}

@test "entries that are missing, twice, elsewhere, or no files" {
    pack byteorder data/0
    refused 'data.pkl is missing'
    pack byteorder data.pkl
    refused 'a: its storage data/0 is missing'
    with "$(tensor Short ../data/0 'K\x04' 'K\x00' ')' ')')"
    refused 'a: its storage data/../data/0 is missing'
    prepare
    pack data.pkl data/0 byteorder data/0
    refused 'data/0: occurs twice in the zip'
    mkdir "$T/other"
    cp "$T/archive/data.pkl" "$T/other"
    bsdtar -C "$T" --format zip -cf "$T/x.pt" archive/data/0 other/data.pkl
    refused "entry 2 of the zip: wanted a printable name in folder 'archive'"
    bsdtar -C "$T/archive" --format zip -cf "$T/x.pt" data.pkl data/0
    refused 'entry 1 of the zip: wanted a printable name in folder'
    ln -s data/0 "$T/archive/link"
    pack data.pkl data/0 link
    refused 'link: wanted a stored or deflated file'
    bsdtar -C "$T" --format zip -cf "$T/x.pt" archive
    refused 'wanted a stored or deflated file'
}

@test "a zip that is cut, anywhere" {
    dump=$NANO_AMAX/amax_dict_rank0-mp1.pt
    size=$(stat -c %s "$dump")
    for keep in 0 1 4 30 43200 60000 $((size / 2)) $((size - 30000)) $((size - 23)) $((size - 22)) $((size - 1)); do
        head -c "$keep" "$dump" >"$T/x.pt"
        refused 'wanted a whole zip file'
    done
    pack
    size=$(stat -c %s "$T/x.pt")
    cp "$T/x.pt" "$T/whole"
    for ((keep = 0; keep < size; keep++)); do
        head -c "$keep" "$T/whole" >"$T/x.pt"
        refused ''
    done
}

@test "a zip with changed bytes" {
    pack
    data=$(LC_ALL=C grep -aboP '\x01\x00\x02\x00\x03\x00\x04\x00' "$T/x.pt" | cut -d : -f 1)
    patch "$data" '\x07'
    refused 'data/0: ZIP bad CRC'
}

@test "sizes that a zip only claims" {
    pack
    claim data/0 '\x00\x00\x00\xf0'
    refused 'data/0: wanted at most 1073741824 bytes (1 GiB less the storages before it), got 4026531840'
    pack
    claim data.pkl '\x00\x00\x00\x10'
    refused 'data.pkl: wanted at most 67108864 bytes, got 268435456'
    pack
    claim data/0 '\x09'
    refused 'data/0: '
    pack
    claim data/0 '\x07'
    refused ''
    truncate -s 1073741825 "$T/x.pt"
    refused '1073741825 bytes, wanted at most 1 GiB'
}

@test "what is no such file" {
    refused 'x.pt: No such file or directory'
    printf 'hello\n' >"$T/x.pt"
    refused 'wanted a whole zip file'
    refused 'not a regular file' "$NANO_AMAX/amax_dict_rank0-mp1.pt" "$T"
    refused 'not a regular file' /dev/null
    mkfifo "$T/fifo"
    refused 'not a regular file' "$T/fifo"
    pack
    for name in 'my dump' x@y .x ä; do
        mv "$T/x.pt" "$T/$name.pt"
        refused 'rename or link it' "$T/$name.pt"
        refused 'rename or link it' "$T/none.pt" "$T/$name.pt" # before any is read
        mv "$T/$name.pt" "$T/x.pt"
    done
    refused 'wanted files of different names' "$NANO_AMAX/amax_dict_rank0-mp1.pt" \
        "$NANO_AMAX/../amax/amax_dict_rank0-mp1.pt"
}

@test "a folder must hold one whole dump" {
    mkdir "$T/dump"
    refused 'no amax_dict_rank*-mp*.pt in this folder' "$T/dump"
    cp "$NANO_AMAX-mp2/amax_dict_rank1-mp2.pt" "$T/dump"
    refused 'a rank is missing' "$T/dump"
    cp "$NANO_AMAX/amax_dict_rank0-mp1.pt" "$T/dump"
    refused 'dumps of several runs' "$T/dump"
    rm "$T/dump/amax_dict_rank0-mp1.pt"
    cp "$NANO_AMAX-mp2/amax_dict_rank0-mp2.pt" "$T/dump"
    touch "$T/dump/other.pt"
    cmp <(pt-read "$T/dump") <(pt-read "$NANO_AMAX-mp2")
}

@test "the page's examples" {
    ln -s "$NANO_AMAX" "$T/amax"
    ln -s "$NANO_AMAX-mp2" "$T/amax-mp2"
    cd "$T"
    [ "$(pipeline 'pt-read amax | st-ls' | grep -c '_amax')" -eq 378 ]
    [ "$(pipeline 'pt-read amax/amax_dict_rank0-mp1.pt | tar xOf - .toc' | wc -l)" -eq 378 ]
    pipeline 'pt-read amax-mp2 | amax-merge --fallback layer-max >amax.ts'
    [ "$(tar xOf amax.ts .toc | grep -c '_amax')" -eq 381 ]
}

@test "a wrong command line exits 2" {
    run pt-read
    [ "$status" -eq 2 ]
    [[ $output == *'which file?'* ]]
    run pt-read --frobnicate "$NANO_AMAX"
    [ "$status" -eq 2 ]
}
