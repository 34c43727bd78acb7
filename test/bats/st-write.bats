# shellcheck disable=SC2030,SC2031 # functions run commands for several tests
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

# same PATTERN COMMAND...: exits 0 and says so.
same() {
    run "${@:2}"
    [ "$status" -eq 0 ] && [[ $output =~ $1 ]]
}

# differs PATTERN STREAM: is refused for $T/out, also as a plan.
differs() {
    local plan
    for plan in '' -n; do
        # shellcheck disable=SC2086
        run st-write $plan "$T/out" "$2"
        [ "$status" -eq 1 ]
        [ "${#lines[@]}" -eq 1 ]
        [[ $output =~ out:\ is\ complete,\ but\ not\ of\ the\ same\ input\ and\ options:\ .*$1.*';'\ choose\ another\ folder,\ or\ --overwrite\ it$ ]]
    done
}

@test "the same command once more: complete already; another one: what differs" {
    cp -r "$NANO" "$T/source"
    chmod -R u+w "$T/source"
    amaxes "$T/amax.ts"
    cast="nvfp4-cast -q --amax '$T/amax.ts'"
    pipeline "$cast '$T/source' | st-write -q '$T/out'"
    cp -r "$T/out" "$T/before"
    pipeline "$cast -o '$T/a.ts' '$T/source'"
    pipeline "$cast -n -o '$T/plan.ts' '$T/source'"
    nvfp4-cast -n -o "$T/without.ts" "$T/source"
    complete='out: complete already, of the same input and options'
    same "$complete"'$' st-write "$T/out" "$T/a.ts"
    same "$complete; verified"'$' st-write --verify "$T/out" "$T/a.ts"
    same '^$' st-write -q "$T/out" "$T/a.ts"
    same '"complete": true' st-write --json "$T/out" "$T/a.ts"
    # A plan says the same on standard output; before a calibration it has no amaxes.
    for plan in plan without a; do
        same "$complete"'$' bash -c "st-write -n '$T/out' '$T/$plan.ts' 2>/dev/null"
    done
    # By another way to the same, from a copy of the source, and with other files around.
    same "$complete" bash -c "st-read --inline '$T/source' | $cast | st-write --verify '$T/out'"
    cp -r "$T/source" "$T/other"
    pipeline "st-read '$T/other' | $cast >'$T/b.ts'"
    same "$complete" st-write "$T/out" "$T/b.ts"

    pipeline "$cast --zero positive -o '$T/b.ts' '$T/source'"
    differs 'nvfp4-cast had no options, and has --zero=positive here' "$T/b.ts"
    st-read "$T/source" >"$T/b.ts"
    differs 'it is the result of nvfp4-cast [|] st-write, and this is st-write' "$T/b.ts"
    st-stat --tsv "$T/amax.ts" >/dev/null
    amaxes "$T/amax2.ts" projection-max
    nvfp4-cast --amax "$T/amax2.ts" -o "$T/b.ts" "$T/source"
    cmp -s <(st-sum "$T/amax.ts") <(st-sum "$T/amax2.ts") || differs 'nvfp4-cast had another amax' "$T/b.ts"
    echo '{ }' >"$T/other/generation_config.json"
    pipeline "$cast -o '$T/b.ts' '$T/other'"
    differs 'its source had another generation_config.json' "$T/b.ts"
    rm "$T/other/generation_config.json"
    pipeline "$cast -o '$T/b.ts' '$T/other'"
    differs 'its source had generation_config.json, this one has not' "$T/b.ts"
    cp "$T/source/generation_config.json" "$T/source/config.json" "$T/other"
    echo new >"$T/other/new.txt"
    pipeline "$cast -o '$T/b.ts' '$T/other'"
    differs 'its source had no new.txt, this one has' "$T/b.ts"
    rm "$T/other/new.txt"
    # Another model of the same shapes: its bytes, not its names and sizes, tell.
    head -c 4096 /dev/urandom | dd of="$T/other/model-00002-of-00003.safetensors" bs=1 conv=notrunc status=none \
        seek=$(($(stat -c %s "$T/other/model-00002-of-00003.safetensors") - 1000)) count=1000
    pipeline "$cast -o '$T/b.ts' '$T/other'"
    differs 'its source had another model-00002-of-00003.safetensors' "$T/b.ts"
    diff -r "$T/before" "$T/out"
}

