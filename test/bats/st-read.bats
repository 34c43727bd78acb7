load common
load craft

@test "the model's order: embeddings, layers, norm, head, MTP; scales before weights; w1 w3 w2" {
    st-read "$NANO" | tar xOf - .toc | cut -f1 >"$T/names"
    [ "$(head -n 1 "$T/names")" = embed.weight ]
    [ "$(sed 's/[.0-9].*//' "$T/names" | uniq | tr '\n' ' ')" = 'embed layers norm hc_head_base hc_head_fn hc_head_scale head mtp ' ]
    grep -A5 '^layers.2.ffn.experts.9.w1.scale' "$T/names" | sed 's/.*experts.9.//' | tr '\n' ' ' |
        grep -qx 'w1.scale w1.weight w3.scale w3.weight w2.scale w2.weight '
    # experts in numeric order
    grep -oE '^layers\.1\.ffn\.experts\.[0-9]+' "$T/names" | uniq | sed 's/.*\.//' | sort -nc
    [ "$(wc -l <"$T/names")" -eq 667 ]
}

@test "references lead to the tensors' bytes" {
    st-read "$NANO" >"$T/a.ts"
    tar tvf "$T/a.ts" layers.2.attn.wq_b.weight | sed 's/.*-> //' | tr '@+' '  ' >"$T/ref"
    read -r shard offset length <"$T/ref"
    tail -c +$((offset + 1)) "$NANO/$shard" | head -c "$length" | sha256sum | cut -d' ' -f1 >"$T/sum"
    st-sum --each "$NANO" | awk '$2 == "layers.2.attn.wq_b.weight" { print $1 }' | cmp - "$T/sum"
}

@test "--inline: the stream can be extracted, and is the same" {
    st-read --inline "$NANO" >"$T/a.ts"
    [ "$(st-sum "$T/a.ts")" = "$(st-sum "$NANO")" ]
    mkdir "$T/tree"
    tar xf "$T/a.ts" -C "$T/tree"
    [ "$(sha256sum <"$T/tree/embed.weight")" = "$(tar xOf "$T/a.ts" embed.weight | sha256sum)" ]
}

@test "which shards it took, the scope tells, not the history" {
    st-ls --json "$NANO" >"$T/lines"
    shard=$(head -n 1 "$T/lines" | jq -r .shard)
    for options in '' "--shards=$shard" --part=1/2; do
        st-read ${options:+"$options"} -o "$T/a.ts" "$NANO"
        tar xOf "$T/a.ts" .stream | jq -e '.history[0] | .options == [] and .selects'
    done
    st-read --layers 0-1 -o "$T/a.ts" "$NANO"
    tar xOf "$T/a.ts" .stream | jq -e '.history[0].options == ["--layers=0-1"] and .scope == "layers 0-1"'
    run st-read --layers 1-0 "$NANO"
    [ "$status" -eq 2 ]
    [[ $output == *"--layers: '1-0' is not A-B with A <= B"* ]]
}

@test "a stream passes through st-read unchanged, but for its history" {
    st-read "$NANO" >"$T/a.ts"
    st-read "$T/a.ts" >"$T/b.ts"
    cmp <(tar xOf "$T/a.ts" .toc) <(tar xOf "$T/b.ts" .toc)
    [ "$(tar xOf "$T/b.ts" .stream | jq -c '[.history[].program]')" = '["st-read","st-read"]' ]
}

@test "--layers, --shards and --part take a part, and say so" {
    st-read --layers 1-2 "$NANO" >"$T/a.ts"
    tar xOf "$T/a.ts" .toc | cut -d. -f1,2 | sort -u | tr '\n' ' ' | grep -qx 'layers.1 layers.2 '
    [ "$(tar xOf "$T/a.ts" .stream | jq -r .scope)" = 'layers 1-2' ]
    st-read --shards model-00003-of-00003.safetensors "$NANO" | tar xOf - .toc | cut -f4 | sort -u |
        grep -qx model-00003-of-00003.safetensors
    run st-read --shards nope.safetensors "$NANO"
    [ "$status" -eq 1 ]
    n=0
    for i in 1 2; do
        n=$((n + $(st-read --part $i/2 "$NANO" | tar xOf - .toc | grep -c 'data$')))
    done
    [ "$n" -eq 667 ]
}

