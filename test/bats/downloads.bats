# What downloads leave of a checkpoint: files of zeros, pointers, pages, leftovers.
load common
load craft

PATH=$PWD/pipelines:$PATH
third=model-00003-of-00003.safetensors

prepare() {
    cp -r "$NANO" "$T/source"
}

# data_start FILE: where a shard's data begin.
data_start() {
    echo $((8 + $(od -An -tu8 -N8 "$1")))
}

# clear FILE OFFSET [LENGTH]: zeros there, to the end by default; the size stays.
clear() {
    local size
    size=$(stat -c %s "$1")
    dd if=/dev/zero of="$1" bs=64K iflag=count_bytes oflag=seek_bytes conv=notrunc status=none \
        seek="$2" count="${3-$((size - $2))}"
}

# clear_tensor SHARD NAME: its bytes.
clear_tensor() {
    local begin end
    read -r begin end < <(head -c "$(data_start "$1")" "$1" | tail -c +9 | jq -r --arg name "$2" '.[$name].data_offsets | @tsv')
    clear "$1" $(($(data_start "$1") + begin)) $((end - begin))
}

@test "a shard that was preallocated, and never or half filled, is refused at the start" {
    shard=$T/source/$third
    clear "$shard" "$(data_start "$shard")"
    for run in "st-read $T/source" "st-read -n $T/source" "v4-bf16 -n $T/source $T/out"; do
        # shellcheck disable=SC2086
        run $run -q
        [ "$status" -eq 1 ]
        [[ $output == *"/$third: its last MiB is all zeros, tensor "*' among them: its download is not complete; get it again, or, if they belong there, read it with st-read --allow-zeros'* ]]
    done
    refused "its last MiB is all zeros" st-read -o "$T/a.ts" "$shard"
    safetensors "$T/small.safetensors" '{"a.weight":{"dtype":"F32","shape":[2048],"data_offsets":[0,8192]}}'
    truncate -s +8192 "$T/small.safetensors"
    refused "small.safetensors: its data are all zeros, tensor a.weight among them" st-read -n "$T/small.safetensors"
    cp "$NANO/$third" "$shard"
    clear "$shard" $(($(stat -c %s "$shard") - (1 << 20)))
    refused "/$third: its last MiB is all zeros, tensor " st-read -o "$T/a.ts" "$T/source"
    run v4-experts --amax "$NANO_AMAX" "$T/source" "$T/out"
    [ "$status" -eq 1 ]
    [[ $output == *'its last MiB is all zeros'* ]]
    # A hole is as good as zeros on disk.
    truncate -s -$((1 << 20)) "$shard"
    truncate -s +$((1 << 20)) "$shard"
    refused "/$third: its last MiB is all zeros" st-read -o "$T/a.ts" "$T/source"
}

@test "a hole in the middle of a shard: a segment that was never downloaded" {
    shard=$T/source/model-00002-of-00003.safetensors
    fallocate --punch-hole --offset $((1 << 20)) --length $((3 << 19)) "$shard" 2>/dev/null ||
        skip 'this filesystem has no holes'
    for run in "st-read $T/source" "st-read -n $T/source" "nvfp4-cast -n $T/source"; do
        # shellcheck disable=SC2086
        refused "/model-00002-of-00003.safetensors: has a hole at offset 1048576, .* in tensor [a-z0-9._]*: its download is not complete" \
            $run -o "$T/a.ts"
    done
    st-read --allow-zeros -o "$T/a.ts" "$T/source"
    # Of integers, as in the tail; and one that is smaller than a MiB.
    safetensors "$T/ids.safetensors" \
        '{"a.ids":{"dtype":"I32","shape":[524288],"data_offsets":[0,2097152]},"b.weight":{"dtype":"F32","shape":[1],"data_offsets":[2097152,2097156]}}'
    truncate -s +2097152 "$T/ids.safetensors"
    printf '\0\0\200\77' >>"$T/ids.safetensors"
    st-read -o "$T/a.ts" "$T/ids.safetensors"
    cp "$NANO/model-00002-of-00003.safetensors" "$shard"
    fallocate --punch-hole --offset $((1 << 20)) --length $((1 << 19)) "$shard"
    st-read -o "$T/a.ts" "$T/source"
}

