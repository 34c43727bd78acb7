load common
load craft

# moved CHECKPOINT NAMES_REGEX SHARD: the bundled checkpoint with some tensors in another shard.
moved() {
    st-read --inline "$NANO" >"$T/inline.ts"
    mkdir "$T/tree"
    tar xf "$T/inline.ts" -C "$T/tree"
    awk -F'\t' -v OFS='\t' -v names="^$2\$" -v shard="$3" '$1 ~ names { $4 = shard } 1' \
        "$T/tree/.toc" >"$T/toc"
    mv "$T/toc" "$T/tree/.toc"
    tar tf "$T/inline.ts" >"$T/order"
    unseal
    tar -C "$T/tree" --format=ustar --owner=0 --group=0 --no-recursion -cf "$T/moved.ts" -T "$T/order"
    st-write -q "$1" "$T/moved.ts"
}

@test "w1 and w3 share weight_scale_2 also when they lie in different shards" {
    # The largest exponent of this w3 is above its w1's: only a fused scale gives the golden bytes.
    moved "$T/source" 'layers\.0\.ffn\.experts\.10\.w3\.(scale|weight)' model-00003-of-00003.safetensors
    [ "$(st-read "$T/source" | tar xOf - .toc | grep -c 'experts\.10\.w3.*00003-of')" -gt 0 ]
    amaxes "$T/amax.ts"
    pipeline "nvfp4-cast --zero=positive --amax '$T/amax.ts' '$T/source' | st-write -q '$T/out'"
    diff <(digests "$T/out") <(golden "$GOLDEN/modelopt-cast.tsv")
    jq -r '.weight_map["layers.0.ffn.experts.10.w3.weight_scale"]' \
        "$T/out/model.safetensors.index.json" | grep -q 00003-of
    pipeline "nvfp4-pack --amax '$T/amax.ts' '$T/source' | st-write -q '$T/lossy'"
    diff <(digests "$T/lossy") <(golden "$GOLDEN/modelopt-lossy.tsv")
}

@test "w3 alone would have another scale (the test above can fail)" {
    st-read --inline "$NANO" >"$T/a.ts"
    largest() { # of the scale bytes of layers.0.ffn.experts.10.$1
        tar xOf "$T/a.ts" "layers.0.ffn.experts.10.$1.scale" | od -An -v -tu1 -w1 | sort -n | tail -n 1
    }
    [ "$(largest w3)" -gt "$(largest w1)" ]
}

# larger_input_amax STREAM MODULE OUT: an amax stream that did not come from amax-merge: MODULE's input amax
# is 4096, its partner's is as it was.
larger_input_amax() {
    mkdir "$3.tree"
    tar xf "$1" -C "$3.tree"
    printf '\0\0\x80\x45' >"$3.tree/$2_input_quantizer._amax"
    tar tf "$1" >"$3.order"
    unseal "$3.tree"
    tar -C "$3.tree" --format=ustar --no-recursion -cf "$3" -T "$3.order"
}

@test "input_scale of both halves is of the larger input amax, whichever has it" {
    amaxes "$T/amax.ts"
    for w in w1 w3; do
        larger_input_amax "$T/amax.ts" layers.1.ffn.experts.2.$w "$T/$w.ts"
        for program in nvfp4-cast nvfp4-pack; do
            "$program" --amax "$T/$w.ts" "$NANO" >"$T/out.ts"
            for half in w1 w3; do # 4096 / (6 * 448)
                tar xOf "$T/out.ts" "layers.1.ffn.experts.2.$half.input_scale" |
                    od -An -tf4 | grep -q '1\.52380'
            done
        done
    done
}

@test "weights pass by reference, only scales are inline" {
    amaxes "$T/amax.ts"
    st-read "$NANO" | nvfp4-cast --amax "$T/amax.ts" >"$T/cast.ts"
    tar tvf "$T/cast.ts" | grep 'layers.3.ffn.experts.7.w1.weight ->' | grep -q 'safetensors@'
    [ "$(tar tvf "$T/cast.ts" | grep -c '^l')" -eq 475 ]
    tar tvf "$T/cast.ts" | grep 'layers.3.ffn.experts.7.w1.weight_scale$' | grep -q ^-
}

@test "parts of a checkpoint, cast one by one, are the whole" {
    amaxes "$T/amax.ts"
    for i in 1 2 3; do
        pipeline "st-read --part $i/3 '$NANO' | nvfp4-cast --zero=positive --amax '$T/amax.ts' |
            st-write -q --partial '$T/part$i'"
        digests "$T/part$i" >>"$T/all"
    done
    diff <(LC_ALL=C sort "$T/all") <(golden "$GOLDEN/modelopt-cast.tsv")
}

