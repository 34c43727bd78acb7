# test/bench/gpu-bench, what it does with several GPUs: stand-ins for programs, GPUs and V4-Pro.
load common
load craft

# A folder like that of make portable. What is made as V4-Pro is a small model, and two GPUs are found.
prepare() {
    mkdir -p "$T/bin/test" "$T/test" "$T/disk"
    cp test/bench/gpu-bench "$T/test/"
    cp "$BIN/st-cmp" "$T/bin/"
    write_script "$T/bin/mount" false
    write_script "$T/bin/nvidia-smi" 'echo "GPU 0: pretended"' 'echo "GPU 1: pretended"'
    # shellcheck disable=SC2016 # for the stand-in
    write_script "$T/bin/test/mkckpt" 'for last; do :; done' "cp -r '$NANO' \"\$last\""
    bench=("$T/test/gpu-bench" -d "$T/disk" -m "$T/disk" -n 1 -l 8)
}

# calibrates LINE...: amax-calib is these lines and then the real one, on the CPU, with tokens of the small model.
calibrates() {
    # shellcheck disable=SC2016 # for the stand-in
    write_script "$T/bin/amax-calib" "$@" 'for word; do
            shift
            case $word in cuda | --device) continue ;; */disk/*.safetensors) word='"'$GOLDEN/calib-ids.safetensors'"' ;; esac
            set -- "$@" "$word"
        done' "exec '$PWD/$BIN/amax-calib' -j 1 --samples 8 \"\$@\""
}

@test "ranks: times, amaxes and shares of the bytes that are read; other amaxes are told" {
    # shellcheck disable=SC2016 # for the stand-in
    calibrates 'case "$WORLD_SIZE $*" in "2 "*x8.safetensors*) set -- --all-experts "$@" ;; esac'
    run "${bench[@]}" ranks
    echo "$output"
    [ "$status" -eq 0 ]
    for samples in 128 512 512x8; do
        [ "$(grep -cE "^\| 2: $samples, 1 \| layers\.[0-3] (\| [0-9.]+ ){10}\|$" <<<"$output")" -eq 4 ]
    done
    grep -qx -- "- 128 samples, one GPU and 2: the same amaxes" <<<"$output"
    grep -qx -- "- 512 samples, one GPU and 2: the same amaxes" <<<"$output"
    grep -qx -- "- 512x8 samples, one GPU and 2: OTHER AMAXES" <<<"$output"
    # On the CPU each rank reads all but the embeddings, of which it reads the rows of its own tokens.
    [ "$(grep -cE -- '^- [0-9x]+ samples, 2 GPUs: .* each rank reads (0\.[5-9]|1\.0)[0-9]+ (0\.[5-9]|1\.0)[0-9]+$' <<<"$output")" -eq 3 ]
    [ -z "$(ls "$T/disk")" ]
}

@test "lost: each phase is told, with the seconds and the reason; so is a rank that ends well, and a result" {
    # shellcheck disable=SC2016 # for the stand-in
    ranks=('for n in 0 1 2; do echo "amax-calib[$RANK]: layers.$n. 1 s: read" >&2; done' 'sleep 0.7')
    # shellcheck disable=SC2016
    write_script "$T/bin/amax-calib" "${ranks[@]}" 'echo "amax-calib[$RANK]: the other has ended" >&2' 'exit 1'
    run "${bench[@]}" lost
    echo "$output"
    [ "$status" -eq 0 ]
    for signal in KILL STOP; do
        for phase in 'the start: rank 1' 'layers.0: rank 1' 'layers.1: rank 1' 'layers.0: rank 0'; do
            witness=$((1 - ${phase: -1}))
            grep -qxE -- "- $phase of 2 gets SIG$signal: all others end in [0-9.]+ s, rank $witness says: \
amax-calib\[$witness\]: the other has ended" <<<"$output"
        done
    done
    # shellcheck disable=SC2016
    write_script "$T/bin/amax-calib" "${ranks[@]}" 'while [ $# != 0 ]; do [ "$1" != -o ] || : >"$2"; shift; done'
    run "${bench[@]}" lost
    echo "$output"
    [ "$(grep -c 'layers.0: rank 1 of 2 .* s, RANK 0 WITH STATUS 0, AND A RESULT, rank 0 says: NOTHING$' <<<"$output")" -eq 2 ]
}