@test "complete already: only what is there, and readable, counts" {
    st-read "$NANO" >"$T/a.ts"
    st-write -q "$T/whole" "$T/a.ts"
    # shellcheck disable=SC2016 # for the inner shell
    for harm in 'rm "$file"' 'truncate -s -1 "$file"' ': >"$out/quant-run.json"' 'rm "$out/quant-run.json"'; do
        rm -rf "$T/out"
        cp -r "$T/whole" "$T/out"
        out=$T/out file=$T/out/model-00002-of-00003.safetensors bash -c "$harm"
        for plan in '' -n; do
            # shellcheck disable=SC2086
            run st-write $plan "$T/out" "$T/a.ts"
            [ "$status" -eq 1 ]
            [[ $output =~ (model-00002-of-00003.safetensors (is not there|has another size)|is not empty).*--overwrite ]]
        done
    done
    # A plan is no stream of a real run here either.
    st-read -n "$NANO" >"$T/plan.ts"
    run st-write --verify "$T/whole" "$T/plan.ts"
    [ "$status" -eq 1 ]
    [[ $output == *'is a plan, without tensors'* ]]
    # --verify reads it.
    rm -rf "$T/out"
    cp -r "$T/whole" "$T/out"
    for stream in "$T/a.ts" <(st-read --inline "$NANO"); do
        printf 'xyz' | dd of="$T/out/model-00002-of-00003.safetensors" bs=1 seek=2000000 conv=notrunc status=none
        run st-write --verify "$T/out" "$stream"
        [ "$status" -eq 1 ]
        [[ $output == *'model-00002-of-00003.safetensors: tensor '*' is not what the stream gives, from offset 200000'* ]]
    done
    printf ' ' | dd of="$T/out/model-00001-of-00003.safetensors" bs=1 seek=20 conv=notrunc status=none
    run st-write --verify "$T/out" "$T/a.ts"
    [ "$status" -eq 1 ]
    [[ $output == *'its header is not what the stream gives'* ]]
    # A stream that is cut does not become a success.
    head -c 300000 "$T/a.ts" >"$T/cut.ts"
    run st-write "$T/whole" "$T/cut.ts"
    [ "$status" -eq 1 ]
    # --overwrite writes again.
    st-write -q --overwrite "$T/out" "$T/a.ts"
    diff -r "$T/whole" "$T/out"
}

@test "quant-run.json: the stages and sources, the same for the same, no time and no path" {
    amaxes "$T/amax.ts"
    nvfp4-cast --amax "$T/amax.ts" "$NANO" | st-write -q "$T/a"
    cp -r "$NANO" "$T/source"
    st-read "$T/source" | nvfp4-cast -j 1 --amax "$T/amax.ts" | st-write -q --no-share "$T/b"
    diff -r "$T/a" "$T/b"
    [ "$(jq -c '[.stages[] | .program, .options]' "$T/a/quant-run.json")" = '["nvfp4-cast",[],"st-write",[]]' ]
    [ "$(jq -r '.stages[0].amax' "$T/a/quant-run.json" | wc -c)" = 65 ]
    [ "$(jq -r '.sources[0] | .file, .bytes' "$T/a/quant-run.json")" = \
        "model-00001-of-00003.safetensors"$'\n'"$(stat -c %s "$NANO/model-00001-of-00003.safetensors")" ]
    [ "$(grep -c "$T" "$T/b/quant-run.json")" = 0 ]
    # A checkpoint with a record is a source like any other; the new one gets its own.
    st-read "$T/a" | st-write -q "$T/copy"
    [ "$(jq -r '.sources[].file' "$T/copy/quant-run.json" | grep -c quant-run)" = 1 ]
    run pipeline "st-read '$T/a' | st-write '$T/copy'"
    [ "$status" -eq 0 ]
    [[ $output == *'complete already'* ]]
}

# traced LOG COMMAND: a shell command under strace, which names the files of descriptors; skips the test
# where there is no strace, or no permission to trace.
traced() {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    strace -f -y -o "$1" -e trace=fsync,linkat,rename,renameat,renameat2 bash -o pipefail -c "$2"
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
    mapfile -t order < <(grep -oE '(fsync\(|linkat\(.*a\.ts")' "$T/log" | grep -oE '^[a-z]+')
    [ "${order[*]}" = 'fsync linkat' ]
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
