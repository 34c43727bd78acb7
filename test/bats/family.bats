# A family is a file and a line: test/data/toy/family.c goes into a copy of the project, and every program
# knows its names, groups, layers, dumps and blocks.

# shellcheck disable=SC2034 # add, of craft.bash, uses what it is not given

load common
load craft

# Build the programs named with the family in a copy of the project, whose objects are taken along.
build_toy() {
    local variant='' objects=obj bin=${BIN#"$PWD/"}
    if [[ $bin =~ sanitize-([^/]*) ]]; then variant=${BASH_REMATCH[1]} objects=sanitize-$variant/obj; fi
    mkdir -p "$T/tree/test" "$T/tree/build/${objects%obj}"
    cp -a Makefile common stages cuda packaging pipelines man "$T/tree"
    cp -a test/Makefile test/tools "$T/tree/test"
    cp -a "build/$objects" "$T/tree/build/${objects%obj}"
    cp test/data/toy/family.c "$T/tree/common/model/toy.c"
    echo 'FAMILY(toy)' >>"$T/tree/common/model/families.def"
    make -s -C "$T/tree" ${variant:+SANITIZE="$variant"} "${@/#/$bin/}" >"$T/log" 2>&1 || {
        cat "$T/log"
        return 1
    }
    PATH=$T/tree/$bin:$PATH
}

# Two layers, of which the last is MTP's, with two experts each.
toy_checkpoint() {
    local layer expert matrix header='' data='' at=0
    mkdir "$T/toy"
    echo '{"model_type": "toy", "num_hidden_layers": 1}' >"$T/toy/config.json"
    add tok.weight BF16 '[2,16]' 64 '\x3f'
    for layer in 0 1; do
        for expert in 0 1; do
            for matrix in a b c; do
                add blk.$layer.bank.$expert.$matrix.weight F8_E4M3 '[32,32]' 1024 '\x38'
                add blk.$layer.bank.$expert.$matrix.scale F32 '[2,2]' 16 '\x3f'
            done
        done
        add blk.$layer.router.weight BF16 '[2,32]' 128 '\x3f'
        for matrix in v k q; do
            add blk.$layer.mix.$matrix.weight BF16 '[32,32]' 2048 '\x3f'
        done
    done
    add out.weight BF16 '[2,16]' 64 '\x3f'
    safetensors "$T/toy/model.safetensors" "{$header}" "$data"
}

# The dump of a calibration that reached expert 0 only: 1, 2 and 4 for a, b and c.
toy_amaxes() {
    local header='' data='' at=0 matrix
    local -A value=([a]='\x00\x00\x80\x3f' [b]='\x00\x00\x00\x40' [c]='\x00\x00\x80\x40')
    for matrix in a b c; do
        header+="${header:+,}\"dump.blk.0.bank.0.$matrix.input_quantizer._amax\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[$at,$((at + 4))]}"
        data+=${value[$matrix]}
        at=$((at + 4))
    done
    safetensors "$T/amax.safetensors" "{$header}" "$data"
}

@test "a toy family, by one file and one line: from st-read --layers to nvfp4-pack" {
    build_toy st-read st-ls st-stat amax-merge nvfp4-pack
    toy_checkpoint
    # Its order, and its layers: the second one is MTP's.
    st-read --layers 0-9 "$T/toy" | tar xOf - .toc | cut -f1 >"$T/names"
    [ "$(head -n 6 "$T/names" | tr '\n' ' ')" = 'blk.0.mix.q.weight blk.0.mix.k.weight blk.0.mix.v.weight blk.0.router.weight blk.0.bank.0.a.scale blk.0.bank.0.a.weight ' ]
    [ "$(grep -c '^blk\.1\|^tok\|^out' "$T/names")" = 0 ]
    st-stat --json --place "$T/toy" |
        jq -es 'map(select(.name == "blk.1.bank.1.c.weight"))[0] | .section == "mtp" and .layer == 0 and .expert == 1 and .matrix == "c"'

    # Its dumps, and its groups of three: all share the largest, and expert 1 gets its layer's.
    toy_amaxes
    jq -n '{name: "toy", formats: {"*.mix.*": "keep", "*.router": "keep", "mtp.*": "keep", "blk.*": "NVFP4"},
        producer: {name: "modelopt"}, kv_cache_quant_algo: null, exclude_modules: []}' >"$T/recipe.json"
    amax-merge -q --model "$T/toy" --recipe "$T/recipe.json" --fallback layer-max "$T/amax.safetensors" >"$T/amax.ts"
    st-stat --tsv --place "$T/amax.ts" | cut -f1,7,16,17 >"$T/amaxes"
    [ "$(wc -l <"$T/amaxes")" -eq 6 ]
    [ "$(cut -f2 "$T/amaxes" | sort -u)" = 4 ]
    grep -qx $'dump.blk.0.bank.1.b.input_quantizer._amax\t4\tb\tinput amax' "$T/amaxes"

    # Its blocks of 16 x 16; the first pattern that matches counts; the family's router has to stay.
    jq 'del(.formats."*.router")' "$T/recipe.json" >"$T/router.json"
    refused "makes blk\\.0\\.router NVFP4 by 'blk\\.\\*'" nvfp4-pack -n -o "$T/x.ts" --recipe "$T/router.json" "$T/toy"
    nvfp4-pack -q --recipe "$T/recipe.json" --amax "$T/amax.ts" "$T/toy" >"$T/out.ts"
    st-ls --tsv "$T/out.ts" | cut -f1 >"$T/out"
    [ "$(grep -c '^blk\.0\.bank\..*weight_scale_2$' "$T/out")" -eq 6 ]
    [ "$(grep -c 'weight_scale_2$' "$T/out")" -eq 6 ]
    [ "$(tar xOf "$T/out.ts" .end | jq -c '.counts[0].experts')" = '{"routed":2}' ]
    for matrix in a b c; do # 4 / (6 * 448)
        tar xOf "$T/out.ts" blk.0.bank.1.$matrix.input_scale | od -An -tf4 | grep -q '0\.00148809'
    done

    # A member of the group that is kept, while the others are not, is an error.
    jq '.formats = {"*.c": "keep"} + .formats' "$T/recipe.json" >"$T/part.json"
    refused 'the recipe names blk.0.bank.0.b.weight, but not blk.0.bank.0.c.weight' \
        nvfp4-pack -o "$T/x.ts" --recipe "$T/part.json" --amax "$T/amax.ts" "$T/toy"
}
