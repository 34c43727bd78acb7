load common
load craft

@test "the same bytes whether it dequantizes itself or others did before" {
    amaxes "$T/amax.ts"
    pipeline "nvfp4-pack --amax '$T/amax.ts' '$NANO' >'$T/own.ts'"
    pipeline "mxfp4-unpack '$NANO' | nvfp4-pack --amax '$T/amax.ts' >'$T/after.ts'"
    # mxfp4-unpack took MTP's experts along, which the recipe leaves alone.
    diff <(digests "$T/own.ts" | grep -v ^mtp) <(digests "$T/after.ts" | grep -v ^mtp)
    diff <(digests "$T/own.ts") <(golden "$GOLDEN/modelopt-lossy.tsv")
}

# fp8_recipe: $T/recipe.json, of every FP8 matrix of attention and shared experts ($T/modules), and $T/amax.ts:
# weight amaxes are taken from the weights.
fp8_recipe() {
    jq '.formats = {"layers.*.attn.w[qk]*": "NVFP4", "layers.*.ffn.shared_experts.*": "NVFP4"}' \
        pipelines/recipes/deepseek_v4/experts.json >"$T/recipe.json"
    st-read "$NANO" | tar xOf - .toc | cut -f1 |
        sed -nE 's/^(layers\.[0-9]+\.(attn\.w[qk]|ffn\.shared_experts).*)\.weight$/\1/p' >"$T/modules"
    # An amax stream from a crafted checkpoint of one scalar (8.0) each.
    header='' data='' i=0
    while read -r module; do
        header+="${header:+,}\"${module}_input_quantizer._amax\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[$i,$((i + 4))]}"
        data+='\0\0\0\x41'
        i=$((i + 4))
    done <"$T/modules"
    safetensors "$T/amax.safetensors" "{$header}" "$data"
    pipeline "amax-merge '$T/amax.safetensors' >'$T/amax.ts'"
}

@test "FP8 weights too, under a recipe of one's own" {
    fp8_recipe
    pipeline "nvfp4-pack --recipe '$T/recipe.json' --amax '$T/amax.ts' '$NANO' >'$T/own.ts'"
    pipeline "fp8-dequant '$NANO' | nvfp4-pack --recipe '$T/recipe.json' --amax '$T/amax.ts' >'$T/after.ts'"
    tar xOf "$T/own.ts" .toc | grep -c 'weight_scale_2' | grep -qx "$(wc -l <"$T/modules")"
    diff <(digests "$T/own.ts" | grep weight_scale) <(digests "$T/after.ts" | grep weight_scale)
    # input_scale = 8 / (6 * 448)
    tar xOf "$T/own.ts" layers.0.ffn.shared_experts.w1.input_scale | od -An -tf4 | grep -q '0\.0029761'
}

@test "weight amaxes come from the dump, or from the weight, and that is counted" {
    amaxes "$T/amax.ts"
    pipeline "nvfp4-pack --amax '$T/amax.ts' '$NANO' >'$T/a.ts'"
    [ "$(tar xOf "$T/a.ts" .end | jq '.counts[0].weight_amax_synthesized')" -eq 3 ]
    pipeline "st-grep --invert weight_quantizer '$T/amax.ts' >'$T/inputs.ts'"
    pipeline "nvfp4-pack --amax '$T/inputs.ts' '$NANO' >'$T/b.ts'"
    [ "$(tar xOf "$T/b.ts" .end | jq '.counts[0].weight_amax_synthesized')" -eq 192 ]
    # The dump's are those of the weights: the same bytes.
    diff <(digests "$T/a.ts") <(digests "$T/b.ts")
}

