# 50,000 changed inputs for each parser, the same ones each time; `make fuzz` tries more, and others.

load common

# fuzzed TARGET: none of the inputs crashes it, leaks, or takes more than 512 MiB, or ten seconds (a busy
# machine may stop for a while; `make fuzz` allows one).
fuzzed() {
    mkdir "$T/corpus"
    # test/tools/check's options for programs that die by design.
    unset ASAN_OPTIONS UBSAN_OPTIONS
    run "build/sanitize-fuzz/bin/fuzz/$1" -runs=50000 -seed=1 -timeout=10 -rss_limit_mb=512 -max_len=16384 \
        -artifact_prefix="$T/" "$T/corpus" "test/fuzz/corpus/$1"
    [ "$status" -eq 0 ] || printf '%s\n' "${lines[@]: -40}"
    [ "$status" -eq 0 ]
    [[ $output == *'Done 50000 runs'* ]]
}

@test "arriving: the notes of a run that is continued, and the stream that comes" {
    fuzzed arriving
}

@test "calibration: what amax-calib --resume keeps" {
    fuzzed calibration
}

@test "checkpoint: index and config.json" {
    fuzzed checkpoint
}

@test "header: the JSON in streams, and what is made of it" {
    fuzzed header
}

@test "journal: the table and notes of st-write" {
    fuzzed journal
}

@test "json: the walker" {
    fuzzed json
}

@test "pickle: the machine" {
    fuzzed pickle
}

@test "pt: PyTorch's files" {
    fuzzed pt
}

@test "ranks: hellos, answers, messages, signs of life" {
    fuzzed ranks
}

@test "recipe" {
    fuzzed recipe
}

@test "safetensors: headers" {
    fuzzed safetensors
}

@test "stream: the tar and what is in it" {
    fuzzed stream
}

@test "toc: tables" {
    fuzzed toc
}

@test "tokenizer: tokenizer.json, its configuration, and texts" {
    fuzzed tokenizer
}

@test "every fuzzer is run here" {
    for source in test/fuzz/*.c; do
        name=${source##*/}
        name=${name%.c}
        [[ $name = @(fuzz|entries) ]] || grep -qx " *fuzzed $name" "$BATS_TEST_FILENAME"
    done
}
