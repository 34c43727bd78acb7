# What README.md, the pages that it links to, and the tutorial show, runs; their links lead somewhere.
load common
load craft
load v3
load examples

# The hub's releases, in small. The bundled V3 has no tokenizer: it gets one of bytes, in which the one that UTF-8 does
# not use begins a text.
prepare() {
    given
    rm "$T/given/DeepSeek-V4-Flash"
    for name in news eval; do jq -c '.text |= .[:400]' "$T/hub/texts.jsonl" >"$T/given/$name.jsonl"; done
    for name in Flash Pro; do ln -s "$NANO" "$T/hub/DeepSeek-V4-$name"; done
    ln -s "$PWD/test/data/v41-tiny/ckpt" "$T/hub/DeepSeek-V4.1-Flash"
    cp -r test/data/v3-tiny/ckpt "$T/hub/DeepSeek-R1"
    jq '.model.merges = [] | .model.vocab |= with_entries(select(.value < 255)) | .added_tokens |= [.[0] | .id = 255]' \
        test/data/tokenizer/tiny.json >"$T/hub/DeepSeek-R1/tokenizer.json"
    mkdir "$T/hub/cnn_dailymail" "$T/hub/Nemotron-Post-Training-Dataset-v2"
    cp test/data/v3-tiny/golden/eval-ids.safetensors "$T/given/ids.safetensors"
    ln -s "$T/hub/DeepSeek-R1" "$T/given/DeepSeek-R1"
    ln -s "$PWD/test/data/v3-tiny/ckpt" "$T/given/Kimi-K2"
    ln -s "$PWD/pipelines" "$T/given/pipelines"
}

# fresh FOLDER: where nothing is but what a clone has, and what was built.
fresh() {
    local path
    mkdir "$1"
    for path in *; do
        case $path in
        bin | build) ;;
        *) ln -s "$PWD/$path" "$1" ;;
        esac
    done
    ln -s "$PWD/$BIN" "$1/bin"
}

@test "README.md: its commands run in order in a fresh clone, the demo too" {
    fresh "$T/clone"
    stand_in make '[ $# = 0 ] || [ "$1" != demo ] || exec test/tools/demo'
    markdown_examples README.md >"$T/commands"
    [ "$(grep -c . "$T/commands")" -gt 15 ]
    run bash -euo pipefail -c "cd '$T/clone' && $(cat "$T/commands")" </dev/null
    echo "$output"
    [ "$status" -eq 0 ]
    [[ $output == *'perplexity     '*'result against source: KL divergence '*', 0 differ, '* ]]
}

@test "README.md: as long as a visitor reads" {
    lines=$(wc -l <README.md)
    [ "$lines" -ge 80 ]
    [ "$lines" -le 120 ]
}

# For two GPUs, by which the bundled V4 checkpoint divides.
@test "the commands in docs/ run" {
    for page in docs/*.md; do
        examples=$(markdown_examples "$page" | sed 's/-n 8/-n 2/; s/^amax-calib --recipe/amax-calib --all-experts --recipe/')
        [ -n "$examples" ] || continue
        try "${page##*/}" "$examples" || wrong=1
    done
    [ -z "${wrong-}" ]
}

@test "links between Markdown pages, pictures and reports resolve" {
    for page in *.md docs/*.md test/reports/*.md; do
        grep -oE '\]\([^)]+\)' "$page" | sed 's/^](//; s/)$//' | grep -v '^https:' | while read -r link; do
            case $link in
            '#'*) grep -qixE "#+ $(tr - ' ' <<<"${link#'#'}")" "$page" ;;
            *) [ -e "$(dirname "$page")/${link%%#*}" ] ;;
            esac || echo "$page: $link"
        done
    done >"$T/wrong"
    cat "$T/wrong"
    [ ! -s "$T/wrong" ]
}

@test "quantize-deepseek(7): its commands run in order" {
    page_examples man/quantize-deepseek.7 PROCEDURE | sed 's/--device cuda/--device cpu/' >"$T/commands"
    [ "$(grep -c . "$T/commands")" -gt 35 ]
    rm "$T/given/"*.jsonl "$T/given/DeepSeek-R1"
    try quantize-deepseek "$(cat "$T/commands")"
}

@test "quantize-deepseek(7): serves as the cards of the results say" {
    v4-experts -q --input-scale 1 "$NANO" "$T/keep"
    v4-experts -q --input-scale 1 --drafts cast "$NANO" "$T/cast"
    sed -n '/^## Serve/,/^## /s/^    //p' "$T"/{keep,cast}/README.md | sort -u >"$T/serve"
    [ "$(wc -l <"$T/serve")" -eq 5 ]
    page_examples man/quantize-deepseek.7 PROCEDURE >"$T/page"
    while read -r command; do grep -qxF -- "$command" "$T/page" || { echo "$command" && wrong=1; }; done <"$T/serve"
    [ -z "${wrong-}" ]
}
