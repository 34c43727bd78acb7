# DeepSeek's releases, in small: each cell of the table in README's "Which releases", and what makes each
# release different.

# shellcheck disable=SC2034 # add, of craft.bash, uses what it is not given

load common
load craft
load releases

PATH=$PWD/pipelines:$PATH
text=$PWD/test/data/text/eval.jsonl

# is_read: every tensor of the release comes out of st-read, and goes through st-write.
is_read() {
    pipeline "st-read '$T/source' | st-write -q '$T/same'"
    [ "$(st-sum "$T/same")" = "$(st-sum "$T/source")" ]
    diff "$T/source/config.json" "$T/same/config.json"
}

# becomes_bf16: all of it, with the values that it had.
becomes_bf16() {
    v4-bf16 -q "$T/source" "$T/bf16"
    st-ls --tsv "$T/bf16" | cut -f2 | sort -u | grep -vx I64 | diff - <(printf '%s\n' BF16 F32)
    jq -e '[.. | objects | has("quantization_config") or has("expert_dtype")] | any | not' "$T/bf16/config.json"
    st-cmp -q --values "$T/source" "$T/bf16"
}

# becomes_nvfp4 [OPTION...]: the layers' experts, with values that st-cmp finds equal; all else stays, and the configs say so.
becomes_nvfp4() {
    v4-experts --amax "${amax-$NANO_AMAX}" "$@" "$T/source" "$T/out" 2>"$T/summary"
    st-cmp -q --values --common "$T/source" "$T/out"
    diff <(digests "$T/source" | grep -vE "$experts") <(digests "$T/out" | grep -vE "$experts")
    [ "$(st-ls --tsv "$T/out" | grep -cE "$experts.*weight_scale_2	")" -eq "$(st-ls --tsv "$T/source" | grep -cE "$experts.*[.]weight	")" ]
    jq -e --argjson layers "$(st-ls --tsv "$T/source" | grep -E "$experts" | cut -d. -f1-4 | sort -u | jq -nR '[inputs]')" '
        [.. | objects | .expert_dtype // empty] as $dtype | .quantization_config
        | .moe_quant_algo == "NVFP4" and .quant_algo == "MIXED_PRECISION" and .quant_method == "fp8"
            and (.quantized_layers | keys) == $layers and ($dtype | unique - ["fp4"]) == []' "$T/out/config.json"
    jq -e --slurpfile c "$T/out/config.json" '.quantization | .quantized_layers == $c[0].quantization_config.quantized_layers
        and .exclude_modules == $c[0].quantization_config.ignore' "$T/out/hf_quant_config.json"
}
experts='^layers[.][0-9]+[.]ffn[.]experts[.]'

# runs DRAFTS [OPTION...]: the forward pass takes it: calibrated, converted, both evaluated; the drafts, too (mtp), or it
# is said that they can't be (dspark).
runs() {
    run v4-experts --calib "$text" --samples 2 --length 16 --eval "$text" "${@:2}" "$T/source" "$T/calibrated"
    echo "$output"
    [ "$status" -eq 0 ]
    [[ $output == *'result against source: KL divergence '* ]]
    st-tokenize -q --tokenizer "$T/source" --length 8 --samples 1 -o "$T/tokens.ts" "$text"
    for program in amax-calib st-eval; do
        if [ "$1" = mtp ]; then
            $program --mtp --tokens "$T/tokens.ts" -o "$T/$program" "$T/source"
        else
            refused 'its drafts are of DSpark' $program --mtp --tokens "$T/tokens.ts" -o "$T/x" "$T/source"
        fi
    done
    if [ "$1" = mtp ]; then
        grep -q '^mtp 0: mean nll ' "$T/st-eval"
        st-ls --tsv "$T/amax-calib" | grep -q '^mtp[.]0[.]ffn[.]experts[.].*_input_quantizer'
    fi
}

# is_nvfp4: what it became is a release, too.
is_nvfp4() {
    mv "$T/source" "$T/first"
    mv "$T/out" "$T/source"
    rm -r "$T/same" "$T/bf16"
    is_read
    becomes_bf16
    run v4-experts -n --amax "$NANO_AMAX" "$T/source" "$T/out"
    [ "$status" -eq 1 ]
    [[ $output == *'nothing to convert: '*' is NVFP4 already'* ]]
    amax-calib -q --mtp --tokens "$T/tokens.ts" -o "$T/x.ts" "$T/source"
    st-eval --mtp --tokens "$T/tokens.ts" "$T/source" | grep -q '^mtp 0: mean nll '
}

# unwrapped: the summary, each of its notes on one line.
unwrapped() {
    awk 'NR > 1 { printf /^    / ? " " : "\n" } { sub(/^ +/, ""); printf "%s", $0 } END { print "" }' "$T/summary"
}

@test "V4-Flash" {
    release flash "$T/source"
    is_read
    becomes_bf16
    becomes_nvfp4
    runs mtp
    is_nvfp4
}

@test "V4-Pro, and Flash of April: without expert_dtype" {
    release pro "$T/source"
    jq -e 'has("expert_dtype") | not' "$T/source/config.json"
    is_read
    becomes_bf16
    becomes_nvfp4
    runs mtp
}

@test "Flash-0731, Pro-0813: drafts of DSpark" {
    release dspark "$T/source"
    is_read
    becomes_bf16
    becomes_nvfp4
    grep -qE '^vLLM [^ ]+ +loads +loads silently wrong \(' "$T/summary"
    unwrapped | grep -q 'they are MXFP4 (tried); --drafts cast'
    grep -qE '^SGLang [^ ]+ +loads +loads$' "$T/summary"
    jq -e '.quantization_config.ignore | index("mtp.*")' "$T/out/config.json"
    runs dspark
}

@test "Vision-Exp: what is for images passes unchanged, and is not used for text" {
    release vision "$T/source"
    is_read
    becomes_bf16
    becomes_nvfp4
    runs dspark
    [ "$(grep -c 'amax-calib: .*: 16 tensors are not used for text, first layers.0.ffn.gate.bias$' <<<"$output")" -eq 1 ]
    # Text is routed as without them.
    st-tokenize -q --tokenizer "$T/source" --length 8 --samples 1 -o "$T/tokens.ts" "$text"
    amax-calib -q --tokens "$T/tokens.ts" "$T/source" >"$T/a.ts" 2>"$T/messages"
    [ ! -s "$T/messages" ]
    pipeline "st-grep --invert '^vision|^aligner|^image_|gate.bias_vl|^layers[.][01][.]ffn[.]gate[.]bias' '$T/source' |
        amax-calib --tokens '$T/tokens.ts' >'$T/b.ts' 2>'$T/messages'"
    run grep 'not used' "$T/messages"
    [ "$status" -eq 1 ]
    [ "$(st-sum "$T/a.ts")" = "$(st-sum "$T/b.ts")" ]
    # A tensor of a layer that nobody knows is another matter, in a plan as well.
    unpack "$T/source"
    put layers.1.ffn.gate.twist F32 '[16]' 74
    pack "$T/twist.ts"
    pipeline "st-write -q '$T/twist' '$T/twist.ts'"
    for plan in '' -n; do
        refused 'layers\.1\.ffn\.gate\.twist: the forward pass does not know this tensor' \
            amax-calib $plan --tokens "$T/tokens.ts" -o "$T/x.ts" "$T/twist"
    done
}

@test "Base: everything FP8 with F32 scales" {
    release base "$T/source"
    is_read
    becomes_bf16
    run v4-experts --amax "$NANO_AMAX" "$T/source" "$T/out"
    [ "$status" -eq 1 ]
    [[ $output == *'w1.weight is FP8, not MXFP4'*'--lossy'* ]]
    run v4-experts -n --lossy --amax "$NANO_AMAX" "$T/source" "$T/out"
    [[ $output == *'no engine is known to serve this checkpoint'* ]]
    dump "$T/dump.safetensors" 4 16 # weight amaxes come from the weights
    amax=$T/dump.safetensors becomes_nvfp4 --lossy
    grep -qE '^SGLang [^ ]+ +not known \(' "$T/summary"
    unwrapped | grep -q 'FP8 weights with F32 scales .* were not tried'
    grep -q '^no engine is known to serve this checkpoint$' "$T/summary"
    runs mtp --lossy
}

@test "V4-Flash-FP8, as others upload it: experts in FP8 with scales of 128 x 128" {
    release fp8 "$T/source"
    is_read
    becomes_bf16
    dump "$T/dump.safetensors" 4 16 # weight amaxes come from the weights
    amax=$T/dump.safetensors becomes_nvfp4 --lossy
    run grep 'F32 scales' "$T/summary"
    [ "$status" -eq 1 ]
    runs mtp --lossy
}

@test "V4.1: its experts are cast, Engram tables and drafts stay, configs are nested" {
    release v41 "$T/source"
    is_read
    becomes_bf16
    amax=$T/amax.safetensors becomes_nvfp4
    jq -e '.quantization_config | .expert_dtype == "fp4" and .weight_block_size == [32, 32]' "$T/out/config.json"
    jq -e '.text_config.num_hidden_layers == 2' "$T/out/config.json"
    amax=$T/amax.safetensors
    v4-experts -q --drafts cast --amax "$amax" "$T/source" "$T/drafts"
    st-cmp -q --values "$T/source" "$T/drafts"
}

@test "V4.1: what the forward pass needs of config.json is asked for before any work" {
    release v41 "$T/source"
    random_ids "$T/tokens.safetensors" 1 8
    refused 'hidden_size is missing; the forward pass needs it' st-eval --tokens "$T/tokens.safetensors" "$T/source"
    for options in '' -n; do
        # shellcheck disable=SC2086
        refused 'hidden_size is missing; the forward pass needs it' amax-calib $options -o "$T/x.ts" --tokens "$T/tokens.safetensors" "$T/source"
    done
    run v4-experts -n --calib "$text" --samples 1 --length 8 "$T/source" "$T/out"
    [ "$status" -eq 1 ]
    [[ $output == *'hidden_size is missing; the forward pass needs it'* ]]
}

@test "V4.1: layers, drafts, and the experts of each are complete, or it is said what is not" {
    release v41 "$T/source"
    # lacks PATTERN FILTER NAMES: what is said with config.json changed, or without these tensors.
    lacks() {
        rm -rf "$T/less"
        pipeline "st-grep --invert '$3' '$T/source' | st-write -q --partial '$T/less'"
        jq "$2" "$T/source/config.json" >"$T/less/config.json"
        refused "less: $1" nvfp4-cast -n -o "$T/x.ts" "$T/less"
    }
    lacks 'lacks layers\.1\.ffn\.experts\.1;' . '^layers[.]1[.]ffn[.]experts[.]1[.]'
    lacks 'lacks mtp\.0\.ffn\.experts\.0;' . '^mtp[.]0[.]ffn[.]experts[.]'
    lacks 'lacks layers\.0\.attn\.wo_b\.weight;' . '^layers[.]0[.]attn[.]wo_b[.]'
    lacks 'lacks mtp\.0\.ffn\.experts\.1;' '.text_config.dspark_n_routed_experts = 2' nothing
    lacks "has layers\.0\.ffn\.experts\.1, but config\.json's n_routed_experts is 1" '.text_config.n_routed_experts = 1' nothing
    lacks 'lacks layers\.2;' '.text_config.num_hidden_layers = 3' nothing
    lacks 'lacks head\.weight;' . '^head'
}

# ---- drafts ----

@test "--drafts cast: the drafts' experts become NVFP4 without loss, and the configs say so" {
    v4-experts --drafts cast --amax "$NANO_AMAX" "$NANO" "$T/out" 2>"$T/summary"
    st-cmp -q --values "$NANO" "$T/out"
    grep -q 'cast: 240 weights; experts: 32 hash-routed, 32 score-routed, 16 MTP' "$T/summary"
    grep -qE '^vLLM [^ ]+ +loads +loads$' "$T/summary"
    grep -qE '^SGLang [^ ]+ +loads +loads silently wrong \(' "$T/summary"
    unwrapped | grep -q 'they are NVFP4 (tried); --drafts keep'
    grep -q 'input amaxes of drafts not calibrated: 48 filled in from the last layer (layer-max)' "$T/summary"
    for file in "config.json .quantization_config .ignore" "hf_quant_config.json .quantization .exclude_modules"; do
        read -r name object exclude <<<"$file"
        jq -e "$object | (.quantized_layers | has(\"mtp.0.ffn.experts\") and length == 5)
            and ($exclude - [\"*.attn.*\", \"*.ffn.shared_experts.*\", \"head\"] | index(\"mtp.*\") | not)" "$T/out/$name"
    done
    # Of the drafts, what stays FP8 is excluded.
    jq -e '.quantization_config.ignore | index("mtp.*.e_proj") and index("mtp.*.h_proj")' "$T/out/config.json"
    # By default, and as asked, they stay.
    v4-experts -q --amax "$NANO_AMAX" "$NANO" "$T/a"
    v4-experts -q --drafts keep --amax "$NANO_AMAX" "$NANO" "$T/b"
    diff -r -x quant-run.json -x quant-report.html "$T/a" "$T/b" # which have the options
    [ "$(digests "$T/a" | grep '^mtp')" = "$(digests "$NANO" | grep '^mtp')" ]
    jq -e '.quantization_config.ignore == ["*.attn.*", "*.ffn.shared_experts.*", "head", "mtp.*"]' "$T/a/config.json"
}

@test "--drafts cast: drafts that were not calibrated have the last layer's largest input amaxes" {
    pt-read "$NANO_AMAX" >"$T/dump.ts"
    amax-merge -q --drafts cast --model "$NANO" --fallback layer-max "$T/dump.ts" >"$T/amax.ts"
    largest() { st-stat --tsv "$T/amax.ts" | awk -F'\t' -v name="^$1[.].*[.]$2_input" '$1 ~ name { print $0 }' | cut -f2- | sort -u; }
    for w in w1 w2 w3; do
        [ "$(largest 'mtp[.]0' $w | wc -l)" -eq 1 ]
        largest 'layers[.]3' $w | grep -qFx "$(largest 'mtp[.]0' $w)"
    done
    # All of a layer share in either case.
    amax-merge -q --drafts cast --peer-max --model "$NANO" --fallback layer-max "$T/dump.ts" >"$T/peers.ts"
    diff <(digests "$T/peers.ts" | grep '^mtp') <(digests "$T/amax.ts" | grep '^mtp')
    # They do not count as lacking; without a rule, they are an error.
    amax-merge -q --drafts cast --coverage 90 --model "$NANO" --fallback layer-max "$T/dump.ts" | st-sum | diff - <(st-sum "$T/amax.ts")
    dump "$T/dump.safetensors" 4 16
    amax-merge -q --model "$NANO" "$T/dump.safetensors" >"$T/x.ts"
    refused 'mtp\.0\.ffn\.experts\.0\.w[123] has no input amax' \
        amax-merge --drafts cast --model "$NANO" -o "$T/x.ts" "$T/dump.safetensors"
}

@test "--drafts cast --calib: V4's MTP is calibrated, DSpark's drafts cannot be" {
    run v4-experts --drafts cast --calib "$text" --samples 2 --length 16 --save-amax "$T/amax.ts" "$NANO" "$T/out"
    [ "$status" -eq 0 ]
    [[ $output != *'drafts not calibrated'* ]]
    st-ls "$T/amax.ts" | grep -q 'mtp.0.ffn.experts.*_input_quantizer'
    release dspark "$T/source"
    run v4-experts --drafts cast --calib "$text" --samples 2 --length 16 "$T/source" "$T/spark"
    echo "$output"
    [ "$status" -eq 0 ]
    [[ $output == *'input amaxes of drafts not calibrated: 144 filled in'* ]]
    st-cmp -q --values "$T/source" "$T/spark"
    jq -e '.quantization_config.quantized_layers | has("mtp.2.ffn.experts")' "$T/spark/config.json"
    random_ids "$T/tokens.safetensors" 1 8
    for plan in '' -n; do
        refused "its drafts are of DSpark, which have no forward pass here; leave --mtp out" \
            amax-calib $plan --mtp -o "$T/x.ts" --tokens "$T/tokens.safetensors" "$T/source"
    done
    jq '.num_nextn_predict_layers = 0' "$NANO/config.json" >"$T/config.json"
    cp -r "$NANO" "$T/none" && cp "$T/config.json" "$T/none"
    refused 'no multi-token prediction layers' amax-calib -n --mtp -o "$T/x.ts" --tokens "$T/tokens.safetensors" "$T/none"
}

@test "--drafts cast of FP8 drafts, in parts, with another recipe, and where there are none" {
    release fp8 "$T/source"
    v4-experts -q --lossy --drafts cast --jobs 2 --amax "$NANO_AMAX" "$T/source" "$T/out"
    st-ls --tsv "$T/out" | grep -q '^mtp.0.ffn.experts.0.w1.weight_scale_2	'
    pipeline "st-grep --invert '^mtp' '$NANO' | st-write -q --partial '$T/none'"
    refused 'drafts cast: it has no drafts' nvfp4-cast -n --drafts cast -o "$T/x.ts" "$T/none"
    recipe=pipelines/recipes/deepseek_v4/experts.json
    jq 'del(.drafts)' $recipe >"$T/recipe.json"
    refused "the recipe has no drafts 'cast'" nvfp4-cast -n --drafts cast --recipe "$T/recipe.json" -o "$T/x.ts" "$NANO"
    nvfp4-cast -n --recipe "$T/recipe.json" "$NANO" >"$T/x.ts"
    # The recipe's first choice is the default.
    jq '.drafts |= {cast, keep}' $recipe >"$T/recipe.json"
    nvfp4-cast -n --recipe "$T/recipe.json" "$NANO" | st-ls --tsv | grep -q '^mtp.0.ffn.experts.0.w1.weight_scale_2	'
    for wrong in '"cast"' '{cast: 1}' '{cast: {formats: []}}' '{cast: {exclude_modules: "x"}}'; do
        jq ".drafts = $wrong" $recipe >"$T/recipe.json"
        refused 'drafts: wanted choices with formats' nvfp4-cast -n --recipe "$T/recipe.json" -o "$T/x.ts" "$NANO"
    done
}
