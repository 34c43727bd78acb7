load common
load craft
load releases
load v3

# ranks DIR|STREAM: name, dtype, shape, SHA-256 and file of every tensor, as the goldens of ranks have them.
ranks() {
    paste <(st-sum --each "$1") <(st-ls --tsv "$1") |
        awk -F'\t' '$2 != $5 { exit 1 } { gsub(/[][]/, "", $4); print $2 "\t" $3 "\t" $4 "\t" $1 "\t" $9 }' | LC_ALL=C sort
}

# patch DIR FILE NAME: one bit of the tensor changes there.
patch() {
    local at
    at=$(st-ls --tsv "$1" | awk -F'\t' -v file="$2" -v name="$3" '$1 == name && $5 == file { sub(/.*@/, "", $7); print $7 + 0 }')
    printf '%b' "\\x$(printf %02x $(($(od -An -tu1 -j "$at" -N1 "$1/$2") ^ 1)))" |
        dd of="$1/$2" bs=1 seek="$at" conv=notrunc status=none
}

# By hand: a model of two experts. `rank FILE ADD...`: a file of tensors, each in the words of craft's add.
small() {
    rm -rf "$T/small"
    mkdir "$T/small"
    jq '.num_hidden_layers = 1 | .n_routed_experts = 2 | .num_attention_heads = 2 | .num_nextn_predict_layers = 0' \
        "$NANO/config.json" >"$T/small/config.json"
}
rank() {
    local header='' data='' at=0 file=$1 words
    shift
    for words in "$@"; do
        # shellcheck disable=SC2086 # several words
        add $words
    done
    safetensors "$T/small/$file" "{$header}" "$data"
}

# ---- the reference's bytes ----

@test "V4: names, dtypes, shapes, bytes and files of convert.py, experts in FP4 and in FP8" {
    for experts in fp4 fp8; do
        st-reshard --ranks 2 --experts $experts -o "$T/$experts.ts" "$NANO"
        diff <(ranks "$T/$experts.ts") <(golden_lines "$GOLDEN/mp2-$experts.tsv")
        st-write -q "$T/$experts" "$T/$experts.ts"
        diff <(ranks "$T/$experts") <(golden_lines "$GOLDEN/mp2-$experts.tsv")
    done
    # By default, experts stay.
    st-cmp <(st-reshard --ranks 2 "$NANO") "$T/fp4.ts"
    # No index, and no model card; DeepSeek's code, of which only a config is here, stays.
    [ "$(cd "$T/fp4" && echo *)" = 'config.json generation_config.json inference model0-mp2.safetensors model1-mp2.safetensors quant-run.json tokenizer.json tokenizer_config.json' ]
}

@test "V4: one rank" {
    local one=$PWD/../shared/fixtures/v4-nano/golden/mp1-fp4
    [ -f "$one.tsv" ] || skip "larger fixtures (v4-nano) are not here"
    st-reshard --ranks 1 -o "$T/a.ts" "$NANO"
    diff <(ranks "$T/a.ts") <(golden_lines "$one.tsv")
}

@test "V4: MXFP4 that FP8 cannot hold, counted" {
    fixtures v4-mini
    for experts in fp4 fp8; do
        st-reshard --ranks 2 --experts $experts -o "$T/$experts.ts" "$FIXTURES/ckpt"
        diff <(ranks "$T/$experts.ts") <(golden_lines "$FIXTURES/golden/mp2-$experts.tsv")
    done
    [ "$(tar xOf "$T/fp8.ts" .end | jq -c '.counts[0] | [.fp8_blocks, .fp8_lossy]')" = '[1966080,13]' ]
    run st-write "$T/out" "$T/fp8.ts"
    [[ $output == *'lossless MXFP4->FP8 blocks: 1966067/1966080 (99.9993%)'* ]]
}