@test "every program that works on a checkpoint's folder looks; those that report on it show what is there" {
    shard=$T/source/$third
    clear "$shard" "$(data_start "$shard")"
    amaxes "$T/amax.ts"
    random_ids "$T/tokens.safetensors" 1 8
    for run in "nvfp4-cast -n" "nvfp4-cast --amax $T/amax.ts" "nvfp4-pack --amax $T/amax.ts" fp8-dequant mxfp4-unpack \
        nvfp4-unpack "amax-calib --tokens $T/tokens.safetensors" "amax-calib -n --tokens $T/tokens.safetensors" \
        "st-eval --tokens $T/tokens.safetensors" "amax-merge $T/amax.ts --model" "st-grep embed"; do
        # shellcheck disable=SC2086
        refused "/$third: its last MiB is all zeros, .* st-read --allow-zeros" $run "$T/source" -o "$T/x.ts"
    done
    refused "/$third: its last MiB is all zeros" st-write -n "$T/out" "$T/source"
    st-read --allow-zeros -o "$T/a.ts" "$T/source"
    # The way out that was named.
    amax-calib -q --tokens "$T/tokens.safetensors" --layers 0-0 -o "$T/x.ts" "$T/a.ts"
    for run in st-ls "st-stat --values" st-sum "st-cmp $T/a.ts"; do
        # shellcheck disable=SC2086
        $run "$T/source" >"$T/report"
    done
}

@test "--allow-zeros goes on, and the summary counts and names what is all zero" {
    shard=$T/source/$third
    clear "$shard" "$(data_start "$shard")"
    st-read --allow-zeros -o "$T/a.ts" "$T/source"
    run v4-experts --allow-zeros --amax "$NANO_AMAX" "$T/source" "$T/out"
    [ "$status" -eq 0 ]
    [[ $output =~ nvfp4-cast:\ weights\ or\ scales\ that\ are\ all\ zero:\ [0-9]+,\ first\ layers\.[0-9]+\.ffn\.experts\.[0-9]+\.w[123]\.scale ]]
    v4-experts -q --allow-zeros --verify --amax "$NANO_AMAX" "$T/source" "$T/out" # as it is there
    run v4-bf16 --allow-zeros "$T/source" "$T/bf16"
    [ "$status" -eq 0 ]
    [[ $output == *'fp8-dequant: weights or scales that are all zero: '*'mxfp4-unpack: weights or scales that are all zero: '* ]]
}

@test "what no stage reads: st-write counts and names matrices that are all zero, whenever they were written" {
    amaxes "$T/amax.ts"
    run v4-experts --amax "$T/amax.ts" "$NANO" "$T/right"
    [ "$status" -eq 0 ]
    [[ $output != *'all zero'* ]]
    for name in layers.0.ffn.experts.5.w2.weight layers.0.attn.wkv.weight layers.1.ffn.experts.3.w1.weight; do
        clear_tensor "$T/source/$(jq -r --arg name "$name" '.weight_map[$name]' "$NANO/model.safetensors.index.json")" $name
    done
    said='st-write: weights or scales that are all zero: 3, first layers\.0\.attn\.wkv\.weight'
    run v4-experts --amax "$T/amax.ts" "$T/source" "$T/out"
    [ "$status" -eq 0 ]
    [[ $output =~ $said ]]
    run v4-experts --jobs 2 --amax "$T/amax.ts" "$T/source" "$T/parts"
    [ "$status" -eq 0 ]
    [[ $output =~ $said ]]
    run bash -c "st-read '$T/source' | st-write '$T/copy'"
    [[ $output =~ $said ]]
}

