# DeepSeek-V3's architecture from FP8 to NVFP4: a checkpoint made by hand, and what Model Optimizer makes of real ones
# (fixtures' NOTES.md says where it is at fault).
load common
load craft
load v3

PATH=$PWD/pipelines:$PATH
RECIPES=$PWD/pipelines/recipes/deepseek_v3

# made MODEL AMAX [OPTION...]: the fixture MODEL in $FIXTURES, converted with the dump AMAX to $T/out.
made() {
    fixtures "$1"
    rm -rf "$T/out"
    v3-nvfp4 -q --amax "$FIXTURES/golden/$2" "${@:3}" "$FIXTURES/ckpt" "$T/out"
}

# like GOLDEN: every tensor of $T/out is the golden's, and the index names them all.
like() {
    digests "$T/out" | diff - <(golden "$FIXTURES/golden/$1.tsv")
    jq -e --slurpfile names <(cut -f1 "$FIXTURES/golden/$1.tsv" | jq -R . | jq -s .) \
        '(.weight_map | keys) == ($names[0] | sort)' "$T/out/model.safetensors.index.json"
    [ "$(jq .metadata.total_size "$T/out/model.safetensors.index.json")" = \
        "$(st-ls --tsv "$T/out" | awk -F'\t' '{ n += $4 } END { print n }')" ]
}

# quantization: of $T/out's two configs, which have to agree.
quantization() {
    jq -e --slurpfile hf "$T/out/hf_quant_config.json" '.quantization_config as $q | $hf[0].quantization as $h
        | $q.quant_method == "modelopt" and $q.ignore == $h.exclude_modules and ($q | has("weight_block_size") | not)
        and ([$h | to_entries[] | select(.key != "exclude_modules" and $q[.key] != .value)] == [])' "$T/out/config.json"
}

# like_config GOLDEN [FILTER]: hf_quant_config.json is the golden's, changed by FILTER where that is at fault.
like_config() {
    quantization
    diff <(jq -S . "$T/out/hf_quant_config.json") <(jq -S "${2:-.}" "$FIXTURES/golden/$1/hf_quant_config.json")
}

@test "the reference's default: bytes, index and configs" {
    for model in v3 v32; do
        made $model-nano amax-deq
        like nvfp4-bf16
        like_config nvfp4-bf16
        run st-verify "$T/out"
        [[ $output == *' of them NVFP4 matrices: faults 0, '* ]]
    done
}

@test "--mla nvfp4: the reference's bytes" {
    made v3-nano amax-mla-nvfp4-deq --mla nvfp4
    like nvfp4-mla-nvfp4-bf16
    like_config nvfp4-mla-nvfp4-bf16
    made v32-nano amax-mla-nvfp4-deq --mla nvfp4
    like nvfp4-mla-nvfp4-bf16
    # The reference's fault 4: the indexer's wq_b is not quantized, and not excluded.
    like_config nvfp4-mla-nvfp4-bf16 '.quantization.exclude_modules |= (. + [range(3) | "model.layers.\(.).self_attn.indexer.wq_b"]
        | sort_by(gsub("mlp"; "t") | gsub("model[.]layers[.]3"; "z")))'
    # q_a_proj and kv_a_proj_with_mqa have scales of their own there, of which st-verify warns.
    run st-verify "$T/out"
    [ "$status" -eq 0 ]
    [[ $output == *'warning own-scale-2: model.layers.0.self_attn.q_a_proj.weight_scale_2: '* ]]
}