@test "V3 and V3.2: names, dtypes, shapes, bytes and files of convert.py, but not the layer of MTP; and back" {
    fixtures v3-wide
    for run in 'v3-nano 1 124' 'v32-nano 1 131' 'v3-wide 1 124' 'v3-wide 2 124'; do
        read -r model n left <<<"$run"
        fixtures "$model"
        run st-reshard --ranks "$n" -o "$T/a.ts" "$FIXTURES/ckpt"
        [ "$output" = "st-reshard: $left tensors of MTP are left out, which DeepSeek's inference code does not have" ]
        diff <(ranks "$T/a.ts") <(golden_lines "$FIXTURES/golden/mp$n.tsv")
        st-reshard -r -o "$T/back.ts" "$T/a.ts"
        diff <(digests "$T/back.ts") <(digests "$FIXTURES/ckpt" | grep -v '^model\.layers\.3\.')
    done
    # convert.py refuses these two, with "Dimension 1 must be divisible by 2".
    for model in v3-nano v32-nano; do
        fixtures $model
        refused 'weight_scale_inv: its (1 columns|3 rows) cannot be divided by 2 ranks' st-reshard --ranks 2 "$FIXTURES/ckpt"
    done
}

@test "V3 in small, and V3.2: names and order of ranks, and back" {
    for type in deepseek_v3 deepseek_v32 kimi_k2; do
        v3_checkpoint "$T/$type" $type
        jq '.num_attention_heads = 2' "$T/$type/config.json" >"$T/config.json"
        cp "$T/config.json" "$T/$type"
        pipeline "st-reshard -q --ranks 1 '$T/$type' | st-write -q '$T/$type-mp1'"
        st-reshard -r -o "$T/back.ts" "$T/$type-mp1"
        st-cmp --common "$T/$type" "$T/back.ts"
        diff <(digests "$T/back.ts") <(digests "$T/$type" | grep -v '^model\.layers\.2\.')
        cmp <(st-ls --tsv "$T/back.ts" | cut -f1) <(st-ls --tsv "$T/$type" | cut -f1 | grep -v '^model\.layers\.2\.')
        refused 'weight_scale_inv: its 1 rows cannot be divided by 2 ranks' st-reshard --ranks 2 "$T/$type"
        refused "config.json's num_attention_heads, 2, is not divisible by 3 ranks" st-reshard --ranks 3 "$T/$type"
        jq '.num_attention_heads = 6' "$T/config.json" >"$T/$type/config.json"
        refused "config.json's n_routed_experts, 2, is not divisible by 3 ranks" st-reshard --ranks 3 "$T/$type"
    done
    st-ls --tsv "$T/deepseek_v32-mp1" | cut -f1 | sed 's/[.][0-9]*[.]/.N./g' | uniq | sort -u >"$T/names"
    printf '%s\n' layers.N.ffn.gate.bias layers.N.attn.indexer.k_norm.bias layers.N.attn.indexer.wq_b.scale layers.N.attn.wkv_a.scale \
        layers.N.attn_norm.weight layers.N.ffn.w1.weight layers.N.ffn.experts.N.w3.scale layers.N.ffn.shared_experts.w2.weight |
        while read -r name; do grep -qxF "$name" "$T/names"; done
    [ "$(st-ls --tsv "$T/deepseek_v3-mp1" | cut -f1 | sed -n '1p; $p' | paste -sd' ')" = 'embed.weight head.weight' ]
}

@test "config.json says what the experts are" {
    cp -r "$NANO" "$T/named"
    jq '.expert_dtype = "fp4"' "$NANO/config.json" >"$T/named/config.json"
    for experts in fp4 fp8; do
        pipeline "st-reshard --ranks 2 --experts $experts '$T/named' | st-write -q '$T/$experts'"
        [ "$(jq -r .expert_dtype "$T/$experts/config.json")" = $experts ]
    done
    same_json "$T/fp4/config.json" "$T/named/config.json"
}

# ---- back ----

