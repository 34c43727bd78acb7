# The whole recipe, against what Model Optimizer's quantize_to_nvfp4.py wrote; with a calibration of our
# own, against the programs one by one.
# shellcheck disable=SC2030,SC2031 # each test is a subshell
load common
load craft

PATH=$PWD/pipelines:$PATH

# as_reference CHECKPOINT GOLDEN_FOLDER: tensors, configs and index are the reference's.
as_reference() {
    diff <(digests "$1") <(golden "$2.tsv")
    same_json "$1/config.json" "$2/config.json"
    same_json "$1/hf_quant_config.json" "$2/hf_quant_config.json"
    same_json "$1/model.safetensors.index.json" "$2/model.safetensors.index.json" .weight_map
    # Each tensor lies in the shard that the reference put it in.
    diff <(st-ls --tsv "$1" | cut -f1,5 | LC_ALL=C sort) <(golden_lines "$2.tsv" | cut -f1,5 | LC_ALL=C sort)
}

@test "cast with --zero=positive: the reference's bytes" {
    v4-experts -q --amax "$NANO_AMAX" --zero=positive "$NANO" "$T/out"
    as_reference "$T/out" "$GOLDEN/modelopt-cast"
}

@test "lossy: the reference's bytes" {
    v4-experts -q --amax "$NANO_AMAX" --lossy --fallback projection-max "$NANO" "$T/out"
    as_reference "$T/out" "$GOLDEN/modelopt-lossy"
}

@test "the default cast differs from that only in nibbles 8, which stay" {
    v4-experts -q --amax "$NANO_AMAX" "$NANO" "$T/keep"
    v4-experts -q --amax "$NANO_AMAX" --zero=positive "$NANO" "$T/positive"
    run st-cmp -q "$T/keep" "$T/positive"
    [ "$status" -eq 1 ]
    st-cmp --values "$T/keep" "$T/positive"
    # The codes are the source's, bit for bit.
    diff <(digests "$T/keep" | grep 'experts.*weight	' | cut -f1,4) \
        <(digests "$NANO" | grep 'experts.*weight	' | cut -f1,4)
}

@test "the cast has the source's values, exactly" {
    v4-experts -q --amax "$NANO_AMAX" "$NANO" "$T/out"
    st-cmp --values --common "$NANO" "$T/out"
}

@test "v4-mini: cast, and lossy" {
    fixtures v4-mini
    v4-experts -q --amax "$FIXTURES/golden/amax" --zero=positive "$FIXTURES/ckpt" "$T/cast"
    as_reference "$T/cast" "$FIXTURES/golden/modelopt-cast"
    v4-experts -q --amax "$FIXTURES/golden/amax" --lossy "$FIXTURES/ckpt" "$T/lossy"
    as_reference "$T/lossy" "$FIXTURES/golden/modelopt-lossy"
    v4-experts -q --amax "$FIXTURES/golden/amax" "$FIXTURES/ckpt" "$T/keep"
    st-cmp --values "$T/keep" "$T/cast"
}

@test "v4-mini: the summary counts what is out of range" {
    fixtures v4-mini
    run v4-experts --amax "$FIXTURES/golden/amax" "$FIXTURES/ckpt" "$T/out"
    [ "$status" -eq 0 ]
    [[ $output == *'lossless MXFP4->NVFP4 blocks: 1572850/1572864 (99.9991%)'* ]]
}

@test "two ranks' dumps give the same as one's" {
    v4-experts -q --amax "$NANO_AMAX" "$NANO" "$T/one"
    v4-experts -q --amax "$NANO_AMAX-mp2" "$NANO" "$T/two"
    st-cmp "$T/one" "$T/two"
}

@test "the summary" {
    run v4-experts --amax "$NANO_AMAX" "$NANO" "$T/out"
    [ "$status" -eq 0 ]
    [[ $output == *'cast: 192 weights; experts: 32 hash-routed, 32 score-routed'* ]]
    [[ $output == *'never reached: 3 filled in (layer-max)'* ]]
    [[ $output == *'lossless MXFP4->NVFP4 blocks: 196608/196608 (100.0000%)'* ]]
}

@test "--dry-run prints the plan that a run then follows, and writes nothing" {
    run v4-experts --amax "$NANO_AMAX" --summary "$T/summary" --dry-run "$NANO" "$T/out"
    [ "$status" -eq 0 ]
    [ "$(ls "$T")" = '' ]
    [[ $output == *free* ]]
    plan=$(grep -E '^(in|out|files) ' <<<"$output")
    run v4-experts --amax "$NANO_AMAX" "$NANO" "$T/out"
    [ "$plan" = "$(grep -E '^(in|out|files) ' <<<"$output")" ]
}

@test "side files and folders come along, as copies" {
    v4-experts -q --amax "$NANO_AMAX" "$NANO" "$T/out"
    for file in tokenizer.json tokenizer_config.json generation_config.json; do
        cmp "$NANO/$file" "$T/out/$file"
        [ "$(stat -c %h "$T/out/$file")" -eq 1 ]
    done
    # Without inference/config.json, and with four files that are made.
    [ "$(find "$T/out" -type f | wc -l)" -eq $(($(find "$NANO" -type f | wc -l) - 1 + 4)) ]
}

