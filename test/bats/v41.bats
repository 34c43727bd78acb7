# The forward pass of DeepSeek-V4.1, on a small one with random weights (test/data/v41-tiny).
load common
load craft

V41=$PWD/test/data/v41-tiny/ckpt
PATH=$PWD/pipelines:$PATH
IDS=$PWD/test/data/v41-tiny/golden/eval-ids.safetensors

prepare() {
    eval=(st-eval -q -j 1 --tokens "$IDS")
}

# changed JQ: a copy of the checkpoint in $T/model, its config.json changed.
changed() {
    rm -rf "$T/model"
    cp -rL "$V41" "$T/model"
    jq "$1" "$V41/config.json" >"$T/model/config.json"
}

@test "mean losses are the reference's" {
    want=$(awk '{ print $3 }' "$V41/../golden/eval.txt")
    "${eval[@]}" --json "$V41" | jq -e --argjson want "$want" '(.mean_nll - $want | fabs) <= 0.02 and .tokens == 136'
}

@test "the same for any number of threads, any batch, any memory, folder or stream" {
    "${eval[@]}" --batch 1 --mem 1K --save "$T/a.ts" "$V41" >"$T/a"
    for read in st-read 'st-read --inline'; do
        $read "$V41" | st-eval -j 2 --batch 2 --tokens "$IDS" --save "$T/b.ts" >"$T/b"
        cmp "$T/a" "$T/b"
        st-cmp -q "$T/a.ts" "$T/b.ts"
    done
}

@test "cut in two by hidden states after any layer, it is the whole" {
    "${eval[@]}" "$V41" >"$T/whole"
    for layer in 0 2 3 6; do
        "${eval[@]}" --batch $((layer + 1)) --layers 0-$layer --states-out "$T/states.ts" "$V41"
        "${eval[@]}" --layers $((layer + 1))-7 --states-in "$T/states.ts" "$V41" >"$T/rest"
        cmp "$T/whole" "$T/rest"
    done
    # What layers leave to later ones is as necessary as hidden states.
    for name in hidden_states carried; do
        st-grep -q --invert "^$name\$" "$T/states.ts" >"$T/less.ts"
        refused "has no tensor $name" "${eval[@]}" --layers 7-7 --states-in "$T/less.ts" "$V41"
    done
}

@test "a calibration that was killed resumes" {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    calib=(amax-calib -j 1 --tokens "$IDS")
    "${calib[@]}" -q "$V41" >"$T/whole.ts"
    # In the middle of what is kept of two layers, so that the samples are not equally far.
    run strace -f -o "$T/trace" -e trace=fsync -e inject=fsync:signal=KILL:when=17 \
        "${calib[@]}" -q --resume "$T/kept" --keep-every 2 -o "$T/out.ts" "$V41"
    [ "$status" -eq 137 ]
    run "${calib[@]}" --resume "$T/kept" -o "$T/out.ts" "$V41"
    [ "$status" -eq 0 ]
    [[ $output == *', once samples 1-4 have gone through layers 2-3 again'* ]]
    cmp "$T/whole.ts" "$T/out.ts"
}

@test "v4-experts calibrates and evaluates it; a lossless cast has its source's losses at its arithmetic" {
    text=$PWD/test/data/text
    run v4-experts --length 32 --samples 4 --calib "$text/calib-prose.jsonl" --eval "$text/eval.jsonl" \
        --fallback layer-max --save-amax "$T/amax.ts" "$V41" "$T/out"
    [ "$status" -eq 0 ]
    [[ $output == *perplexity* ]]
    "${eval[@]}" "$V41" >"$T/source"
    "${eval[@]}" --arithmetic source "$T/out" >"$T/cast"
    cmp "$T/source" "$T/cast"
    "${eval[@]}" "$T/out" >"$T/served"
    run cmp "$T/source" "$T/served"
    [ "$status" -eq 1 ]
    fp8-dequant -q "$V41" | mxfp4-unpack -q | "${eval[@]}" >"$T/bf16"
}

@test "v4-full calibrates attention and shared experts, too, and the result runs" {
    v4-full -q --length 32 --samples 4 --calib "$PWD/test/data/text/calib-prose.jsonl" --save-amax "$T/amax.ts" "$V41" "$T/out"
    for module in layers.0.attn.wq_a layers.0.attn.wkv layers.2.attn.indexer.wq_b layers.7.attn.wo_b layers.0.ffn.shared_experts.w2; do
        [ "$(tar tf "$T/amax.ts" | grep -c "^${module//./\\.}_\(input\|weight\)_quantizer\._amax$")" -eq 2 ]
        [ "$(st-ls --tsv "$T/out" | grep -c "^${module//./\\.}\.\(weight_scale_2\|input_scale\)")" -eq 2 ]
    done
    # Engram, compressors and wo_a stay.
    diff <(st-sum --each "$V41" | grep -E 'engram|compressor|wo_a') <(st-sum --each "$T/out" | grep -E 'engram|compressor|wo_a')
    "${eval[@]}" --json "$V41" >"$T/source"
    "${eval[@]}" --json "$T/out" | jq -e --slurpfile source "$T/source" '.mean_nll != $source[0].mean_nll'
}

@test "a text goes on" {
    run st-eval -j 1 --generate 'In the beginning' --count 3 "$V41"
    [ "$status" -eq 0 ]
    [[ $output == 'In the beginning'* ]]
}

@test "what has no forward pass is refused before any work" {
    refused 'its drafts are of DSpark, which have no forward pass here' "${eval[@]}" --mtp "$V41"
    for plan in '' -n; do
        # shellcheck disable=SC2086
        refused 'its drafts are of DSpark, which have no forward pass here' amax-calib $plan -o "$T/x.ts" --tokens "$IDS" --mtp "$V41"
    done
    changed '.text_config.candidate_topk_blocks = 5'
    refused 'sample 0 has 41 tokens; this model'\''s forward pass takes at most 40' "${eval[@]}" "$T/model"
    refused 'at most 40' amax-calib -n -o "$T/x.ts" --tokens "$IDS" "$T/model"
    changed '.text_config.candidate_source_layer_id = -1'
    "${eval[@]}" "$T/model"
}

@test "a config.json or tokenizer.json that does not fit is refused" {
    changed '.text_config.engram_num_embeddings[1] += 1'
    refused "layer 4's Engram table: engram_num_embeddings is 1553, but the sizes of its ranges add up to 1552" "${eval[@]}" "$T/model"
    changed '.text_config.engram_compressed_vocab_size = 3043'
    refused '3042 classes' "${eval[@]}" "$T/model"
    changed .
    rm "$T/model/tokenizer.json"
    refused 'no tokenizer.json in it; Engram' "${eval[@]}" "$T/model"
    for wrong in 'kv_source_layer_ids = [2, 3, 5]' 'kv_source_layer_ids = [2, 4]' 'index_source_layer_ids = [2, 5, 7]' \
        'kv_source_layer_ids = [1, 2, 4, 5]' 'index_source_layer_ids = [8]' 'compress_ratios[3] = 1'; do
        changed ".text_config.$wrong"
        refused 'config.json: ' "${eval[@]}" "$T/model"
    done
    for key in engram_layer_ids hidden_size candidate_topk_blocks; do
        changed "del(.text_config.$key)"
        refused "$key is missing" "${eval[@]}" "$T/model"
    done
}
