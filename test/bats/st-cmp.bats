#!/usr/bin/env bats
# st-cmp

load common
load craft

# one NAME DTYPE SHAPE DATA: $T/NAME.safetensors with a tensor "t".
one() {
    local bytes
    bytes=$(printf '%b' "$4" | wc -c)
    safetensors "$T/$1.safetensors" \
        "{\"t\":{\"dtype\":\"$2\",\"shape\":$3,\"data_offsets\":[0,$bytes]}}" "$4"
}

# cmp_one A B [OPTION...]: run st-cmp on two of these.
cmp_one() {
    local a=$1 b=$2
    shift 2
    run st-cmp "$@" "$T/$a.safetensors" "$T/$b.safetensors"
}

@test "a checkpoint, its stream, its inline stream: all the same" {
    run st-cmp --files "$NANO" "$NANO"
    [ "$status" = 0 ]
    [ "${lines[0]}" = '667 tensors: 667 equal, 0 differ, 0 only in A, 0 only in B' ]
    [ "${lines[1]}" = '5 side files: 5 equal, 0 differ, 0 only in A, 0 only in B' ]
    run pipeline "st-read '$NANO' | st-cmp - '$NANO'"
    [ "$status" = 0 ]
    run pipeline "st-read --inline '$NANO' | st-cmp --files '$NANO' -"
    [ "$status" = 0 ]
    [ "${#lines[@]}" = 2 ]
}

@test "a copy in another place is read" {
    cp -r "$NANO" "$T/copy"
    run st-cmp "$NANO" "$T/copy"
    [ "$status" = 0 ]
    size=$(stat -c %s "$T/copy/model-00002-of-00003.safetensors")
    printf 'X' | dd of="$T/copy/model-00002-of-00003.safetensors" bs=1 seek=$((size - 1)) conv=notrunc status=none
    run st-cmp "$NANO" "$T/copy"
    [ "$status" = 1 ]
    [ "${lines[1]}" = '667 tensors: 666 equal, 1 differ, 0 only in A, 0 only in B' ]
}

@test "more files than are open at a time, every other one shared" {
    mkdir "$T/a" "$T/b"
    size=100000 # worth a thread's turn
    for ((i = 10; i < 50; i++)); do
        safetensors "$T/a/$i.safetensors" "{\"t$i\":{\"dtype\":\"U8\",\"shape\":[$size],\"data_offsets\":[0,$size]}}"
        head -c $size /dev/zero >>"$T/a/$i.safetensors"
        if ((i % 2)); then ln -s "../a/$i.safetensors" "$T/b"; else cp "$T/a/$i.safetensors" "$T/b"; fi
    done
    run st-cmp -j 4 "$T/a" "$T/b"
    [ "$status" = 0 ]
    [ "$output" = '40 tensors: 40 equal, 0 differ, 0 only in A, 0 only in B' ]
}

@test "where and by how much" {
    one a F32 '[2,3]' '\0\0\0\0\0\0\x80\x3f\0\0\0\x40\0\0\x40\x40\0\0\x80\x40\0\0\xa0\x40' # 0 1 2 3 4 5
    one b F32 '[2,3]' '\0\0\0\0\0\0\x80\x3f\0\0\0\x40\0\0\x40\x40\0\0\x40\x40\0\0\xb0\x40' # … 3 5.5
    cmp_one a b
    [ "$status" = 1 ]
    # 10 log10((1 + 4 + 9 + 16 + 25) / (1 + 0.25)) = 16.43
    [ "${lines[0]}" = 't: 2 of 6 differ, first at [1,1]: 4 in A, 3 in B; max error 1, SQNR 16.43 dB' ]
    [ "${lines[1]}" = '1 tensors: 0 equal, 1 differ, 0 only in A, 0 only in B' ]
    cmp_one a b --tsv
    [ "$(cut -f1-12 <<<"$output")" = $'t\tdiffers\tF32\t[2,3]\tF32\t[2,3]\t-\t2\t[1,1]\t4\t3\t1' ]
    cmp_one a b --json
    jq -e '[.name, .status, .shape_a, .differing, .index, .value_a, .value_b, .max_error, (.sqnr * 100 | round)] ==
        ["t", "differs", [2, 3], 2, [1, 1], 4, 3, 1, 1643]' <<<"$output"
}

