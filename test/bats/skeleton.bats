#!/usr/bin/env bats
# skeleton: what every stage must do, to begin a new stage's tests with

load common

prepare() {
    PATH=$PWD/$BIN/test:$PATH # a stage of stages/ needs no such line
}

@test "every tensor passes, by reference" {
    pipeline "st-read '$NANO' | skeleton >'$T/out.ts'"
    st-cmp "$NANO" "$T/out.ts"
    [ "$(tar -tvf "$T/out.ts" | grep -c '^l.* -> model-.*@')" = 667 ]
}

@test "bytes that come inline stay inline" {
    pipeline "st-read --inline '$NANO' | skeleton -o '$T/out.ts'"
    st-cmp "$NANO" "$T/out.ts"
    [ "$(tar -tvf "$T/out.ts" | grep -c '^l')" = 0 ]
}

@test "a checkpoint's folder is as good as its stream" {
    skeleton -o "$T/a.ts" "$NANO"
    pipeline "st-read '$NANO' | skeleton >'$T/b.ts'"
    st-cmp "$T/a.ts" "$T/b.ts"
}

@test "a plan has the run's table and no tensor" {
    skeleton -o "$T/run.ts" "$NANO"
    skeleton -n -o "$T/plan.ts" "$NANO"
    diff <(tar -xOf "$T/run.ts" .toc) <(tar -xOf "$T/plan.ts" .toc)
    [ "$(tar -tf "$T/plan.ts" | grep -cE '^(layers|mtp|embed)')" = 0 ]
}

@test "it enters itself in the history" {
    pipeline "st-read '$NANO' | skeleton -q | tar -xOf - .stream" >"$T/stream"
    jq -e '[.history[].program] == ["st-read", "skeleton"] and .history[1].options == []' "$T/stream"
}

@test "a stream that is cut is refused, and nothing looks finished" {
    st-read -o "$T/in.ts" "$NANO"
    head -c 300000 "$T/in.ts" >"$T/cut.ts"
    run skeleton -o "$T/out.ts" "$T/cut.ts"
    [ "$status" = 1 ]
    [ ! -e "$T/out.ts" ]
}

@test "usage" {
    run skeleton --help
    [ "$status" = 0 ]
    [[ ${lines[0]} == 'usage: skeleton '* ]]
    run skeleton --no-such-option
    [ "$status" = 2 ]
    run skeleton a b
    [ "$status" = 2 ]
}
