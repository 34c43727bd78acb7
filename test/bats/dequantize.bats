load common
load craft

@test "fp8-dequant and mxfp4-unpack: as plain PyTorch has it, in either order" {
    pipeline "fp8-dequant '$NANO' | mxfp4-unpack >'$T/a.ts'"
    pipeline "mxfp4-unpack '$NANO' | fp8-dequant >'$T/b.ts'"
    diff <(digests "$T/a.ts") <(golden "$GOLDEN/bf16.tsv")
    diff <(digests "$T/b.ts") <(golden "$GOLDEN/bf16.tsv")
}

@test "nvfp4-unpack gives back the cast's values" {
    amaxes "$T/amax.ts"
    pipeline "nvfp4-cast --amax '$T/amax.ts' '$NANO' | nvfp4-unpack >'$T/a.ts'"
    pipeline "mxfp4-unpack '$NANO' >'$T/b.ts'"
    st-cmp --values --common "$T/a.ts" "$T/b.ts"
    run grep -E 'scale_2|input_scale|layers.*experts.*weight_scale' <(tar xOf "$T/a.ts" .toc)
    [ "$status" -eq 1 ]
}

@test "only tensors that change are inline" {
    pipeline "fp8-dequant '$NANO' >'$T/a.ts'"
    tar tvf "$T/a.ts" layers.0.attn.wkv.weight | grep -q '^-'
    tar tvf "$T/a.ts" layers.0.ffn.experts.0.w1.weight | grep -q '^l'
}

@test "one stage of a pipeline run again by hand, on a tee'd stream" {
    pipeline "st-read '$NANO' | tee '$T/mid.ts' | fp8-dequant | mxfp4-unpack >'$T/a.ts'"
    fp8-dequant <"$T/mid.ts" >"$T/b.ts"
    mxfp4-unpack "$T/b.ts" -o "$T/c.ts"
    cmp "$T/a.ts" "$T/c.ts"
    [ ! -e "$T/c.ts.partial" ]
}

@test "counts travel in .end" {
    pipeline "fp8-dequant '$NANO' | mxfp4-unpack >'$T/a.ts'"
    [ "$(tar xOf "$T/a.ts" .end | jq -c '[.counts[] | [.program, .dequantized]]')" = \
        '[["fp8-dequant",44],["mxfp4-unpack",240]]' ]
}

@test "FP8 with one scale for the whole tensor, and with F32 scales of blocks" {
    printf -v ones '\\x38%.0s' {1..512}
    for scale in 'weight_scale|[]|4|\x00\x00\x00\x3f' 'scale|[1,2]|8|\x00\x00\x00\x3f\x00\x00\x00\x3f'; do
        IFS='|' read -r suffix shape size bytes <<<"$scale"
        safetensors "$T/m.safetensors" \
            "{\"x.weight\":{\"dtype\":\"F8_E4M3\",\"shape\":[2,256],\"data_offsets\":[0,512]},\"x.$suffix\":{\"dtype\":\"F32\",\"shape\":$shape,\"data_offsets\":[512,$((512 + size))]}}" \
            "$ones$bytes"
        fp8-dequant -o "$T/x.ts" "$T/m.safetensors"
        [ "$(tar xOf "$T/x.ts" x.weight | od -An -v -tx2 -w2 | sort | uniq -c | tr -s ' ')" = ' 512 3f00' ]
    done
}