@test "-v, -q, -s, and their JSON" {
    one a U8 '[2]' 'xy'
    one b U8 '[2]' 'xz'
    cmp_one a a -v
    [ "${lines[0]}" = 't: equal' ]
    [ ${#lines[@]} = 2 ]
    cmp_one a b -q
    [ "$status" = 1 ]
    [ "$output" = '' ]
    cmp_one a b -s
    [ "$status" = 1 ]
    [ "$output" = '1 tensors: 0 equal, 1 differ, 0 only in A, 0 only in B' ]
    cmp_one a b -s --json
    [ "$(jq -c '[.what, .count, .equal, .differ, .only_a, .only_b]' <<<"$output")" = '["tensors",1,0,1,0,0]' ]
    cmp_one a b --tsv -o "$T/out"
    [ "$status" = 1 ]
    [ "$output" = '' ]
    [ "$(cut -f2 "$T/out")" = differs ]
}

@test "another dtype or shape; the same bytes or others" {
    one a U8 '[2,1]' 'xy'
    one b I8 '[2,1]' 'xy'
    one c U8 '[1,2]' 'xz'
    one d U8 '[3]' 'xyz'
    cmp_one a b
    [ "$status" = 1 ]
    [ "${lines[0]}" = 't: U8 [2,1] in A, I8 [2,1] in B; the same bytes' ]
    cmp_one a c
    [ "$status" = 1 ]
    [ "${lines[0]}" = 't: U8 [2,1] in A, U8 [1,2] in B; other bytes' ]
    cmp_one a d
    [ "$status" = 1 ]
    [ "${lines[0]}" = 't: U8 [2,1] in A, U8 [3] in B' ]
    cmp_one a b --values
    [ "$status" = 0 ]
    cmp_one a c --values
    [ "$status" = 1 ]
    [ "${lines[0]}" = 't: U8 [2,1] in A, U8 [1,2] in B' ]
    cmp_one a b --json
    [ "$(jq -c '[.status, .same_bytes, .differing]' <<<"$output")" = '["form",true,null]' ]
}

@test "zeros and NaN: bits as they lie, numbers with --values" {
    one a F16 '[3]' '\x00\x80\x01\x7e\x00\x3c' # -0, NaN, 1
    one b F16 '[3]' '\x00\x00\x02\x7e\x00\x3c' # +0, another NaN, 1
    cmp_one a b
    [ "$status" = 1 ]
    [ "${lines[0]}" = 't: 2 of 3 differ, first at [0]: -0 in A, 0 in B; max error 0' ]
    cmp_one a b --values
    [ "$status" = 0 ]
    one c F16 '[3]' '\x00\x00\x00\x7c\x00\x3c' # +0, infinity, 1
    cmp_one b c --values
    [ "$status" = 1 ]
    [ "${lines[0]}" = 't: 1 of 3 differ, first at [1]: nan in A, inf in B; max error inf' ]
    cmp_one b c --json
    [ "$(jq -c '[.value_a, .value_b, .max_error, .sqnr]' <<<"$output")" = '["nan","inf","inf",null]' ]
}

@test "every dtype; large integers exactly; scalars and empty tensors" {
    for dtype in BOOL U8 I8 F8_E4M3 F8_E5M2 F8_E8M0 I16 U16 F16 BF16 I32 U32 F32 I64 U64 F64; do
        case $dtype in
        *16) data='\x01\x02' ;;
        *32) data='\x01\x02\x03\x04' ;;
        *64) data='\x01\x02\x03\x04\x05\x06\x07\x08' ;;
        *) data='\x01' ;;
        esac
        one a $dtype '[]' "$data"
        one b $dtype '[]' "${data/1/0}"
        cmp_one a a
        [ "$status" = 0 ]
        cmp_one a b
        [ "$status" = 1 ]
        [[ ${lines[0]} == 't: 1 of 1 differ, first at []: '* ]]
        cmp_one a b --values
        [ "$status" = 1 ]
    done
    one a I64 '[]' '\x01\x00\x00\x00\x00\x00\x20\x00'
    one b I64 '[]' '\x00\x00\x00\x00\x00\x00\x20\x00'
    cmp_one a b
    [[ ${lines[0]} == *'9007199254740993 in A, 9007199254740992 in B'* ]]
    one a F32 '[0,7]' ''
    cmp_one a a -v
    [ "$status" = 0 ]
    [ "${lines[0]}" = 't: equal' ]
}