@test "tensors of zeros in the middle of a shard: each stage that reads them counts and names them" {
    amaxes "$T/amax.ts"
    expert=layers.0.ffn.experts.5
    shard=$T/source/$(jq -r --arg name "$expert.w2.weight" '.weight_map[$name]' "$NANO/model.safetensors.index.json")
    clear_tensor "$shard" $expert.w2.scale
    clear_tensor "$shard" layers.0.attn.wkv.weight
    # counted STAGE COUNT NAME: what a stage counts as zero.
    counted() {
        local stage=$1
        [ "${stage#nvfp4-[cp]}" = "$stage" ] || stage+=" --amax $T/amax.ts"
        $stage -o "$T/x.ts" "$T/source"
        [ "$(tar xOf "$T/x.ts" .end | jq -r '.counts[0] | "\(.zero_weights) \(.zero_first)"')" = "$2 $3" ]
    }
    counted nvfp4-cast 1 $expert.w2.scale
    counted nvfp4-pack 1 $expert.w2.weight
    counted mxfp4-unpack 1 $expert.w2.weight
    counted fp8-dequant 1 layers.0.attn.wkv.weight
    clear_tensor "$shard" $expert.w1.weight
    counted nvfp4-pack 2 $expert.w1.weight
    counted nvfp4-cast 1 $expert.w2.scale
    pipeline "nvfp4-cast --amax '$T/amax.ts' '$T/source' | nvfp4-unpack >'$T/x.ts'"
    tar xOf "$T/x.ts" .end | jq -e '.counts[1].zero_weights == 1 and .counts[1].zero_first == "layers.0.ffn.experts.5.w1.weight"'
    run nvfp4-cast -v --amax "$T/amax.ts" -o "$T/x.ts" "$T/source"
    [[ $output == *"$expert.w2.scale: all zero"* ]]
    run pipeline "fp8-dequant '$T/source' | mxfp4-unpack | st-write '$T/out'"
    [[ $output == *'fp8-dequant: weights or scales that are all zero: 1, first layers.0.attn.wkv.weight'* ]]
    [[ $output == *"mxfp4-unpack: weights or scales that are all zero: 2, first $expert.w1.weight"* ]]
}

@test "a shard that ends in a bias of zeros, or holds nothing else, is none of these" {
    mkdir "$T/bias"
    safetensors "$T/bias/model.safetensors" '{"a.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b.bias":{"dtype":"F32","shape":[131072],"data_offsets":[4,524292]}}' '\x00\x00\x80\x3f'
    truncate -s +524288 "$T/bias/model.safetensors"
    st-read -o "$T/a.ts" "$T/bias"
    safetensors "$T/bias/model.safetensors" '{"b.bias":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}' '\0\0\0\0\0\0\0\0'
    st-read -o "$T/a.ts" "$T/bias"
}

@test "a pointer, a page, zeros or nothing in place of a file is named" {
    pointer=$'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n'
    page=$' \n<!DOCTYPE html><html><title>Sign in</title></html>'
    for file in model-00002-of-00003.safetensors model.safetensors.index.json tokenizer.json config.json \
        generation_config.json inference/config.json; do
        printf '%s' "$pointer" >"$T/source/$file"
        refused "source/$file: is a Git LFS pointer.*; run git lfs pull" st-read -o "$T/a.ts" "$T/source"
        printf '%s' "$page" >"$T/source/$file"
        refused "source/$file: is a web page .*; download it again" st-read -o "$T/a.ts" "$T/source"
        echo '<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>' >"$T/source/$file"
        refused "source/$file: is a web page .*; download it again" st-read -n "$T/source"
        clear "$T/source/$file" 0
        refused "source/$file: begins with zeros only: a download made room for it, .*; download it again" \
            st-read --allow-zeros -o "$T/a.ts" "$T/source"
        for answer in 'Entry not found' 'Invalid username or password.' '{"error":"Repository not found"}' \
            'Access to model deepseek-ai/DeepSeek-V4 is restricted.' '{"Code":10010205001,"Message":"record not found"}'; do
            printf '%s' "$answer" >"$T/source/$file"
            refused "source/$file: is a server's error message, .*; download it again" st-read -n "$T/source"
        done
        : >"$T/source/$file"
        refused "source/$file: is empty; download it again" st-read -o "$T/a.ts" "$T/source"
        cp "$NANO/$file" "$T/source/$file"
    done
    printf '%s' "$pointer" >"$T/source/tokenizer.json"
    refused 'source/tokenizer.json: is a Git LFS pointer' st-tokenize --tokenizer "$T/source" --length 4 "$PWD/test/data/text/eval.jsonl"
    # A part of it.
    for file in model.safetensors.index.json tokenizer.json config.json; do
        for size in 2 1000; do
            head -c $size "$NANO/$file" >"$T/source/$file"
            refused "source/$file: is cut off, or its end never arrived; download it again" st-read -n "$T/source"
            truncate -s +4096 "$T/source/$file"
            refused "source/$file: is cut off" st-read -n "$T/source"
        done
        cp "$NANO/$file" "$T/source/$file"
    done
    # Of what no program reads, a pointer is a file as any other.
    printf '%s' "$pointer" >"$T/source/figure.png"
    cp "$NANO/tokenizer.json" "$T/source"
    st-read -o "$T/a.ts" "$T/source"
}

