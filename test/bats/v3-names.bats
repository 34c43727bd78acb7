# The names of DeepSeek-V3, V3.2 and Kimi-K2: order, places, groups, what is missing, and the names in dumps.
load common
load craft
load v3

# place NAME: section, layer, expert, matrix and kind, of the checkpoint in $T/v3.
place() {
    [ -s "$T/places" ] || st-stat --tsv --place "$T/v3" >"$T/places"
    awk -F'\t' -v name="$1" '$1 == name { print $13, $14, $15, $16, $17 }' "$T/places"
}

@test "places: dense layers, experts, and MTP's layer, which config.json's num_hidden_layers tells" {
    v3_checkpoint "$T/v3" deepseek_v32
    [ "$(place model.layers.0.mlp.up_proj.weight)" = 'layers 0 - up_proj weight' ]
    [ "$(place model.layers.1.mlp.experts.1.down_proj.weight_scale_inv)" = 'layers 1 1 down_proj weight_scale_inv' ]
    [ "$(place model.layers.1.mlp.shared_experts.gate_proj.weight)" = 'layers 1 - gate_proj weight' ]
    [ "$(place model.layers.1.self_attn.indexer.wq_b.weight)" = 'layers 1 - indexer.wq_b weight' ]
    [ "$(place model.layers.2.mlp.experts.0.up_proj.weight)" = 'mtp 0 0 up_proj weight' ]
    [ "$(place model.layers.2.eh_proj.weight)" = 'mtp 0 - - weight' ]
    [ "$(place model.layers.2.shared_head.head.weight)" = 'mtp 0 - - weight' ]
    [ "$(place model.norm.weight)" = 'norm - - - weight' ]
    [ "$(place lm_head.weight)" = 'head - - - weight' ]
    # Nothing is unknown.
    [ "$(cut -f13 "$T/places" | sort -u | tr '\n' ' ')" = 'embed head layers mtp norm ' ]
}

@test "the order is that of execution: q_a with kv_a, gate with up, MTP's layer last" {
    v3_checkpoint "$T/v3"
    st-read -n "$T/v3" | tar xOf - .toc | cut -f1 >"$T/names"
    [ "$(head -n 1 "$T/names")" = model.embed_tokens.weight ]
    [ "$(grep -o 'layers\.1\.self_attn.*proj.*weight$' "$T/names" | cut -d. -f4 | tr '\n' ' ')" = \
        'q_a_proj kv_a_proj_with_mqa q_b_proj kv_b_proj o_proj ' ]
    [ "$(grep -o 'layers\.1\.mlp\..*weight$' "$T/names" | cut -d. -f4- | head -n 5 | tr '\n' ' ')" = \
        'gate.weight shared_experts.gate_proj.weight shared_experts.up_proj.weight shared_experts.down_proj.weight experts.0.gate_proj.weight ' ]
    [ "$(tail -n 1 "$T/names")" = model.layers.2.shared_head.norm.weight ]
    grep -n 'lm_head\|layers\.2\.embed' "$T/names" | cut -d: -f2 | diff - <(printf '%s\n' lm_head.weight model.layers.2.embed_tokens.weight)
    st-read -n --layers 1 "$T/v3" | tar xOf - .toc | cut -f1 | grep -v '^model\.layers\.1\.' && return 1
    true
}

@test "the same names under other model types; what is missing is named" {
    for type in deepseek_v3 deepseek_v32 kimi_k2; do
        v3_checkpoint "$T/$type" $type
        st-read -n -q "$T/$type" >"$T/read" 2>"$T/err"
        [ ! -s "$T/err" ]
    done
    # An expert, a dense layer's MLP, the indexer's key.
    for change in 'deepseek_v3 .n_routed_experts=3 model\.layers\.1\.mlp\.experts\.2' \
        'kimi_k2 .first_k_dense_replace=2 model\.layers\.1\.mlp\.gate_proj\.weight' \
        'deepseek_v3 .index_topk=4 model\.layers\.0\.self_attn\.indexer\.wq_b\.weight' \
        'kimi_k2 .q_lora_rank=null model\.layers\.0\.self_attn\.q_proj\.weight' \
        'deepseek_v32 .num_hidden_layers=4 model\.layers\.3'; do
        read -r type filter pattern <<<"$change"
        jq "$filter" "$T/$type/config.json" >"$T/config.json"
        cp "$T/config.json" "$T/$type/config.json"
        refused "lacks .*$pattern" fp8-dequant -o "$T/x.ts" "$T/$type"
        v3_checkpoint "$T/$type" "$type"
    done
}

@test "dumps: names of modules there and back, also without config.json" {
    v3_checkpoint "$T/v3"
    v3_dump "$T/dump.safetensors"
    st-stat --tsv --place "$T/dump.safetensors" | cut -f1,13-17 >"$T/places"
    grep -qx $'layers.0.attn.wo.input_quantizer._amax\tlayers\t0\t-\to_proj\tinput amax' "$T/places"
    grep -qx $'layers.0.ffn.w3.weight_quantizer._amax\tlayers\t0\t-\tup_proj\tweight amax' "$T/places"
    grep -qx $'layers.1.ffn.experts.0.w2.input_quantizer._amax\tlayers\t1\t0\tdown_proj\tinput amax' "$T/places"
    grep -qx $'layers.1.ffn.shared_experts.w1.input_quantizer._amax\tlayers\t1\t-\tgate_proj\tinput amax' "$T/places"
    # Those of V4, with an underscore, are V4's.
    dump "$T/v4.safetensors" 1 1
    st-stat --tsv --place "$T/v4.safetensors" | cut -f1,16 | grep -qx $'layers.0.ffn.experts.0.w1_input_quantizer._amax\tw1'
}

@test "the reference's dumps: every key of a module has its place" {
    for model in v3 v32; do
        fixtures $model-nano
        for dump in "$FIXTURES"/golden/amax*/; do
            pt-read "$dump" | st-stat --tsv --place >"$T/places"
            [ "$(wc -l <"$T/places")" -ge 210 ]
            [ "$(awk -F'\t' '$13 == "unknown" || $16 == "-"' "$T/places" | wc -l)" = 0 ]
        done
    done
}