@test "joined again: every tensor of the source, but for wo_a, which is BF16" {
    for n in 1 2; do
        pipeline "st-reshard --ranks $n '$NANO' | st-write -q '$T/mp$n'"
        st-reshard -r -o "$T/back$n.ts" "$T/mp$n"
        diff <(digests "$T/back$n.ts" | grep -v 'wo_a\.') <(digests "$NANO" | grep -v 'wo_a\.')
        st-cmp --values "$NANO" "$T/back$n.ts"
    done
    st-write -q "$T/back" "$T/back2.ts"
    same_json "$T/back/config.json" "$NANO/config.json"
    [ "$(st-ls --tsv "$T/back" | cut -f5 | sort -u)" = model-00001-of-00001.safetensors ]
    # Once more, to the same ranks: wo_a is BF16 now.
    st-reshard --ranks 2 -o "$T/again.ts" "$T/back"
    diff <(ranks "$T/again.ts") <(golden_lines "$GOLDEN/mp2-fp4.tsv")
}

@test "releases with FP8 experts, with scales in F32 or E8M0: there and back" {
    for name in base fp8; do
        release $name "$T/$name"
        st-reshard --ranks 2 -o "$T/mp2.ts" "$T/$name"
        st-reshard --ranks 2 --experts fp8 -o "$T/fp8.ts" "$T/$name"
        st-cmp "$T/mp2.ts" "$T/fp8.ts"
        st-reshard -r -o "$T/back.ts" "$T/mp2.ts"
        diff <(digests "$T/back.ts" | grep -v 'wo_a\.') <(digests "$T/$name" | grep -v 'wo_a\.')
        st-cmp --values "$T/$name" "$T/back.ts"
    done
}

@test "joined again from FP8: the same values" {
    pipeline "st-reshard --ranks 2 --experts fp8 '$NANO' | st-reshard -r >'$T/back.ts'"
    st-cmp --values "$NANO" "$T/back.ts"
    st-reshard --ranks 2 --experts fp8 -o "$T/again.ts" "$T/back.ts"
    diff <(ranks "$T/again.ts") <(golden_lines "$GOLDEN/mp2-fp8.tsv")
}

@test "2 ranks of 1, and 1 of 2, through the release's layout" {
    pipeline "st-reshard --ranks 2 '$NANO' | st-reshard -r | st-reshard --ranks 1 >'$T/a.ts'"
    pipeline "st-reshard --ranks 1 '$NANO' >'$T/b.ts'"
    st-cmp "$T/a.ts" "$T/b.ts"
}

# ---- the stream ----

@test "only what is cut by columns or converted is inline, there and back" {
    st-reshard --ranks 2 -o "$T/a.ts" "$NANO"
    [ "$(tar tvf "$T/a.ts" | grep '^-' | awk '{ print $NF }' | grep -v '^[.]\|^files/' | sed 's/.*[.]attn[.]//' | sort -u | paste -sd' ')" = \
        'wo_a.weight wo_b.scale wo_b.weight' ]
    st-write -q "$T/mp2" "$T/a.ts"
    st-reshard -r -o "$T/b.ts" "$T/mp2"
    run grep -c . <(tar tvf "$T/b.ts" | grep '^-' | grep 'experts\|norm\|hc_\|compressor\|wq_a\|wkv')
    [ "$output" = 0 ]
    st-reshard --ranks 1 -o "$T/c.ts" "$NANO"
    [ "$(tar tvf "$T/c.ts" | grep '^-' | grep -v ' [.]\| files/' | grep -vc 'wo_a.weight')" = 0 ]
}

@test "the same from an inline stream, on any number of threads, and with a small memory for what waits" {
    st-read --inline -o "$T/inline.ts" "$NANO"
    st-reshard --ranks 2 --experts fp8 -o "$T/a.ts" "$NANO"
    for j in 1 3; do
        st-reshard -j $j --ranks 2 --experts fp8 <"$T/inline.ts" >"$T/b$j.ts"
        st-cmp "$T/a.ts" "$T/b$j.ts"
    done
    cmp "$T/b1.ts" "$T/b3.ts"
    pipeline "st-reshard --ranks 2 '$NANO' | st-write -q '$T/mp2'"
    st-read --inline -o "$T/ranks.ts" "$T/mp2"
    st-cmp <(st-reshard -r "$T/ranks.ts") <(st-reshard -r "$T/mp2")
}