# shards_of PART FILE...: the shards that this part has.
shards_of() {
    st-read --part "$1" "${@:2}" | tar xOf - .toc | cut -f4 | uniq | tr '\n' ' '
}

@test "parts are runs of shards of about equal bytes, and empty only beyond the number of shards" {
    bytes=([1]=100 120 90 600 80)
    for shard in 1 2 3 4 5; do
        safetensors "$T/$shard.safetensors" \
            "{\"t$shard\":{\"dtype\":\"U8\",\"shape\":[${bytes[shard]}],\"data_offsets\":[0,${bytes[shard]}]}}" \
            "$(printf '\\0%.0s' $(seq "${bytes[shard]}"))"
    done
    part() { shards_of "$1" "$T"/[1-5].safetensors | sed 's/\.safetensors//g'; }
    [ "$(part 1/2)/$(part 2/2)" = '1 2 3 /4 5 ' ]
    [ "$(part 1/3)/$(part 2/3)/$(part 3/3)" = '1 2 3 /4 /5 ' ]
    [ "$(part 1/4)/$(part 2/4)/$(part 3/4)/$(part 4/4)" = '1 2 /3 /4 /5 ' ]
    for parts in 1 2 3 4 5 6 7; do
        for ((i = 1; i <= parts; i++)); do
            part $i/$parts >"$T/part"
            [ "$(wc -w <"$T/part")" -gt 0 ] || [ $i -gt 5 ]
            cat "$T/part"
        done >"$T/all"
        [ "$(cat "$T/all")" = '1 2 3 4 5 ' ]
    done
}

@test "--part with --shards: those of the part that are listed" {
    one=model-00001-of-00003.safetensors two=model-00002-of-00003.safetensors
    [ "$(shards_of 2/2 --shards "$one,$two" "$NANO")" = "$two " ]
    st-read --part 2/2 --shards '' "$NANO" >"$T/none.ts"
    [ "$(tar xOf "$T/none.ts" .stream | jq -r .scope)" = 'part 2/2, shards ' ]
    [ -z "$(tar xOf "$T/none.ts" .toc)" ]
}

@test "parts of one checkpoint differ in their scope only, beside the table" {
    for i in 1 2; do
        st-read --part $i/2 "$NANO" | tar xOf - .stream | jq -S . >"$T/$i"
    done
    run diff "$T/1" "$T/2"
    [ "$(grep '^[<>]' <<<"$output")" = $'<   "scope": "part 1/2",\n>   "scope": "part 2/2",' ]
}

@test "what lies apart from a wanted weight travels along as context" {
    # A scale in another shard than its weight: parts 1 and 3 need both.
    st-read --inline "$NANO" >"$T/a.ts"
    mkdir "$T/tree"
    tar xf "$T/a.ts" -C "$T/tree"
    awk -F'\t' -v OFS='\t' '$1 == "layers.0.attn.wkv.scale" { $4 = "model-00003-of-00003.safetensors" } 1' \
        "$T/tree/.toc" >"$T/toc"
    mv "$T/toc" "$T/tree/.toc"
    tar tf "$T/a.ts" >"$T/order"
    unseal
    tar -C "$T/tree" --format=ustar --no-recursion -cf "$T/moved.ts" -T "$T/order"
    st-write -q "$T/source" "$T/moved.ts"
    for i in 1 2 3; do
        pipeline "st-read --part $i/3 '$T/source' | fp8-dequant | mxfp4-unpack | st-write -q --partial '$T/part$i'"
        digests "$T/part$i" >>"$T/all"
    done
    diff <(LC_ALL=C sort "$T/all") <(golden "$GOLDEN/bf16.tsv")
}