@test "what lies beside a checkpoint and is no part of it is left out and counted" {
    mkdir -p "$T/source/.cache/huggingface" "$T/source/global_step500" "$T/source/inference/__pycache__"
    stray=(.cache/huggingface/x.incomplete global_step500/mp_rank_00_model_states.pt inference/__pycache__/model.pyc
        "$third.aria2" model-00002-of-00003.safetensors.incomplete "$third.lock" config.json.tmp .gitattributes .gitignore
        optimizer.pt trainer_state.json rng_state_0.pth pytorch_model-00001-of-00002.bin pytorch_model.bin.index.json
        DeepSeek-Q4_K_M.gguf inference/convert.py~)
    for file in "${stray[@]}"; do
        echo x >"$T/source/$file"
    done
    echo x >"$T/source/README.md"
    run pipeline "st-read '$T/source' | st-write '$T/out'"
    [ "$status" -eq 0 ]
    [[ $output == *"left out: ${#stray[@]} side files that are no part of a checkpoint, first "* ]]
    rm -r "$T/source/.cache" "$T/source/global_step500" "$T/source/inference/__pycache__"
    rm -f "${stray[@]/#/$T/source/}"
    diff -r -x "*.safetensors*" -x quant-run.json "$T/source" "$T/out"
    # In plans and for programs; and nothing is said where nothing is left out.
    run pipeline "st-read -n '$T/source' | st-write -n '$T/out2'"
    [ "$status" -eq 0 ]
    [[ $output != *'left out'* ]]
    mkdir "$T/source/.git"
    pipeline "st-read -n '$T/source' | st-write -n '$T/out2'" | grep -q '^left out: 1 .*first \.git$'
    pipeline "st-read '$T/source' | st-write -q --json '$T/out2'" | jq -e '.input.left_out == 1 and .input.left_out_first == ".git"'
}

@test "a name on the hub instead of a folder: how to download it, whoever is asked" {
    cd "$T"
    name=deepseek-ai/DeepSeek-V4.1
    export HF_HUB_CACHE=$T/cache
    hint="$name: there is no such folder here, and no snapshot of it in $T/cache; from the Hugging Face hub, 'hf download $name --local-dir DeepSeek-V4.1' gets it"
    echo '{"text": "a"}' >a.jsonl
    for command in "st-read" "st-ls" "st-tokenize a.jsonl --tokenizer" "amax-calib --tokens a.ts" "st-cmp $NANO" \
        "amax-merge --input-scale 1 --model" "st-eval --tokens a.ts" "nvfp4-cast -n"; do
        # shellcheck disable=SC2086 # a list
        run $command $name
        echo "$output"
        [ "$status" -ne 0 ]
        [ "${lines[0]}" = "${command%% *}: $hint" ]
    done
    for options in '--input-scale 1' '--calib a.jsonl'; do
        # shellcheck disable=SC2086 # a list
        run v4-experts $options $name out
        [[ ${lines[0]} == *": $hint" ]]
    done
    run v4-bf16 $name out
    [[ $output == *": $hint"* ]]
    # Other paths that are not there.
    mkdir deepseek-ai
    for path in $name nowhere ./a/b a/b/c a/b.ts a/b.safetensors ../a/b /a/b a/; do
        run st-read "$path"
        [ "$status" -eq 1 ]
        [[ $output == *"$path: No such file or directory" ]]
    done
}
