#!/usr/bin/env bats
# st-grep

load common
load craft

# names [STREAM]: the names of its tensors.
names() {
    st-ls --tsv "$@" | cut -f1
}

@test "keeps what grep -E would, in order, with its bytes" {
    names "$NANO" >"$T/names"
    for pattern in '^layers\.[02]\.attn\.' 'w(1|3)\.weight$' 'norm|head' '(^|\.)mtp|7{1}' ''; do
        st-grep "$pattern" "$NANO" >"$T/out.ts"
        grep -E -- "$pattern" "$T/names" | diff - <(names "$T/out.ts")
        st-cmp --common "$NANO" "$T/out.ts"
    done
}

@test "-V -F -x -e as grep has them" {
    names "$NANO" >"$T/names"
    check() {
        st-grep "$@" "$NANO" | names >"$T/got"
        grep -E "${@/#-V/-v}" "$T/names" | diff - "$T/got"
    }
    check -V '^layers'
    check -e '^norm' -e 'experts\.1\.'
    check -V -e '^norm' -e 'experts\.1\.'
    check -x 'norm.weight|head.weight'
    st-grep -F 'experts.1.w1' "$NANO" | names >"$T/got"
    grep -F 'experts.1.w1' "$T/names" | diff - "$T/got"
    st-grep -F -x -e 'norm.weight' -e 'norm?weight' "$NANO" | names >"$T/got"
    [ "$(cat "$T/got")" = norm.weight ]
}

@test "references stay references, inline stays inline" {
    st-grep 'layers\.1\.' "$NANO" | st-ls --tsv | cut -f7 >"$T/where"
    run grep -vc '^model-' "$T/where"
    [ "$output" = 0 ]
    st-read --inline "$NANO" | st-grep 'layers\.1\.' | st-ls --tsv | cut -f7 | sort -u >"$T/where"
    [ "$(cat "$T/where")" = inline ]
}

@test "scope, history and side files" {
    scope() { st-ls --header "$1" | jq -r .scope; }
    st-grep '^layers' "$NANO" >"$T/a.ts"
    [ "$(scope "$T/a.ts")" = 'grep ^layers' ]
    [ "$(st-ls --header "$T/a.ts" | jq -c '.history[].options')" = '["--regexp=^layers"]' ]
    st-grep -V -e mtp -e head "$NANO" >"$T/b.ts"
    [ "$(scope "$T/b.ts")" = 'grep -V mtp head' ]
    pipeline "st-read --layers 0-1 '$NANO' | st-grep attn >'$T/c.ts'"
    [ "$(scope "$T/c.ts")" = 'layers 0-1, grep attn' ]
    st-grep . "$NANO" >"$T/d.ts"
    [ "$(scope "$T/d.ts")" = all ]
    run st-cmp -s --files --common "$NANO" "$T/a.ts"
    [[ ${lines[1]} == '5 side files: 5 equal'* ]]
}

@test "nothing left: exit 1, no stream" {
    run st-grep -o "$T/out.ts" '^nothing' "$NANO"
    [ "$status" = 1 ]
    [ "$output" = "st-grep: $NANO: none of its 667 tensors is left; see their names with st-ls" ]
    [ ! -e "$T/out.ts" ]
    st-grep nothing "$NANO" >"$T/out.ts" || true
    [ ! -s "$T/out.ts" ]
}

@test "a weight without its scales is refused by the next stage" {
    run pipeline "st-grep 'w1.weight' '$NANO' | mxfp4-unpack >/dev/null"
    [ "$status" = 1 ]
    [[ $output == *'st-grep'* ]]
    pipeline "st-grep 'w1\.' '$NANO' | mxfp4-unpack | st-sum"
}

@test "plans" {
    st-grep -n '^layers' "$NANO" >"$T/plan.ts"
    st-grep '^layers' "$NANO" | st-cmp -n - "$T/plan.ts"
    pipeline "st-read -n '$NANO' | st-grep '^layers' | st-cmp -n - '$T/plan.ts'"
    run st-ls --json "$T/plan.ts"
    [[ ${lines[0]} == *'"where":null}' ]]
}

@test "names that ranks repeat" {
    header='{"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"u":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}'
    mkdir "$T/mp"
    safetensors "$T/mp/model0-mp2.safetensors" "$header" ab
    safetensors "$T/mp/model1-mp2.safetensors" "$header" cd
    [ "$(st-grep t "$T/mp" | st-ls --tsv | cut -f1,5)" = $'t\tmodel0-mp2.safetensors\nt\tmodel1-mp2.safetensors' ]
}

@test "wrong usage exits 2" {
    run st-grep
    [ "$status" = 2 ]
    run st-grep '(' "$NANO"
    [ "$status" = 2 ]
    [[ ${lines[0]} == "st-grep: pattern '(': "* ]]
    run st-grep a "$NANO" c
    [ "$status" = 2 ]
    run st-grep -e a "$NANO" c
    [ "$status" = 2 ]
    run st-grep $'\xff' "$NANO"
    [ "$status" = 2 ]
}

@test "a cut stream is an error" {
    st-read -o "$T/a.ts" "$NANO"
    head -c 200000 "$T/a.ts" >"$T/cut.ts"
    run st-grep -o "$T/out.ts" '^layers\.0' "$T/cut.ts"
    [ "$status" = 1 ]
    [ ! -e "$T/out.ts" ]
}