# big: two matrices that share a scale, as $T/inline.ts and by reference as $T/big.ts, and their amaxes in $T/amax.ts.
big() {
    # Two halves of 40 MiB of BF16 zeros and one row: together they are over the 64 MiB held in memory.
    name=layers.0.ffn.experts.0
    half=$((5121 * 4096 * 2))
    mkdir "$T/big"
    safetensors "$T/big/model.safetensors" \
        "{\"$name.w1.weight\":{\"dtype\":\"BF16\",\"shape\":[5121,4096],\"data_offsets\":[0,$half]},\"$name.w3.weight\":{\"dtype\":\"BF16\",\"shape\":[5121,4096],\"data_offsets\":[$half,$((2 * half))]}}"
    data=$(wc -c <"$T/big/model.safetensors")
    truncate -s +$((2 * half)) "$T/big/model.safetensors"
    # 1.0 in the first row of the second half, which spools
    printf '\x80\x3f' | dd of="$T/big/model.safetensors" bs=1 seek=$((data + half + 10)) conv=notrunc status=none
    echo '{"model_type": "deepseek_v4"}' >"$T/big/config.json"
    header='' i=0
    for w in w1 w3; do
        header+="${header:+,}\"$name.${w}_input_quantizer._amax\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[$i,$((i + 4))]}"
        i=$((i + 4))
    done
    safetensors "$T/amax.safetensors" "{$header}" '\0\0\0\x41\0\0\0\x41'
    pipeline "amax-merge '$T/amax.safetensors' >'$T/amax.ts'"
    st-read --allow-zeros -o "$T/big.ts" "$T/big"
    st-read --inline -o "$T/inline.ts" "$T/big.ts"
}

@test "a matrix too large for memory spools to TMPDIR" {
    big
    TMPDIR=$T/none run nvfp4-pack --amax "$T/amax.ts" -o "$T/x.ts" "$T/inline.ts"
    [ "$status" -ne 0 ]
    [[ $output == *"cannot spool to \$TMPDIR, $T/none"* ]]
    [ ! -e "$T/x.ts" ]
    mkdir "$T/tmp"
    a=$(pipeline "TMPDIR='$T/tmp' nvfp4-pack --amax '$T/amax.ts' '$T/inline.ts' | st-sum")
    b=$(pipeline "TMPDIR='$T/none' nvfp4-pack --amax '$T/amax.ts' '$T/big.ts' | st-sum")
    [ "$a" = "$b" ]
    [ -z "$(ls -A "$T/tmp")" ]
    # Nothing said, it is /tmp.
    for unset in TMPDIR= '-u TMPDIR'; do
        c=$(pipeline "env $unset nvfp4-pack --amax '$T/amax.ts' '$T/inline.ts' | st-sum")
        [ "$a" = "$c" ]
    done
}

@test "what was spooled cannot be written, or read back, or takes several turns" {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    big
    # with INJECTION...: nvfp4-pack, some of whose calls end otherwise.
    with() {
        strace -f -qq -o /dev/null "${@/#/--inject=}" nvfp4-pack --amax "$T/amax.ts" "$T/inline.ts"
    }
    with write:error=EINTR:when=2+3 pread64:error=EINTR:when=5+3 | st-sum >"$T/a"
    nvfp4-pack --amax "$T/amax.ts" "$T/big.ts" | st-sum | cmp - "$T/a"
    run with write:error=ENOSPC:when=9
    [[ $output == *"w3.weight: spooling to \$TMPDIR, "*': No space left'* ]]
    for what in error=EIO retval=0; do
        run with "pread64:$what:when=20"
        [[ $output == *"w3.weight: reading back from \$TMPDIR"* ]]
    done
}

