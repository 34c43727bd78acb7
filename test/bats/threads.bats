load common
load craft

# The five stages that convert weights, with what they need to run over the bundled checkpoint.
prepare() {
    amaxes "$T/amax.ts"
    nvfp4-cast --amax "$T/amax.ts" -o "$T/nvfp4.ts" "$NANO"
    stages=(
        "fp8-dequant '$NANO'"
        "mxfp4-unpack '$NANO'"
        "nvfp4-unpack '$T/nvfp4.ts'"
        "nvfp4-pack --amax '$T/amax.ts' '$NANO'"
        "nvfp4-cast --amax '$T/amax.ts' '$NANO'"
        "nvfp4-cast --amax '$T/amax.ts' --zero positive '$NANO'"
    )
}

@test "any number of threads gives the same stream, to the last byte" {
    for stage in "${stages[@]}"; do
        pipeline "$stage >'$T/a.ts'"
        for threads in 1 2 3 8 32; do
            pipeline "$stage -j $threads >'$T/b.ts'"
            cmp "$T/a.ts" "$T/b.ts" || { echo "$stage -j $threads" && return 1; }
        done
    done
}

@test "st-sum: the same sums in the same order for any number of threads" {
    # Large and small tensors, by reference and inline.
    "$BIN/test/mkckpt" --fill --model flash --layers 1 --set n_routed_experts=2 --set vocab_size=4096 \
        --set num_nextn_predict_layers=0 "$T/ckpt"
    fp8-dequant -o "$T/mixed.ts" "$T/ckpt"
    for input in "$NANO" "$T/ckpt" "$T/mixed.ts"; do
        st-sum --each -j 1 "$input" >"$T/a"
        [ "$(cut -f2 "$T/a")" = "$(st-ls --tsv "$input" | cut -f1)" ]
        for threads in 2 9; do
            st-sum --each -j $threads "$input" >"$T/b"
            cmp "$T/a" "$T/b"
        done
        [ "$(st-sum -j 1 "$input")" = "$(st-sum -j 5 "$input")" ]
    done
}

@test "st-stat, st-cmp: the same text for any number of threads" {
    "$BIN/test/mkckpt" --fill --model flash --layers 1 --set n_routed_experts=2 --set vocab_size=4096 \
        --set num_nextn_predict_layers=0 "$T/ckpt"
    nvfp4-pack -o "$T/packed.ts" --amax "$T/amax.ts" "$NANO"
    fp8-dequant -o "$T/mixed.ts" "$T/ckpt"
    reports=(
        "st-stat --hist '$T/ckpt'"
        "st-stat --values --tsv --hist '$T/mixed.ts'"
        "st-stat --values --json '$T/nvfp4.ts'"
        "st-cmp --json '$NANO' '$T/packed.ts'"
        "st-cmp -v --values --json '$NANO' '$T/packed.ts'"
        "st-cmp -v --values '$T/ckpt' '$T/mixed.ts'"
        "st-cmp '$T/mixed.ts' '$T/ckpt'"
    )
    for report in "${reports[@]}"; do
        bash -c "$report -j 1 >'$T/a'" || [ $? = 1 ]
        [ -s "$T/a" ]
        for threads in 2 3 9; do
            bash -c "$report -j $threads >'$T/b'" || [ $? = 1 ]
            cmp "$T/a" "$T/b" || { echo "$report -j $threads" && return 1; }
        done
    done
}

@test "any instructions give the same stream, to the last byte" {
    for stage in "${stages[@]}"; do
        pipeline "$stage --cpu portable >'$T/a.ts'"
        for cpu in avx2 avx512; do
            grep -qw "${cpu/avx512/avx512bw}" /proc/cpuinfo || continue
            pipeline "$stage --cpu $cpu >'$T/b.ts'"
            cmp "$T/a.ts" "$T/b.ts" || { echo "$stage --cpu $cpu" && return 1; }
        done
    done
}

@test "blocks out of range, zero scale bytes and the like: the same for any threads and instructions" {
    fixtures v4-mini
    amaxes "$T/mini.ts" layer-max "$FIXTURES/golden/amax" "$FIXTURES/ckpt"
    for stage in nvfp4-pack nvfp4-cast 'nvfp4-cast --zero positive'; do
        pipeline "$stage --amax '$T/mini.ts' -j 1 --cpu portable '$FIXTURES/ckpt' >'$T/a.ts'"
        pipeline "$stage --amax '$T/mini.ts' -j 5 '$FIXTURES/ckpt' >'$T/b.ts'"
        cmp "$T/a.ts" "$T/b.ts"
    done
}

@test "inline tensors pass in order among those that are converted" {
    st-read --inline -o "$T/inline.ts" "$NANO"
    pipeline "mxfp4-unpack '$NANO' | st-sum >'$T/a'"
    pipeline "mxfp4-unpack -j 1 '$T/inline.ts' | st-sum >'$T/b'"
    pipeline "mxfp4-unpack -j 7 - <'$T/inline.ts' | st-sum >'$T/c'"
    cmp "$T/a" "$T/b"
    cmp "$T/a" "$T/c"
}

@test "the first weight that cannot be packed is the one that is named, whatever came first" {
    st-read --inline -o "$T/in.ts" "$NANO"
    pipeline "mxfp4-unpack '$T/in.ts' >'$T/bf16.ts'"
    # Two BF16 NaN, far apart in the same matrix.
    tensor=layers.1.ffn.experts.3.w2.weight
    offset=$(tar -tRf "$T/bf16.ts" | awk -v name="$tensor" '$3 == name { print ($2 + 0 + 1) * 512 }')
    for at in 40000 10; do
        printf '\377\377' | dd of="$T/bf16.ts" bs=1 seek=$((offset + at)) conv=notrunc status=none
    done
    for threads in 1 2 9; do
        refused "$tensor: row 0, column 5 is NaN or infinite" \
            nvfp4-pack -j $threads --amax "$T/amax.ts" "$T/bf16.ts"
    done
}

@test "a source that is cut while threads are at work: one line, no valid end" {
    st-read -o "$T/in.ts" --inline "$NANO"
    head -c 3000000 "$T/in.ts" >"$T/cut.ts"
    for threads in 1 4; do
        refused 'make it again' mxfp4-unpack -j $threads "$T/cut.ts"
        mxfp4-unpack -j $threads "$T/cut.ts" >"$T/out.ts" 2>/dev/null || true
        refused 'make it again' st-ls "$T/out.ts"
    done
}

@test "wrong -j and --cpu are usage errors" {
    for option in '-j 33' '-j x' '-j'; do
        for report in "st-stat '$NANO'" "st-cmp '$NANO' '$NANO'"; do
            run bash -c "$report $option"
            [ "$status" -eq 2 ]
        done
    done
    for stage in "${stages[@]}"; do
        for option in '-j 33' '-j x' '-j' '--cpu sse2' '--cpu'; do
            run bash -c "$stage $option"
            [ "$status" -eq 2 ]
        done
    done
}
