#!/usr/bin/env bats
# st-stat

load common
load craft

# one DTYPE SHAPE DATA [NAME]: $T/a.safetensors with a tensor.
one() {
    local bytes
    bytes=$(printf '%b' "$3" | wc -c)
    safetensors "$T/a.safetensors" \
        "{\"${4:-t}\":{\"dtype\":\"$1\",\"shape\":$2,\"data_offsets\":[0,$bytes]}}" "$3"
}

# stat_is WANTED [OPTION...]: count, min, max, max_abs, mean, zeros, nan and inf of its one tensor.
stat_is() {
    local wanted=$1
    shift
    run st-stat --tsv "$@" "$T/a.safetensors"
    [ "$status" = 0 ]
    [ "$(cut -f5-12 <<<"$output" | tr '\t' ' ')" = "$wanted" ]
}

@test "every dtype" {
    one BOOL '[3]' '\x00\x01\x01'
    stat_is '3 0 1 1 0.6666666666666666 1 0 0'
    one U8 '[3]' '\x00\x01\xff'
    stat_is '3 0 255 255 85.33333333333333 1 0 0'
    one I8 '[2]' '\x80\x00'
    stat_is '2 -128 0 128 -64 1 0 0'
    one F8_E4M3 '[4]' '\x7f\x80\x7e\xbc' # NaN, -0, 448, -1.5
    stat_is '4 -1.5 448 448 148.83333333333334 1 1 0'
    one F8_E5M2 '[4]' '\x7c\x7d\x3c\xc0' # infinity, NaN, 1, -2
    stat_is '4 -2 1 2 -0.5 0 1 1'
    one F8_E8M0 '[3]' '\x7f\x80\xff' # 1, 2, NaN
    stat_is '3 1 2 2 1.5 0 1 0'
    one I16 '[2]' '\xff\xff\x03\x00'
    stat_is '2 -1 3 3 1 0 0 0'
    one U16 '[2]' '\xff\xff\x01\x00'
    stat_is '2 1 65535 65535 32768 0 0 0'
    one F16 '[4]' '\x00\x3c\x00\xfc\x00\x7e\x00\x80' # 1, -infinity, NaN, -0
    stat_is '4 0 1 1 0.5 1 1 1'
    one BF16 '[3]' '\x80\x3f\x80\xbf\xc0\x7f' # 1, -1, NaN
    stat_is '3 -1 1 1 0 0 1 0'
    one I32 '[2]' '\xfe\xff\xff\xff\x00\x00\x00\x00'
    stat_is '2 -2 0 2 -1 1 0 0'
    one U32 '[1]' '\xff\xff\xff\xff'
    stat_is '1 4294967295 4294967295 4294967295 4294967295 0 0 0'
    one F32 '[2]' '\x00\x00\x00\x40\x00\x00\x40\x40'
    stat_is '2 2 3 3 2.5 0 0 0'
    one I64 '[2]' '\xff\xff\xff\xff\xff\xff\xff\xff\x03\x00\x00\x00\x00\x00\x00\x00'
    stat_is '2 -1 3 3 1 0 0 0'
    one U64 '[1]' '\x00\x00\x00\x00\x00\x00\x00\x80'
    stat_is '1 9.223372036854776e+18 9.223372036854776e+18 9.223372036854776e+18 9.223372036854776e+18 0 0 0'
    one F64 '[]' '\x00\x00\x00\x00\x00\x00\xf8\xbf'
    stat_is '1 -1.5 -1.5 1.5 -1.5 0 0 0'
}

