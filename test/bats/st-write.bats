load common

@test "a checkpoint comes out as it went in" {
    pipeline "st-read '$NANO' | st-write -q '$T/out'"
    st-cmp "$NANO" "$T/out"
    cmp "$NANO/config.json" "$T/out/config.json"
    same_json "$NANO/model.safetensors.index.json" "$T/out/model.safetensors.index.json"
    [ ! -e "$T/out.partial" ]
}

@test "inline or by reference: the same files" {
    pipeline "st-read '$NANO' | st-write -q '$T/a'"
    pipeline "st-read --inline '$NANO' | st-write -q '$T/b'"
    diff -r "$T/a" "$T/b"
}

@test "shards: format pt, data without holes, every tensor aligned to its dtype" {
    pipeline "st-read '$NANO' | st-write -q '$T/out'"
    for shard in "$T"/out/*.safetensors; do
        n=$(od -An -tu8 -N8 "$shard")
        tail -c +9 "$shard" | head -c "$n" >"$T/header"
        [ "$(jq -r .__metadata__.format "$T/header")" = pt ]
        jq -e --argjson start $((n + 8)) 'del(.__metadata__) | [.[]] |
            {BOOL: 1, U8: 1, I8: 1, F8_E4M3: 1, F8_E8M0: 1, BF16: 2, F32: 4, I64: 8} as $bytes |
            all(($start + .data_offsets[0]) % $bytes[.dtype] == 0)' "$T/header" >/dev/null
    done
}

@test "--overwrite replaces a folder, and only at the end" {
    mkdir "$T/out"
    echo old >"$T/out/file"
    cp "$NANO/model-00001-of-00003.safetensors" "$T/out"
    run pipeline "st-read '$NANO' | st-write '$T/out'"
    [ "$status" -eq 1 ]
    [[ $output == *--overwrite* ]]
    [ "$(cat "$T/out/file")" = old ]
    run pipeline "st-read '$NANO' | head -c 400000 | st-write --overwrite '$T/out'"
    [ "$status" -ne 0 ]
    [ "$(cat "$T/out/file")" = old ]
    rm -r "$T/out.partial"
    pipeline "st-read '$NANO' | st-write -q --overwrite '$T/out'"
    [ ! -e "$T/out/file" ]
    [ ! -e "$T/out.partial" ]
    st-cmp "$NANO" "$T/out"
}

@test "--overwrite replaces checkpoints only" {
    mkdir -p "$T/home/documents"
    echo mine >"$T/home/documents/file"
    run pipeline "st-read '$NANO' | st-write --overwrite '$T/home'"
    [ "$status" -eq 1 ]
    [[ $output == *'not a checkpoint'* ]]
    [ "$(cat "$T/home/documents/file")" = mine ]
    cp -r "$NANO" "$T/old"
    pipeline "fp8-dequant '$NANO' | st-write -q --overwrite '$T/old'"
    [ ! -e "$T/old.partial" ]
    diff <(digests "$T/old" | grep -c BF16) <(fp8-dequant "$NANO" | digests /dev/stdin | grep -c BF16)
}

@test "an empty folder is as good as none" {
    mkdir "$T/out"
    pipeline "st-read '$NANO' | st-write -q '$T/out'"
    st-cmp "$NANO" "$T/out"
}

@test "an interrupted run is continued by the same command; files are byte-identical" {
    pipeline "st-read '$NANO' | st-write -q '$T/whole'"
    st-read "$NANO" >"$T/a.ts"
    run pipeline "head -c 400000 '$T/a.ts' | st-write '$T/out'"
    [ "$status" -eq 1 ]
    [ ! -e "$T/out" ]
    [ -d "$T/out.partial" ]
    st-write -q "$T/out" "$T/a.ts"
    diff -r "$T/whole" "$T/out"
    [ ! -e "$T/out.partial" ]
}

@test "the amaxes count by what they say, not by where they lie" {
    amaxes "$T/a.ts"
    cp "$T/a.ts" "$T/b.ts"
    nvfp4-cast --amax "$T/a.ts" "$NANO" >"$T/cast.ts"
    run pipeline "head -c 1000000 '$T/cast.ts' | st-write '$T/out'"
    [ "$status" -eq 1 ]
    [ -d "$T/out.partial" ]
    pipeline "nvfp4-cast --amax '$T/b.ts' '$NANO' | st-write -q '$T/out'"
    st-cmp --values --common "$NANO" "$T/out"
}

@test "an hf_quant_config.json that no stage made stale stays" {
    cp -r "$NANO" "$T/source"
    echo '{"quantization": {}}' >"$T/source/hf_quant_config.json"
    pipeline "st-read '$T/source' | st-write -q '$T/copy'"
    cmp "$T/source/hf_quant_config.json" "$T/copy/hf_quant_config.json"
    pipeline "fp8-dequant '$T/source' | mxfp4-unpack | st-write -q '$T/bf16'"
    [ ! -e "$T/bf16/hf_quant_config.json" ]
}

@test "what another run left is not touched" {
    run pipeline "st-read '$NANO' | head -c 400000 | st-write '$T/out'"
    [ "$status" -eq 1 ]
    run pipeline "fp8-dequant '$NANO' | st-write '$T/out'"
    [ "$status" -eq 1 ]
    [[ $output == *'left by a run with other input or options; remove it'* ]]
}

@test "a part needs --partial" {
    run pipeline "st-read --layers 0-1 '$NANO' | st-write '$T/out'"
    [ "$status" -eq 1 ]
    [[ $output == *'layers 0-1'*--partial* ]]
    pipeline "st-read --layers 0-1 '$NANO' | st-write -q --partial '$T/out'"
    st-cmp --common -q "$NANO" "$T/out"
}

@test "weights without their scales are written as they are, if so wanted" {
    pipeline "st-grep 'attn.*\.weight$' '$NANO' | st-write -q --partial '$T/out'"
    st-cmp --common -q "$NANO" "$T/out"
}

@test "a recipe that names half of a fused pair is refused in the plan already" {
    amaxes "$T/amax.ts"
    jq '.formats = {"layers.*.ffn.experts.*.w1": "NVFP4"}' pipelines/recipes/deepseek_v4/experts.json >"$T/recipe.json"
    for plan in '' -n; do
        # shellcheck disable=SC2086
        run nvfp4-cast $plan --recipe "$T/recipe.json" --amax "$T/amax.ts" -o "$T/x.ts" "$NANO"
        [ "$status" -eq 1 ]
        [[ $output == *'the recipe names layers.0.ffn.experts.0.w1.weight, but not'*'name both'* ]]
    done
}

@test "--json: the summary for programs" {
    amaxes "$T/amax.ts"
    pipeline "nvfp4-cast --amax '$T/amax.ts' '$NANO' | st-write -q --json '$T/out' >'$T/json'"
    [ "$(jq -c '[.plan, .input.tensors, .output.tensors, .counts[-1].blocks, .counts[-1].lossy]' "$T/json")" = \
        '[false,667,1051,196608,0]' ]
    [ "$(jq '.file_bytes' "$T/json")" -eq "$(cat "$T"/out/*.safetensors | wc -c)" ]
}

@test "-n: the plan, and nothing is written" {
    pipeline "st-read -n '$NANO' | st-write -n '$T/out' >'$T/plan'"
    grep -q '^in .* 667 tensors' "$T/plan"
    [ ! -e "$T/out" ]
    [ ! -e "$T/out.partial" ]
    # A plan cannot be written for real.
    run pipeline "st-read -n '$NANO' | st-write '$T/out'"
    [ "$status" -eq 1 ]
    [ ! -e "$T/out" ]
}

@test "a plan needs -n here, too" {
    run pipeline "st-read -n '$NANO' | st-write '$T/out'"
    [ "$status" -eq 1 ]
    [[ $output == *'is a plan, without tensors; run its stages without -n'* ]]
    [ ! -e "$T/out" ]
}

# traced LOG COMMAND: a shell command under strace, which names the files of descriptors; skips the test
# where there is no strace, or no permission to trace.
traced() {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    strace -f -y -o "$1" -e trace=fsync,rename,renameat,renameat2 bash -o pipefail -c "$2"
}

@test "every file is on disk before the folder gets its name" {
    traced "$T/log" "st-read '$NANO' | st-write -q '$T/out'"
    renamed=$(grep -n 'rename.*out\.partial' "$T/log" | head -n 1 | cut -d: -f1)
    [ -n "$renamed" ]
    for file in "$T"/out/*; do
        synced=$(grep -nE "fsync\(.*/out\.partial/${file##*/}>\) += 0" "$T/log" | tail -n 1 | cut -d: -f1)
        [ "${synced:-$renamed}" -lt "$renamed" ]
    done
}

@test "-o FILE: on disk before it gets its name" {
    traced "$T/log" "st-read -o '$T/a.ts' '$NANO'"
    mapfile -t order < <(grep -oE '(fsync|rename)[a-z0-9]*\(.*a\.ts\.partial' "$T/log" | grep -oE '^[a-z]+')
    [ "${order[*]}" = 'fsync rename' ]
}

# reflinking FOLDER: a new filesystem there that shares pages; skips the test where that cannot be.
reflinking() {
    local mkfs
    mkfs=$(PATH=$PATH:/usr/sbin:/sbin command -v mkfs.xfs) || skip 'mkfs.xfs is missing'
    [ "$(id -u)" -eq 0 ] || skip 'only root can mount'
    truncate -s 400M "$1.img"
    "$mkfs" -q -m reflink=1 "$1.img" || skip 'mkfs.xfs fails here'
    mkdir "$1"
    mount -o loop "$1.img" "$1" 2>/dev/null || skip 'loop mounts are not allowed here'
}

@test "on a filesystem that can, whole pages are shared with the source" {
    reflinking "$T/xfs"
    cp -r "$NANO" "$T/xfs/in"
    pipeline "st-read '$T/xfs/in' | st-write -q --json '$T/xfs/out' >'$T/json'" &&
        st-cmp "$T/xfs/in" "$T/xfs/out" &&
        pipeline "st-read '$T/xfs/in' | st-write -v '$T/xfs/again' 2>'$T/said'" || failed=1
    umount "$T/xfs"
    [ -z "${failed-}" ]
    shared=$(jq .shared_bytes "$T/json")
    [ "$shared" -gt 0 ]
    said=$(awk -v n="$shared" 'BEGIN { printf "%.1f MB", n / 1e6 }')
    grep -q "^shared with the source $said, " "$T/said"
}

@test "dequantized experts: what is NVFP4 leaves the configs again" {
    amaxes "$T/amax.ts"
    pipeline "nvfp4-cast --amax '$T/amax.ts' '$NANO' | st-write -q '$T/nvfp4'"
    # Copied as it is, it keeps its configs; the record is that of the copy.
    pipeline "st-read '$T/nvfp4' | st-write -q '$T/copy'"
    diff -r -x quant-run.json "$T/nvfp4" "$T/copy"
    [ "$(jq -c '[.stages[].program]' "$T/nvfp4/quant-run.json" "$T/copy/quant-run.json")" = \
        $'["nvfp4-cast","st-write"]\n["st-write"]' ]
    pipeline "nvfp4-unpack '$T/nvfp4' | st-write -q '$T/mixed'"
    [ ! -e "$T/mixed/hf_quant_config.json" ]
    [ "$(jq -c '.quantization_config | keys' "$T/mixed/config.json")" = \
        '["activation_scheme","fmt","quant_method","scale_fmt","weight_block_size"]' ]
}

@test "--no-share forbids sharing; -v says how the bytes went" {
    run pipeline "st-read '$NANO' | st-write -v --no-share '$T/out'"
    [ "$status" -eq 0 ]
    [[ $output == *'shared with the source 0 B'* ]]
}