@test "only in one; --common" {
    one a U8 '[2]' 'xy'
    safetensors "$T/b.safetensors" \
        '{"s":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"t":{"dtype":"U8","shape":[2],"data_offsets":[1,3]},"u":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}}' 'sxyu'
    cmp_one a b
    [ "$status" = 1 ]
    [ "$output" = "s: only in B
u: only in B
3 tensors: 1 equal, 0 differ, 0 only in A, 2 only in B" ]
    cmp_one b a --tsv
    [ "$(cut -f1-6 <<<"${lines[1]}")" = $'u\tonly A\tU8\t[1]\t-\t-' ]
    cmp_one b a --common
    [ "$status" = 0 ]
    [ "$output" = '1 tensors: 1 equal, 0 differ, 0 only in A, 0 only in B' ]
    run st-cmp -s --files --common "$NANO" "$NANO/model-00001-of-00003.safetensors"
    [ "$status" = 0 ]
    [[ ${lines[1]} == '0 side files: '* ]]
}

@test "tensors in different orders are trouble, seen before one is read" {
    mkdir "$T/generic"
    ln -s "$NANO"/*.safetensors "$T/generic"
    run st-cmp "$NANO" "$T/generic"
    [ "$status" = 2 ]
    [[ $output == *"$NANO is of model type deepseek_v4, and $T/generic of no known one (its config.json is missing or wrong), \
so their tensors come in different orders; put the right config.json into $T/generic" ]]
    [ ${#lines[@]} = 1 ]
    # Of one model, as a stream that another program made.
    unpack "$NANO"
    sort -o "$T/tree/.toc" "$T/tree/.toc"
    pack "$T/sorted.ts"
    run st-cmp "$NANO" "$T/sorted.ts"
    [ "$status" = 2 ]
    [[ $output == *'hold their tensors in different orders: in '*'; make one of them again with st-read and st-write' ]]
    [ ${#lines[@]} = 1 ]
}

@test "a name that ranks repeat" {
    header='{"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    mkdir "$T/a" "$T/b"
    safetensors "$T/a/model0-mp2.safetensors" "$header" x
    safetensors "$T/a/model1-mp2.safetensors" "$header" y
    cp "$T/a"/* "$T/b"
    run st-cmp "$T/a" "$T/b"
    [ "$status" = 0 ]
    [[ $output == '2 tensors: 2 equal'* ]]
    safetensors "$T/b/model1-mp2.safetensors" "$header" z
    run st-cmp "$T/a" "$T/b"
    [ "$status" = 1 ]
    [[ ${lines[1]} == '2 tensors: 1 equal, 1 differ'* ]]
    rm "$T/b/model1-mp2.safetensors"
    run st-cmp "$T/a" "$T/b"
    [ "$status" = 1 ]
    [[ ${lines[1]} == '2 tensors: 1 equal, 0 differ, 1 only in A'* ]]
}

@test "--values: dequantized matrices equal their source" {
    run pipeline "st-read '$NANO' | fp8-dequant | st-cmp --values - '$NANO'"
    [ "$status" = 0 ]
    [ "$output" = '383 tensors: 383 equal, 0 differ, 0 only in A, 0 only in B' ]
    run pipeline "st-read '$NANO' | mxfp4-unpack | st-cmp --values '$NANO' -"
    [ "$status" = 0 ]
    run pipeline "st-read '$NANO' | fp8-dequant | st-cmp - '$NANO'"
    [ "$status" = 1 ]
}

@test "--values: the cast, with codes 8 kept or zeroed, equals its source" {
    amaxes "$T/amax.ts"
    st-read "$NANO" | nvfp4-cast -q --amax "$T/amax.ts" -o "$T/keep.ts"
    st-read "$NANO" | nvfp4-cast -q --amax "$T/amax.ts" --zero positive -o "$T/positive.ts"
    run st-cmp --values "$NANO" "$T/keep.ts"
    [ "$status" = 0 ]
    run st-cmp --values "$T/keep.ts" "$T/positive.ts"
    [ "$status" = 0 ]
    run st-cmp "$T/keep.ts" "$T/positive.ts"
    [ "$status" = 1 ]
    [ "${lines[-1]}" = '1051 tensors: 859 equal, 192 differ, 0 only in A, 0 only in B' ]
    run st-cmp "$NANO" "$T/keep.ts"
    [ "$status" = 1 ]
    [[ $output == *'layers.0.ffn.experts.0.w1.weight: I8 [128,128] in A, U8 [128,128] in B; the same bytes'* ]]
}

@test "--values: an input scale counts where both have it" {
    header='{"m.input_scale":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"t":{"dtype":"U8","shape":[0],"data_offsets":[4,4]}}'
    safetensors "$T/a.safetensors" "$header" '\0\0\x80\x3f'
    safetensors "$T/b.safetensors" "$header" '\0\0\0\x40'
    one c U8 '[0]' ''
    cmp_one a b --values
    [ "$status" = 1 ]
    cmp_one a c --values
    [ "$status" = 0 ]
    cmp_one c a --values
    [ "$status" = 0 ]
    cmp_one a c
    [ "$status" = 1 ]
}

@test "side files: changed, another size, only in one" {
    cp -r "$NANO" "$T/copy"
    sed -i 's/"bos/"BOS/' "$T/copy/tokenizer_config.json"
    echo >>"$T/copy/config.json"
    rm "$T/copy/generation_config.json"
    run st-cmp --files "$NANO" "$T/copy"
    [ "$status" = 1 ]
    [[ $output == *'config.json: U8 ['*'generation_config.json: only in A'*'tokenizer_config.json: '*' differ, first at ['* ]]
    [ "${lines[-1]}" = '5 side files: 2 equal, 2 differ, 1 only in A, 0 only in B' ]
    run st-cmp "$NANO" "$T/copy"
    [ "$status" = 0 ]
}

@test "plans: -n compares tables, else they are trouble" {
    st-read -n -o "$T/plan.ts" "$NANO"
    run st-cmp -n "$T/plan.ts" "$NANO"
    [ "$status" = 0 ]
    [[ $output == '667 tensors: 667 equal'* ]]
    run st-cmp "$T/plan.ts" "$NANO"
    [ "$status" = 2 ]
    [[ $output == *'a plan, without tensors'* ]]
    one a U8 '[2]' 'xy'
    one b U8 '[2]' 'xz'
    cmp_one a b -n
    [ "$status" = 0 ]
    one b I8 '[2]' 'xy'
    cmp_one a b -n
    [ "$status" = 1 ]
}

@test "trouble exits 2 whichever thread meets it" {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    header='{"t":{"dtype":"U8","shape":[8000000],"data_offsets":[0,8000000]}}'
    for file in a b; do
        { le64 ${#header} && printf '%s' "$header" && head -c 8000000 /dev/zero; } >"$T/$file.safetensors"
    done
    # Each thread has its own count, and the first one reads little but headers.
    run strace -f -o "$T/calls" -e trace=pread64 -e inject=pread64:error=EIO:when=30+ \
        st-cmp -q -j 1 "$T/a.safetensors" "$T/b.safetensors"
    [ "$status" = 2 ]
    [[ ${#lines[@]} = 1 && $output == *'Input/output error'* ]]
    awk 'NR == 1 { first = $1 } /INJECTED/ { exit $1 == first }' "$T/calls"
}

@test "trouble exits 2: a cut stream, a missing file, full disk, wrong usage" {
    st-read -o "$T/a.ts" "$NANO"
    head -c 200000 "$T/a.ts" >"$T/cut.ts"
    run st-cmp -q "$T/cut.ts" "$NANO"
    [ "$status" = 2 ]
    [ ${#lines[@]} = 1 ]
    head -c -1024 "$T/a.ts" | head -c -512 >"$T/cut.ts" # all tensors, no end
    run st-cmp -q "$NANO" "$T/cut.ts"
    [ "$status" = 2 ]
    run st-cmp "$NANO" "$T/none"
    [ "$status" = 2 ]
    run bash -c "st-cmp '$NANO' '$NANO' >/dev/full"
    [ "$status" = 2 ]
    for wrong in "$NANO" "- -" "--tsv --json $NANO $NANO" "$NANO $NANO $NANO" "--bogus $NANO $NANO"; do
        # shellcheck disable=SC2086 # several words
        run st-cmp $wrong </dev/null
        [ "$status" = 2 ]
    done
}
