#!/usr/bin/env bats
# st-sum

load common
load craft

@test "the bundled checkpoint in BF16 has the reference's digests" {
    pipeline "st-read '$NANO' | fp8-dequant | mxfp4-unpack >'$T/bf16.ts'"
    diff <(digests "$T/bf16.ts") <(golden "$GOLDEN/bf16.tsv")
}

@test "a line is what sha256sum says of the extracted bytes" {
    st-read --inline --layers 2-2 -o "$T/a.ts" "$NANO"
    mkdir "$T/x"
    bsdtar -xf "$T/a.ts" -C "$T/x"
    st-sum --each "$T/a.ts" | cut -f1,2 | sed 's/\t/  /' >"$T/sums"
    [ "$(wc -l <"$T/sums")" -gt 100 ]
    (cd "$T/x" && sha256sum --quiet -c "$T/sums")
}

@test "the digest is that of the sorted listing" {
    run st-sum "$NANO"
    [ "$status" = 0 ]
    listing=$(st-sum --each "$NANO" | LC_ALL=C sort | sha256sum)
    [ "$output" = "${listing%% *}"$'\t667 tensors\t12701674 bytes' ]
}

@test "order, shards, inline or by reference, side files: no difference" {
    sum=$(st-sum "$NANO")
    [ "$(st-read --inline "$NANO" | st-sum)" = "$sum" ]
    [ "$(st-read "$NANO" | st-sum)" = "$sum" ]
    mkdir "$T/generic" # without config.json: natural order of names
    ln -s "$NANO"/*.safetensors "$T/generic"
    [ "$(st-sum --each "$T/generic" | sha256sum)" != "$(st-sum --each "$NANO" | sha256sum)" ]
    [ "$(st-sum "$T/generic")" = "$sum" ]
}

@test "a changed bit, name, dtype or shape: another digest" {
    safetensors "$T/a" '{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}' 'xy'
    safetensors "$T/b" '{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}' 'xz'
    safetensors "$T/c" '{"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}' 'xy'
    safetensors "$T/d" '{"a":{"dtype":"I8","shape":[2],"data_offsets":[0,2]}}' 'xy'
    safetensors "$T/e" '{"a":{"dtype":"U8","shape":[2,1],"data_offsets":[0,2]}}' 'xy'
    for i in a b c d e; do
        mv "$T/$i" "$T/$i.safetensors"
        st-sum "$T/$i.safetensors"
    done | cut -f1 | sort -u >"$T/sums"
    [ "$(wc -l <"$T/sums")" = 5 ]
}

@test "empty tensors and scalars" {
    safetensors "$T/a.safetensors" \
        '{"e":{"dtype":"F16","shape":[0,3],"data_offsets":[0,0]},"s":{"dtype":"I64","shape":[],"data_offsets":[0,8]}}' \
        '\x07\x00\x00\x00\x00\x00\x00\x00'
    run st-sum --each "$T/a.safetensors"
    [ "$status" = 0 ]
    [ "${lines[0]}" = "$(sha256sum </dev/null | cut -c1-64)"$'\te\tF16\t[0,3]' ]
    [ "${lines[1]}" = "$(le64 7 | sha256sum | cut -c1-64)"$'\ts\tI64\t[]' ]
}

@test "-a xxh128: the digests of XXH3-128; --check takes the algorithm of its file" {
    safetensors "$T/a.safetensors" '{"e":{"dtype":"F16","shape":[0,3],"data_offsets":[0,0]}}'
    run st-sum -a xxh128 --each "$T/a.safetensors"
    [ "$status" = 0 ]
    [ "$output" = $'99aa06d3014798d86001c324468d497f\te\tF16\t[0,3]' ] # published, of no bytes
    [ "$(st-sum -a sha256 "$NANO")" = "$(st-sum "$NANO")" ]
    st-sum -a xxh128 --each -o "$T/sums" "$NANO"
    [ "$(cut -f1 "$T/sums" | sort -u | wc -l)" = "$(st-sum --each "$NANO" | cut -f1 | sort -u | wc -l)" ]
    st-sum --check "$T/sums" "$NANO"
    st-read --inline "$NANO" | st-sum -j 1 --check "$T/sums"
    sum=$(st-sum -a xxh128 "$NANO")
    [[ $sum =~ ^[0-9a-f]{32}$'\t667 tensors\t12701674 bytes'$ ]]
    [ "$(st-read --inline "$NANO" | st-sum -a xxh128)" = "$sum" ]
    tr '0123456789abcdef' '123456789abcdef0' <"$T/sums" | head -c 32 >"$T/other"
    tail -c +33 "$T/sums" >>"$T/other"
    run st-sum --check "$T/other" "$NANO"
    [ "$status" = 1 ]
    [[ ${lines[0]} = *': FAILED' ]]
}

@test "a listing of two algorithms, or an algorithm beside --check: refused" {
    st-sum --each "$NANO" | head -n 3 >"$T/sums"
    st-sum -a xxh128 --each "$NANO" | tail -n 3 >>"$T/sums"
    run st-sum --check "$T/sums" "$NANO"
    [ "$status" = 1 ]
    [ "$output" = "st-sum: $T/sums: line 4: not of a listing as --each writes it" ]
    run st-sum -a xxh128 --check "$T/sums" "$NANO"
    [ "$status" = 2 ]
    [[ ${lines[0]} = *'--check takes the algorithm from its file; leave -a out'* ]]
    run st-sum -a md5 "$NANO"
    [ "$status" = 2 ]
}

@test "--check: as listed, changed, missing, new" {
    header='{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}'
    safetensors "$T/a.safetensors" "$header" 'xy'
    safetensors "$T/b.safetensors" "$header" 'xz'
    safetensors "$T/c.safetensors" '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"c":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}' 'xy'
    st-sum --each -o "$T/sums" "$T/a.safetensors"
    run st-sum --check "$T/sums" "$T/a.safetensors"
    [ "$status" = 0 ]
    [ "$output" = "" ]
    run st-sum -v --check - "$T/a.safetensors" <"$T/sums"
    [ "$status" = 0 ]
    [ "$output" = $'a: OK\nb: OK' ]
    run st-sum --check "$T/sums" "$T/b.safetensors"
    [ "$status" = 1 ]
    [ "${lines[0]}" = 'b: FAILED' ]
    [ "${lines[1]}" = "st-sum: $T/b.safetensors: 1 tensors are not as $T/sums lists them" ]
    run st-sum --check "$T/sums" "$T/c.safetensors"
    [ "$status" = 1 ]
    [ "${lines[0]}" = 'b: missing' ]
    [ "${lines[1]}" = 'c: not listed' ]
    run st-sum -q --check "$T/sums" "$T/c.safetensors"
    [ "$status" = 1 ]
    [ "${#lines[@]}" = 1 ]
}

@test "--check refuses what is no listing" {
    echo hello >"$T/sums"
    run st-sum --check "$T/sums" "$NANO"
    [ "$status" = 1 ]
    [[ $output == *"$T/sums: line 1: "* ]]
    printf '%064d\t' 0 >"$T/sums"
    run st-sum --check "$T/sums" "$NANO"
    [ "$status" = 1 ]
    [[ $output == *"line 1: "* ]]
    run st-sum --check "$T/none" "$NANO"
    [ "$status" = 1 ]
    # Something behind a line's end for C, and lines without end.
    st-sum --each "$NANO" >"$T/sums"
    { head -n 1 "$T/sums" | tr '\n' '\0' && echo and more && tail -n +2 "$T/sums"; } >"$T/more"
    refused 'more: line 1: not of a listing' st-sum --check "$T/more" "$NANO"
    { cat "$T/sums" && printf '%064d\t%05000d\tF32\t[]\n' 0 0; } >"$T/more"
    refused 'more: line 668: not of a listing' st-sum --check "$T/more" "$NANO"
    [[ $BIN != *sanitize* ]] || return 0 # they take more memory
    refused '/dev/zero: line 1: not of a listing' bash -c "ulimit -v 4000000; exec st-sum --check /dev/zero '$NANO'"
}

@test "-n: the same lines without digests" {
    [ "$(st-sum -n "$NANO")" = "$(st-sum "$NANO" | sed 's/^[^\t]*/-/')" ]
    [ "$(st-read -n "$NANO" | st-sum -n)" = "$(st-sum -n "$NANO")" ]
    diff <(st-sum -n --each "$NANO") <(st-sum --each "$NANO" | sed 's/^[^\t]*/-/')
}

@test "a plan, a cut stream, a full disk: no digest" {
    run bash -o pipefail -c "st-read -n '$NANO' | st-sum"
    [ "$status" = 1 ]
    [[ $output == *"a plan, without tensors"* ]]
    st-read -o "$T/a.ts" "$NANO"
    head -c 200000 "$T/a.ts" >"$T/cut.ts"
    run st-sum -o "$T/sum" "$T/cut.ts"
    [ "$status" = 1 ]
    [ "${#lines[@]}" = 1 ]
    [ ! -e "$T/sum" ]
    run st-sum -n --check x "$NANO"
    [ "$status" = 2 ]
    run st-sum --each --check x "$NANO"
    [ "$status" = 2 ]
    run bash -c "st-sum '$NANO' >/dev/full"
    [ "$status" = 1 ]
}

@test "a closed pipe ends it silently" {
    run bash -c "st-sum --each '$NANO' | head -n 1; echo \${PIPESTATUS[0]}"
    [[ ${lines[1]} == 141 || ${lines[1]} == 0 ]]
    [ ${#lines[@]} = 2 ]
}
