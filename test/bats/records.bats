# --json and --tsv: the same records in every program that writes a table or a report.
load common
load craft

# both COMMAND...: run it with --json and with --tsv, with {} in it for the file where a report goes (otherwise standard
# output); the records are the same, and left in $T/json.
both() {
    local form command
    for form in json tsv; do
        command=("${@//\{\}/$T/$form}")
        if [[ $* == *{}* ]]; then
            "${command[@]}" --$form >"$T/stream"
        else
            "${command[@]}" --$form >"$T/$form" || [ $? -eq 1 ]
        fi
    done
    [ -s "$T/json" ]
    # A document a line, of objects whose members are values or lists.
    [ "$(jq -c . "$T/json" | wc -l)" = "$(wc -l <"$T/json")" ]
    jq -ces 'all(type == "object")' "$T/json"
    diff <(jq -c '[.[]]' "$T/json") <(jq -Rc 'split("\t") | map(if . == "-" then null elif . == "true" then true
        elif . == "false" then false else fromjson? // . end)' "$T/tsv")
}

@test "every record: TSV has JSON's members in order; tensors are told alike" {
    amaxes "$T/amax.ts"
    nvfp4-cast --amax "$T/amax.ts" "$NANO" | st-write -q "$T/good"
    st-sum --each "$NANO" >"$T/sums"
    safetensors "$T/odd.safetensors" '{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},"b":{"dtype":"I64","shape":[],"data_offsets":[12,20]}}' \
        '\x00\x00\xc0\x7f\x00\x00\x80\x7f\x00\x00\x80\x3f\x01\x00\x00\x00\x00\x00\x00\x00'
    for command in "st-ls $NANO" "st-ls -n $T/odd.safetensors" "st-sum --each $NANO" "st-stat $T/odd.safetensors" \
        "st-stat --values --place --hist $NANO"; do
        # shellcheck disable=SC2086 # a list
        both $command
        jq -ces 'all((.name | type == "string") and (.dtype | type == "string") and (.shape | all(type == "number")))' "$T/json"
    done
    both st-ls "$NANO"
    jq -c '[.name, .dtype, .shape]' "$T/json" >"$T/ls"
    [ "$(jq -s 'map(.bytes) | add' "$T/json")" = "$(st-sum --json "$NANO" | jq .bytes)" ]
    st-sum --each --json "$NANO" | jq -c '[.name, .dtype, .shape]' | diff "$T/ls" -
    st-stat --json "$NANO" | jq -c '[.name, .dtype, .shape]' | diff "$T/ls" -
    both st-cmp -v "$NANO" "$T/good"
    both st-verify "$T/good"
    both st-verify --source "$T/good" "$NANO"
    both st-sum "$NANO"
    both st-sum --check "$T/sums" "$T/good"
    both amax-merge -q --summary {} "$T/amax.ts"
}

@test "st-sum: a sum, a listing that --check reads, and what --check found" {
    IFS=$'\t' read -r digest tensors bytes < <(st-sum "$NANO")
    [ "$(st-sum --json "$NANO")" = "{\"digest\":\"$digest\",\"tensors\":${tensors% *},\"bytes\":${bytes% *}}" ]
    [ "$(st-sum -n --json "$NANO")" = "{\"digest\":null,\"tensors\":${tensors% *},\"bytes\":${bytes% *}}" ]
    [ "$(st-sum -n --tsv "$NANO")" = $'-\t'"${tensors% *}"$'\t'"${bytes% *}" ]
    st-sum --each --tsv "$NANO" >"$T/sums"
    st-sum --each "$NANO" | cmp "$T/sums" -
    st-sum --check "$T/sums" "$NANO"
    st-sum -a xxh128 --each --tsv "$NANO" >"$T/fast"
    st-sum --check "$T/fast" --json "$NANO" | cmp - /dev/null
    st-sum -n --each --json "$NANO" | jq -ces 'all(.digest == null)'

    norm=$(grep -P '\tnorm.weight\t' "$T/sums" | cut -f1)
    sed -i "1d; s/^$norm/${norm//?/0}/" "$T/sums"
    printf '%064d\t%s\t%s\t[2\n' 1 gone $'F\xff\e[2J' >>"$T/sums"
    ! st-sum --json --check "$T/sums" "$NANO" >"$T/json" 2>"$T/said" || false
    [ "$(jq -sr 'map([.name, .status, .dtype, .shape // "-" | tostring] | join(" ")) | sort[]' "$T/json")" = \
'embed.weight not listed BF16 [4096,256]
gone missing F??[2J -
norm.weight FAILED BF16 [256]' ]
    jq -es 'map(select(.name == "norm.weight"))[0] | .listed == "'"${norm//?/0}"'" and .digest == "'"$norm"'"' "$T/json"
    [[ $(<"$T/said") == *': 3 tensors are not as '* ]]
    [ "$(st-sum --json -v --check "$T/sums" "$NANO" 2>"$T/said" | jq -s 'map(select(.status == "OK")) | length')" = $((${tensors% *} - 2)) ]
    st-sum --each --json "$NANO" >"$T/json"
    refused 'line 1: not of a listing' st-sum --check "$T/json" "$NANO"
}

@test "amax-merge: the summary's quantizers and digest as records, with the summary's numbers" {
    pt-read "$NANO_AMAX" >"$T/dump.ts"
    merge=(amax-merge -q --model "$NANO" --fallback layer-max -o "$T/amax.ts" "$T/dump.ts")
    "${merge[@]}" --summary "$T/text"
    cp "$T/amax.ts" "$T/first.ts"
    "${merge[@]}" --json --summary "$T/json"
    cmp "$T/first.ts" "$T/amax.ts" # which the form does not change
    jq -r 'select(.what == "quantizer") | "\(.name) \(.filled)"' "$T/json" |
        diff - <(sed -n '/^$/q; s/ *TensorQuantizer(NVFP4.*filled in.*/ true/; s/ *TensorQuantizer(NVFP4.*/ false/; p' "$T/text")
    jq -r 'select(.what == "digest") | [.name, .matrix, (.kind | split(" ")[0]), .experts, .filled] | join(" ")' "$T/json" |
        diff - <(sed '1,/^digest/d' "$T/text" | awk '{ print $1, $2, $3, $4, $5 }')
    jq -ces 'map(select(.what == "quantizer") | .amax) | all(type == "number" and . > 0)' "$T/json"
    jq -ces 'map(select(.what == "digest")) | all(.min <= .median and .median <= .max)' "$T/json"
    # Disabled ones, of V3.
    amax-merge -q --model test/data/v3-tiny/ckpt --input-scale 1 --recipe experts --tsv --summary "$T/tsv" -o "$T/a.ts"
    [ "$(awk -F '\t' '$3 == "-" && $4 == "-" && $5 == "-"' "$T/tsv" | wc -l)" -gt 0 ]
}

@test "one form, and a file for the summary" {
    for command in "st-ls $NANO" "st-stat $NANO" "st-cmp $NANO $NANO" "st-sum $NANO" "st-verify $NANO" \
        "amax-merge --summary $T/s $T/a"; do
        # shellcheck disable=SC2086 # a list
        run $command --json --tsv
        [ "$status" -eq 2 ]
        [[ ${lines[0]} == *': --tsv and --json exclude each other' ]]
    done
    run amax-merge --json "$T/a"
    [ "$status" -eq 2 ]
    [[ ${lines[0]} == *'--json and --tsv are forms of the --summary; name its file' ]]
}