@test "files that are no shard of the checkpoint are left out with a word" {
    cp -r "$NANO" "$T/source"
    mkdir "$T/source/old"
    cp "$NANO/model-00001-of-00003.safetensors" "$T/source/old/x.safetensors"
    run st-read -o "$T/a.ts" "$T/source"
    [ "$status" -eq 0 ]
    [[ $output == *'old/x.safetensors: not a shard of this checkpoint; left out'* ]]
}

@test "--root: references of a stream whose files moved" {
    cp -r "$NANO" "$T/old"
    st-read "$T/old" >"$T/a.ts"
    mv "$T/old" "$T/new"
    run st-sum "$T/a.ts"
    [ "$status" -eq 1 ]
    [[ $output == *--root* ]]
    [ "$(pipeline "st-read --root '$T/old=$T/new' '$T/a.ts' | st-sum")" = "$(st-sum "$NANO")" ]
    [ "$(pipeline "st-read --root '$T/old/=$T/new//' '$T/a.ts' | st-sum")" = "$(st-sum "$NANO")" ]
    [ "$(pipeline "st-read --root '$T/old/=$T/new' '$T/a.ts' | st-sum")" = "$(st-sum "$NANO")" ]
    run st-read --root "$T/ol=$T/new" "$T/a.ts"
    [ "$status" -eq 1 ]
    [ "$output" = "st-read: --root: no reference leads below $T/ol; see st-ls --header" ]
}

@test "single files" {
    st-read "$NANO/model-00001-of-00003.safetensors" | tar xOf - .toc | wc -l | grep -qx 148
    st-read "$NANO"/model-0000[12]-of-00003.safetensors | tar xOf - .toc | wc -l | grep -qx 482
}

@test "a Hugging Face cache: symbolic links to blobs" {
    mkdir -p "$T/hub/blobs" "$T/hub/snapshots/abc"
    for file in "$NANO"/*.*; do
        name=$(basename "$file")
        cp "$file" "$T/hub/blobs/$name.blob"
        ln -s "../../blobs/$name.blob" "$T/hub/snapshots/abc/$name"
    done
    [ "$(st-sum "$T/hub/snapshots/abc")" = "$(st-sum "$NANO")" ]
    pipeline "st-read '$T/hub/snapshots/abc' | st-write -q '$T/out'"
    [ ! -L "$T/out/tokenizer.json" ]
    cmp "$NANO/tokenizer.json" "$T/out/tokenizer.json"
}

@test "GNU tar and bsdtar list a stream without a word" {
    st-read "$NANO" >"$T/a.ts"
    run tar tvf "$T/a.ts"
    [ "$status" -eq 0 ]
    [ "$(grep -c 'safetensors@' <<<"$output")" -eq 667 ]
    [ -z "$(tar tvf "$T/a.ts" 2>&1 >/dev/null)" ]
    [ -z "$(bsdtar tvf "$T/a.ts" 2>&1 >/dev/null)" ]
    [ "$(bsdtar tf "$T/a.ts" | tail -n 1)" = .end ]
}

@test "equal input gives an equal stream" {
    st-read "$NANO" >"$T/a.ts"
    st-read -v --progress -o "$T/b.ts" "$NANO" 2>/dev/null
    [ -z "$(st-read -n --progress -o "$T/plan.ts" "$NANO" 2>&1)" ] # a plan makes none
    cmp "$T/a.ts" "$T/b.ts"
}

@test "wrong command lines exit 2" {
    for args in '' '--layers 3-1 x' '--part 0/2 x' '--part 3/2 x' '--layers x x' '--root a=b x' \
        '--layers 1-2 --part 1/2 x' '--layers 1-2 --shards a x' '--frob x' '--part 1/-2 x' '--part +1/2 x' '--layers 0-1- x' \
        '--part 1/9999999999 x'; do
        # shellcheck disable=SC2086
        run st-read $args
        [ "$status" -eq 2 ]
    done
    for part in '1/ 2' ' 1/2'; do
        run st-read --part "$part" "$NANO"
        [ "$status" -eq 2 ]
    done
}