@test "total_size of the index is true" {
    v4-experts -q --amax "$NANO_AMAX" "$NANO" "$T/out"
    total=$(st-ls --tsv "$T/out" | awk -F'\t' '{ s += $4 } END { print s }')
    [ "$(jq .metadata.total_size "$T/out/model.safetensors.index.json")" -eq "$total" ]
}

@test "a failing stage is named, and nothing is put in place" {
    cp -r "$NANO" "$T/source"
    truncate -s -1 "$T/source/model-00002-of-00003.safetensors"
    run v4-experts --amax "$NANO_AMAX" "$T/source" "$T/out"
    [ "$status" -eq 1 ]
    [[ $output == *'amax-merge failed'* || $output == *'st-read failed'* ]]
    [ ! -e "$T/out" ]
}

@test "--fallback none is an error that names the expert" {
    run v4-experts --amax "$NANO_AMAX" --fallback none "$NANO" "$T/out"
    [ "$status" -eq 1 ]
    [[ $output == *'layers.3.ffn.experts.13.w1 has no input amax'* ]]
}

@test "v4-bf16: everything BF16, as plain PyTorch has it" {
    v4-bf16 -q "$NANO" "$T/out"
    diff <(digests "$T/out") <(golden "$GOLDEN/bf16.tsv")
    same_json "$NANO/config.json" "$T/out/config.json" 'del(.quantization_config)'
    [ "$(jq 'has("quantization_config")' "$T/out/config.json")" = false ]
    [ ! -e "$T/out/hf_quant_config.json" ]
}

@test "v4-mini: v4-bf16" {
    fixtures v4-mini
    v4-bf16 -q "$FIXTURES/ckpt" "$T/out"
    diff <(digests "$T/out") <(golden "$FIXTURES/golden/bf16.tsv")
}

# ---- calibrations of our own ----

TEXT=$PWD/test/data/text
small=(--samples 2 --length 40) # enough for a program, if not for a model

# fails WORDS...: v4-experts with these arguments exits 1, a line holds the words, and nothing is there.
fails() {
    local words=$1
    shift
    run v4-experts "$@" "$T/out"
    echo "$output"
    [ "$status" -eq 1 ]
    [[ $output == *"$words"* ]]
    [[ ${lines[-1]} == 'v4-experts: '*' failed (exit 1); no checkpoint was put in place' ]]
    [ ! -e "$T/out" ]
    [ ! -e "$T/out.partial" ]
}

# A copy of the bundled checkpoint, to spoil.
copy() {
    cp -r "$NANO" "$T/source"
    chmod -R u+w "$T/source"
}

@test "--calib, --eval: what the programs give one by one" {
    v4-experts "${small[@]}" --calib "$TEXT/calib-prose.jsonl" --calib "$TEXT/calib-code.jsonl" \
        --save-amax "$T/kept.ts" --eval "$TEXT/eval.jsonl" "$NANO" "$T/out" >"$T/found" 2>"$T/log"
    tokenize=(st-tokenize -q --tokenizer "$NANO" "${small[@]}")
    "${tokenize[@]}" "$TEXT"/calib-{prose,code}.jsonl >"$T/calib.ts"
    amax-calib -q --tokens "$T/calib.ts" "$NANO" >"$T/calib-amax.ts"
    cmp "$T/kept.ts" "$T/calib-amax.ts"
    amax-merge -q --model "$NANO" --fallback layer-max "$T/calib-amax.ts" >"$T/amax.ts"
    nvfp4-cast --amax "$T/amax.ts" "$NANO" | st-write -q "$T/wanted"
    st-cmp "$T/wanted" "$T/out"

    "${tokenize[@]}" "$TEXT/eval.jsonl" >"$T/eval.ts"
    {
        echo "source: $(st-eval --tokens "$T/eval.ts" --save "$T/source.ts" "$NANO")"
        echo "result: $(st-eval --tokens "$T/eval.ts" --save "$T/result.ts" "$T/out")"
        echo "result against source: $(st-eval --compare "$T/source.ts" "$T/result.ts")"
    } | diff - "$T/found"
    grep -qx 'st-tokenize: 4 samples, 160 tokens, the longest 40' "$T/log"
    grep -q 'no token reached .* of .* experts' "$T/log"

    # The calibration that was kept, by another command.
    v4-experts -q --amax "$T/kept.ts" "$NANO" "$T/again" 2>"$T/log"
    st-cmp "$T/out" "$T/again"
    [ ! -s "$T/log" ]

    # As Model Optimizer calibrates: other input scales, but only of w2.
    v4-experts -q --w2 reference --amax "$T/kept.ts" "$NANO" "$T/reference"
    st-cmp "$T/out" "$T/reference" >"$T/different" || true
    grep -qE '^layers\.3\.ffn\.experts\.[0-9]+\.w2\.input_scale: ' "$T/different"
    run grep -vE '^layers\.[0-9]+\.ffn\.experts\.[0-9]+\.w2\.input_scale: |tensors: ' "$T/different"
    [ "$status" -eq 1 ]
}