@test "nothing finite, and nothing at all" {
    one BF16 '[2]' '\xc0\x7f\x80\x7f'
    stat_is '2 - - - - 0 1 1'
    one F32 '[0,4]' ''
    stat_is '0 - - - - 0 0 0'
    run st-stat --json "$T/a.safetensors"
    [ "$(jq -c '[.shape, .count, .min]' <<<"$output")" = '[[0,4],0,null]' ]
    run st-stat "$T/a.safetensors"
    [ "$status" = 0 ]
    [[ ${lines[1]} == 'F32 '*' t [0,4]' ]]
    [ "${lines[2]}" = '1 tensors, 0 elements, 0 NaN, 0 infinite' ]
    run st-stat -q "$T/a.safetensors"
    [ ${#lines[@]} = 1 ]
}

@test "--hist: exponents; codes of packed weights" {
    one F32 '[5]' '\x00\x00\x80\x3f\x00\x00\xc0\xbf\x00\x00\x80\x3e\x00\x00\x00\x00\x01\x00\x00\x00' # 1 -1.5 .25 0 2^-149
    run st-stat --json --hist "$T/a.safetensors"
    [ "$(jq -c .hist <<<"$output")" = '{"-149":1,"-2":1,"0":2}' ]
    run st-stat --hist "$T/a.safetensors"
    [ "${lines[3]}" = '  2^-2               1 #########################' ]
    [ "${lines[4]}" = '  2^0                2 ##################################################' ]
    one I8 '[1,2]' '\x8f\x80' x.weight
    run st-stat --json --hist "$T/a.safetensors"
    [ "$(jq -c '[.packed, .hist]' <<<"$output")" = '[true,{"0":1,"8":2,"15":1}]' ]
    run st-stat --hist "$T/a.safetensors"
    [[ ${lines[1]} == *' x.weight [1,2] packed' ]]
    [ "${lines[3]}" = '  code 8                2 ##################################################' ]
}

@test "more elements than fit a band" {
    head -c 3000001 /dev/zero | tr '\0' '\001' >"$T/ones"
    header='{"t":{"dtype":"U8","shape":[3000001],"data_offsets":[0,3000001]}}'
    { le64 ${#header} && printf '%s' "$header" && cat "$T/ones"; } >"$T/a.safetensors"
    stat_is '3000001 1 1 1 1 0 0 0'
}

@test "--values is what the dequantized stream holds" {
    pipeline "st-read '$NANO' | fp8-dequant | mxfp4-unpack | st-stat --tsv --hist >'$T/wanted'"
    st-stat --values --tsv --hist "$NANO" | diff "$T/wanted" -
    [ "$(wc -l <"$T/wanted")" = 383 ]
    run st-stat --values --tsv "$NANO/model-00001-of-00003.safetensors"
    [ "$status" = 0 ]
}

@test "--values: NVFP4, with its input scales" {
    amaxes "$T/amax.ts"
    st-read "$NANO" | nvfp4-cast -q --amax "$T/amax.ts" >"$T/nv.ts"
    nvfp4-unpack "$T/nv.ts" | st-stat --tsv | grep '\.weight' >"$T/wanted"
    st-stat --tsv "$T/nv.ts" | grep -c input_scale >"$T/scales"
    [ "$(cat "$T/scales")" = 192 ]
    st-stat --values --tsv "$T/nv.ts" >"$T/got"
    grep '^layers.*[.]experts' "$T/wanted" | diff - <(grep '^layers.*[.]experts.*weight' "$T/got")
}

@test "--values without the scales is an error that says what to do" {
    run pipeline "st-grep 'w1\.weight' '$NANO' | st-stat --values"
    [ "$status" = 1 ]
    [[ $output == *'its scale layers.0.ffn.shared_experts.w1.scale'*'is missing'* ]]
    pipeline "st-grep 'w1\.weight' '$NANO' | st-stat" >"$T/out"
    grep -q 'packed$' "$T/out"
}

@test "inline and by reference: the same" {
    st-stat --values --tsv "$NANO" >"$T/wanted"
    pipeline "st-read --inline '$NANO' | st-stat --values --tsv" | diff "$T/wanted" -
}

@test "-n: how many tensors and elements, as in the closing line" {
    for values in '' --values; do
        # shellcheck disable=SC2086
        whole=$(st-stat $values "$NANO" | tail -n 1)
        # shellcheck disable=SC2086
        [ "$(st-stat -n $values "$NANO"), 0 NaN, 0 infinite" = "$whole" ]
        [ "$(pipeline "st-read -n '$NANO' | st-stat -n $values"), 0 NaN, 0 infinite" = "$whole" ]
    done
    [ -z "$(st-stat -n --json "$NANO")" ]
}

@test "plans, cut streams, full disks, wrong usage" {
    run pipeline "st-read -n '$NANO' | st-stat"
    [ "$status" = 1 ]
    [[ $output == *'a plan, without tensors'* ]]
    run st-stat --json --tsv "$NANO"
    [ "$status" = 2 ]
    pipeline "st-read --inline '$NANO' | head -c 3000000 >'$T/cut.ts'" || true
    run st-stat -q -o "$T/out" "$T/cut.ts"
    [ "$status" = 1 ]
    [ ${#lines[@]} = 1 ]
    [ ! -e "$T/out" ]
    run bash -c "st-stat '$NANO' >/dev/full"
    [ "$status" = 1 ]
}

@test "a closed pipe ends it silently" {
    run bash -c "st-stat '$NANO' | head -n 1; echo \${PIPESTATUS[0]}"
    [ ${#lines[@]} = 2 ]
    [[ ${lines[1]} == 141 || ${lines[1]} == 0 ]]
}
