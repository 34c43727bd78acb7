#!/usr/bin/env bats
# mkckpt

load common
load craft

prepare() {
    PATH=$PWD/$BIN/test:$PATH
}

# Name, dtype and shape of each tensor.
table() {
    st-read -n --allow-zeros "$1" | tar -xOf - .toc | cut -f1-3
}

# The JSON of a safetensors file's header.
header() {
    tail -c +9 "$1" | head -c "$(od -An -tu8 -N8 "$1" | tr -d ' ')"
}

# A JSON file with its numbers in one spelling. (jq keeps the file's own where it does not calculate.)
numbers() {
    jq -S 'walk(if type == "number" then . + 0 else . end)' "$1"
}

@test "from the bundled checkpoint's config.json: the same names, dtypes and shapes" {
    mkckpt --model "$NANO/config.json" "$T/a"
    diff <(table "$NANO") <(table "$T/a")
    diff <(numbers "$NANO/config.json") <(numbers "$T/a/config.json")
}

@test "tensors lie in a file as in the bundled checkpoint's files: by dtype, then by name" {
    mkckpt --model "$NANO/config.json" --shards 1 "$T/a"
    for file in "$T"/a/*.safetensors "$NANO"/*.safetensors; do
        header "$file" | jq -r 'del(.__metadata__) | to_entries[]
            | [(.value.dtype | {I64: 0, F32: 1, BF16: 2, F8_E8M0: 3, F8_E4M3: 4, I8: 5}[.]), .key] | @tsv' \
            >"$T/order"
        [ -s "$T/order" ]
        LC_ALL=C sort -c -t $'\t' -k 1,1n -k 2,2 "$T/order"
    done
}

@test "V4-Pro: as many tensors, bytes and files as published" {
    mkckpt --model pro "$T/pro"
    [ "$(jq '.metadata.total_size' "$T/pro/model.safetensors.index.json")" = 864704792696 ]
    [ "$(jq '.weight_map | length' "$T/pro/model.safetensors.index.json")" = 145116 ]
    [ "$(find "$T/pro" -name 'model-*-of-00064.safetensors' | wc -l)" = 64 ]
    [ "$(du -s "$T/pro" | cut -f1)" -lt 100000 ] # sparse
    jq -e '.weight_map | ."layers.60.ffn.experts.383.w2.scale" == "model-00062-of-00064.safetensors"
        and ."head.weight" == "model-00063-of-00064.safetensors"
        and ."mtp.0.enorm.weight" == "model-00064-of-00064.safetensors"' \
        "$T/pro/model.safetensors.index.json"
}

# elements CHECKPOINT: in all tensors.
elements() {
    table "$1" | cut -f3 | tr -d '[]' |
        awk -F, '{ n = 1; for (i = 1; i <= NF; i++) n *= $i; all += n } END { printf "%.0f\n", all }'
}

@test "V3, V3.2 and Kimi-K2: as many tensors and elements as published" {
    while read -r model tensors elements; do
        mkckpt --model "$model" "$T/$model"
        [ "$(jq '.weight_map | length' "$T/$model/model.safetensors.index.json")" = "$tensors" ]
        [ "$(elements "$T/$model")" = "$elements" ]
    done <<'PUBLISHED'
v3 91991 684531386000
v3.2 92425 685396921376
kimi-k2 139644 1026470731056
PUBLISHED
}

# The release's norms are F32, the bundled ones BF16.
@test "from the bundled V3.2's config.json: the same names and shapes, and dtypes of matrices" {
    mkckpt --model test/data/v3-tiny/ckpt/config.json "$T/a"
    diff <(table test/data/v3-tiny/ckpt | cut -f1,3) <(table "$T/a" | cut -f1,3)
    diff <(table test/data/v3-tiny/ckpt | grep ,) <(table "$T/a" | grep ,)
}

@test "V3.2, filled: sane numbers, amaxes that its recipes take, a model that runs" {
    mkckpt --model test/data/v3-tiny/ckpt/config.json --fill --amax "$T/amax.ts" "$T/a"
    run pipelines/v3-nvfp4 --amax "$T/amax.ts" "$T/a" "$T/out"
    [ "$status" = 0 ]
    run fp8-dequant -v -o "$T/bf16.ts" "$T/a"
    [ "$status" = 0 ]
    [[ $output != *NaN* ]]
    amax-calib -q --tokens test/data/v3-tiny/golden/eval-ids.safetensors --samples 1 "$T/a" >"$T/calib.ts"
    # Of an FP8 weight, the scales are in two binades.
    st-stat --tsv "$T/a" | awk -F'\t' '/proj\.weight_scale_inv/ { n++; if (!($6 > 0) || $7 > 4 * $6) wrong = 1 }
        END { exit wrong || !n }'
}

@test "fewer layers, another number, files of about one size" {
    mkckpt --model tiny --layers 3 --set n_routed_experts=4 --set num_nextn_predict_layers=0 --shards 2 "$T/a"
    [ "$(table "$T/a" | grep -c '^layers\.2\.ffn\.experts\..*\.weight')" = 12 ]
    [ "$(table "$T/a" | grep -cE '^(layers\.3|mtp)\.')" = 0 ]
    jq -e '.compress_ratios == [0, 0, 4, 0] and .num_hidden_layers == 3' "$T/a/config.json"
    [ "$(find "$T/a" -name '*.safetensors' | wc -l)" = 2 ]
}

@test "filled: the same bytes again, sane numbers, a lossless cast" {
    mkckpt --model tiny --fill --amax "$T/amax.ts" "$T/a"
    mkckpt --model tiny --fill --shards 2 "$T/b"
    [ "$(st-sum "$T/a")" = "$(st-sum "$T/b")" ]
    run pipeline "nvfp4-cast --amax '$T/amax.ts' '$T/a' | st-write '$T/out'"
    [ "$status" = 0 ]
    [[ $output == *'lossless MXFP4->NVFP4 blocks: 98304/98304 (100.0000%)'* ]]
    run fp8-dequant -v -o "$T/bf16.ts" "$T/a"
    [ "$status" = 0 ]
    [[ $output != *NaN* ]]
}

@test "filled: the same bytes for any number of threads" {
    mkckpt --model tiny --fill -j 1 "$T/a"
    mkckpt --model tiny --fill -j 3 "$T/b"
    diff -r "$T/a" "$T/b"
}

@test "filled: a model that runs, its activations about 1, its tokens spread over all experts" {
    mkckpt --model tiny --ratios 4,128,4 --set num_hash_layers=1 --fill "$T/a"
    jq -e '.compress_ratios == [4, 128, 4, 0] and .num_hidden_layers == 3' "$T/a/config.json"
    safetensors "$T/tokens.safetensors" '{"input_ids":{"dtype":"I32","shape":[4,64],"data_offsets":[0,1024]}}' \
        "$(for ((i = 0; i < 256; i++)); do printf '\\x%02x\\x%02x\\x00\\x00' $((i * 37 % 256)) $((i % 4)); done)"
    amax-calib -q --mtp --tokens "$T/tokens.safetensors" "$T/a" >"$T/amax.ts"
    # 256 tokens, 2 of 8 experts each: 64 to an expert, about.
    st-stat --tsv "$T/amax.ts" >"$T/stat"
    awk -F'\t' '/\.tokens/ { n++; if ($7 < 16 || $7 > 256) wrong = 1 } END { exit wrong || n != 32 }' "$T/stat"
    awk -F'\t' '/w[13]_input/ { n++; if ($7 < 2 || $7 > 20) wrong = 1 } END { exit wrong || n != 64 }' "$T/stat"
}

@test "filled: a token's experts by hash are different ones" {
    mkckpt --model tiny --set num_experts_per_tok=8 --fill "$T/a"
    mkckpt --model tiny --set num_experts_per_tok=3 --fill "$T/b"
    for ckpt in a b; do
        st-read --inline "$T/$ckpt" | tar xOf - layers.1.ffn.gate.tid2eid >"$T/$ckpt.ids"
    done
    od -An -v -td8 -w64 "$T/a.ids" >"$T/a.rows"
    od -An -v -td8 -w24 "$T/b.ids" >"$T/b.rows"
    [ "$(wc -l <"$T/a.rows")" -eq 1024 ]
    awk '{ split("", seen); for (i = 1; i <= NF; i++) if (seen[$i]++ || $i >= 8) exit 1 }' "$T/a.rows" "$T/b.rows"
}

@test "scales only: sane scales, weights that are zero" {
    mkckpt --model tiny --scales --amax "$T/amax.ts" "$T/a"
    run pipeline "st-read --allow-zeros '$T/a' | nvfp4-cast --amax '$T/amax.ts' | st-write '$T/out'"
    [ "$status" = 0 ]
    [[ $output == *'lossless MXFP4->NVFP4 blocks: 98304/98304 (100.0000%)'* ]]
    st-sum --each "$T/a" | cut -f1,2 >"$T/sums"
    [ "$(grep -c '\.w1\.weight$' "$T/sums")" = 45 ]
    [ "$(grep '\.experts\..*\.w1\.weight$' "$T/sums" | cut -f1 | sort -u | wc -l)" = 1 ]
    [ "$(grep '\.experts\..*\.w1\.scale$' "$T/sums" | cut -f1 | sort -u | wc -l)" = 40 ]
}

@test "zeros go through the cast, too" {
    mkckpt --model tiny --amax "$T/amax.ts" "$T/a"
    pipeline "st-read --allow-zeros '$T/a' | nvfp4-cast --amax '$T/amax.ts' | nvfp4-unpack | st-stat" >"$T/stat"
    [ -s "$T/stat" ]
}

@test "wrong use" {
    run mkckpt
    [ "$status" = 2 ]
    run mkckpt --model "$T/none.json" "$T/a"
    [ "$status" = 1 ]
    [[ $output == *none.json* ]]
    run mkckpt --model tiny --set vocab_size=many "$T/a"
    [ "$status" = 2 ]
    for options in '--layers 5' '--ratios 4;128' '--ratios 4,' '-j 0'; do
        # shellcheck disable=SC2086 # a list of options
        run mkckpt --model tiny $options "$T/a"
        [ "$status" = 2 ]
    done
    mkdir "$T/there"
    run mkckpt --model tiny "$T/there"
    [ "$status" = 1 ]
    [ ! -e "$T/a" ]
}
