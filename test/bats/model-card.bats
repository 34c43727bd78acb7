# What st-write says about a converted checkpoint in its README.md, and what it leaves out.

# shellcheck disable=SC2016 # backticks are Markdown's

load common
load craft

PATH=$PWD/pipelines:$PATH

prepare() {
    cp -r "$NANO" "$T/source"
    chmod -R u+w "$T/source"
    printf '%s\n' --- 'license: mit' 'library_name: transformers' --- '<!-- a picture -->' '# DeepSeek-V4-Nano' >"$T/source/README.md"
}

# has LINE...: lines of the card.
has() {
    local line
    for line; do grep -qxF -- "$line" "$T/out/README.md" || { echo "no: $line" && return 1; }; done
}

@test "the card: license and name of the source, formats, calibration, verdicts, commands" {
    v4-experts -q --amax "$NANO_AMAX" "$T/source" "$T/out"
    head -n 6 "$T/out/README.md" | diff - <(printf '%s\n' --- 'license: mit' tags: '- nvfp4' --- '')
    has '# DeepSeek-V4-Nano in NVFP4' 'Recipe: `experts`.' '| `layers.*.ffn.experts.*`: w1, w3, w2 | NVFP4 | 192 |' \
        '| `mtp.*.ffn.experts.*`: w1, w3, w2 | MXFP4 | 48 |' '| SGLang 0.5.23 | loads | loads |' '    vllm serve .' \
        '- Scales of experts that no token reached: 3 filled in (layer-max).' \
        '    python3 -m sglang.launch_server --model-path . --speculative-algorithm EAGLE'
    grep -q '^| vLLM 0.33.0 | loads | loads silently wrong: .*; --drafts cast makes them so |$' "$T/out/README.md"
    [ "$(grep -c 'vllm serve' "$T/out/README.md")" -eq 1 ] # not with speculation
    cmp "$T/source/README.md" "$T/out/README.source.md"
    run grep -F "$T" -r "$T/out" --include='*.md' --include='*.json'
    [ "$status" -eq 1 ]
}

@test "verdicts and rules of the card, the summary, the plan and st-verify are the same" {
    for drafts in keep cast; do
        v4-experts -n --drafts "$drafts" --amax "$NANO_AMAX" "$T/source" "$T/out" >"$T/plan"
        v4-experts --drafts "$drafts" --amax "$NANO_AMAX" "$T/source" "$T/out" 2>"$T/summary"
        st-verify --json "$T/out" | jq -r 'select(.what == "verdict") |
            "\(.engine) \(.speculation) \(.verdict)" + if .rule then ": \(.rule)" else "" end' >"$T/verdicts"
        sed -nE 's/^\| (vLLM|SGLang|TensorRT-LLM|transformers) [^|]*\| ([^|]*) \| ([^|]*) \|$/\1 false \2\n\1 true \3/p' \
            "$T/out/README.md" | sed 's/^vLLM/vllm/; s/^SGLang/sglang/; s/^TensorRT-LLM/trtllm/' | diff "$T/verdicts" -
        tr '\n' ' ' <"$T/plan" | tr -s ' ' >"$T/plan.line"
        tr '\n' ' ' <"$T/summary" | tr -s ' ' >"$T/summary.line"
        while read -r engine speculation verdict; do
            row=$(grep -iE "^(${engine/trtllm/TensorRT-LLM}) " "$T/summary")
            grep -qF " ${verdict%%: *}" <<<"$row"
            [ "${verdict#*: }" = "$verdict" ] || grep -qF ") ${verdict#*: } " "$T/summary.line"
            [ "$speculation" = true ] || grep -qF ": $verdict" "$T/plan.line"
        done <"$T/verdicts"
        rm -r "$T/out"
    done
}

@test "calibration and evaluation: texts, samples, and what st-eval printed, the same bytes again" {
    prose=$PWD/test/data/text/calib-prose.jsonl code=$PWD/test/data/text/calib-code.jsonl
    run=(v4-experts -q --calib "$prose" --calib "$code" --samples "4,2" --length 32 --eval "$PWD/test/data/text/eval.jsonl")
    "${run[@]}" "$T/source" "$T/out" >"$T/results"
    has '- The model ran on 6 samples, 192 tokens: `calib-prose.jsonl` (4), `calib-code.jsonl` (2).' \
        "- The inputs of experts' last matrix were measured without the router's weight, as engines quantize them."
    [ "$(wc -l <"$T/results")" -eq 3 ]
    sed -n '/^## Measured/,/^## Engines/s/^    //p' "$T/out/README.md" | diff - <(echo 'text: eval.jsonl' && cat "$T/results")
    "${run[@]}" --jobs 2 "$T/source" "$T/again" >"$T/results"
    same_run "$T/out" "$T/again"
}