@test "a plan has the same table, and reads no tensor" {
    for way in '--ranks 2 --experts fp8' '--ranks 1'; do
        # shellcheck disable=SC2086 # several words
        st-reshard $way --plan -o "$T/plan.ts" "$NANO"
        # shellcheck disable=SC2086
        st-reshard $way -o "$T/all.ts" "$NANO"
        cmp <(tar xOf "$T/plan.ts" .toc) <(tar xOf "$T/all.ts" .toc)
        [ "$(tar xOf "$T/plan.ts" .end | jq .plan)" = true ]
    done
    st-reshard -r --plan "$T/all.ts" | st-ls >/dev/null
    run st-write -q "$T/out" "$T/plan.ts"
    [ "$status" -eq 1 ] && [ ! -e "$T/out" ]
}

@test "V4-Pro on 16 ranks: planned in seconds, in shards of up to 4 GiB on the way back" {
    "$BIN/test/mkckpt" -q --model pro "$T/pro"
    st-read --allow-zeros -o "$T/pro.ts" "$T/pro"
    SECONDS=0
    st-reshard --ranks 16 -n -o "$T/plan.ts" "$T/pro.ts"
    st-reshard -r --plan -o "$T/back.ts" "$T/plan.ts"
    [ $SECONDS -le 20 ]
    [ "$(tar xOf "$T/plan.ts" .toc | cut -f4 | sort -u | wc -l)" -eq 16 ]
    cmp <(tar xOf "$T/back.ts" .toc | cut -f1) <(tar xOf "$T/pro.ts" .toc | cut -f1 | grep -v 'wo_a\.scale')
    st-ls --tsv "$T/back.ts" | awk -F'\t' '
        { bytes[$5] += $4; if (bytes[$5] > 2^32) exit 1 }
        END { for (shard in bytes) n++; exit n < 200 || n > 300 }'
}

# ---- refusals ----

@test "the command line" {
    for options in '' '-n 0' '-n 2 -r' '-r --experts fp8' '-n 2 --experts fp6' '-n two' '-n 2 a b'; do
        # shellcheck disable=SC2086 # several words
        run st-reshard $options "$NANO"
        [ "$status" -eq 2 ]
    done
}

@test "numbers of ranks that do not divide" {
    refused "config.json's num_attention_heads, 4, is not divisible by 3 ranks" st-reshard --ranks 3 "$NANO"
    refused "config.json's o_groups, 2, is not divisible by 4 ranks" st-reshard --ranks 4 "$NANO"
    refused "config.json's num_attention_heads, 4, is not divisible by 18446744073709551615 ranks" st-reshard --ranks 18446744073709551615 "$NANO"
    cp -r "$NANO" "$T/odd"
    jq '.n_routed_experts = 17' "$NANO/config.json" >"$T/odd/config.json"
    refused "lacks layers.0.ffn.experts.16" st-reshard --ranks 2 "$T/odd"
    small
    rank model.safetensors 'norm.weight BF16 [4] 8 a'
    for key in vocab_size index_n_heads n_routed_experts; do
        jq ".$key = 4097" "$NANO/config.json" >"$T/small/config.json"
        refused "config.json's $key, 4097, is not divisible by 2 ranks" st-reshard --ranks 2 "$T/small/model.safetensors"
    done
    jq 'del(.n_routed_experts)' "$NANO/config.json" >"$T/odd/config.json"
    refused 'layers.0.ffn.experts.0.w1.scale: how many experts are there' st-reshard --ranks 2 "$T/odd"
    jq 'del(.model_type)' "$NANO/config.json" >"$T/odd/config.json"
    refused 'what model is it.* config.json is missing, or has an unknown model_type' st-reshard --ranks 2 "$T/odd"
}

