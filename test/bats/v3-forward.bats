# The forward pass of DeepSeek-V3 and V3.2: on a small V3.2 with random weights (test/data/v3-tiny), and
# on trained ones where the larger fixtures are here.
load common
load craft

TINY=$PWD/test/data/v3-tiny/ckpt
IDS=$PWD/test/data/v3-tiny/golden/eval-ids.safetensors

prepare() {
    eval=(st-eval -q -j 1 --tokens "$IDS")
}

# near WANT BOUND: st-eval's report in stdin has about this mean loss.
near() {
    jq -e --argjson want "$1" --argjson bound "$2" '(.mean_nll - $want | fabs) <= $bound'
}

@test "mean losses are the reference's" {
    want=$(awk '{ print $3 }' "$TINY/../golden/eval.txt")
    "${eval[@]}" --json "$TINY" | near "$want" 0.005
}

@test "the same for any number of threads, any batch, folder or stream" {
    "${eval[@]}" --json "$TINY" >"$T/want"
    st-eval -q -j 2 --batch 1 --tokens "$IDS" --json "$TINY" | cmp - "$T/want"
    st-read --inline "$TINY" | "${eval[@]}" --json --batch 3 | cmp - "$T/want"
}

@test "cut in two by hidden states, it is the whole" {
    "${eval[@]}" "$TINY" >"$T/whole"
    for layer in 0 1; do
        "${eval[@]}" --layers 0-$layer --states-out "$T/states.ts" "$TINY"
        "${eval[@]}" --layers $((layer + 1))-2 --states-in "$T/states.ts" "$TINY" >"$T/rest"
        cmp "$T/whole" "$T/rest"
    done
}

@test "the BF16 twin has the losses of the reference's own BF16 arithmetic" {
    fixtures v3-nano
    want=$(awk '{ print $3 }' "$FIXTURES/golden/eval-bf16.txt")
    st-read "$FIXTURES/ckpt" | fp8-dequant | st-write -q "$T/bf16"
    st-eval -q --tokens "$FIXTURES/golden/eval-ids.safetensors" --json "$T/bf16" | near "$want" 0.005
}

@test "dimensions that disagree with the tensors or each other, and a missing scale, are refused" {
    cp -r "$TINY" "$T/model"
    while IFS='|' read -r change message; do
        jq "$change" "$TINY/config.json" >"$T/model/config.json"
        refused "$message" "${eval[@]}" "$T/model"
    done <<'END'
.kv_lora_rank = 64|kv_a_proj_with_mqa.weight: wanted 80 x 128 numbers by config.json, got F8_E4M3 .144,128.
.moe_intermediate_size = 32|gate_proj.weight: wanted 32 x 128 numbers by config.json
.topk_group = 3|n_group must divide n_routed_experts, and topk_group not be above it
.n_routed_experts = 7|n_group must divide n_routed_experts
.index_head_dim = 48|index_head_dim must be a power of two up to 128
.rope_scaling.mscale = 0.7|mscale must equal mscale_all_dim
del(.qk_rope_head_dim)|qk_rope_head_dim is missing
END
    st-read "$TINY" | st-grep --invert '^model.layers.1.self_attn.o_proj.weight_scale_inv' >"$T/less.ts"
    refused 'o_proj.weight: its scale .* is missing' "${eval[@]}" "$T/less.ts"
}

@test "amax-calib: amaxes of all experts but the one that is not reached" {
    amax-calib -q -j 1 --tokens "$IDS" "$TINY" >"$T/amax.ts"
    run st-ls "$T/amax.ts"
    [[ $output == *layers.2.ffn.experts.4.w1.input_quantizer._amax* ]]
    [[ $output != *layers.2.ffn.experts.5.w1.input_quantizer._amax* ]]
}

@test "--mtp: each block takes the states after the norm before it; losses are those of an independent reference" {
    load v3
    v3_mtp_checkpoint "$T/model"
    v3_mtp_ids "$T/ids.safetensors"
    # test/data/v3-mtp/reference.py; with states before that norm, the second loss would be 4.71035.
    st-eval -q -j 1 --mtp --json --tokens "$T/ids.safetensors" "$T/model" |
        jq -e '[.mean_nll, .mtp[].mean_nll] as $got | [4.62128, 4.80609, 5.16770] | to_entries |
            all(($got[.key] - .value | fabs) <= 0.005)'
}

@test "amax-calib --mtp needs the norm before MTP" {
    load v3
    v3_mtp_checkpoint "$T/model"
    v3_mtp_ids "$T/ids.safetensors"
    amax-calib -q --mtp --tokens "$T/ids.safetensors" "$T/model" >/dev/null
    st-read "$T/model" | st-grep --invert '^model.norm' >"$T/less.ts"
    refused 'model.norm.weight' amax-calib --mtp --tokens "$T/ids.safetensors" "$T/less.ts"
    amax-calib -q --tokens "$T/ids.safetensors" "$T/less.ts" >/dev/null
}