@test "a calibration kept, scales of another checkpoint, one scale for all" {
    v4-experts -q --calib "$PWD/test/data/text/calib-prose.jsonl" --samples 2 --length 32 --save-amax "$T/amax.ts" "$T/source" "$T/first"
    v4-experts -q --amax "$T/amax.ts" "$T/source" "$T/out"
    cmp "$T/first/README.md" "$T/out/README.md"
    v4-experts -q --overwrite --amax "$T/first" "$T/source" "$T/out"
    has '- They are those of another NVFP4 checkpoint of this model.'
    v4-experts -q --overwrite --input-scale 0.5 "$T/source" "$T/out"
    has '- All are 0.5, without a calibration.'
}

@test "a card that is converted again stays the first source's, and code for its formats is gone" {
    v4-experts --amax "$NANO_AMAX" "$T/source" "$T/nvfp4" 2>"$T/summary"
    grep -q '^left out: inference/, code for the source.s formats' "$T/summary"
    [ ! -e "$T/nvfp4/inference" ]
    v4-bf16 -q "$T/nvfp4" "$T/out"
    has '# DeepSeek-V4-Nano in BF16' '| transformers 5.24.0 | loads | refuses: it does not speculate with drafts |'
    cmp "$T/source/README.md" "$T/out/README.source.md"
    # It reads FP8 experts, too.
    st-reshard --ranks 2 --experts fp8 "$T/source" | st-write -q "$T/fp8"
    cmp "$T/source/inference/config.json" "$T/fp8/inference/config.json"
    cmp "$T/source/README.md" "$T/fp8/README.md"
    st-read "$T/source" | st-write -q "$T/copy"
    diff -rq -x quant-run.json -x '*.safetensors*' "$T/source" "$T/copy"
}

@test "complete already: whatever became of the card, and without the evaluation" {
    run=(v4-experts -q --amax "$NANO_AMAX" "$T/source" "$T/out")
    "${run[@]}"
    echo more >>"$T/out/README.md"
    "${run[@]}"
    rm "$T/out/README.source.md"
    run "${run[@]}"
    [ "$status" -eq 1 ]
    [[ $output == *'not of the same input and options: README.source.md is not there'* ]]
}

@test "--measured: lines as they are, and what is none" {
    v4-experts -q --amax "$NANO_AMAX" "$T/source" "$T/whole"
    st-read "$T/source" | fp8-dequant -o "$T/a.ts"
    printf '# one\n\n| two' >"$T/lines"
    st-write -q --measured "$T/lines" "$T/out" "$T/a.ts"
    has '    # one' '    | two'
    printf 'a\0b' >"$T/nul"
    printf '\xff' >"$T/latin"
    head -c 70000 /dev/zero | tr '\0' x >"$T/long"
    for file in nul latin long; do
        refused "$file: wanted up to 64 KiB of text in UTF-8" st-write --measured "$T/$file" "$T/new" "$T/a.ts"
        [ ! -e "$T/new" ]
    done
    refused 'gone: No such file' st-write --measured "$T/gone" "$T/new" "$T/a.ts"
}

@test "names and licenses that a card cannot hold are left out" {
    jq '._name_or_path = "deepseek-ai/DeepSeek-V4"' "$NANO/config.json" >"$T/source/config.json"
    printf '%s\n' --- 'license:' '  - mit' $'license_name: a\x1bb' --- '# <b>Name</b>' >"$T/source/README.md"
    v4-bf16 -q "$T/source" "$T/out"
    head -n 5 "$T/out/README.md" | diff - <(printf '%s\n' --- 'base_model: deepseek-ai/DeepSeek-V4' --- '' '# DeepSeek-V4 in BF16')
    jq '._name_or_path = "/data/models/V4"' "$NANO/config.json" >"$T/source/config.json"
    v4-bf16 -q --overwrite "$T/source" "$T/out"
    head -n 4 "$T/out/README.md" | diff - <(printf '%s\n' --- --- '' '# deepseek_v4 in BF16')
}
