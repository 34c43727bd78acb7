# Checkpoints that are not what a conversion takes: refused in the plan, in one line that says why and what to do.
load common
load craft
load releases

PATH=$PWD/pipelines:$PATH
experts='(layers|mtp)[.][0-9]+[.]ffn[.]experts[.][0-9]+[.]w[123]'

# unconverted PATTERN PROGRAM SOURCE: the program refuses it, with and without -n, and there is no output.
unconverted() {
    refused "nothing to convert: .*($1)" "$2" -n -o "$T/x.ts" "$3"
    refused "nothing to convert: .*($1)" "$2" --amax "$T/amax.ts" -o "$T/x.ts" "$3"
    [ ! -e "$T/x.ts" ]
}

# prefixed SHARD: the same with model. before each name.
prefixed() {
    local length header
    length=$(od -An -tu8 -N8 "$1")
    header=$(tail -c +9 "$1" | head -c "$length" |
        jq -c 'with_entries(if .key == "__metadata__" then . else .key = "model." + .key end)')
    { le64 ${#header} && printf '%s' "$header" && tail -c +$((9 + length)) "$1"; } >"$1.new"
    mv "$1.new" "$1"
}

@test "nothing to convert: experts in BF16, in FP8, in NVFP4 already" {
    amaxes "$T/amax.ts"
    pipeline "fp8-dequant '$NANO' | mxfp4-unpack >'$T/bf16.ts'"
    unconverted 'layers\.0\.ffn\.experts\.0\.w1\.weight is BF16.*--lossy' nvfp4-cast "$T/bf16.ts"
    unpack "$NANO"
    to_fp8 "$experts"
    pack "$T/fp8.ts"
    unconverted 'layers\.0\.ffn\.experts\.0\.w1\.weight is FP8.*--lossy' nvfp4-cast "$T/fp8.ts"
    nvfp4-cast --amax "$T/amax.ts" -o "$T/nvfp4.ts" "$NANO"
    for program in nvfp4-cast nvfp4-pack; do
        unconverted 'is NVFP4 already.*nvfp4-unpack' "$program" "$T/nvfp4.ts"
    done
    # The way out that was named.
    nvfp4-pack --amax "$T/amax.ts" -o "$T/lossy.ts" "$T/fp8.ts"
    [ "$(st-ls --tsv "$T/lossy.ts" | grep -c '\.weight_scale_2')" -eq 192 ]
    pipeline "nvfp4-unpack '$T/nvfp4.ts' | nvfp4-pack --amax '$T/amax.ts' >'$T/again.ts'"
}

@test "nothing to convert: names that the family does not know" {
    amaxes "$T/amax.ts"
    unpack "$NANO"
    while IFS=$'\t' read -r name _; do mv "$T/tree/$name" "$T/tree/model.$name"; done <"$T/tree/.toc"
    sed -i 's/^/model./' "$T/tree/.toc"
    pack "$T/prefix.ts"
    for program in nvfp4-cast nvfp4-pack; do
        unconverted 'expects names like layers\.\*\.ffn\.experts\.\*\.w\[123\], but here they are like model\.layers\.0\.ffn\.experts\.[0-9]+\.w1;' \
            "$program" "$T/prefix.ts"
    done
    # One of another kind: as other projects call the same matrices.
    safetensors "$T/hf.safetensors" \
        '{"model.layers.0.mlp.experts.0.gate_proj.weight":{"dtype":"BF16","shape":[1,16],"data_offsets":[0,32]}}' \
        "$(printf '\\x3f%.0s' {1..32})"
    cp "$NANO/config.json" "$T"
    unconverted 'here they are like model\.layers\.0\.mlp\.experts\.0\.gate_proj;' nvfp4-cast "$T/hf.safetensors"
}

@test "names that the family does not know: said by all three ways to input scales, and by the forward pass" {
    cp -r "$NANO" "$T/source"
    rm "$T/source/model.safetensors.index.json"
    for shard in "$T/source"/*.safetensors; do prefixed "$shard"; done
    for way in '--input-scale 1' "--amax $NANO_AMAX"; do
        # shellcheck disable=SC2086 # options are words
        run v4-experts $way "$T/source" "$T/out"
        [ "$status" -eq 1 ]
        [[ ${lines[0]} == *'source: nothing to convert: '*'here they are like model.layers.0.ffn.experts.0.w1;'* ]]
    done
    run v4-experts --calib test/data/text/eval.jsonl --samples 1 --length 8 "$T/source" "$T/out"
    [ "$status" -eq 1 ]
    [[ $output == *' is missing; names here are like model.'*", and the forward pass needs the release's own"* ]]
}

@test "nothing to convert: v4-experts says so before it calibrates, and writes nothing" {
    v4-bf16 -q "$NANO" "$T/bf16"
    run v4-experts --calib test/data/text/eval.jsonl "$T/bf16" "$T/out"
    [ "$status" -eq 1 ]
    [[ $output == *'nothing to convert: layers.0.ffn.experts.0.w1.weight is BF16'*'--lossy'* ]]
    [[ $output != *'lossless'* ]]
    [ -z "$(find "$T" -name 'out*')" ]
    v4-experts -q --lossy --amax "$NANO_AMAX" "$T/bf16" "$T/out"
}

@test "a part that has nothing to convert is fine" {
    amaxes "$T/amax.ts"
    pipeline "st-grep '^(embed|head)' '$NANO' | nvfp4-cast --amax '$T/amax.ts' >'$T/x.ts'"
    pipeline "st-read --part 4/4 '$NANO' | nvfp4-cast -n | st-ls -q"
}

# mixed NAMES PATTERN [OPTION...]: with these experts in FP8, nvfp4-cast refuses the mixture; nvfp4-pack converts all.
mixed() {
    unpack "$NANO"
    to_fp8 "$1"
    pack "$T/mixed.ts"
    refused "$2, and engines take one format.*--lossy" nvfp4-cast -n "${@:3}" -o "$T/x.ts" "$T/mixed.ts"
    nvfp4-pack -n "${@:3}" "$T/mixed.ts" >"$T/plan.ts"
    [ "$(st-ls --tsv -n "$T/plan.ts" | grep -c '^layers.*experts.*\.weight.U8')" -eq 192 ]
}

@test "experts of mixed formats: refused, the first two that differ named" {
    mixed 'layers[.]2[.]ffn[.]experts[.]5[.]w[123]' \
        'layers\.0\.ffn\.experts\.0\.w1\.weight is MXFP4, but layers\.2\.ffn\.experts\.5\.w1\.weight is FP8'
    mixed 'layers[.]0[.]ffn[.]experts[.]0[.]w[123]' \
        'layers\.0\.ffn\.experts\.0\.w1\.weight is FP8, but layers\.0\.ffn\.experts\.1\.w1\.weight is MXFP4'
    mixed 'layers[.]3[.]ffn[.]experts[.]15[.]w3' \
        'layers\.0\.ffn\.experts\.0\.w1\.weight is MXFP4, but layers\.3\.ffn\.experts\.15\.w3\.weight is FP8'
    # Of a whole checkpoint on disk, too, before anything is written.
    st-write -q "$T/source" "$T/mixed.ts"
    run v4-experts --amax "$NANO_AMAX" "$T/source" "$T/out"
    [ "$status" -eq 1 ]
    [[ $output == *'layers.3.ffn.experts.15.w3.weight is FP8, and engines take one format'* ]]
    [ -z "$(find "$T" -name 'out*')" ]
    v4-experts -q --lossy --amax "$NANO_AMAX" "$T/source" "$T/out"
    [ "$(st-ls --tsv "$T/out" | grep -c '^layers.*experts.*\.weight.U8')" -eq 192 ]
}

@test "experts of mixed formats: MTP's may differ from the trunk's, not from each other" {
    unpack "$NANO"
    to_fp8 'mtp[.]0[.]ffn[.]experts[.][0-9]+[.]w[123]'
    pack "$T/mtp.ts"
    nvfp4-cast -n "$T/mtp.ts" >"$T/plan.ts"
    jq '.formats = {"mtp.*.experts.*": "NVFP4"} + .formats' pipelines/recipes/deepseek_v4/experts.json >"$T/drafts.json"
    nvfp4-cast -n --recipe "$T/drafts.json" "$T/mtp.ts" >"$T/plan.ts"
    mixed 'mtp[.]0[.]ffn[.]experts[.]7[.]w[123]' \
        'mtp\.0\.ffn\.experts\.0\.w1\.weight is MXFP4, but mtp\.0\.ffn\.experts\.7\.w1\.weight is FP8' --recipe "$T/drafts.json"
}

@test "experts that are partly NVFP4 become NVFP4 all" {
    amaxes "$T/amax.ts"
    jq '.formats = {"layers.[123].*": "keep"} + .formats' pipelines/recipes/deepseek_v4/experts.json >"$T/first.json"
    nvfp4-cast --recipe "$T/first.json" --amax "$T/amax.ts" -o "$T/first.ts" "$NANO"
    nvfp4-cast --amax "$T/amax.ts" -o "$T/all.ts" "$T/first.ts"
    [ "$(st-sum "$T/all.ts")" = "$(pipeline "nvfp4-cast --amax '$T/amax.ts' '$NANO' | st-sum")" ]
}

# download NAME...: a checkpoint's folder, without index, of these files, copies of the bundled shards in turn.
download() {
    local i=0
    rm -rf "$T/c"
    mkdir "$T/c"
    cp "$NANO/config.json" "$T/c"
    for name in "$@"; do cp "$NANO/model-0000$((i++ % 3 + 1))-of-00003.safetensors" "$T/c/$name"; done
}

@test "a shard is missing, and there is no index: named, going by the others" {
    download model-0000{1,2,3}-of-00003.safetensors
    [ "$(st-sum "$T/c")" = "$(st-sum "$NANO")" ]
    rm "$T/c/model-00002-of-00003.safetensors"
    for program in "st-read" "st-ls" "nvfp4-cast -n"; do
        # shellcheck disable=SC2086 # options
        refused 'c: model-00002-of-00003\.safetensors is missing, .*download complete' $program -o "$T/x.ts" "$T/c"
    done
    run v4-experts --amax "$NANO_AMAX" "$T/c" "$T/out"
    [ "$status" -eq 1 ]
    [[ $output == *'model-00002-of-00003.safetensors is missing'* ]]
    [ -z "$(find "$T" -name 'out*')" ]
    # The first, the last; other ways to count.
    download model-00002-of-00003.safetensors
    refused 'c: model-00001-of-00003\.safetensors is missing' st-read -o "$T/x.ts" "$T/c"
    download model_1-of-10.safetensors model_2-of-10.safetensors
    refused 'c: model_3-of-10\.safetensors is missing' st-read -o "$T/x.ts" "$T/c"
    download model-0{0,1,2}-of-03.safetensors
    [ "$(st-sum "$T/c")" = "$(st-sum "$NANO")" ]
    rm "$T/c/model-02-of-03.safetensors"
    refused 'c: model-02-of-03\.safetensors is missing' st-read -o "$T/x.ts" "$T/c"
    # Names that tell of no number.
    for name in model.safetensors model-of-3.safetensors model-1-of-.safetensors model-1-of-2-x.safetensors; do
        download "$name"
        st-read -n "$T/c" >"$T/x.ts"
    done
}

@test "one shard of several is no whole checkpoint" {
    one=$NANO/model-00001-of-00003.safetensors
    [ "$(st-read -n "$one" | tar xOf - .stream | jq -r .scope)" = 'without model-00002-of-00003.safetensors' ]
    run v4-experts --amax "$NANO_AMAX" "$one" "$T/out"
    [ "$status" -eq 1 ]
    [[ $output == *'is only a part of a checkpoint (without model-00002-of-00003.safetensors)'*--partial*'a whole one is read from its folder'* ]]
    [ -z "$(find "$T" -name 'out*')" ]
    pipeline "st-read '$one' | st-write -q --partial '$T/part'"
    # All of them, and a file that holds all of it.
    [ "$(st-read -n "$NANO"/*.safetensors | tar xOf - .stream | jq -r .scope)" = all ]
    pipeline "st-read '$NANO'/*.safetensors | st-write -q '$T/whole'"
    download model.safetensors
    cp "$one" "$T/model-00001-of-00001.safetensors"
    for file in "$T/c/model.safetensors" "$T/model-00001-of-00001.safetensors"; do
        [ "$(st-read -n "$file" | tar xOf - .stream | jq -r .scope)" = all ]
    done
    # One of another kind: a rank of two.
    cp "$one" "$T/c/model1-mp2.safetensors"
    run pipeline "st-read '$T/c/model1-mp2.safetensors' | st-write -n '$T/rank'"
    [[ $output == *'is only a part of a checkpoint (without model0-mp2.safetensors)'* ]]
}

@test "what the index does not name is left out, and counted" {
    cp -r "$NANO" "$T/source"
    jq '.weight_map |= with_entries(select(.key | startswith("mtp.") | not))' "$NANO/model.safetensors.index.json" \
        >"$T/source/model.safetensors.index.json"
    run st-read -o "$T/x.ts" "$T/source"
    [ "$status" -eq 0 ]
    [[ $output == *'index.json: does not name '*' of the tensors that the shards hold, such as mtp.0.'*'; left out' ]]
    st-grep --invert '^mtp' "$NANO" >"$T/rest.ts"
    [ "$(st-sum "$T/x.ts")" = "$(st-sum "$T/rest.ts")" ]
    left=$((667 - $(tar xOf "$T/rest.ts" .toc | wc -l)))
    [ "$(tar xOf "$T/x.ts" .stream | jq .input.unindexed)" = $left ]
    run v4-experts -v --amax "$NANO_AMAX" "$T/source" "$T/out"
    [ "$status" -eq 0 ]
    [[ $output == *"left out: $left tensors that the source's index does not name"* ]]
    [ "$(jq '.weight_map | keys | map(select(startswith("mtp."))) | length' "$T/out/model.safetensors.index.json")" = 0 ]
    [ "$(st-ls --tsv "$T/out" | grep -c ^mtp)" = 0 ]
    # One tensor alone, of the first shard; the others keep their bytes.
    jq 'del(.weight_map["embed.weight"])' "$NANO/model.safetensors.index.json" >"$T/source/model.safetensors.index.json"
    [ "$(st-sum "$T/source" 2>/dev/null)" = "$(st-grep --invert '^embed' "$NANO" | st-sum)" ]
}

@test "the same name in two files of a folder without index: both are named" {
    download model-0000{1,2,3}-of-00003.safetensors consolidated.safetensors
    for program in "st-read" "fp8-dequant" "nvfp4-cast -n"; do
        # shellcheck disable=SC2086 # options
        refused 'is in two files, consolidated\.safetensors and model-00001-of-00003\.safetensors, .*remove' \
            $program -o "$T/x.ts" "$T/c"
    done
    # One of another kind: a rank beside what is none.
    download model0-mp2.safetensors model1-mp2.safetensors other-mp.safetensors model.safetensors
    refused 'is in two files, model\.safetensors and model0-mp2\.safetensors' st-read -o "$T/x.ts" "$T/c"
}

# rank FILE SCALE: an FP8 and an MXFP4 matrix of one another, all 1 times a power of two, this E8M0 code.
rank() {
    safetensors "$1" '{"layers.0.attn.wq_a.scale":{"dtype":"F8_E8M0","shape":[1,1],"data_offsets":[0,1]},
"layers.0.attn.wq_a.weight":{"dtype":"F8_E4M3","shape":[1,4],"data_offsets":[1,5]},
"layers.0.attn.wq_b.scale":{"dtype":"F8_E8M0","shape":[1,1],"data_offsets":[5,6]},
"layers.0.attn.wq_b.weight":{"dtype":"I8","shape":[1,16],"data_offsets":[6,22]}}' \
        "$2"'\x38\x38\x38\x38'"$2$(printf '\\x22%.0s' {1..16})"
}

@test "ranks that repeat names: a weight has the scales of its shard" {
    mkdir "$T/mp"
    cp "$NANO/config.json" "$T/mp"
    rank "$T/mp/model0-mp2.safetensors" '\x7f'
    rank "$T/mp/model1-mp2.safetensors" '\x80'
    [ "$(st-stat --values --tsv "$T/mp" | cut -f1,7 | tail -n +1 | grep wq | tr '\t\n' '  ')" = \
        'layers.0.attn.wq_a.weight 1 layers.0.attn.wq_a.weight 2 layers.0.attn.wq_b.weight 1 layers.0.attn.wq_b.weight 2 ' ]
    st-stat -n --values "$T/mp" | grep -q '^4 tensors'
    pipeline "fp8-dequant '$T/mp' | mxfp4-unpack >'$T/bf16.ts'"
    [ "$(st-ls --tsv "$T/bf16.ts" | cut -f2 | sort -u)" = BF16 ]
    st-cmp -q --values "$T/mp" "$T/bf16.ts"
    # In another order, as another program could write such a stream, it is refused.
    st-read "$T/mp" >"$T/mp.ts"
    mkdir "$T/entries"
    tar xf "$T/mp.ts" -C "$T/entries"
    { grep 'a.*scale' "$T/entries/.toc" && grep 'a.*weight' "$T/entries/.toc"; } >"$T/toc"
    mv "$T/toc" "$T/entries/.toc"
    printf '%s\n' .stream .toc files/config.json .end >"$T/entries.list"
    jq -c '.tensors = 0 | .bytes = 0 | .plan = true | del(.digest)' "$T/entries/.end" >"$T/end" && mv "$T/end" "$T/entries/.end"
    tar -C "$T/entries" --format=ustar --no-recursion -cf "$T/other.ts" -T "$T/entries.list"
    for program in fp8-dequant "st-stat --values"; do
        # shellcheck disable=SC2086 # options
        refused 'wq_a\.weight: its scale .* directly before it' $program -n "$T/other.ts"
    done
}

# lacking PATTERN NAMES: a checkpoint with an index, but without the tensors whose names match, is not converted.
lacking() {
    rm -rf "$T/less"
    pipeline "st-grep --invert '$2' '$NANO' | st-write -q --partial '$T/less'"
    incomplete "$1"
}

# incomplete PATTERN: nothing that reads $T/less as a whole checkpoint goes on.
incomplete() {
    for program in "nvfp4-cast -n" "nvfp4-pack -n" fp8-dequant "mxfp4-unpack -n" \
        "amax-merge $T/amax.ts --model" "amax-merge --input-scale 1 --model"; do
        # shellcheck disable=SC2086 # options
        refused "less: $1; is the download complete\?" $program "$T/less" -o "$T/x.ts"
    done
    st-read "$T/less" >"$T/less.ts"
    refused "less\.ts: $1; " st-write -n "$T/out" "$T/less.ts"
    refused "less\.ts: $1; " st-write "$T/out" "$T/less.ts"
    [ -z "$(find "$T" -name 'out*' -o -name x.ts)" ]
}

@test "layers, experts and matrices that config.json counts, but that are not there" {
    amaxes "$T/amax.ts"
    random_ids "$T/tokens.safetensors" 1 8
    lacking 'lacks layers\.2' '^layers[.]2[.]'
    for program in amax-calib st-eval; do
        refused 'less: lacks layers\.2; is the download complete' $program -n --tokens "$T/tokens.safetensors" "$T/less"
    done
    lacking 'lacks layers\.3\.ffn\.experts\.15' '^layers[.]3[.]ffn[.]experts[.]15[.]'
    lacking 'lacks layers\.0\.ffn\.experts\.0\.w2\.weight' '^layers[.]0[.]ffn[.]experts[.]0[.]w2[.]'
    lacking 'lacks layers\.0\.ffn\.experts\.0, layers\.0\.ffn\.experts\.1, layers\.0\.ffn\.experts\.2 and 13 more' \
        '^layers[.]0[.]ffn[.]experts[.]'
    lacking 'lacks layers\.0\.ffn\.experts\.3\.w1\.weight, layers\.1\.ffn\.experts\.3\.w1\.weight, layers\.2' \
        '^(layers[.][01][.]ffn[.]experts[.]3[.]w1[.]|layers[.]2[.])'
    # Others that each layer, and each model, has; and of MTP, which need not be there, what is begun.
    lacking 'lacks layers\.1\.attn\.wo_b\.weight' '^layers[.]1[.]attn[.]wo_b[.]'
    lacking 'lacks head\.weight' '^head'
    lacking 'lacks mtp\.0\.ffn\.experts\.7' '^mtp[.]0[.]ffn[.]experts[.]7[.]'
    # What config.json says that some layers have.
    lacking 'lacks layers\.0\.ffn\.gate\.tid2eid' '^layers[.]0[.]ffn[.]gate[.]tid2eid'
    lacking 'lacks layers\.2\.ffn\.gate\.bias' '^layers[.]2[.]ffn[.]gate[.]bias'
    lacking 'lacks layers\.2\.attn\.compressor\.ape, .* and 1 more' '^layers[.]2[.]attn[.]compressor'
    lacking 'lacks layers\.3\.attn\.indexer\.wq_b\.weight' '^layers[.]3[.]attn[.]indexer[.]wq_b'
    lacking 'lacks mtp\.0\.e_proj\.weight' '^mtp[.]0[.]e_proj'
    # Not the calibration is to blame.
    rm -rf "$T/less"
    cp -r "$NANO" "$T/less"
    jq 'del(.weight_map[(.weight_map | keys[] | select(startswith("layers.1.ffn.experts.3.")))])' \
        "$NANO/model.safetensors.index.json" >"$T/less/model.safetensors.index.json"
    run v4-experts --amax "$NANO_AMAX" "$T/less" "$T/out"
    [ "$status" -eq 1 ]
    [[ $output == *'lacks layers.1.ffn.experts.3; is the download complete?'* ]]
    pipeline "st-grep --invert '^mtp' '$NANO' | st-write -q --partial '$T/trunk'"
    v4-experts -q --amax "$NANO_AMAX" "$T/trunk" "$T/whole"
}

@test "a scale that is missing is named, before anything else is read" {
    pipeline "st-grep --invert '^layers[.]1[.]ffn[.]experts[.]3[.]w1[.]scale' '$NANO' | st-write -q --partial '$T/less'"
    for program in nvfp4-cast nvfp4-pack mxfp4-unpack; do
        refused 'layers\.1\.ffn\.experts\.3\.w1\.weight: its scale .* is missing; the checkpoint is incomplete' \
            "$program" -n -o "$T/x.ts" "$T/less"
    done
}

# counted PATTERN FILTER: the same of a config.json that this jq filter changed.
counted() {
    rm -rf "$T/less"
    cp -r "$NANO" "$T/less"
    jq "$2" "$NANO/config.json" >"$T/less/config.json"
    incomplete "$1"
}

@test "config.json's dimensions are not those of the tensors" {
    contradict() { # TENSOR WHAT KEYS VALUES FILTER
        rm -rf "$T/less"
        cp -r "$NANO" "$T/less"
        jq "$5" "$NANO/config.json" >"$T/less/config.json"
        local words="less: has $1 of $2, but config\.json's $3 is $4, and engines size by it; get the config.json"
        for program in "nvfp4-cast -n" "nvfp4-pack -n" fp8-dequant "st-write -n $T/out"; do
            # shellcheck disable=SC2086 # options
            refused "$words" $program "$T/less"
        done
        run v4-experts -n --input-scale 1 "$T/less" "$T/out"
        [ "$status" = 1 ]
        [[ $output == *"has $1 of "* ]]
    }
    contradict 'embed.weight' '256 columns' hidden_size 1 '.hidden_size = 1'
    contradict 'embed.weight' '4096 rows' vocab_size 4095 '.vocab_size = 4095'
    contradict 'embed.weight' '4096 rows' vocab_size '"4096"' '.vocab_size = "4096"'
    contradict 'layers.0.attn.attn_sink' '4 elements' num_attention_heads 8 '.num_attention_heads = 8 | .head_dim = 64'
    contradict 'layers.0.attn.wkv.weight' '128 rows' head_dim -1 '.head_dim = -1'
    contradict 'layers.0.attn.wq_a.weight' '128 rows' q_lora_rank 0 '.q_lora_rank = 0'
    contradict 'layers.0.attn.wo_a.weight' '256 rows' 'o_groups \* o_lora_rank' '1 \* 128' '.o_groups = 1'
    contradict 'layers.0.ffn.experts.0.w1.weight' '128 rows' moe_intermediate_size 64 \
        '.moe_intermediate_size = 64 | .n_shared_experts = 2'
    contradict 'layers.0.ffn.shared_experts.w1.weight' '128 rows' 'n_shared_experts \* moe_intermediate_size' '2 \* 128' \
        '.n_shared_experts = 2'
    contradict 'layers.0.ffn.gate.tid2eid' '4 columns' num_experts_per_tok 2 '.num_experts_per_tok = 2'
    contradict 'layers.0.hc_attn_fn' '1024 columns' 'hc_mult \* hidden_size' '2 \* 256' '.hc_mult = 2'
    contradict 'embed.weight' '256 columns' hidden_size 1 '{model_type, text_config: (.hidden_size = 1)}'
    # A part is nobody's to load as it is.
    st-grep '^layers[.]0[.]' "$T/less" >"$T/part.ts"
    fp8-dequant -n "$T/part.ts" >"$T/x.ts"
    # V4.1: the packed columns of MXFP4 are counted, and what has no key is not.
    release v41 "$T/v41"
    cp "$T/v41/config.json" "$T/config.json"
    jq '.text_config.hidden_size = 64' "$T/config.json" >"$T/v41/config.json"
    nvfp4-cast -n "$T/v41" >"$T/x.ts"
    jq '.text_config.moe_intermediate_size = 32' "$T/config.json" >"$T/v41/config.json"
    refused "v41: has layers.0.ffn.experts.0.w1.weight of 64 rows, \
but config.json's moe_intermediate_size is 32" nvfp4-cast -n "$T/v41"
}

@test "config.json counts other layers and experts than there are" {
    amaxes "$T/amax.ts"
    counted 'lacks layers\.4' '.num_hidden_layers = 5'
    counted 'lacks layers\.4, layers\.5, layers\.6 and [0-9]+ more' '.num_hidden_layers = 1e9 + 1'
    counted 'lacks layers\.0\.ffn\.experts\.16, layers\.1.* and 2 more' '.n_routed_experts = 17'
    counted 'has layers, but config\.json.s num_hidden_layers is "4"' '.num_hidden_layers = "4"'
    counted 'has layers, but config\.json.s num_hidden_layers is 0' '.num_hidden_layers = 0'
    counted "has a layer 3, but config\.json's num_hidden_layers is 3" '.num_hidden_layers = 3'
    counted "has layers\.0\.ffn\.experts\.8, but config\.json's n_routed_experts is 8" '.n_routed_experts = 8'
    counted 'lacks layers\.4' '{model_type, text_config: (.num_hidden_layers = 5)}'
    cp -r "$NANO" "$T/nested"
    jq '{model_type, text_config: .}' "$NANO/config.json" >"$T/nested/config.json"
    nvfp4-cast -n "$T/nested" >"$T/x.ts"
}

@test "parts of a checkpoint that is incomplete are not joined; --partial takes what there is" {
    amaxes "$T/amax.ts"
    pipeline "st-grep --invert '^layers[.]3[.]ffn[.]experts[.]15[.]' '$NANO' | st-write -q --partial '$T/less'"
    for i in 1 2; do
        pipeline "st-read --part $i/2 '$T/less' | nvfp4-cast -q --amax '$T/amax.ts' | st-write -q --part '$T/out'"
    done
    refused 'lacks layers\.3\.ffn\.experts\.15; ' st-write --join "$T/out"
    [ ! -e "$T/out" ]
    pipeline "st-read '$T/less' | st-write -q --partial '$T/same'"
    [ "$(st-sum "$T/same")" = "$(st-sum "$T/less")" ]
}

@test "a matrix whose dtype or shape makes it none is refused, and does not pass through" {
    # changed NAME SED: with NAME's line in the table changed so, conversion ends at once and names the tensor.
    changed() {
        unpack "$NANO"
        sed -i -E "/^$1\\t/$2" "$T/tree/.toc"
        pack "$T/changed.ts"
        refused "$1 is .*, which is no matrix" nvfp4-cast -n -o "$T/x.ts" "$T/changed.ts"
        refused "$1 is .*, which is no matrix" nvfp4-pack -n -o "$T/x.ts" "$T/changed.ts"
    }
    changed layers.0.ffn.experts.3.w2.weight 's/\[256,64\]/[1,256,64]/'
    changed layers.2.ffn.experts.15.w1.weight 's/\tI8\t/\tF8_E8M0\t/'
    changed mtp.0.ffn.experts.0.w3.weight 's/\tI8\t/\tBOOL\t/'
    changed mtp.0.ffn.experts.15.w1.weight 's/\[128,128\]/[16384]/'
    changed layers.1.ffn.shared_experts.w2.weight 's/\tF8_E4M3\t/\tF8_E5M2\t/'
    changed layers.3.attn.wkv.weight 's/\tF8_E4M3\t/\tBOOL\t/'
}