@test "a fused pair that is split by parts shares its scale through context" {
    moved "$T/source" 'layers\.0\.ffn\.experts\.10\.w3\.(scale|weight)' model-00003-of-00003.safetensors
    amaxes "$T/amax.ts"
    for i in 1 2 3; do
        for program in "nvfp4-cast --zero=positive" nvfp4-pack; do
            pipeline "st-read --part $i/3 '$T/source' | $program --amax '$T/amax.ts' |
                st-write -q --partial '$T/part'"
            digests "$T/part" >>"$T/${program%% *}"
            rm -r "$T/part"
        done
    done
    diff <(LC_ALL=C sort "$T/nvfp4-cast") <(golden "$GOLDEN/modelopt-cast.tsv")
    diff <(LC_ALL=C sort "$T/nvfp4-pack") <(golden "$GOLDEN/modelopt-lossy.tsv")
}

@test "blocks out of range are counted and only they are rewritten" {
    fixtures v4-mini
    amaxes "$T/nano.ts"
    pipeline "pt-read '$FIXTURES/golden/amax' | amax-merge --model '$FIXTURES/ckpt' >'$T/amax.ts'"
    run nvfp4-cast -v -o "$T/cast.ts" --amax "$T/amax.ts" "$FIXTURES/ckpt"
    [ "$status" -eq 0 ]
    [ "${#lines[@]}" -eq 3 ] # w1, w3 and w2 of one expert
    [[ ${lines[0]} == *layers.2.ffn.experts.7.w1.weight:* ]]
    [ "$(tar xOf "$T/cast.ts" .end | jq '.counts[0].lossy')" -eq 14 ]
    [ "$(tar tvf "$T/cast.ts" | grep -c '^-.*experts.*\.weight$')" -eq 3 ]
}

@test "inline or by reference: the same tensors" {
    amaxes "$T/amax.ts"
    a=$(pipeline "nvfp4-cast --amax '$T/amax.ts' '$NANO' | st-sum")
    b=$(pipeline "st-read --inline '$NANO' | nvfp4-cast --amax '$T/amax.ts' | st-sum")
    [ "$a" = "$b" ]
}

@test "a missing amax is an error that names the expert and the way out" {
    pipeline "pt-read '$NANO_AMAX' | st-grep --invert 'layers\.1\.ffn\.experts\.5\.w2_input' >'$T/cut.ts'"
    run nvfp4-cast --amax "$T/cut.ts" -o "$T/out.ts" "$NANO"
    [ "$status" -eq 1 ]
    [[ $output == *'layers.1.ffn.experts.5.w2 has no input amax'*'--fallback'* ]]
    [ ! -e "$T/out.ts" ]
}

@test "a plan names what would come, and needs no tensor" {
    amaxes "$T/amax.ts"
    pipeline "st-read -n '$NANO' | nvfp4-cast -n --amax '$T/amax.ts' >'$T/plan.ts'"
    pipeline "st-read '$NANO' | nvfp4-cast --amax '$T/amax.ts' >'$T/run.ts'"
    cmp <(tar xOf "$T/plan.ts" .toc) <(tar xOf "$T/run.ts" .toc)
    [ "$(tar xOf "$T/plan.ts" .end | jq -c '[.tensors, .plan]')" = '[0,true]' ]
    # Nor the amaxes, before there are any.
    for program in nvfp4-cast nvfp4-pack; do
        "$program" -n --amax "$T/amax.ts" "$NANO" | tar xOf - .toc >"$T/with"
        "$program" -n "$NANO" | tar xOf - .toc | cmp - "$T/with"
    done
}

@test "without --amax, or with a wrong choice: usage" {
    run nvfp4-cast "$NANO"
    [ "$status" -eq 2 ]
    run nvfp4-cast --amax x --zero=maybe "$NANO"
    [ "$status" -eq 2 ]
}

# recipe_of FOLDER [OPTION...]: the name of the recipe that a plan for the checkpoint takes.
recipe_of() {
    nvfp4-cast -n --amax "$T/amax.ts" "${@:2}" "$1" | tar xOf - .stream | jq -r .quant.recipe
}