@test "texts as operands, samples of each, -q, --all-experts, --lossy" {
    jq -r .text "$TEXT/calib-prose.jsonl" >"$T/a.txt"
    cp "$TEXT/calib-code.jsonl" "$T/b.jsonl"
    run v4-experts -q --samples 1,2 --length 30 --all-experts --lossy --fallback none \
        --eval "$TEXT/eval.jsonl" --save-amax "$T/kept.ts" --calib "$T/a.txt" "$T/b.jsonl" "$NANO" "$T/out"
    [ "$status" -eq 0 ]
    [ "${#lines[@]}" -eq 3 ]
    [[ ${lines[1]} =~ ^result:\ mean\ nll\ [0-9.]+\ perplexity\ [0-9.]+\ tokens\ 58$ ]]
    [[ ${lines[2]} =~ ^result\ against\ source:\ KL\ divergence\ 0\.[0-9]+\ top-1\ agreement\ [0-9.]+% ]]
    st-tokenize -q --tokenizer "$NANO" --length 30 --samples 1,2 "$T/a.txt" "$T/b.jsonl" >"$T/calib.ts"
    amax-calib -q --all-experts --tokens "$T/calib.ts" "$NANO" | cmp - "$T/kept.ts"
    amax-merge --fallback none --model "$NANO" "$T/kept.ts" >"$T/amax.ts"
    nvfp4-pack --amax "$T/amax.ts" "$NANO" | st-write -q "$T/wanted"
    st-cmp "$T/wanted" "$T/out"
}

@test "--eval has samples and a length of its own" {
    own=(--input-scale 1 --eval test/data/text/eval.jsonl --samples 4 --length 64)
    run v4-experts "${own[@]}" "$NANO" "$T/a"
    [ "$status" = 0 ]
    [[ $output == *'result: '*"tokens $((4 * 63))"* ]]
    run v4-experts "${own[@]}" --eval-samples 3 --eval-length 32 -j 2 "$NANO" "$T/b"
    [ "$status" = 0 ]
    [[ $output == *'result: '*"tokens $((3 * 31))"* ]]
    run v4-experts --input-scale 1 --eval-samples 3 "$NANO" "$T/c"
    [ "$status" = 2 ]
    [[ $output == *'--eval-samples and --eval-length are for --eval'* ]]
    run v4-experts --input-scale 1 --eval-length 1 --eval test/data/text/eval.jsonl "$NANO" "$T/c"
    [ "$status" = 2 ]
}

@test "--calib --dry-run: the plan that a run follows; nothing is computed or written" {
    own=(--calib "$TEXT/calib-prose.jsonl" --eval "$TEXT/eval.jsonl" --save-amax "$T/kept.ts" "${small[@]}")
    run v4-experts --dry-run "${own[@]}" "$NANO" "$T/out"
    [ "$status" -eq 0 ]
    [[ $output == *free* && $output != *nll* ]]
    [ "$(ls "$T")" = '' ]
    plan=$(grep -E '^(in|out|files) ' <<<"$output")
    run v4-experts "${own[@]}" "$NANO" "$T/out"
    [ "$plan" = "$(grep -E '^(in|out|files) ' <<<"$output")" ]
}

@test "texts that are none: missing, empty, in another encoding, no JSON" {
    : >"$T/empty.jsonl"
    printf '{"text": ""}\n\n' >"$T/blank.jsonl"
    printf 'caf\xe9 au lait\n' >"$T/latin.txt"
    iconv -t UTF-16 "$TEXT/eval.jsonl" >"$T/wide.jsonl"
    echo 'once upon a time' >"$T/prose.jsonl"
    echo '{"body": "once"}' >"$T/field.jsonl"
    for text in 'none.txt: No such file' 'empty.jsonl: no sample in it' \
        'blank.jsonl: no sample in it (1 empty, 0 too short)' \
        'latin.txt: line 1, offset 3: not UTF-8 (byte 0xe9)' 'wide.jsonl: line 1, offset 0: not UTF-8' \
        "prose.jsonl: line 1: " 'field.jsonl: line 1: wanted text'; do
        fails "st-tokenize: $T/$text" --calib "$T/${text%%:*}" "$NANO"
        [ "${#lines[@]}" -eq 2 ]
        fails "st-tokenize: $T/$text" --amax "$NANO_AMAX" --eval "$T/${text%%:*}" "$NANO"
    done
    fails "$T: Is a directory" --calib "$T" "$NANO"
}

