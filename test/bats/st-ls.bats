#!/usr/bin/env bats
# st-ls

load common
load craft

@test "for people: aligned columns and totals" {
    run st-ls "$NANO"
    [ "$status" = 0 ]
    [ ${#lines[@]} = 668 ]
    [ "${lines[0]}" = 'BF16     [4096,256]    2.1 MB  embed.weight' ]
    [ "${lines[1]}" = 'F32      [24]            96 B  layers.0.hc_attn_base' ]
    [ "${lines[667]}" = '667 tensors, 12.7 MB: 240 I8 3.9 MB, 44 F8_E4M3 2.0 MB, 284 F8_E8M0 246 kB, 48 BF16 5.2 MB, 49 F32 1.1 MB, 2 I64 262 kB' ]
    run st-ls -q "$NANO"
    [ ${#lines[@]} = 667 ]
}

@test "--tsv and --json say the same as the shards' own headers" {
    for shard in "$NANO"/*.safetensors; do
        length=$(od -An -tu8 -N8 "$shard" | tr -d ' ')
        tail -c +9 "$shard" | head -c "$length" | jq -r --arg shard "${shard##*/}" --argjson base $((length + 8)) '
            del(.__metadata__) | to_entries[] | .value.data_offsets as [$from, $to] |
            [.key, .value.dtype, (.value.shape | tojson), $to - $from, $shard, "data",
             "\($shard)@\($base + $from)+\($to - $from)"] | join("\t")'
    done | LC_ALL=C sort >"$T/wanted"
    st-ls --tsv "$NANO" | LC_ALL=C sort | diff "$T/wanted" -
    st-ls --json "$NANO" | jq -r '[.name, .dtype, (.shape | tojson), .bytes, .shard, .use, .where] | join("\t")' |
        LC_ALL=C sort | diff "$T/wanted" -
}

@test "the order is the stream's" {
    st-ls --tsv "$NANO" | cut -f1 >"$T/names"
    [ "$(head -n 1 "$T/names")" = embed.weight ]
    [ "$(grep -A5 '^layers.2.ffn.experts.9.w1.scale' "$T/names" | tr '\n' ' ' | sed 's/layers.2.ffn.experts.9.//g')" = \
        'w1.scale w1.weight w3.scale w3.weight w2.scale w2.weight ' ]
    st-read "$NANO" | tar tf - | grep -v -e '^\.' -e ^files/ | diff "$T/names" -
}

@test "-l: shard, use, and where the bytes lie" {
    pipeline "st-read --layers 0-0 '$NANO' | fp8-dequant | st-ls -l >'$T/out'"
    grep -qE '^BF16 +\[256,256\] +131 kB +model-00001-of-00003.safetensors  data     layers\.0\.attn\.wo_a\.weight  inline$' "$T/out"
    grep -qE 'layers\.0\.ffn\.gate\.weight  model-00001-of-00003\.safetensors@[0-9]+\+8192$' "$T/out"
}

@test "context is named so" {
    st-read --part 2/3 "$NANO" >"$T/part.ts"
    [ "$(st-ls --json "$T/part.ts" | jq -r .use | sort -u | head -n 1)" = "$(tar xOf "$T/part.ts" .toc | cut -f5 | sort -u | head -n 1)" ]
}

@test "patterns" {
    run st-ls "$NANO" '*.experts.7.w1.weight' norm.weight
    [ "$status" = 0 ]
    [ ${#lines[@]} = 7 ]
    [[ ${lines[6]} == '6 tensors, '* ]]
    run st-ls "$NANO" 'norm.*' 'nothing*'
    [ "$status" = 1 ]
    [ "$output" = "st-ls: $NANO: no tensor's name matches 'nothing*'" ]
    run pipeline "st-read '$NANO' | st-ls - norm.weight"
    [ "$status" = 0 ]
}

@test "plans: from the table" {
    run pipeline "st-read -n '$NANO' | fp8-dequant | st-ls --json | jq -c .where | sort | uniq -c"
    [ "$status" = 0 ]
    [[ $output == *' null' ]]
    st-ls -n --tsv "$NANO" | cut -f1-6 >"$T/plan"
    st-ls --tsv "$NANO" | cut -f1-6 | diff "$T/plan" -
    [ "$(st-ls -n --tsv "$NANO" | cut -f7 | sort -u)" = - ]
}

@test "names that JSON must escape, scalars, empty tensors" {
    safetensors "$T/a.safetensors" \
        '{"a\"\\b":{"dtype":"F64","shape":[],"data_offsets":[0,8]},"e":{"dtype":"BOOL","shape":[3,0],"data_offsets":[8,8]}}' '\0\0\0\0\0\0\0\0'
    run st-ls --tsv "$T/a.safetensors"
    [ "$status" = 0 ]
    [ "$(cut -f1-4 <<<"${lines[0]}")" = 'a"\b	F64	[]	8' ]
    [ "$(cut -f1-4 <<<"${lines[1]}")" = 'e	BOOL	[3,0]	0' ]
    [ "$(st-ls --json "$T/a.safetensors" | jq -r 'select(.bytes == 8).name')" = 'a"\b' ]
}

@test "--header: files, history, counts" {
    pipeline "st-read '$NANO' | fp8-dequant >'$T/a.ts'"
    st-ls --header "$T/a.ts" >"$T/header"
    [ "$(jq -r '.history[].program' "$T/header")" = $'st-read\nfp8-dequant' ]
    [ "$(jq '.counts[] | select(.program == "fp8-dequant").dequantized' "$T/header")" = 44 ]
    [ "$(jq '.files | length' "$T/header")" -ge 3 ]
    same_json <(tar xOf "$T/a.ts" .stream) "$T/header" 'del(.counts)'
    [ "$(st-ls --header "$NANO" | jq -r .scope)" = all ]
    run st-ls --header -l "$NANO"
    [ "$status" = 2 ]
}

@test "a cut stream is an error, though all is listed" {
    st-read -o "$T/a.ts" "$NANO"
    bytes=$(stat -c %s "$T/a.ts")
    head -c $((bytes - 2048)) "$T/a.ts" >"$T/cut.ts"
    run st-ls -o "$T/list" "$T/cut.ts"
    [ "$status" = 1 ]
    [ ${#lines[@]} = 1 ]
    [ ! -e "$T/list" ]
    run st-ls --tsv --json "$NANO"
    [ "$status" = 2 ]
    run bash -c "st-ls '$NANO' >/dev/full"
    [ "$status" = 1 ]
}

@test "-o; a closed pipe ends it silently" {
    st-ls -o "$T/list" "$NANO"
    st-ls "$NANO" | diff "$T/list" -
    run bash -c "st-ls '$NANO' | head -n 1; echo \${PIPESTATUS[0]}"
    [ ${#lines[@]} = 2 ]
    [[ ${lines[1]} == 141 || ${lines[1]} == 0 ]]
}