@test "--mla fp8: the reference's bytes, one scale per tensor" {
    # Faults 5 and 4: it lists kv_b_proj (V3), and the indexer's wq_b (V3.2), as FP8, but leaves them unquantized.
    # Fault 9: no exclude_modules beside quantized_layers.
    for model in v3 v32; do
        made $model-nano amax-mla-fp8-deq --mla fp8
        like nvfp4-mla-fp8-bf16
        [ $model = v3 ] && plain=self_attn.kv_b_proj || plain=self_attn.indexer.wq_b
        like_config nvfp4-mla-fp8-bf16 ".quantization |= (.quantized_layers |= with_entries(select(.key
            | test(\"${plain%wq_b}q_b_proj\$|kv_b_proj\$\") and (\"$plain\" != \"self_attn.indexer.wq_b\" or test(\"indexer.q_b\")) | not))
            | .exclude_modules = [\"lm_head\", \"model.layers.0.$plain\", \"model.layers.1.$plain\", \"model.layers.1.mlp.gate\",
                \"model.layers.2.$plain\", \"model.layers.2.mlp.gate\", \"model.layers.3*\"])"
        run st-verify "$T/out"
        [[ $output == *' of them NVFP4 matrices: faults 0, '* ]]
    done
}

@test "--no-wo: exclude_modules are the reference's; --experts-only and --kv" {
    for model in v3 v32; do
        made $model-nano amax-no-wo --no-wo
        diff <(jq -c .quantization.exclude_modules "$T/out/hf_quant_config.json") \
            <(jq -c '.quantization.exclude_modules | map(gsub("layers"; "model.layers") | gsub("attn"; "self_attn") | gsub("ffn"; "mlp") | gsub("^head"; "lm_head"))' \
                "$FIXTURES/golden/amax-no-wo/hf_quant_config.json")
        [ "$(st-ls --tsv "$T/out" | grep -c 'self_attn.*weight_scale_2')" = 0 ]
        made $model-nano amax-deq --experts-only --kv none
        [ "$(st-ls --tsv "$T/out" | cut -f1 | grep 'weight_scale_2' | grep -cv '\.experts\.')" = 0 ]
        [ "$(st-ls --tsv "$T/out" | grep -c 'weight_scale_2')" = 96 ]
        quantization
        jq -e '.quantization | .quant_algo == "NVFP4" and .kv_cache_quant_algo == null and
            (.exclude_modules | index("model.layers.0*") and index("model.layers.1.mlp.shared_experts*"))' "$T/out/hf_quant_config.json"
        jq -e '.quantization_config | has("kv_cache_scheme") | not' "$T/out/config.json"
        run st-verify "$T/out"
        [[ $output == *' of them NVFP4 matrices: faults 0, '* ]]
    done
}

@test "with --trust-weight-amax the reference's own dump gives its own scales; without, the weights' own count" {
    # Fault 1: every weight amax of an FP8 weight is 448.
    made v3-nano amax --trust-weight-amax
    digests "$T/out" | grep -E 'weight_scale_2|input_scale' | diff - <(golden "$FIXTURES/golden/nvfp4.tsv" | grep -E 'weight_scale_2|input_scale')
    rm -rf "$T/out"
    run v3-nvfp4 --amax "$FIXTURES/golden/amax" "$FIXTURES/ckpt" "$T/out"
    [ "$status" -eq 0 ]
    [ "$(grep -c 'amax-merge: 108 weight amaxes are 448, .*(--trust-weight-amax keeps them)' <<<"$output")" = 1 ]
    like nvfp4-bf16 # all weights' own amaxes are those of the dump without the fault
}

@test "--all-experts: each keeps its own input amaxes" {
    made v3-nano amax-all-experts-deq --all-experts
    pt-read "$FIXTURES/golden/amax-all-experts-deq" | st-stat --tsv | awk -F'\t' '/input_quantizer/ { printf "%.5g\n", $7 }' | sort >"$T/dumped"
    st-read "$T/out" | amax-merge -q --model "$FIXTURES/ckpt" --recipe mlp-wo | st-stat --tsv | awk -F'\t' '{ printf "%.5g\n", $7 }' | sort >"$T/amaxes"
    diff "$T/dumped" "$T/amaxes"
    made v3-nano amax-all-experts-deq
    st-read "$T/out" | st-stat --tsv | awk -F'\t' '/layers.1.mlp.experts.*down_proj.input_scale/ { print $7 }' | sort -u >"$T/shared"
    [ "$(wc -l <"$T/shared")" = 1 ]
}

@test "two ranks' dumps merge to what the reference's own merge uses; of what both have, the largest counts" {
    made v3-wide amax-mp2-deq
    digests "$T/out" | grep -E 'weight_scale_2|input_scale' | diff - <(golden "$FIXTURES/golden/nvfp4-mp2-deq.tsv" | grep -E 'weight_scale_2|input_scale')
    v3_dump "$T/rank0.safetensors" layers.0.attn.wo
    sed 's/@@/AA/g' "$T/rank0.safetensors" >"$T/rank1.safetensors" # BF16 0x4040, 3, to 0x4141, 12.06
    for order in '0 1' '1 0'; do
        read -r first second <<<"$order"
        amax-merge -q "$T/rank$first.safetensors" "$T/rank$second.safetensors" | st-stat --tsv |
            awk -F'\t' '/input/ { print $7 }' | grep -qx 12.0625
    done
}

@test "bf16: all FP8 weights, MTP's too, as DeepSeek's fp8_cast_bf16.py; also of the result" {
    for model in v3 v32; do
        fixtures $model-nano
        rm -rf "$T/bf16"
        v3-bf16 -q "$FIXTURES/ckpt" "$T/bf16"
        digests "$T/bf16" | diff - <(golden "$FIXTURES/golden/bf16.tsv")
        jq -e 'has("quantization_config") | not' "$T/bf16/config.json"
    done
    made v3-nano amax-mla-fp8-deq --mla fp8
    v3-bf16 -q "$T/out" "$T/again"
    st-ls --tsv "$T/again" | cut -f1-3 | LC_ALL=C sort | diff - <(st-ls --tsv "$T/bf16" | grep -v indexer | cut -f1-3 | LC_ALL=C sort)
    [ ! -e "$T/again/hf_quant_config.json" ]
}

# ---- a checkpoint made by hand ----

@test "by hand: formats of every mode, MTP and the rest in BF16, an expert never reached" {
    v3_checkpoint "$T/v3"
    v3_dump "$T/amax.safetensors"
    v3-nvfp4 -q --amax "$T/amax.safetensors" --fallback layer-max "$T/v3" "$T/out"
    quantization
    st-ls --tsv "$T/out" | cut -f1-3 >"$T/list"
    [ "$(grep -c 'weight_scale_2' "$T/list")" = 14 ]
    [ "$(grep -cE 'layers\.2.*(scale|U8|F8)' "$T/list")" = 0 ]
    [ "$(grep -c weight_scale_inv "$T/list")" = 0 ]
    grep -qxF $'model.layers.1.mlp.experts.1.gate_proj.weight\tU8\t[16,16]' "$T/list"
    grep -qxF $'model.layers.1.mlp.experts.1.gate_proj.input_scale\tF32\t[]' "$T/list"
    grep -qxF $'model.layers.0.self_attn.kv_b_proj.weight\tBF16\t[32,16]' "$T/list"
    jq -e '.quantization.exclude_modules == ["lm_head",
        (range(2) as $l | ("kv_a_proj_with_mqa", "kv_b_proj", "q_a_proj", "q_b_proj" | "model.layers.\($l).self_attn.\(.)"),
            (if $l == 1 then "model.layers.1.mlp.gate" else empty end)), "model.layers.2*"]' "$T/out/hf_quant_config.json"
    # gate and up share the larger: both dumped weights are 0.1855, and 3 / (6 * 448) is the input's.
    for matrix in gate_proj up_proj; do
        st-stat --tsv "$T/out" | awk -F'\t' -v name=model.layers.1.mlp.experts.1.$matrix.input_scale '$1 == name { printf "%.6g\n", $7 }' | grep -qx 0.00111607
    done
    v3-nvfp4 -q --amax "$T/amax.safetensors" --fallback layer-max --verify "$T/v3" "$T/out"
}

@test "by hand: --mla fp8, one scale per tensor; --mla nvfp4 of V3.2 leaves the indexer's wq_b" {
    v3_checkpoint "$T/v3"
    v3_checkpoint "$T/v32" deepseek_v32
    v3-nvfp4 -q --input-scale 1 --mla nvfp4 "$T/v32" "$T/out"
    st-ls --tsv "$T/out" | cut -f1-2 >"$T/list"
    grep -qx $'model.layers.0.self_attn.indexer.wk.weight\tU8' "$T/list"
    grep -qx $'model.layers.0.self_attn.indexer.weights_proj.weight\tU8' "$T/list"
    grep -qx $'model.layers.0.self_attn.indexer.wq_b.weight\tBF16' "$T/list"
    v3_dump "$T/amax.safetensors" layers.{0,1}.attn.{wq_a,wq_b,wkv_a,wo} layers.0.ffn.w{1,2,3} \
        layers.1.ffn.{experts.0,experts.1,shared_experts}.w{1,2,3}
    v3-nvfp4 -q --mla fp8 --amax "$T/amax.safetensors" "$T/v3" "$T/fp8"
    st-ls --tsv "$T/fp8" | cut -f1-3 >"$T/list"
    [ "$(grep -c $'F8_E4M3\t\[[0-9]*,[0-9]*\]$' <(grep 'proj.*\.weight\b' "$T/list" | grep -v scale))" = 6 ]
    grep -qxF $'model.layers.1.self_attn.q_a_proj.weight_scale\tF32\t[]' "$T/list"
    grep -qxF $'model.layers.1.self_attn.kv_b_proj.weight\tBF16\t[32,16]' "$T/list"
    # 0.0462 as BF16 over 0.1855 / 448, in BF16 and then in FP8, is 112; kv_a_proj_with_mqa's 2 * 0.0462 is 224.
    st-stat --tsv "$T/fp8" >"$T/stat"
    awk -F'\t' '$1 == "model.layers.1.self_attn.q_a_proj.weight" { print $7 }' "$T/stat" | grep -qx 112
    awk -F'\t' '$1 == "model.layers.1.self_attn.kv_a_proj_with_mqa.weight" { print $7 }' "$T/stat" | grep -qx 224
    # Without a weight amax: the weight's own, so that the largest is 448.
    fp8-pack -q --recipe mla-fp8 --amax <(amax-merge -q --model "$T/v3" --recipe mla-fp8 "$T/amax.safetensors" | st-grep input) "$T/v3" |
        st-stat --tsv | awk -F'\t' '$1 == "model.layers.1.self_attn.q_a_proj.weight" { print $7 }' | grep -qx 448
}

@test "by hand: for a recipe without FP8-per-tensor, fp8-pack reads no amaxes and passes everything" {
    v3_checkpoint "$T/v3"
    fp8-dequant --recipe mlp-wo -o "$T/bf16.ts" "$T/v3"
    fp8-pack --recipe mlp-wo --amax /dev/null -o "$T/same.ts" "$T/bf16.ts"
    [ "$(st-sum --each "$T/same.ts")" = "$(st-sum --each "$T/bf16.ts")" ]
    # Amaxes that are null would mean a plan.
    st-ls --header "$T/same.ts" | jq -e '.history[-1] | .program == "fp8-pack" and (has("amax") | not)'
}

@test "by hand: bad input, in one line" {
    v3_checkpoint "$T/v3"
    v3_dump "$T/amax.safetensors"
    amax-merge -q --model "$T/v3" --recipe mlp-wo --fallback layer-max -o "$T/amax.ts" "$T/amax.safetensors"
    pack=(nvfp4-pack -o "$T/x.ts" --amax "$T/amax.ts" --recipe)
    # A recipe of V4 on V3, and the other way round.
    refused "no recipe 'full' for model type deepseek_v3" "${pack[@]}" full "$T/v3"
    refused "the recipe 'full' expects names like layers\\..* but here they are like model\\." \
        "${pack[@]}" "$PWD/pipelines/recipes/deepseek_v4/full.json" "$T/v3"
    refused "the recipe 'mlp-wo' has the pattern 'model\\.layers\\.\\*\\.self_attn\\.o_proj', which no module" \
        nvfp4-pack -n -o "$T/x.ts" --recipe "$RECIPES/mlp-wo.json" "$NANO"
    refused 'mlp-wo.*for model type deepseek_v4' nvfp4-pack -n -o "$T/x.ts" --recipe mlp-wo "$NANO"
    # A pipeline of V4 on V3, and the other way round.
    for pipeline in v4-experts v4-full; do
        refused "its model_type is deepseek_v3, which v3-nvfp4 converts" $pipeline --input-scale 1 "$T/v3" "$T/out"
    done
    refused "its model_type is deepseek_v4, which v4-experts or v4-full converts" v3-nvfp4 --input-scale 1 "$NANO" "$T/out"
    [ ! -e "$T/out" ]
    # The stages in another order than the recipe needs.
    refused 'wants BF16; put fp8-dequant --recipe before' "${pack[@]}" mlp-wo "$T/v3"
    pipeline "fp8-dequant --recipe mla-fp8 '$T/v3' >'$T/bf16.ts'"
    refused "q_a_proj\\.weight is FP8, but the recipe 'mla-fp8' wants FP8 with one scale; put fp8-pack --recipe before" \
        nvfp4-pack -n -o "$T/x.ts" --recipe mla-fp8 "$T/bf16.ts"
    refused 'q_a_proj has no input amax: calibrate with the same --recipe' \
        fp8-pack -o "$T/x.ts" --recipe mla-fp8 --amax "$T/amax.ts" "$T/v3"
    refused 'makes model\.layers\.1\.mlp\.gate NVFP4 by .*, but a router' \
        nvfp4-pack -n -o "$T/x.ts" --recipe <(jq '.formats = {"*.mlp.gate": "NVFP4"} + .formats' "$RECIPES/mlp.json") "$T/v3"
    # A scale that is missing, or has another shape.
    st-grep -V 'q_b_proj.weight_scale_inv' "$T/v3" >"$T/cut.ts"
    refused 'q_b_proj\.weight: its scale .*q_b_proj\.weight_scale_inv \(F32 \[1,1\]\) is missing' \
        fp8-dequant -o "$T/x.ts" "$T/cut.ts"
    # A config whose dimensions are not the tensors'.
    cp -r "$T/v3" "$T/wrong"
    while IFS='|' read -r change message; do
        jq "$change" "$T/v3/config.json" >"$T/wrong/config.json"
        refused "$message" nvfp4-pack -n -o "$T/x.ts" --recipe mlp-wo "$T/wrong"
    done <<'END'
.hidden_size = 64|has model\.embed_tokens\.weight of 32 columns, but config.json's hidden_size is 64
.kv_lora_rank = 8|self_attn\.kv_a_layernorm\.weight of 16 elements, but config.json's kv_lora_rank is 8
.moe_intermediate_size = 8|mlp\.(shared_)?experts.* of 16 (rows|columns), but config.json's .*moe_intermediate_size is
.n_routed_experts = 4|gate\.weight of 2 rows, but config.json's n_routed_experts is 4|experts\.2
END
    # Options.
    for options in '--mla nvfp4 --no-wo' '--experts-only --mla fp8' '--experts-only --no-wo' '--recipe mlp --mla fp8' '--mla bf16' \
        '--kv fp4' '--input-scale 1 --mla fp8' '--input-scale 1 --all-experts' '--amax x'; do
        [[ $options == *--input-scale* || $options == *--amax* ]] || options+=" --amax $T/amax.ts"
        # shellcheck disable=SC2086 # options are words
        run v3-nvfp4 $options "$T/v3" ${options:+"$T/out"} ${options##*x}
        [ "$status" -ne 0 ] && [ ! -e "$T/out" ]
    done
}

@test "by hand: side files come along, a dry run writes nothing" {
    v3_checkpoint "$T/v3"
    v3_dump "$T/amax.safetensors"
    mkdir "$T/v3/assets"
    for file in modeling_deepseek.py tokenizer.json tiktoken.model tokenizer_config.json assets/chat.jinja; do
        echo "{\"$file\": 1}" >"$T/v3/$file"
    done
    run v3-nvfp4 -n --amax "$T/amax.safetensors" --fallback layer-max "$T/v3" "$T/out"
    [ "$status" -eq 0 ]
    [[ $output == *'plan for '*'NVFP4'* && ! -e $T/out ]]
    v3-nvfp4 -q --jobs 2 --amax "$T/amax.safetensors" --fallback layer-max "$T/v3" "$T/out"
    for file in modeling_deepseek.py tokenizer.json tiktoken.model tokenizer_config.json assets/chat.jinja; do
        cmp "$T/v3/$file" "$T/out/$file"
    done
}

@test "v3-nano, v32-nano: calibrated on text, perplexity within 5 % of the source's" {
    local model ratio
    for model in v3-nano v32-nano; do
        fixtures "$model"
        v3-nvfp4 -q --calib test/data/text/calib-prose.jsonl --calib test/data/text/calib-code.jsonl --samples 64 \
            --length 256 --eval "$FIXTURES/../text/eval.jsonl" "$FIXTURES/ckpt" "$T/$model" >"$T/result"
        ratio=$(sed -n 's/.*perplexity ratio \([0-9.]*\) .*/\1/p' "$T/result")
        [ "$(jq -n "$ratio < 1.05 and $ratio > 0.95")" = true ]
        st-verify -q "$T/$model"
    done
}

# quantizers SUMMARY: names, and the amax, "disabled" or, where a fallback rule may have another, nothing.
quantizers() {
    sed -nE 's/^([^ ]+_quantizer) .*(disabled|amax=[^ ,)]+).*/\1 \2/p' "$1" | sort
}

@test "the quantizer summary lists what .quant_summary.txt lists: names, amaxes, and what is disabled" {
    for run in v3-nano:mlp-wo:amax-deq v3-nano:mlp:amax-no-wo v32-nano:mlp-wo:amax-deq v3-nano:mla-nvfp4:amax-mla-nvfp4-deq; do
        IFS=: read -r model recipe golden <<<"$run"
        fixtures "$model"
        golden=$FIXTURES/golden/$golden
        [ -e "$golden" ] || { echo "no $golden" && return 1; }
        pt-read "$golden"/amax_dict_rank0-mp1.pt |
            amax-merge -q --trust-weight-amax --fallback none --model "$FIXTURES/ckpt" --recipe "$recipe" --summary "$T/summary" >"$T/a.ts"
        # Of gate and up, ours share the larger amax: names alone, and values of what is not fused.
        diff <(quantizers "$T/summary" | cut -d' ' -f1) <(quantizers "$golden/quant_summary.txt" | cut -d' ' -f1)
        diff <(quantizers "$T/summary" | grep -v 'w[13]\.weight_q') <(quantizers "$golden/quant_summary.txt" | grep -v 'w[13]\.weight_q')
        [ "$(quantizers "$T/summary" | wc -l) TensorQuantizers found in model" = "$(tail -n 1 "$golden/quant_summary.txt")" ]
    done
}