@test "--field: a text of another name; without it, the error that names the option says what there is" {
    jq -c '{id: 1, body: .text}' test/data/text/eval.jsonl >"$T/a.jsonl"
    v4-experts -n -q --calib "$T/a.jsonl" --eval "$T/a.jsonl" --field body --length 32 --samples 2 "$NANO" "$T/out" >"$T/plan"
    run v4-experts -n -q --calib "$T/a.jsonl" "$NANO" "$T/out"
    [ "$status" -eq 1 ]
    [[ $output == *'the row has id, body; name what holds the text with --field'* ]]
    [ ! -e "$T/out" ]
}

@test "one word is text enough" {
    echo '{"text": "a"}' >"$T/a.jsonl"
    run v4-experts --calib "$T/a.jsonl" --eval "$T/a.jsonl" "$NANO" "$T/out"
    [ "$status" -eq 0 ]
    [[ $output == *'no token reached 38 of 64 experts'*' tokens 1' ]]
}

@test "tokenizers: none, one with a part that is not known, one of another model" {
    copy
    echo '{"text": "a <other> b"}' >"$T/a.jsonl"
    own=(--calib "$T/a.jsonl" "$T/source")
    rm "$T/source/tokenizer.json"
    fails "$T/source: no tokenizer.json in it; is it a checkpoint" "${own[@]}"
    change() {
        jq -c "$1" "$NANO/tokenizer.json" >"$T/source/tokenizer.json"
    }
    change '.normalizer = {type: "NFC"}'
    fails "$T/source/tokenizer.json: normalizer: 'NFC' is not supported" "${own[@]}"
    change '.pre_tokenizer.pretokenizers[0] = {type: "Digits"}'
    fails "$T/source/tokenizer.json: pre_tokenizer: 'Digits' is not supported" "${own[@]}"
    change '.model.type = "Unigram"'
    fails "$T/source/tokenizer.json: model: wanted BPE, got 'Unigram'" "${own[@]}"
    change '.added_tokens += [{id: 5000, content: "<other>"}]'
    fails "id 5000 is not in the model's vocabulary of 4096; tokenize with the tokenizer of this" "${own[@]}"
}

@test "other architectures are refused" {
    copy
    sed -i 's/deepseek_v4/deepseek_v9/' "$T/source/config.json"
    fails 'wanted a model of type deepseek_v3 or deepseek_v4 or deepseek_v41, got deepseek_v9' --calib "$TEXT/eval.jsonl" "$T/source"
}

@test "DeepSeek-V3 is refused" {
    fixtures v3-nano
    run v4-experts --calib "$TEXT/eval.jsonl" "$FIXTURES/ckpt" "$T/out"
    [ "$status" -eq 1 ]
    [[ $output == *'its model_type is deepseek_v3, which v3-nvfp4 converts' ]]
}

@test "a file that is empty or cut off, named by the user: the reason is said" {
    : >"$T/empty.ts"
    amaxes "$T/amax.ts"
    head -c 9000 "$T/amax.ts" >"$T/cut.ts"
    run v4-experts --amax "$T/amax.ts" "$T/empty.ts" "$T/out"
    [ "$status" -eq 1 ]
    [[ $output == *'empty.ts: is empty'* ]]
    run v4-experts --amax "$T/empty.ts" "$NANO" "$T/out"
    [ "$status" -eq 1 ]
    [[ $output == *'empty.ts: is empty'*'v4-experts: amax-merge failed'* ]]
    [[ $output != *'<stdin>'* ]]
    run v4-experts --amax "$T/cut.ts" "$NANO" "$T/out"
    [ "$status" -eq 1 ]
    [[ $output == *'cut.ts: '*'v4-experts: amax-merge failed'* ]]
    [[ $output != *'<stdin>'* ]]
}

@test "a source of another family, or without config.json: no path of a recipe" {
    cp -r "$NANO" "$T/ckpt"
    for model in '{"model_type": "deepseek_v9"}' ''; do
        rm "$T/ckpt/config.json"
        [ -z "$model" ] || echo "$model" >"$T/ckpt/config.json"
        fails 'no config.json, or one with a model_type that is not known' --input-scale 1 "$T/ckpt"
    done
}

@test "what can be known beforehand is: destination, folders, missing tensors" {
    mkdir "$T/used"
    : >"$T/used/file"
    run v4-experts --calib "$TEXT/calib-prose.jsonl" --save-amax "$T/kept.ts" "$NANO" "$T/used"
    [ "$status" -eq 1 ]
    [[ $output == *'used: is not empty'*'st-write failed'* ]]
    [ ! -e "$T/kept.ts" ]
    for option in --save-amax --summary; do
        run v4-experts --calib "$TEXT/calib-prose.jsonl" "$option" "$T/none/file" "$NANO" "$T/out"
        [ "$status" -eq 2 ]
        [[ $output == *"$T/none/file: its folder is not there"* ]]
    done
    copy
    rm "$T/source/model-00003-of-00003.safetensors"
    fails "model-00003-of-00003.safetensors" --calib "$TEXT/eval.jsonl" "$T/source"
}