@test "tensors that cannot be cut: too narrow, or within a block of a scale" {
    small
    rank model.safetensors 'layers.0.attn.wq_b.weight BF16 [3,2] 12 a'
    refused 'layers.0.attn.wq_b.weight: its 3 rows cannot be divided by 2 ranks' st-reshard --ranks 2 "$T/small/model.safetensors"
    rank model.safetensors 'layers.0.attn.wo_b.weight BF16 [2,3] 12 a'
    refused 'layers.0.attn.wo_b.weight: its 3 columns cannot be divided by 2 ranks' st-reshard --ranks 2 "$T/small/model.safetensors"
    rank model.safetensors 'layers.0.attn.wo_b.weight BF16 [4] 8 a'
    refused 'layers.0.attn.wo_b.weight: its 0 columns cannot be divided' st-reshard --ranks 2 "$T/small/model.safetensors"
    rank model.safetensors 'layers.0.attn.attn_sink F32 [] 4 a'
    refused 'layers.0.attn.attn_sink: its 0 rows cannot be divided' st-reshard --ranks 2 "$T/small/model.safetensors"
    rank model.safetensors 'layers.0.attn.wq_b.scale F32 [2,1] 8 a' 'layers.0.attn.wq_b.weight F8_E4M3 [192,2] 384 a'
    refused "layers.0.attn.wq_b.weight: a rank's 96 rows of it are no whole blocks of 128" st-reshard --ranks 2 "$T/small/model.safetensors"
    rank model.safetensors 'layers.0.attn.wo_b.scale F32 [1,1] 4 a' 'layers.0.attn.wo_b.weight F8_E4M3 [2,96] 192 a'
    refused 'layers.0.attn.wo_b.scale: its 1 columns cannot be divided' st-reshard --ranks 2 "$T/small/model.safetensors"
    st-reshard --ranks 1 "$T/small/model.safetensors" >"$T/one.ts"
    rank model.safetensors 'layers.0.ffn.experts.1.w1.scale F8_E8M0 [64,4] 256 a' 'layers.0.ffn.experts.1.w1.weight I8 [64,64] 4096 a'
    refused 'layers.0.ffn.experts.1.w1.scale: 64 by 128 elements are no whole blocks of 128 by 128' st-reshard --ranks 2 --experts fp8 "$T/small/model.safetensors"
    st-reshard --ranks 2 "$T/small/model.safetensors" >"$T/two.ts"
    [ "$(tar xOf "$T/two.ts" .toc | cut -f2-4)" = $'F8_E8M0\t[64,4]\tmodel1-mp2.safetensors\nF4\t[64,128]\tmodel1-mp2.safetensors' ]
    rank model.safetensors 'layers.0.ffn.experts.2.w1.scale F8_E8M0 [64,4] 256 a' 'layers.0.ffn.experts.2.w1.weight I8 [64,64] 4096 a'
    refused 'layers.0.ffn.experts.2.w1.scale: config.json counts 2 experts' st-reshard --ranks 2 "$T/small/model.safetensors"
}

@test "an E8M0 NaN, in each way of reading a scale" {
    small
    rank model.safetensors 'layers.0.ffn.experts.1.w1.scale F8_E8M0 [128,4] 512 \xff' 'layers.0.ffn.experts.1.w1.weight I8 [128,64] 8192 a'
    refused 'experts.1.w1.scale: element 0 .*is the E8M0 code 255, NaN' st-reshard --ranks 2 --experts fp8 -o "$T/x.ts" "$T/small/model.safetensors"
    rank model.safetensors 'layers.0.attn.wo_a.scale F8_E8M0 [2,1] 2 \xff' 'layers.0.attn.wo_a.weight F8_E4M3 [256,4] 1024 a'
    refused 'wo_a.scale: element 0 .*is the E8M0 code 255, NaN' st-reshard --ranks 2 -o "$T/x.ts" "$T/small/model.safetensors"
    [ ! -e "$T/x.ts" ]
}

