# Recipes besides the default one: everything to NVFP4, against what Model Optimizer's NVFP4QTensor makes.
load common
load craft

PATH=$PWD/pipelines:$PATH
RECIPES=$PWD/pipelines/recipes/deepseek_v4

# full_amaxes FIXTURES AMAX: the golden amaxes of every matrix of the recipe, as an amax stream.
full_amaxes() {
    local file=$1/golden/full-amax.safetensors length header
    length=$(od -An -tu8 -N8 "$file")
    header=$(tail -c +9 "$file" | head -c "$((length))" | jq -c 'with_entries(.key |= if . == "__metadata__" then .
        else capture("(?<module>.*)[.](?<which>.*)") | "\(.module)_\(.which)_quantizer._amax" end)')
    { le64 ${#header} && printf '%s' "$header" && tail -c +$((9 + length)) "$file"; } >"$T/amax.safetensors"
    amax-merge -q --model "$1/ckpt" --recipe full --fallback layer-max -o "$2" "$T/amax.safetensors"
}

# like_golden FIXTURES RESULT: every tensor of the golden is there, byte for byte, and nothing else is NVFP4 but
# the input scales of experts that the golden's calibration did not reach.
like_golden() {
    golden_lines "$1/golden/full.tsv" |
        sed 's/\tuint8\t/\tU8\t/; s/\tfloat8_e4m3fn\t/\tF8_E4M3\t/; s/\tfloat32\t/\tF32\t/; s/[][ ]//g' |
        LC_ALL=C sort >"$T/wanted"
    digests "$2" >"$T/got"
    [ -z "$(LC_ALL=C comm -13 "$T/got" "$T/wanted" | head -n 3 | tee /dev/stderr)" ] &&
        [ -z "$(LC_ALL=C comm -23 "$T/got" "$T/wanted" | cut -f1 | grep -E 'weight_scale(_2)?$' | tee /dev/stderr)" ] &&
        [ "$(cut -f1 "$T/got" | grep -c 'input_scale$')" = "$(grep -c 'weight_scale_2' "$T/wanted")" ]
}

@test "full: every tensor is the golden's, fused or through BF16" {
    fixtures v4-nano
    full_amaxes "$FIXTURES" "$T/amax.ts"
    pack="nvfp4-pack --recipe full --amax '$T/amax.ts'"
    pipeline "$pack '$NANO' >'$T/full.ts'"
    like_golden "$FIXTURES" "$T/full.ts"
    jq '.formats |= map_values("BF16")' "$RECIPES/full.json" >"$T/bf16.json"
    pipeline "fp8-dequant --recipe '$T/bf16.json' '$NANO' | mxfp4-unpack --recipe '$T/bf16.json' | $pack >'$T/stages.ts'"
    [ "$(st-sum "$T/full.ts")" = "$(st-sum "$T/stages.ts")" ]
}

@test "full: the same of a larger model" {
    fixtures v4-mini
    full_amaxes "$FIXTURES" "$T/amax.ts"
    nvfp4-pack -q --recipe full --amax "$T/amax.ts" -o "$T/full.ts" "$FIXTURES/ckpt"
    like_golden "$FIXTURES" "$T/full.ts"
}

@test "full without loss: MXFP4 is cast, FP8 packed; the same from v4-experts, whole and in parts" {
    fixtures v4-nano
    full_amaxes "$FIXTURES" "$T/amax.ts"
    options="--recipe full --amax '$T/amax.ts'"
    pipeline "nvfp4-cast --zero positive $options '$NANO' | nvfp4-pack $options >'$T/full.ts'"
    # Experts as the cast makes them, all else as packing does.
    digests "$T/full.ts" >"$T/got"
    nvfp4-cast --zero positive --amax "$T/amax.ts" "$NANO" >"$T/cast.ts"
    nvfp4-pack --recipe full --amax "$T/amax.ts" "$NANO" >"$T/pack.ts"
    diff <(grep '\.experts\.' "$T/got") <(digests "$T/cast.ts" | grep '\.experts\.')
    diff <(grep -v '\.experts\.' "$T/got") <(digests "$T/pack.ts" | grep -v '\.experts\.')
    jq '.formats |= map_values("BF16")' "$RECIPES/full.json" >"$T/bf16.json"
    pipeline "nvfp4-cast --zero positive $options '$NANO' | fp8-dequant --recipe '$T/bf16.json' | nvfp4-pack $options | st-sum >'$T/stages'"
    st-sum "$T/full.ts" | cmp - "$T/stages"
    for jobs in 1 2; do
        v4-experts -q --recipe full --zero positive --jobs $jobs --amax "$T/amax.ts" "$NANO" "$T/out$jobs"
        digests "$T/out$jobs" | diff - "$T/got"
    done
    v4-experts -q --recipe full --lossy --amax "$T/amax.ts" "$NANO" "$T/lossy"
    like_golden "$FIXTURES" "$T/lossy"
}

@test "configs of full and mlp name every module, and st-verify knows what engines do with them" {
    fixtures v4-nano
    full_amaxes "$FIXTURES" "$T/amax.ts"
    for recipe in full mlp; do
        run v4-experts --recipe $recipe --amax "$T/amax.ts" "$NANO" "$T/$recipe"
        [ "$status" -eq 0 ]
        [[ $output == *'no engine is known to serve this checkpoint'* ]]
        st-ls --tsv "$T/$recipe" | cut -f1 | sed -n 's/\.weight_scale_2$//p' | LC_ALL=C sort >"$T/nvfp4"
        jq -r '.quantization_config.quantized_layers | to_entries[] | select(.value == {quant_algo: "NVFP4", group_size: 16}).key' \
            "$T/$recipe/config.json" | LC_ALL=C sort | diff - "$T/nvfp4"
        jq -e --slurpfile hf "$T/$recipe/hf_quant_config.json" '.quantization_config as $q | $hf[0].quantization as $h
            | $q.quant_method == "modelopt" and $q.quant_algo == "MIXED_PRECISION" and $h.quant_algo == "MIXED_PRECISION"
            and $q.weight_block_size == [128, 128] and $q.moe_quant_algo == "NVFP4"
            and $q.kv_cache_quant_algo == $h.kv_cache_quant_algo and $q.quantized_layers == $h.quantized_layers
            and $q.ignore == $h.exclude_modules
            and $q.quantized_layers["layers.1.attn.wo_a"] == {quant_algo: "FP8_PB_WO"}
            and ($q.quantized_layers | keys | any(startswith("mtp."))) == false' "$T/$recipe/config.json"
        run st-verify "$T/$recipe"
        [ "$status" -eq 0 ]
        [[ $output == *"NVFP4 matrices: faults 0, "* ]]
        [ "$(grep -cE '^(vLLM|SGLang).*refuses.*routed experts only' <<<"$output")" -eq 4 ]
    done
    [ "$(jq -r .quantization_config.kv_cache_quant_algo "$T/full/config.json")" = FP8 ]
    [ "$(jq -r .quantization_config.kv_cache_quant_algo "$T/mlp/config.json")" = null ]
    [ "$(grep -c attn "$T/nvfp4")" -eq 0 ]
    [ "$(grep -c shared_experts "$T/nvfp4")" -eq 12 ]
}

# recipe FILTER: $T/recipe.json, the recipe full, changed.
recipe() {
    jq "$1" "$RECIPES/full.json" >"$T/recipe.json"
}

@test "recipes that say what is wrong, or what is never quantized" {
    out=(-n -o "$T/x.ts" --recipe "$T/recipe.json")
    while IFS=: read -r filter pattern; do
        echo "$filter"
        recipe "$filter"
        for program in nvfp4-cast nvfp4-pack; do
            refused "$pattern" $program "${out[@]}" "$NANO"
        done
        [ ! -e "$T/x.ts" ]
    done <<'TABLE'
.formats."layers.*.attn.wo_b" = "NVFP5":formats: 'layers\.\*\.attn\.wo_b': NVFP5 is not a format; known are NVFP4, NVFP4-cast, FP8
.formats."layers.*.attn.wo_b" = 4:what is not a text is not a format
.formats."layers.*.attn.w0_b" = "NVFP4":'layers\.\*\.attn\.w0_b', which no module of the checkpoint matches
.formats."layers.*.attn.w0_b" = "keep":'layers\.\*\.attn\.w0_b', which no module of the checkpoint matches
.drafts.keep.formats."layers.*.attn.wkv" = "keep":'layers\.\*\.attn\.wkv' has one format in formats and another one in drafts
.formats."*.ffn.gate" = "NVFP4":makes layers\.0\.ffn\.gate NVFP4 by '\*\.ffn\.gate', but a router
.formats."layers.*.attn_norm" = "NVFP4":makes layers\.0\.attn_norm NVFP4
.formats."layers.*.attn.q_norm" = "NVFP4":makes layers\.0\.attn\.q_norm NVFP4
.formats."norm" = "NVFP4":makes norm NVFP4
.formats."embed" = "NVFP4-cast":makes embed NVFP4
.formats."head" = "FP8":makes head FP8
.formats."*.compressor.*" = "NVFP4":makes layers\.1\.attn\.compressor\.ape NVFP4
.formats."*.indexer.weights_proj" = "NVFP4":makes layers\.1\.attn\.indexer\.weights_proj NVFP4
.formats."layers.*.hc_*" = "NVFP4":makes layers\.0\.hc_attn_base NVFP4
.formats."layers.*" = "NVFP4":makes layers\.0\.hc_attn_base NVFP4
.formats."layers.*.attn.wo_a" = "MXFP4":wo_a\.weight is FP8, but the recipe 'full' wants MXFP4, which no program makes
.formats."layers.*.attn.wo_b" = "NVFP4-cast":wo_b\.weight is FP8, but the recipe 'full' casts it
TABLE
    recipe '.formats."layers.*.attn.wkv" = "keep"'
    refused 'the recipe names layers\.0\.attn\.wq_a\.weight, but not layers\.0\.attn\.wkv\.weight' nvfp4-pack "${out[@]}" "$NANO"
    recipe '.formats."layers.*.attn.wo_a" = "BF16"'
    refused 'wo_a\.weight is FP8, but the recipe .full. wants BF16; put fp8-dequant --recipe before' nvfp4-pack "${out[@]}" "$NANO"
    recipe '.formats."layers.*.ffn.experts.*.w[123]" = "NVFP4-cast"'
    refused "is MXFP4, and the recipe 'full' keeps its codes \\(NVFP4-cast\\); put nvfp4-cast" nvfp4-pack "${out[@]}" "$NANO"
    # A pattern twice is an error of JSON's.
    sed 's/"layers.\*.attn.wkv": "NVFP4"/&, "layers.*.attn.wkv": "keep"/' "$RECIPES/full.json" >"$T/recipe.json"
    refused 'line 5: duplicate object key.*layers\.\*\.attn\.wkv' nvfp4-pack "${out[@]}" "$NANO"
}

@test "missing amaxes, and a source that is NVFP4 already, in one line" {
    amaxes "$T/experts.ts"
    refused 'layers\.0\.attn\.wq_a has no input amax: calibrate with the same --recipe' \
        nvfp4-pack --recipe full --amax "$T/experts.ts" -o "$T/x.ts" "$NANO"
    refused 'layers\.0\.attn\.wq_a has no input amax, and it is no routed expert.*amax-calib --recipe full' \
        amax-merge -q --model "$NANO" --recipe full --fallback layer-max -o "$T/x.ts" "$T/experts.ts"
    run v4-experts -q --recipe full --amax "$T/experts.ts" "$NANO" "$T/out"
    [ "$status" -eq 1 ]
    [[ ${lines[0]} == 'amax-merge: layers.0.attn.wq_a has no input amax'* && ! -e $T/out ]]
    fixtures v4-nano
    full_amaxes "$FIXTURES" "$T/amax.ts"
    nvfp4-pack -q --recipe full --amax "$T/amax.ts" -o "$T/full.ts" "$NANO"
    for program in nvfp4-cast nvfp4-pack; do
        refused 'nothing to convert: .* is NVFP4 already' $program --recipe full --amax "$T/amax.ts" -o "$T/x.ts" "$T/full.ts"
    done
    st-write -q "$T/full" <"$T/full.ts"
    run v4-experts -q --recipe full --amax "$T/amax.ts" "$T/full" "$T/out"
    [ "$status" -eq 1 ]
    [[ ${lines[0]} == *'nothing to convert: '*' is NVFP4 already'* && ! -e $T/out ]]
}

@test "v4-experts casts alone where a recipe names experts only, and takes formats as they are asked for" {
    amaxes "$T/amax.ts"
    jq '.formats = {"layers.*.ffn.experts.*": "NVFP4-cast", "layers.*.attn.wo_a": "FP8", "head": "BF16"}' "$RECIPES/experts.json" >"$T/recipe.json"
    v4-experts -q --amax "$T/amax.ts" "$NANO" "$T/experts"
    v4-experts -q --recipe "$T/recipe.json" --amax "$T/amax.ts" "$NANO" "$T/out"
    st-cmp -q "$T/experts" "$T/out"
    cmp "$T/experts/config.json" "$T/out/config.json"
    v4-experts -q --recipe experts --drafts cast --amax "$T/amax.ts" "$NANO" "$T/drafts" --fallback layer-max
    [ "$(st-ls --tsv "$T/drafts" | grep -c '^mtp.*weight_scale_2')" -eq 48 ]
    # BF16, of any recipe.
    jq '.formats = {"layers.*.attn.wo_a": "BF16", "layers.*.ffn.experts.0.*": "NVFP4"}' "$RECIPES/experts.json" >"$T/recipe.json"
    fp8-dequant --recipe "$T/recipe.json" -o "$T/bf16.ts" "$NANO"
    st-ls --tsv "$T/bf16.ts" | awk -F'\t' '/wo_a.weight/ { print $2 }' | sort -u | grep -qx BF16
    [ "$(st-ls --tsv "$T/bf16.ts" | grep -c 'F8_E4M3')" -gt 20 ]
    run fp8-dequant --drafts cast "$NANO"
    [ "$status" -eq 2 ]
    refused 'no recipe .none.' mxfp4-unpack --recipe none -o "$T/x.ts" "$NANO"
}

# loss FIXTURES WHAT STAGE...: the mean loss of what the stages make of the source is the golden's.
loss() {
    local want
    want=$(awk -v what="$2" '$1 == what { print $4 }' "$1/golden/eval-full.txt")
    pipeline "st-read '$1/ckpt' $(printf '| %s ' "${@:3}") |
        st-eval --arithmetic model --json --tokens '$1/golden/eval-ids.safetensors' >'$T/json'"
    jq -e --argjson want "$want" '(.mean_nll - $want | fabs) <= 0.015' "$T/json"
}

# losses FIXTURES: of everything in NVFP4, and of each group of modules, the others in BF16. With experts cast, their
# inputs are quantized and their weights are not, but those of attention and shared experts are. The golden `inputs`
# quantizes no weight at all; for that see test/unit/quantized_inputs.c.
losses() {
    local group options="-q --amax '$T/amax.ts' --recipe"
    full_amaxes "$1" "$T/amax.ts"
    loss "$1" w4a4 "nvfp4-pack $options full"
    loss "$1" w4a4 "nvfp4-cast $options full" "nvfp4-pack $options full"
    for group in attn:.attn. shared:.shared_experts. experts:.experts.; do
        recipe ".formats |= with_entries(.value = if .key | contains(\"${group#*:}\") then \"NVFP4\" else \"BF16\" end)"
        loss "$1" "${group%:*}-w4a4" {fp8-dequant,mxfp4-unpack}" -q --recipe $T/recipe.json" \
            "nvfp4-pack $options $T/recipe.json"
    done
}

@test "W4A4 of full and of each group of modules: mean losses are the reference's" {
    fixtures v4-nano
    losses "$FIXTURES"
}

@test "W4A4 of full and of each group of modules: the same of a larger model" {
    fixtures v4-mini
    losses "$FIXTURES"
}

# ---- calibration ----

# calibrated AMAX: checksums and names of what a calibration recorded.
calibrated() {
    st-sum --each "$1" | cut -f1,2 | LC_ALL=C sort
}

@test "amax-calib --recipe: what the recipe quantizes sees unquantized inputs, all else the source's arithmetic" {
    random_ids "$T/tokens.safetensors" 2 60
    calib=(amax-calib -q --tokens "$T/tokens.safetensors")
    "${calib[@]}" -o "$T/none.ts" "$NANO"
    "${calib[@]}" --recipe experts -o "$T/experts.ts" "$NANO"
    "${calib[@]}" --recipe mlp -o "$T/mlp.ts" "$NANO"
    "${calib[@]}" --recipe full -o "$T/full.ts" "$NANO"
    [ "$(st-sum "$T/none.ts")" = "$(st-sum "$T/experts.ts")" ]
    # Shared experts were BF16 before; attention was not, so what comes after it changes.
    diff <(calibrated "$T/none.ts") <(calibrated "$T/mlp.ts" | grep -v shared_experts)
    run diff <(calibrated "$T/mlp.ts") <(calibrated "$T/full.ts" | grep -v '\.attn\.')
    [ "$status" -eq 1 ]
    "${calib[@]}" --recipe full -n -o "$T/plan.ts" "$NANO"
    tar xOf "$T/plan.ts" .toc | cut -f1 | grep -qx 'layers\.0\.attn\.wq_a_input_quantizer\._amax'
    # Hidden states are those of one recipe.
    "${calib[@]}" --recipe full --layers 0-1 --states-out "$T/states.ts" -o "$T/1.ts" "$NANO"
    "${calib[@]}" --recipe full --layers 2-3 --states-in "$T/states.ts" -o "$T/2.ts" "$NANO"
    diff <(st-sum --each "$T/full.ts") <(st-sum --each "$T/1.ts" && st-sum --each "$T/2.ts")
    refused 'or for another recipe' "${calib[@]}" --recipe mlp --layers 2-3 --states-in "$T/states.ts" "$NANO"
    # A recipe that is wrong is found before any work.
    recipe '.formats."*.ffn.gate" = "NVFP4"'
    refused 'makes layers\.0\.ffn\.gate NVFP4' "${calib[@]}" --recipe "$T/recipe.json" "$NANO"
    recipe '.formats."layers.*.attn.wo_c" = "NVFP4"'
    refused 'which no module of the checkpoint matches' "${calib[@]}" -n --recipe "$T/recipe.json" -o "$T/x.ts" "$NANO"
}

@test "v4-full: calibrates, casts and packs all that the recipe names; --kv is what the configs say" {
    echo '{"text": "In the beginning God created the heaven and the earth."}' >"$T/text.jsonl"
    run v4-full --calib "$T/text.jsonl" --samples 128 --kv fp8-cast --length 12 --save-amax "$T/amax.ts" "$NANO" "$T/out"
    [ "$status" -eq 0 ]
    [ "$(grep -c 'no engine is known to serve this checkpoint' <<<"$output")" -eq 1 ]
    [[ $output == *'vLLM '*'refuses'* ]]
    [ "$(st-ls --tsv "$T/amax.ts" | grep -c '^layers\.[0-9]\.attn\.w[qko].*input_quantizer')" -eq 16 ]
    [ "$(st-ls --tsv "$T/out" | grep -c '\.weight_scale_2')" -eq 222 ]
    # As the stages make it, one by one.
    amax-merge -q --model "$NANO" --recipe full --fallback layer-max -o "$T/merged.ts" "$T/amax.ts"
    options="-q --recipe full --amax '$T/merged.ts'"
    pipeline "nvfp4-cast $options '$NANO' | fp8-dequant -q --recipe full | nvfp4-pack $options | st-sum >'$T/stages'"
    st-sum "$T/out" | cmp - "$T/stages"
    for kv in default:FP8 fp8-cast:FP8 none:null; do
        option=(--kv "${kv%:*}")
        [ "${kv%:*}" != default ] || option=()
        v4-full -q "${option[@]}" --overwrite --fallback layer-max --amax "$T/amax.ts" "$NANO" "$T/again"
        [ "$(jq -r .quantization_config.kv_cache_quant_algo "$T/again/config.json")" = "${kv#*:}" ]
        [ "$(jq -r .quantization.kv_cache_quant_algo "$T/again/hf_quant_config.json")" = "${kv#*:}" ]
        st-sum "$T/again" | cmp - "$T/stages"
    done
    run v4-full -q --kv none --fallback layer-max --amax "$T/amax.ts" "$NANO" "$T/out"
    [ "$status" -eq 1 ]
    [[ ${lines[0]} == *'nvfp4-cast had KV cache format FP8, and has none here'* ]]
    run v4-full --kv fp8-cast --fallback layer-max --amax "$T/amax.ts" "$NANO" "$T/out"
    [ "$status" -eq 0 ]
    [[ $output == *': complete already, '* ]]
    # What it made is nothing to convert again.
    run v4-full -q --calib "$T/text.jsonl" "$T/out" "$T/x"
    [ "$status" -eq 1 ]
    [[ ${lines[0]} == *'nothing to convert: '*' is NVFP4 already'* && ! -e $T/x ]]
    v4-experts -q --recipe full --fallback layer-max --amax "$T/amax.ts" "$NANO" "$T/experts"
    diff -r -x quant-run.json -x README.md -x quant-report.html "$T/out" "$T/experts"
}

@test "v4-full: plan, and what it refuses" {
    echo '{"text": "In the beginning God created the heaven and the earth."}' >"$T/text.jsonl"
    run v4-full -n --calib "$T/text.jsonl" "$NANO" "$T/out"
    [ "$status" -eq 0 ]
    [[ $output == *'no engine is known to serve this checkpoint'* && ! -e $T/out ]]
    for wrong in '--kv fp8' '--kv int4' '--kv'; do
        # shellcheck disable=SC2086 # an option with its value
        run v4-full --input-scale 1 "$NANO" "$T/out" $wrong
        [ "$status" -eq 2 ]
        [[ ${lines[0]} == 'v4-full: '* && ! -e $T/out ]]
    done
    run v4-full -q --recipe none --input-scale 1 "$NANO" "$T/out"
    [ "$status" -eq 1 ]
    [[ ${lines[0]} == *"no recipe 'none'"* && ! -e $T/out ]]
    recipe '.formats."layers.*.attn.wq_a" = "NVFP8"'
    run v4-full -q --recipe "$T/recipe.json" --calib "$T/text.jsonl" "$NANO" "$T/out"
    [ "$status" -eq 1 ]
    [[ ${lines[0]} == *'NVFP8 is not a format'* && ! -e $T/out ]]
    recipe '.formats."*.ffn.gate" = "NVFP4"'
    run v4-full -q --recipe "$T/recipe.json" --calib "$T/text.jsonl" "$NANO" "$T/out"
    [ "$status" -eq 1 ]
    [[ ${lines[0]} == *'makes layers.0.ffn.gate NVFP4'* && ! -e $T/out ]]
    run nvfp4-pack --kv fp8 -o "$T/x.ts" "$NANO"
    [ "$status" -eq 2 ]
}