@test "NaN that the calibration meets, and one that only the judgement does" {
    copy
    spoil() { # TENSOR: its first byte
        local place file offset
        place=$(st-read "$NANO" | tar tvf - | sed -n "s/.* $1 -> //p")
        file=${place%@*} offset=${place#*@}
        printf '\177' | dd of="$T/source/$file" bs=1 seek="${offset%+*}" conv=notrunc status=none
    }
    spoil 'mtp\.0\.enorm\.weight' # not looked at
    v4-experts -q "${small[@]}" --calib "$TEXT/eval.jsonl" "$T/source" "$T/out"
    rm -r "$T/out"
    spoil 'layers\.2\.attn\.wkv\.weight'
    fails 'amax-calib: layers.2.attn.wkv: its weight holds NaN' \
        "${small[@]}" --calib "$TEXT/calib-code.jsonl" --save-amax "$T/kept.ts" "$T/source"
    [ ! -e "$T/kept.ts" ]
    fails 'st-eval: layers.2.attn.wkv: its weight holds NaN' \
        "${small[@]}" --amax "$NANO_AMAX" --eval "$TEXT/eval.jsonl" "$T/source"
}

@test "a folder for temporary files that is none" {
    for tmpdir in /proc "$T/none"; do
        TMPDIR=$tmpdir run v4-experts -n --input-scale 1 "$NANO" "$T/out"
        [ "$status" -eq 1 ]
        [ "$output" = "v4-experts: $tmpdir: no folder can be made there; name another one in TMPDIR" ]
    done
}

@test "wrong command lines exit 2" {
    run v4-experts "$NANO" "$T/out"
    [ "$status" -eq 2 ]
    run v4-experts --amax
    [ "$status" -eq 2 ]
    run v4-experts --frob
    [ "$status" -eq 2 ]
    own=(--calib "$TEXT/eval.jsonl")
    for options in "--amax $NANO_AMAX ${own[*]}" "--amax $NANO_AMAX --all-experts" \
        "--amax $NANO_AMAX --save-amax $T/a" "--lossy --zero=keep --zero=positive ${own[*]}" \
        "${own[*]} --length 1" "${own[*]} --samples 0" "${own[*]} --samples 1,2"; do
        # shellcheck disable=SC2086 # a list
        run v4-experts $options "$NANO" "$T/out"
        echo "$options: $output"
        [ "$status" -eq 2 ]
    done
    run v4-experts "${own[@]}" "$NANO"
    [ "$status" -eq 2 ]
    [ ! -e "$T/out" ]
    run v4-bf16 "$NANO"
    [ "$status" -eq 2 ]
}

@test "--device: a GPU if one is wanted, or nothing" {
    own=(--samples 1 --length 8 --calib "$TEXT/eval.jsonl" "$NANO")
    if ! nvidia-smi >/dev/null 2>&1; then
        fails 'amax-calib: --device cuda: ' --device cuda "${own[@]}"
        [[ $output == *'--device cpu needs none'* ]]
        fails 'amax-calib: --device cuda: ' -n --device cuda "${own[@]}"
        fails 'st-eval: --device cuda: ' -n --device cuda --amax "$NANO_AMAX" --eval "$TEXT/eval.jsonl" "$NANO"
    fi
    run v4-experts --device tpu "${own[@]}" "$T/out"
    echo "$output"
    [[ $status -ne 0 && $output == *--device*tpu* && ! -e $T/out ]]
}

@test "command lines as the programs take them" {
    run v4-bf16 "$NANO" -nv "$T/out"
    [ "$status" -eq 0 ]
    [[ $output == *free* ]]
    run v4-experts "$NANO" "$T/out" --amax="$NANO_AMAX" --plan
    [ "$status" -eq 0 ]
    [[ $output == *free* ]]
    [ ! -e "$T/out" ]
    mkdir "$T/a folder"
    v4-bf16 -qv --overwrite -q "$NANO" -- "$T/a folder"
    [ -e "$T/a folder/config.json" ]
    for program in v4-experts v4-bf16; do
        [ "$($program --version)" = "$(st-read --version | sed "s/^st-read/$program/")" ]
    done
}

@test "--amax: one dump" {
    v4-experts -q --amax "$NANO_AMAX/amax_dict_rank0-mp1.pt" "$NANO" "$T/file"
    v4-experts -q --amax "$NANO_AMAX" "$NANO" "$T/folder"
    st-cmp "$T/file" "$T/folder"
}

# ---- --verify ----

# flip FILE OFFSET: change a byte so that size and mtime stay.
flip() {
    touch -r "$1" "$T/time"
    printf '%b' "\\x$(printf %02x $(($(od -An -tu1 -j "$2" -N 1 "$1") ^ 16)))" |
        dd of="$1" bs=1 seek="$2" conv=notrunc status=none
    touch -r "$T/time" "$1"
}

@test "--verify: what was written, by this run and one that died, is read again" {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    v4-experts -q --amax "$NANO_AMAX" "$NANO" "$T/whole"
    verify=(v4-experts -q --verify --amax "$NANO_AMAX")
    mkdir "$T/bin"
    ln -s "$PWD/$BIN"/* "$T/bin"
    rm "$T/bin/st-write"
    # shellcheck disable=SC2016 # for another shell
    printf '#!/bin/sh\nexec strace -f -o /dev/null -e trace=fsync -e inject=fsync:signal=KILL:when=4 %s "$@"\n' \
        "$PWD/$BIN/st-write" >"$T/bin/st-write"
    chmod +x "$T/bin/st-write"
    run env SEEKPIPE_BIN="$T/bin" "${verify[@]}" "$NANO" "$T/out"
    [ "$status" -eq 1 ]
    shard="model-00001-of-00003.safetensors"
    flip "$T/out.partial/$shard" 5000
    run "${verify[@]}" "$NANO" "$T/out"
    [ "$status" -eq 1 ]
    [[ $output == *"out.partial/$shard: "*' is not what was written'*'st-write failed (exit 1); no checkpoint'* ]]
    [ ! -e "$T/out" ]
    "${verify[@]}" "$NANO" "$T/out"
    same_run "$T/whole" "$T/out"
    "${verify[@]}" --jobs 2 "$NANO" "$T/parts"
    same_run "$T/whole" "$T/parts"
    for jobs in 1 2; do # each st-write that writes is told
        : >"$T/said"
        printf '#!/bin/sh\necho "$*" >>"%s/said"\nexec %s "$@"\n' "$T" "$PWD/$BIN/st-write" >"$T/bin/st-write"
        SEEKPIPE_BIN=$T/bin "${verify[@]}" --jobs $jobs "$NANO" "$T/again$jobs"
        [ "$(grep -vcE -- '--(state|todo|join|verify)|-n' "$T/said")" = 0 ]
        [ "$(grep -c -- '--verify' "$T/said")" = "$jobs" ]
    done
}

@test "--verify of a checkpoint that is there: its configs, index and other files, too" {
    v4-experts -q --amax "$NANO_AMAX" "$NANO" "$T/out"
    for file in config.json model.safetensors.index.json; do
        mv "$T/out/$file" "$T/kept"
        run v4-experts --verify --amax "$NANO_AMAX" "$NANO" "$T/out"
        [ "$status" -eq 1 ] || [ "$status" -eq 2 ]
        mv "$T/kept" "$T/out/$file"
    done
    mv "$T/out/tokenizer.json" "$T/kept"
    run v4-experts --verify --amax "$NANO_AMAX" "$NANO" "$T/out"
    [[ $output == *'there is no tokenizer.json'* ]]
    mv "$T/kept" "$T/out/tokenizer.json"
    cp "$T/out/config.json" "$T/kept"
    jq 'del(.quantization_config)' "$T/kept" >"$T/out/config.json"
    run v4-experts --verify --amax "$NANO_AMAX" "$NANO" "$T/out"
    [ "$status" -eq 1 ]
    [[ ${lines[-1]} == "v4-experts: $T/out is in place, but not as it should be: see the faults above" ]]
    cp "$T/kept" "$T/out/config.json"
    v4-experts -q --verify --amax "$NANO_AMAX" "$NANO" "$T/out"
}

@test "--verify of a checkpoint that is there: compared with what the source gives" {
    for pipeline in "v4-experts --amax $NANO_AMAX" v4-bf16; do
        # shellcheck disable=SC2206 # words
        own=($pipeline)
        "${own[@]}" -q --verify "$NANO" "$T/out"
        find "$T/out" -type f -printf '%p %s %T@\n' | sort >"$T/before"
        run "${own[@]}" --verify "$NANO" "$T/out"
        [ "$status" -eq 0 ]
        [[ $output == *' tensors: '*' equal, 0 differ, 0 only in A, 0 only in B'* ]]
        run "${own[@]}" -q --verify "$NANO" "$T/out/"
        [ "$status,$output" = 0, ]
        flip "$T/out/model-00002-of-00003.safetensors" $(($(stat -c %s "$T/out/model-00002-of-00003.safetensors") / 2))
        run "${own[@]}" --verify "$NANO" "$T/out"
        [ "$status" -eq 1 ]
        [[ $output == *': 1 of '*' differ, first at '*"${own[0]}: $T/out: is not what this source and these options give"* ]]
        [[ ${lines[-1]} == "${own[0]}: st-cmp failed (exit 1); nothing was written" ]]
        find "$T/out" -type f -printf '%p %s %T@\n' | sort | diff "$T/before" -
        # It is neither replaced nor planned over unless one says so.
        run "${own[@]}" -n --verify "$NANO" "$T/out"
        [[ $status -eq 0 && $output == *'out: complete already, of the same input and options' ]]
        "${own[@]}" -q --verify --overwrite "$NANO" "$T/out"
        "${own[@]}" -q --verify "$NANO" "$T/out"
        rm -r "$T/out"
    done
}

@test "--verify of a checkpoint of other options finds them" {
    v4-experts -q --amax "$NANO_AMAX" "$NANO" "$T/out"
    run v4-experts --amax "$NANO_AMAX" --lossy --verify "$NANO" "$T/out"
    [ "$status" -eq 1 ]
    [[ $output == *'is not what this source and these options give'* ]]
    v4-experts -q "${small[@]}" --calib "$TEXT/calib-prose.jsonl" "$NANO" "$T/own"
    v4-experts -q "${small[@]}" --calib "$TEXT/calib-prose.jsonl" --verify "$NANO" "$T/own"
    [ ! -e "$T/own.calib" ]
}

@test "--amax of another model, or of a tenth too few experts, is refused before any work; unless a rule is asked for" {
    dump "$T/more.safetensors" 4 256
    dump "$T/fewer.safetensors" 4 14
    for options in '' -n --lossy; do
        # shellcheck disable=SC2086 # a list
        run v4-experts $options --amax "$T/more.safetensors" "$NANO" "$T/out"
        [ "$status" -eq 1 ]
        [[ $output == *'has amaxes of 1024 routed experts, but '*' has 80 routed experts'* ]]
        # shellcheck disable=SC2086 # a list
        run v4-experts $options --amax "$T/fewer.safetensors" "$NANO" "$T/out"
        [ "$status" -eq 1 ]
        [[ $output == *'the calibration has 14 of 16 experts, under 90 %'*'--fallback'* ]]
        [ ! -e "$T/out" ]
    done
    v4-experts -q -n --amax "$T/fewer.safetensors" --fallback layer-max "$NANO" "$T/out" >"$T/plan"
    v4-experts -q -n --amax "$NANO_AMAX" "$NANO" "$T/out" >"$T/plan" # 15 of 16
}

# ---- amaxes without a calibration ----

@test "--amax of the checkpoint that a calibration gave, and --input-scale" {
    v4-experts -q --amax "$NANO_AMAX" "$NANO" "$T/first"
    v4-experts -q --amax "$T/first" "$NANO" "$T/second"
    st-cmp "$T/first" "$T/second"
    diff -r -x quant-run.json -x README.md -x quant-report.html "$T/first" "$T/second" # which say of what amaxes
    v4-experts -q --amax "$T/first" --lossy "$NANO" "$T/lossy"
    v4-experts -q --input-scale 1 --summary "$T/summary" "$NANO" "$T/one"
    diff <(digests "$T/first" | grep -v input_scale) <(digests "$T/one" | grep -v input_scale)
    [ "$(digests "$T/one" | grep input_scale | cut -f4 | sort -u)" = \
        "$(printf '\0\0\200\077' | sha256sum | cut -d' ' -f1)" ]
    grep -q 'layers.0.ffn.experts.0.w1_input_quantizer .*amax=2.69e+03' "$T/summary"
    run v4-experts -q --amax "$NANO" "$NANO" "$T/out"
    [ "$status" -eq 1 ]
    [[ $output == *"amax-merge: $NANO: has no input scales of matrices in NVFP4"* ]]
    [ ! -e "$T/out" ]
}

@test "without a calibration, all three ways are offered; two are too many" {
    run v4-experts "$NANO" "$T/out"
    [ "$status" -eq 2 ]
    [[ $output == *--calib*--amax*--input-scale\ 1* ]]
    for options in "--amax $NANO_AMAX --input-scale 1" "--calib x --input-scale 1" "--input-scale 1 --fallback none" \
        "--input-scale 1 --all-experts" "--input-scale 1 --save-amax $T/a" \
        "--input-scale 1 --field x" "--input-scale 1 --samples 128" "--amax $NANO_AMAX --length 512" \
        "--amax $NANO_AMAX --device cpu"; do
        # shellcheck disable=SC2086 # a list
        run v4-experts $options "$NANO" "$T/out"
        [ "$status" -eq 2 ]
    done
    # What is for texts goes with any.
    v4-experts -n --input-scale 1 --eval "$TEXT/eval.jsonl" --samples 1 --length 16 --device cpu "$NANO" "$T/out"
}

@test "wrong values of options are refused before any work, in a dry run, too" {
    mkdir "$T/folder"
    ln -s nowhere "$T/dangling"
    : >"$T/here"
    # The source is not there: whoever looks at it first is too late.
    for options in '--fallback max' '--device cudaa' '--device=' '--zero x' '--jobs 0' '--jobs 1000' '--jobs -1' \
        '--length 1' '--length x' '--length 99999999999' '--samples 0' '--samples 1,' '--samples 1,x' '--samples=-1' \
        '--field=' '--field +a' "--save-amax $T/folder" '--save-amax=-x' '--save-amax=' "--save-amax $T/none/a" \
        "--save-amax $T/dangling" "--save-amax $T/here/a" "--summary $T/folder" '--summary=-x' \
        "--summary $T/none/a" "--save-amax $T/a --summary $T/a" '--eval=-x' '--eval=' '--calib=-x'; do
        for plan in '' -n; do
            # shellcheck disable=SC2086 # lists
            run v4-experts $plan --calib "$TEXT/eval.jsonl" $options "$T/none" "$T/out"
            echo "$options: $output"
            [ "$status" -eq 2 ]
            [ "${#lines[@]}" -eq 2 ]
        done
    done
    for options in '--amax=-x' '--amax=' '--input-scale 0' '--input-scale x' '--input-scale=-1' '--input-scale .' \
        '--input-scale 1e39' '--input-scale 1e-39' '--input-scale 1e-99'; do
        # shellcheck disable=SC2086 # a list
        run v4-experts -n $options "$NANO" "$T/out"
        echo "$options: $output"
        [ "$status" -eq 2 ]
    done
    for program in "v4-experts --input-scale 1" v4-bf16; do
        for folders in "-x $T/out" "$NANO -x"; do
            # shellcheck disable=SC2086 # lists
            run $program ${folders//-x/-}
            [ "$status" -eq 2 ]
            [[ $output == *': - is no name here; a file of that name is ./-'* ]]
        done
    done
}

@test "--save-amax, --summary and --moments: no file that is read, nor in the way of the checkpoint" {
    cp -r "$NANO" "$T/source"
    cp -r "$NANO_AMAX" "$T/amax"
    cp "$TEXT/eval.jsonl" "$T/text.jsonl"
    ln -s source "$T/link"
    ln "$T/text.jsonl" "$T/same.jsonl"
    cp -r "$T/source" "$T/amax" "$T/text.jsonl" "$T/same.jsonl" -t "$(mktemp -d "$T/before.XXXX")"
    # apart WORDS OPTION...: is refused, with -n as well, before anything is read or written.
    apart() {
        local words=$1 plan
        for plan in '' -n; do
            # shellcheck disable=SC2086 # none, or one
            run v4-experts $plan "${@:2}" "$T/source" "$T/out"
            echo "${*:2}: $output"
            [ "$status" -eq 2 ]
            [[ ${lines[0]} == "v4-experts: --"*": $words"* ]]
        done
    }
    for option in --save-amax --summary; do
        own=(--calib "$T/text.jsonl" --samples 1 --length 8 "$option")
        apart "$T/source/config.json is read; name another file" "${own[@]}" "$T/source/config.json"
        apart "$T/link/model-00002-of-00003.safetensors is read" "${own[@]}" "$T/link/model-00002-of-00003.safetensors"
        apart "$T/source/new is in the source's folder" "${own[@]}" "$T/source/new"
        apart "$T/link/new is in the source's folder" "${own[@]}" "$T/link/new"
        apart "$T/same.jsonl is read" "${own[@]}" "$T/same.jsonl"
        for name in out out.partial out.calib out.replaced ./out; do
            apart "$T/$name is where the checkpoint is made" "${own[@]}" "$T/$name"
        done
    done
    apart "$T/same.jsonl is read" --input-scale 1 --eval "$T/text.jsonl" --summary "$T/same.jsonl"
    apart "$T/amax/amax_dict_rank0-mp1.pt is read" --amax "$T/amax" --summary "$T/amax/amax_dict_rank0-mp1.pt"
    own=(--calib "$T/text.jsonl" --samples 1 --length 8 --lossy --scale-search hessian --moments)
    apart "$T/source is in the source's folder" "${own[@]}" "$T/source"
    apart "$T/out is where the checkpoint is made" "${own[@]}" "$T/out"
    apart "$T/text.jsonl is read" "${own[@]}" "$T/text.jsonl"
    apart "$T/none/new: its folder is not there" "${own[@]}" "$T/none/new"
    [ ! -e "$T/out" ]
    diff -r "$T"/before.*/source "$T/source"
    diff -r "$T"/before.*/amax "$T/amax"
    cmp "$TEXT/eval.jsonl" "$T/text.jsonl"
    # Beside dumps, a report may lie, and be made again.
    for _ in 1 2; do
        v4-experts -q --overwrite --amax "$T/amax" --summary "$T/amax/summary.txt" "$T/source" "$T/out"
    done
}

@test "-n, and a run before its first token: what the forward pass lacks" {
    own=(--calib "$TEXT/eval.jsonl" --samples 1 --length 8)
    # A hash layer's table of experts, under another name.
    copy
    sed -i '0,/layers\.0\.ffn\.gate\.tid2eid/s//layers.0.ffn.gate.tid2eix/' "$T/source"/*.safetensors
    sed -i 's/layers\.0\.ffn\.gate\.tid2eid/layers.0.ffn.gate.tid2eix/' "$T/source/model.safetensors.index.json"
    for plan in '' -n; do
        # shellcheck disable=SC2086 # none, or one
        fails "amax-calib: $T/source: layers.0.ffn.gate.tid2eix: the forward pass does not know this tensor" $plan "${own[@]}" "$T/source"
        # shellcheck disable=SC2086
        fails "amax-merge: $T/source: lacks layers.0.ffn.gate.tid2eid; is the download complete" $plan --amax "$NANO_AMAX" --eval "$TEXT/eval.jsonl" \
            "$T/source"
    done
}