@test "an all-zero pair packs to zeros and is counted" {
    st-read --inline "$NANO" >"$T/inline.ts"
    mkdir "$T/tree"
    tar xf "$T/inline.ts" -C "$T/tree"
    for w in w1 w3; do
        truncate -s 0 "$T/tree/layers.0.ffn.experts.0.$w.weight"
        truncate -s 16384 "$T/tree/layers.0.ffn.experts.0.$w.weight"
    done
    tar tf "$T/inline.ts" >"$T/order"
    unseal
    tar -C "$T/tree" --format=ustar --no-recursion -cf "$T/zero.ts" -T "$T/order"
    amaxes "$T/amax.ts"
    pipeline "st-grep --invert weight_quantizer '$T/amax.ts' >'$T/inputs.ts'"
    pipeline "nvfp4-pack --amax '$T/inputs.ts' '$T/zero.ts' >'$T/out.ts'"
    [ "$(tar xOf "$T/out.ts" .end | jq '.counts[0].zero_weights')" -eq 2 ]
    [ -z "$(tar xOf "$T/out.ts" layers.0.ffn.experts.0.w1.weight | tr -d '\0')" ]
    # With an amax of 0 in the dump for a weight that is not zero, the two do not belong together.
    cp "$T/amax.ts" "$T/bad.ts"
    mkdir "$T/amaxes"
    tar xf "$T/amax.ts" -C "$T/amaxes"
    for w in w1 w3; do
        printf '\0\0\0\0' >"$T/amaxes/layers.0.ffn.experts.1.${w}_weight_quantizer._amax"
    done
    tar tf "$T/amax.ts" >"$T/order"
    unseal "$T/amaxes"
    tar -C "$T/amaxes" --format=ustar --no-recursion -cf "$T/bad.ts" -T "$T/order"
    run nvfp4-pack --amax "$T/bad.ts" -o "$T/x.ts" "$NANO"
    [ "$status" -eq 1 ]
    [[ $output == *'layers.0.ffn.experts.1.w1.weight: its weight amax is 0'* ]]
}

# signal STREAM: how far the packed matrices are above their errors, in dB, on average.
signal() {
    st-cmp --values "$NANO" "$1" | sed -nE 's/.*SQNR ([0-9.]+) dB/\1/p' |
        awk '{ n++; sum += $1 } END { print sum / n }'
}

@test "searches lose less, also when others dequantized before; any codec makes the same bytes" {
    fp8_recipe
    options="--recipe '$T/recipe.json' --amax '$T/amax.ts'"
    pipeline "fp8-dequant '$NANO' >'$T/bf16.ts'"
    for search in max mse 4over6; do
        pipeline "nvfp4-pack $options --scale-search $search '$NANO' >'$T/$search.ts'"
        digests "$T/$search.ts" | grep weight >"$T/$search"
        pipeline "nvfp4-pack $options --scale-search $search '$T/bf16.ts' >'$T/after.ts'"
        diff <(grep 'w[1-3k].*weight_scale' "$T/$search") \
            <(digests "$T/after.ts" | grep 'w[1-3k].*weight_scale')
        for cpu in portable avx2; do
            nvfp4-pack --cpu $cpu 2>&1 | grep -q 'has no' && continue
            pipeline "nvfp4-pack --cpu $cpu $options --scale-search $search '$NANO' >'$T/cpu.ts'"
            digests "$T/cpu.ts" | grep weight | diff - "$T/$search"
        done
    done
    # 10 * log10(1 / 0.74) is 1.3; 10 * log10(1 / 0.89) is 0.5.
    awk -v max="$(signal "$T/max.ts")" -v mse="$(signal "$T/mse.ts")" -v four="$(signal "$T/4over6.ts")" \
        'BEGIN { exit !(mse > max + 1.2 && mse < max + 1.6 && four > max + 0.5 && four < max + 1) }'
}

@test "scale_2 of a search, and what the history says" {
    amaxes "$T/amax.ts"
    nvfp4-pack --amax "$T/amax.ts" "$NANO" >"$T/max.ts"
    for search in mse 4over6; do
        nvfp4-pack --amax "$T/amax.ts" --scale-search $search "$NANO" >"$T/$search.ts"
        tar xOf "$T/$search.ts" .stream | jq -e --arg search $search \
            '.history[-1].options == ["--scale-search=" + $search]'
    done
    scale_2() { tar xOf "$T/$1.ts" layers.1.ffn.experts.3.w2.weight_scale_2 | od -An -tf4; }
    [ "$(scale_2 mse)" = "$(scale_2 max)" ]
    awk -v four="$(scale_2 4over6)" -v max="$(scale_2 max)" \
        'BEGIN { exit !(four / max > 1.7499 && four / max < 1.7501) }' # 448 / 256
    run nvfp4-pack --amax "$T/amax.ts" --scale-search best "$NANO"
    [ "$status" -eq 2 ]
}