@test "recipes: where they are looked for, and what is said if they are not there" {
    amaxes "$T/amax.ts"
    mkdir -p "$T/pipelines/recipes/deepseek_v4" "$T/bin" "$T/bare"
    jq '.name = "mine"' pipelines/recipes/deepseek_v4/experts.json >"$T/pipelines/recipes/deepseek_v4/experts.json"
    [ "$(recipe_of "$NANO")" = experts ]
    [ "$(SEEKPIPE_RECIPES='' recipe_of "$NANO")" = experts ]
    [ "$(SEEKPIPE_RECIPES=$T/pipelines/recipes recipe_of "$NANO")" = mine ]
    [ "$(recipe_of "$NANO" --recipe "$T/pipelines/recipes/deepseek_v4/experts.json")" = mine ]
    run recipe_of "$NANO" --recipe other
    [[ $output == *"no recipe 'other' for model type deepseek_v4, which has experts, full, mlp; a name with '/' is a recipe's file"* ]]
    run recipe_of "$NANO" --recipe ./other
    [[ $output == *'./other: No such file or directory'* ]]
    cp "$NANO"/*.safetensors "$T/bare"
    run recipe_of "$T/bare" --recipe other
    [[ $output == *"no recipe 'other': the source has no config.json, or one with a model_type that is not known here"* ]]
    # Beside the program, and in no folder above it.
    cp "$(command -v nvfp4-cast)" "$T/bin"
    PATH=$T/bin:$PATH
    [ "$(recipe_of "$NANO")" = mine ]
    rm -r "$T/pipelines"
    run recipe_of "$NANO"
    [[ $output == *"no folder of recipes beside the programs; name one in \$SEEKPIPE_RECIPES"* ]]
}

@test "amaxes of another model are refused in the plan, by both programs; with a part of a checkpoint they are not told" {
    dump "$T/other.safetensors" 4 17
    for program in nvfp4-cast nvfp4-pack; do
        refused 'other\.safetensors: has amaxes of 68 routed experts, but .* has 80 routed experts, and lacks 4' \
            "$program" -n --amax "$T/other.safetensors" "$NANO"
        refused 'has amaxes of 68 routed experts' "$program" --amax "$T/other.safetensors" "$NANO"
        pipeline "st-read --layers 0-0 '$NANO' | $program -q -n --amax '$T/other.safetensors' >'$T/plan.ts'"
    done
}

# byte FILE OFFSET OCTAL [COUNT]: set some bytes of a file of $T/tree.
byte() {
    printf "%${4-1}s" '' | tr ' ' "\\$3" | dd of="$T/tree/$1" bs=1 seek="$2" conv=notrunc status=none
}

@test "--window best keeps more blocks than max, where small codes have the largest scales" {
    unpack "$NANO"
    w=layers.1.ffn.experts.3.w2 # [256, 128]: 4 blocks a row
    largest=$(od -An -v -tu1 -w1 "$T/tree/$w.scale" | sort -n | tail -n 1)
    byte $w.scale 5 "$(printf %o $((largest + 6)))" # zeros
    byte $w.weight 80 0 16
    byte $w.scale 6 "$(printf %o $((largest + 2)))" # 1.5 and 1
    byte $w.weight 96 43 16
    byte $w.scale 7 "$(printf %o $((largest - 16)))" # in range but for those
    pack "$T/in.ts"
    amaxes "$T/amax.ts"
    for window in max best; do
        nvfp4-cast -q --window $window --amax "$T/amax.ts" -o "$T/$window.ts" "$T/in.ts"
        st-cmp --values "$T/in.ts" "$T/$window.ts" >"$T/$window" || true
    done
    counts() { tar xOf "$1" .end | jq -c '.counts[0] | [.lossy, .rewritten]'; }
    [ "$(counts "$T/max.ts")" = '[1,1]' ]
    [ "$(counts "$T/best.ts")" = '[0,2]' ] # the two with the large scales, without loss
    grep -q "^$w.weight: .* differ" "$T/max"
    grep -q ' equal, 0 differ,' "$T/best"
    # Without a block that loses anything, both are the same, and the weight passes by reference.
    for window in max best; do
        nvfp4-cast --window $window --amax "$T/amax.ts" "$NANO" >"$T/$window.ts"
    done
    [ "$(st-sum "$T/max.ts")" = "$(st-sum "$T/best.ts")" ]
    tar tvf "$T/best.ts" | grep "$w.weight ->" | grep -q 'safetensors@'
}

@test "scales that are all zero: as the reference has it under --zero positive" {
    unpack "$NANO"
    w=layers.1.ffn.experts.3
    byte $w.w2.scale 0 0 "$(stat -c %s "$T/tree/$w.w2.scale")"
    byte $w.w1.scale 0 0 "$(stat -c %s "$T/tree/$w.w1.scale")"
    pack "$T/in.ts"
    amaxes "$T/amax.ts"
    scale_2() { tar xOf "$1" "$w.$2.weight_scale_2" | od -An -tx4 --endian=little; }
    nvfp4-cast -q --amax "$T/amax.ts" "$T/in.ts" >"$T/keep.ts"
    [ "$(scale_2 "$T/keep.ts" w2)" = ' 00004000' ] # 2^-135: the codes keep their values
    nvfp4-cast -q --zero positive --amax "$T/amax.ts" "$T/in.ts" >"$T/positive.ts"
    [ "$(scale_2 "$T/positive.ts" w2)" = ' 3b800000' ] # 2^-8
    [ -z "$(tar xOf "$T/positive.ts" "$w.w2.weight_scale" | tr -d '\1')" ]
    # The reference takes the larger k_max of two partners: w1's 0. w3 has the same values under it.
    [ "$(scale_2 "$T/positive.ts" w1)$(scale_2 "$T/positive.ts" w3)" = ' 3b800000 3b800000' ]
    [ "$(scale_2 "$T/keep.ts" w3)" != ' 3b800000' ]
    st-cmp --values "$T/keep.ts" "$T/positive.ts" >"$T/differ" || [ $? -eq 1 ]
    [ "$(grep -c 'w3.weight: .* differ' "$T/differ")" = 0 ]
}
