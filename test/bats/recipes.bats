# Recipes besides the default one: everything to NVFP4, against what Model Optimizer's NVFP4QTensor makes.
load common
load craft

PATH=$PWD/pipelines:$PATH
RECIPES=$PWD/pipelines/recipes/deepseek_v4

# full_amaxes FIXTURES AMAX: the golden amaxes of every matrix of the recipe, as an amax stream.
full_amaxes() {
    local file=$1/golden/full-amax.safetensors length header
    length=$(od -An -tu8 -N8 "$file")
    header=$(tail -c +9 "$file" | head -c "$((length))" | jq -c 'with_entries(.key |= if . == "__metadata__" then .
        else capture("(?<module>.*)[.](?<which>.*)") | "\(.module)_\(.which)_quantizer._amax" end)')
    { le64 ${#header} && printf '%s' "$header" && tail -c +$((9 + length)) "$file"; } >"$T/amax.safetensors"
    amax-merge -q --model "$1/ckpt" --recipe full --fallback layer-max -o "$2" "$T/amax.safetensors"
}

# like_golden FIXTURES RESULT: every tensor of the golden is there, byte for byte, and nothing else is NVFP4 but
# the input scales of experts that the golden's calibration did not reach.
like_golden() {
    sed 's/\tuint8\t/\tU8\t/; s/\tfloat8_e4m3fn\t/\tF8_E4M3\t/; s/\tfloat32\t/\tF32\t/; s/[][ ]//g' \
        "$1/golden/full.tsv" | LC_ALL=C sort >"$T/wanted"
    digests "$2" >"$T/got"
    [ -z "$(LC_ALL=C comm -13 "$T/got" "$T/wanted" | head -n 3 | tee /dev/stderr)" ] &&
        [ -z "$(LC_ALL=C comm -23 "$T/got" "$T/wanted" | cut -f1 | grep -E 'weight_scale(_2)?$' | tee /dev/stderr)" ] &&
        [ "$(cut -f1 "$T/got" | grep -c 'input_scale$')" = "$(grep -c 'weight_scale_2' "$T/wanted")" ]
}

@test "full: every tensor is the golden's, fused or through BF16" {
    fixtures v4-nano
    full_amaxes "$FIXTURES" "$T/amax.ts"
    pack="nvfp4-pack --recipe full --amax '$T/amax.ts'"
    pipeline "$pack '$NANO' >'$T/full.ts'"
    like_golden "$FIXTURES" "$T/full.ts"
    pipeline "fp8-dequant --recipe full '$NANO' | mxfp4-unpack --recipe full | $pack >'$T/stages.ts'"
    [ "$(st-sum "$T/full.ts")" = "$(st-sum "$T/stages.ts")" ]
}

@test "full: the same of a larger model" {
    fixtures v4-mini
    full_amaxes "$FIXTURES" "$T/amax.ts"
    nvfp4-pack -q --recipe full --amax "$T/amax.ts" -o "$T/full.ts" "$FIXTURES/ckpt"
    like_golden "$FIXTURES" "$T/full.ts"
}

@test "full without loss: MXFP4 is cast, FP8 packed; the same from v4-experts, whole and in parts" {
    fixtures v4-nano
    full_amaxes "$FIXTURES" "$T/amax.ts"
    options="--recipe full --amax '$T/amax.ts'"
    pipeline "nvfp4-cast --zero positive $options '$NANO' | nvfp4-pack $options >'$T/full.ts'"
    # Experts as the cast makes them, all else as packing does.
    digests "$T/full.ts" >"$T/got"
    nvfp4-cast --zero positive --amax "$T/amax.ts" "$NANO" >"$T/cast.ts"
    nvfp4-pack --recipe full --amax "$T/amax.ts" "$NANO" >"$T/pack.ts"
    diff <(grep '\.experts\.' "$T/got") <(digests "$T/cast.ts" | grep '\.experts\.')
    diff <(grep -v '\.experts\.' "$T/got") <(digests "$T/pack.ts" | grep -v '\.experts\.')
    pipeline "nvfp4-cast --zero positive $options '$NANO' | fp8-dequant --recipe full | nvfp4-pack $options | st-sum >'$T/stages'"
    st-sum "$T/full.ts" | cmp - "$T/stages"
    for jobs in 1 2; do
        v4-experts -q --recipe full --zero positive --jobs $jobs --amax "$T/amax.ts" "$NANO" "$T/out$jobs"
        digests "$T/out$jobs" | diff - "$T/got"
    done
    v4-experts -q --recipe full --lossy --amax "$T/amax.ts" "$NANO" "$T/lossy"
    like_golden "$FIXTURES" "$T/lossy"
}