@test "models and formats that have no ranks" {
    refused 'it is not known how model-parallel ranks share a model of type deepseek_v41' st-reshard --ranks 2 test/data/v41-tiny/ckpt
    amaxes "$T/amax.ts"
    nvfp4-cast --amax "$T/amax.ts" -o "$T/nvfp4.ts" "$NANO"
    refused 'layers.0.ffn.experts.0.w1.*: is NVFP4, which' st-reshard --ranks 2 "$T/nvfp4.ts"
    pipeline "st-reshard --ranks 2 '$NANO' | st-write -q '$T/mp2'"
    refused 'model0-mp2.safetensors is a rank.s file already' st-reshard --ranks 2 "$T/mp2"
    refused 'model-00001-of-00003.safetensors is not the file of a model-parallel rank' st-reshard -r "$NANO"
    mxfp4-unpack -o "$T/bf16.ts" "$NANO"
    for experts in fp4 fp8; do
        refused 'layers.0.ffn.experts.0.w1.weight: this expert is BF16, of which --experts' st-reshard --ranks 2 --experts $experts "$T/bf16.ts"
    done
    st-reshard --ranks 2 "$T/bf16.ts" >"$T/bf16-mp2.ts"
    st-reshard --ranks 2 --experts fp8 -o "$T/fp8.ts" "$NANO"
    st-reshard -r -o "$T/back.ts" "$T/fp8.ts"
    refused 'layers.0.ffn.experts.0.w1.*: this expert is FP8, of which --experts' st-reshard --ranks 2 --experts fp4 "$T/back.ts"
}

@test "tensors of which the first convert.py knows nothing: drafts of DSpark, vision" {
    for name in dspark vision; do
        release $name "$T/$name"
        refused '(mtp.2.(markov|confidence)_head|vision|aligner|image)[a-z0-9_.]*: it is not known what model-parallel ranks have of this' \
            st-reshard --ranks 2 "$T/$name"
    done
    # Without them, as a part of a checkpoint.
    pipeline "st-grep -V '^mtp[.]' '$T/dspark' | st-reshard --ranks 2 >'$T/trunk.ts'"
    run st-write -q "$T/out" "$T/trunk.ts"
    [ "$status" -eq 1 ]
    st-write -q --partial "$T/out" "$T/trunk.ts"
    diff <(ranks "$T/out") <(golden_lines "$GOLDEN/mp2-fp4.tsv" | grep -v '^mtp')
}

# ---- ranks that are not as they should be ----

@test "files of ranks: one is missing, of another number, or called something else" {
    pipeline "st-reshard --ranks 2 '$NANO' | st-write -q '$T/mp2'"
    pipeline "st-reshard --ranks 1 '$NANO' | st-write -q '$T/mp1'"
    mkdir "$T/few"
    cp "$T/mp2/config.json" "$T/mp2/model1-mp2.safetensors" "$T/few"
    refused 'model0-mp2.safetensors is missing; all ranks are needed' st-reshard -r "$T/few"
    cp "$T/mp1/model0-mp1.safetensors" "$T/few"
    refused 'model0-mp1.safetensors and model1-mp2.safetensors are of different numbers of ranks' st-reshard -r "$T/few"
    rm "$T/few/model0-mp1.safetensors"
    for name in model2-mp2 model00-mp2 other0-mp2 model0-mp02 model0-mp2x; do
        cp "$T/mp2/model0-mp2.safetensors" "$T/few/$name.safetensors"
        refused "$name.safetensors (is not the file of a model-parallel rank|and model1-mp2.safetensors are of different)|is in two files" \
            st-reshard -r "$T/few"
        rm "$T/few/$name.safetensors"
    done
    run st-reshard -r "$T/mp2/model0-mp2.safetensors" "$T/mp2/model1-mp2.safetensors"
    [ "$status" -eq 2 ]
    refused 'model1-mp2.safetensors is missing' st-reshard -r "$T/mp2/model0-mp2.safetensors"
    # As convert.py leaves them.
    rm "$T/mp2"/*.json
    refused 'what model is it' st-reshard -r "$T/mp2"
}

@test "copies that differ are named, with the place" {
    pipeline "st-reshard --ranks 2 '$NANO' | st-write -q '$T/mp2'"
    for name in norm.weight layers.1.ffn.shared_experts.w2.scale layers.0.ffn.gate.tid2eid; do
        cp -r "$T/mp2" "$T/patched"
        patch "$T/patched" model1-mp2.safetensors "$name"
        refused "$name: model0-mp2.safetensors and model1-mp2.safetensors differ from byte 0 of the tensor on" st-reshard -r -o "$T/x.ts" "$T/patched"
        [ ! -e "$T/x.ts" ]
        rm -r "$T/patched"
    done
    # What is divided has no copies.
    patch "$T/mp2" model1-mp2.safetensors layers.1.attn.wq_b.weight
    st-reshard -r "$T/mp2" >"$T/x.ts"
}

@test "tensors that do not fit together: forms, files, names" {
    small
    rank model0-mp2.safetensors 'norm.weight BF16 [4] 8 a'
    rank model1-mp2.safetensors 'norm.weight F32 [2] 8 a'
    refused 'norm.weight is BF16 \[4\] in model0-mp2.safetensors, but F32 \[2\] in model1-mp2.safetensors' st-reshard -r "$T/small"
    rank model1-mp2.safetensors 'norm.weight BF16 [4] 8 a' 'layers.0.attn.wq_b.weight BF16 [4] 8 a'
    refused 'layers.0.attn.wq_b.weight is in model1-mp2.safetensors, but not in model0-mp2.safetensors' st-reshard -r "$T/small"
    rank model1-mp2.safetensors 'norm.weight BF16 [4] 8 a' 'layers.0.ffn.experts.0.w1.weight BF16 [1,4] 8 a'
    refused 'experts.0.w1.weight is in model1-mp2.safetensors, but belongs in model0-mp2.safetensors' st-reshard -r "$T/small"
    rank model1-mp2.safetensors 'norm.weight BF16 [4] 8 a' 'layers.0.ffn.experts.7.w1.weight BF16 [1,4] 8 a'
    refused 'experts.7.w1.weight: config.json counts 2 experts' st-reshard -r "$T/small"
    rank model0-mp2.safetensors 'layers.0.ffn.experts.0.w1.weight BF16 [1,4] 8 a'
    rank model1-mp2.safetensors 'layers.0.ffn.experts.0.w1.weight BF16 [1,4] 8 a'
    refused 'experts.0.w1.weight is in model1-mp2.safetensors, but belongs in model0-mp2.safetensors' st-reshard -r "$T/small"
    rank model0-mp2.safetensors 'layers.0.attn.nothing.weight BF16 [1,4] 8 a'
    rank model1-mp2.safetensors 'layers.0.attn.nothing.weight BF16 [1,4] 8 a'
    refused 'layers.0.attn.nothing.weight: DeepSeek.s inference code for this model has no such tensor' st-reshard -r "$T/small"
    rank model0-mp2.safetensors 'layers.0.attn_norm.weight BF16 [4] 8 a' 'layers.00.attn_norm.weight BF16 [4] 8 a'
    rank model1-mp2.safetensors 'layers.0.attn_norm.weight BF16 [4] 8 a' 'layers.00.attn_norm.weight BF16 [4] 8 a'
    refused 'layers.0+.attn_norm.weight and layers.0+.attn_norm.weight in model0-mp2.safetensors are one tensor' st-reshard -r "$T/small"
    rank model0-mp2.safetensors 'layers.0.attn.wo_b.weight BF16 [4] 8 a'
    rank model1-mp2.safetensors 'layers.0.attn.wo_b.weight BF16 [4] 8 a'
    refused 'layers.0.attn.wo_b.weight has 1 dimensions' st-reshard -r "$T/small"
    rank model0-mp2.safetensors 'norm.weight BF16 [4] 8 a'
    rank model1-mp2.safetensors 'norm.weight BF16 [4] 8 a'
    refused 'lacks embed.weight' st-reshard -r "$T/small"
}

@test "empty tensors, there and back" {
    small
    rank model.safetensors 'layers.0.attn.wo_b.weight BF16 [0,4] 0 a' 'layers.0.attn.wq_b.weight BF16 [0,2] 0 a' 'norm.weight BF16 [0] 0 a'
    st-read -o "$T/empty.ts" "$T/small/model.safetensors"
    st-reshard --ranks 2 -o "$T/mp2.ts" "$T/empty.ts"
    st-reshard -r -o "$T/back.ts" "$T/mp2.ts"
    st-cmp "$T/empty.ts" "$T/back.ts"
}
